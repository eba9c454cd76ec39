"""The stages of a training in order: which parameters learn, from which targets, at which rate. Does not need torch."""

from __future__ import annotations

import dataclasses
from typing import Literal

from siam_model.config import TrainConfig


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """Epochs that are trained alike.

    Attributes:
        kind: `expression`: the appearance module alone, without ages (`siam_model.training.pretrain`); `frozen`:
            everything but the appearance module, from ages; `all`: everything, from ages.
        start: the epoch before its first one. Epochs of ages count from 1, so pretraining ends with epoch 0.
        epochs: how many.
        learning_rate: of RMSprop, which starts over in every stage; the schedule spans the stage.
    """

    kind: Literal["expression", "frozen", "all"]
    start: int
    epochs: int
    learning_rate: float

    @property
    def step_setting(self) -> str:
        """The setting that `learning_rate` comes from."""
        names = {"expression": "pretrain_learning_rate", "frozen": "frozen_learning_rate"}
        return f"train.{names.get(self.kind, 'learning_rate')}"

    @property
    def end(self) -> int:
        """Its last epoch."""
        return self.start + self.epochs


def stages_of(config: TrainConfig) -> list[Stage]:
    """The stages of a training, at least one; by default everything learns from ages in all epochs."""
    found = []
    if config.pretrain != "none":
        count = config.pretrain_epochs
        found.append(Stage("expression", -count, count, config.pretrain_learning_rate))
    frozen = min(config.freeze_appearance, config.epochs)
    if frozen:
        found.append(Stage("frozen", 0, frozen, config.frozen_learning_rate))
    if frozen < config.epochs:
        found.append(Stage("all", frozen, config.epochs - frozen, config.learning_rate))
    return found
