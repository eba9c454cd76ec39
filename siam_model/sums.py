"""SHA256SUMS: checksums of the files in a run's folder, in the format of `sha256sum -c`.

Nobody would notice a change in weights, predictions and settings: a failing disk, a broken copy or an editor
changes them silently. A folder of an earlier version has no such file, which is not a fault.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from nemo_pipeline.errors import DataError
from nemo_pipeline.store.files import file_hash, read_bounded, replacing
from nemo_pipeline.store.text import escape_controls, listed
from siam_model.run_folder import RunFolder

FILE = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([\w./-]+)")
_LONGEST = 1 << 20
#: No network is larger, bytes: a sparse file of terabytes would be read for hours.
_LARGEST = 1 << 34


def write_sums(folder: Path) -> None:
    """List what is in a run, a fold or a model's folder now."""
    lines = [
        f"{file_hash(path)[1]}  {path.relative_to(folder).as_posix()}\n"
        for path in RunFolder(folder).summed()
    ]
    with replacing(folder / FILE) as temporary:
        temporary.write_text("".join(lines), encoding="ascii")


def changed_files(folder: Path, among: Collection[str] | None = None) -> list[str]:
    """Names of the listed files that hold something else now, or are gone.

    Args:
        among: look at these alone.

    Returns:
        The list itself, where it is damaged; nothing, where the folder has none.
    """
    try:
        text = read_bounded(folder / FILE, _LONGEST).decode("ascii")
        sums = [_LINE.fullmatch(line) for line in text.splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        return [FILE]
    changed = []
    for found in sums:
        if found is None or ".." in found[2] or found[2].startswith("/"):
            return [FILE]
        if among is not None and found[2] not in among:
            continue
        path = folder / found[2]
        try:
            same = path.is_file() and path.stat().st_size <= _LARGEST and file_hash(path)[1] == found[1]
        except OSError:
            same = False
        if not same:
            changed.append(found[2])
    return changed


def changed_in_run(run: Path) -> list[str]:
    """As `changed_files`, for a run or a model's folder and the models and folds in it; relative to `run`."""
    folders = (run, run / "model", *sorted(run.glob("folds/*")), *sorted(run.glob("folds/*/model")))
    return [
        (folder / name).relative_to(run).as_posix() for folder in folders for name in changed_files(folder)
    ]


def check_sums(folder: Path, remedy: str, among: Collection[str] | None = None) -> None:
    """Raises NemoError, which ends in `remedy`, where a file is not as it was written."""
    changed = changed_files(folder, among)
    if changed:
        raise DataError(
            f"{escape_controls(str(folder))} is not as it was written: its {FILE} does not fit {listed(changed)}; "
            f"{remedy}.",
            folder,
        )
