"""The files around out.h5 while it is made: shards, work folders, locks, the mark of a forced run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from nemo_pipeline.batch.parts import Part
from nemo_pipeline.errors import DataError, OutputError
from nemo_pipeline.store.files import check_h5_name, leftovers, replacing
from nemo_pipeline.store.locks import hold
from nemo_pipeline.store.shard import shards_folder

#: Bytes that must be free before a run starts; a run that fills the disk later stops with a sentence.
_NEEDED = 64 << 20


class OutputFolder:
    """Paths that belong to one output, and the rules for touching them.

    A whole run holds `.lock` and every part's lock; a part holds its own and needs `.lock` to be free.
    """

    def __init__(self, index: Path, part: Part | None = None) -> None:
        self.index = Path(os.path.realpath(index))
        self.part = part
        self.shards = shards_folder(self.index)
        tag = f"-{part.number}-of-{part.of}" if part else ""
        self.work = self.shards / f".work{tag}"
        self._lock = self.shards / f".lock{tag}"
        self._force = self.shards / f".forced{tag}.json"

    def create(self) -> None:
        """Make the folders, for the owner alone. Raises NemoError with the reason when that cannot be."""
        parent = self.index.parent
        if self.index.is_dir():
            raise OutputError(
                f"{self.index} is a folder; the output must be a file name such as out.h5.", self.index
            )
        check_h5_name(self.index)
        if not parent.is_dir():
            raise DataError(
                f"{parent} does not exist: create the folder first, or correct the output's name.", parent
            )
        if not os.access(parent, os.W_OK):
            raise OutputError(f"{parent} is read-only: the output cannot be written there.", parent)
        free = shutil.disk_usage(self.shards if self.shards.is_dir() else parent).free
        if free < _NEEDED:
            raise OutputError(
                f"The disk of {self.shards} has only {free >> 20} MiB free: make room first.", self.shards
            )
        try:
            self.shards.mkdir(mode=0o700, exist_ok=True)
            self.work.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{self.shards} cannot be used for the results: {error.strerror}.", self.shards
            ) from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the output against every other run; at the end, folders in which nothing is go.

        Raises:
            Busy: another run uses this output.
        """
        with contextlib.ExitStack() as stack:
            if self.part is None:
                stack.enter_context(self._hold(self._lock))
                for path in sorted(self.shards.glob(".lock-*")):
                    stack.enter_context(self._hold(path))
                    stack.callback(path.unlink, missing_ok=True)
            else:
                stack.enter_context(self._hold(self._lock))
                with self._hold(self.shards / ".lock", patience=2.0):
                    pass
            try:
                yield
            finally:
                self._remove_empty()

    def _hold(self, path: Path, patience: float = 0.0) -> contextlib.AbstractContextManager[None]:
        return hold(
            path,
            busy=f"another `nemo prep` is writing {self.index}: wait for it or choose another output.",
            read_only=f"{self.shards} is read-only: the output cannot be written there.",
            patience=patience,
        )

    def clear_temporaries(self) -> None:
        """Remove what killed writers of the index left. Hold the lock."""
        if self.part is None:
            for path in leftovers(self.index):
                path.unlink(missing_ok=True)

    def other_work(self) -> list[Path]:
        """Work folders of parts (or of the whole run) that still hold something."""
        return [
            path
            for path in sorted(self.shards.glob(".work*"))
            if path != self.work and path.is_dir() and any(path.glob("*.json"))
        ]

    def _remove_empty(self) -> None:
        """Remove the work folder where nothing is left to keep, and the shards folder of a run that was refused."""
        with contextlib.suppress(OSError):
            self.work.rmdir()
            if list(self.shards.iterdir()) == [self._lock]:
                self._lock.unlink()
                self.shards.rmdir()

    # ---- --force
    # -----------------------------------------------------------------------------------------------

    def obsolete(self, fingerprint: str) -> set[str] | None:
        """Shards that an unfinished forced run with these settings replaces; None if there is no such run."""
        try:
            mark = json.loads(self._force.read_text())
        except (OSError, ValueError):
            return None
        return set(mark["shards"]) if mark.get("fingerprint") == fingerprint else None

    def begin_forced(self, fingerprint: str, shards: set[str]) -> None:
        """Record that `shards` are to be replaced, so that a killed forced run is continued, not repeated."""
        with replacing(self._force) as path:
            path.write_text(json.dumps({"fingerprint": fingerprint, "shards": sorted(shards)}))

    def end_forced(self, shards: set[str]) -> None:
        """The new index is in place: remove what it replaced."""
        for name in shards:
            (self.shards / name).unlink(missing_ok=True)
        self._force.unlink(missing_ok=True)
