"""A prepared file without what was marked: `open_marked`.

Clips that are marked as a whole have no frames and the status `excluded`. Frames of a marked range are left out as if
they had never been kept, and what is left is joined; a clip of which fewer frames are left than `min_frames` of the
preparation is left out as a whole. Whoever reads the file through this sees nothing else of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.fields import from_record, plain
from nemo_pipeline.marks import NONE, Mark, found_beside, read_marks
from nemo_pipeline.status import Status
from nemo_pipeline.store.reader import FaceDataset
from nemo_pipeline.store.text import escape_controls, listed, pluralize, to_bytes

#: Between the file's uuid and the digest of what is left out of it.
_JOINT = "+marks:"


@dataclasses.dataclass(frozen=True, slots=True)
class Exclusions:
    """What marks leave out of a prepared file.

    Attributes:
        file: of the marks, printable; "" where there is none.
        videos: left out as a whole.
        frames: left out of others.
        cut: those others.
        reasons: reason -> videos and ranges that were marked for it; "" where none was given.
        unknown: names in marks that the file does not have.
    """

    file: str = ""
    videos: int = 0
    frames: int = 0
    cut: int = 0
    reasons: dict[str, int] = dataclasses.field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is left out."""
        return bool(self.videos or self.cut)

    def counts(self) -> str:
        """ "2 videos and 34 frames of 3 others"; "nothing"."""
        parts = [pluralize(self.videos, "video")] if self.videos else []
        if self.cut:
            others = pluralize(self.cut, "other" if self.videos else "video")
            parts.append(f"{pluralize(self.frames, 'frame')} of {others}")
        return " and ".join(parts) or "nothing"

    def said(self) -> str:
        """The reasons with their counts: "blurred (2), hand on the face"."""
        named = [(escape_controls(reason) or "no reason", n) for reason, n in self.reasons.items()]
        return ", ".join(f"{reason} ({n})" if n > 1 else reason for reason, n in named)

    def __str__(self) -> str:
        """One line for the user of the file; "" without marks."""
        if not self.file:
            return ""
        why = f" ({self.said()})" if self.reasons else ""
        more = f" It names {listed(self.unknown)}, not in this file." if self.unknown else ""
        return f"Marks: {self.file} leaves out {self.counts()}{why}; `marks=none` ignores it.{more}"


