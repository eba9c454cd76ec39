"""Subject-disjoint cross-validation, and the model trained on everybody that comes out of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from siam_model.config import SIAMConfig, TrainConfig
from siam_model.data import Clips, Normalisation, measure_normalisation
from siam_model.fit import EpochRecord, Fitted, fit
from siam_model.predictions import Predictions, join
from siam_model.splits import Split, check_folds


def cross_validate(
    clips: Clips,
    splits: Sequence[Split],
    model_config: SIAMConfig,
    config: TrainConfig,
    *,
    seed: int,
    device: str,
    workers: int,
    on_epoch: Callable[[EpochRecord], None] | None,
    say: Callable[[str], None],
    predict: Callable[[Fitted, Clips, np.ndarray, int, Normalisation], Predictions],
) -> tuple[Fitted, Normalisation, Predictions, list[int]]:
    """Train one model per split and predict its test part; then one on all subjects.

    The last one has nobody left to stop it, so it trains for the median of the folds' best epochs.

    Returns:
        The model of all subjects, its normalisation, the out-of-fold predictions (every video once, by a
        model that never saw its subject), and the folds' best epochs.

    Raises:
        NemoError: a subject is tested twice or never, or the loss is not finite.
    """
    table = clips.table
    check_folds(splits, table)
    parts, best = [], []
    for split in splits:
        training, validation = table.rows_of(split.training), table.rows_of(split.validation)
        normalisation = measure_normalisation(clips.dataset, table.index[training])
        fitted = fit(
            clips, training, validation, model_config, config, normalisation,
            seed=(seed, 1 + split.fold), fold=split.fold, device=device, workers=workers, on_epoch=on_epoch,
        )  # fmt: skip
        part = predict(fitted, clips, table.rows_of(split.test), split.fold, normalisation)
        say(f"Fold {split.fold}: mean absolute error {part.error.mean():.2f} years on {len(part)} videos.")
        parts.append(part)
        best.append(fitted.best_epoch)
    predictions = join(parts)
    epochs = max(1, round(float(np.median(best))))
    say(f"Now on all subjects, for {epochs} epochs (the median of the folds' best).")
    everyone = np.arange(len(table))
    normalisation = measure_normalisation(clips.dataset, table.index[everyone])
    final = fit(
        clips, everyone, everyone[:0], model_config, dataclasses.replace(config, epochs=epochs),
        normalisation, seed=(seed, 0), fold=-1, device=device, workers=workers, on_epoch=on_epoch,
    )  # fmt: skip
    return final, normalisation, predictions, best
