"""`nemo rewarp` as a function: a finished file with another size, margin, mean shape or smoothing, without tracking."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from nemo_pipeline.batch.cluster import Event, RunOptions
from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.drawings import is_drawing
from nemo_pipeline.batch.earlier import earlier_videos
from nemo_pipeline.batch.landmark_files import LandmarkFile
from nemo_pipeline.batch.run import PrepInputs, prep
from nemo_pipeline.batch.summary import PrepSummary
from nemo_pipeline.bundle import SHA256 as MODEL_SHA256
from nemo_pipeline.config import ALGORITHM_VERSION, PrepConfig
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.errors import DataError
from nemo_pipeline.meanshape import MeanShape
from nemo_pipeline.rewarp import same_points
from nemo_pipeline.store.reader import FaceDataset
from nemo_pipeline.store.text import listed, pluralize


def rewarp(
    source: FaceDataset,
    output: Path,
    config: PrepConfig,
    options: RunOptions | None = None,
    *,
    folders: Sequence[str] = (),
    mean_shape: MeanShape | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> PrepSummary:
    """Write what `prep` gives for the videos of `source` with `config`, to the bit, from the points in `source`.

    Videos are decoded again for their pixels. One that is not found has the status `unreadable`, and is done by the
    next call that finds it. One that `source` holds no points of (its process died, its faces were blank) is tracked.
    Labels are those of `source`.

    Args:
        source: the file, or one that was packed.
        output: another index; as for `prep`.
        config: that of `source`, but for `nemo_pipeline.rewarp.WARP_SETTINGS`.
        options: as for `prep`, without `part`.
        folders: where the videos are; by default they are looked for next to `source` and in the current folder, and
            in the folders there.
        mean_shape: where `config.mean_shape` is "custom"; with "from-data", one that is there already.
        on_event: as for `prep`.

    Raises:
        NemoError: no video is found; `source` is of another version of the method or was tracked by other networks;
            or as `prep`.
    """
    _check(source, output, config)
    before = earlier_videos(FaceDataset(output, check=False) if output.exists() else None)
    done = {file for file, item in before.items() if item.usable}
    located = locate_videos(source, folders)
    # What is done stays as it is when its video is gone.
    videos = [video for video, there in located if there or video.file not in done]
    if len(videos) < len(located):
        text = f"{pluralize(len(located) - len(videos), 'video')} not found, done before and kept."
        on_event(Event("stage", len(located) - len(videos), text=text))
    gone = [video.file for video in videos if not video.path.exists()]
    if gone:
        where = (
            f"in {', '.join(folders)}" if folders else f"next to {source.path.name} or in the current folder"
        )
        missing = f"{pluralize(len(gone), 'video')} of {source.path.name} not found {where} ({listed(gone)})"
        remedy = f"give the folders that hold them: nemo rewarp {source.path.name} VIDEOS/ {output.name}"
        if len(gone) == len(videos) and not done:
            raise DataError(f"{missing}: the pixels come from the videos; {remedy}", source.path)
        on_event(Event("note", len(gone), text=f"{missing}. To do them later, {remedy}"))
    landmarks = {}
    if config.landmarks_source != "track":
        hashes = source.layout["landmarks_sha256"]
        landmarks = {
            file: LandmarkFile("", digest) for file, digest in zip(source.videos["file"], hashes, strict=True)
        }
    summary = prep(
        PrepInputs(videos, landmarks, source=source),
        output,
        config,
        options,
        mean_shape=mean_shape,
        on_event=on_event,
    )
    return dataclasses.replace(summary, kept=frozenset())


def _check(source: FaceDataset, output: Path, config: PrepConfig) -> None:
    """Refuse what would not be what `prep` gives. Raises NemoError, and ValueError on other settings."""
    if not same_points(source.config, config):
        raise ValueError("other settings than size, margin, mean shape and smoothing need another nemo prep.")
    name = source.path.name
    if output.resolve() == source.path:
        raise DataError(f"{output} is the file itself: write to another one.", output)
    if source.attributes.get("fingerprint") != source.config.fingerprint():
        raise DataError(
            f"{name} was made with settings that this nemo does not know: update nemo.", source.path
        )
    if source.config.algorithm != ALGORITHM_VERSION:
        raise DataError(
            f"{name} was prepared by version {source.config.algorithm} of the method, and this nemo has version "
            f"{ALGORITHM_VERSION}, whose points may be others: prepare its videos again.",
            source.path,
        )
    if config.landmarks_source == "track" and source.attributes.get("model_sha256") != MODEL_SHA256:
        raise DataError(
            f"{name} was tracked with another landmark bundle: prepare its videos again.", source.path
        )


def locate_videos(source: FaceDataset, folders: Sequence[str]) -> list[tuple[VideoFile, bool]]:
    """The videos of a prepared file, where they are now, and whether a file of that size is there. By name, and by size
    where several have one name; a video that is nowhere has a path that does not exist."""
    found: dict[str, list[Path]] = {}
    for video in discover(folders).videos if folders else ():
        for name in {video.file, video.path.name}:
            found.setdefault(name, []).append(video.path)
    near = {} if folders else _near([source.path.parent, Path.cwd()])
    base = Path(folders[0]) if folders else source.path.parent
    videos: list[tuple[VideoFile, bool]] = []
    for row, file in enumerate(source.videos["file"]):
        if videos and videos[-1][0].file == file:
            continue
        first = Path(file).parts[0]
        paths = found.get(file) or found.get(Path(file).name) or []
        paths = paths or [folder / file for folder, names in near.items() if first in names]
        there = [path for path in paths if path.is_file() and not is_drawing(path)]
        size = int(source.layout["bytes"][row])
        same = [path for path in there if path.stat().st_size == size or not size]  # 0: it could not be read
        # A name counts in the folders that were given: there another file than the original is said to be another.
        path = (same or (there if folders else []) or [base / file])[0]
        video_id = source[row].video_id
        videos.append((VideoFile(path.absolute(), video_id, file), bool(same)))
    return videos


def _near(bases: Sequence[Path]) -> dict[Path, set[str]]:
    """Folders, those in them, and the names in each."""
    found = {base: _names(base) for base in bases}
    return found | {base / name: _names(base / name) for base, names in found.items() for name in names}


def _names(folder: Path) -> set[str]:
    """What is in a folder; empty if it is not a folder or cannot be read."""
    try:
        return {path.name for path in folder.iterdir()}
    except OSError:
        return set()
