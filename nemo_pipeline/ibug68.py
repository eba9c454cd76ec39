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


def _pairs(places: list[_Place]) -> NDArray[np.intp]:
    """(2, n): the two vertices in whose middle each place lies; of a single vertex twice that one."""
    return np.array([(place, place) if isinstance(place, int) else place for place in places], np.intp).T


_BROWS = _pairs([*_RIGHT_BROW, *_LEFT_BROW])
_BRIDGE = _pairs(_NOSE_BRIDGE)
_FIXED = _pairs([*_NOSE_BASE, *_RIGHT_EYE, *_LEFT_EYE, *_UPPER_LIP, *_LOWER_LIP, *_INNER_MOUTH])
_PARTS = np.cumsum([_BROWS.shape[1], _BRIDGE.shape[1]])
_FIRST, _SECOND = np.concatenate([_BROWS, _BRIDGE, _FIXED], axis=1)
_NINE = np.arange(9.0)
_TINY = np.finfo(np.float64).tiny


def _arcs(polylines: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., M) length along `polylines` (..., M, 2) from their start to each of their points."""
    steps = polylines[..., 1:, :] - polylines[..., :-1, :]
    own = np.zeros(polylines.shape[:-1])
    np.cumsum(np.hypot(steps[..., 0], steps[..., 1]), axis=-1, out=own[..., 1:])
    return own


def _at_equal_arcs(polylines: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """(T, n, 2): points at equal arc lengths along `polylines` (T, M, 2), both ends included. Pixels."""
    own = _arcs(polylines)
    arcs = np.linspace(0.0, own[:, -1], n, axis=-1)
    before = (own[:, None, 1:-1] <= arcs[:, :, None]).sum(axis=-1)
    rows = np.arange(len(own))[:, None]
    length = np.maximum(own[rows, before + 1] - own[rows, before], _TINY)
    start = polylines[rows, before]
    slope = (polylines[rows, before + 1] - start) / length[..., None]
    points = slope * (arcs - own[rows, before])[..., None] + start
    points[:, -1] = polylines[:, -1]
    return points


def _nearest_arc(
    polyline: NDArray[np.float64], own: NDArray[np.float64], point: NDArray[np.float64]
) -> float:
    """Length along `polyline` (M,2), its own points being at `own` (M,), to where it is nearest `point`."""
    start, step = polyline[:-1], polyline[1:] - polyline[:-1]
    share = ((point - start) * step).sum(axis=1) / np.maximum((step**2).sum(axis=1), 1e-18)
    share = np.minimum(np.maximum(share, 0.0), 1.0)
    away = start + share[:, None] * step - point
    nearest = int(((away**2).sum(axis=1)).argmin())
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
    top = int(np.argmin((hull - right) @ normal))
    hull = np.concatenate([hull[top:], hull[:top]])
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
    return from_meshes(np.asarray(mesh)[None])[0]


def from_meshes(meshes: NDArray[np.floating]) -> NDArray[np.float64]:
    """As `from_mesh`, of several meshes (T, 478, >=2) at once: (T, 68, 2), each to the bit what it is alone."""
    xy = np.asarray(meshes[..., :2], dtype=np.float64)
    places = (xy[:, _FIRST] + xy[:, _SECOND]) * 0.5
    brows, bridge, fixed = np.split(places, _PARTS, axis=1)
    half = brows.shape[1] // 2
    jaw = [_jaw_line(one) for one in xy]
    return np.concatenate(
        [
            np.stack(jaw),
            _at_equal_arcs(brows[:, :half], 5),
            _at_equal_arcs(brows[:, half:], 5),
            _at_equal_arcs(bridge, 4),
            fixed,
        ],
        axis=1,
    )


def _jaw_line(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """(17, 2): the jaw line of a mesh (478, 2)."""
    outline = jaw_outline(xy)
    own = _arcs(outline)
    chin = _nearest_arc(outline, own, xy[_CHIN])
    arcs = np.concatenate([_NINE * (chin / 8), (_NINE * ((own[-1] - chin) / 8) + chin)[1:]])
    arcs[8], arcs[16] = chin, own[-1]
    return np.stack([np.interp(arcs, own, outline[:, axis]) for axis in (0, 1)], axis=1)
