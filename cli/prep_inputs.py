"""What `nemo prep` takes from files next to the videos (mean shape, labels, landmarks), and what it draws."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import rich_click as click

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import NemoError

from .console import escape_controls, say, warn
from .options import in_options
from .outputs import check_target

#: What --mean-shape means if it is not a file.
SHAPES = ("shipped", "from-data")


def mean_shape(config: PrepConfig, name: Any) -> tuple[PrepConfig, Any]:
    """The settings with --mean-shape `name`, and its shape (None where it was not given by file)."""
    if name in SHAPES:
        return dataclasses.replace(config, mean_shape=name, mean_shape_sha256=""), None
    from nemo_pipeline.meanshape import read_mean_shape

    path = Path(name)
    if not path.exists():
        raise click.UsageError(
            f"--mean-shape is {', '.join(SHAPES)} or a file; {escape_controls(str(path))} does not exist."
        )
    shape = read_mean_shape(path)
    return dataclasses.replace(config, mean_shape="custom", mean_shape_sha256=shape.sha256), shape


def labels(found: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """The labels that were given, and those found next to the videos."""
    from nemo_pipeline.batch.label_table import read_labels
    from nemo_pipeline.batch.labels import find_labels

    files = [video.file for video in found.videos]
    if options["labels"]:
        return read_labels(options["labels"], files), None
    folders = dict.fromkeys([*found.folders, *(video.path.parent for video in found.videos)])
    beside = find_labels(folders)
    if beside is None:
        return None, None
    try:
        table = read_labels(beside, files)
    except NemoError as error:
        warn(f"{error} It was found next to the videos and is not used.")
        return None, None
    return None, table


def landmark_files(found: Any, options: dict[str, Any]) -> Any:
    """Each video's landmark file; none where faces are tracked."""
    if not options["landmarks"]:
        return {}
    from nemo_pipeline.batch.landmark_files import find_landmarks

    return find_landmarks(options["landmarks"], found.videos)


def draw_sheet(summary: Any, options: dict[str, Any]) -> None:
    """The contact sheet, where one is wanted."""
    if not options["contact_sheet"]:
        return
    from nemo_pipeline.store import FaceDataset
    from nemo_pipeline.view.preview import contact_sheet

    pages = contact_sheet(FaceDataset(summary.output), options["contact_sheet"])
    if not options["quiet"]:
        more = f" and {len(pages) - 1} more pages" if len(pages) > 1 else ""
        say(f"Contact sheet: {pages[0]}{more}.")


def check_report(path: Path | None, no_faces: bool) -> None:
    """Refuse before anything is done what could not be written at the end."""
    if no_faces and path is None:
        raise click.UsageError("--no-faces goes with --report FILE.html.")
    check_target("--report", path, (".html", ".htm"), "a page")


def page_report(summary: Any, options: dict[str, Any]) -> None:
    """The page about the file, where one is wanted."""
    if options["report"]:
        from nemo_pipeline.store import FaceDataset

        data = FaceDataset(summary.output)
        write_page(data, options["report"], options["no_faces"], options["quiet"])


def describe(path: Path) -> None:
    """dataset_description.json next to a finished file."""
    from nemo_pipeline.cite import write_description
    from nemo_pipeline.store import FaceDataset

    try:
        write_description(FaceDataset(path, check=False))
    except OSError as error:
        warn(f"dataset_description.json cannot be written: {error.strerror or error}.")


def write_page(data: Any, path: Path, no_faces: bool, quiet: bool, marks: str | None = None) -> Path:
    """Write the page, and say what has to be known before it is shared."""
    from nemo_pipeline.store.marked import open_marked
    from nemo_pipeline.view.report import write_report

    marked = open_marked(data.path, marks)
    write_report(data, path, faces=not no_faces, wording=in_options, marked=marked)
    if not quiet:
        if marked.exclusions.file:
            say(marked.exclusions)
        shows = (
            "no faces, but file names, labels and measurements"
            if no_faces
            else (
                "faces, which are biometric data: share it only with those who may see the videos, or make one with "
                "--no-faces"
            )
        )
        say(f"Report: {path}. It shows {shows}.")
    return path
