"""The parent's side of one child (nemo_pipeline.batch.child): start it, ask it, time out, tell how it died."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

from nemo_pipeline.errors import NemoError
from nemo_pipeline.machine import child_command
from nemo_pipeline.store.text import printable

#: Beginnings of lines that the networks' libraries write when all is well.
_CHATTER = ("INFO:", "I0000", "W0000", "WARNING: All log messages")
#: Seconds that a child may take to start.
_START_TIMEOUT = 120.0
#: One process is one core: no library in it may start threads of its own.
_ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "OPENCV_FOR_THREADS_NUM",
        "TF_NUM_INTRAOP_THREADS",
    )
}


class ChildDied(Exception):
    """The child process ended. `how` says so in words; `by_signal` whether somebody ended it."""

    def __init__(self, how: str, last_words: str, by_signal: bool) -> None:
        super().__init__(how)
        self.how = how
        self.last_words = last_words
        self.by_signal = by_signal


class ChildTimeout(Exception):
    """The child took too long and was killed."""


class StartFailed(NemoError):
    """The child ended, or hung, before it saw a job: no video is to blame, and the next child may well start."""


class JobFailed(Exception):
    """Our own code failed on this video, in the child."""


class Child:
    """One child process. Not thread-safe: it belongs to whoever acquired it."""

    def __init__(self, core: int | None = None) -> None:
        self._stderr = tempfile.TemporaryFile("w+b")  # noqa: SIM115
        # Shared with the child: it always writes at the end, also after we cut the file short.
        fcntl.fcntl(self._stderr, fcntl.F_SETFL, fcntl.fcntl(self._stderr, fcntl.F_GETFL) | os.O_APPEND)
        self.jobs_done = 0
        self.peak_kb = 0
        self._buffer = b""
        self._process = subprocess.Popen(
            child_command("nemo_pipeline.batch.child", str(os.getpid()), "-" if core is None else str(core)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=os.environ | _ONE_THREAD,
            start_new_session=True,
        )
        self.ready = False

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def ask(
        self, job: dict[str, Any], timeout: float | None, on_frames: Callable[[int], None] | None = None
    ) -> dict[str, Any]:
        """Hand over one job and wait for its answer.

        Raises:
            ChildDied, ChildTimeout: the child is gone.
            StartFailed: it was gone before it could take a job.
            JobFailed: our own code failed on this job; the child is well.
            NemoError: nothing can work (installation, disk); the message is for people.
        """
        if not self.ready:
            self._expect_ready()
        self._forget_last_words()
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(job).encode("ascii") + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, OSError):
            raise self._death() from None
        while True:
            message = self._read(deadline)
            event = message.get("event")
            if event == "frames":
                if on_frames is not None:
                    on_frames(int(message["n"]))
            elif event == "done":
                self.jobs_done += 1
                self.peak_kb = int(message["peak_kb"])
                return message
            elif event == "abort":
                raise NemoError(str(message["message"]))
            elif event == "error":
                self.jobs_done += 1
                raise JobFailed(str(message["message"]))

    def kill(self) -> None:
        """End it at once. From any thread."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def close(self) -> None:
        """End it and free what belongs to it."""
        self.kill()
        with contextlib.suppress(Exception):
            self._process.wait(timeout=5)
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _expect_ready(self) -> None:
        try:
            message = self._read(time.monotonic() + _START_TIMEOUT)
        except ChildTimeout:
            raise StartFailed(
                f"the preparation process did not start within {_START_TIMEOUT:.0f} s: "
                "the machine is overloaded, or the installation is on a very slow disk."
            ) from None
        except ChildDied as death:
            why = f"the preparation process {death.how} while starting; `nemo doctor` may say why. {death.last_words}"
            # A signal comes from outside (memory ran out); what ends by itself will do so again.
            raise (StartFailed if death.by_signal else NemoError)(why.rstrip()) from None
        if message.get("event") == "abort":
            raise NemoError(str(message["message"]))
        self.ready = True

    def _read(self, deadline: float | None) -> dict[str, Any]:
        """Next message."""
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                self.kill()
                raise ChildTimeout
            if not select.select([handle], [], [], left)[0]:
                continue
            data = os.read(handle, 1 << 16)
            if not data:
                raise self._death()
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def _death(self) -> ChildDied:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            how = "was killed (SIGKILL), most often by the system because memory ran out"
        elif code < 0:
            how = f"died of {signal.Signals(-code).name}"
        else:
            how = f"ended by itself with code {code}"
        return ChildDied(how, self._last_words(), by_signal=code < 0)

    def _last_words(self) -> str:
        """The last line that it, or a library in it, wrote to standard error."""
        with contextlib.suppress(OSError, ValueError):
            size = os.fstat(self._stderr.fileno()).st_size
            data = os.pread(self._stderr.fileno(), 4000, max(0, size - 4000))
            lines = data.decode("utf-8", "replace").splitlines()
            lines = [line for line in lines if line.strip() and not line.startswith(_CHATTER)]
            return printable(lines[-1].strip())[:200] if lines else ""
        return ""

    def _forget_last_words(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.ftruncate(self._stderr.fileno(), 0)
