"""Checks before anything is done: outputs that cannot be written, or would overwrite a recording."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import rich_click as click

from nemo_pipeline.store.text import escape_controls

TABLES = (".csv", ".tsv", ".txt")


def check_target(option: str, path: Path | None, endings: Collection[str], what: str) -> None:
    """Refuse an output whose name has the wrong ending: a slip of completion names a clip, and a clip that is
    written over is lost.

    Raises:
        click.UsageError: another ending; its folder does not exist, or nothing can be written there.
    """
    if path is None:
        return
    if path.suffix.lower() not in endings:
        raise click.UsageError(
            f"{option} writes {what}: name it {' or '.join(endings)}, not {escape_controls(path.name)!r}."
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise click.UsageError(f"{option}: the folder {escape_controls(str(path.parent))} does not exist.")
    if not os.access(folder, os.W_OK):
        raise click.UsageError(f"{option}: the folder {escape_controls(str(path.parent))} is read-only.")


def check_timeout(seconds: float | None) -> None:
    """Refuse a time limit that is not positive (NaN slips through comparisons). Raises click.UsageError."""
    if seconds is not None and not 0 <= seconds < 1e9:
        raise click.UsageError("--video-timeout must be 0 (never) or a number of seconds.")
