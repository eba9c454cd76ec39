"""Annotated copies of videos: what a prepared file holds of each frame, drawn over the picture.

A function of the video and the file. Frames that the file does not hold are shown without annotation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.datatypes import row_name
from nemo_pipeline.errors import DataError
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.landmarks import face_region
from nemo_pipeline.store.reader import FaceVideo
from nemo_pipeline.view.annotated import ANNOTATED
from nemo_pipeline.view.encode import draw_copy
from nemo_pipeline.view.overlay_draw import Page
from nemo_pipeline.view.overlay_strip import FrameState, PersonInFrame

#: Frames read at a time.
_BLOCK = 256
_FIELDS = ("frame_index", "timestamps", "tracked", "frames", "landmarks", "landmarks_raw", "pose", "eye_distance_px",
           "face_presence", "n_faces")  # fmt: skip


def overlay_mark(rows: Sequence[FaceVideo]) -> str:
    """What a copy that was drawn from these rows says of itself: it changes when they do."""
    facts = [(row.id, row.status, row.message, row.dataset.layout["data_sha256"][row.row]) for row in rows]
    return f"{ANNOTATED} {hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"


def draw_overlay(
    path: Path,
    target: Path,
    rows: Sequence[FaceVideo],
    *,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write an annotated copy of a prepared video.

    Args:
        path: the video.
        target: `.mp4` to write, by rename, readable by its owner alone.
        rows: the video's rows of the prepared file, at least one; several with several segments or persons.
        progress: called now and then with the number of frames drawn.

    Raises:
        NemoError: it cannot be read or written, or is another video than the one that was prepared.
    """
    first = rows[0]
    kept = [_Kept(row, number) for number, row in enumerate(rows, 1) if row.length]
    nobody = "" if kept else f"{first.status}: {first.message}"
    page: Page | None = None

    def draw(frame: Frame) -> NDArray[np.uint8]:
        nonlocal page
        page = page or Page(frame.width, frame.height, first.file, timeline(rows), nobody)
        return page.draw(frame, [one.shown() for one in kept if one.is_in(frame)])

    draw_copy(path, target, draw, stream=first.stream, comment=overlay_mark(rows), progress=progress)


class _Kept:
    """One row, frame by frame."""

    def __init__(self, row: FaceVideo, number: int) -> None:
        self._row, self._number = row, number
        self._name = row_name("", row.person, row.segment)
        self._mesh = "mesh" in row.dataset.fields
        self._frames = self._read()
        self._next = next(self._frames, None)
        self._now: dict[str, Any] = {}

    def _read(self) -> Iterator[dict[str, Any]]:
        names = (*_FIELDS, "mesh") if self._mesh else _FIELDS
        for start in range(0, self._row.length, _BLOCK):
            block = {name: self._row.read(name, start, start + _BLOCK) for name in names}
            for i in range(len(block["frame_index"])):
                yield {name: values[i] for name, values in block.items()}

    def is_in(self, frame: Frame) -> bool:
        """Whether the row holds this frame, which is then the one to show. Frames in ascending order."""
        while self._next is not None and self._next["frame_index"] < frame.index:
            self._next = next(self._frames, None)
        if self._next is None or self._next["frame_index"] != frame.index:
            return False
        self._now = self._next
        if abs(self._now["timestamps"] - frame.time) > 1e-6:
            raise DataError(
                f"frame {frame.index} is shown at {frame.time:.3f} s, and {self._now['timestamps']:.3f} s in "
                f"{self._row.dataset.path.name}: it is not the video that was prepared",
                self._row.dataset.path,
            )
        return True

    def shown(self) -> PersonInFrame:
        """The row in this frame."""
        now = self._now
        return PersonInFrame(
            self._number,
            FrameState.TRACKED if now["tracked"] else FrameState.INTERPOLATED,
            self._name,
            raw=now["landmarks_raw"].astype(np.float64),
            smoothed=now["landmarks"].astype(np.float64),
            region=face_region(now["mesh"]) if self._mesh and now["tracked"] else None,
            face=now["frames"],
            pose=tuple(float(angle) for angle in now["pose"]),
            eye_distance_px=float(now["eye_distance_px"]),
            face_presence=float(now["face_presence"]),
            n_faces=int(now["n_faces"]),
        )


def timeline(rows: Sequence[FaceVideo]) -> NDArray[np.uint8]:
    """(n_decoded,) the best `FrameState` of each frame in any of a video's rows, in one byte each."""
    indices = [row.read("frame_index") for row in rows]
    count = max([rows[0].n_decoded, *(int(index[-1]) + 1 for index in indices if len(index))])
    states = np.full(count, FrameState.NOT_KEPT, np.uint8)
    for row, index in zip(rows, indices, strict=True):
        states[index] = np.maximum(
            states[index], np.where(row.tracked, FrameState.TRACKED, FrameState.INTERPOLATED)
        )
    return states
