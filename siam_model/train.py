"""`train`: from out.h5 to a run folder. `resume`: continues one that was interrupted.

A run is a study of one variant: both begin a folder, open one `OpenRun` per variant, and do what each still lacks.
"""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import NemoError, RunError, SettingsError
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.files import sweep
from nemo_pipeline.store.marked import record_of_marks
from nemo_pipeline.store.text import escape_controls
from siam_model.checkpoint import library_versions, load_card
from siam_model.protocol.baselines import Features
from siam_model.protocol.crossval import (
    FoldJob,
    best_epochs,
    choices,
    final_settings,
    join_folds,
    train_folds,
)
from siam_model.protocol.fit_folder import FitSubjects, Trained, train_in
from siam_model.protocol.fold import train_split
from siam_model.protocol.history import read_history, write_history
from siam_model.protocol.jobs import run_tasks
from siam_model.protocol.open_run import OpenRun, begin, open_data_again, open_run, plan, settings_for
from siam_model.protocol.reporter import Reporter, TrainingScope
from siam_model.protocol.request import Runtime, TrainRequest
from siam_model.protocol.settings import RunSettings, check_same, read_settings
from siam_model.run_folder import RUN, RunFolder, read_json, write_json
from siam_model.runs import held
from siam_model.study import make_variants, open_variants, write_variants
from siam_model.sums import write_sums
from siam_model.training.records import EpochRecord


