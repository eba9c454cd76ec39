"""From the frame back to the face crop: the inverse of the piecewise-affine warp. Needs numpy alone.

The warp looks up, for each pixel of the crop, a place in the frame (`geometry.Template`). Here it is the other way
round: each pixel of the frame inside the landmarks' triangles gets its place in the crop, so that a map over the crop
(a heat map) can be laid over the face in the frame. Same triangles, same corners, so one map undoes the other.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nemo_pipeline.geometry import Template, barycentric_map


@dataclasses.dataclass(frozen=True, slots=True)
class Unwarped:
    """Pixels of a frame that show the face, and where each of them lies in the crop.

    Attributes:
        x, y: (P,) int, column and row in the frame.
        crop: (P, 2) float64, x then y in the crop, pixels (centres at integers).
    """

    x: NDArray[np.intp]
    y: NDArray[np.intp]
    crop: NDArray[np.float64]


def unwarp(template: Template, landmarks: ArrayLike, width: int, height: int) -> Unwarped:
    """The pixels of a frame inside the triangles of its landmarks.

    Where a turned head folds triangles over each other, a pixel belongs to the one that is listed first.

    Args:
        template: the warp's.
        landmarks: (68, 2) of the frame, pixels, x then y; may lie outside the picture.
        width, height: of the frame.

    Raises:
        ValueError: landmarks of another shape, or not finite.
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape != (68, 2) or not np.isfinite(points).all():
        raise ValueError(f"landmarks must be 68 finite points (68, 2); these are {points.shape}.")
    low = np.floor(points.min(axis=0)).astype(int)
    side = int(np.ceil((points - low).max())) + 1
    if side > 4 * max(width, height):  # no face in this picture reaches so far
        return Unwarped(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros((0, 2)))
    inside, vertices, weights = barycentric_map(points - low, template.triangles, side)
    x, y = inside % side + low[0], inside // side + low[1]
    there = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    crop = np.einsum("pk,pkd->pd", weights[there], template.landmarks[vertices[there]])
    return Unwarped(x[there], y[there], crop)


def sample(values: NDArray[np.floating], crop: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bilinear values (P,) of a map over the crop (S, S) at (P, 2) places, x then y; edge values continue outside."""
    side = values.shape[0]
    place = np.clip(crop, 0, side - 1)
    low = np.minimum(place.astype(int), side - 2) if side > 1 else np.zeros(crop.shape, int)
    f = place - low
    x, y, u, v = low[:, 0], low[:, 1], f[:, 0], f[:, 1]
    right, below = np.minimum(x + 1, side - 1), np.minimum(y + 1, side - 1)
    top = values[y, x] * (1 - u) + values[y, right] * u
    bottom = values[below, x] * (1 - u) + values[below, right] * u
    return np.asarray(top * (1 - v) + bottom * v, np.float64)
