"""The way back from an expression to the portrait, in two layers that meet at the lips' line.

A single smooth map cannot close a mouth: the teeth would have to shrink to nothing between the lips. So the
skin above the line between the lips follows one thin-plate spline, the skin below another, and the mouth's
inside is a third picture that shows where they part.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from nemo_pipeline.synth.expression import Style, expression_points, lip_curves, skin_points, still_points
from nemo_pipeline.synth.portrait import Portrait
from nemo_pipeline.synth.tps import Grid, ThinPlate

#: Around the face, in portrait pixels.
FACE = Grid.over(146, 56, 306, 216, 4)
#: Seam tables: position along the mouth from left corner (0) to right (1), and beyond by one half on either
#: side.
_ALONG = np.linspace(-0.5, 1.5, 81)
_UPPER = [*range(48, 55), *range(60, 65)]
_LOWER = [48, 54, *range(55, 60), 60, 64, *range(65, 68)]


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


def mouth_of(landmarks: np.ndarray) -> Mouth:
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


class Expressions:
    """One person's expressions between two intensities, tabulated, and read off in between.

    Args:
        face: the portrait.
        style: how this person smiles.
        levels: rising parameter values that are tabulated.
        kind: "smile" or "disgust": which expression the parameter drives.
    """

    def __init__(self, face: Portrait, style: Style, levels: np.ndarray, kind: str = "smile") -> None:
        self.face, self.style, self.kind = face, style, kind
        self.levels = levels
        self._still = still_points()
        self._nodes = FACE.nodes()
        self._window = _window(self._nodes, face)
        self._layers = [self._tabulate(float(level)) for level in levels]

    def points(self, value: float) -> np.ndarray:
        """(68, 2): landmarks at one intensity, in the portrait's picture. Linear between the tabulated
        levels, as the
        layers are: truth and picture then agree by construction."""
        low, share = self._bracket(value)
        return (1 - share) * self._points(low) + share * self._points(low + 1)

    def _points(self, index: int) -> np.ndarray:
        value = float(self.levels[index])
        smile, disgust = (value, 0.0) if self.kind == "smile" else (0.0, value)
        return expression_points(self.face, smile, disgust, self.style).landmarks

    def _bracket(self, value: float) -> tuple[int, float]:
        levels = self.levels
        low = int(np.clip(np.searchsorted(levels, value) - 1, 0, len(levels) - 2))
        return low, float((value - levels[low]) / (levels[low + 1] - levels[low]))

    def layers(self, value: float) -> tuple[np.ndarray, np.ndarray]:
        """Offsets back to the portrait at the nodes of `FACE`, above and below the lips' line: (rows,
        columns, 2) float32 each."""
        low, share = self._bracket(value)
        above = (1 - share) * self._layers[low][0] + share * self._layers[low + 1][0]
        below = (1 - share) * self._layers[low][1] + share * self._layers[low + 1][1]
        return above, below

    def _tabulate(self, value: float) -> tuple[np.ndarray, np.ndarray]:
        smile, disgust = (value, 0.0) if self.kind == "smile" else (0.0, value)
        pose = expression_points(self.face, smile, disgust, self.style)
        source = np.vstack([self.face.landmarks, skin_points(self.face), self._still])
        target = np.vstack([pose.landmarks, pose.skin, self._still])
        common = [*range(48), *range(68, len(source))]
        flat = self._nodes.reshape(-1, 2)
        fields = []
        for lips in (_UPPER, _LOWER):
            use = common + lips
            spline = ThinPlate.fit(target[use], source[use] - target[use])
            fields.append((spline(flat).reshape(self._nodes.shape) * self._window).astype(np.float32))
        return fields[0], fields[1]


def _window(nodes: np.ndarray, face: Portrait) -> np.ndarray:
    """1 on the face and around it, 0 at the grid's edge: outside, no expression moves anything. (rows,
    columns, 1)"""
    x, y = nodes[..., 0], nodes[..., 1]
    edge = np.minimum.reduce([x - FACE.left, x.max() - x, y - FACE.top, y.max() - y])
    ramp = np.clip(edge / 16, 0, 1)
    return (ramp * ramp * (3 - 2 * ramp))[..., None]
