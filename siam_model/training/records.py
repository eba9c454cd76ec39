"""The record of one epoch of a training: a line of history.csv. Does not need torch."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class EpochRecord:
    """One line of history.csv. Errors are mean absolute errors in years; the loss includes the L2 term.

    `fold` is -1 for the final model after a cross-validation, `validation_mae` NaN where nothing validates,
    `best` whether this epoch's weights are the best so far, `seconds` the epoch's duration.

    `epoch` counts from 1. Epochs up to 0 are of pretraining: their loss is the mean absolute difference from its
    targets, and they have no errors (NaN).
    """

    fold: int
    epoch: int
    loss: float
    training_mae: float
    validation_mae: float
    best: bool
    seconds: float
