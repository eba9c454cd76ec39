"""The warp as scikit-image would do it: its transforms, one per triangle, handed to its `warp` as inverse map."""

from __future__ import annotations

import numpy as np
from skimage.measure import points_in_poly
from skimage.transform import AffineTransform, warp


class PiecewiseAffine:
    """From the mean shape to a frame's landmarks: scikit-image's PiecewiseAffineTransform with given triangles.

    Args:
        source: (N, 2) vertices in the crop.
        target: (N, 2) the same vertices in the frame.
        triangles: (K, 3).
    """

    def __init__(self, source: np.ndarray, target: np.ndarray, triangles: np.ndarray) -> None:
        self._parts = [
            (source[t], AffineTransform.from_estimate(source[t], target[t])) for t in np.asarray(triangles)
        ]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(M, 2) points of the crop to points of the frame; (-1, -1) outside every triangle, as there."""
        out = np.full(points.shape, -1.0)
        for corners, transform in self._parts:
            here = points_in_poly(points, corners) | _on_edge(points, corners)
            here &= (out == -1.0).all(axis=1)
            if here.any():
                out[here] = transform(points[here])
        return out


def _on_edge(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Whether points lie on a triangle's outline, which `points_in_poly` leaves open."""
    hit = np.zeros(len(points), dtype=bool)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        hit |= np.hypot(*(points - a - along[:, None] * (b - a)).T) < 1e-9
    return hit


def warp_face(
    image: np.ndarray, landmarks: np.ndarray, template: np.ndarray, triangles: np.ndarray, size: int
) -> np.ndarray:
    """(size, size) float64: a frame's face in the crop, sampled bilinearly, 0 outside."""
    inverse = PiecewiseAffine(template, landmarks, triangles)
    return warp(image.astype(np.float64), inverse, output_shape=(size, size), order=1, preserve_range=True)


def sampling_positions(
    landmarks: np.ndarray, template: np.ndarray, triangles: np.ndarray, size: int
) -> np.ndarray:
    """(size, size, 2): where the crop's pixels come from in the frame, x then y; NaN outside the hull."""
    y, x = np.mgrid[:size, :size]
    out = PiecewiseAffine(template, landmarks, triangles)(np.stack([x.ravel(), y.ravel()], -1).astype(float))
    out[(out == -1.0).all(axis=1)] = np.nan
    return out.reshape(size, size, 2)
