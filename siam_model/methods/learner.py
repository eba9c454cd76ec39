"""From features to ages, the same for every method: support vector regression on two levels.

The compared methods are said to be "hierarchical", with "adaptive age grouping" (Dibeklioglu, Alnajar, Salah and
Gevers, IEEE TIP 24, 2015, abstract); no more was found. Here: the first level answers a rough age; the second is a bank
of regressions, each trained on the videos of people of about one age, and the two nearest to the rough age are
blended. Everything that is chosen is chosen among the training videos, in folds that share no subject.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from siam_model.methods.selection import mrmr_order

#: Folds of subjects in which parameters are chosen.
INNER_FOLDS = 5
#: How many dynamic features may be selected.
COUNTS = (10, 25, 50, 100)
#: Penalty, half width of the insensitive tube (years), and factor on 1 / (features x variance) of the kernel.
PENALTIES, TUBES, WIDTHS = (1.0, 10.0, 100.0), (0.5, 2.0), (0.25, 1.0, 4.0)
#: Ages, years, that the second level's regressions are trained around.
CENTRES = tuple(range(8, 77, 2))
#: Half width of a group, years, at first, and videos up to which it grows.
GROUP_YEARS, GROUP_VIDEOS = 8.0, 150


@dataclasses.dataclass(frozen=True, slots=True)
class Parameters:
    """What is chosen inside the training videos."""

    count: int = 50
    penalty: float = 10.0
    tube: float = 0.5
    width: float = 1.0


@dataclasses.dataclass(eq=False)
class Inputs:
    """Features of videos: `ready` (V,F) are taken as they are, of `pool` (V,G) some are selected. Either may have no
    column."""

    ready: NDArray[np.float64]
    pool: NDArray[np.float64]

    def rows(self, rows: NDArray[np.intp]) -> Inputs:
        """Some of the videos."""
        return Inputs(self.ready[rows], self.pool[rows])


class Selector:
    """The dynamic features that say most about age and least what others say, standardised; mean norm 1."""

    def fit(self, pool: NDArray[np.float64], ages: NDArray[np.float64]) -> Self:
        """Order the features (V,G) by what they say about the ages (V,)."""
        self.centre, spread = pool.mean(axis=0), pool.std(axis=0)
        varies = spread > 1e-9 * (1 + np.abs(self.centre))
        self.spread = np.where(varies, spread, 1.0)
        standard = (pool - self.centre) / self.spread
        usable = np.flatnonzero(varies)
        self.order = usable[mrmr_order(standard[:, usable], ages, max(COUNTS))]
        self._known = standard
        return self

    def transform(self, pool: NDArray[np.float64], count: int) -> NDArray[np.float64]:
        """(V,G) -> (V, at most `count`)."""
        chosen = self.order[:count]
        known = self._known[:, chosen]
        norm = float(np.linalg.norm(known, axis=1).mean()) if len(chosen) else 1.0
        return ((pool - self.centre) / self.spread)[:, chosen] / max(norm, 1e-12)


class AgeLearner:
    """Two levels of RBF support vector regression on `Inputs`."""

    def fit(self, inputs: Inputs, ages: NDArray[np.float64], subjects: Sequence[str]) -> Self:
        """Choose count, penalty, tube and width in folds of subjects, then learn from all videos.

        Args:
            inputs: of V videos.
            ages: (V,) years.
            subjects: V codes.
        """
        self.parameters = choose_parameters(inputs, ages, subjects)
        self.selector = Selector().fit(inputs.pool, ages)
        x = self._features(inputs)
        self.first = _regression(x, ages, self.parameters)
        groups: dict[bytes, Any] = {}
        self.bank = []
        for centre in CENTRES:
            rows = age_group(ages, centre)
            key = rows.tobytes()
            if key not in groups:
                groups[key] = _regression(x[rows], ages[rows], self.parameters)
            self.bank.append(groups[key])
        return self

    def predict(self, inputs: Inputs) -> NDArray[np.float64]:
        """(V,) years."""
        x = self._features(inputs)
        if not len(x):
            return np.zeros(0)
        rough = np.clip(self.first.predict(x), CENTRES[0], CENTRES[-1])
        step = CENTRES[1] - CENTRES[0]
        place = np.minimum((rough - CENTRES[0]) / step, len(CENTRES) - 1 - 1e-9)
        low = np.floor(place).astype(np.intp)
        part = place - low
        answers = {id(machine): machine.predict(x) for machine in self.bank}
        table = np.stack([answers[id(machine)] for machine in self.bank])  # (centres, V)
        video = np.arange(len(x))
        return (1 - part) * table[low, video] + part * table[low + 1, video]

    def _features(self, inputs: Inputs) -> NDArray[np.float64]:
        return _joined(inputs, self.selector, self.parameters.count)


def age_group(
    ages: NDArray[np.float64], centre: float, years: float = GROUP_YEARS, least: int = GROUP_VIDEOS
) -> NDArray[np.intp]:
    """The videos whose age is within `years` of `centre`; of fewer than `least`, the group grows until it has so many
    (or all there are), with everybody who is as far away as the last of them."""
    away = np.abs(np.asarray(ages, dtype=np.float64) - centre)
    reach = max(years, float(np.sort(away)[min(least, len(away)) - 1]))
    return np.flatnonzero(away <= reach)


def choose_parameters(inputs: Inputs, ages: NDArray[np.float64], subjects: Sequence[str]) -> Parameters:
    """The parameters whose first level errs least over folds of subjects: first how many dynamic features, then
    penalty, tube and width together. Features are selected again in each of these folds. One subject: the defaults."""
    folds = _folds(subjects)
    best = Parameters()
    if not folds:
        return best
    selectors = [Selector().fit(inputs.pool[inside], ages[inside]) for inside, _ in folds]
    counts = COUNTS if inputs.pool.shape[1] else (best.count,)
    stages = [
        [dataclasses.replace(best, count=count) for count in counts],
        [Parameters(0, *rest) for rest in itertools.product(PENALTIES, TUBES, WIDTHS)],
    ]
    for stage in stages:
        tried = [dataclasses.replace(p, count=p.count or best.count) for p in stage]
        if len(tried) < 2:
            continue
        errors = np.zeros(len(tried))
        for (inside, outside), selector in zip(folds, selectors, strict=True):
            kept: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
            for i, p in enumerate(tried):
                if p.count not in kept:
                    kept[p.count] = (
                        _joined(inputs.rows(inside), selector, p.count),
                        _joined(inputs.rows(outside), selector, p.count),
                    )
                known, new = kept[p.count]
                predicted = _regression(known, ages[inside], p).predict(new)
                errors[i] += np.abs(predicted - ages[outside]).sum()
        best = tried[int(np.argmin(errors))]
    return best


def _joined(inputs: Inputs, selector: Selector, count: int) -> NDArray[np.float64]:
    return np.concatenate([inputs.ready, selector.transform(inputs.pool, count)], axis=1)


def _folds(subjects: Sequence[str]) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    from sklearn.model_selection import GroupKFold

    count = min(INNER_FOLDS, len(set(subjects)))
    if count < 2:
        return []
    return list(GroupKFold(count).split(np.zeros(len(subjects)), groups=list(subjects)))


class _Regression(Protocol):
    def predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]: ...


@dataclasses.dataclass(frozen=True)
class _Constant:
    """What is left where no feature varies, or one video is there."""

    age: float

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.full(len(x), self.age)


def _regression(x: NDArray[np.float64], ages: NDArray[np.float64], p: Parameters) -> _Regression:
    from sklearn.svm import SVR

    variance = float(x.var()) if x.size else 0.0
    if len(x) < 2 or variance < 1e-18:
        return _Constant(float(np.median(ages)))
    machine: _Regression = SVR(
        C=p.penalty, epsilon=p.tube, gamma=p.width / (x.shape[1] * variance), cache_size=500
    ).fit(x, ages)
    return machine


class SideClassifier(Protocol):
    """Answers True or False for each video."""

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.bool_]: ...


@dataclasses.dataclass(frozen=True)
class _OneSide:
    side: bool

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.full(len(x), self.side)


def choose_classifier(
    x: NDArray[np.float64], side: NDArray[np.bool_], subjects: Sequence[str]
) -> SideClassifier:
    """An RBF support vector machine (V,F) -> (V,) bool, its penalty and width those that err least over folds of
    subjects. Where all videos are of one side, that side is always the answer."""
    from sklearn.svm import SVC

    def trained(rows: NDArray[np.intp], penalty: float, width: float) -> SideClassifier:
        if not len(rows):
            return _OneSide(False)
        if side[rows].all() or not side[rows].any():
            return _OneSide(bool(side[rows[0]]))
        variance = max(float(x[rows].var()), 1e-18)
        machine: SideClassifier = SVC(C=penalty, gamma=width / (x.shape[1] * variance)).fit(
            x[rows], side[rows]
        )
        return machine

    errors: dict[tuple[float, float], int] = {}
    folds = _folds(subjects) if len(side) else []
    for penalty, width in itertools.product(PENALTIES, WIDTHS):
        errors[penalty, width] = sum(
            int((trained(inside, penalty, width).predict(x[outside]) != side[outside]).sum())
            for inside, outside in folds
        )
    best = min(errors, key=lambda pair: errors[pair])
    return trained(np.arange(len(side)), *best)
