"""Gaps: a short stretch without a face is interpolated and marked, a longer one ends the segment.

So does a hole in the recording: damaged frames that were left out for longer than that, or a long time without
any frame.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Generic, TypeVar

import numpy as np

from nemo_pipeline.stages.track import Observation

Payload = TypeVar("Payload")

#: Containers that count in milliseconds round both ends of a gap, seconds.
_ROUNDING = 0.0015
#: Two frames further apart than the last two by this much are two recordings, seconds.
HOLE_SECONDS = 0.5


@dataclasses.dataclass(slots=True)
class Entry(Generic[Payload]):
    """A frame of a segment. `observed` is False where `seen` was interpolated."""

    index: int
    time: float
    seen: Observation
    observed: bool
    n_faces: int
    payload: Payload


@dataclasses.dataclass(slots=True)
class _Missing(Generic[Payload]):
    index: int
    time: float
    n_faces: int
    payload: Payload


class SegmentBuilder(Generic[Payload]):
    """Cuts one person's frames into segments as they arrive.

    `push` returns what the new frame settles: a list of frames that now belong to the current segment, with
    None where a segment ends.

    Args:
        max_gap_seconds: the longest stretch without a face that is interpolated, from the start of its
            first frame to the start of the next frame with a face.
    """

    def __init__(self, max_gap_seconds: float) -> None:
        self._max_gap = max_gap_seconds + _ROUNDING
        self._last: Entry[Payload] | None = None
        self._previous: tuple[int, float] | None = None  # index and time of the last frame
        self._step = math.inf
        self._missing: list[_Missing[Payload]] = []

    def push(
        self, index: int, time: float, seen: Observation | None, n_faces: int, payload: Payload
    ) -> list[Entry[Payload] | None]:
        """The next frame; `seen` is None where there is no usable face."""
        out = self.finish() if self._hole_before(index, time) else []
        return out + self._next(index, time, seen, n_faces, payload)

    def _hole_before(self, index: int, time: float) -> bool:
        """Whether too much is missing between the last frame and this one."""
        hole = False
        if self._previous is not None:
            step = time - self._previous[1]
            left_out = index != self._previous[0] + 1
            hole = step - self._step > (self._max_gap if left_out else max(self._max_gap, HOLE_SECONDS))
            self._step = step if math.isinf(self._step) or not left_out else self._step
        self._previous = (index, time)
        return hole

    def _next(
        self, index: int, time: float, seen: Observation | None, n_faces: int, payload: Payload
    ) -> list[Entry[Payload] | None]:
        if seen is None:
            if self._last is None:
                return []
            self._missing.append(_Missing(index, time, n_faces, payload))
            if time - self._missing[0].time > self._max_gap:
                return self.finish()
            return []
        out: list[Entry[Payload] | None] = []
        entry = Entry(index, time, seen, True, n_faces, payload)
        if self._last is not None:
            short = not self._missing or time - self._missing[0].time <= self._max_gap
            if short and seen.person == self._last.seen.person:
                out += [_between(self._last, entry, missing) for missing in self._missing]
            else:
                out.append(None)
        self._missing = []
        self._last = entry
        return [*out, entry]

    def finish(self) -> list[Entry[Payload] | None]:
        """No more frames of this segment: frames without a face at its end are not part of it."""
        open_ = self._last is not None
        self._last, self._missing = None, []
        return [None] if open_ else []


def _between(before: Entry[Payload], after: Entry[Payload], missing: _Missing[Payload]) -> Entry[Payload]:
    """A frame without a face, linearly in time between its neighbours with one."""
    w = (missing.time - before.time) / (after.time - before.time)
    a, b = before.seen, after.seen
    roll = a.pose[2] + w * _turn(b.pose[2] - a.pose[2])  # the short way round
    seen = Observation(
        person=a.person,
        mesh=((1 - w) * a.mesh + w * b.mesh).astype(np.float32),
        landmarks=(1 - w) * a.landmarks + w * b.landmarks,
        pose=(
            (1 - w) * a.pose[0] + w * b.pose[0],
            (1 - w) * a.pose[1] + w * b.pose[1],
            _turn(roll),
        ),
        face_px=(1 - w) * a.face_px + w * b.face_px,
        score=float("nan"),
    )
    return Entry(missing.index, missing.time, seen, False, missing.n_faces, missing.payload)


def _turn(degrees: float) -> float:
    """The same turn, between -180 and 180 degrees."""
    return (degrees + 180.0) % 360.0 - 180.0
