"""Folds side by side: several processes on one machine, each on cores or a GPU of its own.

Every process takes one fold after another and tells how it goes, a JSON object per line. A process that dies (out of
memory, a crash of the driver) costs the fold that it was training, until the run is resumed; the others go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import IO, Any

from nemo_pipeline.machine import child_command
from siam_model.protocol.crossval import Task
from siam_model.protocol.work import Reporter, Runtime, Where
from siam_model.training.records import EpochRecord


def run_tasks(tasks: Sequence[Task], jobs: int, runtime: Runtime, reporter: Reporter) -> dict[Task, str]:
    """Train these folds in at most `jobs` processes.

    They end with this process, however it ends, and leave what they have so far to be gone on with.

    Returns:
        Task -> why it failed; tasks that were finished are not in it.
    """
    waiting, failed = deque(tasks), {}
    news: queue.Queue[tuple[_Child, dict[str, Any] | None]] = queue.Queue()
    slots = slot_environments(min(jobs, len(tasks)), runtime.device)
    children: list[_Child] = []
    try:
        for slot, environment in enumerate(slots):
            children.append(_Child(slot, environment, runtime, news))
            children[-1].give(waiting.popleft())
        while any(child.task is not None for child in children):
            child, message = news.get()
            if message is None:  # it ended
                if child.task is not None:
                    failed[child.task] = child.obituary()
                    reporter.say(f"failed: {failed[child.task]}", child.task.where)
                    child.task = None
                if waiting:
                    children[child.slot] = child = _Child(child.slot, child.environment, runtime, news)
                    child.give(waiting.popleft())
            elif message["kind"] == "say":
                reporter.say(message["text"], _where(message["where"]))
            elif message["kind"] == "epoch":
                where = _where(message["where"])
                reporter.epoch(where or Where(), EpochRecord(**message["record"]))
            elif child.task is not None:  # "done" or "failed"
                if message["kind"] == "failed":
                    failed[child.task] = message["text"]
                child.task = None
                if waiting:
                    child.give(waiting.popleft())
                else:
                    child.dismiss()
    finally:
        for child in children:
            child.kill()
    return failed


def slot_environments(jobs: int, device: str) -> list[dict[str, str]]:
    """Environment variables of each process: its GPU, where there are any and none was named, or its share of the
    cores (`OMP_NUM_THREADS`, unless that is set)."""
    gpus: list[str] = []
    if device in ("auto", "cuda"):
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        gpus = visible[:count] or [str(number) for number in range(count)]
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} for slot in range(jobs)]
    if "OMP_NUM_THREADS" in os.environ:
        return [{} for _ in range(jobs)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [{"OMP_NUM_THREADS": str(max(1, cores // jobs))} for _ in range(jobs)]


def _where(values: Mapping[str, Any] | None) -> Where | None:
    return None if values is None else Where(**values)


class _Child:
    """One process that trains folds. Its standard input is its life line: when that closes, it ends."""

    def __init__(
        self, slot: int, environment: Mapping[str, str], runtime: Runtime, news: queue.Queue
    ) -> None:
        self.slot, self.environment = slot, dict(environment)
        self.task: Task | None = None
        self.process = subprocess.Popen(
            child_command("siam_model.protocol.jobchild", json.dumps(dataclasses.asdict(runtime))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            start_new_session=True,  # an interrupt from the keyboard is for the parent, who ends it
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.input: IO[bytes] = self.process.stdin
        threading.Thread(target=self._listen, args=(self.process.stdout, news), daemon=True).start()

    def _listen(self, output: IO[bytes], news: queue.Queue) -> None:
        for line in output:
            with contextlib.suppress(ValueError):  # a library that prints is not for us
                message = json.loads(line)
                if isinstance(message, dict) and message.get("kind") in ("say", "epoch", "done", "failed"):
                    news.put((self, message))
        self.process.wait()
        news.put((self, None))

    def give(self, task: Task) -> None:
        """Hand it its next fold. One that has died is noticed where its messages are read."""
        self.task = task
        with contextlib.suppress(OSError):
            values = {**dataclasses.asdict(task), "run": os.fspath(task.run)}
            self.input.write((json.dumps(values) + "\n").encode())
            self.input.flush()

    def dismiss(self) -> None:
        """Nothing more for it."""
        with contextlib.suppress(OSError):
            self.input.close()

    def obituary(self) -> str:
        """Why it ended while it trained."""
        code = self.process.returncode
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            likely = ", most likely for lack of memory (try fewer --jobs)" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{likely}."
        return f"its process ended with code {code}."

    def kill(self) -> None:
        """End it now: what counts is on disk."""
        self.dismiss()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
