"""VLBP: volume local binary patterns, classified by a tree of four support vector machines.

Operator: Zhao and Pietikainen, IEEE TPAMI 29 (2007); the tree of child, youth, adult, middle-aged and elderly: Hadid
(2011), as the paper says. Not found, and chosen here: 4 neighbours at radius 1, 2 frames apart at 50 a second, no
rotation invariance, one histogram for the face; classes that end at 13, 20, 40 and 60 years; the age is the median of
the class's training videos.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from siam_model.methods.base import Describe, WholeVideo, flat
from siam_model.methods.circle import at_least_centre, directions
from siam_model.methods.grid import inner, normalised
from siam_model.methods.inputs import Video
from siam_model.methods.learner import SideClassifier, choose_classifier

RADIUS, INTERVAL, NEIGHBOURS = 1, 2, 4
#: Frames a second that the interval is meant at.
RATE = 50.0
#: Fewest frames that have a centre.
LEAST_FRAMES = 2 * INTERVAL + 1
#: Ages, years, at which a class ends and the next begins.
CUTS = (13.0, 20.0, 40.0, 60.0)
#: The tree: classes on the left and on the right of each machine.
TREE: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((0, 1), (2, 3, 4)),
    ((0,), (1,)),
    ((2,), (3, 4)),
    ((3,), (4,)),
)


def vlbp_histogram(
    faces: Iterable[NDArray[np.uint8]],
    hull: NDArray[np.bool_],
    radius: int = RADIUS,
    interval: int = INTERVAL,
    neighbours: int = NEIGHBOURS,
) -> NDArray[np.float32]:
    """(2^(3P+2),): the share of every pattern of P neighbours in the frames before, at and after, and of the centres
    before and after, compared with the centre.

    Bits from the lowest: the centre before, P neighbours before, P now, P after (from the right, counter-clockwise),
    the centre after; 1 where it is at least as bright as the centre.

    Args:
        faces: (S,S) uint8 each; fewer than 2 `interval` + 1 of them give zeros.
        hull: (S,S).
    """
    size = len(hull)
    counted = inner(hull, radius)[radius : size - radius, radius : size - radius]
    around = [(-radius * s, radius * c) for c, s in directions(neighbours)]
    shifts = [(float(-interval), 0.0, 0.0)]
    for frame in (-interval, 0, interval):
        shifts += [(float(frame), y, x) for y, x in around]
    shifts.append((float(interval), 0.0, 0.0))
    counts = np.zeros(2 ** len(shifts), dtype=np.int64)
    window: deque[NDArray[np.float64]] = deque(maxlen=2 * interval + 1)
    for face in faces:
        window.append(face.astype(np.float64))
        if len(window) < 2 * interval + 1:
            continue
        frames = list(window)
        pattern = np.zeros(counted.shape, dtype=np.int32)
        for bit, shift in enumerate(shifts):
            pattern |= at_least_centre(frames, interval, shift, radius).astype(np.int32) << bit
        counts += np.bincount(pattern[counted], minlength=len(counts))
    return normalised(counts)


class VLBP(WholeVideo):
    """Ages from a VLBP histogram: four support vector machines name a class, whose median age is the answer."""

    descriptor = "vlbp"

    def __init__(self, describe: Describe) -> None:
        super().__init__(describe)
        self.medians: dict[int, float] = {}
        self.machines: list[SideClassifier] = []

    def fit(self, videos: Sequence[Video], ages: NDArray[np.floating], subjects: Sequence[str]) -> Self:
        x = self.reduction.fit_transform(flat(self.describe(self.descriptor, videos)))
        ages = np.asarray(ages, dtype=np.float64)
        age_class = np.searchsorted(CUTS, ages, side="right")
        self.medians = {int(c): float(np.median(ages[age_class == c])) for c in np.unique(age_class)}
        self.machines = []
        for left, right in TREE:
            rows = np.flatnonzero(np.isin(age_class, (*left, *right)))
            side = np.isin(age_class[rows], right)
            self.machines.append(choose_classifier(x[rows], side, [subjects[int(r)] for r in rows]))
        return self

    def predict(self, videos: Sequence[Video]) -> NDArray[np.float64]:
        x = self.reduction.transform(flat(self.describe(self.descriptor, videos)))
        branches: list[tuple[int, ...]] = [(*TREE[0][0], *TREE[0][1])] * len(x)
        for (left, right), machine in zip(TREE, self.machines, strict=True):
            here = np.array([branch == (*left, *right) for branch in branches])
            if here.any():
                sides = machine.predict(x[here])
                for row, side in zip(np.flatnonzero(here), sides, strict=True):
                    branches[row] = right if side else left
        return np.array([self.medians[branch[0]] for branch in branches])


class VLBPRegression(WholeVideo):
    """Ages from the same histogram by support vector regression."""

    descriptor = "vlbp"
