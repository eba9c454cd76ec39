"""A model's attention in a clip, as plain arrays, to be drawn over the face. NumPy only."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

#: Colour map of every heat map (matplotlib's and OpenCV's name), and how much it covers of the face.
COLOURS, OPAQUE = "inferno", 0.55


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """What a model saw in the T kept frames of a clip.

    Attributes:
        frame_index: (T,) int, of the clip's decoded frames, rising.
        landmarks: (T,68,2), pixels of the upright frame: those that the faces were warped with.
        weights: (T,) temporal weights.
        maps: (T,M,N) spatial attention, or None.
        rows, columns: (S,M) and (S,N): how much each cell counts at each row and column of the crop, each row of them
            with sum 1; the heat map of a frame is `rows @ maps[t] @ columns.T`, in units of attention.
        largest: upper end of the colour scale, in units of attention; the lower end is 0.
    """

    frame_index: NDArray[np.integer]
    landmarks: NDArray[np.floating]
    weights: NDArray[np.floating]
    maps: NDArray[np.floating] | None
    rows: NDArray[np.floating] | None
    columns: NDArray[np.floating] | None
    largest: float = 1.0

    def heat(self, t: int) -> NDArray[np.float64]:
        """(S, S) heat map of frame t."""
        assert self.maps is not None and self.rows is not None and self.columns is not None
        return np.asarray(self.rows @ self.maps[t].astype(np.float64) @ self.columns.T)
