"""Columns of values and blocks of frames, into an open HDF5 file and out of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import DamagedFile, DataError
from nemo_pipeline.store.schema import (
    COLUMN_NAMES,
    FORMAT,
    FORMAT_VERSION,
    FRAME_FIELDS,
    FieldType,
    frame_fields,
)
from nemo_pipeline.store.strict import check_texts, dataset_in
from nemo_pipeline.store.text import to_bytes, to_text

#: Rows smaller than this many bytes are chunked by the thousand: a chunk of 8 bytes costs more than it holds.
_SMALL_ROW = 256
_SMALL_CHUNK = 1024

Blocks = Iterable[Mapping[str, np.ndarray] | np.ndarray]


def typed_fields(names: Iterable[str], size: int) -> dict[str, FieldType]:
    """The schema's fields `names` for crops of `size` pixels."""
    fields = ((name, FRAME_FIELDS[name]) for name in names)
    return {n: FieldType(row_shape(n, size), np.dtype(f.dtype), f.meaning, f.missing) for n, f in fields}


def stored_fields(
    file: h5py.File,
    attributes: Mapping[str, Any],
    config: PrepConfig,
    shards: Collection[str] | None = None,
) -> dict[str, FieldType]:
    """The frame datasets that a file says it has, in its order; those that this version does not know, too.

    Args:
        shards: of an index: paths of its shards as HDF5 is told them. None: the file holds its frames itself.

    Raises:
        DamagedFile: one that it does not know is not there, or no plain array.
    """
    if "fields" not in attributes:  # files of the first version
        names = [n for n in frame_fields(config) if FRAME_FIELDS[n].missing is None]
        return typed_fields(names, config.size)
    fields: dict[str, FieldType] = {}
    names = str(attributes["fields"]).split()
    for name in frame_fields(config):
        if FRAME_FIELDS[name].missing is None and name not in names:
            raise DamagedFile(file.filename, f"/{name}", "is missing")
    for name in names:
        if name in FRAME_FIELDS:
            fields |= typed_fields([name], config.size)
            continue
        dataset = dataset_in(file, name, shards)
        if dataset is None or not dataset.ndim or dataset.dtype.kind not in "biuf":
            raise DamagedFile(file.filename, f"/{name}", "is missing or no table of numbers")
        meaning = str(dataset.attrs.get("meaning", ""))
        fields[name] = FieldType(dataset.shape[1:], dataset.dtype, meaning, _fill_value(dataset))
    return fields


def _fill_value(dataset: h5py.Dataset) -> float | None:
    """`FieldType.missing` of a dataset that this version does not know: its writer left it as the fill value."""
    defined = dataset.id.get_create_plist().fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED
    return dataset.fillvalue.item() if defined else None


def row_shape(name: str, size: int) -> tuple[int, ...]:
    """Shape of one frame's row in dataset `name` for crops of `size` pixels."""
    return tuple(size if n is None else n for n in FRAME_FIELDS[name].tail)


def create_frame_datasets(
    file: h5py.File, total: int, fields: Mapping[str, FieldType], compression: int | None = None
) -> dict[str, h5py.Dataset]:
    """Empty frame datasets for `total` frames: each in one piece, which is read fastest in any order; or in chunks of
    one frame, small rows of more, with gzip level `compression`.

    `fields`: as `typed_fields` has them.
    """
    datasets = {}
    for name, field in fields.items():
        tail, dtype = field.tail, field.dtype
        options: dict[str, Any] = {"track_times": False, "fillvalue": field.missing}
        if total and compression is not None:
            small = dtype.itemsize * int(np.prod(tail)) < _SMALL_ROW
            options |= {
                "chunks": (min(total, _SMALL_CHUNK) if small else 1, *tail),
                "compression": "gzip",
                "compression_opts": compression,
                "shuffle": dtype.itemsize > 1,
            }
        datasets[name] = file.create_dataset(name, (total, *tail), dtype, **options)
        describe(datasets[name], name, field.meaning)
    return datasets


def describe(dataset: h5py.Dataset, name: str, meaning: str) -> None:
    """Say in a frame dataset's attributes what it and its columns are."""
    dataset.attrs["meaning"] = meaning
    if name in COLUMN_NAMES:
        dataset.attrs["names"] = list(COLUMN_NAMES[name])


def write_frames(
    datasets: Mapping[str, h5py.Dataset], start: int, length: int, blocks: Blocks
) -> dict[str, bytes]:
    """Write one video's frames at rows `start` to `start + length`; answers a hash per dataset, for `data_hash`.

    Raises ValueError when the blocks hold fewer or more frames than `length`.
    """
    hashes = {name: hashlib.sha256() for name in datasets}
    done = 0
    for block in blocks:
        count = len(block["frames"])
        if done + count > length:
            raise ValueError(f"more frames than the {length} announced.")
        for name, dataset in datasets.items():
            values = np.ascontiguousarray(block[name], dtype=dataset.dtype)
            dataset[start + done : start + done + count] = values
            hashes[name].update(values.tobytes())
        done += count
    if done != length:
        raise ValueError(f"{done} frames where {length} were announced.")
    return {name: running.digest() for name, running in hashes.items()}


