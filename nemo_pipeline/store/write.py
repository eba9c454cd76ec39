"""`write_dataset`: an out.h5 straight from arrays in memory, for generated faces and other trackers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import DataError, OutputError
from nemo_pipeline.status import Status
from nemo_pipeline.store.files import check_h5_name
from nemo_pipeline.store.index import IndexRow, write_index
from nemo_pipeline.store.schema import ADDED_COLUMNS, FRAME_FIELDS, LABEL_COLUMNS, VIDEO_COLUMNS, frame_fields
from nemo_pipeline.store.shard import ShardRow, new_shard_path, read_shard, shards_folder, write_shard
from nemo_pipeline.store.tables import Provenance, row_shape

#: Videos per shard.
_PER_SHARD = 64


def write_dataset(
    path: str | os.PathLike[str],
    videos: Iterable[Mapping[str, Any]],
    *,
    mean_shape: np.ndarray | None = None,
    triangles: np.ndarray | None = None,
    config: PrepConfig | None = None,
    synthetic: bool = False,
    versions: Mapping[str, str] | None = None,
    model_sha256: str = "",
) -> Path:
    """Write `videos`, in their order, as `path` and its shards folder, and return the path.

    Args:
        path: the .h5 to write. It must not exist, nor hold shards.
        videos: one mapping per video, consumed one at a time. Required: "id" (unique), "frames" (T,S,S)
            uint8. Optional: every other frame dataset of the format, and every column of /videos. Where
            they are absent: landmarks and the other measurements are NaN, every frame counts as tracked,
                times follow "fps" (25 by default; 0 for a still, whose time is 0).
        mean_shape: (68,2); the shipped one by default.
        triangles: (K,3); the shipped ones by default.
        config: settings to record; its `size` must be S. By default the standard ones, without the mesh.
        synthetic: mark the file as generated.

    Raises:
        NemoError: the output exists or is not called .h5 or .hdf5, or a video does not fit.
    """
    path = Path(os.path.realpath(path))
    check_h5_name(path)
    folder = shards_folder(path)
    if path.exists() or (folder.exists() and any(folder.iterdir())):
        raise OutputError(
            f"{path} (or {folder.name} next to it) exists already; choose another name or remove both.", path
        )
    if mean_shape is None or triangles is None:
        from nemo_pipeline.geometry import shipped_mean_shape, shipped_triangles

        mean_shape = shipped_mean_shape() if mean_shape is None else mean_shape
        triangles = shipped_triangles() if triangles is None else triangles
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    rows: list[IndexRow] = []
    ids: set[str] = set()
    batch: list[tuple[ShardRow, Mapping[str, Any], dict[str, np.ndarray]]] = []

    def flush() -> None:
        if not batch or config is None:
            return
        final = new_shard_path(folder)
        items = [(row, [arrays]) for row, _, arrays in batch]
        write_shard(final, items, Provenance(config, versions or {}, model_sha256))
        shard = read_shard(final)
        for row, (_, video, _) in zip(shard.rows, batch, strict=True):
            labels = {name: video[name] for name in LABEL_COLUMNS if name in video}
            rows.append(IndexRow(row, shard, str(video["id"]), row.file, labels))
        batch.clear()

    for video in videos:
        name = str(video.get("id", ""))
        if not name or name in ids:
            raise DataError(f"every video needs an id of its own; {name!r} is empty or given twice.")
        ids.add(name)
        frames = np.asarray(video.get("frames"))
        if config is None:
            config = PrepConfig(size=frames.shape[-1] if frames.ndim == 3 else 114, mesh="mesh" in video)
        row, arrays = _fit(video, frames, config)
        batch.append((row, video, arrays))
        if len(batch) == _PER_SHARD:
            flush()
    config = config or PrepConfig()
    flush()
    write_index(
        path,
        rows,
        Provenance(config, versions or {}, model_sha256),
        mean_shape=mean_shape,
        triangles=triangles,
        synthetic=synthetic,
    )
    return path


def _fit(
    video: Mapping[str, Any], frames: np.ndarray, config: PrepConfig
) -> tuple[ShardRow, dict[str, np.ndarray]]:
    """The row and the arrays of one video, absent ones filled in."""
    name = str(video["id"])
    size = config.size
    unknown = sorted(set(video) - set(VIDEO_COLUMNS) - set(FRAME_FIELDS))
    if unknown:
        raise DataError(f"video {name!r} has {', '.join(unknown)}, which the format does not know.")
    if frames.dtype != np.uint8 or frames.shape[1:] != (size, size):
        raise DataError(
            f"video {name!r}: frames are {frames.dtype} {frames.shape}; uint8 (T, {size}, {size}) is needed."
        )
    length, fps = len(frames), float(video.get("fps", 25.0))
    arrays: dict[str, np.ndarray] = {}
    for field in frame_fields(config):
        shape, dtype = (length, *row_shape(field, size)), np.dtype(FRAME_FIELDS[field].dtype)
        if field in video:
            values = np.asarray(video[field])
            if values.shape != shape:
                raise DataError(f"video {name!r}: {field} has shape {values.shape}; {shape} is needed.")
            arrays[field] = values.astype(dtype)
        elif field == "timestamps":
            arrays[field] = np.arange(length) / fps if fps else np.zeros(length)
        elif field == "frame_index":
            arrays[field] = np.arange(length, dtype=dtype)
        elif dtype.kind == "f":
            arrays[field] = np.full(shape, np.nan, dtype)
        else:  # tracked; n_faces
            arrays[field] = np.ones(shape, dtype)
    added: dict[str, Any] = {n: type(value)(video[n]) for n, value in ADDED_COLUMNS.items() if n in video}
    row = ShardRow(
        file=str(video.get("file", name)),
        sha256=str(video.get("sha256", "")),
        bytes=0,
        length=length,
        fps=fps,
        width=int(video.get("width", size)),
        height=int(video.get("height", size)),
        n_decoded=int(video.get("n_decoded", length)),
        n_interpolated=int(video.get("n_interpolated", int(np.sum(~arrays["tracked"])))),
        status=Status.read(str(video.get("status", Status.OK if length else Status.NO_FACE))),
        message=str(video.get("message", "")),
        **added,
    )
    return row, arrays
