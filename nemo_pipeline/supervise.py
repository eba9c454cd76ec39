"""Child processes: start one of our modules, exchange JSON objects with it, and say why it ended.

Native code may crash, hang or keep memory, so it runs in child processes: preparation, rendering, folds
trained in parallel, and training on several devices all use this module. Both sides are here: `Child` is what the
starting process holds, `Parent` what the started one does. One JSON object per line each way, each with an "event".

A child ends when its standard input is closed, so it never outlives the process that started it, whatever ended
that one.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any

from nemo_pipeline.platform import die_with_parent, large_pages, signal_name
from nemo_pipeline.store.text import escape_controls

#: For children that use one core: no library in them may start threads of its own. And they ask for large pages.
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "OPENCV_FOR_THREADS_NUM",
        "TF_NUM_INTRAOP_THREADS",
    ),
    "1",
) | large_pages(os.environ)
#: Beginnings of lines that the networks' libraries write when all is well.
_CHATTER = ("INFO:", "I0000", "W0000", "WARNING: All log messages")


class ChildDied(Exception):
    """A child process ended before it answered.

    Attributes:
        reason: how it ended, to follow "the process that ...".
        stderr_tail: the last line that it, or a library in it, wrote to standard error; "" if that was not kept.
        by_signal: somebody ended it (most often the system, for lack of memory).
    """

    def __init__(self, reason: str, stderr_tail: str, by_signal: bool) -> None:
        super().__init__(reason)
        self.reason, self.stderr_tail, self.by_signal = reason, stderr_tail, by_signal


class ChildTimeout(Exception):
    """A child took longer than it was given, and was killed."""


class Child:
    """A process that runs one of our modules. One thread at a time may talk to it; any may kill it.

    Args:
        module: its name; the module's main reads what it is asked from `Parent.requests`.
        arguments: further arguments of its command line, after the process id of this one.
        environment: variables to add to this process's.
        inbox: where its messages go, as (child, message), with None for the message when it has ended; by default an
            inbox of its own, for `receive`.
        keep_stderr: keep what it writes to standard error, for `ChildDied.stderr_tail`, in place of showing it.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        inbox: queue.Queue[tuple[Child, dict[str, Any] | None]] | None = None,
        keep_stderr: bool = False,
    ) -> None:
        self._stderr: IO[bytes] | None = tempfile.TemporaryFile("w+b") if keep_stderr else None  # noqa: SIM115
        self._stderr_from = 0
        self._inbox = queue.Queue() if inbox is None else inbox
        # -P: with a file av.py in the user's folder, Python would import that one.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(os.getpid()), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # an interrupt from the keyboard is for this process, which then ends it
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, message: Mapping[str, Any]) -> None:
        """Ask something of it. Raises ChildDied."""
        self._forget_stderr()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode("ascii") + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise self.death() from None

    def receive(self, deadline: float | None = None) -> dict[str, Any]:
        """Its next message, waited for until `deadline` (of `time.monotonic`, seconds).

        Raises:
            ChildDied: it ended.
            ChildTimeout: it said nothing in time, and was killed.
        """
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            _, message = self._inbox.get(timeout=left)
        except queue.Empty:
            self.kill()
            raise ChildTimeout from None
        if message is None:
            self._inbox.put((self, None))  # it stays dead, however often it is asked
            raise self.death()
        return message

    def dismiss(self) -> None:
        """Nothing more is asked of it: it ends when it has answered."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()

    def kill(self) -> None:
        """End it at once. From any thread."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def close(self) -> None:
        """End it, wait until it has ended, and free what belongs to it."""
        self.kill()
        with contextlib.suppress(Exception):
            self._process.wait(timeout=5)
        self._reader.join(timeout=5)
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def death(self) -> ChildDied:
        """How it ended; waits until it has."""
        code = self._process.wait()
        if code >= 0:
            return ChildDied(f"ended by itself with code {code}", self._stderr_tail(), by_signal=False)
        name = signal_name(-code)
        reason = f"died of {name}"
        if name == "SIGKILL":
            reason = "was killed (SIGKILL), most often by the system because memory ran out"
        return ChildDied(reason, self._stderr_tail(), by_signal=True)

    def _read(self) -> None:
        """Put everything that it says into the inbox (in a thread), and None at the end."""
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):  # closed under us
            for line in self._process.stdout:
                with contextlib.suppress(ValueError):  # what a library printed before `Parent` took over
                    message = json.loads(line)
                    if isinstance(message, dict) and "event" in message:
                        self._inbox.put((self, message))
        self._inbox.put((self, None))

    def _stderr_tail(self) -> str:
        if self._stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stderr.seek(max(self._stderr_from, self._stderr.seek(0, os.SEEK_END) - 4000))
                lines = self._stderr.read().decode("utf-8", "replace").splitlines()
                lines = [line for line in lines if line.strip() and not line.startswith(_CHATTER)]
                return escape_controls(lines[-1].strip())[:200] if lines else ""
        return ""

    def _forget_stderr(self) -> None:
        """What it wrote so far belongs to earlier requests."""
        if self._stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stderr_from = os.fstat(self._stderr.fileno()).st_size


class Parent:
    """The process that started this one, as seen from here: create it first of all in a child's main.

    From then on standard output is a private pipe (what libraries print goes to standard error), an interrupt from the
    keyboard is ignored (the parent decides what ends), and this process ends when the parent does.
    """

    def __init__(self) -> None:
        die_with_parent(int(sys.argv[1]))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._out = os.fdopen(os.dup(1), "w", encoding="ascii")
        os.dup2(2, 1)
        # Requests come through a copy of standard input that is ours alone. A process that a library forks closes
        # `sys.stdin` first, and would wait forever for a lock that the thread below holds while it waits.
        self._in = os.fdopen(os.dup(0), "rb", buffering=0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self._lock = threading.Lock()
        self._requests: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._waiting = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, event: str, **values: Any) -> None:
        """Say something; `values` are of JSON's types."""
        with self._lock:
            try:
                self._out.write(json.dumps({"event": event, **values}) + "\n")
                self._out.flush()
            except OSError:  # nobody listens any more
                os._exit(1)

    def requests(self) -> Iterator[dict[str, Any]]:
        """What it asks for, one after the other, until it wants no more."""
        while (request := self._requests.get()) is not None:
            yield request
            with self._lock:
                self._waiting -= 1

    def _listen(self) -> None:
        for line in self._in:
            with self._lock:
                self._waiting += 1
            self._requests.put(json.loads(line))
        if self._waiting:
            os._exit(1)  # the parent is gone, or wants no more of it: what counts is on disk
        self._requests.put(None)
