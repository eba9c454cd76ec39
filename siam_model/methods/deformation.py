"""Deformation: how the area of patches of the face's surface changes over onset, apex and offset.

Dibeklioglu, Alnajar, Salah and Gevers, IEEE TIP 24 (2015): temporal changes of 3-D surface deformation; no more was
found. Here: the surface is the face mesh with its canonical triangles, cut into eight mirrored pairs of patches; a
patch's signal is its area as a part of that in the first frame, minus 1. Without a mesh the triangles of the 68 points
are taken, in two dimensions; the forehead has none, and its features are 0.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.geometry import canonical_mesh, canonical_triangles
from nemo_pipeline.phases import eye_aligned
from siam_model.methods.base import Dynamics
from siam_model.methods.inputs import Video
from siam_model.methods.signal_features import FEATURES, PHASES, phase_features
from siam_model.methods.signals import Signal, frontal, smoothed

#: Patch -> mesh vertices of the subject's right side that it is around. A triangle belongs to the nearest one's patch.
PATCHES: dict[str, tuple[int, ...]] = {
    "forehead": (108, 104, 68, 54),
    "brow": (107, 105, 70),
    "upper lid": (159, 222, 224),
    "under and beside the eye": (230, 228, 35, 143),
    "cheek": (50, 187, 123, 147, 213),
    "side of the nose": (198, 131, 196, 48),
    "side of the mouth": (57, 206, 39, 216),
    "chin and lower lip": (84, 204, 171, 150, 211),
}


class Patches(NamedTuple):
    """Triangles (K,3) of points, and how much of each belongs to each patch: (8,2,K), the subject's right side first.
    One on the midline belongs to both sides by halves."""

    triangles: NDArray[np.int32]
    shares: NDArray[np.float64]


def patches_of(
    points: NDArray[np.float64], triangles: NDArray[np.int32], seeds: NDArray[np.float64]
) -> Patches:
    """Cut a surface into the patches.

    Args:
        points: (N,2) of a symmetric frontal face around x = 0.
        triangles: (K,3).
        seeds: (n,3): |x|, y and number of a patch.
    """
    middle = points[triangles].mean(axis=1)
    away = np.hypot(np.abs(middle[:, :1]) - seeds[:, 0], middle[:, 1:] - seeds[:, 1])
    patch = seeds[away.argmin(axis=1), 2].astype(np.intp)
    extent = np.ptp(points[:, 0])
    right = np.where(np.abs(middle[:, 0]) < 1e-3 * extent, 0.5, (middle[:, 0] < 0).astype(np.float64))
    shares = np.zeros((len(PATCHES), 2, len(triangles)))
    shares[patch, 0, np.arange(len(triangles))] = right
    shares[patch, 1, np.arange(len(triangles))] = 1 - right
    return Patches(triangles, shares)


def _seeds() -> NDArray[np.float64]:
    """(n,3) on the canonical face, centimetres."""
    mesh, _, _ = canonical_mesh()
    return np.array([(abs(mesh[v, 0]), mesh[v, 1], k) for k, p in enumerate(PATCHES.values()) for v in p])


@functools.cache
def mesh_patches() -> Patches:
    """Of the canonical mesh."""
    mesh, _, _ = canonical_mesh()
    return patches_of(mesh[:, :2], canonical_triangles(), _seeds())


def landmark_patches(shape: NDArray[np.float64], triangles: NDArray[np.int32]) -> Patches:
    """Of 68 points: the mean shape (68,2) is laid over the canonical face by its eyes.

    Raises:
        ValueError: eyes that fall together.
    """
    mesh, _, _ = canonical_mesh()
    right, left = mesh[[33, 133], :2].mean(axis=0), mesh[[362, 263], :2].mean(axis=0)
    z = eye_aligned(np.asarray(shape, dtype=np.float64)[None])[0]
    points = right + (left - right)[0] * np.stack([z.real, z.imag], axis=1)
    return patches_of(points, triangles, _seeds())


def triangle_areas(points: NDArray[np.floating], triangles: NDArray[np.integer]) -> NDArray[np.float64]:
    """(T,K) areas of triangles (K,3) of points (T,N,2) or (T,N,3), in the points' unit squared."""
    p = np.asarray(points, dtype=np.float64)
    if p.shape[-1] == 2:
        p = np.concatenate([p, np.zeros((*p.shape[:-1], 1))], axis=-1)
    a, b, c = (p[:, triangles[:, k]] for k in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2


def surface_signals(points: NDArray[np.floating], patches: Patches) -> list[Signal | None]:
    """Of each patch the area's change since the first frame, as a part of that frame's; None where it has no area.

    Args:
        points: (T,N,2) or (T,N,3), without the head's position, size and turn.
    """
    size = 256
    areas = np.concatenate(
        [
            np.einsum("psk,tk->pst", patches.shares, triangle_areas(points[i : i + size], patches.triangles))
            for i in range(0, len(points), size)
        ],
        axis=2,
    )
    found: list[Signal | None] = []
    for right, left in areas:
        if not (right[0] > 1e-12 and left[0] > 1e-12):
            found.append(None)
            continue
        sides = right / right[0] - 1, left / left[0] - 1
        found.append(smoothed(Signal((sides[0] + sides[1]) / 2, *sides)))
    return found


def deformation_features(video: Video) -> NDArray[np.float64]:
    """(8, 3, 25): every pair of patches in onset, apex and offset. All 0 where the landmarks are of no use."""
    try:
        mesh = video.mesh
        if mesh is not None:
            signals = surface_signals(frontal(mesh), mesh_patches())
        else:
            z = eye_aligned(np.asarray(video.landmarks, dtype=np.float64))
            flat = np.stack([z.real, z.imag], axis=-1)
            signals = surface_signals(
                flat, landmark_patches(video.template.mean_shape, video.template.triangles)
            )
    except ValueError:
        return np.zeros((len(PATCHES), len(PHASES), len(FEATURES)))
    return phase_features(video, signals)


class Deformation(Dynamics):
    """Ages from selected deformation features."""

    descriptor = "deformation"
