"""Staged videos into shards: the second half of a run, one planned shard at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import DataError
from nemo_pipeline.platform import library_versions
from nemo_pipeline.store.schema import record_dtype
from nemo_pipeline.store.shard import ShardRow, new_shard_path, write_shard
from nemo_pipeline.store.spool import read_staged, staged_name, staged_rows
from nemo_pipeline.store.tables import Provenance

#: A planned shard that grows beyond this is written as several.
MAX_SHARD_BYTES = 1 << 30


def merge_staged(
    files: Sequence[str], work: str, shards: str, config_values: dict[str, Any], model_sha256: str
) -> list[str]:
    """Write the finished videos `files` (in this order) into one shard or, if they are large, several.

    The staged videos stay: the main process removes them when it knows of the shards.

    Returns:
        Names of the shards, complete and on disk.

    Raises:
        NemoError: a staged video is missing, or cannot be read.
        OSError: the disk is full.
    """
    config = PrepConfig.from_dict(config_values)
    folder = Path(work)
    itemsize = record_dtype(config).itemsize
    batch: list[tuple[ShardRow, Iterator[np.ndarray]]] = []
    held = 0
    names = []

    def flush() -> None:
        nonlocal held
        if batch:
            final = new_shard_path(Path(shards))
            write_shard(
                final,
                batch,
                Provenance(config, library_versions(), model_sha256),
                temporary=folder / f"{final.name}.tmp",
            )
            names.append(final.name)
        batch.clear()
        held = 0

    for file in files:
        staged = read_staged(folder / f"{staged_name(file)}.json", config)
        if staged is None:
            raise DataError(
                f"the finished work on {file} is gone from {folder}; run the command again.", folder
            )
        rows = staged_rows(folder, staged, config)
        size = sum(row.length for row, _ in rows) * itemsize
        if batch and held + size > MAX_SHARD_BYTES:
            flush()
        batch.extend(rows)
        held += size
    flush()
    return names
