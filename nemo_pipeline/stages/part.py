"""Part: which part of a plane is seen in a square view, and which of its pixels are averaged before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_FAR = 1e7  # pixels: further than any picture reaches


def whole_steps(shrink: float) -> int:
    """How many whole pixels are averaged where a view shrinks so much."""
    return int(shrink) if 2 <= shrink < _FAR else 1


class SeenPart(NamedTuple):
    """Which part of a plane is seen in a view: all values across, then down.

    Attributes:
        from_view: (2, 3) map from the view to the cells of the part.
        start: where it begins, pixels of the plane.
        size: cells.
        factors: pixels of the plane that are averaged to a cell.
    """

    from_view: NDArray[np.float64]
    start: tuple[int, int]
    size: tuple[int, int]
    factors: tuple[int, int]


def part_seen(
    affine: NDArray[np.float64],
    shrinks: Sequence[int],
    subsampling: tuple[int, int],
    shape: tuple[int, ...],
    side: int,
) -> SeenPart:
    """Which part of a plane is seen in a view.

    Args:
        affine: (2, 3) from the view to the stored luma.
        shrinks: whole luma pixels that are averaged, across and down.
        subsampling: luma pixels per pixel of the plane, across and down.
        shape: of the plane.
        side: of the view.
    """
    # In plain numbers: this runs several times for every frame, and arrays of two cost ten times as much.
    rows, starts, sizes, factors = [], [], [], []
    for (a, b, c), step, shrink, length in zip(
        affine.tolist(), subsampling, shrinks, shape[1::-1], strict=True
    ):
        # Chroma shrinks only as far as it stays no coarser than luma.
        factor = min(max(1, shrink // subsampling[0]), length)
        ratio = 1.0 / (step * factor)
        a, b, c = a * ratio, b * ratio, c * ratio + (ratio - 1) / 2
        # Whole cells of the averaging grid, so that what is seen does not depend on where the part is cut.
        across, down = a * (side - 1), b * (side - 1)
        low = math.floor(_near(c + min(across, 0.0) + min(down, 0.0))) - 2
        high = math.ceil(_near(c + max(across, 0.0) + max(down, 0.0))) + 3
        cells = length // factor
        first = min(max(0, low), cells - 1)
        rows.append((a, b, c - first))
        starts.append(first * factor)
        sizes.append(min(max(high, first + 1), cells) - first)
        factors.append(factor)
    return SeenPart(np.array(rows), (starts[0], starts[1]), (sizes[0], sizes[1]), (factors[0], factors[1]))


def _near(place: float) -> float:
    """A place, or the nearest to it that can be counted in pixels (0 for none)."""
    return min(max(-_FAR, place), _FAR) if place == place else 0.0
