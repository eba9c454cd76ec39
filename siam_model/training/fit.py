"""`fit`: one training, by this process or by several, continued from its checkpoint if there is one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from nemo_pipeline.errors import SettingsError
from siam_model.config import SIAMConfig
from siam_model.devices import check_precision, resolve_device
from siam_model.model import SIAM
from siam_model.training.ddp import fit_together
from siam_model.training.inputs import FitInputs
from siam_model.training.loop import Place, train
from siam_model.training.records import EpochRecord as EpochRecord
from siam_model.training.resume import TrainingState, damaged, load_state
from siam_model.training.scalars import Scalars


@dataclasses.dataclass(frozen=True, slots=True)
class Fitted:
    """A trained network (evaluation mode, on the CPU) with the weights of its best epoch, and its history."""

    model: SIAM
    history: tuple[EpochRecord, ...]
    best_epoch: int


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """Where a training computes; its result does not depend on it but for rounding.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        devices: GPUs (processes, with `cpu`) that share every batch. The batch stays the same, so a training on
            several differs by rounding (and dropout's draws) alone.
        workers: additional processes that read data.
        eager: do not use torch.compile, which a GPU otherwise does in a long training.
    """

    device: str = "auto"
    devices: int = 1
    workers: int = 0
    eager: bool = False


def fit(
    inputs: FitInputs,
    machine: Machine = Machine(),
    *,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    tensorboard: bool = False,
    say: Callable[[str], None] | None = None,
) -> Fitted:
    """Train a fresh SIAM on the training rows of `inputs`, or continue a training that was interrupted.

    Stops after `config.epochs`, or when the validation error was not better for `config.patience` epochs, and keeps the
    weights of the best epoch. Where nothing validates it runs all epochs and keeps the last weights. Everything random
    follows from the seed; the caller's random states are left alone.

    Args:
        machine: where it computes.
        checkpoint: a file, rewritten after every epoch. If it exists, training continues after its last epoch, and on a
            CPU curve and weights are to the bit those of an uninterrupted training.
        on_epoch: told of every epoch that this call trains, after its checkpoint is on disk. What it raises ends the
            training and is raised by this function.
        on_batch: called with (batches done, batches of an epoch) after every training step: for a progress bar.
        tensorboard: write TensorBoard's event files to tensorboard/ next to `checkpoint`.
        say: told how a GPU is used, a sentence at a time.

    Raises:
        NotFinite: the loss, an activation or a gradient stopped being a finite number (where it began).
        NemoError: there is no such device or precision; the checkpoint is damaged or of another training; TensorBoard
            is missing.
    """
    chosen = resolve_device(machine.device)
    check_devices(machine.device, machine.devices)
    check_precision(inputs.precision, chosen)
    state = load_state(checkpoint, inputs.fingerprint()) if checkpoint is not None else None
    if state is not None and checkpoint is not None and state.finished(inputs.config):
        try:
            return _result(inputs.model, state)
        except (AttributeError, RuntimeError, TypeError) as error:
            raise damaged(checkpoint, error) from None
    with Scalars.open(checkpoint if tensorboard else None, state) as scalars:

        def told(record: EpochRecord) -> None:
            scalars.add(record)
            if on_epoch is not None:
                on_epoch(record)

        place = Place(chosen, machine.workers, world=machine.devices, eager=machine.eager)
        if machine.devices > 1:
            last = fit_together(inputs, place, checkpoint, told, on_batch, say)
        else:
            last = train(inputs, place, state, checkpoint, told, on_batch, say)
    return _result(inputs.model, last)


def check_devices(device: str, devices: int) -> None:
    """Raises NemoError for no device, or where several are wanted and `auto` finds no GPU."""
    if devices < 1:
        raise SettingsError(f"`devices` is {devices}; it must be at least 1.", "devices")
    if devices > 1 and device == "auto" and resolve_device(device).type == "cpu":
        raise SettingsError(
            f"`devices={devices}` shares the batches among GPUs, and this machine has none; `device=cpu` shares them "
            "among its cores, which is not faster than `devices=1`.",
            "devices",
        )


def _result(model_config: SIAMConfig, state: TrainingState) -> Fitted:
    """What a finished training's last state amounts to."""
    with torch.random.fork_rng(
        devices=[]
    ):  # its random start is overwritten, and draws nothing from the caller's
        model = SIAM(model_config)
    model.load_state_dict(state.best_state if state.best_state is not None else state.model)
    return Fitted(model.eval(), tuple(state.history), state.best_epoch)
