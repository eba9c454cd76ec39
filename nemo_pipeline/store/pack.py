"""`nemo pack`: an index and its shards as one ordinary file, with the same names inside."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from nemo_pipeline.errors import DataError, OutputError
from nemo_pipeline.store.files import check_h5_name, check_space, create_h5, replacing
from nemo_pipeline.store.index import LAYOUT_COLUMNS, SHARD_TABLE, write_shape
from nemo_pipeline.store.reader import FaceDataset
from nemo_pipeline.store.schema import VIDEO_COLUMNS, record_dtype
from nemo_pipeline.store.sealed import seal
from nemo_pipeline.store.shard import SPARE_BYTES
from nemo_pipeline.store.tables import create_frame_datasets, data_hash, write_columns, write_frames
from nemo_pipeline.store.text import to_bytes

#: Frames copied at a time.
_BLOCK = 256


def pack(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    compression: int | None = None,
    on_video: Callable[[int, int], None] | None = None,
) -> Path:
    """Copy `source` (an index, or a packed file) into the one file `target`.

    Args:
        compression: gzip level 1 to 9, or None.
        on_video: called with (videos copied, videos in all).

    Raises:
        NemoError: the target exists, a shard is missing, or what is read differs from what was written once.
    """
    data = FaceDataset(source)
    path = Path(os.path.realpath(target))
    check_h5_name(path)
    if path.exists():
        raise OutputError(f"{path} exists already; choose another name or remove it.", path)
    if not path.parent.is_dir():
        raise DataError(
            f"{path.parent} does not exist: create the folder first, or correct the target's name.",
            path.parent,
        )
    total = int(data.videos["length"].sum())
    attributes = {name: value for name, value in data.attributes.items() if name != "shards_folder"}
    attributes |= {"kind": "packed", "uuid": str(uuid.uuid4()), "fields": " ".join(data.fields)}
    digests = []
    check_space(path.parent, total * record_dtype(data.config).itemsize + SPARE_BYTES)
    with replacing(path) as temporary, create_h5(temporary) as file:
        for name, value in attributes.items():
            escaped = isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value)
            file.attrs[name] = (
                to_bytes(value) if escaped else value
            )  # bytes that are not UTF-8 stay what they are
        write_shape(file, data.mean_shape, data.triangles)
        datasets = create_frame_datasets(file, total, data.fields, compression)
        for row in data.rows:
            start, length = int(data.videos["start"][row]), int(data.videos["length"][row])
            hashes = write_frames(datasets, start, length, _blocks(data, row, length))
            if length and data_hash(hashes, data.written_fields(row)) != data.layout["data_sha256"][row]:
                raise DataError(
                    f"{data.path}: the arrays of {data.videos['id'][row]!r} are not those that were written; "
                    f"run `nemo verify {data.path}`.",
                    data.path,
                )
            digests.append(data_hash(hashes, data.fields))
            if on_video is not None:
                on_video(row + 1, len(data.rows))
        write_columns(file.create_group("videos"), VIDEO_COLUMNS, data.videos)
        layout = data.layout | {
            "shard": [-1] * len(data.rows),
            "shard_start": data.videos["start"],
            "data_sha256": digests,
        }
        write_columns(file.create_group("layout"), LAYOUT_COLUMNS, layout)
        write_columns(file.create_group("shards"), SHARD_TABLE, {"name": [], "uuid": []})
        seal(file)
    return path


def _blocks(data: FaceDataset, row: int, length: int) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, length, _BLOCK):
        yield {name: data.read(row, name, start, start + _BLOCK) for name in data.fields}
