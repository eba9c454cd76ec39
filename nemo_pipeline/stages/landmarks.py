"""The landmark engine: a square view of a face in, 478 mesh points and a presence score out.

Two engines run the same networks: `litert` directly (this module), `mediapipe` through MediaPipe's Face Landmarker
(`landmarks_mediapipe`, the only importer of mediapipe). Both keep no state between calls: nothing is carried from one
frame or video to the next, so there is no filter and no lag in what they return.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline import bundle, ibug68
from nemo_pipeline.stages.frame import Frame, Region

#: Side of the view that the landmark network reads, pixels.
MESH_VIEW = 256
#: Below this presence a view holds no face.
MIN_PRESENCE = 0.5
#: A region is the box of the upright mesh, times this (the bundle's own choice).
REGION_SCALE = 1.5
#: The sizes of region in which a still picture is looked at.
STILL_SCALES = (1.3, 1.5, 1.7)
_HALF_PIXEL = np.array([0.5, 0.5, 0.0], dtype=np.float32)
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


@dataclasses.dataclass(frozen=True, slots=True)
class FaceMesh:
    """One face in one frame.

    Attributes:
        points: (478, 3) float32, source pixels, x then y then z (z on the same scale, negative towards the camera).
        score: presence 0..1, NaN where the engine has none.
    """

    points: NDArray[np.float32]
    score: float


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


def load_engine(name: str) -> Engine:
    """The engine of that name, loaded. Raises NemoError where its library is missing."""
    if name == "mediapipe":
        from nemo_pipeline.stages.landmarks_mediapipe import MediapipeEngine

        return MediapipeEngine()
    return LitertEngine()


def find_mesh(engine: Engine, frame: Frame, region: Region, *, mirrored: bool = False) -> FaceMesh | None:
    """The face in a region of a frame, in source pixels; None where there is none. `mirrored`: the engine is
    shown the view flipped left to right, so the vertices of the face's right side lie on its left."""
    view = frame.view(region, MESH_VIEW)
    found = engine.mesh(np.ascontiguousarray(view[:, ::-1]) if mirrored else view)
    if found is None:
        return None
    points, score = found
    if mirrored:
        points = points * _FLIP + _FLIP_SHIFT
    to_source = region.to_source(MESH_VIEW)
    source = np.empty_like(points)
    source[:, :2] = points[:, :2] @ to_source[:, :2].T + to_source[:, 2]
    source[:, 2] = points[:, 2] * (region.size / MESH_VIEW)
    return FaceMesh(source, score)


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
    own = region_of(mesh.points)
    looks = []
    for scale in STILL_SCALES:
        region = dataclasses.replace(own, size=own.size / REGION_SCALE * scale)
        for mirrored in (False, True):
            seen = find_mesh(engine, frame, region, mirrored=mirrored)
            if seen is not None:
                points = ibug68.from_mesh(seen.points)
                looks.append(points[ibug68.MIRROR] if mirrored else points)
    return np.mean(looks, axis=0) if looks else ibug68.from_mesh(mesh.points)


def region_of(points: NDArray[np.floating]) -> Region:
    """The square region in which to look for a face whose mesh (478, 3) was just seen: the box of the points, turned
    upright by the outer eye corners, times `REGION_SCALE`."""
    right, left = points[33, :2], points[263, :2]
    angle = float(np.arctan2(left[1] - right[1], left[0] - right[0]))
    c, s = np.cos(angle), np.sin(angle)
    upright = points[:, :2] @ np.array([[c, -s], [s, c]])
    low, high = upright.min(axis=0), upright.max(axis=0)
    cx, cy = (low + high) / 2
    return Region(
        float(c * cx - s * cy), float(s * cx + c * cy), float((high - low).max()) * REGION_SCALE, angle
    )


class LitertEngine:
    """The bundle's own detector and landmark networks, run by ai-edge-litert on one thread."""

    name = "litert"

    def __init__(self) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._detector = _Network(Interpreter, bundle.network(bundle.DETECTOR))
        self._landmarks = _Network(Interpreter, bundle.network(bundle.LANDMARKS))
        self._anchors = _anchors()

    def detect(self, view: NDArray[np.uint8]) -> list[Detection]:
        """Faces in a (128, 128, 3) view, best first, overlaps merged."""
        boxes, logits = self._detector(view.astype(np.float32) / 127.5 - 1.0)
        scores = 1.0 / (1.0 + np.exp(-np.clip(logits[0, :, 0], -50.0, 50.0)))
        keep = scores >= 0.5
        if not keep.any():
            return []
        raw = boxes[0, keep].reshape(-1, 8, 2)
        side = view.shape[0]
        points = raw / 128.0 * side
        points[:, 0] += self._anchors[keep] * side
        points[:, 2:] += self._anchors[keep][:, None] * side
        return _merge(points, scores[keep])

    def confirm(self, view: NDArray[np.uint8]) -> list[Detection]:
        """The same as `detect`: the scores say how certain a face is."""
        return self.detect(view)

    def mesh(self, view: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float] | None:
        """(478, 3) points in pixels of a (256, 256, 3) view, and the presence."""
        points, presence, _ = self._landmarks(view.astype(np.float32) / 255.0)
        score = float(1.0 / (1.0 + np.exp(-float(presence.ravel()[0]))))
        if not score >= MIN_PRESENCE:
            return None
        # The network counts from the corner of the first pixel: mirrored pictures agree only after this half pixel.
        return points.reshape(478, 3) - _HALF_PIXEL, score


class _Network:
    """A tflite network with one input: (H, W, 3) float32 in, its outputs in order out."""

    def __init__(self, interpreter_class: type, content: bytes) -> None:
        self._interpreter = interpreter_class(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [d["index"] for d in self._interpreter.get_output_details()]

    def __call__(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        self._interpreter.set_tensor(self._input, image[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def _anchors() -> NDArray[np.float64]:
    """(896, 2): the short-range detector's anchor centres, 0..1: two per cell of 16 x 16, six per cell of 8 x 8."""
    layers = []
    for cells, per_cell in ((16, 2), (8, 6)):
        y, x = np.mgrid[:cells, :cells]
        centres = np.stack([x, y], axis=-1).reshape(-1, 2)
        layers.append(np.repeat((centres + 0.5) / cells, per_cell, axis=0))
    return np.concatenate(layers)


def _merge(points: NDArray[np.floating], scores: NDArray[np.floating]) -> list[Detection]:
    """Overlapping detections as their score-weighted mean (the bundle's own way), best first.

    `points` (n, 8, 2): centre, size, then six keypoints (right eye, left eye, nose, mouth, right ear, left ear).
    """
    found = []
    rest = np.argsort(-scores)
    low, high = points[:, 0] - points[:, 1] / 2, points[:, 0] + points[:, 1] / 2
    area = points[:, 1].prod(axis=1)
    while rest.size:
        best = rest[0]
        overlap = np.clip(
            np.minimum(high[best], high[rest]) - np.maximum(low[best], low[rest]), 0, None
        ).prod(axis=1)
        same = overlap / (area[best] + area[rest] - overlap) > 0.3
        same[0] = True
        group = rest[same]
        mean = np.average(points[group], axis=0, weights=scores[group])
        (cx, cy), (w, h), right, left = mean[0], mean[1], mean[2], mean[3]
        angle = float(np.arctan2(left[1] - right[1], left[0] - right[0]))
        found.append(Detection(float(cx), float(cy), float(max(w, h)), angle, float(scores[best])))
        rest = rest[~same]
    return found
