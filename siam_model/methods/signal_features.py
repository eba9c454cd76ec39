"""The 25 numbers that describe one signal in one phase of an expression.

Dibeklioglu, Salah and Gevers, "Recognition of Genuine Smiles", IEEE Transactions on Multimedia 17 (2015), table of
features, as reprinted by others. There the increasing and the decreasing parts of a signal are not said to be steps or
values; here they are steps from frame to frame, so that their sum is the end minus the beginning (`parts="values"`
takes the values of the frames that a step leads to).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from siam_model.methods.inputs import Video, video_phases
from siam_model.methods.signals import Signal

FEATURES = (
    "duration rising", "duration falling", "duration", "share rising", "share falling", "maximum", "mean",
    "mean rising", "mean falling", "deviation", "total rising", "total falling", "net", "ratio rising", "ratio falling",
    "maximum speed rising", "maximum speed falling", "maximum acceleration rising", "maximum acceleration falling",
    "mean speed rising", "mean speed falling", "mean acceleration rising", "mean acceleration falling",
    "net by duration", "difference of sides",
)  # fmt: skip
PHASES = ("onset", "apex", "offset")


def signal_features(
    signal: Signal, timestamps: NDArray[np.float64], parts: Literal["steps", "values"] = "steps"
) -> NDArray[np.float64]:
    """(25,) of FEATURES, for one phase. What has no part to be measured on is 0: a phase without frames throughout.

    Args:
        signal: (T,) each, without a unit.
        timestamps: (T,) seconds. A frame at the time of the one before it is left out.

    Returns:
        Durations in seconds, speeds per second, accelerations per second squared, the rest in the signal's unit or
        without one.
    """
    times = np.asarray(timestamps, dtype=np.float64)
    if not len(times):
        return np.zeros(len(FEATURES))
    later = np.concatenate([[True], np.diff(times) > 0])
    d, right, left = (np.asarray(s, dtype=np.float64)[later] for s in signal)
    times = times[later]
    step, length = np.diff(d), np.diff(times)
    up, down = step > 0, step < 0
    risen, fallen = (step[up], -step[down]) if parts == "steps" else (d[1:][up], np.abs(d[1:][down]))
    speed = np.gradient(d, times) if len(d) > 1 else np.zeros(1)
    acceleration = np.gradient(speed, times) if len(d) > 1 else np.zeros(1)
    duration = float(length.sum())
    net, total = risen.sum() - fallen.sum(), risen.sum() + fallen.sum()
    return np.array(
        [
            length[up].sum(), length[down].sum(), duration,
            _ratio(length[up].sum(), duration), _ratio(length[down].sum(), duration),
            d.max(), d.mean(), _mean(risen), _mean(fallen), d.std(),
            risen.sum(), fallen.sum(), net,
            _ratio(risen.sum(), total), _ratio(fallen.sum(), total),
            *_largest(speed), *_largest(acceleration), *_means(speed), *_means(acceleration),
            _ratio(net, duration), abs(left.mean() - right.mean()),
        ]
    )  # fmt: skip


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 1e-12 else 0.0


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _largest(values: NDArray[np.float64]) -> tuple[float, float]:
    """The largest positive value, and the largest size of a negative one."""
    return max(float(values.max()), 0.0), max(float(-values.min()), 0.0)


def _means(values: NDArray[np.float64]) -> tuple[float, float]:
    return _mean(values[values > 0]), _mean(-values[values < 0])


def phase_features(video: Video, signals: list[Signal | None]) -> NDArray[np.float64]:
    """(len(signals), 3, 25): every signal in onset, apex and offset of the video.

    Zeros for a signal that is None, and for a phase that was not found: all three where a video has no expression.

    Args:
        signals: (T,) of the whole video each.
    """
    found = np.zeros((len(signals), len(PHASES), len(FEATURES)))
    phases = video_phases(video)
    if phases is None:
        return found
    for i, signal in enumerate(signals):
        if signal is None:
            continue
        for j, name in enumerate(PHASES):
            start, stop = getattr(phases, name)
            part = Signal(*(side[start:stop] for side in signal))
            found[i, j] = signal_features(part, phases.timestamps[start:stop])
    return found
