"""The bundle's own networks, run directly."""

from __future__ import annotations

import math
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from nemo_pipeline import bundle
from nemo_pipeline.stages.landmarks import MIN_PRESENCE, Detection

_ZERO, _ONE, _HALF_RANGE, _RANGE = (np.float32(value) for value in (0.0, 1.0, 127.5, 255.0))
_HALF_PIXEL = np.array([0.5, 0.5, 0.0], dtype=np.float32)


class LitertEngine:
    """The bundle's own detector and landmark networks, run by ai-edge-litert on one thread."""

    name = "litert"

    def __init__(self) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._detector = Network(Interpreter, bundle.network(bundle.DETECTOR))
        self._landmarks = Network(Interpreter, bundle.network(bundle.LANDMARKS))
        self._anchors = _anchors()

    def detect(self, view: NDArray[np.uint8]) -> list[Detection]:
        """Faces in a (128, 128, 3) view, best first, overlaps merged."""
        boxes, logits = self._detector(view, _HALF_RANGE, _ONE)
        (keep,) = np.nonzero(logits[0, :, 0] >= 0.0)  # scores of 0.5 and more
        if not keep.size:
            return []
        side = view.shape[0]
        points = boxes[0, keep].reshape(-1, 8, 2) / 128.0 * side
        anchors = self._anchors[keep] * side
        points[:, 0] += anchors
        points[:, 2:] += anchors[:, None]
        return _merge(points, 1.0 / (1.0 + np.exp(-logits[0, keep, 0])))

    def confirm(self, view: NDArray[np.uint8]) -> list[Detection]:
        """The same as `detect`: the scores say how certain a face is."""
        return self.detect(view)

    def mesh(self, view: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float] | None:
        """(478, 3) points in pixels of a (256, 256, 3) view, and the presence."""
        points, presence, _ = self._landmarks(view, _RANGE)
        score = 1.0 / (1.0 + math.exp(min(-float(presence.ravel()[0]), 700.0)))  # beyond, exp overflows
        if not score >= MIN_PRESENCE:
            return None
        # The network counts from the corner of the first pixel: mirrored pictures agree only after this half pixel.
        return points.reshape(478, 3) - _HALF_PIXEL, score


class Network:
    """A tflite network with one input: a picture (H, W, 3) or points (P, 2) in, its outputs in order out."""

    def __init__(self, interpreter_class: type, content: bytes) -> None:
        self._interpreter = interpreter_class(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [d["index"] for d in self._interpreter.get_output_details()]

    def __call__(
        self, values: NDArray[np.generic], unit: np.float32 = _ONE, zero: np.float32 = _ZERO
    ) -> list[NDArray[np.float32]]:
        """The outputs for `values / unit - zero`, which are computed where the network reads them."""
        seen = self._interpreter.tensor(self._input)()
        if values.ndim == 3 and float(unit).is_integer():  # OpenCV takes half of NumPy's time
            picture, units = cast(Any, values), cast(Any, (float(unit),) * 4)
            cv2.divide(picture, units, dst=seen[0], dtype=cv2.CV_32F)
        else:
            np.divide(values[None], unit, out=seen)
        if zero:
            seen -= zero
        del seen  # the interpreter does not run while somebody holds its memory
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
        weights = scores[group] / scores[group].sum()
        mean = weights @ points[group, :4].reshape(-1, 8)
        cx, cy, w, h, *eyes = mean.tolist()
        angle = math.atan2(eyes[3] - eyes[1], eyes[2] - eyes[0])
        found.append(Detection(cx, cy, max(w, h), angle, float(scores[best])))
        rest = rest[~same]
    return found
