"""A training's state after an epoch, on disk: all that is needed to continue as if it had never stopped.

The order of the batches follows from (seed, epoch) alone, and the state of every random generator is stored. Files are
written by rename, readable by their owner alone, and read with `weights_only`: nothing in them is executed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nemo_pipeline.errors import DataError, NemoError
from nemo_pipeline.fields import from_record
from nemo_pipeline.store.files import leftovers, replacing
from nemo_pipeline.store.text import escape_controls
from siam_model.config import TrainConfig
from siam_model.run_folder import CHECKPOINT
from siam_model.training.records import EpochRecord


@dataclasses.dataclass(slots=True)
class TrainingState:
    """A training after `epoch` finished epochs.

    Attributes:
        epoch: the last finished epoch: those of ages count from 1, so pretraining ends with 0.
        model, optimiser, scaler: their `state_dict()`; `scaler` (of float16 gradients) is empty without one.
        random: `random_states()` of every process that trains, by rank.
        best_epoch, best_error, best_state: the best epoch so far, its validation error (infinity before any), and
            its weights on the CPU; None where nothing validates.
        history: a record per epoch.
    """

    epoch: int
    model: dict[str, Any]
    optimiser: dict[str, Any]
    scaler: dict[str, Any]
    random: list[dict[str, Any]]
    best_epoch: int
    best_error: float
    best_state: dict[str, torch.Tensor] | None
    history: list[EpochRecord]

    def finished(self, config: TrainConfig) -> bool:
        """Whether no further epoch follows: all are done, or patience has run out."""
        return is_finished(self.epoch, self.best_epoch, self.best_state is not None, config)


def is_finished(epoch: int, best_epoch: int, validated: bool, config: TrainConfig) -> bool:
    """Whether no further epoch follows after `epoch`: all are done, or patience has run out since the best one."""
    # While the appearance module is frozen, that nothing gets better says nothing of what comes after.
    frozen = config.freeze_appearance if config.freeze_appearance < config.epochs else 0
    waited = epoch - max(best_epoch, frozen)
    return epoch >= config.epochs or (validated and waited >= config.patience)


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of every generator that a training could draw from: torch, the device, numpy, Python."""
    legacy: Any = np.random.get_state(legacy=True)  # noqa: NPY002 (it is what is stored)
    _, keys, position, has_gauss, gauss = legacy
    version, words, held = random.getstate()
    states: dict[str, Any] = {
        "torch": torch.random.get_rng_state(),
        "numpy": [torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": [version, torch.tensor(words, dtype=torch.int64), held],
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """The inverse of `random_states`. A state of another kind of device is left out."""
    torch.random.set_rng_state(states["torch"])
    keys, position, has_gauss, gauss = states["numpy"]
    state = ("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss)
    np.random.set_state(state)  # noqa: NPY002
    version, words, held = states["python"]
    random.setstate((version, tuple(words.tolist()), held))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


@contextlib.contextmanager
def own_random_states(device: torch.device) -> Iterator[None]:
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


def save_state(path: Path, state: TrainingState, prints: dict[str, str]) -> None:
    """Write `path`; it is the old file, or the new one whole, whenever the process dies."""
    for old in leftovers(path):  # of a process that was killed while it wrote
        old.unlink(missing_ok=True)
    values = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    values["history"] = [dataclasses.asdict(record) for record in state.history]
    with replacing(path) as temporary:
        torch.save(CHECKPOINT.mark({"fingerprint": prints, **values}), temporary)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, as plain types and tensors. Nothing in the file is executed, and nothing larger than the
    file comes out of it.

    Raises:
        FileNotFoundError: there is none.
        NemoError: it is damaged, or no checkpoint of ours.
    """
    shown = escape_controls(str(path))
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a file")
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                # torch.save stores and never packs: a packed entry could be a thousand times as large as the file.
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > path.stat().st_size:
                    raise ValueError(f"its part {entry.filename[:80]} is not stored as torch stores it")
            if (broken := archive.testzip()) is not None:
                raise ValueError(f"its part {broken[:80]} is not as it was written")
        values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever the unpickler makes of a file that is not what it seems
        reason = escape_controls(str(error).splitlines()[0][:120]) if str(error) else type(error).__name__
        raise DataError(
            f"{shown} is damaged or no checkpoint of nemo ({reason}); remove it, and this training starts over.",
            path,
        ) from None
    if not isinstance(values, dict) or values.pop("format", None) != CHECKPOINT.name:
        raise DataError(
            f"{shown} is not a checkpoint of nemo; remove it or give another folder, and this training starts over.",
            path,
        )
    version = values.pop("format_version", 0)
    if not isinstance(version, int) or version > CHECKPOINT.version:
        raise DataError(
            f"{shown} was written by a newer version of nemo; update with `pip install -U nemo-faces`.", path
        )
    return values


def damaged(path: Path, error: Exception) -> NemoError:
    """The error for a checkpoint that can be read, but not resumed from."""
    reason = escape_controls((str(error) or type(error).__name__).splitlines()[0][:120])
    return DataError(
        f"{escape_controls(str(path))} is damaged ({reason}); remove it, and this training starts over.", path
    )


def load_state(path: Path, prints: dict[str, str]) -> TrainingState | None:
    """The state in `path`; None where there is no file.

    Raises:
        NemoError: it is damaged, no checkpoint of ours, or of a training with other settings or videos.
    """
    try:
        values = read_checkpoint(path)
    except FileNotFoundError:
        return None
    found = values.pop("fingerprint", None)
    other = [name for name in prints if not isinstance(found, dict) or found.get(name) != prints[name]]
    if other:
        verb = "is" if other == ["seed"] else "are"
        raise DataError(
            f"{escape_controls(str(path))} belongs to another training: {', '.join(other)} {verb} not the same. Go on "
            "with what it was begun with, or remove it to start over.",
            path,
        )
    try:
        state = from_record(TrainingState, values)
        epochs = [line.epoch for line in state.history]
        first = min([1, *epochs])  # below 1: pretraining
        if epochs != list(range(first, state.epoch + 1)) or math.isnan(state.best_error):
            raise ValueError("its history is not complete")
    except (TypeError, ValueError, KeyError) as error:
        raise damaged(path, error) from None
    return state
