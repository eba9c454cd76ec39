"""What the tests of the protocol share: a listener that can end a training, and what of a run must be reproducible."""

from __future__ import annotations

from pathlib import Path

from siam_model.protocol.history import read_history
from siam_model.protocol.work import Reporter, Where
from siam_model.training.records import EpochRecord


class Stop(Exception):
    """Ends a training from outside."""


class Listener(Reporter):
    """Keeps what it is told; raises `Stop` after `stop_at` epochs."""

    def __init__(self, stop_at: int = 0) -> None:
        self.said: list[str] = []
        self.epochs: list[tuple[Where, EpochRecord]] = []
        self.stop_at = stop_at

    def say(self, text: str, where: Where | None = None) -> None:
        self.said.append(f"{where}: {text}" if where is not None else text)

    def epoch(self, where: Where, record: EpochRecord) -> None:
        self.epochs.append((where, record))
        if len(self.epochs) == self.stop_at:
            raise Stop


def results(run: Path) -> dict[str, object]:
    """What must not depend on how a run came about."""
    found: dict[str, object] = {"predictions": (run / "predictions.csv").read_bytes()}
    for file in sorted((run / "baselines").glob("*.csv")):
        found[file.name] = file.read_bytes()
    found["curve"] = [
        repr((line.fold, line.epoch, line.loss, line.training_mae, line.validation_mae))
        for line in read_history(run / "history.csv")
    ]
    for model in [run / "model", *sorted((run / "folds").glob("*/model"))]:
        found[str(model.relative_to(run))] = (model / "model.safetensors").read_bytes()
    return found