def data_hash(hashes: Mapping[str, bytes], names: Iterable[str]) -> str:
    """One hex digest over a video's arrays: from the sha256 of each of its datasets `names`, in their order."""
    joined = hashlib.sha256()
    for name in names:
        joined.update(name.encode() + b"\0" + hashes[name])
    return joined.hexdigest()


def array_hash(blocks: Iterable[np.ndarray]) -> bytes:
    """sha256 of one dataset of a video, given in consecutive blocks; their sizes do not matter."""
    running = hashlib.sha256()
    for block in blocks:
        running.update(np.ascontiguousarray(block).tobytes())
    return running.digest()


def write_columns(group: h5py.Group, kinds: Mapping[str, str], columns: Mapping[str, Sequence[Any]]) -> None:
    """One dataset per column; `kinds` maps its name to "str" or a NumPy dtype. Further columns are written as they
    were read."""
    for name in (*kinds, *(name for name in columns if name not in kinds)):
        values = columns[name]
        kind = kinds.get(name) or column_kind(values)
        if kind == "str":
            dataset = group.create_dataset(
                name, (len(values),), h5py.string_dtype("utf-8"), track_times=False
            )
            if len(values):
                data = np.empty(len(values), object)
                data[:] = [to_bytes(str(value)) for value in values]
                dataset[:] = data
        else:
            group.create_dataset(name, data=np.asarray(values, dtype=kind), track_times=False)


def column_kind(column: Any) -> str:
    """ "str" or the NumPy dtype of a column as it was read."""
    return column.dtype.str if isinstance(column, np.ndarray) else "str"


@dataclasses.dataclass(frozen=True, slots=True)
class Provenance:
    """How the faces of a file were made.

    Attributes:
        config: the settings.
        versions: of the libraries.
        model_sha256: hash of the landmark networks.
    """

    config: PrepConfig
    versions: Mapping[str, str]
    model_sha256: str


def write_identity(
    file: h5py.File, kind: str, uuid: str, made: Provenance, fields: Iterable[str], **more: Any
) -> None:
    """Root attributes that every file of ours has: what it is, how it was made, and its frame datasets."""
    file.attrs["format"] = FORMAT
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["kind"] = kind
    file.attrs["uuid"] = uuid
    config = made.config
    file.attrs["config"] = json.dumps(config.to_dict(), sort_keys=True)
    file.attrs["fingerprint"] = config.fingerprint()
    # Every parameter once more under its own name, for people who look with h5ls or h5py.
    for name, value in dataclasses.asdict(config).items():
        file.attrs[name] = value
    file.attrs["fields"] = " ".join(fields)
    file.attrs["versions"] = json.dumps(dict(made.versions), sort_keys=True)
    file.attrs["model_sha256"] = made.model_sha256
    for name, value in more.items():
        file.attrs[name] = value


def read_identity(file: h5py.File) -> dict[str, Any]:
    """Root attributes as plain Python values; others than numbers and texts are passed over.

    Raises:
        NemoError: it is not ours, or newer.
    """
    path = file.filename
    if file.mode == "r":
        check_texts(Path(path))
    attributes: dict[str, Any] = {}
    for name in file.attrs:
        if file.attrs.get_id(name).shape != ():
            continue
        value = file.attrs[name]
        if isinstance(value, bytes):
            value = to_text(value)
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, (str, int, float)):
            attributes[name] = value
    if attributes.get("format") != FORMAT:
        raise DataError(
            f"{path} is HDF5, but no file of `nemo prep`: its attribute `format` is not {FORMAT!r}.", path
        )
    lost = [name for name in ("kind", "uuid", "config") if not isinstance(attributes.get(name), str)]
    if lost:
        raise DamagedFile(path, f"its attribute {lost[0]}", "is missing or no text")
    version = attributes.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise DataError(f"{path} states no format version; it is damaged.", path)
    if version > FORMAT_VERSION:
        raise DataError(
            f"{path} has format version {version}, and this nemo reads up to {FORMAT_VERSION}: update nemo.",
            path,
        )
    return attributes


def read_config(attributes: Mapping[str, Any], path: str | Path) -> PrepConfig:
    """The settings kept in a file's attributes. Raises NemoError when they are unreadable."""
    try:
        return PrepConfig.from_dict(json.loads(attributes["config"]), strict=False)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} holds settings that this nemo does not understand ({error}).", path
        ) from None


def read_versions(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Library versions kept in a file's attributes; empty when unreadable."""
    try:
        return {str(k): str(v) for k, v in json.loads(attributes.get("versions", "{}")).items()}
    except (AttributeError, TypeError, ValueError, RecursionError):
        return {}
