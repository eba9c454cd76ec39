"""The way back from an expression to the portrait, in two layers that meet at the lips' line.

A single smooth map cannot close a mouth: the teeth would have to shrink to nothing between the lips. So the
skin above the line between the lips follows one thin-plate spline, the skin below another, and the mouth's
inside is a third picture that shows where they part.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from nemo_pipeline.synth.expression import (
    Pose68,
    Style,
    expression_points,
    lip_curves,
    skin_points,
    still_points,
)
from nemo_pipeline.synth.portrait import Portrait, portrait
from nemo_pipeline.synth.tps import Grid, ThinPlate, bilinear

#: Around the face, and around the lips, whose folds are finer; portrait pixels.
FACE = Grid.over(146, 56, 306, 216, 2)
LIPS = Grid.over(186, 122, 260, 174, 0.8)
#: Where the lips' frame may come from: a margin of 10 pixels more.
_LIPS_SOURCE = Grid.over(176, 112, 270, 184, 0.8)
#: Seam tables: position along the mouth from left corner (0) to right (1), and beyond by one half on either
#: side.
_ALONG = np.linspace(-0.5, 1.5, 81)
_UPPER = [*range(48, 55), *range(60, 65)]
_LOWER = [48, 54, *range(55, 60), 60, 64, *range(65, 68)]
_LOWER_ONLY = [*range(55, 60), *range(65, 68)]


@dataclasses.dataclass(frozen=True, slots=True)
class Mouth:
    """Line between the lips, in mouth axes: origin at the left inner corner, x towards the right one, pixels.

    `upper` and `lower` are y at `_ALONG * width`; equal where the lips touch.
    """

    origin: np.ndarray
    across: np.ndarray
    width: float
    upper: np.ndarray
    lower: np.ndarray

    def coordinates(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(..., 2) portrait pixels -> x along the mouth in widths, y below its axis in pixels."""
        offset = points - self.origin
        x = offset[..., 0] * self.across[0] + offset[..., 1] * self.across[1]
        y = -offset[..., 0] * self.across[1] + offset[..., 1] * self.across[0]
        return x / self.width, y

    def edges(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """y of the upper and lower inner lip at x (in widths)."""
        flat = np.ravel(x)
        upper = np.interp(flat, _ALONG, self.upper).reshape(x.shape)
        lower = np.interp(flat, _ALONG, self.lower).reshape(x.shape)
        return upper, lower


def mouth_shape(landmarks: np.ndarray) -> Mouth:
    """The lips' line from (68, 2) points: monotone cubic curves through the inner lip points."""
    from scipy.interpolate import PchipInterpolator

    upper, lower = lip_curves(landmarks)
    origin, axis = upper[0], upper[-1] - upper[0]
    width = float(np.hypot(*axis))
    across = axis / width
    rotation = np.array([[across[0], -across[1]], [across[1], across[0]]])
    inside = np.clip(_ALONG, 0, 1)
    curves = []
    for points in (upper, lower):
        local = (points - origin) @ rotation
        x = local[:, 0] / width
        curves.append(PchipInterpolator(x, local[:, 1])(inside))
    return Mouth(origin, across, width, curves[0], np.maximum(curves[0], curves[1]))


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """Offsets from an expression back to the portrait on one side of the lips' line.

    `face` and `lips` are (rows, columns, 2) float32 at the nodes of `FACE` and `LIPS`; within the latter's
    frame the latter counts.
    """

    face: np.ndarray
    lips: np.ndarray

    def mix(self, other: Layer, share: float) -> Layer:
        """`share` of the way to another layer."""
        return Layer(
            (1 - share) * self.face + share * other.face, (1 - share) * self.lips + share * other.lips
        )

    def back(self, points: np.ndarray) -> np.ndarray:
        """(H, W, 2) float32 positions in the expression -> positions on the portrait, at OpenCV's
        precision."""
        offsets = FACE.sample(self.face, points)
        return points + np.where(_near_lips(points), LIPS.sample(self.lips, points), offsets)

    def back_exactly(self, points: np.ndarray) -> np.ndarray:
        """The same for (N, 2) float64, for the ground truth."""
        offsets = bilinear(FACE, self.face, points)
        return points + np.where(_near_lips(points), bilinear(LIPS, self.lips, points), offsets)


def _near_lips(points: np.ndarray) -> np.ndarray:
    """(..., 1) bool: within the frame of `LIPS`."""
    x, y = points[..., :1], points[..., 1:]
    right, bottom = LIPS.left + LIPS.step * (LIPS.columns - 1), LIPS.top + LIPS.step * (LIPS.rows - 1)
    return (x >= LIPS.left) & (x <= right) & (y >= LIPS.top) & (y <= bottom)


class Expressions:
    """One person's expressions, tabulated over intensity and read off in between.

    Args:
        face: the portrait.
        style: how this person smiles.
        levels: rising intensities that are tabulated.
        kind: "smile" or "disgust".
    """

    def __init__(self, face: Portrait, style: Style, levels: np.ndarray, kind: str = "smile") -> None:
        self.levels = levels
        poses = [
            expression_points(
                face, level if kind == "smile" else 0.0, level if kind == "disgust" else 0.0, style
            )
            for level in levels.tolist()
        ]
        self._layers: list[tuple[Layer, Layer]] = []
        for pose in poses:
            near = self._layers[-1] if self._layers else (None, None)
            self._layers.append((_undone(pose, "above", near[0]), _undone(pose, "below", near[1])))
        self._points = np.stack(
            [
                _settled(pose.landmarks, face, *layers)
                for pose, layers in zip(poses, self._layers, strict=True)
            ]
        )

    def _bracket(self, value: float) -> tuple[int, float]:
        levels = self.levels
        low = int(np.clip(np.searchsorted(levels, value) - 1, 0, len(levels) - 2))
        return low, float((value - levels[low]) / (levels[low + 1] - levels[low]))

    def points(self, value: float) -> np.ndarray:
        """(68, 2): where the portrait's points lie at one intensity, portrait pixels."""
        low, share = self._bracket(value)
        return (1 - share) * self._points[low] + share * self._points[low + 1]

    def layers(self, value: float) -> tuple[Layer, Layer]:
        """The way back to the portrait above and below the lips' line."""
        low, share = self._bracket(value)
        (above, below), (next_above, next_below) = self._layers[low], self._layers[low + 1]
        return above.mix(next_above, share), below.mix(next_below, share)


@functools.cache
def _operator(layer: str, grid: Grid) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """What turns moves of the portrait's points into moves at a grid's nodes: the same for everyone.

    Returns:
        The matrix (nodes, points), the points' places (points, 2), and which of landmarks + skin + still they
        are.
    """
    face = portrait()
    places = np.vstack([face.landmarks, skin_points(face), still_points()])
    lips = _UPPER if layer == "above" else _LOWER
    use = [*range(48), *range(68, len(places)), *lips]
    nodes = grid.nodes()
    spline = ThinPlate.fit(places[use], np.eye(len(use)))
    matrix = spline(nodes.reshape(-1, 2)) * _window(nodes).reshape(-1, 1)
    return matrix, places, use


def _undone(pose: Pose68, layer: str, start: Layer | None) -> Layer:
    """The way back from an expression to the portrait.

    The spline moves the portrait's points to the expression's (its centres are the same for all, so that it
    costs one product of matrices); the way back is found by fixed-point steps from the way back from a
    neighbouring expression.
    """
    moved = np.vstack([pose.landmarks, pose.skin, still_points()])
    fields = []
    for grid, source in ((FACE, FACE), (LIPS, _LIPS_SOURCE)):
        matrix, places, use = _operator(layer, source)
        moves = (matrix @ (moved - places)[use]).reshape(source.rows, source.columns, 2).astype(np.float32)
        nodes = grid.nodes().astype(np.float32)
        offsets = np.zeros_like(nodes) if start is None else (start.face if grid is FACE else start.lips)
        for _ in range(30):
            # Six tenths of the whole step: lips that become twice as thick would make the whole one diverge.
            step = -0.6 * (offsets + source.sample(moves, nodes + offsets))
            offsets = offsets + step
            if np.abs(step).max() < 0.01:
                break
        fields.append(offsets)
    return Layer(fields[0], fields[1])


def _settled(wanted: np.ndarray, face: Portrait, above: Layer, below: Layer) -> np.ndarray:
    """(68, 2): where the layers really put the portrait's points (next to where they were wanted).

    A grid cannot follow the spline's peaks at thin lips to the last tenth of a pixel, and the ground truth is what
    is shown. Newton's method with a numerical derivative; a point that does not settle keeps its best place.
    """
    points = wanted.copy()
    lower = np.isin(np.arange(68), _LOWER_ONLY)[:, None]

    def miss(at: np.ndarray) -> np.ndarray:
        return np.where(lower, below.back_exactly(at), above.back_exactly(at)) - face.landmarks

    best, least = points.copy(), np.full(68, np.inf)
    for _ in range(12):
        error = miss(points)
        size = np.hypot(*error.T)
        better = size < least
        best[better], least[better] = points[better], size[better]
        if least.max() < 1e-3:
            break
        h = 0.05
        by_x, by_y = ((miss(points + d) - miss(points - d)) / (2 * h) for d in h * np.eye(2))
        step = np.linalg.solve(np.stack([by_x, by_y], -1) + 1e-6 * np.eye(2), error[..., None])[..., 0]
        points = points - np.clip(step, -0.5, 0.5)
    return best


def _window(nodes: np.ndarray) -> np.ndarray:
    """1 on the face and around it, 0 at FACE's edge: outside, no expression moves anything. (rows, columns,
    1)"""
    x, y = nodes[..., 0], nodes[..., 1]
    right, bottom = FACE.left + FACE.step * (FACE.columns - 1), FACE.top + FACE.step * (FACE.rows - 1)
    edge = np.minimum.reduce([x - FACE.left, right - x, y - FACE.top, bottom - y])
    ramp = np.clip(edge / 16, 0, 1)
    return (ramp * ramp * (3 - 2 * ramp))[..., None]
