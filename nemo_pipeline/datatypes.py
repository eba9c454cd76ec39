"""The frozen types that travel between the stages. First axis is time; x before y; pixels of the upright frame;
seconds; degrees; years."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from nemo_pipeline.fields import from_record, plain
from nemo_pipeline.status import Status


@dataclasses.dataclass(frozen=True, slots=True)
class VideoFile:
    """One input video. `id` is unique in its run; `file` is the path as shown to people, relative to its input."""

    path: Path
    id: str
    file: str


@dataclasses.dataclass(frozen=True, slots=True)
class VideoInfo:
    """What the stream says of itself.

    Attributes:
        width, height: of the upright frame in square pixels, as displayed: those of all coordinates.
        fps: the average rate.
        rotation: degrees clockwise that turn the stored picture upright.
        codec, pixel_format: FFmpeg's names.
        stored_width, stored_height: of the first picture as stored, before it is turned.
        pixel_aspect: width to height of a stored pixel, "64:45"; "" where it is not known.
        transfer: the transfer function that is stated, as FFmpeg calls it, and what HDR's was mapped to; "" where
            none is stated.
        stream: its number among all streams of the file (ffprobe's index), -1 where that is not known.
    """

    width: int = 0
    height: int = 0
    fps: float = 0.0
    rotation: int = 0
    codec: str = ""
    pixel_format: str = ""
    stored_width: int = 0
    stored_height: int = 0
    pixel_aspect: str = ""
    transfer: str = ""
    stream: int = -1


def row_name(name: str, person: int, segment: int) -> str:
    """A row's id from its video's: "clip", "clip/s2", "clip#2" or "clip#2/s1"."""
    return name + (f"#{person}" if person else "") + (f"/s{segment}" if segment else "")


def video_name(row: str, person: int, segment: int) -> str:
    """The inverse of `row_name`."""
    return row.removesuffix(row_name("", person, segment))


@dataclasses.dataclass(frozen=True, slots=True)
class VideoRow:
    """One row of /videos in the making: a segment of one person in one video.

    Attributes:
        person: from 1 where everybody in the video is a row, the largest or first to appear first; else 0.
        segment: from 1 where every segment is a row, in order of time; else 0.
        spool: file name (inside the work folder) of the record file that holds its frames; "" when it has none.
        start, stop: half-open range of records in that file.
    """

    person: int
    segment: int
    spool: str
    start: int
    stop: int
    n_interpolated: int
    status: Status
    message: str

    @property
    def length(self) -> int:
        """Frames."""
        return self.stop - self.start


@dataclasses.dataclass(frozen=True, slots=True)
class VideoResult:
    """What the preparation of one video gave. Always at least one row, also for a video that failed.

    `landmarks_sha256` is the content of the landmark file that was used, "" where the face was tracked.
    """

    info: VideoInfo
    n_decoded: int
    rows: tuple[VideoRow, ...]
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    landmarks_sha256: str = ""

    def message(self, row: VideoRow) -> str:
        """What is said of a row: its own message, and the warnings about the video."""
        warnings = "; ".join(self.warnings)
        return f"{row.message} Also: {warnings}." if row.message and warnings else row.message or warnings

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VideoResult:
        """The inverse of `to_dict`. Raises ValueError if `values` are not such a record."""
        return from_record(cls, values)

    @classmethod
    def failed(
        cls, status: Status, message: str, info: VideoInfo | None = None, n_decoded: int = 0
    ) -> VideoResult:
        """A result without frames: one row that carries the status and its sentence."""
        row = VideoRow(0, 0, "", 0, 0, 0, status, message)
        return cls(info or VideoInfo(), n_decoded, (row,))
