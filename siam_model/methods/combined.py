"""IEF + dynamics and LBP + dynamics: the neutral face's encoding together with selected deformation features.

Dibeklioglu, Alnajar, Salah and Gevers, IEEE TIP 24 (2015), of which the abstract was found. Here: principal components
of the appearance and the selected features, each part at a mean norm of 1, side by side for one regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from siam_model.methods.base import Describe, FaceEncoder, ReducedFace, flat
from siam_model.methods.ief import SoftCodes
from siam_model.methods.inputs import Video
from siam_model.methods.learner import AgeLearner, Inputs


class Combined:
    """Ages from one encoding of the neutral face and deformation features."""

    def __init__(self, encoder: FaceEncoder, describe: Describe) -> None:
        self.describe, self.encoder, self.learner = describe, encoder, AgeLearner()

    def fit(self, videos: Sequence[Video], ages: NDArray[np.floating], subjects: Sequence[str]) -> Self:
        x = self.encoder.fit_transform(videos, self.describe)
        self.learner.fit(Inputs(x, self._pool(videos)), np.asarray(ages, dtype=np.float64), subjects)
        return self

    def predict(self, videos: Sequence[Video]) -> NDArray[np.float64]:
        return self.learner.predict(Inputs(self.encoder.transform(videos, self.describe), self._pool(videos)))

    def _pool(self, videos: Sequence[Video]) -> NDArray[np.float64]:
        return flat(self.describe("deformation", videos))


def ief_dynamics(describe: Describe) -> Combined:
    """IEF + dynamics."""
    return Combined(SoftCodes(0), describe)


def lbp_dynamics(describe: Describe) -> Combined:
    """LBP + dynamics."""
    return Combined(ReducedFace("lbp", 0), describe)
