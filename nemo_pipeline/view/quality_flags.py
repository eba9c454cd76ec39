"""Quality flags of a tracked video: reasons to look at it before using it. NumPy only.

The limits (`LIMITS`, in words) are choices, made to be few and to be looked at; none was fitted to labels.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.stages.headframe import jumps
from nemo_pipeline.status import Status
from nemo_pipeline.store.facetrack import FaceTrack
from nemo_pipeline.store.text import pluralize

MOST_INTERPOLATED = 0.10
MOST_YAW = 30.0
MOST_ROLL = 60.0
MOST_ENLARGED = 2.0
LEAST_PRESENCE = 0.5
MOST_JUMP = MOST_OFF = 0.05
LEAST_SHARPNESS = 0.25
LEAST_KEPT = 0.5
FEWEST_FRAMES = 25
SHORTEST = 0.5
LEAST_RATE = 15.0
MOST_STEP = 3.0
#: The share of frames in which something may be so before it counts.
SOME = 0.10

#: What counts, in words, in the order of the constants above.
LIMITS = (
    f"interpolated: more than {100 * MOST_INTERPOLATED:g} % of the kept frames have no detected face",
    f"turned: in 5 % of the frames the head is non-frontal, turned by more than {MOST_YAW:g} degrees, where one "
    "half of the face is foreshortened to 0.87 of its width or less and half of its texture is stretched",
    f"rolled: in 5 % of the frames the head leans by more than {MOST_ROLL:g} degrees: it lies on its side or upside "
    "down, or a covered face was taken for one that does",
    "small: the outer eye corners are so close together in the source that every source pixel is enlarged more than "
    f"{MOST_ENLARGED:g} times in the face crop",
    f"presence: in more than {100 * SOME:g} % of the tracked frames the tracker's presence score is below "
    f"{LEAST_PRESENCE:g}, its own limit for a face",
    f"jumps: in 1 % of the frames the tracker's points jump by more than {100 * MOST_JUMP:g} % of the "
    "inter-ocular distance: the face's shape differs by so much from those before and after it, or the whole "
    "head leaves and returns within one frame",
    f"moved: in 1 % of the frames, where no point jumps, the smoothed points lie more than {100 * MOST_OFF:g} % of the "
    "inter-ocular distance (mean over all points) away from the tracked ones",
    f"unsharp: the face's sharpness is below {100 * LEAST_SHARPNESS:g} % of the median over the file's videos",
    f"faces: more than one face was seen in more than {100 * SOME:g} % of the frames",
    f"part: less than {100 * LEAST_KEPT:g} % of the decoded frames were kept",
    f"short: fewer than {FEWEST_FRAMES} frames, or less than {SHORTEST:g} seconds",
    f"rate: fewer than {LEAST_RATE:g} frames per second (an onset of half a second then has fewer than "
    f"{LEAST_RATE / 2 + 0.5:.0f} frames), or a step between two frames of more than {MOST_STEP:g} times the usual one",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Reason:
    """One reason: `code` for programs, `short` for a table's cell, `text` a sentence with the numbers."""

    code: str
    short: str
    text: str


#: Code -> what it means in a list of filters, most serious first: reasons are given in this order.
CODES: dict[str, str] = {
    "damaged": "the file is damaged or incomplete",
    "interpolated": "many interpolated frames",
    "rolled": "the head lies on its side or upside down",
    "jumps": "the points jump",
    "moved": "smoothing moved the points",
    "presence": "the tracker was unsure of a face",
    "turned": "the head is non-frontal",
    "small": "the face is small",
    "unsharp": "the face is blurred, dark or overexposed",
    "faces": "several faces",
    "part": "large parts of the video were not used",
    "short": "the video is short",
    "rate": "low or uneven frame rate",
}


