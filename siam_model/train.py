"""`train`: from out.h5 to a run folder with a model, held-out predictions, history and the split."""

from __future__ import annotations

import dataclasses
import datetime
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.text import printable
from siam_model.baselines import predictions_of, training_median
from siam_model.checkpoint import ModelCard, library_versions, save_model
from siam_model.crossval import cross_validate
from siam_model.data import Clips, Normalisation, VideoTable, labelled_videos, measure_normalisation
from siam_model.devices import resolve_device
from siam_model.fit import EpochRecord, Fitted, fit
from siam_model.overrides import configure
from siam_model.predict import estimate
from siam_model.predictions import Predictions, write_predictions, write_table
from siam_model.runs import new_run_folder, write_json
from siam_model.splits import Split, balance, check_folds, plan_splits

HISTORY_COLUMNS = tuple(field.name for field in dataclasses.fields(EpochRecord))


def train(
    data: str | os.PathLike[str],
    out_dir: str | os.PathLike[str] | None = None,
    *,
    preset: str = "paper",
    seed: int = 0,
    epochs: int | None = None,
    folds: int | None = None,
    device: str = "auto",
    overrides: Mapping[str, str] | None = None,
    workers: int = 0,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Train a SIAM on a file of `nemo prep`; answers the run folder.

    Without `folds`, a part of the subjects is held out, predicted at the end, and never seen by the model
    that is kept. With `folds` K, K models predict the fold that they never saw, and the model that is kept
    is trained on all subjects, for the median of the folds' best epochs.

    Args:
        data: out.h5.
        out_dir: the run folder, new or empty; `runs/<date-time>` by default.
        preset: `paper` or `small`.
        seed: of the split, the start and the order; equal seeds give equal results on the same CPU.
        epochs: most epochs, instead of the preset's.
        folds: number of folds, at least 2.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        overrides: `{"model.hidden": "256", "train.learning_rate": "3e-4"}`.
        workers: processes that read data beside this one.
        on_epoch: called after every epoch.
        say: called with a sentence now and then.

    Raises:
        NemoError: what is missing (ages, subjects, enough of them), or wrong in the settings.
    """
    started, say = time.monotonic(), say or (lambda _: None)
    dataset = FaceDataset(data)
    if "model.face_size" in (overrides or {}):
        raise NemoError(
            "model.face_size follows from the data; prepare faces of another size with `nemo prep --size`."
        )
    model_config, config = configure(preset, overrides, train__epochs=epochs, model__face_size=dataset.size)
    resolve_device(device)
    if folds is not None and folds < 2:
        raise NemoError(f"--folds is {folds}; a cross-validation takes at least 2 folds.")
    table = labelled_videos(dataset)
    if table.dropped:
        count = f"{table.dropped} video{'s' if table.dropped > 1 else ''}"
        say(f"Left out: {count} without an age or a subject.")
    splits = plan_splits(
        table,
        folds=folds,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=seed,
    )
    if folds is not None:
        check_folds(splits, table)
    lines = balance(splits, table)
    for line in lines:
        say(_balance_sentence(line))

    run = new_run_folder(Path(out_dir) if out_dir is not None else None)
    write_json(run / "split.json", split_json(splits, table, final_on_all=folds is not None))
    history: list[EpochRecord] = []

    def record(line: EpochRecord) -> None:
        history.append(line)
        write_history(run / "history.csv", history)
        if on_epoch is not None:
            on_epoch(line)

    clips = Clips(dataset, table, config.frame_step)
    if folds is None:
        split = splits[0]
        training, validation = table.rows_of(split.training), table.rows_of(split.validation)
        normalisation = measure_normalisation(dataset, table.index[training])
        fitted = fit(
            clips, training, validation, model_config, config, normalisation,
            seed=(seed, 0), device=device, workers=workers, on_epoch=record,
        )  # fmt: skip
        predictions = predict_rows(fitted, clips, table.rows_of(split.test), split.fold, normalisation)
        seen, best = {"training": split.training, "validation": split.validation}, [fitted.best_epoch]
    else:
        fitted, normalisation, predictions, best = cross_validate(
            clips, splits, model_config, config,
            seed=seed, device=device, workers=workers, on_epoch=record, say=say, predict=predict_rows,
        )  # fmt: skip
        seen = {"training": tuple(sorted(set(table.subject))), "validation": ()}

    write_predictions(run / "predictions.csv", predictions)
    (run / "baselines").mkdir(mode=0o700, exist_ok=True)
    write_predictions(run / "baselines" / "median.csv", training_median(splits, table))
    learnt = table.age[table.rows_of((*seen["training"], *seen["validation"]))]
    card = ModelCard(
        model=model_config,
        train=config,
        normalisation=normalisation,
        prep=dataset.config.to_dict(),
        mean_shape=dataset.mean_shape,
        triangles=dataset.triangles,
        ages={"min": float(learnt.min()), "median": float(np.median(learnt)), "max": float(learnt.max())},
        subjects={part: list(codes) for part, codes in seen.items()},
        dataset={"uuid": dataset.uuid, "file": printable(dataset.path.name)},
        synthetic=dataset.synthetic,
        preset=preset,
        seed=seed,
    )
    write_json(
        run / "run.json",
        {
            "format": "nemo-run",
            "format_version": 1,
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - started, 1),
            "synthetic": dataset.synthetic,
            "dataset": card.dataset,
            "preset": preset,
            "seed": seed,
            "folds": folds,
            "device": device,
            "best_epochs": best,
            "balance": lines,
            "model": model_config.to_dict(),
            "train": config.to_dict(),
            "versions": library_versions(),
        },
    )
    save_model(run / "model", fitted.model, card)  # last: a run with a model is a finished run
    return run


def predict_rows(
    fitted: Fitted, clips: Clips, rows: np.ndarray, fold: int, normalisation: Normalisation
) -> Predictions:
    """The ages of some rows of the table, by the very function that `nemo predict` uses."""
    ages = []
    for row in rows:
        frames = clips.dataset[int(clips.table.index[row])].frames
        ages.append(estimate(fitted.model, frames, normalisation, clips.step).age)
    return predictions_of(clips.table, rows, fold, np.array(ages))


def split_json(splits: list[Split], table: VideoTable, final_on_all: bool) -> dict[str, object]:
    """Subjects by part of the model that is kept, and of every fold's.

    The model kept after a cross-validation has seen everybody: its test part is empty.
    """
    kept = splits[0].to_dict()
    if final_on_all:
        kept = {"training": sorted(set(table.subject)), "validation": [], "test": []}
    kept.pop("fold", None)
    return {**kept, "folds": [split.to_dict() for split in splits]}


def write_history(path: Path, history: list[EpochRecord]) -> None:
    """history.csv, whole, after every epoch: it is short, and a cut-off run leaves what was finished."""
    rows = [[_cell(v) for v in dataclasses.astuple(line)] for line in history]
    write_table(path, HISTORY_COLUMNS, rows)


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    return f"{value:.6g}" if isinstance(value, float) else value


def _balance_sentence(line: dict[str, object]) -> str:
    genders = ", ".join(f"{n} {g}" for g, n in dict(line["gender"]).items())  # type: ignore[call-overload]
    return printable(
        f"Test part of fold {line['fold']}: {line['subjects']} subjects ({genders}), {line['videos']} videos, "
        f"ages {line['age_min']:.0f} to {line['age_max']:.0f}, mean {line['age_mean']:.1f}."
    )
