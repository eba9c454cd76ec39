"""What a landmark engine is, and a mesh by one: a square view of a face in, 478 points and a presence score out.

Engines keep no state between calls: nothing is carried from one frame or video to the next, so there is no filter and
no lag in what they return. `engines` loads them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from nemo_pipeline import ibug68
from nemo_pipeline.stages.frame import Frame, Plane, Region

#: Side of the view that the landmark network reads, pixels.
MESH_VIEW = 256
#: Below this presence a view holds no face.
MIN_PRESENCE = 0.5
#: A region is the box of the upright mesh, times this (the bundle's own choice).
REGION_SCALE = 1.5
#: The sizes of region in which a still picture is looked at.
STILL_SCALES = (1.3, 1.5, 1.7)
_FLIP = np.array([-1.0, 1.0, 1.0], dtype=np.float32)
_FLIP_SHIFT = np.array([MESH_VIEW - 1, 0.0, 0.0], dtype=np.float32)


@dataclasses.dataclass(frozen=True, slots=True)
class Detection:
    """A face that a detector found in a view: centre, side of its box (view pixels), angle of the eye line (radians,
    clockwise as seen), score 0..1."""

    x: float
    y: float
    size: float
    angle: float
    score: float


@dataclasses.dataclass(frozen=True)
class FaceMesh:
    """One face in one frame.

    Attributes:
        points: (478, 3) float32, source pixels, x then y then z (z on the same scale, negative towards the camera).
        face_presence: 0..1, NaN where the engine has none.
    """

    points: NDArray[np.float32]
    face_presence: float

    @functools.cached_property
    def region(self) -> Region:
        """Where to look for the face again (`face_region`)."""
        return face_region(self.points)


class Engine(Protocol):
    """What the tracker asks of an engine. Views are (N, N, 3) uint8 RGB."""

    name: str

    def detect(self, view: NDArray[np.uint8]) -> list[Detection]:
        """Faces in a view, best first."""
        ...

    def confirm(self, view: NDArray[np.uint8]) -> list[Detection]:
        """As `detect`, but only faces that are beyond doubt need be returned."""
        ...

    def mesh(self, view: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float] | None:
        """(478, 3) points in view pixels, centres at integers, and the presence; None where there is no face."""
        ...


def find_mesh(engine: Engine, frame: Frame, region: Region) -> FaceMesh | None:
    """The face in a region of a frame, in source pixels; None if there is none."""
    return mesh_in_view(engine, frame.view(region, MESH_VIEW), region)


def mesh_in_view(engine: Engine, view: Plane, region: Region, *, mirrored: bool = False) -> FaceMesh | None:
    """`find_mesh` in the view of a region. `mirrored`: the engine is shown the view flipped left to right, so the
    vertices of the face's right side lie on its left."""
    shown: Any = cv2.flip(view, 1) if mirrored else view
    found = engine.mesh(shown)
    if found is None:
        return None
    points, presence = found
    if mirrored:
        points = points * _FLIP + _FLIP_SHIFT
    to_source = region.to_source(MESH_VIEW)
    source = np.empty_like(points)
    source[:, :2] = points[:, :2] @ to_source[:, :2].T + to_source[:, 2]
    source[:, 2] = points[:, 2] * (region.size / MESH_VIEW)
    return FaceMesh(source, presence)


def still_landmarks(engine: Engine, frame: Frame, mesh: FaceMesh) -> NDArray[np.float64]:
    """The 68 points of a face in a picture: the mean of looks at `STILL_SCALES`, each as it is and mirrored.

    A clip's frames steady each other; a single picture has only this. What it gains: docs/landmarks.md.

    Args:
        engine: the landmark engine.
        frame: the picture.
        mesh: the face as it was found.

    Returns:
        (68, 2) source pixels, x then y.
    """
    own = face_region(mesh.points)
    meshes, turned = [], []
    for scale in STILL_SCALES:
        region = dataclasses.replace(own, size=own.size / REGION_SCALE * scale)
        view = frame.view(region, MESH_VIEW)
        for mirrored in (False, True):
            seen = mesh_in_view(engine, view, region, mirrored=mirrored)
            if seen is not None:
                meshes.append(seen.points)
                turned.append(mirrored)
    if not meshes:
        return ibug68.from_mesh(mesh.points)
    looks = ibug68.from_meshes(np.stack(meshes))
    looks[turned] = looks[turned][:, ibug68.MIRROR]
    return looks.mean(axis=0)


def face_region(points: NDArray[np.floating]) -> Region:
    """The square region in which to look for a face whose mesh (478, 3) was just seen: the box of the points, turned
    upright by the outer eye corners, times `REGION_SCALE`."""
    (right, top), (left, bottom) = points[[33, 263], :2].tolist()
    angle = math.atan2(bottom - top, left - right)
    c, s = math.cos(angle), math.sin(angle)
    # A row for x and one for y: along rows NumPy finds the ends ten times as fast.
    upright = np.array([[c, s], [-s, c]]) @ points[:, :2].T
    (left, top), (right, bottom) = upright.min(axis=1).tolist(), upright.max(axis=1).tolist()
    cx, cy = (left + right) / 2, (top + bottom) / 2
    size = max(right - left, bottom - top) * REGION_SCALE
    return Region(c * cx - s * cy, s * cx + c * cy, size, angle)
