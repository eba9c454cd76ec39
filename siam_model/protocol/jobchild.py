"""A process of `siam_model.protocol.jobs`: reads tasks from standard input, trains them, and tells on standard output
how it goes, each a JSON object per line. It ends when its input does, so that it never outlives its parent."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import NemoError
from siam_model.protocol.baselines import Features
from siam_model.protocol.crossval import train_folds
from siam_model.protocol.work import Reporter, Runtime, Where, Work, open_work
from siam_model.training.records import EpochRecord


class PipeReporter(Reporter):
    """Sends everything to the parent."""

    def __init__(self) -> None:
        # The real standard output is ours alone; what libraries print goes to standard error.
        self._out = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)

    def send(self, **message: Any) -> None:
        """One message."""
        self._out.write((json.dumps(message) + "\n").encode())

    def say(self, text: str, where: Where | None = None) -> None:
        self.send(kind="say", text=text, where=None if where is None else dataclasses.asdict(where))

    def balance(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """The parent has said it."""

    def epoch(self, where: Where, record: EpochRecord) -> None:
        self.send(kind="epoch", where=dataclasses.asdict(where), record=dataclasses.asdict(record))


def main() -> None:
    """Train what is asked for until there is nothing more."""
    runtime, reporter = Runtime(**json.loads(sys.argv[1])), PipeReporter()
    opened: dict[str, tuple[Work, Features]] = {}
    tasks: queue.Queue[dict[str, Any] | None] = queue.Queue()
    idle = threading.Event()
    idle.set()
    # The tasks come through a copy of standard input that is ours alone. A process that the training forks to read data
    # closes `sys.stdin` first, and would wait for ever for a lock that the thread below holds while it waits.
    given = os.fdopen(os.dup(0), "rb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def listen() -> None:
        for line in given:
            idle.clear()
            tasks.put(json.loads(line))
        tasks.put(None)
        if not idle.is_set():
            os._exit(1)  # the parent is gone or wants no more of it: what counts is on disk

    threading.Thread(target=listen, daemon=True).start()
    while (task := tasks.get()) is not None:
        try:
            if task["run"] not in opened:
                work = open_work(Path(task["run"]), task["data"], variant=task["variant"])
                opened[task["run"]] = work, Features(work.dataset, work.table)
            work, features = opened[task["run"]]
            failed = train_folds(work, [task["fold"]], runtime, reporter, features)
            answer = {"kind": "failed", "text": failed[task["fold"]]} if failed else {"kind": "done"}
        except NemoError as error:
            answer = {"kind": "failed", "text": str(error)}
        except Exception as error:
            traceback.print_exc()
            answer = {"kind": "failed", "text": f"{type(error).__name__}: {error}"}
        idle.set()
        reporter.send(**answer)


if __name__ == "__main__":
    main()
