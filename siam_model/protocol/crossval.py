"""The folds of a run: trained one by one or by other processes, joined, and what the model of all subjects takes from
them."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.errors import Busy, LeakageError, NemoError, RunError
from nemo_pipeline.store.text import escape_controls
from siam_model.checkpoint import load_card
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.predictions import Predictions, join, read_predictions, write_predictions
from siam_model.protocol.baselines import NAMES, Features
from siam_model.protocol.fit_folder import Trained
from siam_model.protocol.fold import train_split
from siam_model.protocol.history import read_history, write_history
from siam_model.protocol.open_run import OpenRun, read_splits
from siam_model.protocol.reporter import TrainingScope
from siam_model.protocol.splits import Split
from siam_model.run_folder import RunFolder, read_json
from siam_model.sums import check_sums
from siam_model.training.records import EpochRecord


@dataclasses.dataclass(frozen=True, slots=True)
class FoldJob:
    """One fold of one run, as other processes are told of it."""

    run: Path
    fold: int
    data: str | None = None
    variant: str = ""

    @property
    def where(self) -> TrainingScope:
        """How its news are marked."""
        return TrainingScope(fold=self.fold, variant=self.variant)


def train_folds(run: OpenRun, folds: Sequence[int], features: Features | None = None) -> dict[int, str]:
    """Train these folds here, one after the other. One that fails is reported, and the others are trained.

    Args:
        features: of the baselines, where they were measured before.

    Returns:
        Fold -> why it failed. A fold that another process is training counts as failed here.
    """
    features = features or Features(run.dataset, run.table, run.reporter.say)
    failed: dict[int, str] = {}
    for fold in folds:
        where = TrainingScope(fold=fold, variant=run.variant)
        try:
            train_split(run, run.splits[fold], run.folder.fold(fold), where, features)
        except NemoError as error:
            failed[fold] = str(error)
            run.reporter.failed(f"{'not trained' if isinstance(error, Busy) else 'failed'}: {error}", where)
    return failed


@dataclasses.dataclass(frozen=True, slots=True)
class Joined:
    """What the folds of a run give together: held-out predictions, those of every baseline (by the stem of its file),
    and the history of all folds."""

    predictions: Predictions
    baselines: dict[str, Predictions]
    history: list[EpochRecord]


def read_folds(run: RunFolder) -> Joined:
    """The folds of a run that were trained apart, together. Reads the run's folder alone, and writes nothing.

    Every subject must be predicted by exactly one fold, the one that split.json names, whose model says that it never
    saw it.

    Raises:
        NemoError: folds are missing (the sentence names them), a subject is in two folds, in one that is not its
            own or in none, or a model was trained on somebody whom it predicts.
    """
    splits = read_splits(run)
    missing = run.missing_folds(len(splits))
    shown = escape_controls(str(run))
    if missing:
        names = ", ".join(map(str, missing))
        raise RunError(
            f"{shown} lacks fold{'s' if len(missing) > 1 else ''} {names} of {len(splits)}; train what is missing with "
            f"`resume({shown})`.",
            run,
        )
    compared = {file.stem for split in splits for file in run.fold(split.fold).baselines.glob("*.csv")}
    parts: list[Predictions] = []
    baselines: dict[str, list[Predictions]] = defaultdict(list)
    history: list[EpochRecord] = []
    for split in splits:
        folder = run.fold(split.fold)
        part = read_predictions(folder.predictions)
        parts.append(part)
        for name in sorted(compared | set(NAMES)):
            baselines[name].append(read_predictions(folder.baseline(name)))
        history += read_history(folder.history)
        _check_models_people(split, folder)
    _check_disjoint(run, splits, parts)
    for split in splits:
        folder = run.fold(split.fold)
        remedy = f"copy it again; or remove it, and resume with `resume({shown})`"
        for checked in (folder.path, folder.model.path):
            check_sums(checked, remedy)
    predictions = join(parts)
    joined = {name: join(lines) for name, lines in baselines.items()}
    for name, line in joined.items():
        if sorted(line.video) != sorted(predictions.video):
            raise RunError(f"The baseline {name} of {shown} does not predict the same videos as SIAM.", run)
    return Joined(predictions, joined, history)


def join_folds(run: RunFolder) -> Predictions:
    """Write what `read_folds` reads: RUN/predictions.csv, baselines/*.csv and history.csv. May be called again.

    Raises:
        NemoError: as there.
    """
    joined = read_folds(run)
    run.baselines.mkdir(mode=0o700, exist_ok=True)
    for name, line in joined.baselines.items():
        write_predictions(run.baseline(name), line)
    final = [line for line in read_history(run.history) if line.fold < 0]
    write_history(run.history, [*joined.history, *final])
    write_predictions(run.predictions, joined.predictions)
    return joined.predictions


def _check_disjoint(run: RunFolder, splits: Sequence[Split], parts: Sequence[Predictions]) -> None:
    """Every subject predicted in the fold that split.json names, and in no other."""
    shown = escape_controls(str(run))
    found: Counter[str] = Counter(subject for part in parts for subject in set(part.subject))
    for subject, n in sorted(found.items()):
        if n > 1:
            raise LeakageError(
                f"Subject {escape_controls(subject)} is predicted by {n} folds of {shown}: its folds are not of one "
                "split, and no number of theirs may be joined; begin a new run.",
                subject,
            )
    for split, part in zip(splits, parts, strict=True):
        for subject in sorted(set(part.subject) ^ set(split.test)):
            how = "does not predict" if subject in split.test else "predicts"
            raise RunError(
                f"Fold {split.fold} of {shown} {how} subject {escape_controls(subject)}, unlike split.json says; "
                f"remove {run.fold(split.fold).path.relative_to(run)} and resume with `resume({shown})`.",
                run,
            )
        if (part.fold != split.fold).any():
            raise RunError(
                f"The predictions of fold {split.fold} of {shown} are marked as another fold's.", run
            )


def _check_models_people(split: Split, folder: RunFolder) -> None:
    """The fold's model says itself whom it has seen."""
    seen = load_card(folder.path).subjects
    for subject in sorted({*seen["training"], *seen["validation"]} & set(split.test)):
        raise LeakageError(
            f"The model of {escape_controls(str(folder))} was trained on subject {escape_controls(subject)}, whom it "
            "predicts; remove that folder and resume with `resume()`.",
            subject,
        )


def best_epochs(run: RunFolder, folds: int) -> list[int]:
    """The epoch, from 1, whose weights each fold kept."""
    return [Trained(tuple(read_history(run.fold(k).history))).best_epoch for k in range(folds)]


def choices(run: RunFolder, folds: int) -> list[dict[str, Any]]:
    """choice.json of every fold."""
    return [read_json(run.fold(k).choice, chosen=dict, trials=list) for k in range(folds)]


def final_settings(run: OpenRun) -> tuple[SIAMConfig, TrainConfig, dict[str, Any]]:
    """What the model of all subjects is trained with: nobody is left to choose for it or to stop it.

    It trains for the median of the folds' best epochs. Its parameters are those that most folds chose; among equals
    those whose folds gained most on their own first trial (the preset's values), which takes out that some folds are
    harder than others.

    Returns:
        The two configurations, and the parameters that were searched.
    """
    folds = len(run.splits)
    epochs = max(1, round(float(np.median(best_epochs(run.folder, folds)))))
    chosen: dict[str, Any] = {}
    if run.settings.trials:
        from siam_model.protocol.search import apply

        found = choices(run.folder, folds)
        gains: dict[str, list[float]] = defaultdict(list)
        values = {repr(sorted(line["chosen"].items())): line["chosen"] for line in found}
        for line in found:
            first = line["trials"][0]["validation_mae"]
            gain = 0.0 if first is None else first - line["validation_mae"]
            gains[repr(sorted(line["chosen"].items()))].append(gain)
        best = max(sorted(gains), key=lambda key: (len(gains[key]), float(np.mean(gains[key]))))
        chosen = values[best]
        model, config = apply(run.model, run.config, chosen)
    else:
        model, config = run.model, run.config
    return model, dataclasses.replace(config, epochs=epochs), chosen
