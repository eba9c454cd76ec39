"""The frames of prepared videos as a table: `nemo export --format table` and `FaceDataset.table(frames=True)`. NumPy
only."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from nemo_pipeline.geometry import align_similarity
from nemo_pipeline.phases import find_phases
from nemo_pipeline.store.schema import BLENDSHAPES, LABEL_COLUMNS

if TYPE_CHECKING:
    from nemo_pipeline.store.reader import FaceDataset, FaceVideo

_POSE = ("yaw", "pitch", "roll")
#: Fields that are not numbers of a frame, or are in a table in another form.
_NOT_IN_TABLES = ("frames", "mesh", "landmarks", "landmarks_raw", "pose")


def frame_columns(video: FaceVideo) -> dict[str, Any]:
    """One video as columns of length T: what a table of frames holds.

    `video` and its labels; the numbers of every frame, named as in the file, with `yaw`, `pitch`, `roll` (degrees);
    where the file has them the 52 blendshapes (`mouthSmileLeft` ...); `phase` (onset, apex, offset or "") and
    `amplitude` (mouth widths) of its expression; the smoothed landmarks `x_0` to `y_67` in source pixels, and
    `aligned_x_0` to `aligned_y_67`: the same, moved, turned and scaled to lie on the mean shape as well as they can, in
    pixels of the face image: expression without head pose.
    """
    n = len(video)
    columns: dict[str, Any] = {"video": [video.id] * n}
    columns |= {name: [getattr(video, name)] * n for name in LABEL_COLUMNS}
    for name, field in video.dataset.fields.items():
        if name not in _NOT_IN_TABLES and field.tail == ():
            columns[name] = video.read(name)
    columns |= dict(zip(_POSE, video.read("pose").T, strict=True))
    landmarks = video.landmarks
    if "blendshapes" in video.dataset.fields:
        columns |= dict(zip(BLENDSHAPES, video.read("blendshapes").T, strict=True))
    columns["phase"], columns["amplitude"] = _phases(video, landmarks)
    aligned = np.stack([_aligned(points, video.dataset.landmarks_in_crop) for points in landmarks])
    for prefix, points in (("", landmarks), ("aligned_", aligned.astype(np.float32))):
        for i in range(points.shape[1]):
            columns[f"{prefix}x_{i}"], columns[f"{prefix}y_{i}"] = points[:, i, 0], points[:, i, 1]
    return columns


def frame_table(data: FaceDataset) -> dict[str, Any]:
    """`frame_columns` of all videos, one after the other."""
    parts = [frame_columns(video) for video in data.values()]
    return {
        name: list(itertools.chain.from_iterable(part[name] for part in parts))
        if isinstance(first, list)
        else np.concatenate([part[name] for part in parts])
        for name, first in (parts[0] if parts else {}).items()
    }


def _phases(video: FaceVideo, landmarks: np.ndarray) -> tuple[list[str], np.ndarray]:
    try:
        found = find_phases(
            landmarks, video.timestamps, "disgust" if video.expression == "disgust" else "smile"
        )
    except ValueError:  # faces without landmarks, or ones that cannot be measured
        return [""] * len(video), np.full(len(video), np.nan)
    names = [""] * len(video)
    for name in ("onset", "apex", "offset"):
        for i in range(*getattr(found, name)):
            names[i] = name
    return names, found.amplitude


def _aligned(points: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """(68, 2) points aligned to a shape by the least-squares similarity; NaN if the points are NaN."""
    if not np.isfinite(points).all():
        return np.full(points.shape, np.nan)
    scale, rotation, translation = align_similarity(points, shape)
    return scale * points @ rotation.T + translation
