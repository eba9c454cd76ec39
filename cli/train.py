"""`nemo train`: a prepared file to a run folder, or to a study of several."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import rich_click as click
from click.core import ParameterSource

from nemo_pipeline.errors import RunError
from nemo_pipeline.store.text import escape_controls, pluralize
from siam_model.protocol.request import Runtime, TrainRequest

from .console import new_table, out, print_json, say, warn
from .options import marks_path, setting, values_of
from .predict_still import put_beside, training_baseline
from .progress import stop_on_signals
from .settings_file import assignments_given, current_context, settings_options
from .train_progress import TrainProgress

#: Combinations that every fold of the paper's protocol tries, of 336, when --trials is not given.
DEFAULT_TRIALS = 20
#: Where the data of the run that `--like` names are kept.
_LIKE_DATA = "nemo.like_data"


def _methods(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Names with commas between, or all."""
    from siam_model.methods import named_methods

    return named_methods(value)


def like_run(path: str) -> dict[str, Any]:
    """What a run was asked for, for `--like`; its data are taken where none are named. Raises NemoError."""
    from siam_model.protocol.settings import as_options, read_settings

    settings, _, _ = read_settings(Path(path))
    if settings.subset:
        raise RunError(f"{escape_controls(path)} is one variant of a study: name the study's folder.", path)
    current_context().meta[_LIKE_DATA] = Path(settings.data)
    return {name: value for name, value in as_options(settings).items() if value is not None}


@click.command()
@click.argument("data", type=click.Path(path_type=Path), metavar="DATA.h5", required=False)
@click.option("--out", "-o", "target", type=click.Path(path_type=Path), metavar="RUN",
              help="Run folder, new or empty. Default: runs/<date-time>.")  # fmt: skip
@setting(
    TrainRequest,
    "preset",
    "paper: the published network. small: the same shape, about a minute on 2 cores. dynamics: small, first taught the "
    "expression (beyond the paper). stills: for single pictures.",
)
@setting(
    TrainRequest,
    "seed",
    "Random seed for split, initialisation and order. Equal seeds give equal results.",
    type=click.IntRange(min=0),
)
@setting(
    TrainRequest, "epochs", "Maximum number of epochs, instead of the preset's.", type=click.IntRange(min=1)
)
@setting(
    TrainRequest,
    "overrides",
    "Set any setting: --set model.hidden=256 or --set train.l2=1e-3. Can be repeated.",
    type=str,
    default=(),
    show_default=False,
    multiple=True,
    metavar="FIELD=VALUE",
)
@click.option("--pretrain", type=click.Choice(["expression", "shape"]), metavar="TARGET",
              help="Beyond the paper: before ages, teach the appearance module what the warp took out, without labels. "
                   "expression: how far the expression has gone in each frame; shape: the aligned "
                   "landmarks.")  # fmt: skip
@setting(
    TrainRequest,
    "init",
    "Beyond the paper: start from the weights of another run (of stills, for instance), wherever they fit. Refused "
    "where that run was trained with somebody who would be tested.",
    type=click.Path(path_type=Path),
    metavar="RUN",
)
@setting(
    TrainRequest,
    "folds",
    "Cross-validate over K subject-disjoint folds (10 for the paper's protocol), then train on all subjects.",
    type=click.IntRange(min=2),
    metavar="K",
)
@setting(
    TrainRequest,
    "trials",
    "Combinations of h, two dropouts and lambda that each fold tries on its validation subjects, of the paper's 336; "
    f"0: no search. Default: {DEFAULT_TRIALS} with --folds and --preset paper, else 0.",
    type=click.IntRange(min=0),
    default=None,
    show_default=False,
    metavar="N",
)
@setting(
    TrainRequest,
    "methods",
    "Also train and test the methods that the paper compares, in the same folds: vlbp, vlbp_regression, lbp_top, "
    "deformation, displacement, ief_neutral, ief_fusion, lbp_neutral, lbp_fusion, cnn, ief_dynamics, lbp_dynamics.",
    type=str,
    default="",
    show_default=False,
    metavar="all|NAME,...",
    callback=_methods,
)
@click.option(
    "--still-age",
    "people",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    metavar="VIDEOS",
    help="Also compare with nemo predict --model still-age (an extra) on the recordings of DATA.h5, in VIDEOS. Can "
    "be repeated.",
)
@setting(
    TrainRequest,
    "study",
    "Train the runs of one of the paper's comparisons on shared folds: mechanisms (Table I), positions (Figure 4), "
    "modules (Figure 6) or conditions (Table IV).",
    metavar="NAME",
)
@setting(
    TrainRequest,
    "marks",
    "Marks of nemo review: what they leave out is not learnt from. Default: DATA.marks.csv next to DATA.h5, if there "
    "is one; none: no marks.",
    type=click.Path(path_type=Path),
    metavar="FILE.csv|none",
)
@click.option("--resume", "resumed", is_flag=True,
              help="Resume --out RUN, or the newest unfinished run in runs/, with its own settings.")  # fmt: skip
