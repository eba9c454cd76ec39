"""From out.h5 to batches: which videos can be learnt from, their standardisation, batches of like length."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.text import printable

#: Ages outside this range are a mistake in a label file (months, a year of birth, 999 for unknown).
AGE_RANGE = (0.0, 125.0)
_HOW_TO_LABEL = (
    "add the labels with `nemo label {file} FILE`, where FILE is the database's own details file or a CSV with "
    "the columns video, subject, age"
)


@dataclasses.dataclass(frozen=True, slots=True)
class VideoTable:
    """The videos of a file that can be learnt from, one row each.

    Attributes:
        index: (V,) position in the FaceDataset.
        id: V ids, unique.
        subject: V subject codes, none empty.
        age: (V,) float64, years.
        gender: V texts, "" where unknown.
        fold: (V,) int, -1 where the file names none.
        length: (V,) frames.
        dropped: how many usable videos were left out since they have no age or no subject.
    """

    index: np.ndarray
    id: tuple[str, ...]
    subject: tuple[str, ...]
    age: np.ndarray
    gender: tuple[str, ...]
    fold: np.ndarray
    length: np.ndarray
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.id)

    def rows_of(self, subjects: Iterable[str]) -> np.ndarray:
        """Rows of all videos of these subjects, in the table's order."""
        wanted = set(subjects)
        return np.flatnonzero([s in wanted for s in self.subject])


