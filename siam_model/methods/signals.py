"""Lip, eyelid and cheek signals of a face, each as a whole and as its two sides, from points alone.

Definitions: Dibeklioglu, Salah and Gevers, "Recognition of Genuine Smiles", IEEE Transactions on Multimedia 17 (2015),
as reprinted by others. Faces are aligned by their eyes in every frame; with a mesh the head's turn is undone first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.geometry import align_similarity, canonical_mesh
from nemo_pipeline.phases import eye_aligned
from nemo_pipeline.stages.smooth import SUPPORT, smooth_4253h_twice

#: Frames of a mesh that are smoothed and turned at a time.
_BLOCK = 512


class Signal(NamedTuple):
    """One number for each frame, (T,), and the two sides' parts of it: their mean is the whole."""

    whole: NDArray[np.float64]
    right: NDArray[np.float64]
    left: NDArray[np.float64]


class Points(NamedTuple):
    """Places of the face in every frame, (T,) complex each, in distances between the eyes; y grows downwards. Sides are
    the subject's. Lids are the upper ones' centres; eyes run from corner to corner; no cheeks without a mesh."""

    lip_right: NDArray[np.complex128]
    lip_left: NDArray[np.complex128]
    right_eye: tuple[NDArray[np.complex128], NDArray[np.complex128]]
    left_eye: tuple[NDArray[np.complex128], NDArray[np.complex128]]
    right_lid: NDArray[np.complex128]
    left_lid: NDArray[np.complex128]
    cheeks: tuple[NDArray[np.complex128], NDArray[np.complex128]] | None


def face_points(landmarks: NDArray[np.floating], mesh: NDArray[np.floating] | None = None) -> Points:
    """The places that the signals are measured at.

    Args:
        landmarks: (T,68,2), source pixels.
        mesh: (T,478,3), source pixels; used in place of the landmarks where there is one: lip corners 61 and 291, eye
            corners 33, 133, 362, 263, lids 159 and 386, cheeks 50 and 280.

    Raises:
        ValueError: values that are not finite, or eyes that fall together.
    """
    if mesh is None:
        z = eye_aligned(np.asarray(landmarks, dtype=np.float64))
        return Points(
            z[:, 48], z[:, 54], (z[:, 36], z[:, 39]), (z[:, 42], z[:, 45]),
            (z[:, 37] + z[:, 38]) / 2, (z[:, 43] + z[:, 44]) / 2, None,
        )  # fmt: skip
    face = frontal(mesh)
    z = face[..., 0] + 1j * face[..., 1]
    z = z - ((z[:, 33] + z[:, 133]) / 2)[:, None]
    z = z / ((z[:, 362] + z[:, 263]) / 2)[:, None]
    return Points(
        z[:, 61], z[:, 291], (z[:, 33], z[:, 133]), (z[:, 362], z[:, 263]), z[:, 159], z[:, 386],
        (z[:, 50], z[:, 280]),
    )  # fmt: skip


def frontal(mesh: NDArray[np.floating]) -> NDArray[np.float64]:
    """A mesh (T,478,3) without the head's position, size and turn: (T,468,3) in the canonical face's centimetres.

    It is smoothed in time first (4253H, twice), since its depth is guessed from one picture at a time; then each frame
    is laid over the canonical face by similarity, with the points and weights of the landmark bundle.

    Raises:
        ValueError: values that are not finite.
    """
    canonical, indices, weights = canonical_mesh()
    target = canonical[indices]
    found = np.empty((len(mesh), len(canonical), 3))
    for start in range(0, len(mesh), _BLOCK):  # what is smoothed reaches SUPPORT frames far
        stop = min(start + _BLOCK, len(mesh))
        first, last = max(0, start - SUPPORT), min(len(mesh), stop + SUPPORT)
        smooth = smooth_4253h_twice(mesh[first:last, : len(canonical)])[start - first : stop - first]
        for offset, frame in enumerate(smooth):
            scale, rotation, shift = align_similarity(frame[indices], target, weights)
            found[start + offset] = scale * frame @ rotation.T + shift
    return found


def lip(right: NDArray[np.complex128], left: NDArray[np.complex128]) -> Signal:
    """Mean distance of the two points from the middle between them in the first frame, in distances between them
    there: 0.5 at rest. Of the corners of the mouth, or of the cheeks."""
    width = abs(right[0] - left[0])
    if not width > 0:
        raise ValueError("the two lip corners (or cheeks) of the first frame coincide.")
    middle = (right[0] + left[0]) / 2
    sides = np.abs(middle - right) / width, np.abs(middle - left) / width
    return Signal((sides[0] + sides[1]) / 2, *sides)


def eyelid(
    right_eye: tuple[NDArray[np.complex128], NDArray[np.complex128]],
    left_eye: tuple[NDArray[np.complex128], NDArray[np.complex128]],
    right_lid: NDArray[np.complex128],
    left_lid: NDArray[np.complex128],
) -> Signal:
    """How far the upper lids' centres lie above the middles of their eyes' corners (below: negative), in widths of the
    right eye in the same frame, mean of the two eyes."""
    width = np.abs(right_eye[0] - right_eye[1])
    if not (width > 0).all():
        raise ValueError("the corners of the right eye coincide.")
    sides = []
    for (a, b), lid in ((right_eye, right_lid), (left_eye, left_lid)):
        middle = (a + b) / 2
        sides.append(np.where(lid.imag > middle.imag, -1.0, 1.0) * np.abs(middle - lid) / width)
    return Signal((sides[0] + sides[1]) / 2, *sides)


def smoothed(signal: Signal) -> Signal:
    """Smoothed in time by 4253H, twice."""
    whole, right, left = smooth_4253h_twice(np.stack(signal, axis=1)).T
    return Signal(whole, right, left)
