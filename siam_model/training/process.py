"""A training in this process: Lightning's trainer around `siam_model.training.task`, quiet, with random states of its
own."""

from __future__ import annotations

import contextlib
import logging
import random
import warnings
from collections.abc import Iterator
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.fabric.plugins.environments import LightningEnvironment

from siam_model.config import SIAMConfig
from siam_model.devices import freed_memory_kept
from siam_model.model import SIAM
from siam_model.training.resume import State
from siam_model.training.task import Keeper, Lesson, OnBatch, OnEpoch, Task


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
