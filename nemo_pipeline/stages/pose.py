"""Head pose: the rotation that turns the bundle's canonical face into a mesh, or into 68 points alone."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline import ibug68
from nemo_pipeline.geometry import canonical_mesh

#: The points of the 68 that a face's expression moves least: nose and eyes.
_RIGID = np.array([i for name in ("nose", "right_eye", "left_eye") for i in ibug68.GROUPS[name]])


@functools.cache
def _reference() -> tuple[NDArray[Any], ...]:
    """What `head_positions` needs of the canonical face: vertex indices, their weights (sum 1), the vertices themselves
    around their weighted middle, that middle, and their weighted mean square distance from it."""
    vertices, indices, weights = canonical_mesh()
    weights = weights / weights.sum()
    middle = weights @ vertices[indices]
    centred = vertices[indices] - middle
    return indices, weights, centred, middle, weights @ (centred**2).sum(axis=1)


def head_positions(
    meshes: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Scales (T,), rotations (T, 3, 3) and shifts (T, 3) that bring the canonical face to meshes (T, 478, 3).

    Weak perspective; Umeyama 1991 on the vertices and weights that the bundle aligns with: `align_similarity`, with all
    that is the same for every face computed once.
    """
    indices, weights, centred, middle, square = _reference()
    seen = meshes[:, indices].astype(np.float64)
    places = weights @ seen
    seen -= places[:, None]
    seen *= weights[:, None]
    u, s, vt = np.linalg.svd(seen.transpose(0, 2, 1) @ centred)
    mirrored = np.linalg.det(u @ vt) < 0
    u[mirrored, :, 2] *= -1
    s[mirrored, 2] *= -1
    rotations = u @ vt
    scales = s.sum(axis=1) / square
    return scales, rotations, places - scales[:, None] * (rotations @ middle)


def head_pose(mesh: NDArray[np.floating]) -> tuple[float, float, float]:
    """Yaw, pitch, roll of one mesh (478, 3), degrees: the rotation of `head_positions`.

    Yaw is positive towards the picture's right (the subject's left), pitch upwards, roll clockwise as seen.
    """
    return euler_degrees(head_positions(mesh[None])[1][0])


@functools.cache
def _canonical_points() -> NDArray[np.float64]:
    """(21, 3): the rigid points on the canonical face, centred, in centimetres; their depth is that of the nearest
    vertex."""
    vertices, _, _ = canonical_mesh()
    mesh = np.zeros((478, 3))
    mesh[: len(vertices)] = vertices
    points = ibug68.from_mesh(mesh)[_RIGID]
    distance = ((points[:, None] - vertices[None, :, :2]) ** 2).sum(axis=2)
    solid = np.column_stack([points, vertices[distance.argmin(axis=1), 2]])
    return solid - solid.mean(axis=0)


def head_pose_68(landmarks: NDArray[np.floating]) -> tuple[tuple[float, float, float], float]:
    """Yaw, pitch, roll (degrees, as `head_pose`) of 68 points without a mesh, and the face's size.

    The scaled orthographic projection of the canonical face's nose and eyes nearest to the least-squares affine
    one. On real clips it stays within about 3 degrees of the mesh's pose, 8 near the yaw limit.

    Args:
        landmarks: (68, 2) source pixels.

    Returns:
        The angles, NaN where the points say nothing (they fall together); and the distance of the outer eye
        corners, pixels, with the foreshortening of a turned head undone.
    """
    seen = np.asarray(landmarks, dtype=np.float64)[_RIGID]
    affine = np.linalg.lstsq(_canonical_points(), seen - seen.mean(axis=0), rcond=None)[0].T
    u, s, vt = np.linalg.svd(affine, full_matrices=False)
    if not s[1] > 1e-6 * max(float(s[0]), 1e-6):
        return (float("nan"), float("nan"), float("nan")), float(np.hypot(*(landmarks[45] - landmarks[36])))
    rows = u @ vt
    rotation = np.vstack([rows, np.cross(rows[0], rows[1])])
    right, left = (int(np.flatnonzero(i == _RIGID)[0]) for i in (36, 45))
    eyes = _canonical_points()[left] - _canonical_points()[right]
    shortened = float(np.linalg.norm(rows @ eyes) / np.linalg.norm(eyes))
    return euler_degrees(rotation), float(np.hypot(*(seen[left] - seen[right]))) / max(shortened, 0.1)


def euler_degrees(rotation: NDArray[np.float64]) -> tuple[float, float, float]:
    """Yaw, pitch, roll (degrees) of a (3, 3) rotation in picture axes: x right, y down, z away from the camera."""
    yaw, pitch, roll = all_euler_degrees(rotation[None])[0].tolist()
    return yaw, pitch, roll


def all_euler_degrees(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """As `euler_degrees`, of several rotations (T, 3, 3) at once: (T, 3)."""
    x, y, z = (-rotations[:, k, 2] for k in range(3))  # forward, towards the camera
    yaw, pitch = np.arctan2(x, -z), np.arctan2(-y, np.hypot(x, z))
    # Roll is what is left in the picture's plane when yaw and pitch are undone.
    (a, b, c), cy, sy, cp, sp = rotations[..., 0].T, np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    roll = np.arctan2(sy * sp * a + cp * b - cy * sp * c, cy * a + sy * c)
    return np.degrees(np.stack([yaw, pitch, roll], axis=1))


def rotation_matrix(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """The inverse of `euler_degrees`: (3, 3)."""
    a, b, c = np.radians([yaw, pitch, roll])
    cr, sr = np.cos(c), np.sin(c)
    return _yaw_pitch(a, b) @ np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])


def _yaw_pitch(yaw: float, pitch: float) -> NDArray[np.float64]:
    """First the pitch about the x axis, then the yaw about the y axis."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return about_y @ about_x
