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
from nemo_pipeline.stages.part import SeenPart, part_seen, whole_steps
from nemo_pipeline.stages.transfer import ToneMap

Plane = NDArray[np.uint8]

# Kr, Kb of the colour matrices.
_COEFFICIENTS = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}
_LOOK_UP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_TO_FULL_RANGE = np.array([[255 / 219, -16 * 255 / 219]])  # of 16..235 (BT.601 and 709)
_WORTH_KEEPING = 5  # times that a view shrinks


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
        c, d = s * math.cos(self.angle), s * math.sin(self.angle)
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
        some: Any = cv2.resize(self.planes[0], (128, 96), interpolation=cv2.INTER_NEAREST)
        small: Any = cv2.resize(some, (64, 48), interpolation=cv2.INTER_AREA)
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
        return self._to_gray(self.planes[0][y0:y1, x0:x1])

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
        return self._to_rgb(_merged(self.planes[0], *chroma))

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
        continued outside. Chroma whose pixels are at least two of the view is sampled at every second one.
        """
        planes = self.planes if self.together is None else (self.together,)
        return self._to_rgb(self._sampled(planes, region, side))

    def gray_view(self, region: Region, side: int) -> Plane:
        """(side, side) uint8: as `view`, luma alone, in the range of the file (full range with a `tone_map`); where it
        shrinks by 4 or more the mean is over 4, 8, 16 ... pixels, which takes a fraction of the time."""
        if self.tone_map is not None:
            return self._to_gray(self._sampled(self.planes, region, side, halving=True))
        gray: Plane = self._sampled(self.planes[:1], region, side, halving=True)
        return gray

    def _sampled(self, planes: Sequence[Any], region: Region, side: int, *, halving: bool = False) -> Any:
        """(side, side), or (side, side, 3): planes in a view of a region; only the part looked at is averaged, by
        `halving` it as often as goes."""
        affine, pitches = region.to_source(side), [region.size / side] * 2
        if self.fit is not None:
            affine, pitches = self.fit.to_stored(affine), (self.fit.scale * pitches).tolist()
        shrinks = [whole_steps(pitch) for pitch in pitches]
        if halving:
            shrinks = [1 << shrink.bit_length() - 1 for shrink in shrinks]
        seen, shape, finer = [], None, 1
        for number, plane in enumerate(planes):
            if plane.shape != shape:  # of both chroma planes alike
                shape, step = plane.shape, self._subsampling(plane)
                if number and min(step) >= 2 * max(pitches) and side % 2 == 0:
                    # A pixel of chroma is as large as two of the view: every second one says as much.
                    finer, affine = 2, affine * (2, 2, 1)
                part = part_seen(affine, shrinks, step, shape, side // finer)
            if min(shrinks) < _WORTH_KEEPING:
                cells = self._cells(plane, part, halving)
            else:
                key = (number, plane.ndim, halving, *part[1:])
                if key not in self._reduced:
                    self._reduced[key] = self._cells(plane, part, halving)
                cells = self._reduced[key]
            size = (side // finer, side // finer)
            view = cv2.warpAffine(
                cells, part.from_view, size, flags=_LOOK_UP, borderMode=cv2.BORDER_REPLICATE
            )
            seen.append(cv2.pyrUp(view) if finer == 2 else view)
        return _merged(*seen)

    def _cells(self, plane: Any, part: SeenPart, halving: bool) -> Any:
        """What is sampled of a plane, as a copy or a mean: so the plane's rows, which lie far apart, are read once, one
        after the other. By `halving` the part first, while cells are larger than two pixels."""
        (left, top), (columns, lines), (across, down) = part.start, part.size, part.factors
        box = (left, top, left + columns * across, top + lines * down)
        if across == down == 1:
            return _inside(plane, box).copy()
        once = plane is self.planes[0] and (across == down == 2 or (halving and min(across, down) > 2))
        cells = self._halved(box) if once else _inside(plane, box)
        while halving and min(cells.shape[0] // lines, cells.shape[1] // columns) > 2:
            half = (cells.shape[1] // 2, cells.shape[0] // 2)
            cells = cv2.resize(cells, half, interpolation=cv2.INTER_AREA)
        if cells.shape[:2] == (lines, columns):
            return cells
        return cv2.resize(cells, part.size, interpolation=cv2.INTER_AREA)

    def _halved(self, box: tuple[int, int, int, int]) -> Any:
        """The luma in a box whose numbers are even, means of 2 x 2 pixels. The last result is kept: a face is looked at
        several times, each time closer."""
        known, cells = self._reduced.get("halved", ((0, 0, 0, 0), None))
        if not (known[0] <= box[0] and known[1] <= box[1] and box[2] <= known[2] and box[3] <= known[3]):
            known, size = box, ((box[2] - box[0]) // 2, (box[3] - box[1]) // 2)
            cells = cv2.resize(_inside(self.planes[0], box), size, interpolation=cv2.INTER_AREA)
            self._reduced["halved"] = known, cells
        left, top, right, bottom = ((at - known[k % 2]) // 2 for k, at in enumerate(box))
        return cells[top:bottom, left:right]

    @functools.cached_property
    def _reduced(self) -> dict[Any, Any]:
        """Means of parts of planes: the detector is shown the same part turned in four ways."""
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
            levels = _merged(*[self._resampled(plane, left, top, right, bottom) for plane in planes])
            shown = self._to_rgb(levels) if colour else self._to_gray(levels)
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

    def _to_gray(self, levels: Any) -> Plane:
        """Full-range gray of luma (h, w), or of all planes (h, w, 3) where there is a `tone_map`."""
        if self.tone_map is not None:
            return self.tone_map.luma(self._coded(levels))
        if self.full_range:
            return levels  # type: ignore[no-any-return]
        # A table of 256 values takes three times as long.
        gray: Any = cv2.transform(levels, _TO_FULL_RANGE)
        return gray

    def _to_rgb(self, levels: Any) -> Plane:
        """RGB of luma (h, w), or of all planes (h, w, 3)."""
        if self.tone_map is not None:
            return self.tone_map.rgb(self._coded(levels))
        if levels.ndim == 2:
            return np.repeat(self._to_gray(levels)[..., None], 3, axis=-1)
        rgb: Any = cv2.transform(levels, _yuv_to_rgb(self.full_range, self.matrix))
        return rgb

    def _coded(self, levels: Any) -> NDArray[np.float32]:
        """(h, w, 3) R'G'B' as the file codes it, 0..255, not clipped."""
        if levels.ndim == 2:
            levels = cv2.merge([levels, *[np.full(levels.shape, 1 << (self.bits - 1), levels.dtype)] * 2])
        planes = levels.astype(np.float32)
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


def _merged(*planes: Any) -> Any:
    """(h, w) of one plane, (h, w, 3) of three."""
    return cv2.merge(planes) if len(planes) > 1 else planes[0]


def _inside(plane: Any, box: tuple[int, int, int, int]) -> Any:
    """The part of a plane from (left, top) to (right, bottom)."""
    left, top, right, bottom = box
    return plane[top:bottom, left:right]


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
