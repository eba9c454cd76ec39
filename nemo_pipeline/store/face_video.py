"""`FaceVideo`: one video of a prepared file, its labels and its arrays."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from nemo_pipeline.datatypes import VideoInfo, video_name
from nemo_pipeline.store.facetrack import FaceTrack, FrameArrays
from nemo_pipeline.store.schema import FRAME_FIELDS, StoredRow

if TYPE_CHECKING:
    from nemo_pipeline.store.reader import FaceDataset


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FaceVideo(FrameArrays, StoredRow):
    """One row of /videos, with its columns as attributes. Metadata are in memory; arrays are read from disk at every
    access, so store one that you use more than once in a variable.

    Every frame dataset of the file is an attribute: `.frames` (T,S,S) uint8, `.landmarks` (T,68,2) and so on
    (docs/file-format.md); `mesh` and `blendshapes` are None in a file made without them. `track()` reads all of them.
    `age` is NaN, `fold` -1 and text empty where no label is known. Times in seconds, points in source
    pixels (x, y).
    """

    dataset: FaceDataset = dataclasses.field(repr=False)
    row: int
    id: str
    subject: str
    age: float
    gender: str
    expression: str
    condition: str
    fold: int

    def __len__(self) -> int:
        return self.length

    @property
    def video_id(self) -> str:
        """The id without person and segment: that of the video."""
        return video_name(self.id, self.person, self.segment)

    @property
    def picture(self) -> str:
        """The displayed size, and the stored one if it differs: "1024 × 576 (720 × 576 at 64:45)"."""
        if self.width <= 0:
            return ""
        shown = f"{self.width} × {self.height}"
        stored = f"{self.stored_width} × {self.stored_height}"
        if self.pixel_aspect not in ("", "1:1"):
            return f"{shown} ({stored} at {self.pixel_aspect})"
        return shown

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Frames `start` to `stop` (half-open) of dataset `name`."""
        return self.dataset.read(self.row, name, start, stop)

    def holds(self, name: str) -> bool:
        """Whether the file's settings ask for this dataset."""
        setting = FRAME_FIELDS[name].setting
        return not setting or bool(getattr(self.dataset.config, setting))

    def track(self, *names: str) -> FaceTrack:
        """The arrays `names` in memory; by default all that the file has."""
        chosen = names or [n for n in self.dataset.fields if n in FRAME_FIELDS]
        facts = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(VideoInfo) if hasattr(self, f.name)
        }
        return FaceTrack(
            {name: self.read(name) for name in chosen}, self.status, self.message, self.n_decoded, VideoInfo(**facts),
            self.person, self.segment, self.file, self.id, None, self.sha256, self.subject.strip(), self.age,
        )  # fmt: skip
