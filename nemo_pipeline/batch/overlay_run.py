"""Annotated copies of videos that an earlier run prepared: they are prepared once more, and only looked at."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from nemo_pipeline.batch.cluster import ClusterRun, Event, RunOptions
from nemo_pipeline.batch.discover import holds_recordings, make_folder_for_drawings
from nemo_pipeline.batch.output import OutputFolder
from nemo_pipeline.batch.plan import Plan
from nemo_pipeline.batch.tasks import TaskMaker, overlay_path
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.errors import NemoError
from nemo_pipeline.store.text import counted

_FOLDER = ".annotating"


def make_overlay_folder(folder: Path, videos: Sequence[VideoFile]) -> None:
    """Create it, for its owner alone, and make sure that no recording is drawn over.

    Raises:
        NemoError: it cannot be made; recordings lie in it, among which copies would be taken for recordings by the next
            run; or a file has a copy's name and is none.
    """
    try:
        make_folder_for_drawings(folder)
    except OSError as error:
        raise NemoError(f"{folder} cannot hold annotated videos: {error.strerror}.") from None
    if holds_recordings(folder, videos):
        raise NemoError(
            f"{folder} holds the recordings themselves; give --overlay another folder for their annotated copies."
        )
    for video in videos:
        path = overlay_path(folder, video)
        if path.is_file():
            from nemo_pipeline.view.encode import is_annotated

            if not is_annotated(path):
                raise NemoError(
                    f"{path} is there already and is no annotated copy; give --overlay another folder, or remove it."
                )


def annotate_finished(
    videos: Sequence[VideoFile],
    out: OutputFolder,
    config: PrepConfig,
    options: RunOptions,
    make_task: TaskMaker,
    on_event: Callable[[Event], None],
) -> None:
    """Draw those of `videos` that have no annotated copy yet. What they are prepared into is thrown away.

    Args:
        videos: finished by an earlier run.
        make_task: as for the run, its `overlay` folder included.
    """
    if make_task.overlay is None:
        return
    folder = make_task.overlay
    todo = tuple(video for video in videos if not overlay_path(folder, video).exists())
    if not todo:
        return
    on_event(Event("stage", text=f"Annotating {counted(len(todo), 'video')} prepared before."))
    on_event(Event("planned", 0, len(todo)))
    work = out.shards / _FOLDER
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        plan = Plan({}, {}, todo)
        make = dataclasses.replace(make_task, folder=work)
        ClusterRun(todo, plan, out, config, options, on_event, make, folder=work, merge=False).execute()
    finally:
        shutil.rmtree(work, ignore_errors=True)
