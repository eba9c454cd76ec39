"""`nemo demo`: the complete pipeline once, on synthetic clips."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from . import console
from .synth import clips_progress, parse_size

if TYPE_CHECKING:
    from nemo_pipeline.datatypes import VideoFile
    from nemo_pipeline.synth import SynthSet
    from siam_model.evaluate import Evaluation
    from siam_model.predictions import Predictions

#: Said above the table and in everything that the demo writes about ages.
SYNTHETIC = "Synthetic faces: these ages say nothing about people."


@dataclasses.dataclass(frozen=True, slots=True)
class DemoPrediction:
    """One line of the final table: a clip of somebody whom the model never saw."""

    subject: str
    clip: Path
    age: float
    predicted: float
    median: float


@click.command()
@click.option("--dir", "directory", type=click.Path(path_type=Path), default=Path("nemo-demo"),
              show_default=True, help="Where everything goes; new, empty, or of an earlier demo.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Random seed for the faces and the training.")  # fmt: skip
@click.option("--subjects", type=click.IntRange(min=8), default=32, show_default=True,
              help="Number of synthetic subjects; a quarter of them is held out.")  # fmt: skip
@click.option("--clips", type=click.IntRange(min=1), default=2, show_default=True, help="Clips per subject.")
@click.option("--size", default="320x320", show_default=True, metavar="WxH", callback=parse_size,
              help="Pixels of a frame.")  # fmt: skip
@click.option(
    "--epochs", type=click.IntRange(min=1), help="Maximum number of epochs, instead of the preset's."
)
@click.option("--show", multiple=True, metavar="SUBJECT",
              help="Show this subject instead of all held-out ones. Can be repeated.")  # fmt: skip
@click.option("--figure", type=click.Path(path_type=Path, dir_okay=False), metavar="F.png",
              help="Key frames of one clip with weights and heat maps. Default: DIR/figure.png.")  # fmt: skip
@click.option("--keep/--no-keep", default=True, show_default=True,
              help="Keep the clips and the prepared faces; the run and the figures always stay.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), help="Processes. Default: the cores that may be used.")
@click.option("--people", type=click.Path(path_type=Path, exists=True), metavar="CLIP|DIR",
              help="Also estimate the ages in these clips of real people, with nemo predict --model still-age "
              "(an extra, for still pictures).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def command(
    directory: Path,
    show: tuple[str, ...],
    figure: Path | None,
    keep: bool,
    people: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Render synthetic smiles, prepare them, train a small SIAM, evaluate it, and predict the ages of
    unseen subjects.

    Needs no data, no network and no GPU; takes under 5 minutes on 2 cores.
    """
    begun = time.monotonic()
    seed, workers, (width, height) = options["seed"], options["workers"], options["size"]
    set_dir, faces = directory / "clips", directory / "faces.h5"
    found = None if people is None else _clips_of_people(people)
    _claim(directory)
    with _stage("1/5  Rendering synthetic smile clips"):
        from nemo_pipeline.synth import render_set

        with clips_progress() as progress:
            made = render_set(
                set_dir, options["subjects"], options["clips"], seed,
                workers=workers, progress=progress, width=width, height=height,
            )  # fmt: skip
    with _stage("2/5  Tracking, smoothing and warping the faces (nemo prep)"):
        prepare(made, faces, workers)
    with _stage("3/5  Training a small SIAM (nemo train --preset small)"):
        run = learn(faces, directory, seed, options["epochs"])
    with _stage("4/5  Evaluating it on the held-out subjects (nemo evaluate)"):
        from siam_model.evaluate import evaluate
        from siam_model.run_folder import RunFolder

        result = evaluate(run)
    with _stage("5/5  Predicting the ages of unseen subjects (nemo predict)"):
        figure = figure or directory / "figure.png"
        shown = predict_unseen(made, run, result, show, figure)
    _show_table(shown, result, as_json)
    written = {
        "run": run,
        "figure": figure,
        **{file.stem: file for file in result.files},
        "predictions": RunFolder(run).predictions,
    }
    if keep:
        written = {"clips": set_dir, "labels": made.labels, "truth": made.truth, "faces": faces, **written}
    else:
        shutil.rmtree(set_dir)
        shutil.rmtree(faces.with_suffix(".shards"), ignore_errors=True)
        faces.unlink()
    if found is not None:
        from .predict_still import predict_stills

        with _stage(f"Ages in {people}, as still pictures (nemo predict --model still-age)"):
            predict_stills(found, table=directory / "people.csv", quiet=as_json)
        written["people"] = directory / "people.csv"
    seconds = time.monotonic() - begun
    if as_json:
        console.print_json(
            {
                "synthetic": True,
                "note": SYNTHETIC,
                "seconds": seconds,
                "mae": _mae(result, 0),
                "median_baseline_mae": _mae(result, 1),
                "shown": [dataclasses.asdict(line) for line in shown],
                "written": written,
            }
        )
    console.err.print(console.panel(f"Done in {seconds:.0f} s; all of it is here", written.items()))


