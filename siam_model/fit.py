"""One training: a model fitted to some videos and stopped by others. The only importer of Lightning."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from nemo_pipeline.errors import NemoError
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.data import Batch, Clips, Normalisation, training_loader, validation_loader
from siam_model.devices import freed_memory_kept, resolve_device
from siam_model.model import SIAM, absolute_error, l2_term


@dataclasses.dataclass(frozen=True, slots=True)
class EpochRecord:
    """One line of history.csv. Errors are mean absolute errors in years; the loss includes the L2 term.

    `fold` is -1 for the final model after a cross-validation, `validation_mae` NaN where nothing validates,
    `best` whether this epoch's weights are the best so far, `seconds` the epoch's duration.
    """

    fold: int
    epoch: int
    loss: float
    training_mae: float
    validation_mae: float
    best: bool
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Fitted:
    """A trained network (evaluation mode, on the CPU) with the weights of its best epoch, and its history."""

    model: SIAM
    history: tuple[EpochRecord, ...]
    best_epoch: int


def fit(
    clips: Clips,
    training: np.ndarray,
    validation: np.ndarray,
    model_config: SIAMConfig,
    config: TrainConfig,
    normalisation: Normalisation,
    *,
    seed: Sequence[int],
    fold: int = 0,
    device: str = "auto",
    workers: int = 0,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> Fitted:
    """Train a fresh SIAM on the rows `training` of the table of `clips`.

    Stops after `config.epochs`, or when the error on `validation` was not better for `config.patience`
    epochs, and keeps the weights of the best epoch. With an empty `validation` it runs all epochs and keeps
    the last weights. Everything random follows from `seed`; the caller's random state is left alone.

    Raises:
        NemoError: the loss stopped being a finite number, or the device does not exist.
    """
    chosen = resolve_device(device)
    derived = int(np.random.SeedSequence([*seed, 0x51A]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    with torch.random.fork_rng(), _quiet_lightning(), freed_memory_kept(chosen):
        torch.manual_seed(derived)
        model = SIAM(model_config)
        model.frame_chunk = config.frame_chunk
        model.start_at(float(np.median(clips.table.age[training])))
        task = _Task(model, config, normalisation, clips, training, validation, tuple(seed), workers)
        keeper = _Keeper(fold, config.patience, on_epoch)
        trainer = lightning.Trainer(
            accelerator="gpu" if chosen.type == "cuda" else chosen.type,
            devices=1 if chosen.index is None else [chosen.index],
            max_epochs=config.epochs,
            gradient_clip_val=config.clip,
            gradient_clip_algorithm="value",
            deterministic="warn",
            reload_dataloaders_every_n_epochs=1,  # each epoch's batches follow from (seed, epoch) alone
            callbacks=[keeper],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if len(validation) else 0,
            log_every_n_steps=1,
        )
        trainer.fit(task)
        if keeper.best_state is not None:
            model.load_state_dict(keeper.best_state)
    return Fitted(model.cpu().eval(), tuple(keeper.history), keeper.best_epoch)


class _Task(lightning.LightningModule):
    """The loss, its optimiser and its batches, as Lightning wants them."""

    def __init__(
        self,
        model: SIAM,
        config: TrainConfig,
        normalisation: Normalisation,
        clips: Clips,
        training: np.ndarray,
        validation: np.ndarray,
        seed: tuple[int, ...],
        workers: int,
    ) -> None:
        super().__init__()
        self.model, self.config, self.normalisation = model, config, normalisation
        self.clips, self.training_rows, self.validation_rows = clips, training, validation
        self.seed, self.workers = seed, workers
        self.sums = {"loss": 0.0, "training": 0.0, "videos": 0.0, "validation": 0.0, "validated": 0.0}

    def train_dataloader(self) -> DataLoader:
        return training_loader(
            self.clips,
            self.training_rows,
            self.config.batch_size,
            self.seed,
            self.current_epoch,
            self.workers,
        )

    def val_dataloader(self) -> DataLoader:
        return validation_loader(self.clips, self.validation_rows, self.config.batch_size, self.workers)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        c = self.config
        return torch.optim.RMSprop(self.parameters(), lr=c.learning_rate, alpha=c.decay, eps=c.epsilon)

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """The learning rate of this step, from the epoch and batch alone, so that nothing is left to remember."""
        if self.config.schedule == "cosine":
            steps = math.ceil(len(self.training_rows) / self.config.batch_size)
            done = (self.current_epoch + batch_index / steps) / self.config.epochs
            for group in self.trainer.optimizers[0].param_groups:
                group["lr"] = self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def on_train_epoch_start(self) -> None:
        self.sums = dict.fromkeys(self.sums, 0.0)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Equation 8 plus lambda times the sum of squared weights, both inside what is clipped."""
        error = self._error(batch)  # (B,)
        loss = error.mean() + self.config.l2 * l2_term(self.model)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NemoError(
                f"The loss is not a finite number any more (epoch {self.current_epoch + 1}, batch "
                f"{batch_index + 1}); try a smaller step, for instance --set train.learning_rate="
                f"{self.config.learning_rate / 10:g}."
            )
        self.sums["loss"] += value * len(error)
        self.sums["training"] += float(error.detach().sum())
        self.sums["videos"] += len(error)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        error = self._error(batch, of_video=True)
        self.sums["validation"] += float(error.sum())
        self.sums["validated"] += len(error)

    def _error(self, batch: Batch, of_video: bool = False) -> Tensor:
        """(B,) absolute errors, years: of the loss, or of each video's final age."""
        output = self.model(self.normalisation(batch.frames), batch.lengths)
        return (
            (output.age - batch.age).abs() if of_video else absolute_error(output, batch.age, batch.lengths)
        )


class _Keeper(Callback):
    """Keeps the best weights in memory, writes the history, and stops when nothing gets better."""

    def __init__(self, fold: int, patience: int, on_epoch: Callable[[EpochRecord], None] | None) -> None:
        self.fold, self.patience, self.on_epoch = fold, patience, on_epoch
        self.history: list[EpochRecord] = []
        self.best_epoch, self.best_error = 0, math.inf
        self.best_state: dict[str, Any] | None = None
        self.started = 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Lightning calls this after the epoch's validation."""
        sums, epoch = pl_module.sums, trainer.current_epoch + 1
        validated = sums["validated"] > 0
        error = sums["validation"] / sums["validated"] if validated else math.nan
        best = not validated or error < self.best_error
        if best:
            self.best_epoch, self.best_error = epoch, error
            if validated:
                self.best_state = copy.deepcopy(pl_module.model.state_dict())
        record = EpochRecord(
            fold=self.fold,
            epoch=epoch,
            loss=sums["loss"] / sums["videos"],
            training_mae=sums["training"] / sums["videos"],
            validation_mae=error,
            best=best,
            seconds=time.monotonic() - self.started,
        )
        self.history.append(record)
        if self.on_epoch is not None:
            self.on_epoch(record)
        if validated and epoch - self.best_epoch >= self.patience:
            trainer.should_stop = True


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's notices about devices, loggers and worker counts say nothing that our user can act on."""
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings(
                "ignore", message=r".*(does not have many workers|LeafSpec|deterministic).*"
            )
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
