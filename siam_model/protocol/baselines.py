"""What SIAM has to beat, in the same table of predictions: cheap, subject-disjoint, run with every training.

Each baseline learns from the training and validation subjects of a split and predicts its test part. What the ridge
regressions choose (how strong their penalty is) they choose inside those subjects, in folds that share none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nemo_pipeline.phases import find_phases
from nemo_pipeline.store import FaceDataset
from siam_model.data import VideoTable
from siam_model.methods import METHODS, labels_of
from siam_model.predictions import Predictions, join
from siam_model.protocol.splits import Split

if TYPE_CHECKING:
    from siam_model.methods.descriptors import FeatureCache

#: File name (without .csv) -> what it is called in tables.
NAMES = {
    "median": "training median",
    "ridge_mean_face": "ridge, mean face",
    "ridge_phases": "ridge, smile phases",
}
#: The same for everything that a run may predict with besides SIAM, in the order of tables.
LABELS = {**labels_of(tuple(METHODS)), **NAMES, "still_age": "still-age"}
#: Side of the mean face that the regression sees, cells.
SIDE = 38
#: Penalties that the ridge regressions choose from; features have deviation 1, ages are centred.
PENALTIES = tuple(float(10.0**k) for k in range(-1, 7))
#: Folds of subjects in which they choose.
INNER_FOLDS = 5


@dataclasses.dataclass(slots=True)
class Features:
    """What the baselines look at, measured on first use and kept for the next fold of the same process."""

    dataset: FaceDataset
    table: VideoTable
    say: Callable[[str], None] = lambda text: None
    _mean_face: np.ndarray | None = None
    _phases: np.ndarray | None = None
    _descriptors: FeatureCache | None = None

    @property
    def descriptors(self) -> FeatureCache:
        """Features of the compared methods; also cached in a folder next to the data."""
        if self._descriptors is None:
            from siam_model.methods.descriptors import FeatureCache

            data = self.dataset.path
            self._descriptors = FeatureCache(data.with_name(f"{data.stem}.features"), self.say)
        return self._descriptors

    @property
    def mean_face(self) -> np.ndarray:
        """(V, SIDE^2) float64: mean over a video's frames, averaged over cells of the picture."""
        if self._mean_face is None:
            self._mean_face = np.stack(
                [shrink(self.dataset[int(i)].frames.mean(axis=0), SIDE).ravel() for i in self.table.index]
            )
        return self._mean_face

    @property
    def phases(self) -> np.ndarray:
        """(V, 9) float64 of `phase_features`."""
        if self._phases is None:
            rows = []
            for i in self.table.index:
                video = self.dataset[int(i)]
                rows.append(phase_features(video.landmarks, video.timestamps, video.expression))
            self._phases = np.stack(rows)
        return self._phases


def fit_baselines(split: Split, table: VideoTable, features: Features) -> dict[str, Predictions]:
    """Name (a key of NAMES) -> the predictions of a split's test part, years."""
    known, test = table.rows_of((*split.training, *split.validation)), table.rows_of(split.test)
    groups = [table.subject[r] for r in known]
    predicted = {"median": np.full(len(test), float(np.median(table.age[known])))}
    for name, x in (("ridge_mean_face", features.mean_face), ("ridge_phases", features.phases)):
        predicted[name] = ridge(x[known], table.age[known], groups, x[test])
    return {name: to_predictions(table, test, split.fold, ages) for name, ages in predicted.items()}


def training_median(splits: Sequence[Split], table: VideoTable) -> Predictions:
    """Every test video gets the median age of the videos that its fold could learn from (training and
    validation): the constant with the least mean absolute error there."""
    parts = []
    for split in splits:
        known, test = table.rows_of((*split.training, *split.validation)), table.rows_of(split.test)
        median = float(np.median(table.age[known]))
        parts.append(to_predictions(table, test, split.fold, np.full(len(test), median)))
    return join(parts)


def ridge(x: np.ndarray, age: np.ndarray, groups: Sequence[str], new: np.ndarray) -> np.ndarray:
    """Ridge regression from features (V,F) to ages (V,), applied to `new` (W,F): (W,) years.

    Features are standardised by the known videos (one that never varies stays out). The penalty is that of PENALTIES
    with the least mean absolute error over folds of known videos that share no group (subject); with a single
    subject it is the strongest.
    """
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.model_selection import GroupKFold

    centre, spread = x.mean(axis=0), x.std(axis=0)
    varies = spread > 1e-9 * (1 + np.abs(centre))
    if not varies.any():
        return np.full(len(new), age.mean())
    x, new = ((part[:, varies] - centre[varies]) / spread[varies] for part in (x, new))
    folds = min(INNER_FOLDS, len(set(groups)))
    if folds < 2:
        return Ridge(alpha=PENALTIES[-1]).fit(x, age).predict(new)
    inner = list(GroupKFold(folds).split(x, age, groups))
    model = RidgeCV(alphas=PENALTIES, scoring="neg_mean_absolute_error", cv=inner)
    return np.asarray(model.fit(x, age).predict(new), dtype=np.float64)


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """(S,S) -> (side,side) means of the pixels of each cell; unchanged when S is smaller. Cells of a side that does
    not divide S differ by a pixel."""
    if min(image.shape) <= side:
        return image
    for axis in (0, 1):
        edges = np.arange(side) * image.shape[axis] // side
        sizes = np.diff(np.append(edges, image.shape[axis]))
        image = np.add.reduceat(image, edges, axis=axis) / np.expand_dims(sizes, 1 - axis)
    return image


def phase_features(landmarks: np.ndarray, timestamps: np.ndarray, expression: str = "") -> np.ndarray:
    """(9,): of onset, apex and offset the duration (s), the mean amplitude, and the amplitude's change (onset and
    offset) or maximum (apex). Zeros for a phase that was not found.

    Args:
        landmarks: (T,68,2) pixels.
        timestamps: (T,) seconds.
        expression: "disgust" is measured by another signal than everything else, which counts as a smile.
    """
    try:
        found = find_phases(landmarks, timestamps, "disgust" if expression == "disgust" else "smile")
    except ValueError:  # faces that came without landmarks, or none that a signal can be measured on
        return np.zeros(9)
    values = []
    for name in ("onset", "apex", "offset"):
        start, stop = getattr(found, name)
        if stop <= start:
            values += [0.0, 0.0, 0.0]
            continue
        part = found.amplitude[start:stop]
        size = part.max() if name == "apex" else part[-1] - part[0]
        values += [found.seconds(name), float(part.mean()), float(size)]
    return np.array(values)


def to_predictions(table: VideoTable, rows: np.ndarray, fold: int, predicted: np.ndarray) -> Predictions:
    """Rows of the table with their predicted ages, years, as a `Predictions`."""
    return Predictions(
        tuple(table.id[r] for r in rows),
        tuple(table.subject[r] for r in rows),
        np.full(len(rows), fold),
        table.age[rows],
        np.asarray(predicted, dtype=np.float64),
        tuple(table.file[r] for r in rows) if table.file else (),
    )
