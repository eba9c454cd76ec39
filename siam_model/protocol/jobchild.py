"""A process of `siam_model.protocol.jobs`: trains the folds that it is asked for, and tells how it goes."""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from nemo_pipeline.errors import NemoError
from nemo_pipeline.supervise import Parent
from siam_model.protocol.baselines import Features
from siam_model.protocol.crossval import train_folds
from siam_model.protocol.open_run import OpenRun, open_run
from siam_model.protocol.reporter import Reporter, TrainingScope
from siam_model.protocol.request import Runtime
from siam_model.run_folder import RunFolder
from siam_model.training.records import EpochRecord


class PipeReporter(Reporter):
    """Sends everything to the parent."""

    def __init__(self, parent: Parent) -> None:
        self._parent = parent

    def say(self, text: str, where: TrainingScope | None = None) -> None:
        self._parent.send("say", text=text, where=None if where is None else dataclasses.asdict(where))

    def failed(self, text: str, where: TrainingScope) -> None:
        self._parent.send("unfinished", text=text, where=dataclasses.asdict(where))

    def balance(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """The parent has said it."""

    def batch(self, where: TrainingScope, epoch: int, done: int, total: int) -> None:
        self._parent.send("batch", where=dataclasses.asdict(where), epoch=epoch, done=done, total=total)

    def timed(self, where: TrainingScope, step: float, steps: int, epoch: float) -> None:
        self._parent.send("timed", where=dataclasses.asdict(where), step=step, steps=steps, epoch=epoch)

    def epoch(self, where: TrainingScope, record: EpochRecord) -> None:
        self._parent.send("epoch", where=dataclasses.asdict(where), record=dataclasses.asdict(record))


def main() -> None:
    """Train what is asked for until there is nothing more."""
    parent = Parent()
    runtime, reporter = Runtime(**json.loads(sys.argv[2])), PipeReporter(parent)
    opened: dict[str, tuple[OpenRun, Features]] = {}
    for task in parent.requests():
        try:
            if task["run"] not in opened:
                run = open_run(
                    RunFolder(task["run"]),
                    task["data"],
                    variant=task["variant"],
                    runtime=runtime,
                    reporter=reporter,
                )
                opened[task["run"]] = run, Features(run.dataset, run.table, run.reporter.say)
            run, features = opened[task["run"]]
            failed = train_folds(run, [task["fold"]], features)
        except NemoError as error:
            parent.send("failed", text=str(error))
        except Exception as error:
            traceback.print_exc()
            parent.send("failed", text=f"{type(error).__name__}: {error}")
        else:
            if failed:
                parent.send("failed", text=failed[task["fold"]])
            else:
                parent.send("done")


if __name__ == "__main__":
    main()
