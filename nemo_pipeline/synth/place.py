"""The folder of a synthetic set: locked by one process, and cleared of what a killed one left."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nemo_pipeline.errors import OutputError
from nemo_pipeline.store.locks import hold


@contextmanager
def held(folder: Path, name: str, what: Path) -> Iterator[Path]:
    """Hold `folder`/.`name`.lock, and make an empty folder next to it for files that processes exchange.

    Both are gone at the end; those of a killed process are cleared by the next.

    Args:
        folder: exists.
        name: of what is made, so that several may be made in one folder.
        what: for messages.

    Raises:
        NemoError: another process is using it, or nothing can be written.
    """
    lock, parts = folder / f".{name}.lock", folder / f".{name}.parts"
    busy = f"another `nemo synth` is writing {what}: wait for it, or choose another name."
    with hold(lock, busy=busy, read_only=f"{folder} is read-only: nothing can be written there."):
        try:
            shutil.rmtree(parts, ignore_errors=True)
            try:
                parts.mkdir(mode=0o700)
            except OSError as error:
                raise OutputError(f"Cannot write to {folder}: {error.strerror or error}.", folder) from error
            yield parts
        finally:
            shutil.rmtree(parts, ignore_errors=True)
            lock.unlink(missing_ok=True)


def open_as_folder(file: Path) -> None:
    """Give a file the permissions of its folder: generated faces are not personal data, and a set may be shared."""
    file.chmod(file.parent.stat().st_mode & 0o666 | 0o600)
