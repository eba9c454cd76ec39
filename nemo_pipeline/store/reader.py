"""`FaceDataset`: out.h5 as a mapping from ids to videos, with labels, read straight from the shards.

HDF5's own virtual datasets read as zeros when a shard is missing and look for it in the current folder too.
This reader finds the shards itself, in the folder of the real out.h5, and compares the uuid stored on both sides.
"""

from __future__ import annotations

import dataclasses
import operator
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import DamagedFile, DataError
from nemo_pipeline.geometry import Template
from nemo_pipeline.status import Status
from nemo_pipeline.store.face_video import FaceVideo as FaceVideo
from nemo_pipeline.store.files import open_h5
from nemo_pipeline.store.index import LAYOUT_COLUMNS, SHARD_TABLE
from nemo_pipeline.store.schema import FRAME_FIELDS, VIDEO_COLUMNS, FieldType
from nemo_pipeline.store.sealed import CHANGED, read_tables
from nemo_pipeline.store.shard import is_shard_name, shards_folder
from nemo_pipeline.store.strict import dataset_in, reading
from nemo_pipeline.store.tables import read_config, read_identity, read_versions, stored_fields, typed_fields
from nemo_pipeline.store.text import to_bytes

#: Shards kept open at the same time, per process: opening one costs as much as reading 500 faces, and a process may
#: usually have 1,024 files open.
_OPEN_SHARDS = 256


