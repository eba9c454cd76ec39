"""The 68 iBUG points: what each index means, which mirrors which, and how they are built from the 478-point mesh.

Sides are the subject's: "right" is the subject's right, which is on the picture's left. Indices count from 0
(iBUG's own numbers count from 1).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

GROUPS: dict[str, range] = {
    "jaw": range(0, 17),
    "right_brow": range(17, 22),
    "left_brow": range(22, 27),
    "nose": range(27, 36),
    "right_eye": range(36, 42),
    "left_eye": range(42, 48),
    "outer_mouth": range(48, 60),
    "inner_mouth": range(60, 68),
}
RIGHT_EYE_OUTER, LEFT_EYE_OUTER = 36, 45
RIGHT_LIP_CORNER, LEFT_LIP_CORNER = 48, 54

#: MIRROR[i] is the point that i becomes when the picture is flipped left to right.
MIRROR: NDArray[np.intp] = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    + [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55]
    + [64, 63, 62, 61, 60, 67, 66, 65],
    dtype=np.intp,
)

# Every point that is neither on the jaw line, a brow nor the nose's bridge is a mesh vertex or the midpoint of two.
_Place = int | tuple[int, int]
_RIGHT_BROW: list[_Place] = [(70, 156), 70, 63, 105, 66, 107, (55, 107)]
_LEFT_BROW: list[_Place] = [(285, 336), 336, 296, 334, 293, 300, (300, 383)]
_NOSE_BRIDGE: list[_Place] = [168, 6, 197, 195, 5, 4]
_NOSE_BASE: list[_Place] = [(75, 240), 97, 2, 326, (305, 460)]
_RIGHT_EYE: list[_Place] = [33, (159, 160), 158, 155, 153, 144]
_LEFT_EYE: list[_Place] = [382, 385, (386, 387), 263, 373, 380]
_OUTER_MOUTH: list[_Place] = [
    *[61, (40, 73), (37, 72), (0, 11), (267, 302), (270, 303)],
    *[291, (321, 405), 314, 17, 84, (91, 181)],
]
_INNER_MOUTH: list[_Place] = [(78, 191), 82, 13, 312, (308, 415), 317, 14, 87]
_JAW_RIGHT_END, _CHIN, _JAW_LEFT_END = 127, 152, 356
_N_SURFACE = 468  # vertices beyond these are the irises


def _mixing_matrix(places: list[_Place]) -> NDArray[np.float64]:
    """(n, 478) weights that turn mesh vertices into `places`."""
    matrix = np.zeros((len(places), 478))
    for row, place in enumerate(places):
        for vertex in (place,) if isinstance(place, int) else place:
            matrix[row, vertex] += 1.0 if isinstance(place, int) else 0.5
    return matrix


_POLYLINES = {
    name: _mixing_matrix(places)
    for name, places in {"right_brow": _RIGHT_BROW, "left_brow": _LEFT_BROW, "bridge": _NOSE_BRIDGE}.items()
}
_FIXED = _mixing_matrix([*_NOSE_BASE, *_RIGHT_EYE, *_LEFT_EYE, *_OUTER_MOUTH, *_INNER_MOUTH])


def _at_equal_arcs(polyline: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """`n` points at equal arc lengths along `polyline` (M,2), both ends included. Pixels."""
    arc = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(polyline, axis=0).T))])
    at = np.linspace(0.0, arc[-1], n)
    return np.stack([np.interp(at, arc, polyline[:, axis]) for axis in (0, 1)], axis=1)


def jaw_outline(mesh: NDArray[np.floating]) -> tuple[NDArray[np.float64], int]:
    """The face's outline in the picture from one ear over the chin to the other.

    It is the part of the convex hull of the mesh that lies on the chin's side of the line between the two vertices
    in front of the ears, so it follows the visible outline when the head turns, as iBUG's annotators did.

    Args:
        mesh: (478, >=2), x then y, pixels; also (468, >=2).

    Returns:
        The outline (M,2) from the subject's right to the left, and the index in it of the point nearest the chin.
    """
    points = np.asarray(mesh[:_N_SURFACE, :2], dtype=np.float64)
    right, chin, left = points[_JAW_RIGHT_END], points[_CHIN], points[_JAW_LEFT_END]
    across = left - right

    def height(p: NDArray[np.float64]) -> NDArray[np.float64]:
        # Signed area: positive on the chin's side of the ear line.
        return across[0] * (p[..., 1] - right[1]) - across[1] * (p[..., 0] - right[0])

    sign = 1.0 if height(chin) >= 0 else -1.0
    below = points[sign * height(points) > 0]
    candidates = np.concatenate([right[None], left[None], below])
    order = cv2.convexHull(candidates.astype(np.float32), returnPoints=False)[:, 0]
    hull = candidates[order]
    # Turn the ring so that it runs from the right ear, with the chin's side first.
    first = int(np.argmin(np.hypot(*(hull - right).T)))
    hull = np.roll(hull, -first, axis=0)
    last = int(np.argmin(np.hypot(*(hull - left).T)))
    if last <= len(hull) // 2 and last < len(hull) - 1:
        hull = np.concatenate([hull[:1], hull[:0:-1]])
        last = len(hull) - last
    outline = hull[: last + 1]
    return outline, int(np.argmin(np.hypot(*(outline - chin).T)))


def from_mesh(mesh: NDArray[np.floating]) -> NDArray[np.float64]:
    """The 68 iBUG points of one face mesh.

    By definition, never fitted to annotations: mesh vertices and midpoints for eyes, mouth and the nose's base; equal
    arcs along a polyline for each brow and the nose's bridge; 8 equal arcs along each half of the face's outline for
    the jaw line. The measured error against 300-W annotations, and the usual table's, stands in docs/landmarks.md.

    Args:
        mesh: (478, >=2), x then y, pixels of the picture (the jaw line is an outline in the picture, so the face must
            not have been turned away from it first; any rotation in the picture's plane is fine).

    Returns:
        (68, 2) float64, x then y, pixels.
    """
    xy = np.asarray(mesh[:, :2], dtype=np.float64)
    if xy.shape[0] == _N_SURFACE:  # the canonical mesh has no irises
        xy = np.concatenate([xy, np.zeros((10, 2))])
    outline, chin = jaw_outline(xy)
    right_jaw = _at_equal_arcs(outline[: chin + 1], 9)
    left_jaw = _at_equal_arcs(outline[chin:], 9)
    return np.concatenate(
        [
            right_jaw,
            left_jaw[1:],
            _at_equal_arcs(_POLYLINES["right_brow"] @ xy, 5),
            _at_equal_arcs(_POLYLINES["left_brow"] @ xy, 5),
            _at_equal_arcs(_POLYLINES["bridge"] @ xy, 4),
            _FIXED @ xy,
        ]
    )
