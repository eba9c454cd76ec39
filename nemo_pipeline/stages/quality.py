"""Quality: what is measured on each warped face, and the status and sentence of a video that gave none."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.geometry import Template
from nemo_pipeline.status import Status
from nemo_pipeline.store.text import pluralize

#: Faces with less between the outer eye corners than this are not followed reliably, pixels.
SMALLEST_EYE_DISTANCE_PX = 12.0
#: A warped face whose gray levels spread less than this (standard deviation inside the hull) shows nothing.
BLANK_SPREAD = 2.0
#: Statuses of a segment whose warped faces are of no use -> what is said of it.
FACE_FAULTS: dict[Status, str] = {
    Status.BLANK: "{n} of {length} warped faces are black or of one gray level; check the clip's picture (a failed "
    "export, a lens cap, a mask over the face).",
}


class FaceQuality:
    """Measures on warped faces, taken well inside the hull: its edge is not a feature of the face."""

    def __init__(self, template: Template) -> None:
        size = template.size
        mask = np.zeros(size * size, np.uint8)
        mask[template.inside] = 1
        self._inner = cv2.erode(
            mask.reshape(size, size), np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT
        )
        self._any_inner = bool(self._inner.any())

    def measures(self, face: NDArray[np.uint8]) -> dict[str, float]:
        """The frame datasets that are measured on a warped face, by name (`of="face"` in `store/schema.py`)."""
        return {"sharpness": self.sharpness(face)}

    def sharpness(self, face: NDArray[np.uint8]) -> float:
        """Variance of the Laplacian (3 x 3) of a warped face, gray levels squared."""
        return self._spread(cv2.Laplacian(face, cv2.CV_32F)) ** 2

    def fault(self, face: NDArray[np.uint8]) -> Status | None:
        """Why a warped face is of no use, a status of `FACE_FAULTS`; None where it is usable."""
        return Status.BLANK if self._spread(face) < BLANK_SPREAD else None

    def _spread(self, values: NDArray[np.integer | np.floating]) -> float:
        """Standard deviation well inside the hull; NaN where the crop is too small to have such an inside."""
        if self._any_inner:
            return float(cv2.meanStdDev(values, mask=self._inner)[1][0, 0])
        return math.nan


def why_unusable(faults: Mapping[Status, int], length: int) -> tuple[Status, str] | None:
    """Status and sentence of a segment of `length` frames, more than half of whose warped faces have one fault; None
    where it is data."""
    for status, n in faults.items():
        if n > length / 2:
            return status, FACE_FAULTS[status].format(n=n, length=length)
    return None


def why_none(
    *,
    n_seen: int,
    n_turned: int,
    longest: int,
    eye_distance_px: float,
    min_frames: int,
    max_yaw: float,
    n_decoded: int,
) -> tuple[Status, str]:
    """Status and sentence of a video without a usable segment.

    Args:
        n_seen: frames with a face of the best candidate.
        n_turned: of those, frames turned beyond the limit.
        longest: frames of its longest segment.
        eye_distance_px: its median distance of the outer eye corners, pixels.
        min_frames, max_yaw: the limits in force.
        n_decoded: frames decoded.
    """
    if n_seen == 0:
        return (
            Status.NO_FACE,
            f"No face was found in {pluralize(n_decoded, 'frame')}; check that the clip shows one.",
        )
    if eye_distance_px < SMALLEST_EYE_DISTANCE_PX:
        return (
            Status.TOO_SMALL,
            f"The face has {eye_distance_px:.0f} pixels between the outer eye corners, "
            f"{SMALLEST_EYE_DISTANCE_PX:.0f} are needed; use a version of the clip with more pixels.",
        )
    if n_turned > n_seen / 2:
        return (
            Status.HEAD_TURNED,
            f"The face is turned by more than {max_yaw:g} degrees in {n_turned} of the {n_seen} frames that show it; "
            "use a frontal view, or raise `max_yaw_degrees`.",
        )
    gaps = "" if n_decoded < min_frames else ", or bridge longer gaps with `max_gap_seconds`"
    return (
        Status.TOO_SHORT,
        f"The longest stretch with a face has {pluralize(longest, 'frame')}, {min_frames} are needed; use a longer clip"
        f"{gaps}.",
    )
