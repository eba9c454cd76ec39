"""mRMR: features that say much about the age (relevance) and little about each other (redundancy)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mrmr_order(x: NDArray[np.float64], ages: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """The columns of `x` (V,F), at most `count` of them, best first (Peng, Long and Ding, IEEE TPAMI 27, 2005).

    The first is the most relevant. Each next one has the largest difference of its relevance and its mean redundancy
    with those before it. Relevance: mutual information with the age by nearest neighbours (scikit-learn), nats.
    Redundancy: mutual information that normally distributed features of the same correlation r would have,
    -log(1 - r^2) / 2 nats: the nearest-neighbour estimate of every pair would take minutes.

    Args:
        x: (V,F); every column varies.
        ages: (V,).
    """
    from sklearn.feature_selection import mutual_info_regression

    videos, features = x.shape
    if not features:
        return np.zeros(0, dtype=np.intp)
    neighbours = min(3, videos - 1)
    if neighbours < 1:
        return np.arange(min(count, features))
    relevance = mutual_info_regression(x, ages, n_neighbors=neighbours, random_state=0)
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    order = [int(np.argmax(relevance))]
    redundancy = np.zeros(features)
    left = np.ones(features, dtype=bool)
    while True:
        last = order[-1]
        left[last] = False
        if len(order) == min(count, features):
            return np.array(order)
        r = standard.T @ standard[:, last] / videos
        redundancy += -0.5 * np.log(np.maximum(1 - r**2, 1e-12))
        score = np.where(left, relevance - redundancy / len(order), -np.inf)
        order.append(int(np.argmax(score)))
