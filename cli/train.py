"""`nemo train`: a prepared file to a run folder, or to a study of several."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import rich_click as click
from click.core import ParameterSource

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store.text import escape_controls, pluralize

from .console import new_table, out, print_json, say, warn
from .progress import stop_on_signals
from .settings_file import assignments_given, current_context, settings_options
from .train_progress import TrainProgress

#: Combinations that every fold of the paper's protocol tries, of 336, when --trials is not given.
DEFAULT_TRIALS = 20
#: Where the data of the run that `--like` names are kept.
_LIKE_DATA = "nemo.like_data"
#: Parameters of the command that are settings of a run, and their names there.
_SETTINGS = {"preset": "preset", "seed": "seed", "epochs": "epochs", "folds": "folds", "trials": "trials",
             "study": "study", "methods": "methods", "precision": "precision", "assignments": "overrides",
             "pretrain": "overrides", "init": "init"}  # fmt: skip


def _methods(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Names with commas between, or all."""
    from siam_model.methods import named_methods

    return named_methods(value)


def like_run(path: str) -> dict[str, Any]:
    """What a run was asked for, for `--like`; its data are taken where none are named. Raises NemoError."""
    from siam_model.protocol.settings import as_options, read_settings

    settings, _, _ = read_settings(Path(path))
    if settings.subset:
        raise NemoError(f"{escape_controls(path)} is one variant of a study: name the study's folder.")
    current_context().meta[_LIKE_DATA] = Path(settings.data)
    return {name: value for name, value in as_options(settings).items() if value is not None}


@click.command()
@click.argument("data", type=click.Path(path_type=Path), metavar="DATA.h5", required=False)
@click.option("--out", "-o", "target", type=click.Path(path_type=Path), metavar="RUN",
              help="Run folder, new or empty. Default: runs/<date-time>.")  # fmt: skip
@click.option("--preset", type=click.Choice(["paper", "small"]), default="paper", show_default=True,
              help="paper: the published network. small: the same shape, about a minute on 2 cores.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Random seed for split, initialisation and order. Equal seeds give equal results.")  # fmt: skip
@click.option(
    "--epochs", type=click.IntRange(min=1), help="Maximum number of epochs, instead of the preset's."
)
@click.option("--set", "assignments", multiple=True, metavar="FIELD=VALUE",
              help="Set any setting: --set model.hidden=256 or --set train.l2=1e-3. Can be repeated.")  # fmt: skip
@click.option("--pretrain", type=click.Choice(["expression", "shape"]), metavar="TARGET",
              help="Beyond the paper: before ages, teach the appearance module what the warp took out, without labels. "
                   "expression: how far the expression has gone in each frame; shape: the aligned "
                   "landmarks.")  # fmt: skip
@click.option("--init", type=click.Path(path_type=Path), metavar="RUN",
              help="Beyond the paper: start from the weights of another run (of stills, for instance), wherever they "
                   "fit. Refused where that run was trained with somebody who would be tested.")  # fmt: skip
@click.option("--folds", type=click.IntRange(min=2), metavar="K",
              help="Cross-validate over K subject-disjoint folds (10 for the paper's protocol), then train on "
                   "all subjects.")  # fmt: skip
@click.option("--trials", type=click.IntRange(min=0), metavar="N",
              help="Combinations of h, two dropouts and lambda that each fold tries on its validation subjects, of the "
                   f"paper's 336; 0: no search. Default: {DEFAULT_TRIALS} with --folds and --preset paper, else "
                   "0.")  # fmt: skip
@click.option("--methods", metavar="all|NAME,...", default="", callback=_methods,
              help="Also train and test the methods that the paper compares, in the same folds: vlbp, vlbp_regression, "
                   "lbp_top, deformation, displacement, ief_neutral, ief_fusion, lbp_neutral, lbp_fusion, cnn, "
                   "ief_dynamics, lbp_dynamics.")  # fmt: skip
@click.option("--study", type=click.Choice(["mechanisms", "positions", "modules", "conditions"]), metavar="NAME",
              help="Train the runs of one of the paper's comparisons on shared folds: mechanisms (Table I), positions "
                   "(Figure 4), modules (Figure 6) or conditions (Table IV).")  # fmt: skip
@click.option("--resume", "resumed", is_flag=True,
              help="Resume --out RUN, or the newest unfinished run in runs/, with its own settings.")  # fmt: skip
@click.option("--distinct-subjects", is_flag=True,
              help="Subject codes that are equal as numbers (1, 1.0, 001), or but for case, blanks or zeros, are "
                   "different people; without this option they are refused.")  # fmt: skip
