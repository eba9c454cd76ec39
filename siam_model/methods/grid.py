"""A face as a grid of blocks: which pixels count, and normalised histograms of what they hold."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.geometry import Template

#: Blocks along each side of the face: 19 x 19 pixels each on faces of 114.
BLOCKS = 6


def hull_of(template: Template) -> NDArray[np.bool_]:
    """(S,S): the pixels inside the mean shape's hull."""
    inside = np.zeros(template.size * template.size, dtype=bool)
    inside[template.inside] = True
    return inside.reshape(template.size, template.size)


def inner(hull: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """(S,S): the pixels whose whole square neighbourhood of `radius` pixels lies in the hull and in the picture. Codes
    of others compare the face with the black around it."""
    from scipy.ndimage import binary_erosion

    side = 2 * radius + 1
    return binary_erosion(hull, np.ones((side, side), dtype=bool), border_value=0)


@functools.cache
def block_numbers(size: int, count: int = BLOCKS) -> NDArray[np.intp]:
    """(size,size): the number of every pixel's block, row by row. Blocks of a side that `count` does not divide differ
    by a pixel."""
    along = np.arange(size) * count // size
    numbers = along[:, None] * count + along[None, :]
    numbers.setflags(write=False)
    return numbers


def normalised(counts: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float32]:
    """Counts divided by their sum over the last axis; zeros where nothing was counted."""
    total = counts.sum(axis=-1, keepdims=True)
    return (counts / np.maximum(total, 1e-30)).astype(np.float32)


@functools.cache
def uniform_codes() -> NDArray[np.intp]:
    """(256,): pattern of 8 bits on a circle -> one of 59 codes. The 58 patterns that change at most twice around the
    circle have a code each, in ascending order; all others share the last."""
    patterns = np.arange(256)
    turned = (patterns >> 1) | ((patterns & 1) << 7)
    changes = np.array([int(p).bit_count() for p in patterns ^ turned])
    codes = np.full(256, 58)
    codes[changes <= 2] = np.arange(58)
    codes.setflags(write=False)
    return codes