class MarkedFaces(FaceDataset):
    """A prepared file without what `marks` leave out.

    Args:
        path: the prepared file.
        marks: what is left out.
        file: where the marks are from.

    Attributes:
        marks: those of videos that it has.
        exclusions: counts of what they leave out.

    Raises:
        NemoError: as `FaceDataset`.
    """

    def __init__(
        self, path: str | os.PathLike[str], marks: Sequence[Mark] = (), file: Path | None = None
    ) -> None:
        super().__init__(path)
        found = marks_by_row(self, marks)
        known = {id(mark) for own in found.values() for mark in own}
        self.marks = tuple(mark for mark in marks if id(mark) in known)
        unknown = tuple(dict.fromkeys(mark.video for mark in marks if id(mark) not in known))
        self._marks, self._kept = found, dict[int, np.ndarray]()
        columns = {name: self.videos[name] for name in ("length", "n_interpolated", "status", "message")}
        columns = {name: list(column) for name, column in columns.items()}
        whole = cut = frames = 0
        reasons: Counter[str] = Counter()
        for row, own in found.items():
            stored = int(self.videos["length"][row])
            kept = self._left(row, own)
            if stored <= 0 or len(kept) == stored:
                continue
            self._kept[row] = kept
            reasons.update(mark.reason for mark in own)
            columns["length"][row] = len(kept)
            if len(kept):
                cut, frames = cut + 1, frames + stored - len(kept)
                columns["n_interpolated"][row] = int((~super().read(row, "tracked")[kept]).sum())
            else:
                whole += 1
                columns["status"][row] = str(Status.EXCLUDED)
                why = "; ".join(dict.fromkeys(mark.reason for mark in own if mark.reason))
                columns["message"][row] = f"Excluded: {why or 'no reason given'}."
        digest = self._digest()
        self._uuid = f"{super().uuid}{_JOINT}{digest[:16]}" if digest else super().uuid
        self.videos = self.videos | {
            name: np.array(values, self.videos[name].dtype) if isinstance(self.videos[name], np.ndarray) else values
            for name, values in columns.items()
        }  # fmt: skip
        hashes = list(self.layout["data_sha256"])  # what a row holds: features are kept by it
        for row, kept in self._kept.items():
            hashes[row] = _digest_of(hashes[row], kept) if hashes[row] else ""
        self.layout = self.layout | {"data_sha256": hashes}
        self.videos["start"] = np.cumsum(self.videos["length"]) - self.videos["length"]
        self.exclusions = Exclusions(
            escape_controls(str(file)) if file is not None else "", whole, frames, cut,
            dict(reasons.most_common()), unknown,
        )  # fmt: skip

    @property
    def uuid(self) -> str:
        """That of the file; with what is left out, where anything is: other marks make other data."""
        return self._uuid

    def read(self, row: int, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """As `FaceDataset.read`, of the frames that are left."""
        kept = self._kept.get(int(row) % max(1, len(self.rows)))
        if kept is None:
            return super().read(row, name, start, stop)
        start, stop, _ = slice(start, stop).indices(len(kept))
        chosen = kept[start:stop]
        if not len(chosen):
            return super().read(row, name, 0, 0)
        first = int(chosen[0])
        return super().read(row, name, first, int(chosen[-1]) + 1)[chosen - first]

    def marks_of(self, row: int) -> list[Mark]:
        """The marks of a video."""
        return self._marks.get(row, [])

    def left_out(self, row: int) -> np.ndarray:
        """(T,) bool: which of the frames that the file has of a video are left out."""
        out = np.zeros(max(0, int(self._length[row])), bool)
        if row in self._kept:
            out[:] = True
            out[self._kept[row]] = False
        return out

    def same_frames(self, other: MarkedFaces, row: int) -> bool:
        """Whether the same frames of a video are left in another view of the same file."""
        mine, theirs = self._kept.get(row), other._kept.get(row)
        return mine is theirs or (mine is not None and theirs is not None and np.array_equal(mine, theirs))

    def _left(self, row: int, marks: Iterable[Mark]) -> np.ndarray:
        """Positions of a video's frames that no mark leaves out."""
        stored = int(self.videos["length"][row])
        if stored <= 0 or any(mark.whole for mark in marks):
            return np.zeros(0, np.int64)
        kept = np.flatnonzero(~marked_frames(super().read(row, "frame_index"), marks))
        return kept if len(kept) >= self.config.min_frames or len(kept) == stored else kept[:0]

    def _digest(self) -> str:
        """Of what is left out, however it was marked; "" where nothing is."""
        if not self._kept:
            return ""
        left = [_digest_of(self.videos["id"][row], kept) for row, kept in sorted(self._kept.items())]
        return hashlib.sha256(json.dumps(left, ensure_ascii=True).encode("ascii")).hexdigest()


def _digest_of(name: str, kept: np.ndarray) -> str:
    return hashlib.sha256(to_bytes(name) + b"\0" + kept.astype("<i8").tobytes()).hexdigest()


def file_uuid(uuid: str) -> str:
    """That of the file alone, whatever was left out of it."""
    return uuid.partition(_JOINT)[0]


def marked_frames(frame_index: np.ndarray, marks: Iterable[Mark]) -> np.ndarray:
    """(T,) bool: frames, given by their numbers in the source, that marks of their video leave out."""
    out = np.zeros(len(frame_index), bool)
    for mark in marks:
        inside = np.ones(len(frame_index), bool)
        if mark.start is not None:
            inside &= frame_index >= mark.start
        if mark.stop is not None:
            inside &= frame_index <= mark.stop
        out |= inside
    return out


def marks_by_row(data: FaceDataset, marks: Iterable[Mark]) -> dict[int, list[Mark]]:
    """Row of /videos -> its marks. A mark names a row by its id; or by the name or the file of its video, all rows of
    it."""
    marks = list(marks)
    if not marks:
        return {}
    columns = data.videos
    named: dict[str, list[int]] = {}
    for row in data.rows:
        names = {data[row].video_id, str(columns["file"][row])} - {""}
        for name in names:
            named.setdefault(name, []).append(row)
    named |= {str(name): [row] for row, name in enumerate(columns["id"])}
    found: dict[int, list[Mark]] = {}
    for mark in marks:
        for row in named.get(mark.video, ()):
            found.setdefault(row, []).append(mark)
    return found


def find_marks(
    data: str | os.PathLike[str], marks: str | os.PathLike[str] | None
) -> tuple[list[Mark], Path | None]:
    """The marks of a prepared file, and where they are from.

    Args:
        marks: a file; None: the one next to the data, if there is one; "none": none.

    Raises:
        DataError: the file cannot be read.
    """
    if marks is not None:
        return ([], None) if os.fspath(marks) == NONE else (read_marks(Path(marks)), Path(marks))
    path = found_beside(data)
    return (read_marks(path), path) if path is not None else ([], None)


def open_marked(path: str | os.PathLike[str], marks: str | os.PathLike[str] | None = None) -> MarkedFaces:
    """A prepared file without what was marked.

    Args:
        path: the prepared file.
        marks: a file of marks; None: the one next to the data, if there is one; "none": none.

    Examples:
        >>> from nemo_pipeline import open_marked
        >>> faces = open_marked("smiles.h5")
        >>> len(faces), faces.exclusions.counts()
        (16, 'nothing')

    Raises:
        NemoError: the file or the marks cannot be read.
    """
    found, file = find_marks(path, marks)
    return MarkedFaces(path, found, file)


def record_of_marks(data: FaceDataset) -> dict[str, Any] | None:
    """What a record of a run says of the marks; None where nothing is left out."""
    if not isinstance(data, MarkedFaces) or not data.exclusions:
        return None
    return plain(data.exclusions)


def read_record(record: Any) -> Exclusions:
    """The inverse of `record_of_marks`; nothing where the record is none, or damaged."""
    try:
        return from_record(Exclusions, record)
    except (TypeError, AttributeError, KeyError, ValueError):
        return Exclusions()