class FaceDataset(Mapping[str, "FaceVideo"]):
    """The videos of an out.h5 (or of a file made by `nemo pack`): a mapping from ids to `FaceVideo`.

    Iteration, `len`, `keys()`, `values()` and `items()` are about the videos that have frames, in the file's order.
    A video can be looked up by its id, by the name of its file, or by its row in /videos (`usable` lists those with
    frames, `rows` all); ones that failed are found too, with their status and message, and `failed` lists their ids.

    No file stays open after construction; shards are opened on first read, per process, so that the object may be
    pickled, forked and used by DataLoader workers. `close()`, or the end of a `with` block, closes them.

    Args:
        path: the file that `nemo prep` or `nemo pack` wrote, or a symbolic link to it.
        check: check at once that all shards exist (their uuids are compared when they are opened).
        changed: also open a file whose tables were modified, to report what is wrong with it.

    Attributes:
        path: the real path.
        videos: column name -> list of str, or array of length V; the columns of /videos. Columns unknown to
            this version come last.
        fields: name -> type of the frame datasets that it has.
        mean_shape: (68,2) float64, unitless.
        triangles: (K,3) int32, indices into the 68 points.
        config: the settings it was made with.
        attributes: root attributes.
        unchanged: whether its tables are as they were written.

    Examples:
        >>> from nemo_pipeline import FaceDataset
        >>> faces = FaceDataset("smiles.h5")
        >>> len(faces), faces.videos["age"].shape
        (16, (16,))
        >>> video = faces["000_0"]
        >>> video.subject, video.frames.shape[1:]
        ('s000', (70, 70))

    Raises:
        NemoError: the file is missing, damaged, not a nemo file or of a newer version; a shard is missing
            or belongs to another file.
    """

    def __init__(self, path: str | os.PathLike[str], check: bool = True, *, changed: bool = False) -> None:
        self.path = Path(os.path.realpath(path))
        with open_h5(self.path) as file, reading(self.path):
            tables = read_tables(file)
            self.attributes: dict[str, Any] = tables.attributes
            kind = self.attributes.get("kind")
            if kind == "shard":
                raise DataError(
                    f"{self.path} is one shard of a larger file; "
                    f"open the .h5 next to the folder {self.path.parent.name}.",
                    self.path,
                )
            if kind not in ("index", "packed"):
                raise DataError(f"{self.path} is of the unknown kind {kind!r}; update nemo.", self.path)
            self.packed: bool = kind == "packed"
            self.videos: dict[str, Any] = tables.columns("videos", VIDEO_COLUMNS)
            self.layout: dict[str, Any] = tables.columns("layout", LAYOUT_COLUMNS)
            self.shards: dict[str, Any] = tables.columns("shards", SHARD_TABLE)
            self.mean_shape: np.ndarray = tables.array("mean_shape", "<f8")
            self.triangles: np.ndarray = tables.array("triangles", "<i4")
            if not self.packed:
                self._check_names()
            self.unchanged = tables.unchanged()
            if not (changed or self.unchanged):
                raise DamagedFile(self.path, "", CHANGED)
            self.config: PrepConfig = read_config(self.attributes, self.path)
            sources = None if self.packed else self.sources
            self.fields: dict[str, FieldType] = stored_fields(file, self.attributes, self.config, sources)
        self.rows: range = range(len(self.videos["id"]))
        self._start, self._length = self.videos["start"], self.videos["length"]  # as stored
        self._by_name = self._names()
        self._handles: OrderedDict[str, _Held] = OrderedDict()
        self._pid = os.getpid()
        if len(self.layout["shard"]) != len(self.rows):
            raise DamagedFile(self.path, "/layout", "has another number of rows than /videos")
        if not (changed or self.in_order):
            raise DamagedFile(self.path, "/videos/start", "and the lengths do not lie end to end")
        if not self.packed and check:
            self.check_shards_exist()

    @property
    def uuid(self) -> str:
        """Changes whenever the file is written again."""
        return str(self.attributes["uuid"])

    @property
    def size(self) -> int:
        """Side of the square faces, pixels."""
        return self.config.size

    @property
    def in_order(self) -> bool:
        """Whether the frames of the videos are stored end to end, as `start` and `length` say."""
        start, length = self.videos["start"], self.videos["length"]
        return bool((length >= 0).all() and (start == np.cumsum(length) - length).all())

    @property
    def landmarks_in_crop(self) -> np.ndarray:
        """(68,2) float64: where the landmarks lie in every face of `frames`, pixels of the face, x then y."""
        with reading(self.path, "/mean_shape"):
            return Template(self.mean_shape, self.triangles, self.size, self.config.margin).landmarks

    @property
    def synthetic(self) -> bool:
        """Whether the faces are generated: what is learned from them says nothing about people."""
        return bool(self.attributes.get("synthetic", False))

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the libraries that wrote it."""
        return read_versions(self.attributes)

    @property
    def usable(self) -> list[int]:
        """Rows of /videos that have frames."""
        return [int(i) for i in np.flatnonzero(self.videos["length"] > 0)]

    @property
    def ids(self) -> list[str]:
        """Ids of the videos that have frames, in the file's order: the keys."""
        return [self.videos["id"][row] for row in self.usable]

    def table(self, *, frames: bool = False) -> Any:
        """The columns of /videos, a row per video; with `frames`, a row per frame of every video
        (`nemo_pipeline.frame_table.frame_columns`). A DataFrame with pandas, else a dictionary of columns."""
        if frames:
            from nemo_pipeline.frame_table import frame_table

            columns = frame_table(self)
        else:
            columns = dict(self.videos)
        try:
            import pandas
        except ImportError:
            return columns
        return pandas.DataFrame(columns)

    @property
    def failed(self) -> list[str]:
        """Ids of the videos that have no frames; their `message` says why."""
        return [self.videos["id"][row] for row in np.flatnonzero(self.videos["length"] <= 0)]

    @property
    def shards_folder(self) -> Path:
        """The real folder of the shards: the one named in the index, or else the one named like it today."""
        stored = self.attributes.get("shards_folder", "")
        if isinstance(stored, str) and stored and "/" not in stored and stored not in (".", ".."):
            named = self.path.parent / os.fsdecode(to_bytes(stored))
            if named.is_dir():
                return named
        return shards_folder(self.path)

    def _names(self) -> dict[str, list[int]]:
        """Every name of a video -> its rows: the id, or else the file with or without its folders."""
        names: dict[str, list[int]] = {}
        for column in (self.videos["file"], [file.rsplit("/", 1)[-1] for file in self.videos["file"]]):
            found: dict[str, list[int]] = {}
            for row, name in enumerate(column):
                found.setdefault(name, []).append(row)
            names = found | names
        return names | {name: [row] for row, name in enumerate(self.videos["id"])}

    def __len__(self) -> int:
        return len(self.usable)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and len(self._by_name.get(key, ())) == 1

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, key: int | str) -> FaceVideo:
        if isinstance(key, str):
            found = self._by_name.get(key, [])
            if not found:
                raise KeyError(f"no video has the id or the file name {key!r} in {self.path}.")
            if len(found) > 1:
                names = ", ".join(repr(self.videos["id"][row]) for row in found[:5])
                raise KeyError(
                    f"{key!r} means {len(found)} videos in {self.path}: name one by its id ({names})."
                )
            key = found[0]
        try:
            # As a list does it: a single integer of NumPy or torch (one of `randperm`) is a number too.
            number = None if isinstance(key, bool) else operator.index(key)
        except TypeError:
            number = None
        if number is None:
            raise TypeError(
                f"a video is named by its id, its file or its row, not by {key!r}; `ids` lists ids, `usable` rows."
            )
        if not -len(self.rows) <= number < len(self.rows):
            raise IndexError(f"{self.path} has {len(self.rows)} videos; there is no row {number}.")
        key = number % len(self.rows)
        columns = (
            (f.name, self.videos[f.name]) for f in dataclasses.fields(FaceVideo) if f.name in self.videos
        )
        values = {n: c[key].item() if isinstance(c, np.ndarray) else c[key] for n, c in columns}
        values["status"] = Status.read(values["status"])
        return FaceVideo(self, key, **values)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __repr__(self) -> str:
        return (
            f"FaceDataset({str(self.path)!r}: {len(self)} of {len(self.rows)} videos usable, "
            f"{int(self.videos['length'].sum())} frames of {self.size}x{self.size})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": OrderedDict()}

    def close(self) -> None:
        """Close the shards that this process has open. Reading opens them again."""
        if self._pid == os.getpid():
            for held in self._handles.values():
                held.file.close()
        self._handles = OrderedDict()

    def read(self, row: int, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Frames `start` to `stop` (half-open, within the video) of dataset `name`, for the video `row`.

        A dataset that did not exist when the file was written is filled with the schema's `missing`.
        """
        field = self.fields.get(name)
        if field is None and name in FRAME_FIELDS and FRAME_FIELDS[name].missing is not None:
            field = typed_fields([name], self.size)[name]
        if field is None:
            raise KeyError(
                f"{name!r} is not a frame dataset of {self.path}; it has {', '.join(self.fields)}."
            )
        length = max(0, int(self._length[row]))
        start, stop, _ = slice(start, stop).indices(length)
        dtype, tail = field.dtype, field.tail
        if stop <= start:
            return np.zeros((0, *tail), dtype)
        if name not in self.fields:
            return np.full((stop - start, *tail), field.missing, dtype)
        held, first = self._open(row)
        if name not in held.fields and field.missing is not None:
            return np.full((stop - start, *tail), field.missing, dtype)
        with reading(held.file.filename, f"/{name}"):
            dataset = held.dataset(name)
            if dataset is None or dataset.shape[1:] != tail or dataset.dtype != dtype:
                wrong = "is missing, or of another type or size than its index says"
                raise DamagedFile(held.file.filename, f"/{name}", wrong)
            if not 0 <= first <= first + length <= dataset.shape[0]:
                raise DamagedFile(
                    held.file.filename, f"/{name}", "does not hold the frames that its index says"
                )
            return dataset[first + start : first + stop]

    def written_fields(self, row: int) -> list[str]:
        """The frame datasets written for the video `row`, over which its hash is computed."""
        return list(self._open(row)[0].fields)

    def shard_path(self, number: int) -> Path:
        """Path of shard `number` (a row of /shards)."""
        return self.shards_folder / self.shards["name"][number]

    def check_shards_exist(self) -> None:
        """Raise NemoError naming the shards that are missing."""
        missing = [n for i, n in enumerate(self.shards["name"]) if not self.shard_path(i).is_file()]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise DataError(
                f"{self.path} needs {self.shards_folder / missing[0]}{more}, which is not there: "
                f"move the folder {self.shards_folder.name} together with the .h5, or run `nemo prep` again.",
                self.path,
            )

    @property
    def sources(self) -> set[str]:
        """Paths of the shards as stored in the index, for code that reads its frame datasets directly."""
        # HDF5 reads source names like printf: a percent sign is doubled.
        return {f"{self.shards_folder.name}/{name}".replace("%", "%%") for name in self.shards["name"]}

    def _check_names(self) -> None:
        for name in self.shards["name"]:
            if not is_shard_name(name):
                raise DataError(
                    f"{self.path} names the shard {name!r}, which would lie outside its shards folder.",
                    self.path,
                )
        numbers = self.layout["shard"]
        if len(numbers) and not (numbers.min() >= 0 and numbers.max() < len(self.shards["name"])):
            raise DamagedFile(self.path, "/layout/shard", "names a shard that is not listed")

    def _open(self, row: int) -> tuple[_Held, int]:
        """The open file that holds `row`, and its first row there."""
        if self._pid != os.getpid():
            # Forked: the parent's handles are not ours to close, only to forget.
            self._handles, self._pid = OrderedDict(), os.getpid()
        if self.packed:
            path, expected, first = self.path, self.attributes["uuid"], int(self._start[row])
        else:
            number = int(self.layout["shard"][row])
            path, expected = self.shard_path(number), self.shards["uuid"][number]
            first = int(self.layout["shard_start"][row])
        key = str(path)
        if key in self._handles:
            self._handles.move_to_end(key)
            return self._handles[key], first
        if not path.is_file():
            self.check_shards_exist()
        file = open_h5(path)
        try:
            with reading(path):
                attributes = read_identity(file)
                if attributes.get("uuid") != expected:
                    raise DataError(
                        f"{path} is not the shard that {self.path} was made with (another file took its name): "
                        "restore it, or run `nemo prep` again."
                        if not self.packed
                        else f"{path} was replaced while it was open; open it again.",
                        path,
                    )
                held = _Held(file, stored_fields(file, attributes, self.config))
        except BaseException:
            file.close()
            raise
        self._handles[key] = held
        while len(self._handles) > _OPEN_SHARDS:
            self._handles.popitem(last=False)[1].file.close()
        return held, first


@dataclasses.dataclass(frozen=True, slots=True)
class _Held:
    """A file that is kept open: its frame datasets, those that were looked at already by name."""

    file: h5py.File
    fields: dict[str, FieldType]
    seen: dict[str, h5py.Dataset | None] = dataclasses.field(default_factory=dict)

    def dataset(self, name: str) -> h5py.Dataset | None:
        """A dataset that may be read; None if there is none. Raises DamagedFile."""
        if name not in self.seen:
            self.seen[name] = dataset_in(self.file, name)
        return self.seen[name]