@setting(
    TrainRequest,
    "distinct_subjects",
    "Subject codes that are equal as numbers (1, 1.0, 001), or but for case, blanks or zeros, are different people; "
    "without this option they are refused.",
)
@setting(
    Runtime,
    "fold",
    "Train only this fold, counted from 0, into a RUN shared with other array jobs.",
    type=click.IntRange(min=0),
    metavar="I",
)
@setting(
    Runtime,
    "jobs",
    "Number of folds trained at the same time, each on a GPU of its own if there are several.",
    type=click.IntRange(min=1),
)
@setting(Runtime, "device", "auto, cpu, cuda, cuda:N or mps.")
@setting(Runtime, "devices", "Number of GPUs that train one model together.", type=click.IntRange(min=1))
@setting(TrainRequest, "precision", "bf16-mixed is faster on recent GPUs, 16-mixed on older ones.")
@setting(Runtime, "tensorboard", "Also write TensorBoard event files next to every history.csv.")
@setting(
    Runtime, "workers", "Number of processes that read data during training.", type=click.IntRange(min=0)
)
@setting(
    Runtime,
    "eager",
    "Do not use torch.compile, which a GPU otherwise does in a training of some minutes and more.",
)
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
    pretrain: str | None,
    init: Path | None,
    resumed: bool,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train SIAM on a file of `nemo prep` that has ages and subjects.

    Writes a run folder: model/ (config.json, model.safetensors), predictions.csv (unseen
    subjects), baselines/, history.csv, curves.png, split.json, run.json; with --folds also folds/.
    """
    from siam_model.protocol.overrides import split_assignments
    from siam_model.run_folder import RunFolder
    from siam_model.runs import newest_unfinished

    own = split_assignments(settings["overrides"])
    if pretrain is not None and own.setdefault("train.pretrain", pretrain) != pretrain:
        raise click.UsageError(
            "--pretrain and --set train.pretrain say different things: leave one of them out."
        )
    settings["overrides"] = {**assignments_given(context), **own}
    people: tuple[Path, ...] = settings.pop("people")
    settings["init"] = os.path.abspath(init) if init is not None else None  # noqa: PTH100 (links stay as they are)
    settings["marks"] = marks_path(settings["marks"])
    if data is None and not resumed:
        data = context.meta.get(_LIKE_DATA)
    runtime = Runtime(**values_of(Runtime, settings))
    progress = TrainProgress(quiet, runtime)
    still: dict[str, float] = {}
    if not quiet:
        _say_device(runtime.device)
    if resumed:
        from siam_model.protocol.settings import COMPARED
        from siam_model.train import resume

        target = target or newest_unfinished()
        typed = {
            "overrides" if name == "pretrain" else name
            for name in context.params
            if context.get_parameter_source(name) == ParameterSource.COMMANDLINE
        }
        given = {name: settings[name] for name in COMPARED if name in typed}
        if people:
            still = _still_ages(data or _data_of(target), people, settings, quiet)
        with stop_on_signals(progress.farewell), progress:
            run = resume(target, data, runtime, progress, given=given, marks=settings["marks"])
    elif data is None:
        raise click.UsageError("name a prepared file, DATA.h5, or resume a run: --resume.")
    else:
        from siam_model.protocol.open_run import plan, settings_for
        from siam_model.protocol.reporter import Reporter
        from siam_model.train import train

        folds = settings["folds"]
        if settings["trials"] is None:
            settings["trials"] = DEFAULT_TRIALS if folds is not None and settings["preset"] == "paper" else 0
            if settings["trials"] and not quiet:
                say(
                    f"Each of the {folds} folds tries {DEFAULT_TRIALS} of the paper's 336 combinations of parameters "
                    "(the paper does not say how it searched them); --trials changes that."
                )
        request = TrainRequest(**values_of(TrainRequest, settings))
        if people:
            plan(*settings_for(data, request), Reporter())  # what cannot be trained is said before
            still = _still_ages(data, people, settings, quiet)
        with stop_on_signals(progress.farewell), progress:
            run = train(data, target, request, runtime, progress)
    if runtime.fold is not None:
        _one_fold(run, runtime.fold, as_json)
    elif RunFolder(run).is_study:
        _study(run, as_json)
    else:
        if still:
            put_beside(run, still)
        _run(run, as_json)


def _data_of(run: Path) -> Path:
    """Where the data of a run were. Raises NemoError."""
    from siam_model.protocol.settings import read_settings

    return Path(read_settings(run)[0].data)


def _still_ages(
    data: Path, people: tuple[Path, ...], settings: dict[str, Any], quiet: bool
) -> dict[str, float]:
    """Ages by still-age of the labelled videos, before anything is trained. Raises NemoError and UsageError."""
    if settings["study"] is not None or settings["fold"] is not None:
        raise click.UsageError(
            "--still-age is a row of a whole run: leave --study and --fold out, or use nemo evaluate --still-age."
        )
    return training_baseline(data, people, quiet, settings["marks"])


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
