"""LBP, neutral and fusion: histograms of local binary patterns of one face.

Operator: Ojala, Pietikainen and Maenpaa, IEEE TPAMI 24 (2002), by scikit-image. Which neighbourhoods and blocks the
compared method uses was not found; here 8 neighbours at radius 1 and at radius 2, the 59 codes of uniform patterns
without rotation invariance, 6 x 6 blocks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from siam_model.methods.base import Appearance
from siam_model.methods.grid import BLOCKS, block_numbers, inner, normalised

RADII = (1, 2)
CODES = 59


def lbp_histograms(
    face: NDArray[np.uint8], hull: NDArray[np.bool_], radii: tuple[int, ...] = RADII, blocks: int = BLOCKS
) -> NDArray[np.float32]:
    """(len(radii), blocks^2, 59): for each radius and block the share of every code among the block's pixels.

    Args:
        face: (S,S) uint8.
        hull: (S,S): where the face is. A pixel counts when its whole neighbourhood is there.
    """
    from skimage.feature import local_binary_pattern

    numbers = block_numbers(len(face), blocks)
    found = []
    for radius in radii:
        codes = local_binary_pattern(face, 8, radius, method="nri_uniform").astype(np.intp)
        counted = inner(hull, radius)
        places = numbers[counted] * CODES + codes[counted]
        found.append(np.bincount(places, minlength=blocks * blocks * CODES).reshape(-1, CODES))
    return normalised(np.stack(found))


class LBP(Appearance):
    """Ages from LBP histograms of the neutral face, or of the neutral and the expressive one (`fusion`)."""

    descriptor = "lbp"
