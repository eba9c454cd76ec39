"""Head pose of a face mesh: the rotation that turns the bundle's canonical face into it."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.geometry import align_similarity, canonical_mesh


@functools.cache
def _reference() -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]:
    vertices, indices, weights = canonical_mesh()
    return vertices[indices], indices, weights


def head_pose(mesh: NDArray[np.floating]) -> tuple[float, float, float]:
    """Yaw, pitch, roll of one mesh (478, 3), degrees.

    The similarity from the canonical face to the mesh (weak perspective; Umeyama 1991 on the vertices and weights that
    the bundle aligns with). Yaw is positive towards the picture's right (the subject's left), pitch upwards, roll
    clockwise as seen.
    """
    reference, indices, weights = _reference()
    _, rotation, _ = align_similarity(reference, mesh[indices], weights)
    return euler_degrees(rotation)


def euler_degrees(rotation: NDArray[np.float64]) -> tuple[float, float, float]:
    """Yaw, pitch, roll (degrees) of a (3, 3) rotation in picture axes: x right, y down, z away from the camera."""
    forward = rotation @ (0.0, 0.0, -1.0)
    yaw = np.degrees(np.arctan2(forward[0], -forward[2]))
    pitch = np.degrees(np.arctan2(-forward[1], np.hypot(forward[0], forward[2])))
    # Roll is what is left in the picture's plane when yaw and pitch are undone.
    level = _yaw_pitch(np.radians(yaw), np.radians(pitch)).T @ rotation
    roll = np.degrees(np.arctan2(level[1, 0], level[0, 0]))
    return float(yaw), float(pitch), float(roll)


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