def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    request: TrainRequest | None = None,
    runtime: Runtime | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Train a SIAM on a file of `nemo prep`; answers the run folder (its layout: `siam_model.run_folder`).

    Without `request.folds`, a part of the subjects is held out, predicted at the end, and never seen by the model
    that is kept. With K folds, K models predict the fold that they never saw, and the model that is kept
    is trained on all subjects, for the median of the folds' best epochs. With `request.study` the folder holds one
    such run per variant, on shared folds (`siam_model.study`).

    Args:
        data: out.h5.
        out: the run folder, new or empty; `runs/<date-time>` by default.
        request: what to train.
        runtime: how this process trains.
        reporter: is told how it goes.

    Raises:
        NemoError: what is missing (ages, subjects, enough of them), or wrong in the settings; or a fold failed.
    """
    request, runtime, reporter = request or TrainRequest(), runtime or Runtime(), reporter or Reporter()
    settings, dataset = settings_for(Path(data), request)
    runtime.check(request)
    if runtime.fold is not None and out is None:
        raise SettingsError("`fold` needs `out=RUN`, the folder that the folds share.", "fold", "out")
    folder = _begin(
        Path(out) if out is not None else None, settings, dataset, reporter, shared=runtime.fold is not None
    )
    return _continue(folder, settings, dataset, runtime, reporter).path


def resume(
    folder: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    runtime: Runtime | None = None,
    reporter: Reporter | None = None,
    *,
    given: Mapping[str, Any] | None = None,
    marks: str | None = None,
) -> Path:
    """Continue a run or a study that was interrupted, with the settings that it was begun with.

    Args:
        folder: of the run.
        data: where its data are now, when they were moved.
        runtime: how this process trains.
        reporter: is told how it goes.
        given: field of `TrainRequest` -> what the caller believes it is.
        marks: where its marks are now, as in `TrainRequest`; None: as the run was asked for.

    Raises:
        NemoError: nothing is left to do, `given` contradicts the recorded settings, the data are others or gone; or
            as `train`.
    """
    folder, runtime, reporter = Path(folder), runtime or Runtime(), reporter or Reporter()
    shown = escape_controls(str(folder))
    if not folder.is_dir():
        raise RunError(f"{shown} is not a folder, so there is nothing to resume.", folder)
    settings, _, _ = read_settings(folder)
    check_same(folder, settings, given or {})
    run = RunFolder(folder)
    begun = run.split.is_file() and (settings.study is None or run.is_study)
    if begun and runtime.fold is None and run.is_finished():
        raise RunError(f"{shown} is finished, and nothing is left to do: nemo evaluate {shown}.", folder)
    runtime.check(settings)
    dataset = open_data_again(folder, settings, Path(data) if data is not None else None, marks)
    if begun:
        reporter.begun(folder)
    else:  # killed as it began
        _begin(folder, settings, dataset, reporter, shared=True)
    return _continue(run, settings, dataset, runtime, reporter).path


def _begin(
    out: Path | None, settings: RunSettings, dataset: FaceDataset, reporter: Reporter, *, shared: bool
) -> RunFolder:
    """The folder of a run or a study, with what it was asked for and its splits."""
    splits, table = plan(settings, dataset, reporter)
    variants = make_variants(settings, splits, table, dataset, reporter)
    folder, balance = begin(out, settings, dataset, splits, table, shared=shared)
    if settings.study is not None:
        write_variants(folder, settings, variants)
        write_sums(folder.path)
    reporter.begun(folder.path)
    reporter.balance(balance)
    return folder


def _continue(
    folder: RunFolder, settings: RunSettings, dataset: FaceDataset, runtime: Runtime, reporter: Reporter
) -> RunFolder:
    """Train what is missing in every variant. One that fails is reported, and the others are trained.

    Raises:
        NemoError: something failed; what is finished is kept.
    """
    if settings.study is None:
        run = open_run(folder, dataset=dataset, runtime=runtime, reporter=reporter)
        _complete(run, _in_parallel([run]).get("", {}))
        return folder
    runs = open_variants(folder, settings, dataset, runtime, reporter)
    failed_folds = _in_parallel(runs)
    failed: dict[str, str] = {}
    for run in runs:
        if runtime.fold is None and run.folder.is_finished():
            continue
        try:
            _complete(run, failed_folds.get(run.variant, {}))
        except NemoError as error:
            failed[run.variant] = str(error)
            reporter.failed(f"failed: {error}", TrainingScope(variant=run.variant))
    if failed:
        name, reason = next(iter(failed.items()))
        shown = escape_controls(str(folder))
        raise RunError(
            f"{len(failed)} of {len(runs)} variants of {shown} are not finished, first {name}: {reason.rstrip('.')}. "
            f"Resume with `resume({shown})`.",
            folder,
        )
    return folder


def _todo(run: OpenRun) -> list[int]:
    """The folds of a cross-validation that this process is to see finished."""
    missing, fold = run.folder.missing_folds(len(run.splits)), run.runtime.fold
    return missing if fold is None else [k for k in missing if k == fold]


def _in_parallel(runs: Sequence[OpenRun]) -> dict[str, dict[int, str]]:
    """Train the missing folds of all variants in other processes, where that was asked for; variant -> fold -> why it
    failed."""
    jobs = [
        FoldJob(run.folder.path, fold, str(run.dataset.path), run.variant)
        for run in runs
        if run.folded
        for fold in _todo(run)
    ]
    failed: dict[str, dict[int, str]] = {}
    if runs[0].runtime.jobs > 1 and len(jobs) > 1:
        for run in runs:
            _say_finished(run)
        for job, text in run_tasks(jobs, runs[0].runtime, runs[0].reporter).items():
            failed.setdefault(job.variant, {})[job.fold] = text
    return failed


def _say_finished(run: OpenRun) -> None:
    """How many folds need nothing more."""
    n, missing = len(run.splits), run.folder.missing_folds(len(run.splits))
    fold = run.runtime.fold
    if fold is not None and fold not in missing:
        run.reporter.say("finished already", TrainingScope(fold=fold, variant=run.variant))
    elif fold is None and 0 < len(missing) < n:
        run.reporter.say(f"{n - len(missing)} of {n} folds are finished.", TrainingScope(variant=run.variant))


def _complete(run: OpenRun, failed: dict[int, str]) -> None:
    """Do what a run still lacks: all of it, or one fold.

    Args:
        failed: folds that failed in other processes, with the reason; they are not tried again.

    Raises:
        NemoError: something failed; what is finished stays.
    """
    if not run.folded:
        where = TrainingScope(variant=run.variant)
        train_split(run, run.splits[0], run.folder, where, Features(run.dataset, run.table, run.reporter.say))
        finish(run)
        return
    if not failed:
        _say_finished(run)
        failed = train_folds(run, _todo(run))
    raise_failed(run.folder, failed, len(run.splits))
    if run.runtime.fold is None:
        train_on_all(run)
        finish(run)
    elif not run.folder.missing_folds(len(run.splits)):
        _join(run)
        run.reporter.say("All folds are finished and joined.")


def train_on_all(run: OpenRun) -> None:
    """Join the folds and train the model of all subjects, for the median of the folds' best epochs."""
    where = TrainingScope(fold=-1, variant=run.variant)
    with held(run.folder, f"the model of all subjects of {escape_controls(str(run.folder))}"):
        _join(run)
        sweep(run.folder.path)
        folder = run.folder.everyone
        if run.folder.has_model:
            shutil.rmtree(folder.path, ignore_errors=True)
            return
        model, config, chosen = final_settings(run)
        with_what = f", with {', '.join(f'{k} {v}' for k, v in chosen.items())}" if chosen else ""
        run.reporter.say(
            f"Now on all subjects, for {config.epochs} epochs (the median of the folds' best){with_what}."
        )
        everyone = FitSubjects(-1, tuple(sorted(set(run.table.subject))), ())
        folder.path.mkdir(mode=0o700, exist_ok=True)
        last = train_in(run, everyone, folder, where, model, config)
        folded = [line for line in read_history(run.folder.history) if line.fold >= 0]
        write_history(run.folder.history, [*folded, *last.history])
        if folder.tensorboard.is_dir():
            folder.tensorboard.rename(run.folder.tensorboard)
        folder.model.path.rename(run.folder.model.path)
        shutil.rmtree(folder.path)


