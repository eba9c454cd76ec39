"""The tables of a prepared file, and the digest that shows whether they are as written.

The digest covers the root attributes, every column, the mean shape and the triangles. Frames have a hash of their own
for each video, in those columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from nemo_pipeline.errors import DamagedFile
from nemo_pipeline.store.schema import ADDED_COLUMNS
from nemo_pipeline.store.strict import dataset_in, member
from nemo_pipeline.store.tables import read_identity
from nemo_pipeline.store.text import to_text

#: The root attribute that holds the digest.
DIGEST = "digest"
CHANGED = "holds other tables or attributes than were written (their digest is another)"
_GROUPS = ("videos", "layout", "shards")
_ARRAYS = ("mean_shape", "triangles")


class Tables(NamedTuple):
    """What a file holds besides frames: root attributes, and each column or array by its path, as it is stored."""

    path: Path
    attributes: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def digest(self) -> str:
        """sha256 over attributes and arrays, names, types and shapes included; hex."""
        running = hashlib.sha256()
        for name, value in sorted(self.attributes.items()):
            if name != DIGEST:
                running.update(f"{name}\0{type(value).__name__}\0{value!r}\n".encode())
        for name, array in sorted(self.arrays.items()):
            text = array.dtype.kind == "O"
            running.update(f"{name}\0{'text' if text else array.dtype.str}\0{array.shape}\n".encode())
            if text:
                cells = array.ravel().tolist()
                running.update(np.array(list(map(len, cells)), "<u4").tobytes())
                running.update(b"".join(cells))
            else:
                running.update(np.ascontiguousarray(array).tobytes())
        return running.hexdigest()

    def unchanged(self) -> bool:
        """Whether they are what was written. Files of the first version have no digest, and no `fields` either: nothing
        speaks against them."""
        stored = self.attributes.get(DIGEST)
        return stored == self.digest() or (stored is None and "fields" not in self.attributes)

    def columns(self, group: str, kinds: Mapping[str, str]) -> dict[str, Any]:
        """The columns of a group: lists of str for "str", arrays otherwise.

        Columns that earlier versions did not have (`schema.ADDED_COLUMNS`) are filled in, those of later versions
        follow the known ones.

        Raises:
            DamagedFile: a column is missing or ill-formed.
        """
        stored = {
            name.split("/", 1)[1]: array
            for name, array in self.arrays.items()
            if name.startswith(f"{group}/")
        }
        length = max((len(array) for array in stored.values()), default=0)
        columns: dict[str, Any] = {}
        for name in (*kinds, *(name for name in stored if name not in kinds)):
            array, kind = stored.get(name), kinds.get(name)
            if array is None and name in ADDED_COLUMNS:
                values = [ADDED_COLUMNS[name]] * length
                columns[name] = values if kind == "str" else np.array(values, dtype=kind)
            elif array is None or len(array) != length:
                raise DamagedFile(
                    self.path, f"/{group}/{name}", "is missing, or of another length than its neighbours"
                )
            elif array.dtype.kind == "O":
                columns[name] = [to_text(cell) for cell in array]
            else:
                columns[name] = array
            if array is not None and kind is not None and not _fits(array, kind):
                raise DamagedFile(self.path, f"/{group}/{name}", f"is of the type {array.dtype}, not {kind}")
            if array is not None and kind not in (None, "str"):
                columns[name] = array.astype(kind)
        return columns

    def array(self, name: str, kind: str) -> np.ndarray:
        """/mean_shape or /triangles. Raises DamagedFile."""
        array = self.arrays.get(name)
        if array is None or array.ndim != 2 or not _fits(array, kind):
            raise DamagedFile(self.path, f"/{name}", "is missing or no table of numbers")
        return array.astype(kind)


def _fits(array: np.ndarray, kind: str) -> bool:
    if kind == "str" or array.dtype.kind == "O":
        return kind == "str" and array.dtype.kind == "O"
    return np.can_cast(array.dtype, kind, "same_kind")


def read_tables(file: h5py.File) -> Tables:
    """The tables of an open file. To be called within `strict.reading`.

    Raises:
        NemoError: it is not a file of ours, or of a newer version.
        DamagedFile: a column cannot be what it says.
    """
    attributes = read_identity(file)
    arrays: dict[str, np.ndarray] = {}
    for group_name in _GROUPS:
        group = member(file, group_name)
        for name in group.keys() if isinstance(group, h5py.Group) else ():
            _read(arrays, group, name, f"{group_name}/{name}", 1)
    for name in _ARRAYS:
        _read(arrays, file, name, name, 2)
    return Tables(Path(file.filename), attributes, arrays)


def _read(arrays: dict[str, np.ndarray], group: h5py.Group, name: str, path: str, ndim: int) -> None:
    """Add a dataset to `arrays`; what is not a plain column of numbers or texts is passed over."""
    dataset = dataset_in(group, name)
    if dataset is None or dataset.ndim != ndim:
        return
    text = h5py.check_string_dtype(dataset.dtype)
    if dataset.dtype.kind in "biuf":
        arrays[path] = dataset[()]
    elif text is not None:
        arrays[path] = dataset[()].astype(object)


def seal(file: h5py.File) -> None:
    """Give a file that is open for writing the digest of what is in it now."""
    file.flush()
    file.attrs[DIGEST] = read_tables(file).digest()