def reasons(track: FaceTrack, eyes_in_crop: float, usual_sharpness: float = float("nan")) -> list[Reason]:
    """Why a usable video should be looked at, most serious first; empty if no issues were found.

    Args:
        track: of a video with at least one kept frame, with all but faces and mesh.
        eyes_in_crop: distance of the outer eye corners in the face crop, pixels.
        usual_sharpness: median sharpness over the videos of the file; NaN: not known.
    """
    found: dict[str, tuple[str, str]] = {}
    n, tracked = len(track), track.tracked
    raw, all_off = track.landmarks_raw.astype(np.float64), track.points_off
    all_jumps = jumps(raw) if np.isfinite(raw).all() else np.full(n, np.nan)
    sharpness = middle(track.sharpness)
    if track.status != Status.OK:
        found["damaged"] = (track.status, track.message or "The file is incomplete or damaged.")
    filled = track.n_interpolated
    if filled > MOST_INTERPOLATED * n:
        found["interpolated"] = (
            f"{filled / n:.0%} interpolated",
            f"{filled} of {pluralize(n, 'frame')} had no face and were interpolated.",
        )
    jump = _quantile(all_jumps[tracked], 0.99, "higher")
    if jump > MOST_JUMP:
        found["jumps"] = (
            "points jump",
            f"The tracker's points jump, from one frame to the next and back, by {jump:.0%} of the inter-ocular "
            "distance and more: is a hand, hair or another face in the way?",
        )
    off = all_off[tracked & ~(all_jumps > MOST_JUMP)]
    if _quantile(off, 0.99, "higher") > MOST_OFF:
        found["moved"] = (
            f"moved {off.max():.0%}",
            f"Smoothing moved the points off the face: in {np.mean(off > MOST_OFF):.1%} of the frames they are more "
            f"than {MOST_OFF:.0%} of the inter-ocular distance from where the face was tracked, at most "
            f"{off.max():.0%}, since the head moves faster than 4253H on raw coordinates follows; "
            "`smooth=head` does not.",
        )
    presence = track.face_presence[tracked & np.isfinite(track.face_presence)].astype(np.float64)
    if len(presence) and np.mean(presence < LEAST_PRESENCE) > SOME:
        found["presence"] = (
            f"presence {np.median(presence):.2f}",
            f"The tracker was unsure of a face in {np.mean(presence < LEAST_PRESENCE):.0%} of the frames "
            f"(presence score below {LEAST_PRESENCE:g}; median {np.median(presence):.2f}).",
        )
    yaw = _quantile(np.abs(track.pose[:, 0].astype(np.float64)), 0.95)
    if yaw > MOST_YAW:
        found["turned"] = (
            f"yaw {yaw:.0f}°",
            f"The head is non-frontal: turned by {yaw:.0f} degrees and more at times.",
        )
    roll = _quantile(np.abs(track.pose[:, 2].astype(np.float64)), 0.95)
    if roll > MOST_ROLL:
        found["rolled"] = (
            f"roll {roll:.0f}°",
            f"The head leans by {roll:.0f} degrees at times: is the picture turned, or the face covered and taken for "
            "one upside down?",
        )
    eyes = middle(track.eye_distance_px)
    if eyes > 0 and eyes_in_crop / eyes > MOST_ENLARGED:
        found["small"] = (
            f"eyes {eyes:.0f} px",
            f"The face is small: the inter-ocular distance is {eyes:.0f} pixels, and the face was enlarged "
            f"{eyes_in_crop / eyes:.1f} times.",
        )
    if sharpness < LEAST_SHARPNESS * usual_sharpness:
        found["unsharp"] = (
            "unsharp",
            f"The face is blurred, dark or overexposed: its sharpness is {sharpness:.0f}; "
            f"{usual_sharpness:.0f} is usual in this file.",
        )
    several = float(np.mean(track.n_faces > 1)) if n else 0.0
    if several > SOME:
        found["faces"] = (
            f"{int(track.n_faces.max())} faces",
            f"Several faces were seen in {several:.0%} of the frames: is this the right person throughout?",
        )
    if track.n_decoded and n < LEAST_KEPT * track.n_decoded:
        found["part"] = (
            f"{n / track.n_decoded:.0%} kept",
            f"Only {n} of {pluralize(track.n_decoded, 'frame')} were kept.",
        )
    if track.n_decoded != 1:  # a picture has no times
        found |= _in_time(track.timestamps)
    return [Reason(code, *found[code]) for code in CODES if code in found]


def _in_time(times: NDArray[np.float64]) -> dict[str, tuple[str, str]]:
    """Reasons that lie in the frames' times."""
    found = {}
    steps = np.diff(times)
    seconds = float(times[-1] - times[0]) if len(times) else 0.0
    if len(times) < FEWEST_FRAMES or seconds < SHORTEST:
        found["short"] = (
            f"{seconds:.1f} s",
            f"It is short: {pluralize(len(times), 'frame')}, {seconds:.2f} s.",
        )
    if len(steps) and np.isfinite(steps).all() and np.median(steps) > 0:
        usual = float(np.median(steps))
        if 1 / usual < LEAST_RATE - 0.05:
            found["rate"] = (
                f"{1 / usual:.3g} frames/s",
                f"There are only {1 / usual:.3g} frames per second: fast movements are lost.",
            )
        elif steps.max() > MOST_STEP * usual:
            found["rate"] = (
                "uneven times",
                f"The frames' times are uneven: one step lasts {steps.max():.2f} s, {usual:.3f} s is usual.",
            )
    return found


def middle(values: NDArray[np.floating]) -> float:
    """Median of what is finite; NaN where nothing is."""
    return _quantile(values, 0.5)


def _quantile(values: NDArray[np.floating], q: float, method: Any = "linear") -> float:
    finite = values[np.isfinite(values)].astype(np.float64)
    return float(np.quantile(finite, q, method=method)) if len(finite) else float("nan")
