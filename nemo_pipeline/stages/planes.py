"""Planes: what a decoded picture's format means. Its planes, their range, levels and colour matrix, upright."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import cv2
import numpy as np

from nemo_pipeline.stages.display import fit
from nemo_pipeline.stages.frame import Frame, Plane
from nemo_pipeline.stages.transfer import tone_map

# Formats whose planes are used as they are.
_PLANAR = (
    *("yuv420p", "yuv422p", "yuv444p", "yuv411p", "yuv440p"),
    *("yuvj420p", "yuvj422p", "yuvj444p", "yuvj440p"),
)
_GRAY = ("gray", "gray8")
_HIGH_BITS = {f"{name}{bits}le": bits for name in _PLANAR[:5] for bits in (9, 10, 12, 14, 16)}
_HIGH_BITS |= {f"gray{bits}le": bits for bits in (9, 10, 12, 14, 16)}
_LIMITED_RANGE, _FULL_RANGE = 1, 2  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
_MATRICES = {1: "709", 9: "2020", 10: "2020"}  # AVCOL_SPC_BT709, BT2020_NCL, BT2020_CL
_RGB_MATRICES = {1: "709", 9: "2020"}  # AVCOL_PRI_BT709, BT2020
#: Formats of 16 bits, which cameras of fewer fill from below.
SIXTEEN = ("gray16", "rgb48", "bgr48", "gbrp16")

#: (transpose, then flip left-right, then flip up-down)
Turn = tuple[bool, bool, bool]
_TAG_TURNS: dict[int, Turn] = {
    0: (False, False, False),
    90: (True, True, False),
    180: (False, True, True),
    270: (True, False, True),
}


def to_frame(
    picture: Any,
    index: int,
    time: float,
    turn: Turn,
    *,
    aspect: Fraction = Fraction(1),
    display: tuple[int, int] | None = None,
    used_bits: int = 16,
) -> Frame:
    """The `Frame` of a decoded picture (av.VideoFrame).

    Args:
        turn: how the stored pixels are turned upright.
        aspect: width of a stored pixel over its height, before the turn.
        display: (width, height) of the video, None for its first picture.
        used_bits: of 16-bit levels, those that hold something (`used_bits` of the stream).
    """
    hdr = tone_map(int(picture.color_trc), int(picture.color_primaries))
    if hdr is None:
        planes, full_range, bits, matrix = *_planes(picture, used_bits), 8, _matrix(picture)
    else:
        planes, full_range, bits, matrix = _deep_planes(picture)
    planes = tuple(_upright(plane, turn) for plane in planes)
    height, width = planes[0].shape
    return Frame(
        index=index,
        time=time,
        planes=planes,
        full_range=full_range,
        matrix=matrix,
        fit=fit((width, height), 1 / aspect if turn[0] else aspect, display),
        tone_map=hdr,
        bits=bits,
    )


def _matrix(picture: Any) -> str:
    """The matrix that the file states; of RGB, the one that belongs to the primaries that it states."""
    stated = _MATRICES.get(int(picture.colorspace))
    if stated is None and picture.format.is_rgb:
        stated = _RGB_MATRICES.get(int(picture.color_primaries))
    return stated or "601"


def _planes(picture: Any, used_bits: int) -> tuple[tuple[Plane, ...], bool]:
    """8-bit planes of a picture, and whether its luma is full-range."""
    name = picture.format.name
    full = _full_range(picture)
    if name in _PLANAR or name in _GRAY:
        return tuple(_plane(p, 1) for p in picture.planes), full
    if used_bits < 16 and name.startswith(SIXTEEN):
        levels = cv2.convertScaleAbs(deep_levels(picture), alpha=255 / (2**used_bits - 1))
        return Frame.from_rgb(levels, matrix=_matrix(picture)).planes, True
    if name in _HIGH_BITS:
        bits = _HIGH_BITS[name]
        scale = 255.0 / (2**bits - 1) if full else 0.5 ** (bits - 8)
        centre = 128.0 - 2.0 ** (bits - 1) * scale  # keeps colourless chroma at 128
        return tuple(
            cv2.convertScaleAbs(_plane(p, 2), alpha=scale, beta=centre if k else 0.0)
            for k, p in enumerate(picture.planes)
        ), full
    if picture.format.is_rgb or name.startswith(("pal", "mono", "ya")):
        rgb = picture.reformat(format="rgb24", threads=1).to_ndarray()
        return Frame.from_rgb(rgb, matrix=_matrix(picture)).planes, True
    # Whatever else: the same range in plain planes.
    converted = _same_range(picture, "yuv444p", full)
    return tuple(_plane(p, 1) for p in converted.planes), full


def _full_range(picture: Any) -> bool:
    name = picture.format.name
    if name.startswith("gray"):
        # Gray without a stated range is full-range; with one, as stated.
        return bool(picture.color_range != _LIMITED_RANGE)
    return bool(picture.color_range == _FULL_RANGE or name.startswith("yuvj"))


def _same_range(picture: Any, pixel_format: str, full: bool) -> Any:
    stated = _FULL_RANGE if full else _LIMITED_RANGE
    return picture.reformat(format=pixel_format, src_color_range=stated, dst_color_range=stated, threads=1)


def _deep_planes(picture: Any) -> tuple[tuple[Any, ...], bool, int, str]:
    """Planes of an HDR picture with all their bits; whether they are full-range, their bits, and their matrix."""
    name, full, matrix = (
        picture.format.name,
        _full_range(picture),
        _MATRICES.get(int(picture.colorspace), "2020"),
    )
    if name in _PLANAR or name in _GRAY:
        return tuple(_plane(p, 1) for p in picture.planes), full, 8, matrix
    if picture.format.is_rgb:
        return tuple(cv2.split(deep_levels(picture))), True, 16, "rgb"
    if name not in _HIGH_BITS:
        picture = _same_range(picture, "yuv444p16le", full)
    bits = _HIGH_BITS[picture.format.name]
    return tuple(_plane(p, 2) for p in picture.planes), full, bits, matrix


def deep_levels(picture: Any) -> Any:
    """(H, W) or (H, W, 3) uint16 of a picture whose format is one of `SIXTEEN`."""
    gray = picture.format.name.startswith("gray")
    return picture.reformat(format="gray16le" if gray else "rgb48le", threads=1).to_ndarray()


def _plane(plane: Any, bytes_per_sample: int) -> Any:
    """A plane as (h, w), without a copy. uint8, or uint16 for 2 bytes per sample."""
    dtype = np.uint8 if bytes_per_sample == 1 else np.dtype("<u2")
    rows = np.frombuffer(plane, dtype=dtype).reshape(plane.height, plane.line_size // bytes_per_sample)
    return rows[:, : plane.width]


def tag_turn(metadata: dict[str, str]) -> Turn:
    """How the old `rotate` tag (degrees clockwise) turns the stored pixels; not at all without one."""
    for key, value in metadata.items():
        if key.lower() == "rotate":
            try:
                return _TAG_TURNS[round(float(value) / 90) * 90 % 360]
            except (ValueError, OverflowError):
                break
    return _TAG_TURNS[0]


def display_turn(picture: Any, default: Turn) -> Turn:
    """How a picture's display matrix turns its stored pixels; `default` without one.

    A display matrix (a b u; c d v; x y w) sends a stored pixel (p, q) to (a p + c q, b p + d q).
    """
    for data in picture.side_data:
        if getattr(data.type, "name", "") == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data), dtype="<i4")[:5]
            if abs(int(b)) > abs(int(a)):
                return True, bool(c < 0), bool(b < 0)
            return False, bool(a < 0), bool(d < 0)
    return default


def degrees(turn: Turn) -> int:
    """Clockwise degrees of a turn (a mirror image counts as its rotation part)."""
    transpose, flip_x, flip_y = turn
    return (90 if flip_x else 270) if transpose else (180 if flip_y else 0)


def _upright(plane: Plane, turn: Turn) -> Plane:
    transpose, flip_x, flip_y = turn
    turned: Any = cv2.transpose(plane) if transpose else plane
    if flip_x or flip_y:
        turned = cv2.flip(turned, -1 if flip_x and flip_y else (1 if flip_x else 0))
    return turned
