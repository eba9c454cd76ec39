"""Beyond the paper, all off by default: weights for rare ages; training clips mirrored, brighter or darker, turned and
shifted, or cut to a part of their time."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from siam_model.devices import to_device

#: Deviation of the Gaussian that smooths the histogram of ages, years: people of 40 say something about 43.
AGE_DEVIATION = 3.0
#: The rarest age weighs at most this many times the mean.
LARGEST_WEIGHT = 5.0


def density_weights(age: np.ndarray) -> np.ndarray:
    """(V,) weights with mean 1: the inverse of how many training videos have about the same age.

    The density is the sum of Gaussians of AGE_DEVIATION years at all ages ("label distribution smoothing": Yang et
    al., Delving into Deep Imbalanced Regression, 2021); its inverse, divided by its mean, is cut at LARGEST_WEIGHT, so
    that one person does not govern the loss, and divided by its mean again.

    Args:
        age: (V,) years, of the training videos; V at least 1.
    """
    age = np.asarray(age, dtype=np.float64)
    values, counts = np.unique(age, return_counts=True)
    near = np.exp(-0.5 * ((age[:, None] - values) / AGE_DEVIATION) ** 2)  # (V, different ages)
    weight = 1 / (near @ counts)
    weight = np.minimum(weight / weight.mean(), LARGEST_WEIGHT)
    return weight / weight.mean()


def sample_gain(rng: np.random.Generator, brightness: float, size: int) -> np.ndarray:
    """(size,) factors on gray levels between 1/(1+b) and 1+b, even in their logarithm; 1 for b = 0."""
    return np.exp(rng.uniform(-1, 1, size) * np.log1p(brightness))


def sample_move(rng: np.random.Generator, turn: float, shift: float, size: int) -> np.ndarray:
    """(size,3): a turn in degrees, up to `turn` either way, and shifts right and down as parts of a face's side, up to
    `shift` either way."""
    return rng.uniform(-1, 1, (size, 3)) * (turn, shift, shift)


def sample_crops(rng: np.random.Generator, crop: float, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First frame, and the frame after the last, of a contiguous part of each clip of `length` frames, (V,) int64: its
    share evenly from 1 - crop to 1, at least one frame, its place anywhere."""
    kept = np.maximum(np.rint(length * rng.uniform(1 - crop, 1, len(length))).astype(np.int64), 1)
    first = rng.integers(0, length - kept + 1)
    return first, first + kept


def augment_frames(
    frames: np.ndarray, mirror: bool, gain: float, move: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> np.ndarray:
    """(T,S,S) uint8 -> the same, mirrored left to right, moved (`move_frames`), and with gray levels times `gain`,
    rounded, cut at 255.

    What the warp left black stays black. `frames` itself comes back where nothing is to be done.
    """
    if mirror:
        frames = frames[..., ::-1]
    if any(move):
        frames = move_frames(frames, *move)
    if gain != 1.0:
        frames = gray_levels(gain)[frames]
    return frames


def gray_levels(gain: float) -> np.ndarray:
    """(256,) uint8: what `gain` makes of every gray level."""
    return np.clip(np.rint(np.arange(256) * gain), 0, 255).astype(np.uint8)


def move_frames(frames: np.ndarray, turn: float, right: float, down: float) -> np.ndarray:
    """`move_tensor` of an array."""
    return move_tensor(torch.from_numpy(np.ascontiguousarray(frames)), turn, right, down).numpy()


def move_tensor(frames: torch.Tensor, turn: float, right: float, down: float) -> torch.Tensor:
    """(T,S,S) uint8 -> the same, turned clockwise by `turn` degrees about the middle, then shifted by parts of the
    side; bilinear, rounded; black comes in from outside. As if the landmarks had been that much off before the warp."""
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    # From places in the result to places in the face; a side is two units long.
    back = torch.tensor([[[c, s, -2 * (c * right + s * down)], [-s, c, 2 * (s * right - c * down)]]]).float()
    pixels = frames.float()[None]  # (1, T, S, S): frames as channels
    grid = F.affine_grid(to_device(back, frames.device), [1, *pixels.shape[1:]], align_corners=False)
    return F.grid_sample(pixels, grid, align_corners=False)[0].round_().to(torch.uint8)
