"""A prepared file as a dataset of PyTorch: faces, points and labels as tensors, for models of your own. SIAM is not
needed, and nothing of it is imported."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nemo_pipeline.errors import DataError
from nemo_pipeline.store.reader import FaceDataset


class FaceClips(Dataset):
    """The videos of a prepared file that have frames, in its order. `DataLoader` takes it, with several workers too:
    every process opens the file for itself.

    Args:
        data: the file, or its path.
        ids: the videos to take, in this order; by default all with frames.
        frames: give so many frames of each video, evenly spaced from its first to its last (the same one again where
            there are fewer), so that a batch is one tensor; None for all, to be put together by `pad`.
        target: label column that becomes `target`: a number ("age", "fold"), or text, as the numbers of its values in
            alphabetical order (`classes`).
        transform: applied to the (T, S, S) float32 faces.

    Items are dictionaries: `faces` (T, S, S) float32, gray levels 0 to 1, 0 outside the face; `landmarks` (T, 68, 2)
    float32, source pixels; `timestamps` (T,) float64, seconds; `target`, float32 (NaN where an age is unknown) or, of
    text, int64; `id` and `subject`, text.

    Raises:
        NemoError: a video is not in the file, has no frames, or there is no such label.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from nemo_pipeline.torch_dataset import FaceClips
        >>> clips = FaceClips("smiles.h5", frames=4)
        >>> batch = next(iter(DataLoader(clips, batch_size=2)))
        >>> tuple(batch["faces"].shape), batch["target"].dtype
        ((2, 4, 70, 70), torch.float32)
    """

    def __init__(
        self,
        data: FaceDataset | str | os.PathLike[str],
        ids: Sequence[str] | None = None,
        *,
        frames: int | None = None,
        target: str = "age",
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.data = data if isinstance(data, FaceDataset) else FaceDataset(data)
        self.ids = [video.id for video in self.data.values()] if ids is None else list(ids)
        self._frames, self._target, self._transform = frames, target, transform
        if target not in self.data.videos:
            raise DataError(f"{self.data.path} has no label {target!r}.", self.data.path)
        empty = next((name for name in self.ids if not self.data[name].length), None)
        if empty is not None:
            raise DataError(f"{self.data.path} has no frames of {empty!r}.", self.data.path)
        values = [getattr(self.data[name], target) for name in self.ids]
        #: The values of a label that is text, each counted by its place.
        self.classes: list[str] = sorted({v for v in values if isinstance(v, str)})
        self.subjects = [self.data[name].subject for name in self.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> dict[str, Any]:
        video = self.data[self.ids[number]]
        track = video.track("frames", "landmarks", "timestamps")
        which = np.arange(len(video))
        if self._frames is not None:
            which = np.linspace(0, len(video) - 1, self._frames).round().astype(int)
        faces = torch.from_numpy(track.frames[which]).float() / 255
        value = getattr(video, self._target)
        return {
            "faces": faces if self._transform is None else self._transform(faces),
            "landmarks": torch.from_numpy(track.landmarks[which]),
            "timestamps": torch.from_numpy(track.timestamps[which]),
            "target": torch.tensor(self.classes.index(value))
            if isinstance(value, str)
            else torch.tensor(float(value)),
            "id": video.id,
            "subject": video.subject,
        }


def pad(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`collate_fn` of a `DataLoader` for videos of unequal lengths: series are filled up with 0 at their end, and
    `length` (B,) says how long each is."""
    batch: dict[str, Any] = {"length": torch.tensor([len(item["faces"]) for item in items])}
    for name, first in items[0].items():
        values = [item[name] for item in items]
        if not isinstance(first, Tensor):
            batch[name] = values
        elif first.ndim == 0:
            batch[name] = torch.stack(values)
        else:
            batch[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
    return batch
