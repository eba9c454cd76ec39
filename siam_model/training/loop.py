"""The training loop: mean absolute error (equation 8), L2 term, clipped gradients, RMSprop, and the best epoch kept.

An interrupted training is resumed to the bit. Therefore the order of the batches, their augmentation and the learning
rate follow from (seed, epoch, batch) alone, the state of every random generator is part of the checkpoint, and nothing
else is remembered from one epoch to the next.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nemo_pipeline.errors import NemoError
from siam_model.augment import density_weights
from siam_model.data import Batch, ClipSample, LengthBuckets, shared, validation_order
from siam_model.devices import (
    autocast,
    deterministic,
    free_memory,
    freed_memory_kept,
    read_later,
    recurrence_in_float32,
    to_device,
)
from siam_model.model import SIAM
from siam_model.training.diagnose import not_finite
from siam_model.training.feed import Feed, Where, make_feed
from siam_model.training.inputs import FitInputs
from siam_model.training.loss import AgeLoss
from siam_model.training.passes import LEAST_FRAMES_TO_COMPILE, compile_appearance, frames_that_fit
from siam_model.training.pretrain import ExpressionLoss, FrozenClips, Targets, targets_of
from siam_model.training.records import EpochRecord
from siam_model.training.resume import (
    TrainingState,
    damaged,
    is_finished,
    own_random_states,
    random_states,
    restore_random_states,
    save_state,
)
from siam_model.training.stages import Stage, stages_of

OnEpoch = Callable[[EpochRecord], None]
OnBatch = Callable[[int, int], None]
Say = Callable[[str], None]
#: Steps of a GPU after which their numbers are read: reading waits for the last of them.
STEPS_BETWEEN_READS = 50


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where and how this process trains.

    Attributes:
        device: it trains on.
        workers: processes that read data for it.
        rank: which of the `world` processes of the training it is.
        eager: torch.compile is not used.
        faces: where the faces are kept; None: where they fit (`siam_model.training.feed`).
        every: steps after which their numbers are read; None: each on a CPU, STEPS_BETWEEN_READS on a GPU.
    """

    device: torch.device
    workers: int = 0
    rank: int = 0
    world: int = 1
    eager: bool = False
    faces: Where | None = None
    every: int | None = None

    @property
    def steps_between_reads(self) -> int:
        """Steps after which their numbers are read."""
        return self.every or (STEPS_BETWEEN_READS if self.device.type == "cuda" else 1)


def train(
    inputs: FitInputs,
    place: Place,
    state: TrainingState | None,
    checkpoint: Path | None,
    on_epoch: OnEpoch | None,
    on_batch: OnBatch | None,
    say: Say | None = None,
) -> TrainingState:
    """Train in this process, from `state` on if there is one; the state after the last epoch.

    Args:
        checkpoint: where to save the state after every epoch, with the inputs' fingerprint; None: nowhere.
        on_epoch, on_batch: told of epochs (after their checkpoint is on disk) and of batches done.
        say: told how a GPU is used, a sentence at a time.
    """
    device = place.device
    with (
        own_random_states(device), deterministic(), freed_memory_kept(device), recurrence_in_float32(device)
    ):  # fmt: skip
        try:
            training = Training(inputs, place, state, say)
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


