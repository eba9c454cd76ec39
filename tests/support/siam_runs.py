"""What the tests of training share: quick trainings, a listener that ends one, and what of a run is reproducible."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from siam_model import train as training
from siam_model.protocol.history import read_history
from siam_model.protocol.reporter import CallbackReporter, Reporter, TrainingScope
from siam_model.protocol.request import Runtime, TrainRequest
from siam_model.training.records import EpochRecord

#: A network of the paper's shape that trains in a second or two.
TINY = {
    "model.channels": "6,8,8",
    "model.fully_connected": "24",
    "model.hidden": "12",
    "model.attention_dim": "6",
    "model.temporal_dim": "6",
    "train.learning_rate": "3e-3",
    "train.temporal_stride": "3",
}


def quick(data: Path, out: Path, **options: Any) -> Path:
    """`train` with two epochs of `TINY` on the CPU, unless `options` say otherwise."""
    options = {"preset": "small", "epochs": 2, "device": "cpu", **options}
    return train(data, out, **{**options, "overrides": {**TINY, **options.get("overrides", {})}})


def train(data: Any, out: Any = None, **options: Any) -> Path:
    """`siam_model.train.train`, with the fields of its requests, `reporter`, or `on_epoch` and `say`, as keywords."""
    request, runtime, reporter = _split(options)
    return training.train(data, out, TrainRequest(**request), runtime, reporter)


def resume(
    run: Any,
    data: Any = None,
    *,
    given: Mapping[str, Any] | None = None,
    marks: str | None = None,
    **options: Any,
) -> Path:
    """`siam_model.train.resume`, likewise."""
    request, runtime, reporter = _split(options)
    assert not request, request
    return training.resume(run, data, runtime, reporter, given=given, marks=marks)


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], Runtime, Reporter | None]:
    asked = {field.name for field in dataclasses.fields(TrainRequest)}
    reporter = options.pop("reporter", None)
    on_epoch, say = options.pop("on_epoch", None), options.pop("say", None)
    if on_epoch is not None or say is not None:
        reporter = CallbackReporter(on_epoch, say)
    request = {name: value for name, value in options.items() if name in asked}
    return request, Runtime(**{n: v for n, v in options.items() if n not in asked}), reporter


class Stop(Exception):
    """Ends a training from outside."""


class Listener(Reporter):
    """Keeps what it is told; raises `Stop` after `stop_at` epochs."""

    def __init__(self, stop_at: int = 0) -> None:
        self.said: list[str] = []
        self.epochs: list[tuple[TrainingScope, EpochRecord]] = []
        self.stop_at = stop_at

    def say(self, text: str, where: TrainingScope | None = None) -> None:
        self.said.append(f"{where}: {text}" if where is not None else text)

    def epoch(self, where: TrainingScope, record: EpochRecord) -> None:
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
