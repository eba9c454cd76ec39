"""Backgrounds: soft colours, a few blurred shapes, no texture that could be taken for a face."""

from __future__ import annotations

import numpy as np


def make_backdrop(seed: int, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8, by chance from `seed`."""
    import cv2

    rng = np.random.default_rng(seed)
    small = 64  # drawn small and enlarged: out of focus
    first, second = rng.uniform(30, 220, (2, 3))
    # A wall is rather gray: pull both colours towards their own mean.
    first, second = (0.25 * colour + 0.75 * colour.mean() for colour in (first, second))
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:small, 0:small] / (small - 1) - 0.5
    slope = np.clip(0.5 + (x * np.cos(angle) + y * np.sin(angle)) * 0.9, 0, 1)[..., None]
    canvas = (first + slope * (second - first)).astype(np.float32)
    for _ in range(int(rng.integers(0, 4))):
        colour = np.clip(canvas.mean((0, 1)) + rng.normal(0, 25) + rng.normal(0, 10, 3), 0, 255).tolist()
        a, b = rng.integers(-10, small + 10, (2, 2))
        cv2.rectangle(canvas, a.tolist(), b.tolist(), colour, -1)
    cloud = cv2.resize(
        rng.normal(0, 9, (8, 8)).astype(np.float32), (small, small), interpolation=cv2.INTER_CUBIC
    )
    canvas = cv2.GaussianBlur(canvas + cloud[..., None], (0, 0), float(rng.uniform(0.6, 2.5)))
    picture = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture, 0, 255).astype(np.uint8)
