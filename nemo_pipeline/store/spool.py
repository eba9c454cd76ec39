"""Staged videos: one finished video before it is in a shard. The unit that survives a kill.

A staged video is `<key>.json` in the work folder, written by rename after its record files were synced. Record
files without a staged video are leftovers and count for nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoResult
from nemo_pipeline.errors import DataError
from nemo_pipeline.fields import from_record, plain
from nemo_pipeline.status import Status
from nemo_pipeline.store.files import fsync_path
from nemo_pipeline.store.schema import record_dtype
from nemo_pipeline.store.shard import ShardRow
from nemo_pipeline.store.text import to_bytes

#: Frames read at a time when staged videos are copied: about 5 MB of 114-pixel faces with their mesh.
_BLOCK = 256


@dataclasses.dataclass(frozen=True, slots=True)
class StagedVideo:
    """A finished video: `result.rows` name its record files, in the folder that the staged video lies in.

    `file` identifies the video in its run, `bytes` and `sha256` its content, `fingerprint` the settings. `record_bytes`
    is the size of one record: files of records of another size hold other frame datasets, and are of no use.
    """

    file: str
    bytes: int
    sha256: str
    fingerprint: str
    result: VideoResult
    record_bytes: int = 0

    @property
    def statuses(self) -> set[Status]:
        """The statuses of its rows."""
        return {row.status for row in self.result.rows}

    @property
    def spools(self) -> set[str]:
        """Names of its record files."""
        return {row.spool for row in self.result.rows if row.spool}


def staged_name(file: str) -> str:
    """File-system-safe name of a video's staged video. Not the id, which may be anything and may change."""
    return hashlib.sha256(to_bytes(file)).hexdigest()[:24]


def write_staged(folder: Path, staged: StagedVideo) -> Path:
    """Make `staged` durable: written under a temporary name, synced, renamed."""
    final = folder / f"{staged_name(staged.file)}.json"
    temporary = final.with_name(f"{final.name}.{os.getpid()}.tmp")
    values = plain(staged)
    try:
        with temporary.open("w", encoding="ascii") as handle:
            json.dump(values, handle)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.chmod(0o600)
        temporary.replace(final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_path(folder)
    return final


def read_staged(path: Path, config: PrepConfig | None = None) -> StagedVideo | None:
    """The staged video at `path`; None if it is missing or incomplete.

    With `config`, its record files must be there and long enough.
    """
    try:
        staged = from_record(StagedVideo, json.loads(path.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return None
    if config is not None and staged.fingerprint == config.fingerprint():
        itemsize = record_dtype(config).itemsize
        if staged.record_bytes != itemsize and staged.spools:
            return None
        for row in staged.result.rows:
            if "/" in row.spool or not 0 <= row.start <= row.stop:
                return None
            try:
                held = (path.parent / row.spool).stat().st_size if row.spool else 0
            except OSError:
                return None
            if held < row.stop * itemsize:
                return None
    return staged


def read_all_staged(folder: Path, config: PrepConfig | None = None) -> dict[str, StagedVideo]:
    """All whole staged videos of a work folder, by `file`."""
    staged_videos = (read_staged(path, config) for path in sorted(folder.glob("*.json")))
    return {staged.file: staged for staged in staged_videos if staged is not None}


def remove_staged(folder: Path, staged: StagedVideo) -> None:
    """Remove a staged video and its records, the staged video first: records alone count for nothing."""
    (folder / f"{staged_name(staged.file)}.json").unlink(missing_ok=True)
    for name in staged.spools:
        (folder / name).unlink(missing_ok=True)


def clear_leftovers(folder: Path, keep: Sequence[StagedVideo]) -> int:
    """Remove every file that belongs to none of the staged videos in `keep`; answers how many there were."""
    wanted = {f"{staged_name(staged.file)}.json" for staged in keep} | {
        s for staged in keep for s in staged.spools
    }
    count = 0
    for path in folder.iterdir():
        if path.name not in wanted and path.is_file():
            path.unlink(missing_ok=True)
            count += 1
    return count


def staged_rows(
    folder: Path, staged: StagedVideo, config: PrepConfig
) -> list[tuple[ShardRow, Iterator[np.ndarray]]]:
    """The rows of a staged video as `write_shard` wants them: what goes into /videos, and its frames in blocks."""
    result = staged.result
    # What is known of the file, of the video and of the row, under the names that the shard's columns have.
    known = [(of, field.name) for of in (staged, result, result.info) for field in dataclasses.fields(of)]
    facts = {name: getattr(of, name) for of, name in known}
    items = []
    for row in result.rows:
        own = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
        values = facts | own | {"length": row.length, "message": result.message(row), "start": 0}
        columns = (field.name for field in dataclasses.fields(ShardRow))
        shard_row = ShardRow(**{name: values[name] for name in columns if name in values})
        items.append((shard_row, read_records(folder / row.spool, row.start, row.stop, config)))
    return items


def read_records(path: Path, start: int, stop: int, config: PrepConfig) -> Iterator[np.ndarray]:
    """Records `start` to `stop` of a record file, in structured blocks. Raises NemoError if it is short."""
    dtype = record_dtype(config)
    if start == stop:
        return
    with path.open("rb") as handle:
        handle.seek(start * dtype.itemsize)
        for at in range(start, stop, _BLOCK):
            count = min(_BLOCK, stop - at)
            block = np.fromfile(handle, dtype, count)
            if len(block) != count:
                raise DataError(f"{path} is shorter than announced; run the command again.", path)
            yield block
