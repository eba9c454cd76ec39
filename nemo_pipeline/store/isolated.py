"""Untrusted files, opened in a child process that may die: for `nemo verify` and `nemo info`.

Both sides are here. HDF5 is C, and some damaged files crash it, keep it busy forever or make it ask for all memory,
in spite of the checks of `nemo_pipeline.store.strict`. Here that costs a child process and becomes an error.

`FaceDataset` opens a file in the caller's process: another one for every file would cost a program half a
second each time. Check an untrusted file with `nemo verify` (or `Isolated`) first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import DamagedFile, NemoError, from_message, to_message
from nemo_pipeline.store.verify import Finding, verify
from nemo_pipeline.supervise import ONE_THREAD, Child, ChildDied, ChildTimeout, Parent

#: Address space of the process, bytes: libraries take one of the four.
_MEMORY = 4 << 30
#: Seconds without news (of a video that was checked) after which it is taken to hang.
_PATIENCE = 300.0


class Isolated:
    """A process that opens files, replaced when one of them ends it. One thread at a time may use it."""

    def __init__(self) -> None:
        self._child: Child | None = None

    def open_first(self, path: Path) -> None:
        """Open an index, shard or packed file, and close it again.

        Raises:
            NemoError: as `FaceDataset`.
            DamagedFile: the process did not survive it.
        """
        self._ask(path, "open", None)

    def verify(self, path: Path, on_video: Callable[[int, int], None] | None = None) -> list[Finding]:
        """As `nemo_pipeline.store.verify.verify`. Raises as `open_first`."""
        return [Finding(*finding) for finding in self._ask(path, "verify", on_video)["findings"]]

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, path: Path, do: str, on_video: Callable[[int, int], None] | None) -> dict[str, Any]:
        if self._child is None:
            self._child = Child("nemo_pipeline.store.isolated", environment=ONE_THREAD, keep_stderr=True)
        try:
            self._child.send({"do": do, "path": os.fspath(path)})
            while True:
                message = self._child.receive(time.monotonic() + _PATIENCE)
                if message["event"] == "video":
                    if on_video is not None:
                        on_video(message["n"], message["total"])
                elif message["event"] == "refused":
                    raise from_message(message["error"])
                else:
                    return message
        except ChildDied as death:
            self.close()
            raise DamagedFile(path, "", f"cannot be read: the process that read it {death.reason}") from None
        except ChildTimeout:
            self.close()
            raise DamagedFile(path, "", f"cannot be read: nothing came of it for {_PATIENCE:g} s") from None


def main() -> None:
    """Entry point of the child process."""
    from nemo_pipeline.platform import be_killed_first, forbid_core_dumps, limit_memory

    parent = Parent()
    forbid_core_dumps()
    be_killed_first()
    limit_memory(_MEMORY)
    for request in parent.requests():
        path = Path(request["path"])
        try:
            if request["do"] == "verify":
                found = verify(path, lambda n, total: parent.send("video", n=n, total=total))
                parent.send("done", findings=[[f.level, f.where, f.text] for f in found])
            else:
                _open(path)
                parent.send("done")
        except NemoError as error:
            parent.send("refused", error=to_message(error))
    os._exit(0)


def _open(path: Path) -> None:
    """What `nemo info` reads of a file."""
    from nemo_pipeline.store.files import open_h5
    from nemo_pipeline.store.reader import FaceDataset
    from nemo_pipeline.store.shard import read_shard
    from nemo_pipeline.store.strict import reading
    from nemo_pipeline.store.tables import read_identity

    with open_h5(path) as file, reading(path):
        kind = read_identity(file).get("kind")
    if kind == "shard":
        read_shard(path)
    else:
        FaceDataset(path, check=False)


if __name__ == "__main__":
    main()
