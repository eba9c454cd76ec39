"""Columns of values and blocks of frames, into an open HDF5 file and out of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import NemoError
from nemo_pipeline.store.schema import FORMAT, FORMAT_VERSION, FRAME_FIELDS
from nemo_pipeline.store.text import to_bytes, to_text

#: Rows smaller than this many bytes are chunked by the thousand: a chunk of 8 bytes costs more than it holds.
_SMALL_ROW = 256
_SMALL_CHUNK = 1024

Blocks = Iterable[Mapping[str, np.ndarray] | np.ndarray]


def frame_fields(mesh: bool) -> list[str]:
    """Names of the frame datasets that a file with or without the mesh has, in the schema's order."""
    return [name for name in FRAME_FIELDS if mesh or name != "mesh"]


def row_shape(name: str, size: int) -> tuple[int, ...]:
    """Shape of one frame's row in dataset `name` for crops of `size` pixels."""
    return tuple(size if n is None else n for n in FRAME_FIELDS[name].tail)


def create_frame_datasets(
    file: h5py.File, total: int, size: int, mesh: bool, compression: int | None = None
) -> dict[str, h5py.Dataset]:
    """Empty frame datasets for `total` frames: chunks of one frame, gzip level `compression` or none."""
    datasets = {}
    for name in frame_fields(mesh):
        tail = row_shape(name, size)
        dtype = np.dtype(FRAME_FIELDS[name].dtype)
        options: dict[str, Any] = {"track_times": False}
        if total:
            small = dtype.itemsize * int(np.prod(tail)) < _SMALL_ROW
            options["chunks"] = (min(total, _SMALL_CHUNK) if small else 1, *tail)
            if compression is not None:
                options |= {
                    "compression": "gzip",
                    "compression_opts": compression,
                    "shuffle": dtype.itemsize > 1,
                }
        datasets[name] = file.create_dataset(name, (total, *tail), dtype, **options)
        datasets[name].attrs["meaning"] = FRAME_FIELDS[name].meaning
    return datasets


def write_frames(datasets: Mapping[str, h5py.Dataset], start: int, length: int, blocks: Blocks) -> str:
    """Write one video's frames at rows `start` to `start + length`; answers the content's hash (`data_hash`).

    Raises ValueError when the blocks hold fewer or more frames than `length`.
    """
    hashes = {name: hashlib.sha256() for name in datasets}
    done = 0
    for block in blocks:
        count = len(block["frames"])
        if done + count > length:
            raise ValueError(f"more frames than the {length} announced.")
        for name, dataset in datasets.items():
            values = np.ascontiguousarray(block[name], dtype=np.dtype(FRAME_FIELDS[name].dtype))
            dataset[start + done : start + done + count] = values
            hashes[name].update(values.tobytes())
        done += count
    if done != length:
        raise ValueError(f"{done} frames where {length} were announced.")
    return join_hashes(hashes)


def join_hashes(hashes: Mapping[str, Any]) -> str:
    """One hex digest from one running hash per frame dataset."""
    joined = hashlib.sha256()
    for name in FRAME_FIELDS:
        if name in hashes:
            joined.update(name.encode() + b"\0" + hashes[name].digest())
    return joined.hexdigest()


def data_hash(arrays: Iterable[tuple[str, Iterable[np.ndarray]]]) -> str:
    """Hash of a video's arrays, given as (dataset, its consecutive blocks); block sizes do not matter."""
    hashes = {}
    for name, blocks in arrays:
        hashes[name] = hashlib.sha256()
        for block in blocks:
            hashes[name].update(
                np.ascontiguousarray(block, dtype=np.dtype(FRAME_FIELDS[name].dtype)).tobytes()
            )
    return join_hashes(hashes)


def write_columns(group: h5py.Group, kinds: Mapping[str, str], columns: Mapping[str, Sequence[Any]]) -> None:
    """One dataset per column; `kinds` maps its name to "str" or a NumPy dtype."""
    for name, kind in kinds.items():
        values = columns[name]
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


def read_columns(group: h5py.Group, kinds: Mapping[str, str]) -> dict[str, Any]:
    """The inverse: lists of str for "str", arrays otherwise. Raises NemoError for an ill-formed column."""
    columns: dict[str, Any] = {}
    length = None
    for name, kind in kinds.items():
        dataset = group.get(name)
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1:
            raise NemoError(
                f"{group.file.filename} has no column {group.name}/{name}; it is damaged or of another kind."
            )
        if dataset.external:
            raise NemoError(
                f"{group.file.filename} keeps {group.name}/{name} in another file, which is not allowed."
            )
        if length is not None and dataset.shape[0] != length:
            raise NemoError(f"{group.file.filename} has columns of different lengths in {group.name}.")
        length = dataset.shape[0]
        if kind == "str":
            values = dataset[()]
            columns[name] = [to_text(v) if isinstance(v, bytes) else str(v) for v in values]
        else:
            columns[name] = np.asarray(dataset[()], dtype=kind)
    return columns


def write_identity(
    file: h5py.File,
    kind: str,
    uuid: str,
    config: PrepConfig,
    versions: Mapping[str, str],
    model_sha256: str,
    **more: Any,
) -> None:
    """Root attributes that every file of ours has: what it is and how it was made."""
    file.attrs["format"] = FORMAT
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["kind"] = kind
    file.attrs["uuid"] = uuid
    file.attrs["config"] = json.dumps(config.to_dict(), sort_keys=True)
    file.attrs["fingerprint"] = config.fingerprint()
    # Every parameter once more under its own name, for people who look with h5ls or h5py.
    for name, value in config.to_dict().items():
        file.attrs[name] = value
    file.attrs["versions"] = json.dumps(dict(versions), sort_keys=True)
    file.attrs["model_sha256"] = model_sha256
    for name, value in more.items():
        file.attrs[name] = value


def read_identity(file: h5py.File) -> dict[str, Any]:
    """Root attributes as plain Python values. Raises NemoError when it is not ours, or newer."""
    path = file.filename
    attributes: dict[str, Any] = {}
    for name, value in file.attrs.items():
        if isinstance(value, bytes):
            value = to_text(value)
        attributes[name] = value.item() if isinstance(value, np.generic) else value
    if attributes.get("format") != FORMAT:
        raise NemoError(
            f"{path} is HDF5, but no file of `nemo prep`: its attribute `format` is not {FORMAT!r}."
        )
    version = attributes.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise NemoError(f"{path} states no format version; it is damaged.")
    if version > FORMAT_VERSION:
        raise NemoError(
            f"{path} has format version {version}, and this nemo reads up to {FORMAT_VERSION}: update nemo."
        )
    return attributes


def config_of(attributes: Mapping[str, Any], path: object) -> PrepConfig:
    """The settings kept in a file's attributes. Raises NemoError when they are unreadable."""
    try:
        return PrepConfig.from_dict(json.loads(attributes["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise NemoError(f"{path} holds settings that this nemo does not understand ({error}).") from None


def versions_of(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Library versions kept in a file's attributes; empty when unreadable."""
    try:
        return {str(k): str(v) for k, v in json.loads(attributes.get("versions", "{}")).items()}
    except (AttributeError, TypeError, ValueError):
        return {}
