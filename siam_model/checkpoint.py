"""A trained model on disk: config.json (all that prediction needs to know) and model.safetensors (the
weights).

Nothing is unpickled: a model from elsewhere can give wrong ages, but it runs no code.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import secrets
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from nemo_pipeline.errors import DataError
from nemo_pipeline.fields import from_record, plain
from nemo_pipeline.platform import memory
from nemo_pipeline.store.files import fsync_path
from nemo_pipeline.store.text import escape_controls
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.data import Normalisation
from siam_model.model import MAX_FRAMES_PER_PASS, SIAM
from siam_model.predictions import write_bytes
from siam_model.run_folder import MODEL, ModelFolder, RunFolder, read_json
from siam_model.sums import check_sums, write_sums

_COPY = "train again or take another copy"


@dataclasses.dataclass(frozen=True, slots=True)
class ModelCard:
    """Everything that is stored with the weights.

    Attributes:
        model: the network.
        train: how it was trained; `temporal_stride` is needed for prediction too.
        normalisation: of gray levels, from the training part.
        prep: settings of `nemo prep` that made the training faces (`PrepConfig.to_dict()`).
        mean_shape: (68,2) float64 that they were warped to.
        triangles: (K,3) int32 of the warp.
        ages: youngest, median and oldest age trained on, years.
        subjects: codes of those seen in `training` and `validation`.
        dataset: uuid and name of the file it was trained on.
        synthetic: whether its faces were generated; its ages then mean nothing for people.
        videos: SHA-256 of the files of all videos seen in training and validation; empty where that is not recorded.
        start_subjects: codes of those whom the weights that it started from had seen; `videos` has their videos.
        preset, seed: of the training.
        versions: of the libraries that made it.
    """

    model: SIAMConfig
    train: TrainConfig
    normalisation: Normalisation
    prep: dict[str, Any]
    mean_shape: np.ndarray
    triangles: np.ndarray
    ages: dict[str, float]
    subjects: dict[str, list[str]]
    dataset: dict[str, str]
    synthetic: bool
    preset: str
    seed: int
    videos: list[str] = dataclasses.field(default_factory=list)
    start_subjects: list[str] = dataclasses.field(default_factory=list)
    versions: dict[str, str] = dataclasses.field(default_factory=lambda: library_versions())

    def __post_init__(self) -> None:
        """Check what predictions are computed with. Raises ValueError."""
        shape, triangles, levels = self.mean_shape, self.triangles, self.normalisation
        if shape.shape != (68, 2) or not np.isfinite(shape).all():
            raise ValueError("mean_shape must be 68 finite points (68, 2)")
        if triangles.ndim != 2 or triangles.shape[1] != 3 or not ((triangles >= 0) & (triangles < 68)).all():
            raise ValueError("triangles must be (K, 3) indices into 68 points")
        if not math.isfinite(levels.mean) or not 0 < levels.deviation < math.inf:
            raise ValueError("normalisation needs a finite mean and a deviation above 0")
        for name in ("min", "median", "max"):
            if not math.isfinite(self.ages.get(name, math.nan)):
                raise ValueError(f"ages lacks {name}")
        for part in ("training", "validation"):
            if part not in self.subjects:
                raise ValueError(f"subjects lacks {part}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; floats survive exactly."""
        values = {
            "synthetic": self.synthetic,
            "preset": self.preset,
            "seed": self.seed,
            "model": self.model.to_dict(),
            "train": self.train.to_dict(),
            "normalisation": plain(self.normalisation),
            "ages": self.ages,
            "dataset": self.dataset,
            "subjects": self.subjects,
            "videos": self.videos,
            **({"start_subjects": self.start_subjects} if self.start_subjects else {}),
            "versions": self.versions,
            "prep": self.prep,
            "mean_shape": np.asarray(self.mean_shape, dtype=np.float64).tolist(),
            "triangles": np.asarray(self.triangles, dtype=np.int64).tolist(),
        }
        return MODEL.mark(values)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelCard:
        """The inverse of `to_dict`. Raises KeyError, TypeError or ValueError if `values` are not such a card."""
        made = {
            "model": SIAMConfig.from_dict(values["model"]),
            "train": TrainConfig.from_dict(values["train"]),
            "mean_shape": np.array(values["mean_shape"], dtype=np.float64),
            "triangles": np.array(values["triangles"], dtype=np.int32),
        }
        return from_record(cls, {"versions": {}, **values, **made})


