"""Progress of a training: a line per epoch, on a terminal a bar per model below, and how it is interrupted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_pipeline.store.text import pluralize
from siam_model.protocol.reporter import Reporter, TrainingScope

from . import console

if TYPE_CHECKING:
    from siam_model.protocol.request import Runtime
    from siam_model.training.fit import EpochRecord


#: Seconds from which on it is said how a training gets shorter.
_LONG = 86400


class TrainProgress(Reporter):
    """A `siam_model.protocol.reporter.Reporter` that shows all on standard error; nothing but failures when quiet."""

    def __init__(self, quiet: bool, runtime: Runtime) -> None:
        self.quiet, self.runtime = quiet, runtime
        self.run: Path | None = None
        self._epochs, self._pretraining, self._timed = 0, 0, False
        self._bar = console.new_progress("steps") if console.err.is_terminal and not quiet else None
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
        from siam_model.training.stages import stages_of

        self.run = run
        config = read_settings(run)[2]
        self._epochs, self._pretraining = config.epochs, max(0, -stages_of(config)[0].start)

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

    def batch(self, where: TrainingScope, epoch: int, done: int, total: int) -> None:
        """The bar of its model, over the steps of an epoch."""
        if self._bar is None:
            return
        if where not in self._tasks:
            self._forget(where)
            self._tasks[where] = self._bar.add_task("", total=total, note="")
        about = f"{where}, " if str(where) else ""
        name = console.escape_controls(f"{about}{self._place(epoch)}")
        self._bar.update(self._tasks[where], description=name, completed=done, total=total)

    def timed(self, where: TrainingScope, step: float, steps: int, epoch: float) -> None:
        """From the first step of all: how long it will take."""
        if self._timed or self.quiet or self.run is None:
            return
        from siam_model.protocol.forecast import forecast

        self._timed = True
        left = forecast(self.run, epoch, self.runtime)
        least, most = duration(left.least), duration(left.most)
        console.say(
            f"A step takes {duration(step)}, an epoch of {pluralize(steps, 'step')} about {duration(epoch)}. To do: "
            f"{pluralize(left.trainings, 'training')} of at most {pluralize(left.epochs, 'epoch')}, "
            f"{f'about {most}' if least == most else f'{least} to {most}'} in all."
        )
        if left.most > _LONG:
            console.say("Shorter: a GPU, fewer --trials (0: no search), fewer --epochs, or --preset small.")

    def epoch(self, where: TrainingScope, record: EpochRecord) -> None:
        """A line, and the bar of its model."""
        if self.quiet:
            return
        about, validated = str(where), record.validation_mae == record.validation_mae
        validation = f", validation {record.validation_mae:.2f}" if validated else ""
        if record.epoch < 1:
            console.say(
                f"{about + ', ' if about else ''}{self._place(record.epoch)}: loss {record.loss:.4f}  "
                f"({record.seconds:.1f} s)"
            )
            return
        better = " *" if record.best and validated else ""
        console.say(
            f"{about + ', ' if about else ''}epoch {record.epoch}: training error {record.training_mae:.2f} years"
            f"{validation}{better}  ({record.seconds:.1f} s)"
        )
        if self._bar is not None and where in self._tasks and validated:
            self._bar.update(self._tasks[where], note=f"validation {record.validation_mae:.1f}")

    def _place(self, epoch: int) -> str:
        """Which epoch of how many; those up to 0 are of pretraining."""
        if epoch < 1:
            return f"pretraining {epoch + self._pretraining} of {self._pretraining}"
        return f"epoch {epoch} of {self._epochs}"

    def _forget(self, where: TrainingScope) -> None:
        """Take away the bars of a fold whose next trial begins, or which has ended."""
        if self._bar is None:
            return
        for shown in [w for w in self._tasks if (w.variant, w.fold) == (where.variant, where.fold)]:
            self._bar.remove_task(self._tasks.pop(shown))

    def farewell(self) -> None:
        """What is kept, and how to resume."""
        if self._bar is not None:
            self._bar.stop()
        if self.run is None:
            console.say("Stopped before anything was begun.")
        else:
            console.say(
                "Stopped. Finished folds, and the last finished epoch of the current training, are kept. Resume with: "
                f"nemo train --resume --out {self.run}"
            )
        console.err.file.flush()


def duration(seconds: float) -> str:
    """For people: "0.4 s", "12 min", "5.5 hours", "3 days"."""
    for unit, size, up_to in (
        ("s", 1, 90),
        ("min", 60, 5400),
        ("hours", 3600, 172800),
        ("days", 86400, None),
    ):
        if up_to is None or seconds < up_to:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    raise AssertionError


def _with_place(text: str, where: TrainingScope | None) -> str:
    about = str(where) if where is not None else ""
    return f"{about}: {text}" if about else text


def balance_table(lines: Sequence[Mapping[str, Any]]) -> Any:
    """The test parts, one a row: subjects, genders, ages; and how many train and validate."""
    genders = sorted({name for line in lines for name in line["gender"]})
    columns = ["fold", "subjects", *genders, "videos", "ages", "mean", "SD", "train", "valid."]
    rows = [
        [
            line["fold"], line["subjects"], *(line["gender"].get(name, 0) for name in genders), line["videos"],
            f"{line['age_min']:.0f}-{line['age_max']:.0f}", f"{line['age_mean']:.1f}",
            f"{line['age_deviation']:.1f}", line["training_subjects"], line["validation_subjects"],
        ]
        for line in lines
    ]  # fmt: skip
    title = "Subjects in the test part of each fold"
    if len(lines) == 1:
        title, columns, rows = "Held-out subjects", columns[1:], [rows[0][1:]]
    return console.new_table(title, columns, rows, right=",".join(columns))