@click.option("--fold", type=click.IntRange(min=0), metavar="I",
              help="Train only this fold, counted from 0, into a RUN shared with other array jobs.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True,
              help="Number of folds trained at the same time, each on a GPU of its own if there are "
                   "several.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--devices", type=click.IntRange(min=1), default=1, show_default=True,
              help="Number of GPUs that train one model together.")  # fmt: skip
@click.option("--precision", type=click.Choice(["32", "bf16-mixed", "16-mixed"]), default="32", show_default=True,
              help="bf16-mixed is faster on recent GPUs, 16-mixed on older ones.")  # fmt: skip
@click.option(
    "--tensorboard", is_flag=True, help="Also write TensorBoard event files next to every history.csv."
)
@click.option("--workers", type=click.IntRange(min=0), default=0, show_default=True,
              help="Number of processes that read data during training.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="Do not print a line per epoch.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object about the run on standard output."
)
@settings_options("train", "RUN", like_run)
@click.pass_context
def command(
    context: click.Context,
    data: Path | None,
    target: Path | None,
    preset: str,
    seed: int,
    epochs: int | None,
    assignments: tuple[str, ...],
    pretrain: str | None,
    init: Path | None,
    folds: int | None,
    trials: int | None,
    methods: tuple[str, ...],
    study: Any,
    resumed: bool,
    distinct_subjects: bool,
    fold: int | None,
    jobs: int,
    device: str,
    devices: int,
    precision: str,
    tensorboard: bool,
    workers: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train SIAM on a file of `nemo prep` that has ages and subjects.

    Writes a run folder: model/ (config.json, model.safetensors), predictions.csv (unseen
    subjects), baselines/, history.csv, curves.png, split.json, run.json; with --folds also folds/.
    """
    from siam_model.protocol.overrides import split_assignments
    from siam_model.protocol.request import Runtime, TrainRequest
    from siam_model.run_folder import RunFolder
    from siam_model.runs import newest_unfinished

    own = split_assignments(assignments)
    if pretrain is not None and own.setdefault("train.pretrain", pretrain) != pretrain:
        raise click.UsageError(
            "--pretrain and --set train.pretrain say different things: leave one of them out."
        )
    overrides = {**assignments_given(context), **own}
    if data is None and not resumed:
        data = context.meta.get(_LIKE_DATA)
    start = os.path.abspath(init) if init is not None else None  # noqa: PTH100 (links stay as they are)
    runtime = Runtime(device, devices, workers, tensorboard, jobs, fold)
    progress = TrainProgress(quiet, runtime)
    if not quiet:
        _say_device(device)
    if resumed:
        from siam_model.train import resume

        target = target or newest_unfinished()
        values = {**context.params, "assignments": overrides, "pretrain": overrides, "init": start}
        given = {
            setting: values[name]
            for name, setting in _SETTINGS.items()
            if context.get_parameter_source(name) == ParameterSource.COMMANDLINE
        }
        with stop_on_signals(progress.farewell), progress:
            run = resume(target, data, runtime, progress, given=given)
    elif data is None:
        raise click.UsageError("name a prepared file, DATA.h5, or resume a run: --resume.")
    else:
        from siam_model.train import train

        if trials is None:
            trials = DEFAULT_TRIALS if folds is not None and preset == "paper" else 0
            if trials and not quiet:
                say(
                    f"Each of the {folds} folds tries {trials} of the paper's 336 combinations of parameters (the "
                    "paper does not say how it searched them); --trials changes that."
                )
        request = TrainRequest(
            preset=preset, seed=seed, epochs=epochs, folds=folds, trials=trials, overrides=overrides,
            precision=precision, study=study, methods=methods, distinct_subjects=distinct_subjects, init=start,
        )  # fmt: skip
        with stop_on_signals(progress.farewell), progress:
            run = train(data, target, request, runtime, progress)
    if fold is not None:
        _one_fold(run, fold, as_json)
    elif RunFolder(run).is_study:
        _study(run, as_json)
    else:
        _run(run, as_json)


def _say_device(device: str) -> None:
    """That there is no GPU, before anything takes long because of it."""
    from nemo_pipeline.platform import allowed_cores
    from siam_model.devices import resolve_device

    if device == "auto" and resolve_device(device).type == "cpu":
        cores = pluralize(len(allowed_cores()), "core")
        say(
            f"No GPU found: training on the CPU ({cores}). After the first step, the time it will take is said."
        )


def _run(run: Path, as_json: bool) -> None:
    """What a run is worth, on standard error; as JSON on standard output."""
    from siam_model.config import beyond_paper
    from siam_model.evaluate import SYNTHETIC_NOTE
    from siam_model.run_folder import RunFolder, read_json
    from siam_model.verdict import load_verdict

    errors, meta, verdict = run_errors(run), read_json(RunFolder(run).run), load_verdict(run)
    if as_json:
        print_json({
            "run": str(run), "mae": errors["SIAM"], "median_baseline_mae": errors["training median"],
            "verdict": verdict.as_json() if verdict is not None else None,
            "baselines": {name: mae for name, mae in errors.items() if name != "SIAM"}, **meta,
        })  # fmt: skip
    shown = "; ".join(f"{name}: {mae:.2f}" for name, mae in errors.items())
    say(f"Mean absolute error in years on unseen subjects: {shown}.")
    if verdict is not None:
        (say if verdict.outcome == "better" else warn)(verdict)
    if meta["synthetic"]:
        warn(SYNTHETIC_NOTE)
    beyond = beyond_paper(meta["model"], meta["train"])
    beyond += [f"--init {meta['init']}"] if meta.get("init") else []
    if beyond:
        say(f"Beyond the paper: {', '.join(beyond)}.")
    say(f"{run} is finished: nemo evaluate {run}")


def _one_fold(run: Path, fold: int, as_json: bool) -> None:
    """What one fold gave, and what is missing."""
    from siam_model.run_folder import RunFolder, read_json
    from siam_model.study import variants_in

    folder = RunFolder(run)
    runs = [folder.variant(v.name) for v in variants_in(folder)] if folder.is_study else [folder]
    errors = {one.path.name: run_errors(one.fold(fold).path) for one in runs}
    count = len(read_json(folder.split)["folds"])
    missing = sorted({k for one in runs for k in one.missing_folds(count)})
    if as_json:
        first = errors if len(runs) > 1 else errors[run.name]
        print_json({"run": str(run), "fold": fold, "mae": first, "missing_folds": missing})
    for name, line in errors.items():
        shown = "; ".join(f"{method}: {mae:.2f}" for method, mae in line.items())
        say(f"{name + ', ' if len(runs) > 1 else ''}fold {fold}: mean absolute error in years: {shown}")
    if missing:
        say(f"Missing: fold{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}")
    else:
        say(
            f"All folds are there: nemo evaluate {run}; the model of all subjects: nemo train --resume --out {run}"
        )


def _study(folder: Path, as_json: bool) -> None:
    """Every variant's error, a table."""
    from siam_model.evaluate import SYNTHETIC_NOTE
    from siam_model.run_folder import RunFolder, read_json
    from siam_model.study import variants_in
    from siam_model.verdict import load_verdict

    study = RunFolder(folder)
    meta = read_json(study.study)
    lines = [(variant, run_errors(study.variant(variant.name).path)) for variant in variants_in(study)]
    verdicts = {variant.label: load_verdict(study.variant(variant.name).path) for variant, _ in lines}
    if as_json:
        variants = [{"name": v.name, "label": v.label, "mae": errors} for v, errors in lines]
        print_json(
            {"run": str(folder), "study": meta["study"], "synthetic": meta["synthetic"], "variants": variants}
        )
    else:
        methods = list(lines[0][1])
        rows = [[v.label, *(f"{errors[m]:.2f}" for m in methods)] for v, errors in lines]
        title = f"Study of {meta['study']}: mean absolute error, years"
        out.print(new_table(title, ["variant", *methods], rows, right=",".join(methods)))
    if meta["synthetic"]:
        warn(SYNTHETIC_NOTE)
    for label, verdict in verdicts.items():
        if verdict is not None and verdict.outcome != "better":
            warn(f"{label}: {verdict}")
    say(f"{folder} is finished: nemo evaluate {folder}")


def run_errors(folder: Path) -> dict[str, float]:
    """Method -> mean absolute error, years, of a run or of one of its folds: SIAM first, then the baselines."""
    from siam_model.predictions import read_predictions
    from siam_model.protocol.baselines import LABELS
    from siam_model.run_folder import RunFolder

    run = RunFolder(folder)
    found = {"SIAM": float(read_predictions(run.predictions).error.mean())}
    for name, label in LABELS.items():
        if run.baseline(name).is_file():
            found[label] = float(read_predictions(run.baseline(name)).error.mean())
    return found
