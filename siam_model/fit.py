"""One training: a model fitted to some videos and stopped by others. With `siam_model.task`, all that imports
Lightning."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import lightning
import numpy as np
import torch
from lightning.fabric.plugins.environments import LightningEnvironment

from nemo_pipeline.errors import NemoError
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.data import Clips, Normalisation
from siam_model.devices import freed_memory_kept, resolve_device
from siam_model.model import SIAM
from siam_model.records import EpochRecord as EpochRecord
from siam_model.resume import State, fingerprint, load_state
from siam_model.scalars import Scalars
from siam_model.task import Keeper, Lesson, OnBatch, OnEpoch, Task

Precision = Literal["32", "bf16-mixed", "16-mixed"]


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
    on_batch: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
    precision: str = "32",
    devices: int = 1,
    tensorboard: Path | bool | None = None,
) -> Fitted:
    """Train a fresh SIAM on the rows `training` of the table of `clips`, or go on with a training that was cut off.

    Stops after `config.epochs`, or when the error on `validation` was not better for `config.patience`
    epochs, and keeps the weights of the best epoch. With an empty `validation` it runs all epochs and keeps
    the last weights. Everything random follows from `seed`; the caller's random states are left alone.

    Args:
        clips: the data; `training` and `validation` are rows of its table.
        seed: whole numbers.
        fold: put into every record.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        workers: processes that read data beside this one.
        on_epoch: told of every epoch that this call trains, after its checkpoint is on disk. What it raises ends the
            training and comes out of this function.
        on_batch: called with (batches done, batches of an epoch) after every training step: for a progress bar.
        checkpoint: a file. It is written anew after every epoch; when it exists, training goes on after its last
            epoch, and on a CPU curve and weights are to the bit those of a training that was never cut off.
        precision: `32`; or `bf16-mixed`, `16-mixed` (a GPU's): convolutions, spatial attention and fully connected
            layers in half precision; standardisation, response normalisation, recurrence, temporal attention,
            regression, loss and weights in 32 bits.
        devices: GPUs (processes, with `cpu`) that share every batch. The batch stays the same, so a training on
            several differs by rounding (and dropout's draws) alone.
        tensorboard: a folder for TensorBoard's event files; True: tensorboard/ beside `checkpoint`.

    Raises:
        NemoError: the loss, an activation or a gradient stopped being a finite number (where it began); there is no
            such device or precision; the checkpoint is damaged or of another training; TensorBoard is missing.
    """
    chosen = resolve_device(device)
    check_precision(precision, chosen)
    prints = fingerprint(
        model_config, config, normalisation, seed, fold, precision, clips.table, training, validation
    )
    lesson = Lesson(clips, training, validation, config, normalisation, tuple(seed), fold, workers)
    state = load_state(checkpoint, prints) if checkpoint is not None else None
    if state is not None and state.finished(config):
        return _result(SIAM(model_config), state)
    with Scalars.open(tensorboard, checkpoint, state) as scalars:

        def told(record: EpochRecord) -> None:
            scalars.add(record)
            if on_epoch is not None:
                on_epoch(record)

        if devices > 1:
            from siam_model.several import fit_together

            last = fit_together(
                lesson, model_config, chosen, devices, checkpoint, prints, precision, told, on_batch
            )
            return _result(SIAM(model_config), last)
        if devices != 1:
            raise NemoError(f"--devices is {devices}; it must be at least 1.")
        keeper, model = run(
            lesson, model_config, chosen, state, checkpoint, prints, precision, told, on_batch
        )
    if keeper.best_state is not None:
        model.load_state_dict(keeper.best_state)
    return Fitted(model.cpu().eval(), tuple(keeper.history), keeper.best_epoch)


def check_precision(precision: str, device: torch.device) -> None:
    """Raises NemoError for a precision that does not exist, or that `device` does not have."""
    if precision not in get_args(Precision):
        raise NemoError(f"--precision takes {', '.join(get_args(Precision))}; {precision!r} is none of them.")
    if precision == "16-mixed" and device.type == "cpu":
        raise NemoError("--precision 16-mixed needs a GPU; a CPU has 32 and bf16-mixed.")


def run(
    lesson: Lesson,
    model_config: SIAMConfig,
    device: torch.device,
    state: State | None,
    checkpoint: Path | None,
    prints: dict[str, str],
    precision: str,
    on_epoch: OnEpoch | None,
    on_batch: OnBatch | None,
    world: int = 1,
    rank: int = 0,
) -> tuple[Keeper, SIAM]:
    """Train in this process, which is number `rank` of `world`; from `state` on, if there is one."""
    config = lesson.config
    derived = int(
        np.random.SeedSequence([*lesson.seed, 0x51A]).generate_state(1, np.uint64)[0] >> np.uint64(1)
    )
    with _own_random_states(device), _quiet_lightning(), freed_memory_kept(device):
        torch.manual_seed(derived)
        model = SIAM(model_config)
        model.frame_chunk = config.frame_chunk
        model.start_at(float(np.median(lesson.clips.table.age[lesson.training])))
        if rank:
            torch.manual_seed(derived + rank)  # dropout of its own; equal weights
        if state is not None:
            model.load_state_dict(state.model)
        task = Task(model, lesson, state)
        keeper = Keeper(lesson, state, checkpoint, prints, on_epoch, on_batch)
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=world if world > 1 or device.index is None else [device.index],
            strategy="ddp" if world > 1 else "auto",
            use_distributed_sampler=False,  # the batches are shared out in `siam_model.data.shared`
            plugins=[LightningEnvironment()],  # a batch system's variables are none of its business
            precision=precision,  # type: ignore[arg-type]
            max_epochs=config.epochs - task.first,
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
            limit_val_batches=1.0 if len(lesson.validation) else 0,
            log_every_n_steps=1,
        )
        if state is not None and state.scaler:
            trainer.precision_plugin.load_state_dict(state.scaler)
        try:
            trainer.fit(task)
        except SystemExit:
            if isinstance(keeper.exception, KeyboardInterrupt):  # Lightning's translation of it, undone
                raise keeper.exception from None
            raise
    return keeper, model


def _result(model: SIAM, state: State) -> Fitted:
    """What a finished training's last state amounts to."""
    model.load_state_dict(state.best_state if state.best_state is not None else state.model)
    return Fitted(model.eval(), tuple(state.history), state.best_epoch)


@contextlib.contextmanager
def _own_random_states(device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside changes nothing outside."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    index = (
        [torch.cuda.current_device() if device.index is None else device.index]
        if device.type == "cuda"
        else []
    )
    with torch.random.fork_rng(devices=index):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


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
