"""`train`: from out.h5 to a run folder. `resume`: goes on with one that was cut off."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store.files import sweep
from nemo_pipeline.store.text import printable
from siam_model.checkpoint import library_versions, load_card
from siam_model.figures.curves import draw_curves
from siam_model.protocol.baselines import Features
from siam_model.protocol.crossval import (
    Task,
    best_epochs,
    check_fold,
    choices,
    final_settings,
    join_folds,
    train_folds,
)
from siam_model.protocol.history import read_history, write_history
from siam_model.protocol.jobs import run_tasks
from siam_model.protocol.onefold import train_split
from siam_model.protocol.onemodel import Subjects, Trained, train_in
from siam_model.protocol.settings import check_same, read_settings
from siam_model.protocol.work import (
    CallbackReporter,
    Reporter,
    Runtime,
    Where,
    Work,
    begin,
    check_runtime,
    open_data,
    open_work,
    settings_for,
)
from siam_model.runs import held, is_finished, missing_folds, read_json, write_json
from siam_model.training.records import EpochRecord


def train(
    data: str | os.PathLike[str],
    out_dir: str | os.PathLike[str] | None = None,
    *,
    preset: str = "paper",
    seed: int = 0,
    epochs: int | None = None,
    folds: int | None = None,
    trials: int = 0,
    fold: int | None = None,
    subset: Mapping[str, str] | None = None,
    device: str = "auto",
    overrides: Mapping[str, str] | None = None,
    workers: int = 0,
    jobs: int = 1,
    precision: str = "32",
    distinct_subjects: bool = False,
    fit_options: Mapping[str, Any] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    say: Callable[[str], None] | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Train a SIAM on a file of `nemo prep`; answers the run folder (its layout: `siam_model.runs`).

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
        trials: combinations of h, dropouts and lambda that each fold tries (`siam_model.protocol.search`); 0: none.
        fold: train this fold alone, from 0; `out_dir` may be shared with processes that train the others.
        subset: `{"expression": "smile", "condition": "posed"}`, or one of them: the videos that take part.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        overrides: `{"model.hidden": "256", "train.learning_rate": "3e-4"}`.
        workers: processes that read data beside this one.
        jobs: processes that train folds side by side, each on a GPU of its own where there are several.
        precision: `32`, `bf16-mixed` or `16-mixed`.
        distinct_subjects: codes such as `1` and `001` are different people; without it they are refused.
        fit_options: further keyword arguments of `siam_model.training.fit.fit`: `devices`, `tensorboard`.
        on_epoch: called after every epoch.
        say: called with a sentence now and then.
        reporter: in place of the two: is told where each epoch belongs, too.

    Raises:
        NemoError: what is missing (ages, subjects, enough of them), or wrong in the settings; or a fold failed.
    """
    reporter = reporter or CallbackReporter(on_epoch, say)
    settings, model, config, dataset = settings_for(
        Path(data), preset=preset, seed=seed, epochs=epochs, folds=folds, trials=trials,
        overrides=overrides, subset=subset, precision=precision, distinct_subjects=distinct_subjects,
    )  # fmt: skip
    runtime = Runtime(device, workers, dict(fit_options or {}))
    check_runtime(runtime, precision, jobs, folds)
    out = Path(out_dir) if out_dir is not None else None
    if fold is not None:
        check_fold(fold, folds)
        if out is None:
            raise NemoError("--fold needs --out RUN, the folder that the folds share.")
    work = begin(out, settings, model, config, dataset, reporter, shared=fold is not None)
    return go_on(work, runtime, reporter, fold=fold, jobs=jobs)