@contextlib.contextmanager
def _stage(title: str) -> Iterator[None]:
    """A heading, and how long it took."""
    begun = time.monotonic()
    console.say(title, "bold")
    yield
    console.say(f"     {time.monotonic() - begun:.0f} s")


def _clips_of_people(people: Path) -> tuple[VideoFile, ...]:
    """The clips that the user named. Raises NemoError if there are none, or still-age is not installed."""
    from nemo_pipeline.batch.discover import discover
    from nemo_pipeline.errors import DataError
    from nemo_pipeline.stages.still_age import check_installed

    check_installed()
    found = discover([str(people)]).videos
    if not found:
        raise DataError(f"There is no video in {people}.", people)
    return found


def _claim(directory: Path) -> None:
    """Make the folder, or take one that an earlier demo made.

    Raises:
        NemoError: it holds something else.
    """
    from nemo_pipeline.errors import OutputError

    mark = directory / "demo.json"
    try:
        if directory.exists() and not directory.is_dir():
            raise OutputError(f"{directory} is a file; name a folder for the demo with --dir.", directory)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not mark.exists():
            if any(directory.iterdir()):
                raise OutputError(
                    f"{directory} is not empty and is not of an earlier demo; name another folder with --dir.",
                    directory,
                )
            mark.write_text(json.dumps({"format": "nemo-demo", "note": SYNTHETIC}) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{directory} cannot be used: {error.strerror or error}.", directory) from error


def prepare(made: SynthSet, output: Path, workers: int | None) -> None:
    """`nemo prep clips/ faces.h5 --labels clips/labels.csv`.

    Raises:
        NemoError: some clips could not be prepared, which on synthetic ones means that something is broken.
    """
    from nemo_pipeline.batch.discover import discover
    from nemo_pipeline.batch.label_table import read_labels
    from nemo_pipeline.batch.run import PrepInputs, RunOptions, prep
    from nemo_pipeline.config import PrepConfig
    from nemo_pipeline.errors import InstallationError

    from .progress import RunProgress, stop_on_signals

    progress = RunProgress(quiet=not console.err.is_terminal)
    with stop_on_signals(progress.farewell), progress:
        summary = prep(
            PrepInputs(discover([made.directory]).videos, labels=read_labels(made.labels)), output, PrepConfig(),
            RunOptions(workers=workers), on_event=progress.on_event,
        )  # fmt: skip
    failed = [row for row in summary.videos if not row["length"]]
    if failed:
        first = failed[0]
        raise InstallationError(
            f"{len(failed)} of {len(summary.videos)} synthetic clips could not be prepared, first "
            f"{first['file']} ({first['status']}: {first['message']}); `nemo doctor` says what this machine lacks.",
            "nemo-faces",
        )


def learn(faces: Path, directory: Path, seed: int, epochs: int | None) -> Path:
    """`nemo train faces.h5 --preset small`; answers the run folder."""
    from siam_model.protocol.request import Runtime, TrainRequest
    from siam_model.train import train

    from .progress import stop_on_signals
    from .train_progress import TrainProgress

    number = 1
    while (run := directory / ("run" if number == 1 else f"run-{number}")).exists():
        number += 1

    request, runtime = TrainRequest(preset="small", seed=seed, epochs=epochs), Runtime("cpu")
    progress = TrainProgress(not console.err.is_terminal, runtime)
    with stop_on_signals(progress.farewell), progress:
        return train(faces, run, request, runtime, progress)


def unseen_subjects(split: dict[str, Any], wanted: Sequence[str] = ()) -> list[str]:
    """Subjects of split.json that the model was neither trained nor validated on.

    Args:
        split: split.json.
        wanted: only these.

    Raises:
        NemoError: one of `wanted` was trained on, or does not exist; or nobody is left.
    """
    from nemo_pipeline.errors import SettingsError

    seen = {*split["training"], *split["validation"]}
    for subject in wanted:
        if subject in seen:
            raise SettingsError(
                f"Subject {subject} was used in training, and what the model says of a face that it was trained on "
                f"shows nothing; choose among {', '.join(sorted(split['test']))}.",
                "subject",
            )
        if subject not in split["test"]:
            raise SettingsError(
                f"There is no subject {subject}; choose among {', '.join(sorted(split['test']))}.", "subject"
            )
    chosen = [
        subject for subject in split["test"] if subject not in seen and (not wanted or subject in wanted)
    ]
    if not chosen:
        raise SettingsError("Every subject was used in training: there is nobody to show.", "subject")
    return sorted(chosen)


def predict_unseen(
    made: SynthSet, run: Path, result: Evaluation, wanted: Sequence[str], figure: Path
) -> list[DemoPrediction]:
    """`nemo predict` on the first clip of each held-out subject; draws the figure of the clip with the median error."""
    import csv

    import numpy as np

    from nemo_pipeline.batch.discover import discover
    from nemo_pipeline.errors import DataError
    from siam_model.figures.clip import clip_figure
    from siam_model.figures.plain import save_figure
    from siam_model.loading import load
    from siam_model.predict import shown_age
    from siam_model.run_folder import RunFolder, read_json

    from .faces import clip_faces

    subjects = unseen_subjects(read_json(RunFolder(run).split), wanted)
    with made.labels.open(newline="", encoding="utf-8") as file:
        labels = {row["video"]: row for row in csv.DictReader(file)}
    first: dict[str, Path] = {}
    for clip in made.clips:
        first.setdefault(labels[clip.name]["subject"], clip)
    model = load(run)
    _, baseline = _methods(result)
    median = float(baseline.predicted[0])
    shown, prepared = [], []
    clips = [first[subject] for subject in subjects]
    for row in clip_faces(discover([str(clip) for clip in clips]).videos, model):
        if not len(row.frames):
            raise DataError(f"{row.file}: no age ({row.status}). {row.message}", row.file)
        label = labels[Path(row.file).name]
        prediction = model.predict(row.frames)
        clip = made.directory / label["video"]
        shown.append(DemoPrediction(label["subject"], clip, float(label["age"]), prediction.age, median))
        prepared.append((row, prediction))
    errors = [abs(line.predicted - line.age) for line in shown]
    middle = int(np.argsort(errors)[len(errors) // 2])
    line, (row, prediction) = shown[middle], prepared[middle]
    title = f"{row.file}: {shown_age(prediction.age):.0f} years predicted, {line.age:.0f} true"
    figure.parent.mkdir(parents=True, exist_ok=True)
    drawn = clip_figure(row.frames, prediction, model.config, row.timestamps, title, SYNTHETIC)
    save_figure(drawn, figure)
    return sorted(shown, key=lambda line: line.age)


def _methods(result: Evaluation) -> tuple[Predictions, Predictions]:
    """The model's held-out predictions, and the training median's."""
    model, baseline, *_ = result.methods.values()
    return model, baseline


def _mae(result: Evaluation, method: int) -> float:
    return float(_methods(result)[method].error.mean())


def _show_table(shown: list[DemoPrediction], result: Evaluation, as_json: bool) -> None:
    """True and predicted ages, and the training median."""
    from siam_model.predict import shown_age

    rows = [
        (
            line.subject, f"{line.age:.0f}", f"{shown_age(line.predicted):.1f}", f"{line.predicted - line.age:+.1f}",
            f"{line.median:.0f}", f"{line.median - line.age:+.0f}",
        )
        for line in shown
    ]  # fmt: skip
    count = len(shown)
    own = sum(abs(line.predicted - line.age) for line in shown) / count
    base = sum(abs(line.median - line.age) for line in shown) / count
    rows.append(("mean abs. error", "", "", f"{own:.1f}", "", f"{base:.1f}"))
    columns = ["subject", "true age", "predicted", "error", "median", "its error"]
    target = console.err if as_json else console.out
    target.print(console.styled(f"{count} unseen subjects, one clip each. {SYNTHETIC}"))
    target.print(console.new_table("", columns, rows, right=",".join(columns[1:])))
    console.say(result.verdict)
