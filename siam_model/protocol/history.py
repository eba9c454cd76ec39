"""history.csv: one line per epoch of a training; written whole and read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import DataError
from nemo_pipeline.store.text import escape_controls
from siam_model.predictions import read_table, write_table
from siam_model.training.records import EpochRecord

HISTORY_COLUMNS = tuple(field.name for field in dataclasses.fields(EpochRecord))


def write_history(path: Path, history: Sequence[EpochRecord]) -> None:
    """history.csv, whole, after every epoch: it is short, and a cut-off run leaves what was finished."""
    rows = [[_cell(name, getattr(line, name)) for name in HISTORY_COLUMNS] for line in history]
    write_table(path, HISTORY_COLUMNS, rows)


def read_history(path: Path) -> list[EpochRecord]:
    """The inverse of `write_history` (seconds to the millisecond); nothing where there is no file.

    Raises:
        NemoError: it is not a history.
    """
    kinds = {field.name: str(field.type) for field in dataclasses.fields(EpochRecord)}
    read: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": lambda cell: bool(int(cell))}
    try:
        return [
            EpochRecord(**{name: read[kind](row[name]) for name, kind in kinds.items() if name in row})
            for row in read_table(path)
        ]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{escape_controls(str(path))} cannot be read: {error.strerror}.", path) from None
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{escape_controls(str(path))} is damaged: it is not a history of a training.", path
        ) from None


def _cell(name: str, value: object) -> object:
    if name == "seconds":
        return f"{value:.3f}"
    return int(value) if isinstance(value, bool) else repr(value)