def library_versions() -> dict[str, str]:
    """Versions that a result depends on."""
    found = {"python": platform.python_version()}
    for name in ("nemo-faces", "torch", "numpy", "h5py", "safetensors"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def save_model(folder: Path, model: SIAM, card: ModelCard) -> None:
    """Write `folder` with both files. It appears by one rename: complete, or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.tmp")
    temporary.mkdir(mode=0o700)
    try:
        tensors = {name: p.detach().cpu().contiguous() for name, p in model.state_dict().items()}
        write_bytes(ModelFolder(temporary).weights, save(tensors))
        write_bytes(ModelFolder(temporary).card, json.dumps(card.to_dict(), indent=1).encode())
        write_sums(temporary)
        if folder.exists():
            old = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.old")
            folder.rename(old)
            temporary.rename(folder)
            shutil.rmtree(old)
        else:
            temporary.rename(folder)
        fsync_path(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def model_folder(path: Path) -> Path:
    """The folder with config.json: `path` itself or its `model/`.

    Raises:
        NemoError: neither has one.
    """
    for folder in (ModelFolder(path), RunFolder(path).model):
        if folder.card.is_file():
            return folder.path
    what = "is not there" if not path.exists() else "holds no model (no config.json, nor model/config.json)"
    raise DataError(f"{escape_controls(str(path))} {what}; give a run folder of `nemo train`.", path)


def load_card(path: Path) -> ModelCard:
    """The card of a run folder or its `model/`, without its weights.

    Raises:
        NemoError: it is missing, damaged, or of a newer version of nemo.
    """
    file = ModelFolder(model_folder(path)).card
    shown = escape_controls(str(file))
    values = read_json(file)
    if values.get("format") != MODEL.name:
        raise DataError(f"{shown} does not describe a model of `nemo train`.", file)
    try:
        if MODEL.is_newer(values):
            raise DataError(
                f"{shown} was written by a newer version of nemo; update with `pip install -U nemo-faces`.",
                file,
            )
        return ModelCard.from_dict(values)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"{shown} is damaged ({escape_controls(str(error))}); {_COPY}.", file) from None


def load_model(path: Path, device: torch.device | str = "cpu") -> tuple[SIAM, ModelCard]:
    """Network (in evaluation mode) and card of a run folder or its `model/`.

    Raises:
        NemoError: as `load_card`; the weights are missing, do not fit the configuration or are not finite numbers; or
            they and a pass through the network need more memory than there is.
    """
    card, folder = load_card(path), model_folder(path)
    file = ModelFolder(folder).weights
    shown = escape_controls(str(file))
    try:
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise ValueError("it is a folder, a device or a pipe")
        # Before anything is allocated: what the file says that it holds, and what the configuration says.
        with safe_open(file, framework="pt") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
            found = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
        if card.model.recurrent_layers > len(found):
            raise ValueError(f"recurrent_layers is {card.model.recurrent_layers}")
        with torch.device("meta"):  # no memory for initial values that are thrown away
            model = SIAM(card.model)
        expected = {name: (tuple(p.shape), "F32") for name, p in model.state_dict().items()}
        for name in sorted(expected.keys() | found.keys()):
            if found.get(name) != expected.get(name):
                raise ValueError(
                    f"{name} is {found.get(name, 'missing')}, and it needs {expected.get(name, 'none')}"
                )
        _check_memory(card.model, file.stat().st_size, torch.device(device), folder)
        tensors = load_file(file)
        for name, values in tensors.items():
            if not bool(values.isfinite().all()):
                raise ValueError(f"{name} holds values that are not finite numbers")
        model.load_state_dict(tensors, assign=True)
    except FileNotFoundError:
        raise DataError(
            f"{shown} is missing: the folder of a model holds config.json and model.safetensors.", file
        ) from None
    except MemoryError:
        raise DataError(
            f"{shown} ({file.stat().st_size / 2**30:.1f} GB) needs more memory than there is: it is damaged, or end "
            "other programs.",
            file,
        ) from None
    except (SafetensorError, RuntimeError, ValueError, TypeError, OverflowError, OSError) as error:
        reason = escape_controls(str(error).splitlines()[0][:200])
        raise DataError(
            f"{shown} does not hold the weights of its config.json ({reason}); {_COPY}.", file
        ) from None
    check_sums(folder, _COPY)
    return model.to(device).eval(), card


def _check_memory(config: SIAMConfig, weights: int, device: torch.device, folder: Path) -> None:
    """Raises NemoError where weights and the largest maps of a pass would not fit into what is free (on a CPU)."""
    _, free = memory()
    sides = config.map_sizes()
    positions = [1 + layer + sum(map(bool, config.pools[:layer])) for layer in range(3)]
    largest = max(sides[at] ** 2 * width for at, width in zip(positions, config.channels, strict=True))
    # A map, what response normalisation makes of it, and its sum over channels, 4 bytes each.
    needed = weights + 3 * 4 * largest * MAX_FRAMES_PER_PASS
    if device.type == "cpu" and free is not None and needed > free:
        raise DataError(
            f"{escape_controls(str(folder))} needs about {needed / 2**30:.1f} GB of memory, and {free / 2**30:.1f} GB "
            "are free: end other programs, or use a machine with more.",
            folder,
        )
