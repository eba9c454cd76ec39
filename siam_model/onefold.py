"""One model: trained on the subjects of a split, kept in a folder, and made to predict the subjects it never saw.

A killed process leaves a folder that the same call goes on with: `checkpoint.pt` while it trains, then `model/` with
its `history.csv`, then `predictions.csv`, whose existence says that nothing is left to do.
"""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store.text import printable
from siam_model.baselines import Features, baselines_of, predictions_of
from siam_model.checkpoint import ModelCard, load_model, save_model
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.data import measure_normalisation
from siam_model.devices import resolve_device
from siam_model.predict import estimate
from siam_model.predictions import Predictions, write_predictions, write_table
from siam_model.records import EpochRecord
from siam_model.runs import held, make_private, sweep
from siam_model.splits import Split
from siam_model.work import Reporter, Runtime, Where, Work

HISTORY_COLUMNS = tuple(field.name for field in dataclasses.fields(EpochRecord))


@dataclasses.dataclass(frozen=True, slots=True)
class Subjects:
    """Who trains and who validates (nobody, for the model of all subjects), and the `fold` of their records."""

    fold: int
    training: tuple[str, ...]
    validation: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """What a training left in its folder."""

    history: tuple[EpochRecord, ...]

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights are kept, from 1."""
        return next(line.epoch for line in reversed(self.history) if line.best)

    @property
    def error(self) -> float:
        """Validation error of the weights that are kept, years; NaN where nobody validates."""
        return next(line.validation_mae for line in reversed(self.history) if line.best)


def train_split(
    work: Work,
    split: Split,
    folder: Path,
    where: Where,
    runtime: Runtime,
    reporter: Reporter,
    features: Features,
) -> None:
    """Search (where asked for), train, keep the model, predict the test part; nothing when that is done already.

    Args:
        folder: of the fold, or of the run itself when it has no folds.
        features: of the baselines, measured once for all folds of this process.

    Raises:
        Busy: another process is at it.
        NemoError: the loss is not finite, or data cannot be read.
    """
    make_private(folder)
    what = "the run" if where.fold is None else f"fold {split.fold}"
    with held(folder, f"{what} of {printable(str(work.run))}"):
        if (folder / "predictions.csv").is_file():
            return
        sweep(folder)
        people = Subjects(split.fold, split.training, split.validation)
        if not has_model(folder):
            if work.settings.trials:
                from siam_model.search import search  # optuna, loaded where it is needed

                search(work, people, folder, where, runtime, reporter)
            else:
                train_in(work, people, folder, where, runtime, reporter, work.model, work.config)
        shutil.rmtree(folder / "trials", ignore_errors=True)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        (folder / "baselines").mkdir(mode=0o700, exist_ok=True)
        for name, line in baselines_of(split, work.table, features).items():
            write_predictions(folder / "baselines" / f"{name}.csv", line)
        predictions = predict_split(work, split, folder, runtime)
        reporter.say(
            f"mean absolute error {predictions.error.mean():.2f} years on {len(predictions)} videos of "
            f"{len(split.test)} people whom it never saw",
            where,
        )
        write_predictions(folder / "predictions.csv", predictions)


def has_model(folder: Path) -> bool:
    """Whether its training is finished."""
    return (folder / "model" / "config.json").is_file() and (folder / "history.csv").is_file()


def train_in(
    work: Work,
    people: Subjects,
    folder: Path,
    where: Where,
    runtime: Runtime,
    reporter: Reporter,
    model: SIAMConfig,
    config: TrainConfig,
    *,
    on_record: Callable[[EpochRecord], None] | None = None,
) -> Trained:
    """Train one model into `folder` (model/, history.csv), going on where a killed process was.

    Args:
        on_record: told of every epoch too, after history.csv; what it raises ends the training and comes out here.
    """
    if has_model(folder):
        return Trained(tuple(read_history(folder / "history.csv")))
    from siam_model.fit import fit  # and Lightning with it, which joining folds can do without

    training, validation = work.table.rows_of(people.training), work.table.rows_of(people.validation)
    normalisation = measure_normalisation(work.dataset, work.index(training))
    checkpoint = folder / "checkpoint.pt"
    lines = history_so_far(folder)

    def record(line: EpochRecord) -> None:
        lines[:] = [old for old in lines if old.epoch < line.epoch] + [line]
        write_history(folder / "history.csv", lines)
        reporter.epoch(where, line)
        if on_record is not None:
            on_record(line)

    def batch(done: int, total: int) -> None:
        reporter.batch(where, done, total)

    fitted = fit(
        work.clips, training, validation, model, config, normalisation,
        # Every fold has its own start and order; the trials of a fold share them, so that only parameters differ.
        seed=(work.settings.seed, 0 if where.fold in (None, -1) else 1 + people.fold),
        fold=people.fold, device=runtime.device, workers=runtime.workers, on_epoch=record,
        checkpoint=checkpoint, precision=work.settings.precision, on_batch=batch, **runtime.fit,
    )  # fmt: skip
    write_history(folder / "history.csv", fitted.history)
    learnt = work.table.age[np.concatenate([training, validation])]
    card = ModelCard(
        model=model,
        train=config,
        normalisation=normalisation,
        prep=work.dataset.config.to_dict(),
        mean_shape=work.dataset.mean_shape,
        triangles=work.dataset.triangles,
        ages={"min": float(learnt.min()), "median": float(np.median(learnt)), "max": float(learnt.max())},
        subjects={"training": list(people.training), "validation": list(people.validation)},
        dataset=work.settings.dataset,
        synthetic=work.dataset.synthetic,
        preset=work.settings.preset,
        seed=work.settings.seed,
    )
    save_model(folder / "model", fitted.model, card)
    checkpoint.unlink(missing_ok=True)
    return Trained(fitted.history)


def predict_split(work: Work, split: Split, folder: Path, runtime: Runtime) -> Predictions:
    """The ages of the split's test part by the model in `folder`, with the very function that `nemo predict` uses.

    Raises:
        NemoError: the model knows one of these subjects.
    """
    network, card = load_model(folder, resolve_device(runtime.device))
    seen = {*card.subjects["training"], *card.subjects["validation"]} & set(split.test)
    if seen:
        raise NemoError(
            f"{printable(str(folder / 'model'))} was trained on subject {printable(min(seen))}, whom it should be "
            "tested on; remove that folder and go on with `nemo train --resume`."
        )
    rows = work.table.rows_of(split.test)
    ages = [
        estimate(
            network, work.dataset[int(i)].frames, card.normalisation, card.train.frame_step
        ).age
        for i in work.index(rows)
    ]  # fmt: skip
    return predictions_of(work.table, rows, split.fold, np.array(ages))


def write_history(path: Path, history: Sequence[EpochRecord]) -> None:
    """history.csv, whole, after every epoch: it is short, and a cut-off run leaves what was finished."""
    rows = [[_cell(name, getattr(line, name)) for name in HISTORY_COLUMNS] for line in history]
    write_table(path, HISTORY_COLUMNS, rows)


def history_so_far(folder: Path) -> list[EpochRecord]:
    """The epochs that a training in this folder has finished, as its checkpoint has them: an epoch is in there before
    anybody is told of it. Of a training that is finished, all of history.csv."""
    import torch

    if has_model(folder):
        return read_history(folder / "history.csv")
    try:
        values = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
        return [EpochRecord(**line) for line in values["history"]]
    except FileNotFoundError:
        return []
    except Exception:  # `fit` says what is wrong with it
        return []


def read_history(path: Path) -> list[EpochRecord]:
    """The inverse of `write_history` (seconds to the millisecond); nothing where there is no file.

    Raises:
        NemoError: it is no history.
    """
    kinds = {field.name: str(field.type) for field in dataclasses.fields(EpochRecord)}
    read: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": lambda cell: bool(int(cell))}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                EpochRecord(**{name: read[kind](row[name]) for name, kind in kinds.items()})
                for row in csv.DictReader(file)
            ]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise NemoError(f"{printable(str(path))} cannot be read: {error.strerror}.") from None
    except (KeyError, TypeError, ValueError):
        raise NemoError(f"{printable(str(path))} is damaged: it is no history of a training.") from None


def _cell(name: str, value: object) -> object:
    if name == "seconds":
        return f"{value:.3f}"
    return int(value) if isinstance(value, bool) else repr(value)
