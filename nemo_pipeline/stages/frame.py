"""`Frame`: one decoded picture as its own 8-bit planes, upright, with its time; gray and RGB are made where
needed.

Most of a 1080p frame is never looked at, so nothing is converted as a whole: the face's region is cut from
the planes and only that is turned into RGB or full-range gray.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]

# Expands 16..235 to 0..255 (BT.601/709 limited-range luma).
_EXPAND: Plane = np.clip(np.round((np.arange(256) - 16.0) * 255.0 / 219.0), 0, 255).astype(np.uint8)

# Kr, Kb of the colour matrices.
_COEFFICIENTS = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """A square in a frame, turned by an angle: what is shown to a network.

    Attributes:
        cx, cy: centre, source pixels.
        size: side, source pixels.
        angle: of the square's x axis in the picture, radians, clockwise as seen (y down).
    """

    cx: float
    cy: float
    size: float
    angle: float = 0.0

    def to_source(self, side: int) -> NDArray[np.float64]:
        """(2, 3) affine map from pixels of a `side` x `side` view of the region to source pixels (centres
        at integers).
        """
        s = self.size / side
        c, d = s * np.cos(self.angle), s * np.sin(self.angle)
        middle = (side - 1) / 2
        return np.array(
            [[c, -d, self.cx - c * middle + d * middle], [d, c, self.cy - d * middle - c * middle]]
        )


@dataclasses.dataclass(frozen=True)
class Frame:
    """One picture in presentation order.

    Attributes:
        index: number of the frame among those decoded, from 0.
        time: presentation time, seconds, as the file says it (repaired where it says nothing usable).
        planes: (Y,) or (Y, U, V), each (h, w) uint8, upright; chroma planes may be smaller.
        full_range: luma spans 0..255 (else 16..235).
        matrix: "601", "709" or "2020".
    """

    index: int
    time: float
    planes: tuple[Plane, ...]
    full_range: bool = False
    matrix: str = "601"

    @property
    def height(self) -> int:
        """Rows of the upright picture."""
        return self.planes[0].shape[0]

    @property
    def width(self) -> int:
        """Columns of the upright picture."""
        return self.planes[0].shape[1]

    @property
    def expand(self) -> Plane | None:
        """(256,) table that makes the luma plane full-range, or None where it is already."""
        return None if self.full_range else _EXPAND

    def gray(self) -> Plane:
        """(H, W) uint8, full range."""
        return self.planes[0] if self.full_range else _expanded(self.planes[0])

    def rgb(self) -> Plane:
        """(H, W, 3) uint8: the whole picture."""
        chroma = []
        for plane in self.planes[1:]:
            x, y = self._subsampling(plane)
            size = (plane.shape[1] * x, plane.shape[0] * y)
            larger: Any = cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)
            chroma.append(larger[: self.height, : self.width])
        return self._to_rgb(self.planes[0], chroma)

    def _subsampling(self, plane: Plane) -> tuple[int, int]:
        """Luma pixels per pixel of a plane, across and down (the last one may stand for fewer)."""
        return max(1, round(self.width / plane.shape[1])), max(1, round(self.height / plane.shape[0]))

    def view(self, region: Region, side: int) -> Plane:
        """(side, side, 3) uint8 RGB of a region.

        Bilinear, after a mean over whole pixels where it shrinks by 2 or more; the picture's edge is
        continued outside.
        """
        to_source = region.to_source(side)
        shrink = max(1, int(region.size / side))
        y, *chroma = (self._sample(plane, to_source, side, shrink) for plane in self.planes)
        return self._to_rgb(y, chroma)

    def gray_view(self, region: Region, side: int) -> Plane:
        """(side, side) uint8: as `view`, luma alone, in the range of the file."""
        return self._sample(self.planes[0], region.to_source(side), side, max(1, int(region.size / side)))

    def _sample(self, plane: Any, to_source: NDArray[np.float64], side: int, shrink: int) -> Any:
        """One plane under an affine map to pixels of the luma plane; only the part looked at is averaged."""
        ratio = 1.0 / np.array(self._subsampling(plane))[:, None]
        to_plane = to_source * ratio
        to_plane[:, 2:] += (ratio - 1) / 2
        # Chroma shrinks only as far as it stays no coarser than luma.
        factor = max(1, int(shrink * float(ratio[0, 0])))
        if factor > 1:
            corners = to_plane @ np.array(
                [[0, side - 1, 0, side - 1], [0, 0, side - 1, side - 1], [1, 1, 1, 1]]
            )
            height, width = plane.shape
            # Whole cells of the averaging grid, so that what is seen does not depend on where the part is
            # cut.
            low = np.clip(np.floor(corners.min(axis=1) / factor) - 2, 0, None).astype(int) * factor
            high = np.ceil(corners.max(axis=1) / factor).astype(int) * factor + 3 * factor
            x0, y0 = min(int(low[0]), max(0, width - factor)), min(int(low[1]), max(0, height - factor))
            x1, y1 = max(int(high[0]), x0 + factor), max(int(high[1]), y0 + factor)
            part = plane[y0:y1, x0:x1]
            h, w = part.shape[0] // factor, part.shape[1] // factor
            if h and w:
                plane = cv2.resize(part[: h * factor, : w * factor], (w, h), interpolation=cv2.INTER_AREA)
                offset = np.array([x0, y0]) + (factor - 1) / 2
                to_plane[:, 2] -= offset
                to_plane /= factor
        return cv2.warpAffine(
            plane,
            to_plane,
            (side, side),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def _to_rgb(self, y: Plane, chroma: list[Plane]) -> Plane:
        if not chroma:
            return np.repeat((y if self.full_range else _expanded(y))[..., None], 3, axis=-1)
        rgb: Any = cv2.transform(cv2.merge([y, *chroma]), _yuv_to_rgb(self.full_range, self.matrix))
        return rgb

    @classmethod
    def from_rgb(cls, rgb: NDArray[np.uint8], index: int = 0, time: float = 0.0) -> Frame:
        """A frame from an (H, W, 3) uint8 RGB picture (or (H, W) gray)."""
        image = np.ascontiguousarray(rgb)
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
            raise ValueError(
                f"a picture must be (H, W, 3) or (H, W) uint8; this is {image.shape} {image.dtype}."
            )
        if image.ndim == 2:
            return cls(index, time, (image,), full_range=True)
        forward = np.linalg.inv(_yuv_to_rgb(True, "601")[:, :3])
        shift = np.array([[0.0], [128.0], [128.0]])
        planes = cv2.split(cv2.transform(image, np.hstack([forward, shift])))
        return cls(index, time, tuple(np.ascontiguousarray(p) for p in planes), full_range=True)


def _expanded(luma: Plane) -> Plane:
    full: Any = cv2.LUT(luma, _EXPAND)
    return full


@functools.cache
def _yuv_to_rgb(full_range: bool, matrix: str) -> NDArray[np.float64]:
    """(3, 4): RGB = M[:, :3] @ YUV + M[:, 3], all 0..255."""
    kr, kb = _COEFFICIENTS[matrix]
    kg = 1 - kr - kb
    m = np.array(
        [
            [1, 0, 2 * (1 - kr)],
            [1, -2 * (1 - kb) * kb / kg, -2 * (1 - kr) * kr / kg],
            [1, 2 * (1 - kb), 0],
        ]
    )
    scale = np.ones(3) if full_range else np.array([255 / 219, 255 / 224, 255 / 224])
    zero = np.array([0.0 if full_range else 16.0, 128.0, 128.0])
    m = m * scale
    return np.hstack([m, -(m @ zero)[:, None]])
