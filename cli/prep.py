"""`nemo prep`: videos to aligned faces."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import DataError
from nemo_pipeline.store.text import pluralize

from .console import escape_controls, say, warn
from .options import setting, values_of
from .outputs import check_target, check_timeout
from .prep_dry_run import show_plan
from .prep_inputs import check_report, describe, draw_sheet, labels, landmark_files, mean_shape, page_report
from .prep_report import exit_code, report
from .progress import RunProgress, stop_on_signals
from .settings_file import current_context, settings_options


def like_file(path: str) -> dict[str, Any]:
    """The settings of a prepared file, for `--like`. Raises NemoError."""
    from nemo_pipeline.store import FaceDataset

    config = FaceDataset(path).config
    shipped = config.mean_shape == "shipped"
    found = {
        "size": config.size, "margin": config.margin, "engine": config.engine, "follow": config.follow,
        "segments": config.segments, "stream": config.stream, "max-gap": config.max_gap_seconds,
        "max-yaw": config.max_yaw_degrees, "smooth": config.smooth, "blendshapes": config.blendshapes,
        "mean-shape": "shipped" if shipped else path,
    }  # fmt: skip
    if config.landmarks_source == "track":
        return {**found, "no-mesh": not config.mesh}
    if current_context().params.get("landmarks") is None:
        say(f"{path} was made from OpenFace's landmarks: give those of these videos with --landmarks DIR.")
    return {**found, "min-confidence": config.min_confidence}


#: The parts of `nemo prep --help`.
_GROUPS: list[Any] = [  # dicts of rich_click's
    {
        "name": "Which videos",
        "options": [
            "--list",
            "--include",
            "--exclude",
            "--limit",
            "--dry-run",
            "--prune",
            "--stream",
            "--stills",
        ],
    },
    {"name": "Labels and landmarks from files", "options": ["--labels", "--landmarks", "--min-confidence"]},
    {
        "name": "Whom and what to track",
        "options": ["--engine", "--follow", "--segments", "--max-gap", "--max-yaw", "--smooth"],
    },
    {
        "name": "The face images",
        "options": ["--size", "--margin", "--mean-shape", "--no-mesh", "--blendshapes"],
    },
    {"name": "To look at", "options": ["--report", "--contact-sheet", "--overlay", "--no-faces"]},
    {
        "name": "How to run",
        "options": [
            "--workers",
            "--scheduler",
            "--part",
            "--join",
            "--video-timeout",
            "--force",
            "--config",
            "--like",
        ],
    },
    {"name": "Output and exit code", "options": ["--strict", "--json", "--quiet", "--debug", "--help"]},
]
click.rich_click.OPTION_GROUPS["nemo prep"] = _GROUPS


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("paths", nargs=-1, metavar="INPUT... OUT.h5", type=click.Path(path_type=str))
@click.option("--labels", type=click.Path(path_type=Path), help="Details file of the database, or CSV.")
@click.option(
    "--list", "list_file", metavar="FILE", help="Take further videos from a list file; - is standard input."
)
@click.option(
    "--include", multiple=True, metavar="PATTERN", help="Take only videos whose path or name matches."
)
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Skip videos whose path or name matches.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Take only the first N videos.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would be done, and why each file is or is not a video; write nothing.",
)
@setting(PrepConfig, "engine", "Software that runs the landmark networks.")
@setting(PrepConfig, "follow", "Whom to follow if there are several faces.")
@setting(PrepConfig, "segments", "Keep the longest segment with a face, or all segments, each as a row.")
@setting(
    PrepConfig,
    "stream",
    "Which video stream of a file that has several: where the face is largest, the one with the most pixels, the "
    "file's own default, or number N (as nemo info shows).",
    metavar="face|largest|default|N",
)
@setting(
    PrepConfig,
    "max_gap_seconds",
    "Interpolate gaps without a face up to this length.",
    metavar="SECONDS",
)
@setting(
    PrepConfig,
    "max_yaw_degrees",
    "Ignore faces turned further than this (non-frontal).",
    metavar="DEGREES",
)
@setting(PrepConfig, "size", "Width and height of the face images, pixels.")
@setting(PrepConfig, "margin", "Space around the face, as a fraction of the size.")
@click.option(
    "--mean-shape",
    default="shipped",
    show_default=True,
    metavar="shipped|from-data|FILE",
    help="What faces are warped to: 68 points in a file, or the mean of these videos (two passes; later runs on "
    "the same OUT.h5 reuse it).",
)
@click.option(
    "--landmarks",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Take landmarks from OpenFace's CSV files in DIR (clip.mp4: clip.csv) instead of tracking.",
)
@setting(PrepConfig, "min_confidence", "With --landmarks: a row below this confidence counts as no face.")
@setting(
    PrepConfig,
    "smooth",
    "How the points are smoothed over time: 4253H, twice, in the head's own frame and within the tracker's error; the "
    "same on raw coordinates, as the paper has it; or not at all.",
)
@click.option("--stills", is_flag=True,
              help="The inputs are pictures (JPEG, PNG, TIFF, WebP and others), each a row of one frame. Assumed where "
                   "there are pictures and no video.")  # fmt: skip
@click.option("--no-mesh", is_flag=True, help="Do not store the 478-point mesh (a third of the file).")
@setting(PrepConfig, "blendshapes", "Also store 52 scores of facial movements per frame (smile, blink, ...).")
@click.option(
    "--workers", type=click.IntRange(1), help="Videos at a time  [default: cores this process may use]"
)
@click.option(
    "--scheduler", metavar="ADDRESS|FILE", help="Run on a Dask cluster: tcp://host:port, or a scheduler file."
)
@click.option(
    "--part",
    metavar="K/N",
    help="Prepare the K-th of N parts of the videos, for array jobs; afterwards --join.",
)
@click.option("--join", is_flag=True, help="Combine finished parts into OUT.h5.")
@click.option(
    "--video-timeout",
    type=float,
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="Time limit per video; 0 for no limit.",
)
@click.option(
    "--overlay",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Also write an annotated copy of each video to DIR: points, region, time, faces. Drawn when all are prepared.",
)
@click.option(
    "--contact-sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="Also draw a picture with faces of every video.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Also write one page in which every video can be checked. It shows faces.",
)
@click.option("--no-faces", is_flag=True, help="With --report: without pictures of faces.")
@click.option("--force", is_flag=True, help="Prepare the inputs again, also with other settings.")
@click.option("--prune", is_flag=True, help="Drop videos of OUT.h5 that are not among the inputs.")
@click.option("--strict", is_flag=True, help="Exit with 1 when any video fails.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--quiet", is_flag=True, help="No progress, no table.")
@settings_options("prep", "OUT.h5", like_file)
def command(paths: tuple[str, ...], **options: Any) -> None:
    """Track faces in videos, smooth, warp, crop, and write them to OUT.h5.

    INPUT: files, folders (searched to any depth) or glob patterns. Rerun the same command to resume a run that was
    stopped, or after adding videos: only what is missing is done. Videos that OUT.h5 holds already stay in it, also
    when they are not among the inputs; --prune drops those.

    \b
    Examples:
      nemo prep videos/ smiles.h5 --labels labels.csv --report smiles.html
      nemo prep day2/ smiles.h5 --exclude '*test*'

    Exit code: 0 when at least one video is usable, 1 when none is, 2 for wrong usage.
    """
    if not paths:
        raise click.UsageError("give the videos and, last, the file to write: nemo prep videos/ out.h5")
    *inputs, output = paths
    _check_usage(inputs, output, options)
    try:
        values = values_of(PrepConfig, options) | {"mean_shape": "shipped"}
        if not options[
            "landmarks"
        ]:  # without landmark files it changes nothing, and must not make settings differ
            del values["min_confidence"]
        config = PrepConfig(
            **values,
            mesh=not options["no_mesh"] and not options["landmarks"],
            landmarks_source="openface" if options["landmarks"] else "track",
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if options["join"]:
        sys.exit(_join(inputs, Path(output), options))
    config, shape = mean_shape(config, options["mean_shape"])
    found = _discover(inputs, options)
    if options["stills"] and not config.stills:
        if options["landmarks"]:
            raise click.UsageError("--landmarks is about videos; these are pictures.")
        config = dataclasses.replace(config, stills=True)
    if options["dry_run"]:
        show_plan(found, Path(output), config, shape, options)
        return
    if not found.videos:
        raise DataError(
            f"there is no video in {', '.join(inputs) or 'the list'}: name files, or folders that hold some "
            "(--dry-run says why a file is left out).",
            inputs[0] if inputs else None,
        )
    sys.exit(_prepare(found, Path(output), config, shape, options))


def _check_usage(inputs: list[str], output: str, options: dict[str, Any]) -> None:
    from nemo_pipeline.store.files import H5_ENDINGS

    if Path(output).suffix.lower() not in H5_ENDINGS or output.endswith("/"):
        raise click.UsageError(
            f"the last argument must be the file to write, named {' or '.join(H5_ENDINGS)}, and is "
            f"{escape_controls(output)}: nemo prep videos/ out.h5"
        )
    if not inputs and not options["list_file"] and not options["join"]:
        raise click.UsageError(f"give the videos before the file to write: nemo prep videos/ {output}")
    for item in inputs:
        if not os.path.lexists(item) and not any(c in item for c in "*?["):
            raise click.UsageError(f"{escape_controls(item)} does not exist.")
    if options["part"] and (options["force"] or options["join"] or options["scheduler"]):
        raise click.UsageError("--part goes with neither --force, --join nor --scheduler.")
    if options["prune"] and (options["part"] or options["join"]):
        raise click.UsageError("--prune goes with neither --part nor --join.")
    check_target("--contact-sheet", options["contact_sheet"], (".png", ".jpg", ".jpeg"), "a picture")
    if options["overlay"] and (options["part"] or options["join"]):
        raise click.UsageError(
            "--overlay draws from the finished file: give it in a run without --part and --join, once the parts are "
            "joined."
        )
    for name in ("contact_sheet", "report"):
        if options["part"] and options[name]:
            raise click.UsageError(f"--{name.replace('_', '-')} needs all videos: give it with --join.")
    check_report(options["report"], options["no_faces"])
    check_timeout(options["video_timeout"])


def _discover(inputs: list[str], options: dict[str, Any]) -> Any:
    from nemo_pipeline.batch.discover import discover_any, read_list

    listed: list[str] = []
    if options["list_file"] == "-":
        listed = read_list(sys.stdin.buffer.read())
    elif options["list_file"]:
        try:
            listed = read_list(Path(options["list_file"]).read_bytes())
        except OSError as error:
            raise click.UsageError(f"{options['list_file']}: {error.strerror}.") from None
    found, pictures = discover_any(
        inputs, stills=options["stills"], listed=listed, include=options["include"], exclude=options["exclude"],
        limit=options["limit"],
    )  # fmt: skip
    if pictures and not options["stills"]:
        options["stills"] = True
        if not options["quiet"]:
            say(f"{pluralize(len(found.videos), 'picture')} and no video: each becomes a row of one frame.")
    if not options["dry_run"]:
        for item in found.skipped:
            if item.loud:
                warn(f"{item.path} is left out: {item.reason}.")
    return found


def _prepare(found: Any, output: Path, config: PrepConfig, shape: Any, options: dict[str, Any]) -> int:
    from nemo_pipeline.batch.overlay import draw_overlays, make_overlay_folder
    from nemo_pipeline.batch.parts import Part
    from nemo_pipeline.batch.run import PrepInputs, RunOptions, prep
    from nemo_pipeline.store import FaceDataset

    try:
        part = Part.parse(options["part"]) if options["part"] else None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    given, beside = labels(found, options)
    prep_inputs = PrepInputs(found.videos, landmark_files(found, options), given, beside)
    run_options = RunOptions(
        workers=options["workers"],
        scheduler=options["scheduler"],
        video_timeout=options["video_timeout"] or None,
        force=options["force"],
        prune=options["prune"],
        part=part,
    )
    if options["overlay"]:
        make_overlay_folder(options["overlay"], found.videos)
    show = RunProgress(quiet=options["quiet"])
    with stop_on_signals(show.farewell), show:
        summary = prep(
            prep_inputs,
            output,
            config,
            run_options,
            mean_shape=shape,
            on_event=show.on_event,
        )
        if options["overlay"]:
            draw_overlays(
                FaceDataset(summary.output),
                found.videos,
                options["overlay"],
                workers=options["workers"],
                timeout=options["video_timeout"] or None,
                on_event=show.on_event,
            )
    draw_sheet(summary, options)
    page_report(summary, options)
    if summary.part is None:
        describe(summary.output)
    report(summary, options, warn_unlabelled=given is not None or beside is not None)
    if summary.part is not None and not (options["strict"] and summary.n_failed):
        return 0
    return exit_code(summary, options)


def _join(inputs: list[str], output: Path, options: dict[str, Any]) -> int:
    from nemo_pipeline.batch.join import join
    from nemo_pipeline.batch.label_table import read_labels

    table = read_labels(options["labels"]) if options["labels"] else None
    summary = join([Path(item) for item in inputs], output, labels=table)
    draw_sheet(summary, options)
    page_report(summary, options)
    describe(summary.output)
    report(summary, options, warn_unlabelled=table is not None)
    if summary.missing:
        warn(summary.missing)
    return exit_code(summary, options)
