"""Which mean shape a run warps to. From the data: all videos are prepared with the shipped shape, the mean
of their landmarks is frozen in the output, and the videos are warped again, to it. Clips added later reuse the frozen
shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.batch.output import OutputFolder
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import DataError
from nemo_pipeline.geometry import procrustes_mean
from nemo_pipeline.meanshape import MeanShape, load_shape, new_shape, shipped_shape
from nemo_pipeline.stages.headframe import METHODS
from nemo_pipeline.store.reader import FaceDataset

#: A video's own mean is taken over at most this many of its frames, evenly spaced.
_FRAMES = 256
SHAPE_FILE = "mean_shape.json"


def with_shape(config: PrepConfig, shape: MeanShape) -> PrepConfig:
    """The settings with the shape's kind and hash."""
    digest = "" if config.mean_shape == "shipped" else shape.sha256
    return dataclasses.replace(config, mean_shape_sha256=digest)


def known_shape(
    out: OutputFolder, config: PrepConfig, given: MeanShape | None, force: bool
) -> MeanShape | None:
    """The shape of a run, None where it must be made from the data first.

    Args:
        given: where it is known from elsewhere, as where `config.mean_shape` is "custom".
        force: the data are done again, so that a frozen shape counts only for a forced run that was interrupted.

    Raises:
        NemoError: the output's own shape cannot be read.
    """
    if config.mean_shape == "shipped":
        return shipped_shape()
    if given is None and config.mean_shape == "custom":
        raise ValueError("a shape must be given where config.mean_shape is 'custom'.")
    if given is not None:
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


def mean_shape_from(data: FaceDataset, smooth: str) -> tuple[MeanShape, str]:
    """The generalised Procrustes mean of the smoothed landmarks of a prepared file, and a sentence on it.

    Every video counts once, by the mean over its own frames, whatever its length.

    Raises:
        NemoError: no video has a usable face.
    """
    files = list(dict.fromkeys(data.videos["file"]))
    rows: dict[str, list[int]] = {}
    for row in data.usable:
        rows.setdefault(data.videos["file"][row], []).append(row)
    if not rows:
        raise DataError(
            f"none of {len(files)} videos has a usable face, so there is no mean shape; run once without "
            "`mean_shape=from-data` to see why."
        )
    shapes = [video_shape([_landmarks(data, row, smooth) for row in found]) for found in rows.values()]
    mean, _, residual = procrustes_mean(np.stack(shapes))
    text = f"Mean shape from {len(shapes)} videos; they differ from it by {100 * residual:.1f} % of the eye distance."
    return new_shape(mean), text


def _landmarks(data: FaceDataset, row: int, smooth: str) -> NDArray[np.float32]:
    """(T, 68, 2) of one row, smoothed as `smooth` says."""
    if smooth == data.config.smooth:
        return data.read(row, "landmarks")
    raw = data.read(row, "landmarks_raw").astype(np.float64)
    return METHODS[smooth][0](raw).astype(np.float32)


def video_shape(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """(68, 2): the Procrustes mean over the frames of one video, of all its rows."""
    points = np.concatenate(parts)
    chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), _FRAMES)).round().astype(int))
    return procrustes_mean(points[chosen])[0]
