"""`nemo rewarp`: other faces from the points of a prepared file."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from nemo_pipeline.config import PrepConfig

from . import prep
from .console import escape_controls, say
from .options import setting
from .outputs import check_timeout
from .prep_inputs import describe, mean_shape
from .prep_report import exit_code, report
from .progress import RunProgress, stop_on_signals


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("paths", nargs=-1, metavar="FILE.h5 [VIDEOS...] OUT.h5", type=click.Path(path_type=str))
@setting(PrepConfig, "size", "Side of the faces, pixels.", default=None)
@setting(PrepConfig, "margin", "Space around the face, fraction of the side.", default=None)
@click.option(
    "--mean-shape",
    metavar="shipped|from-data|FILE",
    help="What faces are warped to: 68 points in a file, or the mean of the videos of FILE.h5.",
)
@setting(PrepConfig, "smooth", "How the points are smoothed over time.", default=None)
@setting(PrepConfig, "blendshapes", "Add the 52 blendshape scores, from the stored mesh.", default=None)
def command(paths: tuple[str, ...], **options: Any) -> None:
    """Warp the faces of a prepared file again, with another size, margin, mean shape or smoothing, without tracking.

    OUT.h5 is what nemo prep gives for the same videos with those settings; all others, and the labels, are those of
    FILE.h5. The pixels come from the videos: VIDEOS are the files or folders where they are, by default next to FILE.h5
    and in the current folder. Rerun the same command to resume, or when videos that were missing are back.

    Exit code: 0 when at least one video is usable, 1 when none is, 2 for wrong usage.
    """
    from nemo_pipeline.batch.rewarp import rewarp
    from nemo_pipeline.batch.run import RunOptions
    from nemo_pipeline.marks import copy_marks
    from nemo_pipeline.meanshape import MeanShape
    from nemo_pipeline.store import FaceDataset
    from nemo_pipeline.store.files import H5_ENDINGS

    if len(paths) < 2:
        raise click.UsageError(
            "give the prepared file and, last, the file to write: nemo rewarp in.h5 out.h5 --size 160"
        )
    source, *folders, output = paths
    if Path(output).suffix.lower() not in H5_ENDINGS:
        raise click.UsageError(
            f"the last argument must be the file to write, named {' or '.join(H5_ENDINGS)}, and is "
            f"{escape_controls(output)}."
        )
    changes = {
        name: options[name]
        for name in ("size", "margin", "smooth", "blendshapes")
        if options[name] is not None
    }
    if not changes and options["mean_shape"] is None:
        raise click.UsageError(
            "say what is to change: --size, --margin, --mean-shape, --smooth or --blendshapes."
        )
    check_timeout(options["video_timeout"])
    data = FaceDataset(source)
    try:
        config = dataclasses.replace(data.config, **changes)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    shape = None if config.mean_shape == "shipped" else MeanShape(data.mean_shape, data.triangles)
    if options["mean_shape"] is not None:
        config, shape = mean_shape(config, options["mean_shape"])
    run_options = RunOptions(
        workers=options["workers"],
        scheduler=options["scheduler"],
        video_timeout=options["video_timeout"] or None,
        force=options["force"],
    )
    show = RunProgress(quiet=options["quiet"])
    with stop_on_signals(show.farewell), show:
        summary = rewarp(
            data, Path(output), config, run_options, folders=folders, mean_shape=shape, on_event=show.on_event
        )
    describe(Path(output))
    marks = copy_marks(data.path, Path(output))
    if marks is not None and not options["quiet"]:
        say(f"Its marks: {marks}.")
    report(summary, options | {"labels": None, "join": False}, warn_unlabelled=False)
    sys.exit(exit_code(summary, options))


#: How it is run and what it says: the options of nemo prep.
_SHARED = ("workers", "scheduler", "video_timeout", "force", "strict", "as_json", "quiet")
command.params += [option for option in prep.command.params if option.name in _SHARED]