def resume(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    given: Mapping[str, Any] | None = None,
    fold: int | None = None,
    device: str = "auto",
    workers: int = 0,
    jobs: int = 1,
    fit_options: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Go on with a run that was cut off, with the settings that it was begun with.

    Args:
        run: its folder.
        data: where its data are now, when they were moved.
        given: field of `RunSettings` -> what the caller believes it is.
        fold: train this fold alone.

    Raises:
        NemoError: nothing is left to do, `given` contradicts the recorded settings, the data are others or gone; or
            as `train`.
    """
    run = Path(run)
    if not run.is_dir():
        raise NemoError(f"{printable(str(run))} is no folder, so there is nothing to go on with.")
    settings, model, config = read_settings(run)
    check_same(run, settings, given or {})
    if fold is not None:
        check_fold(fold, settings.folds)
    elif is_finished(run):
        shown = printable(str(run))
        raise NemoError(f"{shown} is finished, and nothing is left to do: nemo evaluate {shown}.")
    runtime = Runtime(device, workers, dict(fit_options or {}))
    check_runtime(runtime, settings.precision, jobs, settings.folds)
    reporter = reporter or Reporter()
    dataset = open_data(run, settings, Path(data) if data is not None else None)
    if (run / "split.json").is_file():
        work = open_work(run, dataset=dataset)
        reporter.begun(run)
    else:  # killed as it began
        work = begin(run, settings, model, config, dataset, reporter, shared=True)
    return go_on(work, runtime, reporter, fold=fold, jobs=jobs)


def go_on(
    work: Work, runtime: Runtime, reporter: Reporter, *, fold: int | None = None, jobs: int = 1
) -> Path:
    """Do what a run still lacks: of all of it, or of one fold.

    Raises:
        NemoError: something failed; what is finished stays.
    """
    if not work.folded:
        where = Where(variant=work.variant)
        features = Features(work.dataset, work.table)
        train_split(work, work.splits[0], work.run, where, runtime, reporter, features)
        return finish(work, runtime)
    todo = missing_folds(work.run, len(work.splits))
    if fold is not None:
        if fold not in todo:
            reporter.say("finished already", Where(fold=fold, variant=work.variant))
        todo = [fold] if fold in todo else []
    elif len(todo) < len(work.splits):
        done = len(work.splits) - len(todo)
        reporter.say(f"{done} of {len(work.splits)} folds are finished.", Where(variant=work.variant))
    if jobs > 1 and len(todo) > 1:
        tasks = [Task(work.run, k, str(work.dataset.path), work.variant) for k in todo]
        outcome = run_tasks(tasks, jobs, runtime, reporter)
        failed = {task.fold: text for task, text in outcome.items()}
    else:
        failed = train_folds(work, todo, runtime, reporter)
    raise_failed(work.run, failed, len(work.splits))
    if fold is not None:
        if not missing_folds(work.run, len(work.splits)):
            _join(work)
            reporter.say("All folds are finished and joined.")
        return work.run
    train_on_all(work, runtime, reporter)
    return finish(work, runtime)


def train_on_all(work: Work, runtime: Runtime, reporter: Reporter) -> None:
    """Join the folds and train the model of all subjects, for the median of the folds' best epochs."""
    where = Where(fold=-1, variant=work.variant)
    with held(work.run, f"the model of all subjects of {printable(str(work.run))}"):
        _join(work)
        sweep(work.run)
        folder = work.run / "final"
        if (work.run / "model" / "config.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            return
        model, config, chosen = final_settings(work)
        with_what = f", with {', '.join(f'{k} {v}' for k, v in chosen.items())}" if chosen else ""
        reporter.say(
            f"Now on all subjects, for {config.epochs} epochs (the median of the folds' best){with_what}."
        )
        everyone = Subjects(-1, tuple(sorted(set(work.table.subject))), ())
        folder.mkdir(mode=0o700, exist_ok=True)
        last = train_in(work, everyone, folder, where, runtime, reporter, model, config)
        folded = [line for line in read_history(work.run / "history.csv") if line.fold >= 0]
        write_history(work.run / "history.csv", [*folded, *last.history])
        if (folder / "tensorboard").is_dir():
            (folder / "tensorboard").rename(work.run / "tensorboard")
        (folder / "model").rename(work.run / "model")
        shutil.rmtree(folder)


def raise_failed(run: Path, failed: Mapping[int, str], folds: int) -> None:
    """Raises NemoError with the reasons, where a fold failed."""
    if failed:
        first, reason = next(iter(sorted(failed.items())))
        more = f" (so are folds {', '.join(str(k) for k in sorted(failed)[1:])})" if len(failed) > 1 else ""
        shown = printable(str(run))
        raise NemoError(
            f"Fold {first} of {folds} is not finished{more}: {reason.rstrip('.')}. What is finished is kept; go on "
            f"with `nemo train --resume --out {shown}`."
        )


def finish(work: Work, runtime: Runtime) -> Path:
    """Write what comes last: curves.png and run.json."""
    history = read_history(work.run / "history.csv")
    draw_curves(history, work.run / "curves.png", synthetic=work.dataset.synthetic)
    write_json(work.run / "run.json", _run_json(work, history, runtime.device))
    return work.run


def _join(work: Work) -> None:
    """join_folds, and a run.json for those who evaluate before the model of all subjects is trained: marked, so that
    nobody takes the run for finished."""
    join_folds(work.run)
    if not (work.run / "run.json").is_file():
        history = read_history(work.run / "history.csv")
        write_json(work.run / "run.json", {**_run_json(work, history, "auto"), "provisional": True})


def _run_json(work: Work, history: list[EpochRecord], device: str) -> dict[str, Any]:
    settings, folds = work.settings, work.settings.folds
    if folds is not None:
        best = best_epochs(work.run, folds)
        found = choices(work.run, folds) if settings.trials else []
    else:
        best = [Trained(tuple(history)).best_epoch]
        found = [read_json(work.run / "choice.json")] if settings.trials else []
    model, config = work.model, work.config
    if (work.run / "model" / "config.json").is_file():
        card = load_card(work.run)
        model, config = card.model, card.train
    tried = [trial for line in found for trial in line["trials"] if trial["number"] != line["trial"]]
    return {
        "format": "nemo-run",
        "format_version": 1,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        # Of training alone, by all processes together.
        "seconds": round(sum(line.seconds for line in history) + sum(t["seconds"] for t in tried), 1),
        "synthetic": work.dataset.synthetic,
        "dataset": settings.dataset,
        "data": str(work.dataset.path),
        "preset": settings.preset,
        "seed": settings.seed,
        "folds": folds,
        "trials": settings.trials,
        "precision": settings.precision,
        "subset": settings.subset,
        "overrides": settings.overrides,
        "device": device,
        "best_epochs": best,
        "choices": [{"fold": k, **line["chosen"]} for k, line in enumerate(found)],
        "balance": read_json(work.run / "split.json").get("balance", []),
        "model": model.to_dict(),
        "train": config.to_dict(),
        "versions": library_versions(),
    }
