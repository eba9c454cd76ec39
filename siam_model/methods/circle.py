"""Neighbours on a circle or an ellipse in a block of frames, and whether they are at least as bright as the centre."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Differences of gray levels smaller than this are rounding.
TOLERANCE = 1e-9


def at_least_centre(
    window: Sequence[NDArray[np.floating]], middle: int, shift: tuple[float, float, float], margin: int
) -> NDArray[np.bool_]:
    """Whether the neighbour at `shift` (frames, rows, columns) of each pixel is at least as bright as the pixel.

    Between pixels and frames the neighbour is interpolated linearly in each direction.

    Args:
        window: frames (S,S) around the one that is looked at.
        middle: the index of that one.
        margin: pixels at the picture's edge that are left out.

    Returns:
        (S - 2 margin, S - 2 margin).
    """
    size = len(window[0])
    centre = window[middle][margin : size - margin, margin : size - margin]
    total = np.zeros(centre.shape)
    ends = []
    for value in shift:
        low = int(np.floor(value + 1e-9))
        part = value - low
        ends.append([(low, 1.0)] if abs(part) < 1e-9 else [(low, 1 - part), (low + 1, part)])
    for (frame, a), (row, b), (column, c) in itertools.product(*ends):
        there = window[middle + frame][
            margin + row : size - margin + row, margin + column : size - margin + column
        ]
        total += (a * b * c) * (there - centre)
    return total >= -TOLERANCE


def directions(count: int) -> NDArray[np.float64]:
    """(count,2): cosine and sine of `count` equally spaced angles from 0."""
    angle = 2 * np.pi * np.arange(count) / count
    return np.round(np.stack([np.cos(angle), np.sin(angle)], axis=1), 12)
