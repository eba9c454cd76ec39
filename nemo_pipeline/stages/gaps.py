"""Gaps: a short stretch without a face is interpolated and marked, a longer one ends the segment.

Damaged frames left out for longer end it too, since their content is unknown. A pause is not a gap:
recorders that drop repeated pictures let seconds pass between two frames that both show the face. It ends the segment
only where the face is elsewhere after it.
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
#: Two frames further apart than the last two by this much have a pause between them, seconds.
PAUSE_SECONDS = 0.5
#: After a pause the face is at the same place when it moved by less than this, in distances of the outer eye corners,
#: and grew or shrank by less than this factor.
SAME_PLACE, SAME_SIZE = 1.0, 1 / 0.6


@dataclasses.dataclass(slots=True)
class SegmentFrame(Generic[Payload]):
    """A frame of a segment. `tracked` is False where `seen` was interpolated."""

    index: int
    time: float
    seen: Observation
    tracked: bool
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
        self._last: SegmentFrame[Payload] | None = None
        self._previous: tuple[int, float] | None = None  # index and time of the last frame
        self._step = math.inf
        self._missing: list[_Missing[Payload]] = []

    def push(
        self, index: int, time: float, seen: Observation | None, n_faces: int, payload: Payload
    ) -> list[SegmentFrame[Payload] | None]:
        """The next frame; `seen` is None where there is no usable face."""
        out = self.finish() if self._breaks(index, time, seen) else []
        return out + self._next(index, time, seen, n_faces, payload)

    def _breaks(self, index: int, time: float, seen: Observation | None) -> bool:
        """Whether this frame cannot continue the segment because of what lies between it and the last frame."""
        previous, self._previous = self._previous, (index, time)
        if previous is None:
            return False
        longer = time - previous[1] - self._step  # than from one frame to the next so far
        left_out = index != previous[0] + 1
        pause = longer > max(self._max_gap, PAUSE_SECONDS)
        if math.isinf(self._step) or not (left_out or pause):
            self._step = time - previous[1]
        if left_out:
            return longer > self._max_gap
        if not pause or self._missing or self._last is None or seen is None:
            return False
        return not _same_place(self._last.seen, seen)

    def _next(
        self, index: int, time: float, seen: Observation | None, n_faces: int, payload: Payload
    ) -> list[SegmentFrame[Payload] | None]:
        if seen is None:
            if self._last is None:
                return []
            self._missing.append(_Missing(index, time, n_faces, payload))
            if time - self._missing[0].time > self._max_gap:
                return self.finish()
            return []
        out: list[SegmentFrame[Payload] | None] = []
        entry = SegmentFrame(index, time, seen, True, n_faces, payload)
        if self._last is not None:
            short = not self._missing or time - self._missing[0].time <= self._max_gap
            if short and seen.person == self._last.seen.person:
                out += [_between(self._last, entry, missing) for missing in self._missing]
            else:
                out.append(None)
        self._missing = []
        self._last = entry
        return [*out, entry]

    def finish(self) -> list[SegmentFrame[Payload] | None]:
        """No more frames of this segment: frames without a face at its end are not part of it."""
        open_ = self._last is not None
        self._last, self._missing = None, []
        return [None] if open_ else []


def _same_place(a: Observation, b: Observation) -> bool:
    """Whether two looks can be of one face that hardly moved."""
    size, other = sorted((a.eye_distance_px, b.eye_distance_px))
    moved = float(np.hypot(*(b.landmarks.mean(axis=0) - a.landmarks.mean(axis=0))))
    return moved < SAME_PLACE * other and other < SAME_SIZE * size


def _between(
    before: SegmentFrame[Payload], after: SegmentFrame[Payload], missing: _Missing[Payload]
) -> SegmentFrame[Payload]:
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
        eye_distance_px=(1 - w) * a.eye_distance_px + w * b.eye_distance_px,
        face_presence=float("nan"),
    )
    return SegmentFrame(missing.index, missing.time, seen, False, missing.n_faces, missing.payload)


def _turn(degrees: float) -> float:
    """The same turn, between -180 and 180 degrees."""
    return (degrees + 180.0) % 360.0 - 180.0
