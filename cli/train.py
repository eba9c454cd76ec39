"""`nemo train`: a prepared file to a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from .console import print_json, say, warn


@click.command()
@click.argument("data", type=click.Path(path_type=Path), metavar="DATA.h5")
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Run folder, new or empty. Default: runs/<date-time>.",
)
@click.option(
    "--preset",
    type=click.Choice(["paper", "small"]),
    default="paper",
    show_default=True,
    help="paper: the published network. small: the same shape, about a minute on 2 cores.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the split, the start and the order. Equal seeds give equal results.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Most epochs, instead of the preset's.")
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    metavar="K",
    help="Cross-validate over K subject-disjoint folds (10 for the paper's protocol), then train on all.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Any setting, as in --set model.hidden=256 or --set train.l2=1e-3. May be given again.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Processes that read data beside the training.",
)
@click.option("--quiet", is_flag=True, help="No line per epoch.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object about the run on standard output."
)
def command(
    data: Path,
    out: Path | None,
    preset: str,
    device: str,
    seed: int,
    epochs: int | None,
    folds: int | None,
    assignments: tuple[str, ...],
    workers: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train SIAM on a file of `nemo prep` that has ages and subjects.

    Writes a run folder: model/ (config.json, model.safetensors), predictions.csv (people that the model
    never saw), history.csv, split.json, run.json.
    """
    from siam_model.evaluate import SYNTHETIC_NOTE
    from siam_model.fit import EpochRecord
    from siam_model.overrides import split_assignments
    from siam_model.predictions import read_predictions
    from siam_model.runs import read_json
    from siam_model.train import train

    def show(line: EpochRecord) -> None:
        fold = "" if folds is None else "all subjects, " if line.fold < 0 else f"fold {line.fold}, "
        validation = (
            "" if line.validation_mae != line.validation_mae else f", validation {line.validation_mae:.2f}"
        )
        better = " *" if line.best and validation else ""
        say(f"{fold}epoch {line.epoch}: training error {line.training_mae:.2f} years{validation}{better}"
            f"  ({line.seconds:.1f} s)")  # fmt: skip

    run = train(
        data, out,
        preset=preset, seed=seed, epochs=epochs, folds=folds, device=device,
        overrides=split_assignments(assignments), workers=workers,
        on_epoch=None if quiet else show, say=None if quiet else say,
    )  # fmt: skip
    error = float(read_predictions(run / "predictions.csv").error.mean())
    baseline = float(read_predictions(run / "baselines" / "median.csv").error.mean())
    meta: dict[str, Any] = read_json(run / "run.json")
    if as_json:
        print_json({"run": str(run), "mae": error, "median_baseline_mae": baseline, **meta})
    say(
        f"Mean absolute error on people that the model never saw: {error:.2f} years "
        f"(always the training median: {baseline:.2f})."
    )
    if meta["synthetic"]:
        warn(SYNTHETIC_NOTE)
    say(f"{run} is ready: nemo evaluate {run}")
