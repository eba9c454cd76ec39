"""What a model saw in a clip, as plain arrays: what is drawn over its face. Needs numpy alone."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.geometry import Template


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """What a model saw in the T kept frames of a clip.

    Attributes:
        frame_index: (T,) int, of the clip's decoded frames, rising.
        landmarks: (T,68,2), pixels of the upright frame: those that the faces were warped with.
        weights: (T,) temporal weights.
        maps: (T,M,N) spatial attention, or None.
        rows, columns: (S,M) and (S,N): how much each cell counts at each row and column of the crop; the heat map of
            a frame is `rows @ maps[t] @ columns.T`.
    """

    frame_index: NDArray[np.integer]
    landmarks: NDArray[np.floating]
    weights: NDArray[np.floating]
    maps: NDArray[np.floating] | None
    rows: NDArray[np.floating] | None
    columns: NDArray[np.floating] | None

    def heat(self, t: int) -> NDArray[np.float64]:
        """(S, S) heat map of frame t."""
        assert self.maps is not None and self.rows is not None and self.columns is not None
        return np.asarray(self.rows @ self.maps[t].astype(np.float64) @ self.columns.T)

    def scale(self, template: Template) -> tuple[float, float]:
        """Lowest and highest heat over the faces of all frames: the ends of the colour scale."""
        if self.maps is None:
            return 0.0, 1.0
        heats = (self.heat(t).ravel()[template.inside] for t in range(len(self.maps)))
        ends = np.array([(heat.min(), heat.max()) for heat in heats])
        return float(ends[:, 0].min()), float(ends[:, 1].max())
