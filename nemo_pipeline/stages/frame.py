"""`Frame`: one decoded picture as its own planes, upright, with its time; gray and RGB are made where needed.

Most of a 1080p frame is never looked at, so nothing is converted as a whole: the face's region is cut from
the planes and only that is brought to square pixels and turned into RGB or full-range gray.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from nemo_pipeline.stages.display import Fit
from nemo_pipeline.stages.transfer import ToneMap

Plane = NDArray[np.uint8]

# Kr, Kb of the colour matrices.
_COEFFICIENTS = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}
_LOOK_UP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_WORTH_KEEPING = 5  # times that a view shrinks
_FAR = 1e7  # pixels: further than any picture reaches


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """A square in a frame, turned by an angle: what is shown to a network.

    Attributes:
        cx, cy: centre, pixels of the frame.
        size: side, pixels of the frame.
        angle: of the square's x axis in the picture, radians, clockwise as seen (y down).
    """

    cx: float
    cy: float
    size: float
    angle: float = 0.0

    def to_source(self, side: int) -> NDArray[np.float64]:
        """(2, 3) affine map from pixels of a `side` x `side` view of the region to the frame's (centres at
        integers).
        """
        s = self.size / side
        c, d = s * np.cos(self.angle), s * np.sin(self.angle)
        middle = (side - 1) / 2
        return np.array(
            [[c, -d, self.cx - c * middle + d * middle], [d, c, self.cy - d * middle - c * middle]]
        )


@dataclasses.dataclass(frozen=True)
class Frame:
    """One picture in presentation order, in square pixels: every position is one of the display's.

    Attributes:
        index: number of the frame among those decoded, from 0.
        time: presentation time, seconds, as the file says it (repaired where it says nothing usable).
        planes: (Y,) or (Y, U, V), each (h, w) uint8 (uint16 where `bits` is more than 8), upright; chroma
            planes may be smaller.
        full_range: luma spans 0..255 (else 16..235).
        matrix: "601", "709" or "2020"; "rgb" where the planes are R, G and B (with a `tone_map` alone).
        fit: where the planes lie in the display; None where they are the display's own pixels.
        tone_map: of an HDR picture; None where the levels are BT.709's or near them.
        bits: of the planes' values; more than 8 with a `tone_map` alone.
        together: the three planes as one (h, w, 3) array, where there is one: a view of it takes half the time.
    """

    index: int
    time: float
    planes: tuple[Plane, ...]
    full_range: bool = False
    matrix: str = "601"
    fit: Fit | None = None
    tone_map: ToneMap | None = None
    bits: int = 8
    together: Plane | None = None

    @property
    def height(self) -> int:
        """Rows of the upright picture, as displayed."""
        return self.fit.size[1] if self.fit else self.planes[0].shape[0]

    @property
    def width(self) -> int:
        """Columns of the upright picture, as displayed."""
        return self.fit.size[0] if self.fit else self.planes[0].shape[1]

    @functools.cached_property
    def coarse(self) -> Plane:
        """(48, 64) uint8: luma of the whole stored picture in the range of the file, from a part of its pixels; to
        compare frames with one another."""
        plane = self.planes[0]
        rows, columns = max(1, plane.shape[0] // 96), max(1, plane.shape[1] // 128)
        small: Any = cv2.resize(plane[::rows, ::columns], (64, 48), interpolation=cv2.INTER_AREA)
        return small if small.dtype == np.uint8 else (small >> (self.bits - 8)).astype(np.uint8)

    @property
    def _as_displayed(self) -> bool:
        """Whether the planes are the display's own pixels and levels."""
        return self.fit is None and self.tone_map is None

    def gray(self) -> Plane:
        """(H, W) uint8, full range."""
        return self.luma(0, 0, self.width, self.height)

    def luma(self, x0: int, y0: int, x1: int, y1: int) -> Plane:
        """(y1 - y0, x1 - x0) uint8, full range: the luma of a box that lies inside the display."""
        if not self._as_displayed:
            return self._box(x0, y0, x1, y1, colour=False)
        return self._to_gray(self.planes[0][y0:y1, x0:x1], [])

    def rgb(self) -> Plane:
        """(H, W, 3) uint8: the whole picture."""
        if not self._as_displayed:
            return self._box(0, 0, self.width, self.height, colour=True)
        chroma = []
        for plane in self.planes[1:]:
            x, y = self._subsampling(plane)
            size = (plane.shape[1] * x, plane.shape[0] * y)
            larger: Any = cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)
            chroma.append(larger[: self.height, : self.width])
        return self._to_rgb(self.planes[0], chroma)

    def _subsampling(self, plane: Plane) -> tuple[int, int]:
        """Luma pixels per pixel of a plane, across and down (the last pixel may cover fewer)."""
        height, width = self.planes[0].shape
        return max(1, round(width / plane.shape[1])), max(1, round(height / plane.shape[0]))

    def _to_plane(self, affine: NDArray[np.float64], plane: Plane) -> NDArray[np.float64]:
        """A (2, 3) affine map to the frame's pixels as one to a plane's."""
        if self.fit is not None:
            affine = self.fit.to_stored(affine)
        ratio = 1.0 / np.array(self._subsampling(plane))[:, None]
        out = affine * ratio
        out[:, 2:] += (ratio - 1) / 2
        return out

    def view(self, region: Region, side: int) -> Plane:
        """(side, side, 3) uint8 RGB of a region.

        Bilinear, after a mean over whole pixels where it shrinks by 2 or more; the picture's edge is
        continued outside.
        """
        if self.together is not None:
            (seen,) = self._samples((self.together,), region, side)
            return self._transformed(seen)
        y, *chroma = self._samples(self.planes, region, side)
        return self._to_rgb(y, chroma)

    def gray_view(self, region: Region, side: int) -> Plane:
        """(side, side) uint8: as `view`, luma alone, in the range of the file (full range with a `tone_map`); where it
        shrinks by 4 or more the mean is over 4, 8, 16 ... pixels, which takes a fraction of the time."""
        planes = self.planes if self.tone_map is not None else self.planes[:1]
        y, *chroma = self._samples(planes, region, side, halving=True)
        return y if self.tone_map is None else self._to_gray(y, chroma)

    def _samples(
        self, planes: Sequence[Any], region: Region, side: int, *, halving: bool = False
    ) -> list[Any]:
        """Planes in a view of a region; only the part looked at is averaged, by `halving` it as often as goes."""
        affine = region.to_source(side)
        stored = np.ones(2) if self.fit is None else self.fit.scale
        if self.fit is not None:
            affine = self.fit.to_stored(affine)
        shrinks = [_whole_steps(region.size / side * scale) for scale in stored.tolist()]
        if halving:
            shrinks = [1 << shrink.bit_length() - 1 for shrink in shrinks]
        seen: list[Any] = []
        shape: tuple[int, ...] = ()
        for number, plane in enumerate(planes):
            if plane.shape != shape:  # of both chroma planes alike
                shape = plane.shape
                to_plane, box, size = _placed(affine, shrinks, self._subsampling(plane), shape, side)
            if size is not None and min(shrinks) < _WORTH_KEEPING:
                plane = _mean(plane[box], size, halving)
            elif size is not None:
                key = (number, halving, size, box[0].start, box[1].start)
                if key not in self._reduced:
                    self._reduced[key] = _mean(plane[box], size, halving)
                plane = self._reduced[key]
            seen.append(
                cv2.warpAffine(plane, to_plane, (side, side), flags=_LOOK_UP, borderMode=cv2.BORDER_REPLICATE)
            )
        return seen

    @functools.cached_property
    def _reduced(self) -> dict[tuple[Any, ...], Any]:
        """Small means of large parts of planes: the detector is shown the same part turned in four ways."""
        return {}

    def _box(self, x0: int, y0: int, x1: int, y1: int, *, colour: bool) -> Plane:
        """A box of the display, RGB or gray, from planes that are not its own; 0 where the picture does not reach."""
        out = np.zeros((y1 - y0, x1 - x0, 3)[: 2 + colour], np.uint8)
        left, top, right, bottom = x0, y0, x1, y1
        if self.fit is not None:
            left, top = max(left, self.fit.left), max(top, self.fit.top)
            right, bottom = (
                min(right, self.fit.left + self.fit.across),
                min(bottom, self.fit.top + self.fit.down),
            )
        if left < right and top < bottom:
            planes = self.planes if colour or self.tone_map is not None else self.planes[:1]
            y, *chroma = (self._resampled(plane, left, top, right, bottom) for plane in planes)
            shown = self._to_rgb(y, chroma) if colour else self._to_gray(y, chroma)
            out[top - y0 : bottom - y0, left - x0 : right - x0] = shown
        return out

    def _resampled(self, plane: Any, x0: int, y0: int, x1: int, y1: int) -> Any:
        """A box of the display from one plane: bicubic, low-passed first where it shrinks."""
        size = (x1 - x0, y1 - y0)
        to_plane = self._to_plane(np.array([[1.0, 0.0, x0], [0.0, 1.0, y0]]), plane)
        scale = np.diag(to_plane)
        if (scale == 1).all():  # the display's pixels, though they may begin elsewhere in it
            left, top = (round(at) for at in to_plane[:, 2])
            return plane[top : top + size[1], left : left + size[0]]
        reach = np.ceil(2 * scale + 2)
        low = np.clip(np.floor(to_plane[:, 2] - reach), 0, None).astype(int)
        high = np.ceil(to_plane @ (*size, 1) + reach).astype(int)
        part = plane[low[1] : high[1], low[0] : high[0]]
        to_plane[:, 2] -= low
        if (scale > 1).any():
            across, down = np.sqrt(np.maximum(scale**2 - 1, 1e-6)) / 2
            part = cv2.GaussianBlur(part, (0, 0), across, sigmaY=down, borderType=cv2.BORDER_REPLICATE)
        return cv2.warpAffine(
            part,
            to_plane,
            size,
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def _to_gray(self, y: Any, chroma: list[Any]) -> Plane:
        if self.tone_map is not None:
            return self.tone_map.luma(self._coded(y, chroma))
        if self.full_range:
            return y  # type: ignore[no-any-return]
        # 16..235 to 0..255 (BT.601 and 709). A table of 256 values takes several times as long.
        gray: Any = np.maximum(y, np.uint8(16))
        return cv2.convertScaleAbs(gray, dst=gray, alpha=255 / 219, beta=-16 * 255 / 219)

    def _to_rgb(self, y: Any, chroma: list[Any]) -> Plane:
        if self.tone_map is not None:
            return self.tone_map.rgb(self._coded(y, chroma))
        if not chroma:
            return np.repeat(self._to_gray(y, chroma)[..., None], 3, axis=-1)
        return self._transformed(cv2.merge([y, *chroma]))

    def _transformed(self, yuv: Any) -> Plane:
        rgb: Any = cv2.transform(yuv, _yuv_to_rgb(self.full_range, self.matrix))
        return rgb

    def _coded(self, y: Any, chroma: list[Any]) -> NDArray[np.float32]:
        """(h, w, 3) R'G'B' as the file codes it, 0..255, not clipped."""
        neutral = [np.full(y.shape, 1 << (self.bits - 1), y.dtype)] * 2
        planes = cv2.merge([y, *(chroma or neutral)]).astype(np.float32)
        step = 255 / (2**self.bits - 1) if self.full_range else 0.5 ** (self.bits - 8)
        if self.matrix == "rgb":
            return planes * np.float32(step)
        matrix = _yuv_to_rgb(self.full_range, self.matrix)
        centre = np.array([0.0, *[128 - 2 ** (self.bits - 1) * step] * 2])
        scaled = np.hstack([matrix[:, :3] * step, matrix[:, 3:] + (matrix[:, :3] @ centre)[:, None]])
        rgb: Any = cv2.transform(planes, scaled)
        return rgb

    @classmethod
    def from_rgb(
        cls, rgb: NDArray[np.uint8], index: int = 0, time: float = 0.0, matrix: str = "601"
    ) -> Frame:
        """A frame from an (H, W, 3) uint8 RGB picture (or (H, W) gray); `matrix` says what its luma is."""
        image = as_picture(rgb)
        if image.ndim == 2:
            return cls(index, time, (image,), full_range=True)
        forward = np.linalg.inv(_yuv_to_rgb(True, matrix)[:, :3])
        shift = np.array([[0.0], [128.0], [128.0]])
        together: Any = cv2.transform(image, np.hstack([forward, shift]))
        return cls(index, time, tuple(cv2.split(together)), True, matrix, together=together)


def as_picture(rgb: ArrayLike) -> Plane:
    """The picture as a contiguous (H, W, 3) or (H, W) uint8 array. Raises ValueError if it is not a picture."""
    image = np.ascontiguousarray(rgb)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"a picture must be (H, W, 3) or (H, W) uint8; this is {image.shape} {image.dtype}.")
    return image


