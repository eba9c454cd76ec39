"""TensorBoard's event files next to history.csv, if asked for."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import InstallationError
from siam_model.run_folder import RunFolder
from siam_model.training.records import EpochRecord
from siam_model.training.resume import TrainingState


class Scalars:
    """Writes a record's numbers, one step per epoch; nothing without a writer."""

    def __init__(self, writer: Any = None) -> None:
        self.writer = writer

    @classmethod
    @contextlib.contextmanager
    def open(cls, checkpoint: Path | None, state: TrainingState | None) -> Iterator[Scalars]:
        """Into tensorboard/ next to the checkpoint, after the epochs of `state`; nothing without a checkpoint.

        Raises:
            NemoError: TensorBoard is not installed.
        """
        if checkpoint is None:
            yield cls()
            return
        folder = RunFolder(checkpoint.parent).tensorboard
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InstallationError(
                "TensorBoard is not installed; install it with `pip install 'nemo-faces[tensorboard]'`, or train "
                "without `tensorboard` (history.csv and curves.png hold the same).",
                "tensorboard",
            ) from None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # What was written about epochs that are trained again is hidden.
        writer = SummaryWriter(str(folder), purge_step=state.epoch + 1 if state is not None else None)
        try:
            yield cls(writer)
        finally:
            writer.close()

    def add(self, record: EpochRecord) -> None:
        """One epoch's numbers."""
        if self.writer is None:
            return
        if record.epoch < 1:
            return  # pretraining: in history.csv alone
        self.writer.add_scalar("error/training", record.training_mae, record.epoch)
        if not math.isnan(record.validation_mae):
            self.writer.add_scalar("error/validation", record.validation_mae, record.epoch)
        self.writer.add_scalar("loss", record.loss, record.epoch)
        self.writer.add_scalar("seconds", record.seconds, record.epoch)
        self.writer.flush()
