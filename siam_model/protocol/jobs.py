"""Folds side by side: several processes on one machine, each on cores or a GPU of its own.

Every process takes one fold after another and tells how it goes, a JSON object per line. A process that dies (out of
memory, a crash of the driver) costs the fold that it was training, until the run is resumed; the others continue.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from nemo_pipeline.platform import allowed_cores
from nemo_pipeline.supervise import Child, ChildDied
from siam_model.protocol.crossval import FoldJob
from siam_model.protocol.reporter import Reporter, TrainingScope
from siam_model.protocol.request import Runtime
from siam_model.training.records import EpochRecord


def run_tasks(tasks: Sequence[FoldJob], runtime: Runtime, reporter: Reporter) -> dict[FoldJob, str]:
    """Train these folds in at most `runtime.jobs` processes.

    They end with this process, however it ends, and leave what they have so far, to be resumed.

    Returns:
        FoldJob -> why it failed; tasks that were finished are not in it.
    """
    waiting, failed = deque(tasks), {}
    inbox: queue.Queue[tuple[Child, dict[str, Any] | None]] = queue.Queue()
    at_work: dict[Child, FoldJob] = {}
    environments: dict[Child, dict[str, str]] = {}

    def start(environment: dict[str, str]) -> None:
        child = Child(
            "siam_model.protocol.jobchild",
            json.dumps(dataclasses.asdict(runtime)),
            environment=environment,
            inbox=inbox,
        )
        environments[child] = environment
        give_next(child)

    def give_next(child: Child) -> None:
        if not waiting:
            child.dismiss()
            return
        at_work[child] = task = waiting.popleft()
        try:
            child.send({**dataclasses.asdict(task), "run": os.fspath(task.run)})
        except ChildDied:
            pass  # told, with the reason, where its messages are read

    try:
        for environment in slot_environments(min(runtime.jobs, len(tasks)), runtime.device):
            start(environment)
        while at_work:
            child, message = inbox.get()
            if message is None:  # it ended
                task = at_work.pop(child, None)
                if task is not None:
                    failed[task] = _why(child.death())
                    reporter.failed(f"failed: {failed[task]}", task.where)
                if waiting:
                    start(environments[child])
            elif message["event"] in ("done", "failed"):
                task = at_work.pop(child)
                if message["event"] == "failed":
                    failed[task] = message["text"]
                give_next(child)
            else:
                _report(message, reporter)
    finally:
        for child in environments:
            child.close()
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
    return [{"OMP_NUM_THREADS": str(max(1, len(allowed_cores()) // jobs))} for _ in range(jobs)]


def _report(message: Mapping[str, Any], reporter: Reporter) -> None:
    """Pass on what a process told its reporter (`siam_model.protocol.jobchild.PipeReporter`)."""
    event, values = message["event"], message["where"]
    where = TrainingScope() if values is None else TrainingScope(**values)
    if event == "epoch":
        reporter.epoch(where, EpochRecord(**message["record"]))
    elif event == "batch":
        reporter.batch(where, message["epoch"], message["done"], message["total"])
    elif event == "timed":
        reporter.timed(where, message["step"], message["steps"], message["epoch"])
    elif event == "unfinished":
        reporter.failed(message["text"], where)
    else:
        reporter.say(message["text"], None if values is None else where)


def _why(death: ChildDied) -> str:
    hint = " (try fewer `jobs`)" if death.by_signal else ""
    return f"its process {death.reason}{hint}."
