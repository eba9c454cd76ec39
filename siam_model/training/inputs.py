"""Everything that determines a training's result, and the fingerprint by which a checkpoint is recognised."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from nemo_pipeline.fields import plain
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.data import Clips, Normalisation
from siam_model.training.start import Start


@dataclasses.dataclass(frozen=True, slots=True)
class FitInputs:
    """Everything that a training's result follows from.

    Attributes:
        clips: the data.
        training, validation: rows of the table of `clips`; nothing validates where `validation` is empty.
        model: the network.
        config: settings of the training.
        normalisation: of the pixels, from the training rows.
        seed: whole numbers: all that is random follows from them.
        fold: put into every record.
        precision: `32`; or `bf16-mixed`, `16-mixed` (a GPU's): convolutions, spatial attention and fully connected
            layers in half precision; standardisation, response normalisation, recurrence, temporal attention,
            regression, loss and weights in 32 bits.
        start: weights to start from, where they fit; None: all start fresh.
    """

    clips: Clips
    training: np.ndarray
    validation: np.ndarray
    model: SIAMConfig
    config: TrainConfig
    normalisation: Normalisation
    seed: tuple[int, ...]
    fold: int = 0
    precision: str = "32"
    start: Start | None = None

    def fingerprint(self) -> dict[str, str]:
        """A digest of each part: a checkpoint is resumed only if all of them are the same.

        `config.max_frames_per_pass` is left out: it decides on memory alone.
        """
        table = self.clips.table

        def videos(rows: np.ndarray) -> list[list[Any]]:
            return [[table.id[r], table.subject[r], float(table.age[r]), int(table.length[r])] for r in rows]

        settings = {k: v for k, v in self.config.to_dict().items() if k != "max_frames_per_pass"}
        parts: dict[str, Any] = {
            "network": self.model.to_dict(),
            "training settings": settings,
            "standardisation": plain(self.normalisation),
            "seed": [int(s) for s in self.seed],
            "fold": self.fold,
            "precision": self.precision,
            "training videos": videos(self.training),
            "validation videos": videos(self.validation),
        }
        if self.start is not None:
            parts["weights it starts from"] = self.start.sha256
        return {
            name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()
            for name, part in parts.items()
        }
