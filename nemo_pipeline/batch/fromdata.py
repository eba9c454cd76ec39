"""`--mean-shape`: which shape a run warps to. From the data: a first pass tracks all videos, the mean of their
landmarks is frozen in the output, and a second pass warps them to it. Clips added later reuse the frozen shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.batch.cluster import ClusterRun, Event, RunOptions
from nemo_pipeline.batch.landmark_files import LandmarkFile
from nemo_pipeline.batch.output import OutputFolder
from nemo_pipeline.batch.plan import make_plan
from nemo_pipeline.batch.tasks import TaskMaker
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.errors import NemoError
from nemo_pipeline.geometry import procrustes_mean
from nemo_pipeline.meanshape import MeanShape, load_shape, new_shape, shipped_shape
from nemo_pipeline.platform import default_workers
from nemo_pipeline.store.reader import FaceDataset
from nemo_pipeline.store.schema import record_dtype
from nemo_pipeline.store.spool import Piece, clear_leftovers, piece_key, read_piece, read_pieces, remove_piece

#: A video's own mean is taken over at most this many of its frames, evenly spaced.
_FRAMES = 256
SHAPE_FILE = "mean_shape.json"
TRACKED_FOLDER = ".tracked"


def with_shape(config: PrepConfig, shape: MeanShape) -> PrepConfig:
    """The settings, naming the shape that they stand for."""
    digest = "" if config.mean_shape == "shipped" else shape.sha256
    return dataclasses.replace(config, mean_shape_sha256=digest)


def known_shape(
    out: OutputFolder, config: PrepConfig, given: MeanShape | None, force: bool
) -> MeanShape | None:
    """The shape of a run, None where it must be made from the data first.

    Args:
        given: where `config.mean_shape` is "custom".
        force: the data are done anew, so that a frozen shape counts only for a forced run that was interrupted.

    Raises:
        NemoError: the output's own shape cannot be read.
    """
    if config.mean_shape == "shipped":
        return shipped_shape()
    if config.mean_shape == "custom":
        if given is None:
            raise ValueError("a shape must be given where config.mean_shape is 'custom'.")
        kept = load_shape(out.shards / SHAPE_FILE)
        return kept if kept is not None and kept.sha256 == given.sha256 else given
    if not force and out.index.exists():
        data = FaceDataset(out.index, check=False)
        if data.config.mean_shape == "from-data":
            return MeanShape(data.mean_shape, data.triangles)
    kept = load_shape(out.shards / SHAPE_FILE, config.mean_shape)
    if kept is None or (force and out.obsolete(with_shape(config, kept).fingerprint()) is None):
        return None
    return kept


def shape_from_data(
    videos: Sequence[VideoFile],
    out: OutputFolder,
    config: PrepConfig,
    options: RunOptions,
    landmarks: Mapping[str, LandmarkFile],
    on_event: Callable[[Event], None],
) -> MeanShape:
    """The first pass: track every video, then the generalised Procrustes mean of their smoothed landmarks.

    Every video counts once, by the mean over its own frames, whatever its length. The pieces stay, for the second
    pass. Nothing depends on the number of workers.

    Raises:
        NemoError: no video has a usable face; or this is a part, which does not see all videos.
    """
    if options.part is not None:
        raise NemoError(
            "a mean shape from the data needs all videos in one run: leave out --part, or make the shape once and "
            "give it to every part (--mean-shape FILE; another out.h5 will do)."
        )
    folder = out.shards / TRACKED_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    config = first_pass(config)
    if options.force:
        for piece in read_pieces(folder).values():
            remove_piece(folder, piece)
    pieces = read_pieces(folder, config)
    plan = make_plan(
        videos,
        [],
        {file: piece for file, piece in pieces.items() if piece.fingerprint == config.fingerprint()},
        landmarks={file: item.sha256 for file, item in landmarks.items()},
        threads=options.workers or default_workers(),
    )
    clear_leftovers(folder, list(plan.pieces.values()))
    on_event(Event("stage", text="First pass: tracking, for the mean shape."))
    on_event(Event("planned", plan.n_done, len(plan.todo)))
    make_task = TaskMaker(config, folder, options.video_timeout, landmarks=landmarks)
    ClusterRun(videos, plan, out, config, options, on_event, make_task, folder=folder, merge=False).execute()
    shapes = []
    for video in videos:
        done = read_piece(folder / f"{piece_key(video.file)}.json", config)
        shape = None if done is None else video_shape(folder, done, config)
        if shape is not None:
            shapes.append(shape)
    if not shapes:
        raise NemoError(
            f"none of {len(videos)} videos has a usable face, so there is no mean shape; run once without "
            "--mean-shape from-data to see why."
        )
    mean, _, residual = procrustes_mean(np.stack(shapes))
    text = f"Mean shape from {len(shapes)} videos; they differ from it by {100 * residual:.1f} % of the eye distance."
    on_event(Event("stage", text=f"{text} Second pass: warping."))
    return new_shape(mean)


def first_pass(config: PrepConfig) -> PrepConfig:
    """The settings of the first pass: those of the second, with the shipped shape."""
    return dataclasses.replace(config, mean_shape="shipped", mean_shape_sha256="")


def video_shape(folder: Path, piece: Piece, config: PrepConfig) -> NDArray[np.float64] | None:
    """(68, 2): the Procrustes mean over the frames of one video, of all its rows; None when it has no frames."""
    dtype = record_dtype(config.size, config.mesh)
    parts = [
        np.memmap(folder / row.spool, dtype, "r")["landmarks"][row.start : row.stop]
        for row in piece.result.rows
        if row.spool and row.stop > row.start
    ]
    total = sum(len(part) for part in parts)
    if not total:
        return None
    chosen = np.unique(np.linspace(0, total - 1, min(total, _FRAMES)).round().astype(int))
    starts = np.cumsum([0, *(len(part) for part in parts)])
    points = [
        part[chosen[(chosen >= s) & (chosen < e)] - s]
        for part, s, e in zip(parts, starts, starts[1:], strict=False)
    ]
    return procrustes_mean(np.concatenate(points))[0]
