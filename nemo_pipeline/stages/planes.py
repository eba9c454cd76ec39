"""Planes: what a decoded picture's format means. 8-bit planes, their range and colour matrix, upright."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from nemo_pipeline.stages.frame import Frame, Plane

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

#: (transpose, then flip left-right, then flip up-down)
Turn = tuple[bool, bool, bool]
_TAG_TURNS: dict[int, Turn] = {
    0: (False, False, False),
    90: (True, True, False),
    180: (False, True, True),
    270: (True, False, True),
}


def frame_of(picture: Any, index: int, time: float, turn: Turn) -> Frame:
    """The `Frame` of a decoded picture (av.VideoFrame)."""
    planes, full_range = _planes(picture)
    return Frame(
        index=index,
        time=time,
        planes=tuple(_upright(plane, turn) for plane in planes),
        full_range=full_range,
        matrix=_MATRICES.get(int(picture.colorspace), "601"),
    )


def _planes(picture: Any) -> tuple[tuple[Plane, ...], bool]:
    """8-bit planes of a picture, and whether its luma is full-range."""
    name = picture.format.name
    full = picture.color_range == _FULL_RANGE or name.startswith("yuvj")
    if name.startswith("gray"):
        # Gray without a stated range is full-range; with one, as stated.
        full = picture.color_range != _LIMITED_RANGE
    if name in _PLANAR or name in _GRAY:
        return tuple(_plane(p, 1) for p in picture.planes), full
    if name in _HIGH_BITS:
        bits = _HIGH_BITS[name]
        scale = 255.0 / (2**bits - 1) if full else 0.5 ** (bits - 8)
        centre = 128.0 - 2.0 ** (bits - 1) * scale  # keeps colourless chroma at 128
        return tuple(
            cv2.convertScaleAbs(_plane(p, 2), alpha=scale, beta=centre if k else 0.0)
            for k, p in enumerate(picture.planes)
        ), full
    if picture.format.is_rgb or name.startswith(("pal", "mono", "ya")):
        return Frame.from_rgb(picture.reformat(format="rgb24", threads=1).to_ndarray()).planes, True
    # Whatever else: the same range in plain planes.
    converted = picture.reformat(
        format="yuv444p",
        src_color_range=_FULL_RANGE if full else _LIMITED_RANGE,
        dst_color_range=_FULL_RANGE if full else _LIMITED_RANGE,
        threads=1,
    )
    return tuple(_plane(p, 1) for p in converted.planes), full


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
