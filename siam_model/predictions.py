"""The table that evaluation reads: video, subject, fold, age, predicted. Any method that writes it can be
evaluated."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store.files import replacing
from nemo_pipeline.store.text import csv_cell, csv_value, delimiter_of, printable

COLUMNS = ("video", "subject", "fold", "age", "predicted")


@dataclasses.dataclass(frozen=True, slots=True)
class Predictions:
    """Held-out predictions, one row per video: ids, subject codes, fold (V,), age and predicted (V,) in
    years.
    """

    video: tuple[str, ...]
    subject: tuple[str, ...]
    fold: np.ndarray
    age: np.ndarray
    predicted: np.ndarray

    def __post_init__(self) -> None:
        """Each video once, every number finite. Raises NemoError."""
        seen: set[str] = set()
        for video in self.video:
            if video in seen:
                raise NemoError(
                    f"Video {printable(video)} is predicted twice; every video must be predicted once."
                )
            seen.add(video)
        for name in ("age", "predicted"):
            bad = np.flatnonzero(~np.isfinite(getattr(self, name)))
            if len(bad):
                raise NemoError(f"Video {printable(self.video[bad[0]])} has no finite number as {name}.")

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
    )


def write_predictions(path: Path, predictions: Predictions) -> None:
    """As CSV, by rename. Names that a spreadsheet would run as a formula get a leading apostrophe."""
    rows = [
        (csv_cell(v), csv_cell(s), int(f), repr(float(a)), repr(float(p)))
        for v, s, f, a, p in zip(
            predictions.video, predictions.subject, predictions.fold, predictions.age, predictions.predicted,
            strict=True,
        )
    ]  # fmt: skip
    write_table(path, COLUMNS, rows)


def read_predictions(path: Path) -> Predictions:
    """The inverse of `write_predictions`.

    Raises:
        NemoError: the file is missing, lacks a column, holds no row, or a cell is not a number.
    """
    shown = printable(str(path))
    try:
        # utf-8-sig, and semicolons: as spreadsheets save it.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            delimiter = delimiter_of(file.readline())
            file.seek(0)
            rows = list(csv.DictReader(file, delimiter=delimiter))
    except FileNotFoundError:
        raise NemoError(f"{shown} does not exist; is this a finished run of `nemo train`?") from None
    except OSError as error:
        raise NemoError(f"{shown} cannot be read: {error.strerror}.") from None
    except csv.Error as error:
        raise NemoError(f"{shown} is no CSV file ({error}).") from None
    if not rows:
        raise NemoError(f"{shown} holds no predictions.")
    missing = [c for c in COLUMNS if c not in rows[0]]
    if missing:
        raise NemoError(f"{shown} lacks the column {missing[0]}; it needs {', '.join(COLUMNS)}.")
    try:
        fold = np.array([int(r["fold"]) for r in rows])
        age = np.array([float(r["age"]) for r in rows])
        predicted = np.array([float(r["predicted"]) for r in rows])
    except (TypeError, ValueError):
        raise NemoError(f"{shown} has a cell that is no number in fold, age or predicted.") from None
    return Predictions(
        tuple(csv_value(r["video"]) for r in rows),
        tuple(csv_value(r["subject"]) for r in rows),
        fold,
        age,
        predicted,
    )


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A CSV file, complete or not at all (written beside it, then renamed)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, complete or not at all, readable by its owner alone: it holds ages of people."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
