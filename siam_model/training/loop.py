"""The training loop: mean absolute error (equation 8), L2 term, clipped gradients, RMSprop, and the best epoch kept.

An interrupted training is resumed to the bit. Therefore the order of the batches, their augmentation and the learning
rate follow from (seed, epoch, batch) alone, the state of every random generator is part of the checkpoint, and nothing
else is remembered from one epoch to the next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nemo_pipeline.errors import NemoError
from siam_model.augment import density_weights
from siam_model.data import (
    Batch,
    LengthBuckets,
    Normalisation,
    batch_loader,
    shared,
    validation_loader,
)
from siam_model.devices import autocast, freed_memory_kept
from siam_model.model import SIAM, SIAMOutput, absolute_error, l2_term
from siam_model.training.diagnose import not_finite
from siam_model.training.inputs import FitInputs
from siam_model.training.pretrain import ExpressionLoss, FrozenClips, Targets, targets_of
from siam_model.training.records import EpochRecord
from siam_model.training.resume import (
    TrainingState,
    damaged,
    is_finished,
    random_states,
    restore_random_states,
    save_state,
)
from siam_model.training.stages import Stage, stages_of

OnEpoch = Callable[[EpochRecord], None]
OnBatch = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where this process trains: its device, the processes that read data for it, and which of how many processes of
    the training it is."""

    device: torch.device
    workers: int = 0
    rank: int = 0
    world: int = 1


def train(
    inputs: FitInputs,
    place: Place,
    state: TrainingState | None,
    checkpoint: Path | None,
    on_epoch: OnEpoch | None,
    on_batch: OnBatch | None,
) -> TrainingState:
    """Train in this process, from `state` on if there is one; the state after the last epoch.

    Args:
        checkpoint: where to save the state after every epoch, with the inputs' fingerprint; None: nowhere.
        on_epoch, on_batch: told of epochs (after their checkpoint is on disk) and of batches done.
    """
    with _own_random_states(place.device), _deterministic(), freed_memory_kept(place.device):
        try:
            training = _Training(inputs, place, state)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if state is None or checkpoint is None or isinstance(error, torch.OutOfMemoryError):
                raise
            raise damaged(checkpoint, error) from None
        prints = inputs.fingerprint()
        while not training.finished:
            record = training.epoch(on_batch)
            if checkpoint is not None:
                last = training.state()
                if place.rank == 0:
                    save_state(checkpoint, last, prints)
            if on_epoch is not None:
                on_epoch(record)
        return training.state()


