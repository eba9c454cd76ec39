"""Measures of a track against the truth: plain functions on arrays, in per cent of the outer-eye distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.phases import Measure, amplitude, find_phases
from nemo_pipeline.stages.headframe import smooth_in_head_frame

Array = NDArray[np.float64]
#: Region -> points of the iBUG order.
REGIONS: dict[str, slice] = {
    "jaw line": slice(0, 17),
    "brows": slice(17, 27),
    "nose": slice(27, 36),
    "eyes": slice(36, 48),
    "mouth": slice(48, 68),
    "inner 51": slice(17, 68),
    "all 68": slice(0, 68),
}
#: A spike moves a point this far, outer-eye distances; it is removed when less than SPIKE_LEFT of it is left.
SPIKE, SPIKE_LEFT = (0.05, 0.3), 0.1


def eye_distance(points: Array) -> Array:
    """(T,) outer-eye distance of (T,68,2) points, pixels."""
    return np.hypot(*(points[:, 45] - points[:, 36]).T)


def errors(found: Array, true: Array) -> tuple[Array, Array]:
    """Distance from the truth, and what is left of it without each point's mean offset over the clip.

    The offset is a matter of definition (where on the jaw a point lies); what is left is how well the face is
    followed.

    Args:
        found, true: (T,68,2) pixels.

    Returns:
        Two (T,68) arrays, per cent of the true outer-eye distance.
    """
    off = (found - true) / eye_distance(true)[:, None, None]
    rest = off - off.mean(axis=0)
    return 100 * np.hypot(off[..., 0], off[..., 1]), 100 * np.hypot(rest[..., 0], rest[..., 1])


def mean_offset(found: Array, true: Array) -> Array:
    """(T,68,2) each point's mean offset over the clip, in outer-eye distances, as pixels of every frame."""
    scale = eye_distance(true)[:, None, None]
    return ((found - true) / scale).mean(axis=0) * scale


def jitter(found: Array, true: Array) -> Array:
    """(T-2,68) second differences in time, per cent of the outer-eye distance: on a face at rest, all tremble."""
    second = np.diff(found, 2, axis=0) / eye_distance(true).mean()
    return 100 * np.hypot(second[..., 0], second[..., 1])


def lag(found: Array, true: Array, phase: tuple[int, int], measure: Measure = "smile") -> float:
    """Frames by which the tracked amplitude follows the true one: the shift of best correlation around a phase."""
    a, b, at = amplitude(found, measure), amplitude(true, measure), np.arange(len(true), dtype=np.float64)
    around = slice(max(phase[0] - 15, 0), phase[1] + 15)
    shifts = np.arange(-8, 8.01, 0.05)
    fits = [np.corrcoef(a[around], np.interp(at[around] - shift, at, b))[0, 1] for shift in shifts]
    return float(shifts[int(np.argmax(fits))])


def spikes_left(raw: Array, true: Array, rng: np.random.Generator) -> Array:
    """What the smoothing leaves of single-frame outliers, as fractions of them.

    One point in one frame out of twenty, not next to one another, is moved by SPIKE outer-eye distances in a chance
    direction; the smoothed track with the spikes is compared with the smoothed track without them.

    Args:
        raw, true: (T,68,2) pixels, T at least 12.
        rng: decides frames, points, directions.

    Returns:
        (n,) fractions, one per spike.
    """
    frames = np.arange(4, len(raw) - 4, 20)
    frames = frames + rng.integers(0, max(min(12, len(raw) - 4 - int(frames[-1])), 1))
    points = rng.integers(0, 68, len(frames))
    size = rng.uniform(*SPIKE, len(frames)) * eye_distance(true)[frames]
    angle = rng.uniform(0, 2 * np.pi, len(frames))
    spiked = raw.copy()
    spiked[frames, points] += size[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    difference = smooth_in_head_frame(spiked) - smooth_in_head_frame(raw)
    return np.hypot(*difference[frames, points].T) / size


def found_edges(points: Array, timestamps: Array, measure: Measure = "smile") -> Array:
    """(4,) frames at which nemo_pipeline.phases has the onset, apex and offset begin, and the offset end; NaN where
    it finds none."""
    found = find_phases(points, timestamps, measure)
    (onset, apex), (fall, end) = found.onset, found.offset
    if apex <= onset:
        return np.full(4, np.nan)
    return np.array([onset, apex, fall, end] if end > fall else [onset, apex, np.nan, np.nan], float)


def edges(phases: NDArray[np.int32]) -> Array:
    """(4,) the same of the truth's (3,2) phases: first frame and the frame after the last of onset, apex, offset."""
    return np.array([phases[0, 0], phases[1, 0], phases[2, 0], phases[2, 1]], float)


def near_edges(intensity: Array, phases: NDArray[np.int32], margin: float = 0.05) -> Array:
    """(4,) where the true course is `margin` of its height away from its lowest and highest values, frames."""
    way = (intensity - intensity.min()) / np.ptp(intensity)
    up, down = slice(phases[0, 0], phases[1, 0] + 1), slice(phases[2, 0], phases[2, 1] + 1)
    at = np.arange(len(way), dtype=np.float64)
    rising = np.interp([margin, 1 - margin], way[up], at[up])
    falling = np.interp([-(1 - margin), -margin], -way[down], at[down])
    return np.concatenate([rising, falling])


def gray_errors(faces: NDArray[np.uint8], reference: NDArray[np.uint8]) -> Array:
    """(T,) mean absolute difference of gray levels within the face (where the reference is not 0)."""
    inside = (reference > 0).all(axis=0)
    return np.abs(faces[:, inside].astype(np.float64) - reference[:, inside]).mean(axis=1)


def quantiles(values: Array | list[float]) -> dict[str, float]:
    """Mean, median, 5th and 95th percentile of what is finite; NaN where nothing is."""
    finite = np.asarray(values, float).ravel()
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return {"mean": np.nan, "median": np.nan, "p5": np.nan, "p95": np.nan}
    return {
        "mean": float(finite.mean()),
        "median": float(np.median(finite)),
        "p5": float(np.percentile(finite, 5)),
        "p95": float(np.percentile(finite, 95)),
    }
