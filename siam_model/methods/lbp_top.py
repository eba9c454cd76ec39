"""LBP-TOP: local binary patterns on three orthogonal planes of a video.

Operator: Zhao and Pietikainen, IEEE TPAMI 29 (2007). Which blocks and radii the compared implementation used was not
found; here radius 1 in the picture and 2 in time at 50 frames a second, 8 neighbours, 59 codes a plane, 6 x 6 blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from siam_model.methods.base import WholeVideo
from siam_model.methods.circle import at_least_centre, directions
from siam_model.methods.grid import BLOCKS, block_numbers, inner, normalised, uniform_codes

RADIUS, TIME_RADIUS, NEIGHBOURS, CODES = 1, 2, 8, 59
#: Frames a second that a radius in time is meant at.
RATE = 50.0
#: Fewest frames that have a centre.
LEAST_FRAMES = 2 * TIME_RADIUS + 1


def lbp_top_histograms(
    faces: Iterable[NDArray[np.uint8]],
    hull: NDArray[np.bool_],
    radius: int = RADIUS,
    time_radius: int = TIME_RADIUS,
    blocks: int = BLOCKS,
) -> NDArray[np.float32]:
    """(blocks^2, 3, 59): the share of every code on the planes XY, XT and YT among a block's pixels in all frames.

    Frames at the ends, whose neighbours in time are missing, have no codes themselves. Frames pass through: as many
    are in memory as the neighbourhood is long.

    Args:
        faces: (S,S) uint8 each; fewer than 2 `time_radius` + 1 of them give zeros.
        hull: (S,S).
    """
    size = len(hull)
    counted = inner(hull, radius)[radius : size - radius, radius : size - radius]
    place = block_numbers(size, blocks)[radius : size - radius, radius : size - radius][counted] * (3 * CODES)
    uniform = uniform_codes()
    shifts = []
    for c, s in directions(NEIGHBOURS):
        shifts.append(
            (
                (0.0, -radius * s, radius * c),
                (time_radius * s, 0.0, radius * c),
                (time_radius * s, radius * c, 0.0),
            )
        )
    counts = np.zeros(blocks * blocks * 3 * CODES, dtype=np.int64)
    window: deque[NDArray[np.float64]] = deque(maxlen=2 * time_radius + 1)
    for face in faces:
        window.append(face.astype(np.float64))
        if len(window) < 2 * time_radius + 1:
            continue
        frames = list(window)
        for plane in range(3):
            pattern = np.zeros(counted.shape, dtype=np.uint8)
            for bit, shift in enumerate(shifts):
                pattern |= at_least_centre(frames, time_radius, shift[plane], radius).astype(np.uint8) << bit
            codes = uniform[pattern[counted]]
            counts += np.bincount(place + plane * CODES + codes, minlength=len(counts))
    return normalised(counts.reshape(blocks * blocks, 3, CODES))


class LBPTop(WholeVideo):
    """Ages from LBP-TOP histograms of the whole video, by support vector regression."""

    descriptor = "lbp_top"
