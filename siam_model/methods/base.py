"""The shape of every compared method: `fit(videos, ages, subjects)`, `predict(videos)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from siam_model.methods.inputs import Video
from siam_model.methods.learner import AgeLearner, Inputs

#: Name of a descriptor, videos -> its values, (V, ...); see `siam_model.methods.descriptors`.
Describe = Callable[[str, Sequence[Video]], NDArray[np.generic]]
#: Share of the variance that principal components keep.
VARIANCE = 0.95


class Method(Protocol):
    """A method that learns ages from videos.

    `fit` looks at nothing but its arguments; `predict` changes nothing in what was learnt.
    """

    def fit(self, videos: Sequence[Video], ages: NDArray[np.floating], subjects: Sequence[str]) -> Self:
        """Learn from V videos.

        Args:
            videos: V videos; read one after the other.
            ages: (V,) years.
            subjects: V codes: what the method chooses for itself, it chooses in folds that share none.
        """
        ...

    def predict(self, videos: Sequence[Video]) -> NDArray[np.float64]:
        """(V,) years."""
        ...


def flat(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """(V, ...) -> (V, F) float64."""
    return values.reshape(len(values), -1).astype(np.float64)


class Reduction:
    """Principal components that hold 95 % of the variance, scaled together to a mean norm of 1: their sizes among each
    other stay, since equal ones would let noise count as much as the face."""

    def fit_transform(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """(V,F) -> (V,K); K is 0 where nothing varies."""
        from sklearn.decomposition import PCA

        self.components = None
        if len(x) < 2 or x.std(axis=0).max() < 1e-12:
            return np.zeros((len(x), 0))
        self.components = PCA(VARIANCE, svd_solver="full").fit(x)
        scores = self.components.transform(x)
        self.norm = max(float(np.linalg.norm(scores, axis=1).mean()), 1e-12)
        return scores / self.norm

    def transform(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """(V,F) -> (V,K)."""
        if self.components is None:
            return np.zeros((len(x), 0))
        return np.asarray(self.components.transform(x) / self.norm, dtype=np.float64)


def ready(x: NDArray[np.float64]) -> Inputs:
    """Features that are taken as they are."""
    return Inputs(x, np.zeros((len(x), 0)))


class WholeVideo:
    """Principal components of one descriptor of the whole video, and the two-level regression."""

    descriptor = ""

    def __init__(self, describe: Describe) -> None:
        self.describe = describe
        self.reduction, self.learner = Reduction(), AgeLearner()

    def fit(self, videos: Sequence[Video], ages: NDArray[np.floating], subjects: Sequence[str]) -> Self:
        x = self.reduction.fit_transform(flat(self.describe(self.descriptor, videos)))
        self.learner.fit(ready(x), np.asarray(ages, dtype=np.float64), subjects)
        return self

    def predict(self, videos: Sequence[Video]) -> NDArray[np.float64]:
        return self.learner.predict(
            ready(self.reduction.transform(flat(self.describe(self.descriptor, videos))))
        )


class Dynamics:
    """Selected features of signals over the phases of the expression, and the two-level regression."""

    descriptor = ""

    def __init__(self, describe: Describe) -> None:
        self.describe = describe
        self.learner = AgeLearner()

    def fit(self, videos: Sequence[Video], ages: NDArray[np.floating], subjects: Sequence[str]) -> Self:
        self.learner.fit(self._inputs(videos), np.asarray(ages, dtype=np.float64), subjects)
        return self

    def predict(self, videos: Sequence[Video]) -> NDArray[np.float64]:
        return self.learner.predict(self._inputs(videos))

    def _inputs(self, videos: Sequence[Video]) -> Inputs:
        pool = flat(self.describe(self.descriptor, videos))
        return Inputs(np.zeros((len(pool), 0)), pool)


class FaceEncoder(Protocol):
    """Learns from the faces of training videos how to write a face as numbers."""

    def fit_transform(self, videos: Sequence[Video], describe: Describe) -> NDArray[np.float64]: ...

    def transform(self, videos: Sequence[Video], describe: Describe) -> NDArray[np.float64]: ...


class ReducedFace:
    """Principal components of a descriptor (V,2,...) of the neutral (0) or of the expressive face (1)."""

    def __init__(self, descriptor: str, which: int) -> None:
        self.descriptor, self.which, self.reduction = descriptor, which, Reduction()

    def fit_transform(self, videos: Sequence[Video], describe: Describe) -> NDArray[np.float64]:
        return self.reduction.fit_transform(flat(describe(self.descriptor, videos)[:, self.which]))

    def transform(self, videos: Sequence[Video], describe: Describe) -> NDArray[np.float64]:
        return self.reduction.transform(flat(describe(self.descriptor, videos)[:, self.which]))


class Appearance:
    """The estimate of the first frame of the onset; with `fusion`, its mean with that of the last one.

    The two estimates have nothing in common: each kind of face has its own encoding and its own regressions.
    """

    descriptor = ""

    def __init__(self, describe: Describe, fusion: bool = False) -> None:
        self.describe = describe
        self.encoders = [self.encoder(which) for which in ((0, 1) if fusion else (0,))]
        self.learners = [AgeLearner() for _ in self.encoders]

    def encoder(self, which: int) -> FaceEncoder:
        """How the neutral (0) or the expressive face (1) is written."""
        return ReducedFace(self.descriptor, which)

    def fit(self, videos: Sequence[Video], ages: NDArray[np.floating], subjects: Sequence[str]) -> Self:
        for encoder, learner in zip(self.encoders, self.learners, strict=True):
            x = encoder.fit_transform(videos, self.describe)
            learner.fit(ready(x), np.asarray(ages, dtype=np.float64), subjects)
        return self

    def predict(self, videos: Sequence[Video]) -> NDArray[np.float64]:
        answers = [
            learner.predict(ready(encoder.transform(videos, self.describe)))
            for encoder, learner in zip(self.encoders, self.learners, strict=True)
        ]
        return np.mean(answers, axis=0)
