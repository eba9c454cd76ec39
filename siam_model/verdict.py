"""Whether a model is better than always guessing the training median, from its errors on unseen subjects."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store.text import pluralize
from siam_model.checkpoint import model_folder
from siam_model.predictions import Predictions, read_predictions
from siam_model.reports.stats import LEAST_SUBJECTS, interval
from siam_model.run_folder import RunFolder

_GUESSING = "always guessing the training median"


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """Mean absolute errors on the same held-out videos, years.

    Attributes:
        mae, median_mae: of the model, and of always guessing the median age of its training subjects.
        low, high: 95 % interval of median_mae - mae, by bootstrap over subjects; NaN with fewer than 10 subjects.
        videos, subjects: how many.
    """

    mae: float
    median_mae: float
    low: float
    high: float
    videos: int
    subjects: int

    @property
    def gain(self) -> float:
        """Years by which the model is better; negative where guessing is."""
        return self.median_mae - self.mae

    @property
    def outcome(self) -> Literal["better", "unclear", "not better"]:
        """Unclear: better on these subjects, but they are too few, or differ too much, to conclude it for others."""
        if self.gain <= 0:
            return "not better"
        return "better" if self.low > 0 else "unclear"

    def __str__(self) -> str:
        """One line."""
        numbers = f"{self.mae:.2f} against {self.median_mae:.2f} years of error"
        unseen = f"on {pluralize(self.videos, 'video')} of {self.subjects} unseen subjects"
        if self.outcome == "not better":
            return f"No better than {_GUESSING}: {numbers} {unseen}. Its ages are of no use."
        if math.isnan(self.low):
            few = f"too few to be sure, {LEAST_SUBJECTS} are needed"
            return f"Better than {_GUESSING} by {self.gain:.2f} years: {numbers} {unseen} ({few})."
        spread = f"95 % interval {self.low:.2f} to {self.high:.2f}"
        if self.outcome == "unclear":
            return (
                f"Not clearly better than {_GUESSING}: {numbers} {unseen}; the difference is {self.gain:.2f} years "
                f"({spread})."
            )
        return f"Better than {_GUESSING} by {self.gain:.2f} years ({spread}): {numbers} {unseen}."

    def as_json(self) -> dict[str, Any]:
        """All numbers, None for NaN, with the sentence."""
        values = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in dataclasses.asdict(self).items()
        }
        return {"outcome": self.outcome, "sentence": str(self), "gain": self.gain, **values}


def verdict_from(predictions: Predictions, median: Predictions) -> Verdict:
    """Compare a model with the training median. `median` predicts the same videos, in the same order."""
    gain, subjects = median.error - predictions.error, len(set(predictions.subject))
    low = high = math.nan
    if subjects >= LEAST_SUBJECTS:
        low, high = map(float, interval(gain, predictions.subject))
    return Verdict(
        float(predictions.error.mean()), float(median.error.mean()), low, high, len(predictions), subjects
    )


def load_verdict(path: Path) -> Verdict | None:
    """The verdict on the model at `path`, a run folder or its `model/`; None where predictions of its run, or of the
    training median, are not next to it."""
    from siam_model.reports.source import same_videos

    folder = RunFolder(path)
    if not folder.predictions.is_file():
        folder = RunFolder(model_folder(path).resolve().parent)
    file = folder.baseline("median")
    try:
        predictions = read_predictions(folder.predictions)
        return verdict_from(predictions, same_videos(read_predictions(file), predictions, file))
    except NemoError:
        return None
