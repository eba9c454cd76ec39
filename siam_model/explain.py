"""Where on the face the spatial attention looks, as a picture of the face's size. NumPy only."""

from __future__ import annotations

import numpy as np

from siam_model.config import SIAMConfig


def cell_centres(config: SIAMConfig) -> np.ndarray:
    """(M,) float64: pixel at which each cell of the attention map is centred, the same along both axes.

    By default 17, 25, ..., 89: cell i looks at pixels 17 + 8i - 17 to 17 + 8i + 17.
    """
    field = config.receptive_field()
    return field.first + field.step * np.arange(config.map_size(config.attention_position), dtype=np.float64)


def heat_map(attention: np.ndarray, config: SIAMConfig) -> np.ndarray:
    """Attention as a sum of Gaussians at the receptive-field centres.

    The map is no small image that could be stretched to the face: its cells' centres start 17 pixels inside
    the face and end 24 pixels before its other side, so stretching would move every spot. The Gaussian's
    deviation is a quarter of the receptive field's side (a field's influence is strongest in its middle),
    8.75 pixels by default.

    Args:
        attention: (M,N) or (T,M,N), values 0..1.

    Returns:
        (S,S) or (T,S,S) float64, at least 0. The sum over overlapping cells may exceed 1.
    """
    bumps = gaussians(config)
    return bumps @ np.asarray(attention, dtype=np.float64) @ bumps.T


def above_least(attention: np.ndarray) -> np.ndarray:
    """Attention less its least value over all cells (and frames) given, float64.

    What the pictures lay over a face is the heat map of this. Fields overlap less towards the face's edge, so the heat
    map of a map that is nearly flat, as after a short training, would show the overlap, a square; this shows where the
    cells differ.
    """
    attention = np.asarray(attention, dtype=np.float64)
    return attention - attention.min()


def gaussians(config: SIAMConfig) -> np.ndarray:
    """(S,M) float64: how much each cell counts at each pixel, the same along both axes; see `heat_map`."""
    centres, pixels = cell_centres(config), np.arange(config.face_size)
    deviation = max(config.receptive_field().size / 4, 0.5)
    return np.exp(-0.5 * ((pixels[:, None] - centres[None]) / deviation) ** 2)


def key_frames(length: int, count: int = 8) -> np.ndarray:
    """Indices of `count` frames spread evenly from the first to the last, fewer in a shorter video."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int))
