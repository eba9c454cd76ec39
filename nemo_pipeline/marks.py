"""Marks: clips and frames that a person looked at and decided to leave out, as a CSV next to the prepared file.

    video,start,stop,reason,who,when
    001_posed_smile_1,,,wrong person,kim,2026-11-30T15:02:11Z
    002_posed_smile_1,40,58,hand on the face,kim,2026-11-30T15:03:40Z

`video` is an id of the prepared file (or a video's name, for all persons and segments in it). `start` and `stop` are
the first and the last frame that is left out, numbers of decoded frames as in `frame_index`: they mean the same picture
after the videos were prepared with other settings, which positions in the prepared file do not, and unlike seconds they
are exact. Without a start the mark begins with the clip, without a stop it ends with it; without both it is the whole
clip.

The file is changed one mark at a time, under a lock and by rename, so that two people may mark at once. Lines may be
written by hand, and the lines of two files put together: a header in the middle is passed over.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import DataError, OutputError
from nemo_pipeline.store.files import read_bounded, replacing
from nemo_pipeline.store.locks import hold
from nemo_pipeline.store.text import CsvWriter, csv_cell, csv_value, escape_controls, find_delimiter

COLUMNS = ("video", "start", "stop", "reason", "who", "when")
#: In place of a file of marks: leave them out of account.
NONE = "none"
#: Some hundred bytes a mark: more than anybody marks.
_LONGEST = 16 << 20
_NUMBER = re.compile(r"[0-9]{1,9}(\.0+)?")
_Row = dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """Frames of a video that are left out.

    Attributes:
        video: its id or name.
        start, stop: the first and the last of them, numbers of decoded frames; None: from the clip's first, to its
            last.
        reason, who, when: why, marked by whom, and when (ISO 8601).
        line: in the file; 0 where it is not from one.
    """

    video: str
    start: int | None = None
    stop: int | None = None
    reason: str = ""
    who: str = ""
    when: str = ""
    line: int = dataclasses.field(default=0, compare=False)

    @property
    def whole(self) -> bool:
        """Whether it leaves out the whole clip."""
        return self.start is None and self.stop is None

    @property
    def said(self) -> str:
        """The frames in words: "whole clip", "frames 3 to 9"."""
        if self.whole:
            return "whole clip"
        if self.start is None or self.stop is None:
            return f"up to frame {self.stop}" if self.start is None else f"from frame {self.start}"
        return f"frame {self.start}" if self.start == self.stop else f"frames {self.start} to {self.stop}"

    def cells(self) -> _Row:
        """As a row of the file."""
        values = dataclasses.asdict(self)
        return {name: "" if values[name] is None else str(values[name]) for name in COLUMNS}


def marks_beside(data: str | os.PathLike[str]) -> Path:
    """Where the marks of a prepared file are: smiles.h5 -> smiles.marks.csv."""
    real = Path(os.path.realpath(data))
    return real.with_name(f"{real.stem}.marks.csv")


def found_beside(data: str | os.PathLike[str]) -> Path | None:
    """The file of marks next to a prepared file, if there is one. (None either where its name would be too long.)"""
    path = marks_beside(data)
    try:
        return path if path.exists() else None
    except OSError:
        return None


def read_marks(path: Path) -> list[Mark]:
    """The marks of a file, in its order.

    Raises:
        DataError: it cannot be read or is no such table; the sentence names the line.
    """
    return [_mark(path, row, number) for number, row in _read(path)[1]]


def add_mark(path: Path, mark: Mark) -> None:
    """Put a mark at the end of the file, which is made if there is none. What else it holds stays.

    Raises:
        DataError: the file holds something else.
        OutputError: it cannot be written.
    """
    _change(path, lambda rows: rows.append(mark.cells()))


def remove_mark(path: Path, mark: Mark) -> bool:
    """Take a mark out of the file; whether it was there. Raises as `add_mark`."""
    found: list[_Row] = []

    def remove(rows: list[_Row]) -> None:
        for i in reversed(range(len(rows))):
            if not found and _mark(path, rows[i], 0) == mark:
                found.append(rows.pop(i))

    _change(path, remove)
    return bool(found)


def _change(path: Path, edit: Callable[[list[_Row]], None]) -> None:
    """Read, edit and replace the file, while nobody else does."""
    path = Path(os.path.realpath(path))  # a link stays one
    shown = escape_controls(str(path))
    read_only = (
        f"{shown} cannot be written: nothing can be made in its folder. Name another file with `marks`."
    )
    busy = f"{shown} is being written by another program: try again."
    try:
        with hold(path.with_name(f".{path.name}.lock"), busy=busy, read_only=read_only, patience=10.0):
            header, numbered = _read(path) if path.exists() else (list(COLUMNS), [])
            rows = [row for _, row in numbered]
            for number, row in numbered:
                _mark(path, row, number)
            edit(rows)
            _write(path, header, rows)
    except OSError as error:
        raise OutputError(f"{shown} cannot be written: {error.strerror or error}.", path) from None


def _read(path: Path) -> tuple[list[str], list[tuple[int, _Row]]]:
    """The header (with the columns of ours that it lacks at its end), and the number and cells of every other line."""
    shown = escape_controls(str(path))
    try:
        text = read_bounded(path, _LONGEST).decode("utf-8-sig", "surrogateescape")
    except FileNotFoundError:
        raise DataError(f"{shown} does not exist.", path) from None
    except OSError as error:
        raise DataError(f"{shown} cannot be read: {error.strerror}.", path) from None
    except ValueError as error:
        raise DataError(f"{shown} is not a file of marks: {error}.", path) from None
    first = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=find_delimiter(first), strict=True)
    header: list[str] = []
    rows: list[tuple[int, _Row]] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            names = [cell.strip().lower() for cell in cells]
            if not header:
                header = _header(path, names)
            elif names != header:
                if len(cells) != len(header):
                    raise DataError(
                        f"{shown}, line {reader.line_num}: {len(cells)} columns where the header has {len(header)}.",
                        path,
                    )
                row = {name: csv_value(cell.strip()) for name, cell in zip(header, cells, strict=True)}
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise DataError(f"{shown}, line {reader.line_num}: it is not CSV ({error}).", path) from None
    if not header:
        _header(path, [])
    return [*header, *(name for name in COLUMNS if name not in header)], rows


def _header(path: Path, names: list[str]) -> list[str]:
    missing = [name for name in COLUMNS[:3] if name not in names]
    if missing or len(set(names)) < len(names):
        wrong = f"lacks the column {missing[0]}" if missing else "names a column twice"
        raise DataError(
            f"{escape_controls(str(path))}: its first line {wrong}; a file of marks begins with {','.join(COLUMNS)}.",
            path,
        )
    return names


def _mark(path: Path, row: _Row, line: int) -> Mark:
    """A row as a mark. Raises DataError."""

    def wrong(text: str) -> DataError:
        return DataError(f"{escape_controls(str(path))}, line {line}: {text}.", path)

    if not row.get("video"):
        raise wrong("it names no video")
    ends: dict[str, Any] = {}
    for name in ("start", "stop"):
        cell = row.get(name, "")
        if cell and not _NUMBER.fullmatch(cell):
            raise wrong(
                f"{name} is {escape_controls(cell[:40])!r}; it is the number of a frame, or nothing for the end of the "
                "clip"
            )
        ends[name] = int(float(cell)) if cell else None
    if None not in ends.values() and ends["stop"] < ends["start"]:
        raise wrong(f"stop ({ends['stop']}) is before start ({ends['start']})")
    reason, who, when = (row.get(name, "") for name in COLUMNS[3:])
    return Mark(row["video"], ends["start"], ends["stop"], reason, who, when, line)


def copy_marks(data: Path, other: Path) -> Path | None:
    """Put the marks of a prepared file next to another one of the same videos, unless that has marks. Answers the
    copy."""
    source, target = found_beside(data), marks_beside(other)
    if source is None or found_beside(other) is not None:
        return None
    content = source.read_bytes()
    with replacing(target) as temporary:
        temporary.write_bytes(content)
    return target


def write_marks(path: Path, marks: Iterable[Mark]) -> None:
    """A new file of marks, by rename."""
    _write(path, COLUMNS, [mark.cells() for mark in marks])


def _write(path: Path, header: Sequence[str], rows: Iterable[_Row]) -> None:
    text = io.StringIO()
    writer = CsvWriter(text)
    writer.writerow(header)
    writer.writerows([csv_cell(row.get(name, "")) for name in header] for row in rows)
    with replacing(path) as temporary:
        temporary.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))
