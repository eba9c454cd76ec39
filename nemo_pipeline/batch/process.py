"""The preparation process (`nemo_pipeline.batch.child`) as its driver sees it: one job at a time, each answered."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nemo_pipeline.errors import ProcessError, from_message
from nemo_pipeline.supervise import ONE_THREAD, Child, ChildDied, ChildTimeout

#: Seconds that a child may take to start.
_START_TIMEOUT = 120.0
#: So many pictures are as much work for a child as a video.
_STILLS_PER_JOB = 40


class StartFailed(ProcessError):
    """The child ended, or hung, before it saw a job: no video is to blame, and the next child may well start."""


class JobFailed(Exception):
    """Our own code failed on this job, in the child, which is well."""


class VideoChild(Child):
    """A child that prepares videos. Not thread-safe: it belongs to the thread that acquired it.

    Args:
        core: the only core that it may run on; None for any.

    Attributes:
        ready: it has started and can take jobs.
        jobs_done: how many it has answered; a still is a small part of one.
        peak_memory: the most that it has held, bytes.
    """

    def __init__(self, core: int | None = None) -> None:
        super().__init__(
            "nemo_pipeline.batch.child",
            "-" if core is None else str(core),
            environment=ONE_THREAD,
            keep_stderr=True,
        )
        self.ready = False
        self.jobs_done = 0.0
        self.peak_memory = 0

    def ask(
        self, job: dict[str, Any], timeout: float | None, on_frames: Callable[[int], None] | None = None
    ) -> dict[str, Any]:
        """Hand over one job and wait for its answer, for at most `timeout` seconds.

        Raises:
            ChildDied, ChildTimeout: the child is gone.
            StartFailed: it was gone before it could take a job.
            JobFailed: our own code failed on this job; the child is well.
            NemoError: nothing can work (installation, disk); the message is for people.
        """
        if not self.ready:
            self._expect_ready()
        self.send(job)
        size = 1 / _STILLS_PER_JOB if job.get("config", {}).get("stills") else 1.0
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            message = self.receive(deadline)
            event = message["event"]
            if event == "frames":
                if on_frames is not None:
                    on_frames(int(message["n"]))
            elif event == "done":
                self.jobs_done += size
                self.peak_memory = int(message["peak_memory"])
                return message
            elif event == "abort":
                raise from_message(message["error"])
            elif event == "error":
                self.jobs_done += size
                raise JobFailed(str(message["message"]))

    def _expect_ready(self) -> None:
        try:
            message = self.receive(time.monotonic() + _START_TIMEOUT)
        except ChildTimeout:
            raise StartFailed(
                f"the preparation process did not start within {_START_TIMEOUT:.0f} s: "
                "the machine is overloaded, or the installation is on a very slow disk."
            ) from None
        except ChildDied as death:
            why = f"the preparation process {death.reason} while starting; `nemo doctor` may say why."
            why = f"{why} {death.stderr_tail}".rstrip()
            # A signal comes from outside (memory ran out); what ends by itself will do so again.
            raise (StartFailed if death.by_signal else ProcessError)(why) from None
        if message["event"] == "abort":
            raise from_message(message["error"])
        self.ready = True
