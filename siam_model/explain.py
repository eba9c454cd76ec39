"""Where on the face the spatial attention looks, as a picture of the face's size. NumPy only."""

from __future__ import annotations

import numpy as np

from siam_model.config import SIAMConfig

#: Heat maps whose least value is above this share of their largest are called flat.
FLAT = 2 / 3


def cell_centres(config: SIAMConfig) -> np.ndarray:
    """(M,) float64: pixel at which each cell of the attention map is centred, the same along both axes.

    By default 17, 25, ..., 89: cell i looks at pixels 17 + 8i - 17 to 17 + 8i + 17.
    """
    field = config.receptive_field()
    return field.first + field.step * np.arange(config.map_size(config.attention_position), dtype=np.float64)


def cell_weights(config: SIAMConfig) -> np.ndarray:
    """(S,M) float64: how much each cell counts at each pixel, the same along both axes. A pixel's weights sum to 1.

    They are Gaussians around the receptive fields' centres, whose deviation is a quarter of the field's side (a field's
    influence is strongest in its middle): 8.75 pixels by default.
    """
    centres, pixels = cell_centres(config), np.arange(config.face_size)
    deviation = max(config.receptive_field().size / 4, 0.5)
    exponent = -0.5 * ((pixels[:, None] - centres[None]) / deviation) ** 2
    weights = np.exp(exponent - exponent.max(axis=1, keepdims=True))  # far from every cell, too
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def heat_map(attention: np.ndarray, config: SIAMConfig) -> np.ndarray:
    """Attention at every pixel: the mean over the cells, each weighted by its Gaussian there (`cell_weights`).

    The map cannot simply be stretched to the face: its cells' centres start 17 pixels inside the face
    and end 24 pixels before its other side, so every spot would move. A weighted mean keeps the attention's
    own units, and a map that is flat stays flat up to the face's edge, where fewer cells look.

    Args:
        attention: (M,N) or (T,M,N), values 0..1.

    Returns:
        (S,S) or (T,S,S) float64, between the least and the largest attention.
    """
    weights = cell_weights(config)
    return weights @ np.asarray(attention, dtype=np.float64) @ weights.T


def face_pixels(frames: np.ndarray) -> np.ndarray:
    """(S,S) bool: pixels that show something in at least one of the frames, (T,S,S) uint8. The warp leaves 0 outside
    the face."""
    return np.asarray((frames > 0).any(axis=0))


def largest_heat(frames: np.ndarray, attention: np.ndarray, config: SIAMConfig) -> float:
    """The largest value of the heat maps over the face: where a colour scale ends that begins at 0.

    Attention in a single cell spreads over the pixels around it, so this is below the largest cell.

    Args:
        frames: (T,S,S) uint8. attention: (T,M,N) of the same frames.
    """
    inside = face_pixels(frames)
    heats = (heat_map(one, config)[inside] for one in attention)  # one at a time: clips are long
    return max((float(heat.max()) for heat in heats if heat.size), default=0.0)


def flat_note(frames: np.ndarray, attention: np.ndarray, config: SIAMConfig) -> str:
    """A sentence where the heat maps hardly differ, over the face and the frames; "" where they do.

    Args:
        frames: (T,S,S) uint8. attention: (T,M,N) of the same frames.
    """
    inside = face_pixels(frames)
    heats = (heat_map(one, config)[inside] for one in attention)  # one at a time: clips are long
    ends = [(heat.min(), heat.max()) for heat in heats if heat.size]
    if not ends:
        return ""
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    if low <= FLAT * high:
        return ""
    return f"Attention is nearly the same all over the face ({low:.2f} to {high:.2f}): the map singles out no region."


def key_frames(length: int, count: int = 8) -> np.ndarray:
    """Indices of `count` frames spread evenly from the first to the last, fewer in a shorter video."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int))
