"""out.h5, the index: virtual datasets over the shards, the order of the videos, and the labels."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.store.files import replacing, small_h5
from nemo_pipeline.store.schema import (
    FRAME_FIELDS,
    LABEL_COLUMNS,
    MISSING_LABEL,
    VIDEO_COLUMNS,
    FieldType,
    frame_fields,
)
from nemo_pipeline.store.sealed import seal
from nemo_pipeline.store.shard import Shard, ShardRow, shards_folder
from nemo_pipeline.store.tables import Provenance, describe, typed_fields, write_columns, write_identity

#: /layout, a row per row of /videos: where it lies (for our reader, which opens the shards itself), what
#: its arrays hash to, the size of the video file, the sha256 of the landmark file ("" where the face was tracked), and
#: when the video file was last changed (ns since 1970; 0: not known).
LAYOUT_COLUMNS: dict[str, str] = {
    "shard": "<i4",
    "shard_start": "<i8",
    "data_sha256": "str",
    "bytes": "<i8",
    "landmarks_sha256": "str",
    "modified": "<i8",
}
#: /shards: the files that the rows lie in. The uuid is in the shard too, so a foreign file is noticed.
SHARD_TABLE: dict[str, str] = {"name": "str", "uuid": "str"}


@dataclasses.dataclass(frozen=True, slots=True)
class IndexRow:
    """One row of /videos to be: what the shard says, where it lies, its id in this run, its labels, and when the video
    file was last changed. `labels` may hold columns of a later version."""

    row: ShardRow
    shard: Shard
    id: str
    file: str
    labels: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    modified: int = 0


def video_columns(rows: Sequence[IndexRow], unknown: Mapping[str, str] | None = None) -> dict[str, list[Any]]:
    """The columns of /videos for rows in their final order; `start` counts frames from the first row on.

    `unknown`: name -> kind of the columns of a later version that the rows may have among their labels.
    """
    unknown = unknown or {}
    columns: dict[str, list[Any]] = {name: [] for name in (*VIDEO_COLUMNS, *unknown)}
    start = 0
    for entry in rows:
        for name, kind in unknown.items():
            blank = "" if kind == "str" else np.array(np.nan if "f" in kind else 0, kind).item()
            columns[name].append(entry.labels.get(name, blank))
        for name in VIDEO_COLUMNS:
            if name in LABEL_COLUMNS:
                value = entry.labels.get(name, MISSING_LABEL[name])
            elif name == "start":
                value = start
            elif name in ("id", "file"):
                value = getattr(entry, name)
            else:
                value = getattr(entry.row, name)
            columns[name].append(value)
        start += entry.row.length
    return columns


def write_index(
    path: Path,
    rows: Sequence[IndexRow],
    made: Provenance,
    *,
    mean_shape: np.ndarray,
    triangles: np.ndarray,
    synthetic: bool = False,
    unknown: Mapping[str, str] | None = None,
) -> str:
    """Write the index of `rows`, in their order, as `path` (by rename); answers its uuid.

    The shards are in `out.shards` next to it: only the folder's name is stored, so that the two can be moved together.
    `unknown`: as for `video_columns`.
    """
    folder = shards_folder(path)
    identity = str(uuid.uuid4())
    names = sorted({(entry.shard.name, entry.shard.uuid) for entry in rows})
    number = {name: i for i, (name, _) in enumerate(names)}
    fields = _fields(rows, made.config)
    with replacing(path) as temporary, small_h5(temporary) as file:
        shards = os.fsencode(folder.name)
        write_identity(file, "index", identity, made, fields, synthetic=synthetic, shards_folder=shards)
        write_shape(file, mean_shape, triangles)
        write_columns(
            file.create_group("videos"), {**VIDEO_COLUMNS, **(unknown or {})}, video_columns(rows, unknown)
        )
        layout: dict[str, list[Any]] = {
            "shard": [number[entry.shard.name] for entry in rows],
            "shard_start": [entry.row.start for entry in rows],
            "data_sha256": [entry.row.data_sha256 for entry in rows],
            "bytes": [entry.row.bytes for entry in rows],
            "landmarks_sha256": [entry.row.landmarks_sha256 for entry in rows],
            "modified": [entry.modified for entry in rows],
        }
        write_columns(file.create_group("layout"), LAYOUT_COLUMNS, layout)
        table = {"name": [name for name, _ in names], "uuid": [text for _, text in names]}
        write_columns(file.create_group("shards"), SHARD_TABLE, table)
        _write_virtual(file, rows, fields, folder.name)
        seal(file)
    return identity


def write_shape(file: h5py.File, mean_shape: np.ndarray, triangles: np.ndarray) -> None:
    """/mean_shape (68,2) float64 and /triangles (K,3) int32."""
    file.create_dataset("mean_shape", data=np.asarray(mean_shape, "<f8"), track_times=False)
    file.create_dataset("triangles", data=np.asarray(triangles, "<i4"), track_times=False)


def _fields(rows: Sequence[IndexRow], config: PrepConfig) -> dict[str, FieldType]:
    """The frame datasets that the shards of `rows` have, in the schema's order, then those of a later version."""
    found = {name: field for entry in rows for name, field in entry.shard.fields.items()}
    if not found:
        return typed_fields(frame_fields(config), config.size)
    return {name: found[name] for name in (*FRAME_FIELDS, *found) if name in found}


def windows(rows: Iterable[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Shard, first frame there and number of frames of the windows that show `rows` (given alike), in their order:
    neighbours in one shard share a window."""
    found: list[tuple[str, int, int]] = []
    for shard, start, count in rows:
        if found and found[-1][0] == shard and found[-1][1] + found[-1][2] == start:
            found[-1] = (shard, found[-1][1], found[-1][2] + count)
        elif count:
            found.append((shard, start, count))
    return found


def _write_virtual(
    file: h5py.File, rows: Sequence[IndexRow], fields: Mapping[str, FieldType], folder: str
) -> None:
    """The frame datasets as windows into the shards."""
    shards = {entry.shard.name: entry.shard for entry in rows}
    runs = windows((entry.shard.name, entry.row.start, entry.row.length) for entry in rows)
    sizes: dict[str, int] = {}
    for shard, start, count in runs:
        sizes[shard] = max(sizes.get(shard, 0), start + count)
    total = sum(count for _, _, count in runs)
    for name, field in fields.items():
        tail, dtype = field.tail, field.dtype
        if not total:
            dataset = file.create_dataset(name, (0, *tail), dtype, track_times=False)
        else:
            layout = h5py.VirtualLayout((total, *tail), dtype)
            at = 0
            for shard, start, count in runs:
                # HDF5 reads source names like printf: a percent sign is doubled.
                source = os.fsencode(f"{folder}/{shard}".replace("%", "%%"))
                if name in shards[shard].fields:
                    window = h5py.VirtualSource(source, name, (sizes[shard], *tail), dtype)
                    layout[at : at + count] = window[start : start + count]
                at += count
            dataset = file.create_virtual_dataset(name, layout, fillvalue=field.missing)
        describe(dataset, name, field.meaning)