def raise_failed(run: RunFolder, failed: Mapping[int, str], folds: int) -> None:
    """Raises NemoError with the reasons, where a fold failed."""
    if failed:
        first, reason = next(iter(sorted(failed.items())))
        more = f" (so are folds {', '.join(str(k) for k in sorted(failed)[1:])})" if len(failed) > 1 else ""
        shown = escape_controls(str(run))
        raise RunError(
            f"Fold {first} of {folds} is not finished{more}: {reason.rstrip('.')}. What is finished is kept; go on "
            f"with `resume({shown})`.",
            run,
        )


def finish(run: OpenRun) -> None:
    """Write what comes last: curves.png and run.json."""
    from siam_model.figures.curves import draw_curves  # and matplotlib with it

    history = read_history(run.folder.history)
    draw_curves(history, run.folder.curves, synthetic=run.dataset.synthetic)
    write_json(run.folder.run, _run_json(run, history, run.runtime.device))
    write_sums(run.folder.path)


def _join(run: OpenRun) -> None:
    """join_folds, and a run.json for those who evaluate before the model of all subjects is trained: marked, so that
    nobody takes the run for finished."""
    join_folds(run.folder)
    if not run.folder.run.is_file():
        history = read_history(run.folder.history)
        write_json(run.folder.run, {**_run_json(run, history, "auto"), "provisional": True})


def _run_json(run: OpenRun, history: list[EpochRecord], device: str) -> dict[str, Any]:
    settings, folds = run.settings, run.settings.folds
    if folds is not None:
        best = best_epochs(run.folder, folds)
        found = choices(run.folder, folds) if settings.trials else []
    else:
        best = [Trained(tuple(history)).best_epoch]
        found = [read_json(run.folder.choice, chosen=dict, trials=list)] if settings.trials else []
    model, config = run.model, run.config
    if run.folder.has_model:
        card = load_card(run.folder.path)
        model, config = card.model, card.train
    tried = [trial for line in found for trial in line["trials"] if trial["number"] != line["trial"]]
    values = {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        # Of training alone, by all processes together.
        "seconds": round(sum(line.seconds for line in history) + sum(t["seconds"] for t in tried), 1),
        "synthetic": run.dataset.synthetic,
        "dataset": settings.dataset,
        "data": str(run.dataset.path),
        "preset": settings.preset,
        "seed": settings.seed,
        "folds": folds,
        "trials": settings.trials,
        "precision": settings.precision,
        "subset": settings.subset,
        "overrides": settings.overrides,
        "init": settings.init,
        "left_out": record_of_marks(run.dataset),
        "device": device,
        "best_epochs": best,
        "choices": [{"fold": k, **line["chosen"]} for k, line in enumerate(found)],
        "balance": read_json(run.folder.split).get("balance", []),
        "model": model.to_dict(),
        "train": config.to_dict(),
        "versions": library_versions(),
    }
    return RUN.mark(values)
