"""Beyond the paper, all off by default: weights for rare ages, mirrored and brighter or darker training clips."""

from __future__ import annotations

import numpy as np

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


def augment_frames(frames: np.ndarray, mirror: bool, gain: float) -> np.ndarray:
    """(T,S,S) uint8 -> the same, mirrored left to right and with gray levels times `gain`, rounded, cut at 255.

    What the warp left black stays black. `frames` itself comes back where nothing is to be done.
    """
    if mirror:
        frames = frames[..., ::-1]
    if gain != 1.0:
        levels = np.clip(np.rint(np.arange(256) * gain), 0, 255).astype(np.uint8)
        frames = levels[frames]
    return frames
