"""Heat maps over faces: the same colours in every picture, on a scale from 0 to the largest value over a face."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from nemo_pipeline.view.attention import COLOURS, OPAQUE


def scale(largest: float) -> dict[str, Any]:
    """Keyword arguments of `imshow` for the attention's own map."""
    return {"cmap": COLOURS, "vmin": 0.0, "vmax": max(largest, 1e-12)}


def over_face(face: np.ndarray, heat: np.ndarray, largest: float, inside: np.ndarray) -> np.ndarray:
    """The face under its heat map, (S,S,3) uint8.

    Args:
        face: (S,S) uint8. heat: (S,S), attention. inside: (S,S) bool, pixels that are coloured.
        largest: attention at the scale's upper end; the lower one is 0.
    """
    colour = colormaps[COLOURS](np.clip(heat / max(largest, 1e-12), 0, 1))[..., :3] * 255
    gray = np.repeat(face[..., None].astype(np.float64), 3, axis=2)
    mixed = np.where(inside[..., None], (1 - OPAQUE) * gray + OPAQUE * colour, gray)
    return mixed.round().astype(np.uint8)


def colour_bar(figure: Figure, largest: float, **place: Any) -> None:
    """The scale, in units of attention; single cells may exceed it. `place`: where, as `Figure.colorbar` takes it."""
    mappable = ScalarMappable(Normalize(0.0, max(largest, 1e-12)), COLOURS)
    figure.colorbar(mappable, label="attention", extend="max", **place)
