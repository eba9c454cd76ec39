"""What SIAM has to beat, in the same table of predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siam_model.data import VideoTable
from siam_model.predictions import Predictions, join
from siam_model.splits import Split

#: File name (without .csv) -> what it is called in tables.
NAMES = {"median": "training median"}


def training_median(splits: Sequence[Split], table: VideoTable) -> Predictions:
    """Every test video gets the median age of the videos that its fold could learn from (training and
    validation): the constant with the least mean absolute error there."""
    parts = []
    for split in splits:
        known, test = table.rows_of((*split.training, *split.validation)), table.rows_of(split.test)
        median = float(np.median(table.age[known]))
        parts.append(predictions_of(table, test, split.fold, np.full(len(test), median)))
    return join(parts)


def predictions_of(table: VideoTable, rows: np.ndarray, fold: int, predicted: np.ndarray) -> Predictions:
    """Rows of the table with their predicted ages, years, as a `Predictions`."""
    return Predictions(
        tuple(table.id[r] for r in rows),
        tuple(table.subject[r] for r in rows),
        np.full(len(rows), fold),
        table.age[rows],
        np.asarray(predicted, dtype=np.float64),
    )
