"""`nemo predict`: the age of the person in a clip."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from nemo_pipeline.config import ALGORITHM_VERSION, PrepConfig
from nemo_pipeline.store.text import pluralize

from . import console

if TYPE_CHECKING:
    from nemo_pipeline.datatypes import VideoFile
    from nemo_pipeline.store import FaceDataset
    from siam_model import LoadedModel

    from .predict_output import Answer


def _stream(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        return PrepConfig(stream=value).stream
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@click.command()
@click.argument("clips", nargs=-1, required=True, metavar="CLIP|DIR|PREPARED.h5...")
@click.option(
    "--model",
    "-m",
    "model_path",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="A run folder of nemo train, its model/, or a file of nemo pack-model; or still-age, a network for still "
    "pictures that needs no training (an extra). Default: the newest run in ./runs.",
)
@click.option(
    "--ensemble",
    is_flag=True,
    help="Use the mean prediction of the models of the run's folds (not in the paper).",
)
@click.option(
    "--interval",
    "level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    metavar="LEVEL",
    help="Coverage of the interval reported with an age, from the run's errors on unseen subjects.",
)
@click.option(
    "--csv",
    "table",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write a table with a row per clip. Rows of other clips in the table stay.",
)
@click.option(
    "--explain",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="For each clip, draw what the model looked at: heat maps, temporal weights, and a copy of the clip "
    "with the heat map on the face.",
)
@click.option(
    "--figure",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="F.png",
    help="Draw key frames with heat maps and temporal weights in one picture (one clip).",
)
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--precision",
    type=click.Choice(["32", "bf16-mixed", "16-mixed"]),
    default="32",
    show_default=True,
    help="Numbers that the convolutions compute in. On a processor with bfloat16 instructions, bf16-mixed is faster.",
)
@click.option(
    "--stream",
    default="face",
    show_default=True,
    metavar="face|largest|default|N",
    callback=_stream,
    help="Which video stream of a clip that has several, as for nemo prep.",
)
@click.option(
    "--video-timeout",
    "timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Time limit per clip; 0 for no limit.  [default: no limit]",
)
@click.option("--strict", is_flag=True, help="Exit with 1 when any clip has no age.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@click.option("--quiet", is_flag=True, help="Print only the ages: no progress, no notes.")
def command(
    clips: tuple[str, ...],
    model_path: Path | None,
    table: Path | None,
    explain: Path | None,
    figure: Path | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Estimate the age of the person in each clip, with the preparation that the model carries.

    Folders are searched to any depth, as by nemo prep. Faces of prepared files (.h5) are taken as they are. A clip
    without a usable face gets a reason instead of an age.

    Exit code: 0 when at least one clip has an age, 1 when none has, 2 for wrong usage.
    """
    from nemo_pipeline.batch.discover import discover_any
    from nemo_pipeline.batch.drawings import open_for_drawings
    from nemo_pipeline.errors import DataError, SettingsError
    from nemo_pipeline.store import FaceDataset
    from nemo_pipeline.store.files import H5_ENDINGS
    from siam_model.devices import autocast, check_precision, resolve_device
    from siam_model.external import check_faces
    from siam_model.interval import load_interval
    from siam_model.runs import newest_run
    from siam_model.verdict import load_verdict

    from . import predict_still
    from .outputs import check_timeout
    from .predict_output import Explainer, check_outputs, heat_path, json_line, print_answer, write_csv
    from .progress import ClipProgress, stop_on_signals

    check_outputs(table, figure)
    timeout, level = options["timeout"], options["level"]
    check_timeout(timeout)
    still = predict_still.asked(model_path)
    if still:
        predict_still.refuse_options(
            {"--ensemble": options["ensemble"], "--explain": explain, "--figure": figure}
        )
    check_precision(options["precision"], resolve_device(options["device"]))
    if model_path is None:
        model_path = newest_run()
        if not quiet:
            console.say(f"Using the newest run: {model_path}")
    files = [clip for clip in clips if Path(clip).suffix.lower() in H5_ENDINGS and Path(clip).is_file()]
    prepared = [FaceDataset(Path(file)) for file in files]
    found, _ = discover_any([clip for clip in clips if clip not in files])
    total = len(found.videos) + sum(map(len, prepared))
    if figure is not None and total > 1:
        raise SettingsError(
            f"--figure draws one clip, and {total} were given: --explain DIR draws all.", "figure"
        )
    if explain is not None:
        targets = (heat_path(explain, video.id) for video in found.videos)
        open_for_drawings(explain, "--explain", found.videos, targets)
    for skipped in found.skipped:
        if skipped.loud:
            console.warn(f"{skipped.path}: {skipped.reason}")
    if not total:
        raise DataError(f"There is no video in {', '.join(clips)}.", clips[0])
    if still:
        predict_still.refuse_options({"faces of a prepared file": prepared})
        ages = predict_still.predict_stills(
            found.videos,
            stream=options["stream"],
            timeout=timeout or None,
            table=table,
            as_json=as_json,
            quiet=quiet,
        )
        failed = sum(answer.age is None for answer in ages)
        if failed == len(ages) or (options["strict"] and failed):
            raise SystemExit(1)
        return
    run = opened(model_path)
    model = _load(run, options["ensemble"], options["device"])
    for data in prepared:
        note = check_faces(model.card, data)
        if note:
            console.warn(note)
    if found.videos:
        _warn_of_other_faces(model)
    interval = load_interval(run, level)
    verdict = load_verdict(run)
    if not quiet:
        if interval.reason:
            console.say(f"{interval.reason[0].upper()}{interval.reason[1:]}.")
        if verdict is not None:
            (console.say if verdict.outcome == "better" else console.warn)(verdict)
    answers: list[Answer] = []
    said: set[str] = set()

    def farewell() -> None:
        kept = f"; those that were done are in {table}" if table is not None and answers else ""
        console.say(
            f"Stopped after {pluralize(len(answers), 'answer')} for {pluralize(total, 'clip')}{kept}."
        )

    with stop_on_signals(farewell):
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(autocast(options["precision"], model.device))
                show = stack.enter_context(ClipProgress(total, quiet))
                draw = stack.enter_context(Explainer(model, explain, figure, timeout))
                rows = stack.enter_context(
                    contextlib.closing(
                        _answers(prepared, found.videos, model, interval, options["stream"], timeout, show)
                    )
                )
                for answer in rows:
                    if not as_json:
                        show.above(functools.partial(print_answer, answer, quiet, said))
                    for line in draw(answer, show):
                        show.above(functools.partial(console.warn, line))
                    # What is kept is small: a folder may hold thousands of clips.
                    answers.append(answer.without_frames())
        except BaseException:  # stopped: what is done is not lost
            if table is not None and answers:
                write_csv(table, answers, model_path)
            raise
    if as_json:
        lines = [json_line(answer) for answer in answers]
        facts = {"level": level, "subjects": interval.subjects, "note": interval.reason}
        console.print_json({
            "model": str(model_path), "synthetic": model.synthetic, "interval": facts,
            "verdict": verdict.as_json() if verdict is not None else None, "clips": lines,
        })  # fmt: skip
    if table is not None:  # last: a disk that is full by now takes no answer from standard output
        kept = write_csv(table, answers, model_path)
        if kept and not quiet:
            console.say(f"{table} keeps its {pluralize(kept, 'row')} of other clips.")
    if not quiet:
        for written in (table, explain, figure):
            if written is not None and written.exists():
                console.say(f"wrote {written}")
    failed = sum(answer.age is None for answer in answers)
    if failed == len(answers) or (options["strict"] and failed):
        raise SystemExit(1)