class _Loss(nn.Module):
    """Equation 8 plus lambda times the sum of squared weights: one module, so that several processes can share it.

    `frozen`: batches hold the features of a frozen appearance module (`FrozenClips`).
    """

    def __init__(self, model: SIAM, normalisation: Normalisation, l2: float, frozen: bool) -> None:
        super().__init__()
        self.model, self.normalisation, self.l2, self.frozen = model, normalisation, l2, frozen

    def output(self, batch: Batch) -> SIAMOutput:
        """Ages of a batch."""
        if self.frozen:
            return self.model.regress(batch.frames, batch.lengths)
        return self.model(batch.frames, batch.lengths, self.normalisation)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of a batch, and (B,) absolute errors in years."""
        output = self.output(batch)
        error = absolute_error(output, batch.age, batch.lengths)
        return (batch.weight * error).sum() + self.l2 * l2_term(self.model), error


class _Training:
    """Network, optimiser and what is known of the epochs so far."""

    def __init__(self, inputs: FitInputs, place: Place, state: TrainingState | None) -> None:
        self.inputs, self.config, self.place = inputs, inputs.config, place
        derived = np.random.SeedSequence([*inputs.seed, 0x51A]).generate_state(1, np.uint64)[0]
        seed = int(derived >> np.uint64(1))
        torch.manual_seed(seed)
        self.model = SIAM(inputs.model)
        self.model.max_frames_per_pass = self.config.max_frames_per_pass
        ages = inputs.clips.table.age[inputs.training]
        self.model.start_at(float(np.median(ages)))
        if inputs.start is not None:
            self.model.load_state_dict(inputs.start.fitting(self.model), strict=False)
        self.age_weights = density_weights(ages) if self.config.age_weighting == "density" else None
        if state is not None:
            if state.best_state is not None:
                self.model.load_state_dict(state.best_state)  # whether it could be done at the end
            self.model.load_state_dict(state.model)
        self.model.to(place.device)
        self.stages = stages_of(self.config)
        self.done = self.stages[0].start if state is None else state.epoch
        self._enter(self._next_stage())
        if place.world > 1:
            torch.manual_seed(seed + place.rank)  # dropout of its own; equal weights
        # float16 alone needs its gradients scaled; on other settings this does nothing.
        self.scaler = torch.amp.GradScaler(place.device.type, enabled=inputs.precision == "16-mixed")
        self.history: list[EpochRecord] = []
        self.best_epoch, self.best_error = 0, math.inf
        self.best_state: dict[str, Tensor] | None = None
        if state is not None:
            self.history = list(state.history)
            self.best_epoch, self.best_error = state.best_epoch, state.best_error
            self.best_state = state.best_state
            if state.epoch > self.stage.start:  # else it is the optimiser of the stage before
                self.optimiser.load_state_dict(state.optimiser)
            if state.scaler:
                self.scaler.load_state_dict(state.scaler)
            if place.rank < len(state.random):
                restore_random_states(state.random[place.rank], place.device)

    @property
    def finished(self) -> bool:
        """Whether no further epoch follows: all are done, or patience has run out."""
        return is_finished(self.done, self.best_epoch, self.best_state is not None, self.config)

    def _next_stage(self) -> Stage:
        """The stage of the next epoch; after the last one, the last."""
        return next((stage for stage in self.stages if self.done < stage.end), self.stages[-1])

    def _enter(self, stage: Stage) -> None:
        """Loss, optimiser and clips of a stage, which begin anew in each."""
        self.stage, inputs, config = stage, self.inputs, self.config
        self.model.requires_grad_(stage.kind != "expression")
        self.model.appearance.requires_grad_(stage.kind != "frozen")
        self.clips, self.rows = inputs.clips, inputs.training
        self.targets: Targets | None = None
        loss: nn.Module
        if stage.kind == "expression":
            self.targets = targets_of(inputs.clips, inputs.training, config, self.model.config.hidden)
            self.rows = self.targets.rows
            loss = ExpressionLoss(self.model, inputs.normalisation)
        else:
            loss = self.ages = _Loss(self.model, inputs.normalisation, config.l2, stage.kind == "frozen")
        if stage.kind == "frozen":
            used = np.concatenate([inputs.training, inputs.validation])
            with autocast(self.inputs.precision, self.place.device):
                self.clips = FrozenClips(
                    inputs.clips, used, self.model, inputs.normalisation, self.place.device
                )
        self.loss = nn.parallel.DistributedDataParallel(loss) if self.place.world > 1 else loss
        self.optimiser = torch.optim.RMSprop(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            lr=stage.learning_rate, alpha=config.rmsprop_alpha, eps=config.epsilon,
        )  # fmt: skip

    def epoch(self, on_batch: OnBatch | None) -> EpochRecord:
        """Train one epoch and validate."""
        started = time.monotonic()
        config, inputs, place = self.config, self.inputs, self.place
        if self._next_stage() != self.stage:
            self._enter(self._next_stage())
        stage, targets = self.stage, self.targets
        shown = config
        if targets is not None:
            # Mirrored points are not the aligned shape that the file has; and what is learnt frame by frame gains
            # nothing from shorter clips.
            mirror = config.augment_mirror and config.pretrain != "shape"
            shown = dataclasses.replace(config, augment_mirror=mirror, temporal_crop=0.0)
        seed = inputs.seed if targets is None else (*inputs.seed, 0xE59)
        sampler = LengthBuckets(
            inputs.clips.table, self.rows, shown, seed, self.done - min(stage.start, 0),
            self.age_weights if targets is None else None,
        )  # fmt: skip
        sizes = [len(batch) for batch in sampler]
        mine = shared(sampler, place.rank, place.world)
        workers = 0 if stage.kind == "frozen" else place.workers
        batches = iter(batch_loader(self.clips, mine, workers))
        sums = np.zeros(3)  # loss times videos, errors, videos
        self.model.train()
        for number, size in enumerate(sizes):
            target = None if targets is None else targets.of(mine[number], inputs.clips.step)
            sums += self._step(next(batches), target, number, size)
            if on_batch is not None:
                on_batch(number + 1, len(sizes))
        errors = np.zeros(2)  # absolute errors, videos
        if len(inputs.validation) and targets is None:
            self.model.eval()
            loader = validation_loader(
                self.clips, inputs.validation, config.batch_size, workers, place.rank, place.world
            )
            for batch in loader:
                errors += self._validate(batch)
        loss, training, n, validation, validated = self._over_processes([*sums.tolist(), *errors.tolist()])
        self.done += 1
        error = validation / validated if validated else math.nan
        best = targets is None and (not validated or error < self.best_error)
        if best:
            self.best_epoch = self.done
            if validated:
                self.best_error = error
                self.best_state = {
                    name: tensor.detach().to("cpu", copy=True)
                    for name, tensor in self.model.state_dict().items()
                }
        seconds = time.monotonic() - started
        mae = training / n if targets is None else math.nan
        record = EpochRecord(inputs.fold, self.done, loss / n, mae, error, best, seconds)
        self.history.append(record)
        return record

    def _step(self, batch: Batch, target: Tensor | None, number: int, size: int) -> np.ndarray:
        """One step of the optimiser on batch `number` of the epoch, of `size` videos in all processes; what the epoch
        sums up. `target`: of pretraining."""
        batch = self._on_device(batch)
        if self.config.schedule == "cosine":
            steps = math.ceil(len(self.rows) / self.config.batch_size)
            progress = (self.done - self.stage.start + number / steps) / self.stage.epochs
            for group in self.optimiser.param_groups:
                group["lr"] = self.stage.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        self.optimiser.zero_grad()
        with autocast(self.inputs.precision, self.place.device):
            if target is None:
                loss, error = self.loss(batch)
            else:
                loss, error = self.loss(batch, target.to(self.place.device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._not_finite(batch, error.detach(), f"batch {number + 1}")
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        # Before clipping, which would turn an infinite gradient into 5. float16's scaler leaves such steps out.
        if not self.scaler.is_enabled():
            gradients = [p.grad.isfinite().all() for p in self.model.parameters() if p.grad is not None]
            if gradients and not bool(torch.stack(gradients).all()):
                raise self._not_finite(batch, None, f"batch {number + 1}")
        nn.utils.clip_grad_value_(self.model.parameters(), self.config.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        counts = batch.weight > 0
        share = value * size / self.place.world
        return np.array([share, float(error.detach()[counts].sum()), int(counts.sum())])

    @torch.no_grad()
    def _validate(self, batch: Batch) -> np.ndarray:
        """Summed absolute error of each video's final age, and the number of videos."""
        batch = self._on_device(batch)
        with autocast(self.inputs.precision, self.place.device):
            output = self.ages.output(batch)
        error = (output.age - batch.age).abs()
        if not bool(error.isfinite().all()):
            raise self._not_finite(batch, error, "validation")
        counts = batch.weight > 0
        return np.array([float(error[counts].sum()), int(counts.sum())])

    def state(self) -> TrainingState:
        """All that is needed to continue. Every process has to call it."""
        states: list[Any] = [random_states(self.place.device)]
        if self.place.world > 1:
            states = [None] * self.place.world
            torch.distributed.all_gather_object(states, random_states(self.place.device))
        return TrainingState(
            epoch=self.done,
            model=self.model.state_dict(),
            optimiser=self.optimiser.state_dict(),
            scaler=self.scaler.state_dict(),
            random=states,
            best_epoch=self.best_epoch,
            best_error=self.best_error,
            best_state=self.best_state,
            history=self.history,
        )

    def _on_device(self, batch: Batch) -> Batch:
        return Batch(*(tensor.to(self.place.device) for tensor in batch))

    def _over_processes(self, sums: list[float]) -> list[float]:
        """Sums over all processes."""
        if self.place.world == 1:
            return sums
        values = torch.tensor(sums, dtype=torch.float64, device=self.place.device)
        torch.distributed.all_reduce(values)
        return values.tolist()

    def _not_finite(self, batch: Batch, error: Tensor | None, where: str) -> NemoError:
        ids = [self.inputs.clips.table.id[row] for row in batch.row.tolist()]
        smaller = f"`{self.stage.step_setting}={self.stage.learning_rate / 10:g}`"
        half = "" if self.inputs.precision == "32" else ", or `precision=32`"
        return not_finite(
            self.model, batch, self.inputs.normalisation, error, ids, f"epoch {self.done + 1}, {where}",
            f"try a smaller step, for instance {smaller}{half}",
        )  # fmt: skip


@contextlib.contextmanager
def _own_random_states(device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside changes nothing outside."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    indices = []
    if device.type == "cuda":
        indices = [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(devices=indices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    """Kernels that give the same result every time, where there are such; set back at the end."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
