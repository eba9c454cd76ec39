"""The loss, its optimiser and its batches, as Lightning wants them, and what is kept after every epoch."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from siam_model.augment import density_weights
from siam_model.config import TrainConfig
from siam_model.data import (
    Batch,
    Clips,
    LengthBuckets,
    Normalisation,
    batch_loader,
    shared,
    validation_loader,
)
from siam_model.model import SIAM, absolute_error, l2_term
from siam_model.training.diagnose import not_finite
from siam_model.training.records import EpochRecord
from siam_model.training.resume import State, random_states, restore_random_states, save_state

OnEpoch = Callable[[EpochRecord], None]
OnBatch = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Lesson:
    """What is learnt from: data, rows of the table, and everything that the result follows from but the network."""

    clips: Clips
    training: np.ndarray
    validation: np.ndarray
    config: TrainConfig
    normalisation: Normalisation
    seed: tuple[int, ...]
    fold: int
    workers: int


class Task(lightning.LightningModule):
    """One training, from `first` finished epochs on."""

    def __init__(self, model: SIAM, lesson: Lesson, state: State | None) -> None:
        super().__init__()
        self.model, self.lesson, self.config, self.state = model, lesson, lesson.config, state
        self.first = state.epoch if state is not None else 0
        weighted = self.config.age_weighting == "density"
        ages = lesson.clips.table.age[lesson.training]
        self.age_weights = density_weights(ages) if weighted else None
        self.batch_sizes: list[int] = []
        self.batch: Batch | None = None
        self.batch_index = 0
        self.sums = dict.fromkeys(("loss", "training", "videos", "validation", "validated"), 0.0)

    @property
    def epoch(self) -> int:
        """The running epoch, from 0, counted from the training's very beginning."""
        return self.first + self.current_epoch

    def train_dataloader(self) -> DataLoader:
        lesson, config = self.lesson, self.config
        sampler = LengthBuckets(
            lesson.clips.table, lesson.training, config.batch_size, lesson.clips.step, lesson.seed, self.epoch,
            config.augment_mirror, config.augment_brightness, self.age_weights,
        )  # fmt: skip
        self.batch_sizes = [len(batch) for batch in sampler]
        mine = shared(sampler, self.global_rank, self.trainer.world_size)
        return batch_loader(lesson.clips, mine, lesson.workers)

    def val_dataloader(self) -> DataLoader:
        lesson = self.lesson
        return validation_loader(
            lesson.clips, lesson.validation, self.config.batch_size, lesson.workers,
            self.global_rank, self.trainer.world_size,
        )  # fmt: skip

    def configure_optimizers(self) -> torch.optim.Optimizer:
        c = self.config
        optimiser = torch.optim.RMSprop(self.parameters(), lr=c.learning_rate, alpha=c.decay, eps=c.epsilon)
        if self.state is not None:  # the model is on its device by now
            optimiser.load_state_dict(self.state.optimiser)
        return optimiser

    def on_train_epoch_start(self) -> None:
        self.sums = dict.fromkeys(self.sums, 0.0)
        if self.state is not None and self.epoch == self.first and self.global_rank < len(self.state.random):
            restore_random_states(self.state.random[self.global_rank], self.device)
            self.state = dataclasses.replace(
                self.state, optimiser={}, model={}
            )  # no longer needed: free them

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """The learning rate of this step, from the epoch and batch alone, so that nothing is left to remember."""
        self.batch, self.batch_index = batch, batch_index
        if self.config.schedule == "cosine":
            steps = math.ceil(len(self.lesson.training) / self.config.batch_size)
            done = (self.epoch + batch_index / steps) / self.config.epochs
            for group in self.trainer.optimizers[0].param_groups:
                group["lr"] = self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Equation 8 plus lambda times the sum of squared weights, both inside what is clipped."""
        error = self._error(batch)  # (B,)
        loss = (batch.weight * error).sum() + self.config.l2 * l2_term(self.model)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise not_finite(
                self.model, batch, self.lesson.normalisation, error.detach(), *self._words(batch)
            )
        counts = batch.weight > 0
        self.sums["loss"] += value * self.batch_sizes[batch_index] / self.trainer.world_size
        self.sums["training"] += float(error.detach()[counts].sum())
        self.sums["videos"] += int(counts.sum())
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_index: int) -> None:
        """Let the frames go before the next batch is read: two batches of long videos are one too many."""
        self.batch = None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Before clipping, which would turn an infinite gradient into 5. float16's scaler expects such steps and
        leaves them out by itself."""
        if _scaler(self.trainer) is not None or self.batch is None:
            return
        finite = [p.grad.isfinite().all() for p in self.model.parameters() if p.grad is not None]
        if finite and not bool(torch.stack(finite).all()):
            batch = self.batch
            raise not_finite(self.model, batch, self.lesson.normalisation, None, *self._words(batch))

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        counts, error = batch.weight > 0, self._error(batch, of_video=True)
        if not bool(error.isfinite().all()):
            ids, _, advice = self._words(batch)
            where = f"epoch {self.epoch + 1}, validation"
            raise not_finite(self.model, batch, self.lesson.normalisation, error, ids, where, advice)
        self.sums["validation"] += float(error[counts].sum())
        self.sums["validated"] += int(counts.sum())

    def _error(self, batch: Batch, of_video: bool = False) -> Tensor:
        """(B,) absolute errors, years: of the loss, or of each video's final age."""
        output = self.model(batch.frames, batch.lengths, self.lesson.normalisation)
        return (
            (output.age - batch.age).abs() if of_video else absolute_error(output, batch.age, batch.lengths)
        )

    def _words(self, batch: Batch) -> tuple[list[str], str, str]:
        """For a sentence: the batch's videos, where it is, and what to do."""
        ids = [self.lesson.clips.table.id[row] for row in batch.row.tolist()]
        smaller = (
            f"try a smaller step, for instance --set train.learning_rate={self.config.learning_rate / 10:g}"
        )
        half = "" if self.trainer.precision == "32-true" else ", or --precision 32"
        return ids, f"epoch {self.epoch + 1}, batch {self.batch_index + 1}", smaller + half


