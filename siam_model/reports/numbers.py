"""Numbers from a table of predictions. Reads nothing else; NumPy only."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from siam_model.predictions import Predictions


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorSummary:
    """Of some videos: how many, mean and sample standard deviation (n - 1) of their absolute errors, years.

    The paper prints such pairs without saying which deviation; with more than some ten videos the two agree.
    NaN where there are too few videos.
    """

    n: int
    mae: float
    deviation: float


def summarise(error: np.ndarray) -> ErrorSummary:
    """(V,) absolute errors -> their summary."""
    n = len(error)
    return ErrorSummary(
        n, float(error.mean()) if n else float("nan"), float(error.std(ddof=1)) if n > 1 else float("nan")
    )


def by_decade(predictions: Predictions) -> dict[str, ErrorSummary]:
    """Table III's columns: "0-9", "10-19", ... from the first to the last decade with a video, then "All"."""
    decade = np.floor(predictions.age / 10).astype(int)
    found = {}
    for d in range(decade.min(), decade.max() + 1):
        found[f"{10 * d}-{10 * d + 9}"] = summarise(predictions.error[decade == d])
    found["All"] = summarise(predictions.error)
    return found


def cumulative_error(predictions: Predictions, limits: np.ndarray) -> np.ndarray:
    """Figure 7: share (0..1) of the videos whose absolute error is at most each limit, years."""
    return np.searchsorted(np.sort(predictions.error), limits, side="right") / len(predictions)


def correlation(predictions: Predictions) -> float:
    """Pearson's between age and predicted; NaN where one of them is constant."""
    if len(predictions) < 2 or not predictions.age.std() or not predictions.predicted.std():
        return float("nan")
    return float(np.corrcoef(predictions.age, predictions.predicted)[0, 1])


def summary_json(predictions: Predictions) -> dict[str, Any]:
    """All numbers of one method as JSON types (None for NaN)."""
    limits = np.arange(0, 51)
    return {
        "videos": len(predictions),
        "subjects": len(set(predictions.subject)),
        "mae": _number(predictions.error.mean()),
        "deviation": _number(summarise(predictions.error).deviation),
        "median_error": _number(np.median(predictions.error)),
        "bias": _number((predictions.predicted - predictions.age).mean()),
        "correlation": _number(correlation(predictions)),
        "by_decade": {
            name: {"videos": s.n, "mae": _number(s.mae), "deviation": _number(s.deviation)}
            for name, s in by_decade(predictions).items()
        },
        "cumulative_error": {
            "years": limits.tolist(),
            "share": [_number(v) for v in cumulative_error(predictions, limits)],
        },
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
