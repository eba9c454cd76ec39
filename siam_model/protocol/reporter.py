"""The interface for progress of a training. The command line imports this when it starts: without torch or numpy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_pipeline.store.text import escape_controls

if TYPE_CHECKING:
    from siam_model.training.records import EpochRecord


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingScope:
    """What is being trained: a fold (None without folds, -1 the model of all subjects), a trial of its search
    (None outside one) of how many, in a variant of a study ("" outside one); a compared method ("": SIAM)."""

    fold: int | None = None
    trial: int | None = None
    trials: int = 0
    variant: str = ""
    method: str = ""

    def __str__(self) -> str:
        parts = [self.variant] if self.variant else []
        if self.fold is not None:
            parts.append("all subjects" if self.fold < 0 else f"fold {self.fold}")
        if self.method:
            parts.append(self.method)
        if self.trial is not None:
            parts.append(f"trial {self.trial + 1}/{self.trials}")
        return ", ".join(parts)


class Reporter:
    """Is told how a training goes; this one listens to nothing. Where several processes train, it
    is told what they say, too."""

    def begun(self, run: Path) -> None:
        """The folder of the run or study exists; from now on it can be resumed."""

    def say(self, text: str, where: TrainingScope | None = None) -> None:
        """A sentence."""

    def failed(self, text: str, where: TrainingScope) -> None:
        """A sentence on what is not finished, and why."""
        self.say(text, where)

    def balance(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """The parts, one line each, as `siam_model.protocol.splits.balance` has them."""

    def batch(self, where: TrainingScope, epoch: int, done: int, total: int) -> None:
        """Some batches of an epoch, from 1, are done."""

    def timed(self, where: TrainingScope, step: float, steps: int, epoch: float) -> None:
        """How long the first step of a training took, how many an epoch has, and how long it will therefore take;
        seconds."""

    def epoch(self, where: TrainingScope, record: EpochRecord) -> None:
        """An epoch is finished."""


class CallbackReporter(Reporter):
    """Two functions as a reporter: `on_epoch(record)` and `say(text)`, either of which may be None."""

    def __init__(
        self, on_epoch: Callable[[EpochRecord], None] | None, say: Callable[[str], None] | None
    ) -> None:
        self._on_epoch, self._say = on_epoch, say

    def say(self, text: str, where: TrainingScope | None = None) -> None:
        if self._say is not None:
            self._say(f"{where}: {text}" if where is not None and str(where) else text)

    def balance(self, lines: Sequence[Mapping[str, Any]]) -> None:
        from siam_model.protocol.splits import HOW_BALANCED

        self.say(HOW_BALANCED)
        for line in lines:
            genders = ", ".join(f"{n} {g}" for g, n in line["gender"].items())
            self.say(escape_controls(
                f"Test part of fold {line['fold']}: {line['subjects']} subjects ({genders}), {line['videos']} "
                f"videos, ages {line['age_min']:.0f} to {line['age_max']:.0f}, mean {line['age_mean']:.1f}."
            ))  # fmt: skip

    def epoch(self, where: TrainingScope, record: EpochRecord) -> None:
        if self._on_epoch is not None:
            self._on_epoch(record)