class Training:
    """Network, optimiser and what is known of the epochs so far."""

    def __init__(
        self, inputs: FitInputs, place: Place, state: TrainingState | None, say: Say | None = None
    ) -> None:
        self.inputs, self.config, self.place, self.say = inputs, inputs.config, place, say
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
        self.faces = make_feed(
            inputs.clips, place.device, place.workers, processes=place.world, where=place.faces, say=say
        )
        #: False from the first step on whose numbers are not finite: weights do not change any more.
        self.fine = torch.ones((), dtype=torch.bool, device=place.device)
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
        """Loss, optimiser and clips of a stage, which start over in each."""
        self.stage, inputs, config = stage, self.inputs, self.config
        self.model.requires_grad_(stage.kind != "expression")
        self.model.appearance.requires_grad_(stage.kind != "frozen")
        self.feed, self.rows = self.faces, inputs.training
        self.targets: Targets | None = None
        loss: nn.Module
        if stage.kind == "expression":
            self.targets = targets_of(inputs.clips, inputs.training, config, self.model.config.hidden)
            self.rows = self.targets.rows
            loss = ExpressionLoss(self.model, inputs.normalisation)
        else:
            loss = self.ages = AgeLoss(self.model, inputs.normalisation, config.l2, stage.kind == "frozen")
        if stage.kind == "frozen":
            used = np.concatenate([inputs.training, inputs.validation])
            with autocast(self.inputs.precision, self.place.device):
                features = FrozenClips(
                    inputs.clips, used, self.model, inputs.normalisation, self.place.device
                )
            self.feed = Feed(features, self.place.device, 0, None)
        free = free_memory(self.place.device)
        if free is not None and stage.kind != "frozen":
            self._use_gpu(free)
        self.loss = nn.parallel.DistributedDataParallel(loss) if self.place.world > 1 else loss
        self.optimiser = torch.optim.RMSprop(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            lr=stage.learning_rate, alpha=config.rmsprop_alpha, eps=config.epsilon,
        )  # fmt: skip

    def _use_gpu(self, free: int) -> None:
        """Frames a pass for a GPU with so many free bytes, and compiled kernels."""
        model, precision, lengths = self.model, self.inputs.precision, self.inputs.clips.table.length
        model.max_frames_per_pass = max(
            self.config.max_frames_per_pass, frames_that_fit(model, precision, free)
        )
        frames = int(lengths[self.rows].sum()) // self.config.temporal_stride * self.stage.epochs
        if not (self.place.eager or model.compiled) and frames >= LEAST_FRAMES_TO_COMPILE:
            compile_appearance(model, precision, self.say)

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
        sums = np.zeros(3)  # loss times videos, errors, videos
        self.model.train()
        steps = self._steps(mine, sizes, on_batch)
        for number, (loss, error, fine) in enumerate(read_later(steps, place.steps_between_reads)):
            if not fine:
                self._raise_again(number, mine)
            counted = _counted(mine[number])
            sums += loss * sizes[number] / place.world, error * bool(counted), counted
        errors = np.zeros(2)  # absolute errors, videos
        if len(inputs.validation) and targets is None:
            self.model.eval()
            order = validation_order(
                inputs.clips, inputs.validation, config.batch_size, place.rank, place.world
            )
            found = read_later(self._validations(order), place.steps_between_reads)
            for chosen, (error,) in zip(order, found, strict=True):
                if not math.isfinite(error):
                    self._validate_again(chosen)
                errors += error * bool(_counted(chosen)), _counted(chosen)
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

    def _steps(
        self, order: list[list[ClipSample]], sizes: list[int], on_batch: OnBatch | None
    ) -> Iterator[Tensor]:
        """Train on these batches, of `sizes` videos in all processes; what `step` gives of each."""
        for number, batch in enumerate(self.feed.batches(order)):
            yield self.step(batch, self._target(order[number]), number)
            if on_batch is not None:
                on_batch(number + 1, len(sizes))

    def _target(self, chosen: list[ClipSample]) -> Tensor | None:
        """What pretraining aims at in a batch, on the CPU; None in the other stages."""
        return None if self.targets is None else self.targets.of(chosen, self.inputs.clips.step)

    def step(self, batch: Batch, target: Tensor | None, number: int) -> Tensor:
        """One step of the optimiser on batch `number` of the epoch.

        Returns:
            (3,) float32 on the device: loss, sum of the videos' errors, and whether all was finite in this step and
            before. A GPU is not waited for; on a CPU, what is not finite is raised at once.
        """
        if self.config.schedule == "cosine":
            steps = math.ceil(len(self.rows) / self.config.batch_size)
            progress = (self.done - self.stage.start + number / steps) / self.stage.epochs
            for group in self.optimiser.param_groups:
                group["lr"] = self.stage.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        at_once = self.place.steps_between_reads == 1
        self.optimiser.zero_grad()
        loss, error = self._loss_of(self.loss, batch, target)
        if at_once and not bool(loss.isfinite()):
            raise self._not_finite(batch, error.detach(), f"batch {number + 1}")
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        # Before clipping, which would turn an infinite gradient into 5. float16's scaler leaves such steps out.
        checked = [] if self.scaler.is_enabled() else [g.isfinite().all() for g in gradients]
        if at_once:
            if checked and not bool(torch.stack(checked).all()):
                raise self._not_finite(batch, None, f"batch {number + 1}")
        else:
            self.fine = torch.stack([self.fine, loss.detach().isfinite(), *checked]).all()
            wrong = ~self.fine
            for gradient in gradients:
                gradient.masked_fill_(wrong, 0)  # a step without gradients changes no weight
        nn.utils.clip_grad_value_(self.model.parameters(), self.config.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return torch.stack([loss.detach(), error.detach().sum(), self.fine.to(loss.dtype)])

    def _loss_of(self, loss: nn.Module, batch: Batch, target: Tensor | None) -> tuple[Tensor, Tensor]:
        with autocast(self.inputs.precision, self.place.device):
            return loss(batch) if target is None else loss(batch, to_device(target, self.place.device))

    def _raise_again(self, number: int, order: list[list[ClipSample]]) -> None:
        """Raise what is wrong with a step whose numbers are not finite, with the weights that it had: it is the first
        one, and no step since has changed them."""
        (batch,) = self.feed.batches([order[number]])
        alone = self.loss.module if isinstance(self.loss, nn.parallel.DistributedDataParallel) else self.loss
        loss, error = self._loss_of(alone, batch, self._target(order[number]))
        if bool(loss.isfinite()):
            self.optimiser.zero_grad()
            loss.backward()
        raise self._not_finite(
            batch, None if bool(loss.isfinite()) else error.detach(), f"batch {number + 1}"
        )

    @torch.no_grad()
    def _validations(self, order: list[list[ClipSample]]) -> Iterator[Tensor]:
        """Summed absolute error of each video's final age, (1,) for every batch."""
        for batch in self.feed.batches(order):
            yield self._final_errors(batch).sum()[None]

    def _final_errors(self, batch: Batch) -> Tensor:
        """(B,) absolute errors of the final ages."""
        with autocast(self.inputs.precision, self.place.device):
            return (self.ages.output(batch).age - batch.age).abs()

    @torch.no_grad()
    def _validate_again(self, chosen: list[ClipSample]) -> None:
        """Raise what is wrong with a batch whose errors are not finite."""
        (batch,) = self.feed.batches([chosen])
        raise self._not_finite(batch, self._final_errors(batch), "validation")

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


def _counted(chosen: list[ClipSample]) -> int:
    """Videos of a process's share of a batch: none where it has one only since every process takes every step."""
    return sum(clip.weight > 0 for clip in chosen)
