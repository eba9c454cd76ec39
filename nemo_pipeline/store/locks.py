"""A lock between processes, also on file systems without locks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from nemo_pipeline.errors import Busy, OutputError


@contextmanager
def hold(path: Path, *, busy: str, read_only: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path`. The lock ends with this process, however that ends.

    Args:
        path: the lock file; its folder exists.
        busy: the sentence for when another process holds it.
        read_only: the one for a folder where nothing can be written.
        patience: seconds to wait for another process.

    Raises:
        Busy: another process holds it.
        OutputError: nothing can be written in its folder.
    """
    lock = filelock.FileLock(path, timeout=patience, mode=0o600)
    held = True
    try:
        lock.acquire()
    except filelock.Timeout:
        raise Busy(busy) from None
    except PermissionError:
        raise OutputError(read_only, path.parent) from None
    except (OSError, NotImplementedError):
        held = False  # how filelock says that a file system has no locks: continue, as readers do
    try:
        yield
    finally:
        if held:
            lock.release()
