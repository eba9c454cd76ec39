"""Copies of the recordings of a prepared file with every face covered: which are made, and both sides of the job in a
child."""

from __future__ import annotations

import csv
import dataclasses
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nemo_pipeline.batch.drawings import open_for_drawings
from nemo_pipeline.batch.heat import answer_of_child
from nemo_pipeline.batch.worker import Pool
from nemo_pipeline.errors import DataError
from nemo_pipeline.platform import children_at_once, default_workers
from nemo_pipeline.store.files import file_hash, leftovers, replacing, unreadable_message
from nemo_pipeline.store.reader import FaceDataset
from nemo_pipeline.store.text import CsvWriter, csv_cell, csv_value, safe_name

#: In a folder of copies: what was done to each, and what was checked.
INDEX = "anonymised.csv"


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """One video and its copy; a row of `INDEX`.

    Attributes:
        video: its id.
        copy: name of the file; "" where there is none.
        look: "blur" or "wireframe".
        sound: whether the copy has some.
        frames: in the copy.
        faces: that were covered, each for as long as it could be followed.
        frames_searched: frames of the copy, as it was written, in which a face was looked for.
        frames_found_again: frames in which one was found; a copy with any is not kept.
        rounds: how often the copy was written until none was found.
        message: why there is no copy, "" where there is one.
    """

    video: str
    copy: str = ""
    look: str = ""
    sound: bool = False
    frames: int = 0
    faces: int = 0
    frames_searched: int = 0
    frames_found_again: int = 0
    rounds: int = 0
    message: str = ""


def anonymise(
    data: FaceDataset,
    folder: Path,
    *,
    look: str = "blur",
    sound: bool = False,
    recordings: Sequence[str] = (),
    only: str | None = None,
    workers: int | None = None,
    on_copy: Callable[[int, int, Copy], None] = lambda n, total, copy: None,
) -> list[Copy]:
    """Write a copy of every recording of a prepared file with all faces covered (`view.anonymise`), each in a process
    of its own, and the table `INDEX`. A copy that is there already is kept.

    Args:
        data: the prepared file.
        folder: for the copies, named after the videos' ids; one without recordings.
        look: "blur" or "wireframe".
        sound: keep it.
        recordings: files or folders where the recordings are; by default next to `data` and in the current folder.
        only: id of the one video.
        workers: copies at a time; None for the cores that this process may use.
        on_copy: called in this thread with each, its number and how many there are.

    Returns:
        All videos, those that have no copy with the reason.

    Raises:
        NemoError: `folder` cannot be used, no video is meant, or nothing can work (installation, disk full).
    """
    from nemo_pipeline.batch.rewarp import locate_videos

    if data.config.stills:
        raise DataError(f"{data.path} was prepared from pictures, and only recordings are copied.", data.path)
    rows: dict[str, list[str]] = {}
    for number, file in enumerate(data.videos["file"]):
        rows.setdefault(file, []).append(data[number].id)
    videos = [
        video
        for video, _ in locate_videos(data, recordings)
        if only is None or only in (video.id, video.file, *rows[video.file])
    ]
    if not videos:
        raise DataError(f"{data.path} holds no video{'' if only is None else f' {only!r}'}.", data.path)
    targets = [folder / f"{safe_name(video.id)}.mp4" for video in videos]
    open_for_drawings(folder, "the copies", videos, targets)
    _remove_unchecked(targets)
    before = _read(folder / INDEX)
    done = {video.id: copy for video, target in zip(videos, targets, strict=True)
            if target.exists() and (copy := before.get(video.id))}  # fmt: skip
    jobs = [
        {"do": "anonymise", "path": str(video.path), "target": str(target), "data": str(data.path),
         "ids": rows[video.file], "look": look, "sound": sound}
        for video, target in zip(videos, targets, strict=True) if video.id not in done
    ]  # fmt: skip
    copies: list[Copy] = []
    pool = Pool()
    ask = functools.partial(answer_of_child, pool=pool)
    with ThreadPoolExecutor(children_at_once(min(len(jobs) or 1, workers or default_workers()))) as threads:
        try:
            answers = threads.map(ask, jobs)
            for n, (video, target) in enumerate(zip(videos, targets, strict=True), 1):
                copy = done.get(video.id)
                if copy is None:
                    answer = next(answers)
                    facts = answer.get("copy", {})
                    copy = Copy(video.id, target.name if facts else "", message=answer["note"], **facts)
                    before[video.id] = copy
                    _write(folder / INDEX, before.values())
                copies.append(copy)
                on_copy(n, len(videos), copy)
        finally:
            pool.stop()
            threads.shutdown(wait=False, cancel_futures=True)
            _remove_unchecked(targets)
    return copies


def _remove_unchecked(targets: Sequence[Path]) -> None:
    """Remove what was being written when a process was killed: nobody looked for faces in it."""
    for target in targets:
        for path in leftovers(target):
            path.unlink(missing_ok=True)


def draw_job(job: dict[str, Any], progress: Callable[[int], None]) -> dict[str, Any]:
    """The child's side. Raises NemoError when there can be no copy."""
    from nemo_pipeline.stages.engines import load_engine
    from nemo_pipeline.view.anonymise import anonymise_video

    path = Path(job["path"])
    data = FaceDataset(job["data"], check=False)
    rows = [data[name] for name in job["ids"]]
    try:
        digest = file_hash(path)[1]
    except OSError as error:
        raise DataError(f"{path}: {unreadable_message(error)}", path) from None
    if digest != rows[0].sha256:
        raise DataError(
            f"{path} has other content than the video of this name that was prepared: give the folder of the "
            "original (`recordings`), or prepare it again.",
            path,
        )
    found = anonymise_video(
        path,
        Path(job["target"]),
        rows,
        load_engine("litert"),
        look=job["look"],
        sound=job["sound"],
        progress=progress,
    )
    facts = {"look": job["look"], "sound": found.sound, "frames": found.frames, "faces": found.faces,
             "frames_searched": found.frames, "rounds": found.rounds}  # fmt: skip
    return {"copy": facts}


def _read(index: Path) -> dict[str, Copy]:
    """The table of an earlier run; nothing where there is none, or it is another program's."""
    try:
        with index.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            copies = [_copy(row) for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        return {}
    return {copy.video: copy for copy in copies}


def _copy(row: dict[str, str]) -> Copy:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Copy):
        text = csv_value(row[field.name])
        values[field.name] = text if field.type == "str" else int(text)
    return Copy(**values)


def _write(index: Path, copies: Any) -> None:
    with (
        replacing(index) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = CsvWriter(file)
        writer.writerow(field.name for field in dataclasses.fields(Copy))
        for copy in copies:
            values = dataclasses.astuple(copy)
            writer.writerow(csv_cell(value) if isinstance(value, str) else int(value) for value in values)
