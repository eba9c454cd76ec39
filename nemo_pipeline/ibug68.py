"""The 68 iBUG points: what each index means, which mirrors which, how they are built from the 478-point mesh.

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
    [
        *[*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31],
        *[45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40],
        *[54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55],
        *[64, 63, 62, 61, 60, 67, 66, 65],
    ],
    dtype=np.intp,
)

# What is neither on the jaw line, a brow nor the nose's bridge is a mesh vertex or the midpoint of two.
_Place = int | tuple[int, int]
_RIGHT_BROW: list[_Place] = [(70, 156), 70, 63, 105, 66, 107, (55, 107)]
_LEFT_BROW: list[_Place] = [(285, 336), 336, 296, 334, 293, 300, (300, 383)]
_NOSE_BRIDGE: list[_Place] = [168, 6, 197, 195, 5, 4]
_NOSE_BASE: list[_Place] = [(75, 240), 97, (2, 164), 326, (305, 460)]
_RIGHT_EYE: list[_Place] = [(7, 33), (159, 160), 158, 155, 153, 144]
_LEFT_EYE: list[_Place] = [382, 385, (386, 387), (249, 263), 373, 380]
_UPPER_LIP: list[_Place] = [61, (40, 73), (37, 72), (0, 11), (267, 302), (270, 303)]
_LOWER_LIP: list[_Place] = [291, (321, 405), 314, 17, 84, (91, 181)]
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


_RIGHT_BROW_MIX, _LEFT_BROW_MIX, _BRIDGE_MIX = (
    _mixing_matrix(places) for places in (_RIGHT_BROW, _LEFT_BROW, _NOSE_BRIDGE)
)
_FIXED = _mixing_matrix([*_NOSE_BASE, *_RIGHT_EYE, *_LEFT_EYE, *_UPPER_LIP, *_LOWER_LIP, *_INNER_MOUTH])


def _arcs(polyline: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M,) length along `polyline` (M,2) from its start to each of its points."""
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(polyline, axis=0).T))])


def _points_at(
    polyline: NDArray[np.float64], own: NDArray[np.float64], arcs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n, 2): the points at lengths `arcs` (n,) along `polyline` (M,2), its own being at `own` (M,)."""
    return np.stack([np.interp(arcs, own, polyline[:, axis]) for axis in (0, 1)], axis=1)


def _at_equal_arcs(polyline: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """`n` points at equal arc lengths along `polyline` (M,2), both ends included. Pixels."""
    own = _arcs(polyline)
    return _points_at(polyline, own, np.linspace(0.0, own[-1], n))


def _nearest_arc(
    polyline: NDArray[np.float64], own: NDArray[np.float64], point: NDArray[np.float64]
) -> float:
    """Length along `polyline` (M,2), its own points being at `own` (M,), to where it is nearest `point`."""
    start, step = polyline[:-1], np.diff(polyline, axis=0)
    share = ((point - start) * step).sum(axis=1) / np.maximum((step**2).sum(axis=1), 1e-18)
    share = np.clip(share, 0.0, 1.0)
    away = start + share[:, None] * step - point
    nearest = int(np.argmin((away**2).sum(axis=1)))
    return float(own[nearest] + share[nearest] * (own[nearest + 1] - own[nearest]))


def jaw_outline(mesh: NDArray[np.floating]) -> NDArray[np.float64]:
    """The face's outline in the picture from one ear over the chin to the other.

    It is the convex hull of the mesh, cut along the straight line through the two vertices in front of the
    ears and kept on the chin's side, so it follows the visible outline when the head turns, as iBUG's
    annotators did. (It ends where that line meets the hull: the two vertices may lie inside it.)

    Args:
        mesh: (478, >=2), x then y, pixels; also (468, >=2).

    Returns:
        (M, 2) from the subject's right to the left, pixels.
    """
    points = np.asarray(mesh[:_N_SURFACE, :2], dtype=np.float64)
    right, chin, left = points[_JAW_RIGHT_END], points[_CHIN], points[_JAW_LEFT_END]
    across = left - right
    normal = np.array([-across[1], across[0]])
    if (chin - right) @ normal < 0:
        normal = -normal
    order = cv2.convexHull((points - chin).astype(np.float32), returnPoints=False)[:, 0]
    hull = points[order]
    # The ring starts at the vertex furthest on the forehead's side, so that what is kept lies in one piece.
    hull = np.roll(hull, -int(np.argmin((hull - right) @ normal)), axis=0)
    height = (hull - right) @ normal
    kept = np.flatnonzero(height > 0)
    if not len(kept):  # a face without height: nothing better can be said
        return np.stack([right, chin, left])
    first, last = int(kept[0]), int(kept[-1])
    after = (last + 1) % len(hull)
    ends = [
        hull[i] + (hull[j] - hull[i]) * (height[i] / (height[i] - height[j]))
        for i, j in ((first - 1, first), (after, last))
    ]
    outline = np.concatenate([ends[0][None], hull[first : last + 1], ends[1][None]])
    return outline if (outline[-1] - outline[0]) @ across >= 0 else outline[::-1]


def from_mesh(mesh: NDArray[np.floating]) -> NDArray[np.float64]:
    """The 68 iBUG points of one face mesh.

    By a fixed geometric rule, never fitted to annotations: mesh vertices and midpoints for eyes, mouth and the nose's
    base; equal arcs along a polyline for each brow and the nose's bridge; 8 equal arcs along the face's
    outline from each ear to the chin for the jaw line. The measured error against 300-W annotations, and the
    usual table's, is in docs/landmarks.md.

    Args:
        mesh: (478, >=2), x then y, pixels of the picture (the jaw line is an outline in the picture, so the
            face must not have been turned away from it first; any rotation in the picture's plane is fine).

    Returns:
        (68, 2) float64, x then y, pixels.
    """
    xy = np.asarray(mesh[:, :2], dtype=np.float64)
    if xy.shape[0] == _N_SURFACE:  # the canonical mesh has no irises
        xy = np.concatenate([xy, np.zeros((10, 2))])
    outline = jaw_outline(xy)
    own = _arcs(outline)
    chin = _nearest_arc(outline, own, xy[_CHIN])
    jaw_arcs = np.concatenate([np.linspace(0.0, chin, 9), np.linspace(chin, own[-1], 9)[1:]])
    return np.concatenate(
        [
            _points_at(outline, own, jaw_arcs),
            _at_equal_arcs(_RIGHT_BROW_MIX @ xy, 5),
            _at_equal_arcs(_LEFT_BROW_MIX @ xy, 5),
            _at_equal_arcs(_BRIDGE_MIX @ xy, 4),
            _FIXED @ xy,
        ]
    )
