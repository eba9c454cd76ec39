"""Trainings by `fit` itself, with everything random in them, and what must be equal in two of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from nemo_pipeline.store import FaceDataset
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.data import Clips, labelled_videos, measure_normalisation
from siam_model.training.fit import Fitted, Machine, fit
from siam_model.training.inputs import FitInputs

EPOCHS = 4
MODEL = {
    "face_size": 62, "channels": (4, 5, 6), "fully_connected": 16, "hidden": 8, "attention_dim": 4, "temporal_dim": 4,
    "dropout_conv": 0.2, "dropout_recurrent": 0.1,
}  # fmt: skip
TRAIN = {
    "epochs": EPOCHS, "batch_size": 4, "learning_rate": 3e-3, "temporal_stride": 2, "schedule": "cosine",
    "augment_mirror": True, "augment_brightness": 0.2, "augment_turn": 3.0, "augment_shift": 0.02, "temporal_crop": 0.5,
}  # fmt: skip


def inputs_of(
    data: Path, seed: int = 5, model: dict | None = None, train: dict | None = None,
    rows: tuple[int, int] = (16, 24), fold: int = 0, precision: str = "32",
) -> FitInputs:  # fmt: skip
    """The first sixteen videos train and the next eight validate; every setting that is random is on."""
    dataset = FaceDataset(data)
    config = TrainConfig(**{**TRAIN, **(train or {})})
    clips = Clips(dataset, labelled_videos(dataset), config.temporal_stride)
    training, validation = np.arange(rows[0]), np.arange(rows[0], rows[1])
    normalisation = measure_normalisation(dataset, clips.table.index[training])
    network = SIAMConfig(**{**MODEL, **(model or {})})
    return FitInputs(clips, training, validation, network, config, normalisation, (seed,), fold, precision)


def go(
    data: Path, checkpoint: Path | None = None, seed: int = 5, model: dict | None = None, train: dict | None = None,
    rows: tuple[int, int] = (16, 24), fold: int = 0, precision: str = "32", **options,
) -> Fitted:  # fmt: skip
    """Train on `inputs_of` these arguments."""
    inputs = inputs_of(data, seed, model, train, rows, fold, precision)
    names = [field.name for field in dataclasses.fields(Machine)]
    machine = {"device": "cpu", **{name: options.pop(name) for name in names if name in options}}
    return fit(inputs, Machine(**machine), checkpoint=checkpoint, **options)


def curve(history) -> list[str]:
    """Everything but the clock."""
    return [repr(dataclasses.replace(line, seconds=0)) for line in history]  # NaN equals NaN


def same(a: Fitted, b: Fitted) -> bool:
    states = a.model.state_dict(), b.model.state_dict()
    equal = all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    return equal and curve(a.history) == curve(b.history) and a.best_epoch == b.best_epoch
