"""A shard: whole videos, written once, never changed. It knows how it was made, but no labels."""

from __future__ import annotations

import dataclasses
import re
import secrets
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import DamagedFile, DataError
from nemo_pipeline.status import Status
from nemo_pipeline.store.files import check_space, create_h5, open_h5, replacing
from nemo_pipeline.store.schema import ROW_COLUMNS, FieldType, StoredRow, frame_fields, record_dtype
from nemo_pipeline.store.sealed import CHANGED, read_tables, seal
from nemo_pipeline.store.strict import reading
from nemo_pipeline.store.tables import (
    Blocks,
    Provenance,
    create_frame_datasets,
    data_hash,
    read_config,
    read_versions,
    stored_fields,
    typed_fields,
    write_columns,
    write_frames,
    write_identity,
)

#: Free space asked for beyond the frames themselves, for the tables and HDF5's own.
SPARE_BYTES = 1 << 20
_NAME = re.compile(r"(\d{5})-[0-9a-f]{8}\.h5")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShardRow(StoredRow):
    """One row of a shard's /videos. The writer fills in `start` and `data_sha256`.

    Attributes:
        bytes: the video file's size.
        data_sha256: over the row's arrays.
        landmarks_sha256: the landmark file's; "" where the face was tracked.
    """

    start: int = 0
    bytes: int
    data_sha256: str = ""
    landmarks_sha256: str = ""


#: Columns of a shard's /videos -> dtype.
SHARD_COLUMNS: dict[str, str] = {
    **ROW_COLUMNS,
    "bytes": "<i8",
    "data_sha256": "str",
    "landmarks_sha256": "str",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """A finished shard as read from disk. `order` sorts shards from old to new; `fields` are its frame datasets."""

    path: Path
    uuid: str
    config: PrepConfig
    fingerprint: str
    model_sha256: str
    versions: dict[str, str]
    created_ns: int
    rows: tuple[ShardRow, ...]
    fields: dict[str, FieldType]

    @property
    def name(self) -> str:
        """File name inside the shards folder."""
        return self.path.name

    @property
    def order(self) -> tuple[int, int, str]:
        """Sequence number, time of writing, name."""
        match = _NAME.fullmatch(self.name)
        return (int(match[1]) if match else 0, self.created_ns, self.name)


def shards_folder(index: Path) -> Path:
    """`out.shards` next to `out.h5`."""
    return index.with_suffix(".shards") if index.suffix == ".h5" else index.with_name(index.name + ".shards")


def is_shard_name(name: str) -> bool:
    """Whether `name` may be that of a shard: a plain visible file name that cannot lead elsewhere."""
    return name.endswith(".h5") and not name.startswith(".") and "/" not in name and "\\" not in name


def new_shard_path(folder: Path) -> Path:
    """The next free name: a sequence number, and random digits since several machines may write at once."""
    numbers = [int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return folder / f"{max(numbers, default=0) + 1:05d}-{secrets.token_hex(4)}.h5"


def write_shard(
    final: Path,
    videos: Sequence[tuple[ShardRow, Blocks]],
    made: Provenance,
    temporary: Path | None = None,
) -> str:
    """Write `videos` (a row, and the blocks of frames that belong to it) as shard `final`; answers its uuid.

    It appears by rename after fsync, complete or not at all. `temporary`: name until then, same file system.
    """
    identity, config = str(uuid.uuid4()), made.config
    total = sum(row.length for row, _ in videos)
    itemsize = record_dtype(config).itemsize
    check_space(final.parent, total * itemsize + total // 8 + SPARE_BYTES)
    with replacing(final, temporary) as path, create_h5(path) as file:
        fields = typed_fields(frame_fields(config), config.size)
        write_identity(file, "shard", identity, made, fields, created_ns=time.time_ns())
        datasets = create_frame_datasets(file, total, fields)
        rows, start = [], 0
        for row, blocks in videos:
            digest = data_hash(write_frames(datasets, start, row.length, blocks), fields)
            rows.append(dataclasses.replace(row, start=start, data_sha256=digest))
            start += row.length
        write_columns(file.create_group("videos"), SHARD_COLUMNS, to_columns(rows, SHARD_COLUMNS))
        seal(file)
    return identity


def to_columns(rows: Iterable[Any], kinds: Mapping[str, str]) -> dict[str, list[Any]]:
    """Rows (objects with the columns as attributes) turned into columns."""
    rows = list(rows)
    return {name: [getattr(row, name) for row in rows] for name in kinds}


def read_shard(path: Path) -> Shard:
    """Read what a shard says of itself and of its videos. Raises NemoError when it cannot be read."""
    with open_h5(path) as file, reading(path):
        tables = read_tables(file)
        attributes = tables.attributes
        if attributes.get("kind") != "shard":
            raise DataError(f"{path} lies among the shards, but is not one; move it elsewhere.", path)
        columns = tables.columns("videos", SHARD_COLUMNS)
        if not tables.unchanged():
            raise DamagedFile(path, "", CHANGED)
        config = read_config(attributes, path)
        fields = stored_fields(file, attributes, config)
    count = len(columns["file"])
    plain = {name: [v.item() for v in c] if isinstance(c, np.ndarray) else c for name, c in columns.items()}
    plain["status"] = [Status.read(text) for text in plain["status"]]
    rows = tuple(ShardRow(**{name: plain[name][i] for name in SHARD_COLUMNS}) for i in range(count))
    return Shard(
        path=path,
        uuid=str(attributes["uuid"]),
        config=config,
        fingerprint=str(attributes["fingerprint"]),
        model_sha256=str(attributes.get("model_sha256", "")),
        versions=read_versions(attributes),
        created_ns=int(attributes.get("created_ns", 0)),
        rows=rows,
        fields=fields,
    )


def read_shards(folder: Path) -> list[Shard]:
    """Every shard of a folder, oldest first; none when the folder does not exist."""
    if not folder.is_dir():
        return []
    paths = [path for path in folder.iterdir() if is_shard_name(path.name)]
    return sorted((read_shard(path) for path in paths), key=lambda shard: shard.order)
