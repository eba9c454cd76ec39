"""The table that evaluation reads: video, subject, fold, age_true, age_predicted. Any method that writes one can be
evaluated."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.errors import DataError
from nemo_pipeline.store.files import read_bounded, replacing
from nemo_pipeline.store.text import CsvWriter, csv_cell, csv_value, escape_controls, find_delimiter

#: What is read. `file` (the recording) is written too, where it is known.
COLUMNS = ("video", "subject", "fold", "age_true", "age_predicted")
#: What the columns were called by earlier versions.
_FORMER = {"age_true": "age", "age_predicted": "predicted"}
#: Longest table of a run that is read, bytes.
_LONGEST_TABLE = 256 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Predictions:
    """Held-out predictions, one row per video.

    Attributes:
        video: V ids, as in /videos of the data.
        subject: V codes.
        fold: (V,) int.
        age, predicted: (V,) float64, true and predicted age in years.
        file: V names of the recordings; empty where they are not known.
    """

    video: tuple[str, ...]
    subject: tuple[str, ...]
    fold: np.ndarray
    age: np.ndarray
    predicted: np.ndarray
    file: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Each video once, every number finite. Raises NemoError."""
        seen: set[str] = set()
        for video in self.video:
            if video in seen:
                raise DataError(
                    f"Video {escape_controls(video)} is predicted twice; every video must be predicted once."
                )
            seen.add(video)
        for name, values in (("age_true", self.age), ("age_predicted", self.predicted)):
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                raise DataError(
                    f"Video {escape_controls(self.video[bad[0]])} has no finite number as {name}."
                )

    def __len__(self) -> int:
        return len(self.video)

    @property
    def error(self) -> np.ndarray:
        """(V,) absolute error, years."""
        return np.abs(self.predicted - self.age)


def join(parts: Sequence[Predictions]) -> Predictions:
    """The rows of all parts. Raises NemoError when a video is in two of them."""
    return Predictions(
        tuple(v for p in parts for v in p.video),
        tuple(s for p in parts for s in p.subject),
        np.concatenate([p.fold for p in parts]),
        np.concatenate([p.age for p in parts]),
        np.concatenate([p.predicted for p in parts]),
        tuple(f for p in parts for f in p.file) if all(p.file for p in parts) else (),
    )


def as_csv(predictions: Predictions) -> bytes:
    """As a CSV file. Names that a spreadsheet would run as a formula get a leading apostrophe."""
    p = predictions
    columns: dict[str, Sequence[object]] = {"video": [csv_cell(v) for v in p.video]}
    if p.file:
        columns["file"] = [csv_cell(f) for f in p.file]
    columns |= {
        "subject": [csv_cell(s) for s in p.subject],
        "fold": [int(f) for f in p.fold],
        "age_true": [repr(float(a)) for a in p.age],
        "age_predicted": [repr(float(a)) for a in p.predicted],
    }
    return _table(tuple(columns), list(zip(*columns.values(), strict=True)))


def write_predictions(path: Path, predictions: Predictions) -> None:
    """`as_csv` to a file, by rename."""
    write_bytes(path, as_csv(predictions))


def has_predictions(header: Sequence[str]) -> bool:
    """Whether a table with these columns holds predictions."""
    return not _lacking(header)


def _lacking(header: Sequence[str]) -> list[str]:
    return [c for c in COLUMNS if c not in header and _FORMER.get(c, c) not in header]


def read_predictions(path: Path) -> Predictions:
    """The inverse of `write_predictions`.

    Raises:
        NemoError: the file is missing, lacks a column, holds no row, or a cell is not a number.
    """
    shown = escape_controls(str(path))
    try:
        rows = read_table(path)
    except FileNotFoundError:
        raise DataError(f"{shown} does not exist; is this a finished run of `nemo train`?", path) from None
    except OSError as error:
        raise DataError(f"{shown} cannot be read: {error.strerror}.", path) from None
    except ValueError as error:
        raise DataError(f"{shown} is not a CSV file ({escape_controls(str(error))}).", path) from None
    if not rows:
        raise DataError(f"{shown} holds no predictions.", path)
    missing = _lacking(list(rows[0]))
    if missing:
        raise DataError(f"{shown} lacks the column {missing[0]}; it needs {', '.join(COLUMNS)}.", path)
    short = next((n for n, r in enumerate(rows) if None in r.values()), None)
    if short is not None:
        raise DataError(f"{shown} is cut off: its row {short + 1} lacks cells; copy it again.", path)
    try:
        fold = np.array([int(r["fold"]) for r in rows])
        age, predicted = (
            np.array([float(r[name] if name in r else r[_FORMER[name]]) for r in rows])
            for name in ("age_true", "age_predicted")
        )
    except (TypeError, ValueError):
        raise DataError(
            f"{shown} has a cell that is not a number in fold, age_true or age_predicted.", path
        ) from None
    return Predictions(
        tuple(csv_value(r["video"]) for r in rows),
        tuple(csv_value(r["subject"]) for r in rows),
        fold,
        age,
        predicted,
        tuple(csv_value(r["file"]) for r in rows) if "file" in rows[0] else (),
    )


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, by the names in its first line; also as spreadsheets save it (a byte order mark,
    semicolons).

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a table, or too long for one.
    """
    text = read_bounded(path, _LONGEST_TABLE).decode("utf-8-sig", "surrogateescape")
    delimiter = find_delimiter(text.partition("\n")[0])
    try:
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(str(error)) from None


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A CSV file, complete or not at all (written next to it, then renamed)."""
    write_bytes(path, _table(columns, rows))


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = CsvWriter(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, complete or not at all, readable by its owner alone: it holds ages of people."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
