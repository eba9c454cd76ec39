"""`nemo predict`: the age of the person in a clip."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from . import console

if TYPE_CHECKING:
    from siam_model import LoadedModel, Prediction

    from .faces import ClipFaces

#: Stands beside every age of a model that was trained on generated faces.
MEANINGLESS = "means nothing for people: the model was trained on synthetic faces"


@click.command()
@click.argument("clips", nargs=-1, required=True, metavar="CLIP...")
@click.option(
    "--model",
    "-m",
    "model_path",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="A run folder of nemo train, or its model/. Default: the newest run in ./runs.",
)
@click.option(
    "--figure",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="F.png",
    help="Draw key frames, their temporal weights and heat maps of the spatial attention (one clip).",
)
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--video-timeout",
    "timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Give a clip up after this long. Default: no limit.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def command(
    clips: tuple[str, ...],
    model_path: Path | None,
    figure: Path | None,
    device: str,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Estimate the age of the person in each clip, with the preparation that the model carries.

    A clip without a usable face gets a reason instead of an age; the exit code is 1 when no clip has an age.
    """
    from nemo_pipeline.batch.discover import discover
    from nemo_pipeline.errors import NemoError
    from siam_model.predict import load
    from siam_model.runs import newest_run

    from .faces import clip_faces

    if model_path is None:
        model_path = newest_run()
        console.say(f"Using the newest run: {model_path}")
    found = discover(clips)
    for skipped in found.skipped:
        if skipped.loud:
            console.warn(f"{skipped.path}: {skipped.reason}")
    if not found.videos:
        raise NemoError(f"There is no video in {', '.join(clips)}.")
    if figure is not None and len(found.videos) > 1:
        raise NemoError(f"--figure draws one clip, and {len(found.videos)} were given.")
    model = load(model_path, device)

    lines: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        status = None
        if console.err.is_terminal:
            status = stack.enter_context(console.err.status("starting the decoder"))

        def show(clip: Any, n: int) -> None:
            if status is not None:
                status.update(console.shown(f"{clip.file}: {n} frames"))

        for row in clip_faces(found.videos, model, timeout=timeout, on_frames=show):
            prediction = model.predict(row.frames) if len(row.frames) else None
            if not as_json:
                _print(row, prediction, model)
            if figure is not None and prediction is not None:
                drawn = _figure_path(figure, sum(line["age"] is not None for line in lines))
                _draw(drawn, row, prediction, model)
                console.say(f"wrote {drawn}")
            lines.append(_json_line(row, prediction, model))
    if as_json:
        console.print_json({"model": str(model_path), "synthetic": model.synthetic, "clips": lines})
    if all(line["age"] is None for line in lines):
        raise SystemExit(1)


def _note(prediction: Prediction, model: LoadedModel) -> str:
    """What has to be known beside an age; empty where nothing has to be."""
    low, high = model.age_range
    notes = [MEANINGLESS] if model.synthetic else []
    if not low <= prediction.age <= high:
        notes.append(f"outside the ages that the model was trained on, {low:.0f} to {high:.0f}")
    return "; ".join(notes)


def _print(row: ClipFaces, prediction: Prediction | None, model: LoadedModel) -> None:
    """One line for people, on standard output."""
    if prediction is None:
        console.out.print(console.shown(f"{row.file}: no age ({row.status}). {row.message}"), soft_wrap=True)
        return
    note = _note(prediction, model)
    age = f"{prediction.age:.1f} years" + (f" ({note})" if note else "")
    filled = f", {row.n_interpolated} of them interpolated" if row.n_interpolated else ""
    used = f"from {len(row.frames)} of {row.n_decoded} frames{filled}"
    console.out.print(console.shown(f"{row.file}: {age}, {used}"), soft_wrap=True)


def _json_line(row: ClipFaces, prediction: Prediction | None, model: LoadedModel) -> dict[str, Any]:
    line: dict[str, Any] = {
        "file": row.file,
        "age": None if prediction is None else prediction.age,
        "note": "" if prediction is None else _note(prediction, model),
        "status": row.status,
        "message": row.message,
        "n_decoded": row.n_decoded,
        "frames_used": len(row.frames),
        "n_interpolated": row.n_interpolated,
    }
    if prediction is not None:
        line["frame_index"] = row.frame_index
        line["timestamps"] = row.timestamps
        line["temporal_weights"] = prediction.temporal_weights
    return line


def _draw(path: Path, row: ClipFaces, prediction: Prediction, model: LoadedModel) -> None:
    from siam_model.figures import attention_figure, save_figure

    title = f"{row.file}: {prediction.age:.1f} years"
    note = _note(prediction, model)
    warning = f"{note[0].upper()}{note[1:]}." if note else ""
    save_figure(attention_figure(row.frames, prediction, model.config, title, warning), path)


def _figure_path(path: Path, number: int) -> Path:
    """F.png for the first row of a clip, F-2.png and so on for further ones."""
    return path if not number else path.with_name(f"{path.stem}-{number + 1}{path.suffix}")
