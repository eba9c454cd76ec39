"""How a training looks: a line per epoch, on a terminal with a bar per model under it, and how it is interrupted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siam_model.protocol.reporter import Reporter, TrainingScope

from . import console

if TYPE_CHECKING:
    from siam_model.training.fit import EpochRecord


class TrainProgress(Reporter):
    """A `siam_model.protocol.reporter.Reporter` that shows all on standard error; nothing but failures when quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.run: Path | None = None
        self._epochs = 0
        self._bar = console.new_progress("epochs") if console.err.is_terminal and not quiet else None
        self._tasks: dict[TrainingScope, Any] = {}

    def __enter__(self) -> TrainProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begun(self, run: Path) -> None:
        """The folder is there: an interruption names it from now on."""
        from siam_model.protocol.settings import read_settings

        self.run = run
        self._epochs = read_settings(run)[2].epochs

    def say(self, text: str, where: TrainingScope | None = None) -> None:
        """A sentence, after what it is about."""
        if where is not None:
            self._forget(where)
        if not self.quiet:
            console.say(_with_place(text, where))

    def failed(self, text: str, where: TrainingScope) -> None:
        """A sentence on what is not finished: said in any case."""
        self._forget(where)
        console.say(_with_place(text, where), "yellow")

    def balance(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """One table of the parts, and how they were made."""
        if not self.quiet:
            console.err.print(balance_table(lines))
            from siam_model.protocol.splits import HOW_BALANCED

            console.say(HOW_BALANCED)

    def batch(self, where: TrainingScope, done: int, total: int) -> None:
        """The bar of its model moves within an epoch."""
        if self._bar is not None:
            if where not in self._tasks:
                self._begin(where)
            task = self._tasks[where]
            epoch = int(self._bar.tasks[self._bar.task_ids.index(task)].completed)
            self._bar.update(task, completed=epoch + 0.99 * done / total)

    def epoch(self, where: TrainingScope, record: EpochRecord) -> None:
        """A line, and the bar of its model."""
        if self.quiet:
            return
        about, validated = str(where), record.validation_mae == record.validation_mae
        validation = f", validation {record.validation_mae:.2f}" if validated else ""
        better = " *" if record.best and validated else ""
        console.say(
            f"{about + ', ' if about else ''}epoch {record.epoch}: training error {record.training_mae:.2f} years"
            f"{validation}{better}  ({record.seconds:.1f} s)"
        )
        if self._bar is not None:
            if where not in self._tasks:
                self._begin(where)
            note = f"validation {record.validation_mae:.1f}" if validated else ""
            self._bar.update(self._tasks[where], completed=record.epoch, note=note)

    def _begin(self, where: TrainingScope) -> None:
        """A bar for a model that is new."""
        assert self._bar is not None
        self._forget(where)
        name = console.printable(str(where) or "training")
        self._tasks[where] = self._bar.add_task(name, total=self._epochs, note="")

    def _forget(self, where: TrainingScope) -> None:
        """Take away the bars of a fold whose next trial begins, or which has ended."""
        if self._bar is None:
            return
        for shown in [w for w in self._tasks if (w.variant, w.fold) == (where.variant, where.fold)]:
            self._bar.remove_task(self._tasks.pop(shown))

    def farewell(self) -> None:
        """What is kept, and how to go on."""
        if self._bar is not None:
            self._bar.stop()
        if self.run is None:
            console.say("Stopped before anything was begun.")
        else:
            console.say(
                "Stopped: finished folds, and the last finished epoch of what was being trained, are kept. Go on with: "
                f"nemo train --resume --out {self.run}"
            )
        console.err.file.flush()


def _with_place(text: str, where: TrainingScope | None) -> str:
    about = str(where) if where is not None else ""
    return f"{about}: {text}" if about else text


def balance_table(lines: Sequence[Mapping[str, Any]]) -> Any:
    """The test parts, one a row: subjects, genders, ages; and how many train and validate."""
    genders = sorted({name for line in lines for name in line["gender"]})
    columns = ["fold", "people", *genders, "videos", "ages", "mean", "SD", "train", "valid."]
    rows = [
        [
            line["fold"], line["subjects"], *(line["gender"].get(name, 0) for name in genders), line["videos"],
            f"{line['age_min']:.0f}-{line['age_max']:.0f}", f"{line['age_mean']:.1f}",
            f"{line['age_deviation']:.1f}", line["training_subjects"], line["validation_subjects"],
        ]
        for line in lines
    ]  # fmt: skip
    title = "People in the test part of each fold" if len(lines) > 1 else "People held out"
    return console.new_table(title, columns, rows, right=",".join(columns))