def labelled_videos(dataset: FaceDataset) -> VideoTable:
    """The usable videos of `dataset` that have a subject and an age.

    Raises:
        NemoError: there is none (what is missing, and how to add it), or an age cannot be one.
    """
    columns, file = dataset.videos, printable(str(dataset.path))
    how = _HOW_TO_LABEL.format(file=file)
    usable = np.asarray(dataset.usable, dtype=np.int64)
    if not len(usable):
        raise NemoError(f"{file} holds no video with frames; look at the statuses with `nemo info {file}`.")
    age = np.asarray(columns["age"], dtype=np.float64)[usable]
    subject = [str(columns["subject"][i]).strip() for i in usable]
    has_age, has_subject = np.isfinite(age), np.array([bool(s) for s in subject])
    if not has_age.any():
        raise NemoError(f"{file} has no ages, so there is nothing to learn from; {how}.")
    if not (has_age & has_subject).any():
        raise NemoError(
            f"{file} has ages but does not say which videos show the same person, so training and test could share "
            f"one; {how}."
        )
    wrong = has_age & ((age < AGE_RANGE[0]) | (age > AGE_RANGE[1]))
    if wrong.any():
        name = printable(str(columns["id"][usable[wrong][0]]))
        raise NemoError(
            f"{file} gives {name} an age of {age[wrong][0]:g} years, which cannot be right; correct it with "
            f"`nemo label {file} FILE`."
        )
    rows = np.flatnonzero(has_age & has_subject)
    index = usable[rows]
    return VideoTable(
        index=index,
        id=tuple(str(columns["id"][i]) for i in index),
        subject=tuple(subject[r] for r in rows),
        age=age[rows],
        gender=tuple(str(columns["gender"][i]) for i in index),
        fold=np.asarray(columns["fold"], dtype=np.int64)[index],
        length=np.asarray(columns["length"], dtype=np.int64)[index],
        dropped=len(usable) - len(rows),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and deviation of the gray levels (0..255) of the training part: one number each for all pixels."""

    mean: float
    deviation: float

    def __call__(self, frames: Tensor) -> Tensor:
        """uint8 frames of any shape -> float32, (x - mean) / deviation."""
        return (frames.to(torch.float32) - self.mean) / self.deviation


def measure_normalisation(dataset: FaceDataset, index: Sequence[int] | np.ndarray) -> Normalisation:
    """Over all pixels of the given videos, by a histogram: exact, and the same in any order."""
    counts = np.zeros(256, dtype=np.int64)
    for i in index:
        counts += np.bincount(np.asarray(dataset[int(i)].frames).ravel(), minlength=256)
    levels = np.arange(256, dtype=np.float64)
    mean = float((counts * levels).sum() / counts.sum())
    deviation = float(np.sqrt((counts * (levels - mean) ** 2).sum() / counts.sum()))
    return Normalisation(mean, max(deviation, 1.0))  # a constant set has no deviation to divide by


class Clip(NamedTuple):
    """What to read: a row of the table, and which of its interleaved series (frames phase, phase + step,
    ...).
    """

    row: int
    phase: int


class Batch(NamedTuple):
    """Videos of one step: frames (B,T,S,S) uint8, zero beyond a length; lengths (B,) int64; age (B,) float32;
    row (B,) int64 in the table."""

    frames: Tensor
    lengths: Tensor
    age: Tensor
    row: Tensor


class Clips(Dataset):
    """Reads clips. Holds no open file of its own: `FaceDataset` opens shards in the process that reads."""

    def __init__(self, dataset: FaceDataset, table: VideoTable, step: int) -> None:
        self.dataset, self.table, self.step = dataset, table, step

    def __getitem__(self, clip: Clip) -> tuple[Tensor, float, int]:
        """(T,S,S) uint8, age in years, row."""
        frames = np.asarray(self.dataset[int(self.table.index[clip.row])].frames)[clip.phase :: self.step]
        return torch.from_numpy(np.ascontiguousarray(frames)), float(self.table.age[clip.row]), clip.row


def collate(items: Sequence[tuple[Tensor, float, int]]) -> Batch:
    """Clips of different lengths as one zero-padded batch."""
    lengths = [len(frames) for frames, _, _ in items]
    frames = torch.zeros((len(items), max(lengths), *items[0][0].shape[1:]), dtype=torch.uint8)
    for b, (clip, _, _) in enumerate(items):
        frames[b, : lengths[b]] = clip
    ages = torch.tensor([age for _, age, _ in items], dtype=torch.float32)
    return Batch(frames, torch.tensor(lengths), ages, torch.tensor([row for _, _, row in items]))


class LengthBuckets(Sampler[list[Clip]]):
    """Batches of clips of like length, shuffled anew in every epoch.

    Lengths are compared with a random factor of up to a quarter either way, so that neighbours change from
    epoch to epoch while little is padded. The order depends on (seed, epoch) alone: it can be produced
    again at any epoch, in any process.
    """

    def __init__(
        self, table: VideoTable, rows: np.ndarray, batch_size: int, step: int, seed: Sequence[int], epoch: int
    ):
        rng = np.random.default_rng(np.random.SeedSequence([*seed, epoch]))
        length = table.length[rows]
        order = np.argsort(length * rng.uniform(0.75, 1.25, len(rows)), kind="stable")
        phase = rng.integers(0, np.minimum(step, length))
        clips = [Clip(int(rows[i]), int(phase[i])) for i in order]
        batches = [clips[i : i + batch_size] for i in range(0, len(clips), batch_size)]
        self.batches = [batches[i] for i in rng.permutation(len(batches))]

    def __iter__(self) -> Iterator[list[Clip]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def training_loader(
    clips: Clips, rows: np.ndarray, batch_size: int, seed: Sequence[int], epoch: int, workers: int = 0
) -> DataLoader:
    """One epoch of training batches."""
    sampler = LengthBuckets(clips.table, rows, batch_size, clips.step, seed, epoch)
    return DataLoader(clips, batch_sampler=sampler, collate_fn=collate, num_workers=workers)


def validation_loader(clips: Clips, rows: np.ndarray, batch_size: int, workers: int = 0) -> DataLoader:
    """The middle series of every video once, sorted by length."""
    length = clips.table.length[rows]
    order = rows[np.argsort(length, kind="stable")]
    keys = [Clip(int(r), int(min(clips.step // 2, clips.table.length[r] - 1))) for r in order]
    batches = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    return DataLoader(clips, batch_sampler=batches, collate_fn=collate, num_workers=workers)
