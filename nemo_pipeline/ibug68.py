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
_TINY = np.finfo(np.float64).tiny


def _arcs(polylines: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., M) length along `polylines` (..., M, 2) from their start to each of their points."""
    steps = polylines[..., 1:, :] - polylines[..., :-1, :]
    own = np.zeros(polylines.shape[:-1])
    np.cumsum(np.hypot(steps[..., 0], steps[..., 1]), axis=-1, out=own[..., 1:])
    return own


def _points_at(
    polylines: NDArray[np.float64], own: NDArray[np.float64], arcs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(T, n, 2): the points at lengths `arcs` (T, n) along `polylines` (T, M, 2), their own being at `own` (T, M); the
    last of each is the end."""
    before = (own[:, None, 1:-1] <= arcs[:, :, None]).sum(axis=-1)
    rows = np.arange(len(own))[:, None]
    length = np.maximum(own[rows, before + 1] - own[rows, before], _TINY)
    start = polylines[rows, before]
    slope = (polylines[rows, before + 1] - start) / length[..., None]
    points = slope * (arcs - own[rows, before])[..., None] + start
    points[:, -1] = polylines[:, -1]
    return points


def _at_equal_arcs(polylines: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """(T, n, 2): points at equal arc lengths along `polylines` (T, M, 2), both ends included. Pixels."""
    own = _arcs(polylines)
    return _points_at(polylines, own, np.linspace(0.0, own[:, -1], n, axis=-1))


def _nearest_arcs(
    polylines: NDArray[np.float64], own: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(T,) lengths along `polylines` (T, M, 2), their own points being at `own` (T, M), to where each is nearest to its
    point of `points` (T, 2)."""
    start, step = polylines[:, :-1], polylines[:, 1:] - polylines[:, :-1]
    share = ((points[:, None] - start) * step).sum(axis=-1) / np.maximum((step**2).sum(axis=-1), 1e-18)
    share = np.clip(share, 0.0, 1.0)
    away = start + share[..., None] * step - points[:, None]
    rows, nearest = np.arange(len(own)), (away**2).sum(axis=-1).argmin(axis=1)
    return own[rows, nearest] + share[rows, nearest] * (own[rows, nearest + 1] - own[rows, nearest])


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
    outlines, lengths = _outlines(np.asarray(mesh[None, :_N_SURFACE, :2], dtype=np.float64))
    return outlines[0, : lengths[0]]


def _outlines(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The `jaw_outline` of each of the meshes `points` (T, >=468, 2): (T, M, 2), the last point repeated, and how many
    points (T,) there are of each."""
    points = points[:, :_N_SURFACE]
    right, chin, left = (points[:, k, None] for k in (_JAW_RIGHT_END, _CHIN, _JAW_LEFT_END))
    across = left - right
    normal = across[..., ::-1] * (-1.0, 1.0)
    normal = np.where(((chin - right) * normal).sum(axis=-1, keepdims=True) < 0, -normal, normal)
    rings = [cv2.convexHull(one, returnPoints=False).ravel() for one in (points - chin).astype(np.float32)]
    n = np.array([[len(ring)] for ring in rings])
    rows, k = np.arange(len(rings))[:, None], np.arange(n.max())
    vertices = np.array([np.resize(ring, len(k)) for ring in rings])
    height = ((points[rows, vertices] - right) * normal).sum(axis=-1)
    # The ring starts at the vertex furthest on the forehead's side, so that what is kept lies in one piece.
    turned = (height.argmin(axis=1)[:, None] + k) % n
    hull, height = points[rows, vertices[rows, turned]], height[rows, turned]
    kept = (height > 0) & (k < n)
    first = kept.argmax(axis=1)[:, None]
    last = len(k) - 1 - kept[:, ::-1].argmax(axis=1)[:, None]
    ends = []
    with np.errstate(invalid="ignore", divide="ignore"):  # a face without height has no ends
        for i, j in (((first - 1) % n, first), ((last + 1) % n, last)):
            share = height[rows, i] / (height[rows, i] - height[rows, j])
            ends.append(hull[rows, i] + (hull[rows, j] - hull[rows, i]) * share[..., None])
    backwards = ((ends[1] - ends[0]) * across).sum(axis=-1) < 0
    begin, end = (np.where(backwards[..., None], *pair) for pair in (ends[::-1], ends))
    lengths = last - first + 3
    k = np.arange(max(int(lengths.max()), 3))
    inner = np.clip(np.where(backwards, last + 1 - k, first - 1 + k), 0, len(hull[0]) - 1)
    outlines = np.where((k < lengths - 1)[..., None], hull[rows, inner], end)
    outlines[:, 0] = begin[:, 0]
    for flat in np.flatnonzero(~kept.any(axis=1)):  # a face without height: nothing better can be said
        outlines[flat, 0], outlines[flat, 1], outlines[flat, 2:] = right[flat], chin[flat], left[flat]
        lengths[flat] = 3
    return outlines, lengths[:, 0]


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
    return np.concatenate(
        [
            _jaw_lines(xy),
            _at_equal_arcs(brows[:, :half], 5),
            _at_equal_arcs(brows[:, half:], 5),
            _at_equal_arcs(bridge, 4),
            fixed,
        ],
        axis=1,
    )


def _jaw_lines(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, 17, 2): the jaw lines of meshes (T, 478, 2)."""
    outlines, _ = _outlines(xy)
    own = _arcs(outlines)
    chin = _nearest_arcs(outlines, own, xy[:, _CHIN])
    arcs = np.concatenate(
        [np.linspace(0.0, chin, 9, axis=-1), np.linspace(chin, own[:, -1], 9, axis=-1)[:, 1:]], axis=1
    )
    return _points_at(outlines, own, arcs)