def opened(path: Path) -> Path:
    """The folder of a run: a packed model is unpacked for as long as the command runs."""
    from siam_model.package import is_package, unpacked

    from .settings_file import current_context

    return current_context().with_resource(unpacked(path)) if is_package(path) else path


def _load(path: Path, ensemble: bool, device: str) -> LoadedModel:
    """The run's model, or the mean over those of its folds."""
    from siam_model.loading import load

    if not ensemble:
        return load(path, device)
    from siam_model.devices import resolve_device
    from siam_model.ensemble import load_ensemble

    return load_ensemble(path, resolve_device(device))


def _warn_of_other_faces(model: LoadedModel) -> None:
    """That clips are prepared otherwise here than the model's videos were."""
    if model.prep_config.get("landmarks_source") == "openface":
        console.warn(
            "The model was trained on OpenFace's landmarks, and these clips are tracked by nemo itself; what that does "
            "to an age was not measured."
        )
    if model.prep_config.get("algorithm", 1) != ALGORITHM_VERSION:
        console.warn(
            "The model was trained on faces of another version of the preparation than the one that these clips get; "
            "what that does to an age was not measured. Prepare its videos again and train again where it matters."
        )


def _answers(
    prepared: Sequence[FaceDataset],
    videos: tuple[VideoFile, ...],
    model: LoadedModel,
    interval: Any,
    stream: str,
    timeout: float | None,
    show: Any,
) -> Generator[Answer, None, None]:
    """An `Answer` for every row of the prepared files, then of every clip, in their order."""
    from .faces import clip_faces, prepared_faces
    from .predict_output import answer_for

    for data in prepared:
        for row in prepared_faces(data):
            answer = answer_for(row, model, interval)
            show.finished((data.path, row.id), answer.age is None)
            yield answer
    rows = clip_faces(videos, model, stream=stream, timeout=timeout or None, on_frames=show.frames)
    with contextlib.closing(rows):  # so that a stopped command leaves no faces behind
        for row in rows:
            answer = answer_for(row, model, interval)
            show.finished(row.path, answer.age is None)
            yield answer