class Keeper(Callback):
    """After every epoch: adds up, keeps the best weights, writes the checkpoint, tells, and stops when it is time."""

    def __init__(
        self,
        lesson: Lesson,
        state: State | None,
        checkpoint: Path | None,
        prints: dict[str, str],
        on_epoch: OnEpoch | None,
        on_batch: OnBatch | None,
    ) -> None:
        self.lesson, self.checkpoint, self.prints = lesson, checkpoint, prints
        self.on_epoch, self.on_batch = on_epoch, on_batch
        self.history = list(state.history) if state is not None else []
        self.best_epoch = state.best_epoch if state is not None else 0
        self.best_error = state.best_error if state is not None else math.inf
        self.best_state = state.best_state if state is not None else None
        self.started = 0.0
        self.exception: BaseException | None = None

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.started = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.on_batch is not None and trainer.is_global_zero:
            self.on_batch(batch_idx + 1, len(pl_module.batch_sizes))

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Lightning calls this after the epoch's validation."""
        sums, epoch = self._together(trainer, pl_module), pl_module.epoch + 1
        validated = sums["validated"] > 0
        error = sums["validation"] / sums["validated"] if validated else math.nan
        best = not validated or error < self.best_error
        if best:
            self.best_epoch = epoch
            if validated:
                self.best_error = error
                self.best_state = _copied(pl_module.model.state_dict())
        record = EpochRecord(
            fold=self.lesson.fold,
            epoch=epoch,
            loss=sums["loss"] / sums["videos"],
            training_mae=sums["training"] / sums["videos"],
            validation_mae=error,
            best=best,
            seconds=time.monotonic() - self.started,
        )
        self.history.append(record)
        if self.checkpoint is not None:
            self._save(trainer, pl_module, epoch)
        if self.on_epoch is not None and trainer.is_global_zero:
            self.on_epoch(record)
        if validated and epoch - self.best_epoch >= self.lesson.config.patience:
            trainer.should_stop = True

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.exception = exception

    def _together(self, trainer: lightning.Trainer, pl_module: Any) -> dict[str, float]:
        """The sums over all processes."""
        if trainer.world_size == 1:
            return dict(pl_module.sums)
        names = list(pl_module.sums)
        values = torch.tensor(
            [pl_module.sums[n] for n in names], dtype=torch.float64, device=pl_module.device
        )
        torch.distributed.all_reduce(values)
        return dict(zip(names, values.tolist(), strict=True))

    def _save(self, trainer: lightning.Trainer, pl_module: Any, epoch: int) -> None:
        assert self.checkpoint is not None
        states: list[Any] = [random_states(pl_module.device)]
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, states[0])
            states = gathered
        if not trainer.is_global_zero:
            return
        scaler = _scaler(trainer)
        state = State(
            epoch=epoch,
            model=pl_module.model.state_dict(),
            optimiser=trainer.optimizers[0].state_dict(),
            scaler=scaler.state_dict() if scaler is not None else {},
            random=states,
            best_epoch=self.best_epoch,
            best_error=self.best_error,
            best_state=self.best_state,
            history=self.history,
        )
        save_state(self.checkpoint, state, self.prints)


def _scaler(trainer: lightning.Trainer) -> Any:
    """The gradient scaler of float16, or None."""
    return getattr(trainer.precision_plugin, "scaler", None)


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies in the CPU's memory."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
