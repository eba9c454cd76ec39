"""What the compared methods read of a video: the same from a prepared file and from plain arrays."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.geometry import Template, shipped_template
from nemo_pipeline.phases import Measure, Phases, find_phases
from nemo_pipeline.store import FaceVideo

#: Frames that are read at a time.
READ_FRAMES = 256


class Video(Protocol):
    """One video of T frames, faces of S x S pixels. Arrays may be read from disk each time they are asked for."""

    @property
    def template(self) -> Template:
        """Mean shape, triangles and hull of the faces."""
        ...

    @property
    def key(self) -> str:
        """What the video holds, as a hash, for a cache of features; "" where that is not known."""
        ...

    @property
    def expression(self) -> str:
        """`disgust` or anything else, which counts as a smile."""
        ...

    @property
    def landmarks(self) -> NDArray[np.floating]:
        """(T,68,2) smoothed points, source pixels."""
        ...

    @property
    def mesh(self) -> NDArray[np.floating] | None:
        """(T,478,3) face mesh, source pixels; None without a mesh."""
        ...

    @property
    def timestamps(self) -> NDArray[np.float64]:
        """(T,) seconds."""
        ...

    def __len__(self) -> int: ...

    def read_frames(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, S, S) faces."""
        ...


@functools.cache
def _shipped(size: int) -> Template:
    """One template for all videos of a size: it keeps its map of pixels."""
    return shipped_template(size)


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayVideo:
    """A `Video` of plain arrays.

    Attributes:
        frames: (T,S,S) uint8, gray, warped to the template's mean shape, 0 outside its hull.
        landmarks: (T,68,2), source pixels, x then y, iBUG order.
        timestamps: (T,) seconds, rising.
        mesh: (T,478,3) or None.
        expression: `smile`, `disgust` or "".
        shape: the template; None: the shipped mean shape at the faces' size.
    """

    frames: NDArray[np.uint8]
    landmarks: NDArray[np.floating]
    timestamps: NDArray[np.float64]
    mesh: NDArray[np.floating] | None = None
    expression: str = ""
    shape: Template | None = None
    key: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError where the arrays are not of one video."""
        frames = self.frames
        if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[1] != frames.shape[2]:
            raise ValueError(f"faces must be (T,S,S) uint8; these are {frames.shape} {frames.dtype}.")
        counts = {
            "landmarks": (self.landmarks.shape, (len(frames), 68, 2)),
            "timestamps": (self.timestamps.shape, (len(frames),)),
            "mesh": (self.mesh.shape if self.mesh is not None else None, (len(frames), 478, 3)),
        }
        for name, (found, needed) in counts.items():
            if found is not None and found != needed:
                raise ValueError(f"{name} must be {needed}, as there are {len(frames)} faces; it is {found}.")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def template(self) -> Template:
        return self.shape or _shipped(self.frames.shape[1])

    def read_frames(self, start: int, stop: int) -> NDArray[np.uint8]:
        return self.frames[start:stop]


@dataclasses.dataclass(frozen=True, eq=False)
class FileVideo:
    """A `Video` of a prepared file. Nothing is kept: each array is read when it is asked for.

    Attributes:
        source: the row of the file.
        template: of the file, shared by its videos.
    """

    source: FaceVideo
    template: Template

    def __len__(self) -> int:
        return self.source.length

    @property
    def key(self) -> str:
        stored = str(self.source.dataset.layout["data_sha256"][self.source.row])
        if not stored:
            return ""
        shape = self.template
        text = f"{stored} {_measure(self.expression)} {shape.size} {shape.margin!r}"
        return hashlib.sha256(
            text.encode() + shape.mean_shape.tobytes() + shape.triangles.tobytes()
        ).hexdigest()

    @property
    def expression(self) -> str:
        return self.source.expression

    @property
    def landmarks(self) -> NDArray[np.floating]:
        return self.source.landmarks

    @property
    def mesh(self) -> NDArray[np.floating] | None:
        return self.source.mesh

    @property
    def timestamps(self) -> NDArray[np.float64]:
        return self.source.timestamps

    def read_frames(self, start: int, stop: int) -> NDArray[np.uint8]:
        return self.source.read("frames", start, stop)


def blocks(video: Video) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The video's faces in order, as (first index, (n,S,S)) pieces."""
    for start in range(0, len(video), READ_FRAMES):
        yield start, video.read_frames(start, min(start + READ_FRAMES, len(video)))


def nearest_frames(timestamps: NDArray[np.float64], rate: float) -> NDArray[np.intp]:
    """Indices of the frames that are nearest in time to a clock of `rate` ticks a second, from the first frame to the
    last: (n,), never decreasing. The earlier of two that are equally near.

    Args:
        timestamps: (T,) seconds, never decreasing; T at least 1.
    """
    times = np.asarray(timestamps, dtype=np.float64)
    ticks = times[0] + np.arange(int(np.floor((times[-1] - times[0]) * rate + 1e-6)) + 1) / rate
    return np.searchsorted((times[1:] + times[:-1]) / 2, ticks - 1e-9, side="right")


def resampled(video: Video, rate: float, least: int = 1) -> Iterator[NDArray[np.uint8]]:
    """Faces (S,S) at `rate` frames a second by the nearest frame; the last one again and again until `least` were
    given."""
    wanted = nearest_frames(video.timestamps, rate)
    given = 0
    face = None
    for start, block in blocks(video):
        stop = start + len(block)
        for index in wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, stop)]:
            face = block[index - start]
            given += 1
            yield face
    while face is not None and given < least:
        given += 1
        yield face


def _measure(expression: str) -> Measure:
    return "disgust" if expression == "disgust" else "smile"


def video_phases(video: Video) -> Phases | None:
    """Onset, apex and offset by the signal of the video's expression; None where its landmarks give none (they are
    missing, or eyes or mouth have no extent)."""
    try:
        return find_phases(video.landmarks, video.timestamps, _measure(video.expression))
    except ValueError:
        return None


def key_frames(video: Video) -> tuple[int, int]:
    """The first and the last frame of the onset: a neutral and an expressive face.

    A video without an onset (nothing rises, or its landmarks are of no use) has none: then its first frame counts as
    neutral, and the frame with the largest amplitude, or the middle one, as expressive.
    """
    phases = video_phases(video)
    if phases is None:
        return 0, len(video) // 2
    start, stop = phases.onset
    if stop <= start:
        return 0, int(np.argmax(phases.amplitude))
    return start, stop - 1
