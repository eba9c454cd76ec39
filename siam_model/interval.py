"""An interval for an age: split conformal prediction by subject, from errors on unseen subjects.

Videos of one subject are not independent, so subjects are what is exchangeable, not videos. The method is hierarchical
conformal prediction (Lee, Barber and Willett, "Distribution-free inference with hierarchical data", 2023): with K
subjects, subject k having n_k videos with absolute errors s_ki, the half-width is the level's quantile of

    sum over k, i of delta(s_ki) / ((K + 1) n_k)  +  delta(infinity) / (K + 1)

Every subject weighs the same, whatever the number of videos, and one part in K + 1 is kept for the new subject, about
whom nothing is known. For a random video of a new subject from the same population the interval holds the true age with
a probability of at least the level (and at most 2 / (K + 1) above it where errors have no ties): on average over
subjects, not for each kind of person. It needs K >= level / (1 - level) subjects: 9 for 90 %.

Exact for the model that made the errors, as in a run without folds (its held-out subjects are drawn within strata of
age and gender, which is taken as a plain draw). A run with folds has errors of one model per fold,
and its own model was trained on all subjects: the errors are then those of slightly poorer models, and the interval is
as good as that comparison, commonly a little too wide. The same holds for the mean of the folds' models.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path

import numpy as np

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store.text import pluralize
from siam_model.checkpoint import model_folder
from siam_model.predictions import Predictions, read_predictions
from siam_model.run_folder import RunFolder
from siam_model.sums import FILE, changed_files


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """Half-width of the interval around a predicted age.

    Attributes:
        level: wanted coverage, 0..1.
        half_width: years; NaN without an interval, for the reason in `reason` (a sentence, else "").
        subjects, videos: whose errors it was made from.
    """

    level: float
    half_width: float
    subjects: int
    videos: int
    reason: str = ""

    def around(self, age: float) -> tuple[float, float] | None:
        """Lowest and highest age, years, not below 0; None where there is no interval."""
        if math.isnan(self.half_width):
            return None
        return max(0.0, age - self.half_width), max(0.0, age + self.half_width)


def half_width(error: np.ndarray, subject: tuple[str, ...], level: float) -> float:
    """The quantile above, years; infinite where there are too few subjects.

    Args:
        error: (V,) absolute errors, years.
        subject: V codes of the persons.
        level: 0..1.
    """
    videos = Counter(subject)
    weights = np.array([1.0 / ((len(videos) + 1) * videos[code]) for code in subject])
    order = np.argsort(error, kind="stable")
    reached = np.cumsum(weights[order]) >= level - 1e-12  # rounding must not cost a whole step
    return float(error[order][reached.argmax()]) if reached.any() else math.inf


def interval_from(predictions: Predictions, level: float) -> Interval:
    """The interval that errors of held-out predictions give."""
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1; this is {level:g}.")
    subjects, videos = len(set(predictions.subject)), len(predictions)
    width = half_width(predictions.error, predictions.subject, level)
    if math.isfinite(width):
        return Interval(level, width, subjects, videos)
    needed = math.ceil(level / (1 - level) - 1e-9)
    reason = (
        f"no {100 * level:.4g} % interval: the run predicted only {pluralize(subjects, 'unseen subject')}, and at "
        f"least {needed} are needed"
    )
    return Interval(level, math.nan, subjects, videos, reason)


def load_interval(path: Path, level: float) -> Interval:
    """The interval for the model at `path`, a run folder or its `model/`, from predictions.csv next to it.

    A model without one (copied without its run) has no interval, which is not an error; nor has one whose
    predictions.csv is not as the training wrote it.
    """
    table = RunFolder(path).predictions
    if not table.is_file():
        table = RunFolder(model_folder(path).resolve().parent).predictions
    if table.is_file() and changed_files(table.parent, (table.name,)):
        reason = f"{table} is not as the training wrote it (its {FILE} does not fit); copy the run again"
        return Interval(level, math.nan, 0, 0, f"no interval: {reason}")
    try:
        predictions = read_predictions(table)
    except NemoError as error:
        reason = (
            str(error).rstrip(".") if table.is_file() else "there is no predictions.csv next to the model"
        )
        return Interval(level, math.nan, 0, 0, f"no interval: {reason}")
    return interval_from(predictions, level)
