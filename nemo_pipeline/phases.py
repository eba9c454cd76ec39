"""Onset, apex and offset of an expression, from the landmarks alone. numpy only.

A measure turns 68 points into one number per frame, in mouth widths, which grows with the expression; the phases are
cut from that curve. After Dibeklioglu, Salah and Gevers ("Recognition of genuine smiles", IEEE Transactions on
Multimedia 17, 2015), from whom the paper takes onset, apex and offset: the onset is the longest continuous rise, the
offset the longest continuous fall after it, the apex what lies between.

What they leave open, and what is done here. A rise counts by the height that it climbs, not by its duration: over a
long clip the head's slow sway makes rises that last longer than any smile. It is continuous as long as the curve does
not fall back by a tenth of its range (`REVERSAL`), since a smile hesitates and tracking trembles. It begins where the
curve leaves its low end and ends where it reaches its high one, each by `MARGIN` of its height.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nemo_pipeline.stages.smooth import smooth_4253h_twice

Measure = Literal["smile", "disgust"]
PhaseName = Literal["onset", "apex", "offset"]

#: A movement back by this part of the curve's range ends a rise or a fall.
REVERSAL = 0.1
#: A phase's ends lie where its curve is this part of its height away from its lowest and highest value.
MARGIN = 0.05
#: A standstill this near to a phase's ends (part of its height) is where it begins or ends.
DRIFT = 0.25
#: Rises of less than this (mouth widths) are not an expression. Tracking's tremble after smoothing is some 0.003.
LEAST_RISE = 0.015

_RIGHT_EYE, _LEFT_EYE = [36, 39], [42, 45]  # both corners: lids blink
_RIGHT_CORNER, _LEFT_CORNER = 48, 54
#: Pairs of (inner end of a brow, what comes nearer to it as the nose wrinkles and the upper lip is raised).
_DISGUST_PAIRS = ([21, 21, 22, 22], [50, 31, 52, 35])


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Phases:
    """The phases of one video of T frames.

    Attributes:
        amplitude: (T,) float64, smoothed, mouth widths of the first frame.
        raw: (T,) float64, the same before it was smoothed.
        onset: `(start, stop)`, frames from `start` up to `stop` exclusive. Each phase begins where the one before
            ends. `(n, n)` if not found: no rise (all three), or a clip that ends before the expression
            fades (no offset; the apex then lasts to the end).
        apex: likewise.
        offset: likewise.
        timestamps: (T,) float64, seconds.
        measure: what was measured.
    """

    amplitude: NDArray[np.float64]
    raw: NDArray[np.float64]
    onset: tuple[int, int]
    apex: tuple[int, int]
    offset: tuple[int, int]
    timestamps: NDArray[np.float64]
    measure: Measure

    def mask(self, *names: PhaseName) -> NDArray[np.bool_]:
        """(T,) bool: the frames of these phases.

        Raises:
            ValueError: a name other than onset, apex and offset.
        """
        inside = np.zeros(len(self.amplitude), dtype=bool)
        for name in names:
            start, stop = self.range(name)
            inside[start:stop] = True
        return inside

    def range(self, name: PhaseName) -> tuple[int, int]:
        """`(start, stop)` of one phase. Raises ValueError when there is no such phase."""
        if name not in get_args(PhaseName):
            raise ValueError(f"there is no phase {name!r}; there are {', '.join(get_args(PhaseName))}.")
        found: tuple[int, int] = getattr(self, name)
        return found

    def seconds(self, name: PhaseName) -> float:
        """How long a phase lasts: to the first frame of the next one, or the clip's last frame. 0 when empty."""
        start, stop = self.range(name)
        if stop <= start:
            return 0.0
        return float(self.timestamps[min(stop, len(self.timestamps) - 1)] - self.timestamps[start])


def amplitude(landmarks: ArrayLike, measure: Measure = "smile") -> NDArray[np.float64]:
    """How far an expression has gone in every frame, in mouth widths of the first frame.

    Every frame is moved, turned and scaled so that its two eyes (each the mean of its corners) lie where all frames
    have them: position, roll and distance of the head drop out, yaw and pitch do not.

    `smile`: mean distance of the two lip corners from the middle between them in the first frame; 0.5 at rest.
    `disgust`: how much nearer the nose wings (31, 35) and the upper lip's peaks (50, 52) have come to the inner ends
    of their brows (21, 22) since the first frame, mean of the four; 0 at rest. Wrinkling the nose raises the wings and
    lowers the brows, and the upper lip is raised with it (action units 9, 10 and 4).

    Args:
        landmarks: (T,68,2), pixels, x then y, iBUG order; T at least 1.

    Returns:
        (T,) float64.

    Raises:
        ValueError: another shape, a value that is not finite, an unknown measure, or eyes or a mouth without extent.
    """
    if measure not in get_args(Measure):
        raise ValueError(f"there is no measure {measure!r}; there are {', '.join(get_args(Measure))}.")
    points = np.asarray(landmarks, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] != (68, 2) or not len(points):
        raise ValueError(f"landmarks have shape {points.shape}; (T,68,2) is needed, with T > 0.")
    if not np.isfinite(points).all():
        raise ValueError(
            "landmarks hold values that are not finite (a video without landmarks has no phases)."
        )
    face = eye_aligned(points)
    width = abs(face[0, _LEFT_CORNER] - face[0, _RIGHT_CORNER])
    if not width > 0:
        raise ValueError("the two lip corners of the first frame coincide.")
    if measure == "smile":
        corners = face[:, [_RIGHT_CORNER, _LEFT_CORNER]]
        return np.abs(corners - corners[0].mean()).mean(axis=1) / width
    brows, parts = _DISGUST_PAIRS
    distance = np.abs(face[:, brows] - face[:, parts]).mean(axis=1)
    return (distance[0] - distance) / width


