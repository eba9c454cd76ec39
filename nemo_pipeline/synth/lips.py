"""What is painted pixel by pixel: the two lips and the teeth between them, and folds that deepen."""

from __future__ import annotations

import numpy as np

from nemo_pipeline.synth.layers import Layer, Mouth
from nemo_pipeline.synth.texture import FOLD_TINT, MOVING_STEPS, Texture


def paint_lips(
    texture: Texture,
    expressive: np.ndarray,
    layers: tuple[Layer, Layer],
    mouth: Mouth,
    portrait_mouth: Mouth,
    soft: float,
) -> np.ndarray:
    """Skin above the lips' line, skin below it, and the mouth's inside where they part.

    Args:
        texture: what is sampled.
        expressive: (H, W, 2) positions on the portrait in this expression.
        layers: the way back to the portrait above and below the line.
        mouth: the line in this expression.
        portrait_mouth: the portrait's own.
        soft: width of edges, portrait pixels.

    Returns:
        (H, W, 4) float32: blue, green, red, and the moving layer.
    """
    import cv2

    # The lips' own folds are finer than the coarse grid.
    above, below = (layer.back(expressive) for layer in layers)
    x, y = mouth.coordinates(expressive)
    upper, lower = mouth.edges(x)
    between = (x > 0) & (x < 1)
    # Lips that touch in this expression do not in the portrait: never sample past the portrait's own lip
    # edge.
    above = _kept(above, portrait_mouth, "upper", between)
    below = _kept(below, portrait_mouth, "lower", between)
    share = above_share(x, y - (upper + lower) / 2, soft)[..., None]

    def read(positions: np.ndarray) -> np.ndarray:
        mapped = to_texture(positions, texture.scale)
        return cv2.remap(texture.layers, mapped, None, cv2.INTER_LINEAR).astype(np.float32)

    painted = share * read(above) + (1 - share) * read(below)
    gap = lower - upper
    open_here = between * np.clip((y - upper) / soft + 0.5, 0, 1) * np.clip((lower - y) / soft + 0.5, 0, 1)
    open_here *= np.clip(gap / 0.8, 0, 1)
    depth = np.clip((y - upper) / np.maximum(gap, 1e-3), 0, 1)
    inside = read(_inside(portrait_mouth, np.clip(x, 0, 1), depth))
    # A narrow gap lets little light in.
    inside[..., :3] *= (0.55 + 0.45 * np.clip(gap / 4, 0, 1))[..., None]
    painted += open_here[..., None] * (inside - painted)
    # Where the lips touch, the line between them is dark.
    crease = np.exp(-(((y - (upper + lower) / 2) / 0.75) ** 2)) * between * (1 - np.clip(gap / 0.8, 0, 1))
    ends = np.clip(8 * np.minimum(x, 1 - x), 0, 1)
    painted[..., :3] *= (1 - 0.4 * crease * ends)[..., None]
    return painted


def fold_factor(moving: np.ndarray, intensity: float) -> np.ndarray:
    """(H, W, 3) float32: what the moving layer (H, W) uint8 multiplies blue, green and red with."""
    import cv2

    steps = (np.arange(256) - 128) / MOVING_STEPS * max(intensity, 0.0)
    table = np.exp(steps[:, None] * FOLD_TINT).astype(np.float32).reshape(256, 1, 3)
    layer = np.ascontiguousarray(moving)
    return np.asarray(cv2.LUT(cv2.merge([layer] * 3), table))


def above_share(x: np.ndarray, y: np.ndarray, soft: float) -> np.ndarray:
    """Share of the upper layer: an edge of width `soft` within the mouth that widens beyond its corners."""
    beyond = np.maximum(np.maximum(-x, x - 1), 0)
    return np.clip(0.5 - y / (soft + 60 * beyond), 0, 1)


def _kept(positions: np.ndarray, mouth: Mouth, lip: str, between: np.ndarray) -> np.ndarray:
    """Sampling positions moved back onto a lip of the portrait where they lie past its inner edge."""
    x, y = mouth.coordinates(positions)
    upper, lower = mouth.edges(x)
    past = np.maximum(y - (upper - 0.4), 0) if lip == "upper" else np.minimum(y - (lower + 0.4), 0)
    past = np.where(between, past, 0)[..., None]
    return positions - past * np.array([-mouth.across[1], mouth.across[0]], np.float32)


def _inside(mouth: Mouth, x: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Positions inside the portrait's open mouth: x along it (0..1), depth from upper to lower lip (0..1)."""
    upper, lower = mouth.edges(x)
    y = upper + depth * (lower - upper)
    down = np.array([-mouth.across[1], mouth.across[0]])
    return mouth.origin + (x * mouth.width)[..., None] * mouth.across + y[..., None] * down


def to_texture(positions: np.ndarray, scale: float) -> np.ndarray:
    """Portrait pixels -> texture pixels, float32."""
    return ((positions + 0.5) * scale - 0.5).astype(np.float32)
