"""Piecewise-affine warp of one gray frame to the mean shape: low-pass, then one remap with constant weights."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from nemo_pipeline.geometry import Template, checked_shape, shipped_mean_shape, shipped_triangles
from nemo_pipeline.stages.frame import Frame


@dataclasses.dataclass(frozen=True, slots=True)
class Patch:
    """The part of a gray frame around a face, low-passed for its size in the crop.

    Pixel (column i, row j) of `gray` samples the source position x0 + i * step, y0 + j * step (pixel
    centres at integers).
    """

    gray: NDArray[np.uint8]
    x0: int
    y0: int
    step: int


class FaceWarp:
    """Warps gray frames to the mean shape: `FaceWarp()(gray, landmarks)` -> (size, size) uint8.

    The map goes from the mean shape to the frame (its triangles are the mean shape's), so each crop pixel
    looks up one source position, sampled bilinearly; 0 outside the hull and outside the picture. Where the
    face is larger in the source than in the crop, the source is low-pass filtered first.

    Args:
        mean_shape: (68, 2) in any unit; the shipped one by default.
        size: side of the crop, pixels.
        margin: free space on each side of the face, as a fraction of the crop.
        triangles: (K, 3); by default the shipped ones for the shipped shape, else the Delaunay triangles of
            `mean_shape`.

    Examples:
        >>> from nemo_pipeline import FaceWarp, landmarks_in_image
        >>> from skimage.data import astronaut
        >>> (landmarks,) = landmarks_in_image(astronaut())
        >>> FaceWarp(size=64)(astronaut()[..., 1], landmarks).shape
        (64, 64)

    Raises:
        ValueError: the shape is not 68 finite points with an area, or size, margin or triangles are invalid.
    """

    def __init__(
        self,
        mean_shape: ArrayLike | None = None,
        size: int = 114,
        margin: float = 0.02,
        triangles: ArrayLike | None = None,
    ) -> None:
        shape = shipped_mean_shape() if mean_shape is None else checked_shape(mean_shape)
        if triangles is None:
            triangles = shipped_triangles() if mean_shape is None else delaunay(shape)
        self.template = Template(shape, np.asarray(triangles, dtype=np.int32), size, margin)
        self._area = hull_area(self.template.landmarks)

    @property
    def mean_shape(self) -> NDArray[np.float64]:
        """(68, 2): where the landmarks lie in every crop, pixels."""
        return self.template.landmarks

    @property
    def triangles(self) -> NDArray[np.int32]:
        """(K, 3): the triangles of the map."""
        return self.template.triangles

    def __call__(self, gray: ArrayLike, landmarks: ArrayLike) -> NDArray[np.uint8]:
        """Warp one frame.

        Args:
            gray: (H, W) uint8.
            landmarks: (68, 2) finite, source pixels, x then y; may lie outside the picture.

        Returns:
            (size, size) uint8.

        Raises:
            ValueError: wrong shapes or dtypes, or landmarks that are not finite.
        """
        image = np.asarray(gray)
        if image.ndim != 2 or image.dtype != np.uint8:
            raise ValueError(f"gray must be (H, W) uint8; this is {image.shape} {image.dtype}.")
        points = np.asarray(landmarks, dtype=np.float64)
        if points.shape != (68, 2):
            raise ValueError(f"landmarks must be (68, 2); these are {points.shape}.")
        if not np.isfinite(points).all():
            raise ValueError("landmarks must be finite: a frame without a face cannot be warped.")
        return self.warp_patch(self.cut_patch(Frame.from_rgb(image), points), points)

    def reduction(self, landmarks: NDArray[np.floating]) -> float:
        """Source pixels per crop pixel (a length): the square root of the ratio of the hulls' areas."""
        return math.sqrt(hull_area(landmarks) / self._area)

    def cut_patch(
        self,
        frame: Frame,
        landmarks: NDArray[np.floating],
        *,
        slack: float = 0.15,
    ) -> Patch:
        """The face's surroundings, low-passed: all that `warp_patch` needs of a frame.

        The crop samples the source every `reduction` pixels, s, so the source is blurred first by a Gaussian
        of half that, s / 2 (none at s = 1, rising smoothly in between). From s = 2 on, each halving by the
        binomial filter 1 4 6 4 1 does its part of that (its variance is 1), and the rest is done on fewer
        pixels. All filters are symmetric about pixel centres, so positions stay exact (a ramp stays a ramp).

        Args:
            frame: the picture, of which only this part is looked at.
            landmarks: (68, 2) source pixels.
            slack: how far beyond the landmarks' box to cut, as a fraction of its larger side.
        """
        scale = self.reduction(landmarks)
        step = 1
        while scale >= 2.0 * step:
            step *= 2
        axes = np.ascontiguousarray(landmarks.T)
        (left, top), (right, bottom) = axes.min(axis=1).tolist(), axes.max(axis=1).tolist()
        reach = slack * max(right - left, bottom - top) + 8.0
        x0, x1 = _extent(left - reach, right + reach, frame.width, step)
        y0, y1 = _extent(top - reach, bottom + reach, frame.height, step)
        if x0 >= x1 or y0 >= y1:
            return Patch(np.zeros((0, 0), np.uint8), x0, y0, 1)
        patch: Any = frame.luma(x0, y0, x1, y1)
        done, halved = 0.0, 1  # variance of the blur so far, in pixels of the patch
        while halved < step:
            # Odd sizes: the last sample then lies on the last pixel, as the first one does on the first.
            down, across = ((n + 1) % 2 for n in patch.shape)
            if down or across:
                patch = cv2.copyMakeBorder(patch, 0, down, 0, across, cv2.BORDER_REPLICATE)
            patch = cv2.pyrDown(patch, borderType=cv2.BORDER_REPLICATE)
            done, halved = (done + 1.0) / 4.0, halved * 2
        wanted = (scale - 1.0 if scale < 2.0 else scale * scale / 4.0) / (step * step)
        if wanted - done > 0.02:
            sigma = math.sqrt(wanted - done)
            patch = cv2.GaussianBlur(patch, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        return Patch(np.ascontiguousarray(patch), x0, y0, step)

    def warp_patch(self, patch: Patch, landmarks: NDArray[np.floating]) -> NDArray[np.uint8]:
        """(size, size) uint8 from a patch of the frame and the (68, 2) landmarks in source pixels."""
        if patch.gray.size == 0:
            return np.zeros((self.template.size, self.template.size), np.uint8)
        local = (np.asarray(landmarks, dtype=np.float64) - (patch.x0, patch.y0)) / patch.step
        face: Any = cv2.remap(
            patch.gray,
            # Pixels outside the hull look far outside every picture, where the border value is.
            self.template.sampling_positions(local, outside=-1e6),
            None,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=0,
        )
        return face


def _extent(low: float, high: float, length: int, step: int) -> tuple[int, int]:
    """Pixels from `low` to `high` that are there, half-open; they begin at a multiple of `step`, so that a face at
    rest is sampled alike in every frame."""
    low, high = (min(max(v, -1.0), float(length)) for v in (low, high))
    return max(0, math.floor(low) // step * step), min(length, math.ceil(high) + 1)


def hull_area(points: NDArray[np.floating]) -> float:
    """Area of the convex hull of (N, 2) points, square pixels."""
    return float(cv2.contourArea(cv2.convexHull(np.asarray(points, dtype=np.float32))))


def delaunay(shape: ArrayLike) -> NDArray[np.int32]:
    """(K, 3) Delaunay triangles of a mean shape (68, 2) of one's own: computed once, then stored with it."""
    from scipy.spatial import Delaunay  # only a shape of one's own needs it

    return Delaunay(np.asarray(shape, dtype=np.float64)).simplices.astype(np.int32)