def find_phases(landmarks: ArrayLike, timestamps: ArrayLike, measure: Measure = "smile") -> Phases:
    """Onset, apex and offset of the expression in one video.

    Args:
        landmarks: (T,68,2), pixels, x then y; T at least 1.
        timestamps: (T,) seconds, rising.
        measure: `smile` or `disgust`, see `amplitude`.

    Returns:
        `Phases`; all empty where nothing rises, or the clip is too short (fewer than 3 frames).

    Examples:
        >>> import numpy as np
        >>> from nemo_pipeline.geometry import shipped_mean_shape
        >>> from nemo_pipeline.phases import find_phases
        >>> times = np.arange(60) / 25
        >>> smile = np.interp(times, [0.4, 0.8, 1.4, 2.0], [0, 1, 1, 0])
        >>> points = np.repeat(100 * shipped_mean_shape()[None], 60, axis=0)
        >>> points[:, [48, 54], 0] += np.outer(smile, [-12, 12])  # the lip corners
        >>> phases = find_phases(points, times)
        >>> [start < stop for start, stop in (phases.onset, phases.apex, phases.offset)]
        [True, True, True]

    Raises:
        ValueError: as `amplitude`, or the timestamps do not fit.
    """
    raw = amplitude(landmarks, measure)
    times = np.asarray(timestamps, dtype=np.float64)
    if times.shape != raw.shape or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ValueError(f"timestamps must be {len(raw)} rising numbers, one per frame, in seconds.")
    smooth = smooth_4253h_twice(raw)
    onset, apex, offset = cut_phases(smooth)
    return Phases(smooth, raw, onset, apex, offset, times, measure)


def cut_phases(curve: ArrayLike) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Onset, apex and offset of a smoothed curve (T,), each `(start, stop)`: see the module's text."""
    y = np.asarray(curve, dtype=np.float64)
    empty = (0, 0)
    if len(y) < 3 or np.ptp(y) < LEAST_RISE:
        return empty, empty, empty
    turns = _turning_points(y, max(REVERSAL * float(np.ptp(y)), LEAST_RISE / 2))
    climbs = [(y[high] - y[low], low, high) for low, high in turns if y[high] > y[low]]
    if not climbs or max(climbs)[0] < LEAST_RISE:
        return empty, empty, empty
    _, low, high = max(climbs, key=lambda climb: climb[0])
    start, top = _trimmed(y, low, high)
    falls = [(y[a] - y[b], a, b) for a, b in turns if a >= high and y[b] < y[a]]
    end = len(y)
    if not falls:
        return (start, top), (top, end), (end, end)
    _, last_high, down = max(falls, key=lambda fall: fall[0])
    leave, settle = _trimmed(y, last_high, down)
    leave = max(leave, top)
    return (start, top), (top, leave), (leave, max(settle, leave))


def eye_aligned(points: NDArray[np.float64]) -> NDArray[np.complex128]:
    """(T,68,2) -> (T,68) complex: in every frame the subject's right eye (mean of its corners) at 0, the left one at 1;
    the imaginary part grows downwards. Raises ValueError where the eyes of a frame coincide."""
    z = points[..., 0] + 1j * points[..., 1]
    right, left = z[:, _RIGHT_EYE].mean(axis=1), z[:, _LEFT_EYE].mean(axis=1)
    across = left - right
    if not (np.abs(across) > 0).all():
        raise ValueError(f"the eyes coincide in frame {int(np.argmin(np.abs(across)))}.")
    return (z - right[:, None]) / across[:, None]


def _turning_points(y: NDArray[np.float64], reversal: float) -> list[tuple[int, int]]:
    """Stretches `(from, to)` between neighbouring extremes of `y`, where a turn counts from `reversal` on."""
    turns: list[int] = []
    low = high = direction = (
        0  # the lowest and highest since the last turn; 1 rising, -1 falling, 0 neither yet
    )
    for t in range(1, len(y)):
        if direction >= 0 and y[t] > y[high]:
            high = t
        if direction <= 0 and y[t] < y[low]:
            low = t
        if direction <= 0 and y[t] - y[low] >= reversal:
            turns.append(low)
            direction, high = 1, t
        elif direction >= 0 and y[high] - y[t] >= reversal:
            turns.append(high)
            direction, low = -1, t
    if direction:
        turns.append(high if direction > 0 else low)
    return list(itertools.pairwise(turns))


def _trimmed(y: NDArray[np.float64], first: int, last: int) -> tuple[int, int]:
    """A rise or a fall without its flat ends: from the last frame near its first value to the first near its last.

    Near is within MARGIN of its height; or within a quarter, where the curve is flat or turns back: what drifts
    before that is the head, not the expression.
    """
    part = y[first : last + 1]
    way = (part - part[0]) / (part[-1] - part[0])  # 0 .. 1
    step = np.diff(way)  # (n - 1,); positive in the phase's direction
    still = np.append(step <= 0, False)  # frame k is not left towards the other end
    begin = int(np.flatnonzero((way <= MARGIN) | (still & (way <= DRIFT)))[-1])
    arrived = np.append(False, step <= 0)
    near = (way >= 1 - MARGIN) | (arrived & (way >= 1 - DRIFT))
    end = begin + int(np.flatnonzero(near[begin:])[0])
    return first + begin, first + end
