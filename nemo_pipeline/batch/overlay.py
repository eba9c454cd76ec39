"""Annotated copies of the videos of a prepared file: which are to be drawn, and both sides of the job in a child."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nemo_pipeline.batch.cluster import Event
from nemo_pipeline.batch.drawings import open_for_drawings
from nemo_pipeline.batch.heat import draw_in_child
from nemo_pipeline.batch.worker import Pool
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.platform import children_at_once, default_workers
from nemo_pipeline.store.reader import FaceDataset, FaceVideo
from nemo_pipeline.store.text import pluralize, safe_name


def _target(folder: Path, video_id: str) -> Path:
    return folder / f"{safe_name(video_id)}.mp4"


def make_overlay_folder(folder: Path, videos: Sequence[VideoFile]) -> None:
    """Create it and make sure that no recording is in it, nor has a copy's name. Raises NemoError, as
    `open_for_drawings`."""
    open_for_drawings(folder, "`overlay`", videos, (_target(folder, video.id) for video in videos))


def draw_overlays(
    data: FaceDataset,
    videos: Sequence[VideoFile],
    folder: Path,
    *,
    workers: int | None = None,
    timeout: float | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> None:
    """Draw those of `videos` that have no annotated copy yet, or one of other rows. On this machine.

    Args:
        data: the file that they were prepared into.
        videos: a video that is not in it, or of which no frame could be decoded, has no copy.
        folder: made by `make_overlay_folder`; copies are named after the ids in `data`.
        workers: copies at a time; None for the cores that this process may use.
        timeout: seconds for one copy; None for no limit.
        on_event: called in this thread.

    Raises:
        NemoError: nothing can work (installation, disk full).
    """
    from nemo_pipeline.view.annotated import annotation
    from nemo_pipeline.view.overlay import overlay_mark

    rows: dict[str, list[FaceVideo]] = {}
    for number, file in enumerate(data.videos["file"]):
        rows.setdefault(file, []).append(data[number])
    todo: list[tuple[VideoFile, dict[str, Any]]] = []
    for video in videos:
        found = rows.get(video.file, [])
        if not found or not found[0].n_decoded:
            continue
        target = _target(folder, found[0].video_id)
        mark = annotation(target) if target.is_file() else None
        if mark == "":
            text = f"{target} is there already and is not an annotated copy; remove it to have one drawn."
            on_event(Event("note", text=text))
        elif mark != overlay_mark(found):
            todo.append((video, overlay_job(video.path, target, found)))
    if not todo:
        return
    on_event(Event("stage", text=f"Drawing annotated copies of {pluralize(len(todo), 'video')}."))
    pool = Pool()
    draw = functools.partial(draw_in_child, pool=pool, timeout=timeout)
    with ThreadPoolExecutor(children_at_once(min(len(todo), workers or default_workers()))) as threads:
        try:
            notes = threads.map(draw, [job for _, job in todo])
            for n, ((video, _), note) in enumerate(zip(todo, notes, strict=True), 1):
                on_event(Event("drawn", n, len(todo), video.file, text=note))
        finally:
            pool.stop()
            threads.shutdown(wait=False, cancel_futures=True)


def overlay_job(path: Path, target: Path, rows: Sequence[FaceVideo]) -> dict[str, Any]:
    """What the child is told."""
    return {
        "do": "overlay",
        "path": str(path),
        "target": str(target),
        "data": str(rows[0].dataset.path),
        "ids": [row.id for row in rows],
    }


def draw_job(job: dict[str, Any], progress: Callable[[int], None]) -> None:
    """The child's side. Raises NemoError when the copy cannot be drawn."""
    from nemo_pipeline.view.overlay import draw_overlay

    data = FaceDataset(job["data"], check=False)
    rows = [data[name] for name in job["ids"]]
    draw_overlay(Path(job["path"]), Path(job["target"]), rows, progress=progress)
