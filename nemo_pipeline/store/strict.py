"""Untrusted HDF5 files: what they declare is checked before it is used; every error is of one type.

A damaged or hostile file may declare more data than it holds, keep data in other files, link to them, ask for filters
that load code, or break HDF5's own structures. What `nemo_pipeline.store` reads goes through here. The HDF5 library is
C and can crash on some files all the same: `nemo verify` and `nemo info` therefore open files in a process of their
own (`nemo_pipeline.store.isolated`).
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from nemo_pipeline.errors import DamagedFile, NemoError
from nemo_pipeline.store.files import is_disk_full

#: What HDF5, h5py and NumPy raise on files that are not what they seem.
_ERRORS = (
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    ArithmeticError,
    MemoryError,
    AttributeError,
)
#: gzip, with or without its shuffling of bytes. Other filters would load code from where the environment says.
_FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE)
#: gzip makes at most this much of a byte.
_INFLATION = 1040
#: Largest chunk, bytes: ours are one frame, or 1024 small rows.
_LARGEST_CHUNK = 32 << 20
#: A text of variable length in a dataset: its length, and where in the file it is.
_TEXT_BYTES = 16
#: In a heap: number of the object and, after references and padding, its length.
_HEAP_OBJECT = struct.Struct("<H6xQ")
_LARGEST_HEAP = 1 << 30
#: Bytes at each end of a file in which heaps are looked for.
_ENDS = 1 << 20


@contextlib.contextmanager
def reading(path: Path | str, what: str = "") -> Iterator[None]:
    """Read within: whatever HDF5 raises becomes DamagedFile. `what`: the dataset, "" for the file's structure."""
    try:
        yield
    except NemoError:
        raise
    except _ERRORS as error:
        if isinstance(error, PermissionError) or is_disk_full(error):
            raise
        reason = str(error) or type(error).__name__
        raise DamagedFile(path, what, f"cannot be read ({reason})") from error


def member(group: h5py.Group, name: str) -> Any:
    """The object `name` of a group; None if there is none. Links to other files are not followed.

    Raises:
        DamagedFile: it is a link.
    """
    if name not in group.keys():  # noqa: SIM118 (`in group` follows links)
        return None
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise DamagedFile(
            group.file.filename, _inside(group, name), "is a link to elsewhere, which is not followed"
        )
    return group[name]


def dataset_in(group: h5py.Group, name: str, virtual: Collection[str] | None = None) -> h5py.Dataset | None:
    """The dataset `name` of a group, looked at before anything of it is read; None where there is no dataset.

    Args:
        virtual: names of the files that it may be a window into; None where it must hold its own data.

    Raises:
        DamagedFile: its data lie elsewhere, pass another filter than gzip, or are more than the file can hold.
    """
    dataset = member(group, name)
    if not isinstance(dataset, h5py.Dataset):
        return None
    if group.file.mode == "r" and (wrong := _wrong(dataset, virtual)):  # what is written just now is ours
        raise DamagedFile(group.file.filename, _inside(group, name), wrong)
    return dataset


def _wrong(dataset: h5py.Dataset, virtual: Collection[str] | None) -> str:
    """Why a dataset must not be read; "" if it is sound."""
    made = dataset.id.get_create_plist()
    layout = made.get_layout()
    if made.get_external_count():
        return "keeps its data in another file, which is not allowed"
    filters = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
    if not set(filters) <= set(_FILTERS):
        return "is compressed by another method than gzip, which is not read"
    if layout == h5py.h5d.VIRTUAL:
        if virtual is None:
            return "is a window into another file, where it must hold its own data"
        sources = {made.get_virtual_filename(i) for i in range(made.get_virtual_count())}
        return "" if sources <= set(virtual) else f"is a window into {min(sources - set(virtual))!r}"
    if virtual is not None:
        return ""
    file_size = Path(dataset.file.filename).stat().st_size
    text = _is_text(dataset)
    item = _TEXT_BYTES if text else dataset.id.get_type().get_size()
    wanted = math.prod(dataset.shape) * item
    held = dataset.id.get_storage_size()
    if layout == h5py.h5d.CHUNKED:
        chunk = math.prod(made.get_chunk()) * item
        most = held * (_INFLATION if filters else 1) + (chunk if filters else 0)
        if chunk > _LARGEST_CHUNK or wanted > most or held > file_size:
            return "declares more data than the file holds"
        # HDF5 writes chunks to where its table says that they belong, beyond the array if need be. The table is in
        # order, so the last one tells.
        if count := dataset.id.get_num_chunks():
            last = dataset.id.get_chunk_info(count - 1).chunk_offset
            if any(at >= side for at, side in zip(last, dataset.shape, strict=True)):
                return "has a table of chunks that is not of its shape"
    elif wanted != held or held > file_size:
        return "declares more data than the file holds"
    return _wrong_texts(dataset, file_size) if text else ""


def _is_text(dataset: h5py.Dataset) -> bool:
    found = h5py.check_string_dtype(dataset.dtype)
    return found is not None and found.length is None


def _wrong_texts(dataset: h5py.Dataset, file_size: int) -> str:
    """Texts of variable length: HDF5 would make room for the length that each one states."""
    if not dataset.shape or not math.prod(dataset.shape):
        return ""
    offset = dataset.id.get_offset()
    if offset is None:
        return "holds text in a way that is not read"
    with Path(dataset.file.filename).open("rb") as raw:
        raw.seek(offset)
        data = raw.read(_TEXT_BYTES * math.prod(dataset.shape))
        # Length, address of the heap, number in the heap.
        rows = np.frombuffer(data, np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")]))
        if len(rows) < math.prod(dataset.shape) or int(rows["length"].sum(dtype=np.uint64)) > file_size:
            return "states texts longer than the file"
        heaps = np.unique(rows["heap"][rows["length"] > 0])
        heaps = heaps[(heaps >= _ENDS) & (heaps < max(0, file_size - _ENDS))]  # the others: `check_texts`
        sound = all(_sound_heap(raw, int(at)) for at in heaps)
    return "" if sound else "keeps its texts in a damaged heap"


def check_texts(path: Path) -> None:
    """Look at the heaps at both ends of a file, where the texts of its attributes are. Raises DamagedFile."""
    with path.open("rb") as raw:
        for start in {0, max(0, path.stat().st_size - _ENDS)}:
            raw.seek(start)
            data, at = raw.read(_ENDS), -1
            while (at := data.find(b"GCOL\1\0\0\0", at + 1)) >= 0:
                if not _sound_heap(raw, start + at):
                    raise DamagedFile(path, "", "has a damaged heap of texts")


def _sound_heap(raw: IO[bytes], at: int) -> bool:
    """Whether the objects of a global heap lie end to end in it: over a gap of no length, HDF5 would run forever."""
    raw.seek(at)
    head = raw.read(16)
    size = int.from_bytes(head[8:16], "little")
    if head[:4] != b"GCOL" or not 16 <= size <= _LARGEST_HEAP:
        return False
    data, place, unpack = raw.read(size - 16), 0, _HEAP_OBJECT.unpack_from
    end = len(data)
    while end - place >= 16:
        number, length = unpack(data, place)
        if number:  # padded to 8 bytes
            place += (length + 23) & ~7
        elif length < 16:  # free space, which counts its own header
            return False
        else:
            place += length
    return end == size - 16 and place <= end


def _inside(group: h5py.Group, name: str) -> str:
    return f"{(group.name or '').rstrip('/')}/{name}"