def _whole_steps(shrink: float) -> int:
    """How many whole pixels are averaged where a view shrinks so much."""
    return int(shrink) if 2 <= shrink < _FAR else 1


def _placed(
    affine: NDArray[np.float64],
    shrinks: Sequence[int],
    subsampling: tuple[int, int],
    shape: tuple[int, ...],
    side: int,
) -> tuple[NDArray[np.float64], tuple[slice, slice], tuple[int, int] | None]:
    """How one plane is seen in a view: the (2, 3) map from the view to what is sampled; where that is a mean, of which
    part of the plane and how large it is then, (width, height).

    Args:
        affine: (2, 3) from the view to the stored luma.
        shrinks: whole luma pixels that are averaged, across and down.
        subsampling: luma pixels per pixel of the plane, across and down.
        shape: of the plane.
        side: of the view.
    """
    # In plain numbers: this runs several times for every frame, and arrays of two cost ten times as much.
    rows, starts, stops, factors = [], [], [], []
    for (a, b, c), step, shrink, length in zip(
        affine.tolist(), subsampling, shrinks, shape[1::-1], strict=True
    ):
        ratio = 1.0 / step
        a, b, c = a * ratio, b * ratio, c * ratio + (ratio - 1) / 2
        # Chroma shrinks only as far as it stays no coarser than luma.
        factor = max(1, shrink // subsampling[0])
        # Whole cells of the averaging grid, so that what is seen does not depend on where the part is cut.
        across, down = a * (side - 1), b * (side - 1)
        low = math.floor(_near((c + min(across, 0.0) + min(down, 0.0)) / factor)) - 2
        high = math.ceil(_near((c + max(across, 0.0) + max(down, 0.0)) / factor)) + 3
        start = min(max(0, low) * factor, max(0, length - factor))
        rows.append((a, b, c))
        starts.append(start)
        stops.append(min(max(high * factor, start + factor), length))
        factors.append(factor)
    cells = [(stop - start) // factor for start, stop, factor in zip(starts, stops, factors, strict=True)]
    if max(factors) == 1 or not all(cells):
        return np.array(rows), (slice(None), slice(None)), None
    columns, lines = (
        slice(start, start + n * factor) for start, n, factor in zip(starts, cells, factors, strict=True)
    )
    rows = [
        (a / factor, b / factor, (c - (start + (factor - 1) / 2)) / factor)
        for (a, b, c), start, factor in zip(rows, starts, factors, strict=True)
    ]
    return np.array(rows), (lines, columns), (cells[0], cells[1])


def _mean(part: Any, size: tuple[int, int], halving: bool) -> Any:
    """Part of a plane, reduced to (width, height) by a mean over whole pixels."""
    while halving and min(part.shape[0] // size[1], part.shape[1] // size[0]) > 2:
        half = (part.shape[1] // 2, part.shape[0] // 2)
        part = cv2.resize(part, half, interpolation=cv2.INTER_AREA)
    return cv2.resize(part, size, interpolation=cv2.INTER_AREA)


def _near(place: float) -> float:
    """A place, or the nearest to it that can be counted in pixels (0 for none)."""
    return min(max(-_FAR, place), _FAR) if place == place else 0.0


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
