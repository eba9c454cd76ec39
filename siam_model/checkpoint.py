"""A trained model on disk: config.json (all that prediction needs to know) and model.safetensors (the
weights).

Nothing is unpickled: a model from elsewhere can give wrong ages, but it runs no code.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import secrets
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from nemo_pipeline.errors import NemoError
from nemo_pipeline.fields import from_record, plain
from nemo_pipeline.store.files import fsync_path
from nemo_pipeline.store.text import printable
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.data import Normalisation
from siam_model.model import SIAM
from siam_model.predictions import write_bytes

FORMAT = "nemo-siam"
FORMAT_VERSION = 1
#: Longest config.json that is read, bytes: a real one has some 20 kB plus its subject codes.
_LONGEST_CARD = 64 * 2**20


@dataclasses.dataclass(frozen=True, slots=True)
class ModelCard:
    """Everything beside the weights.

    Attributes:
        model: the network.
        train: how it was trained; `frame_step` is needed for prediction too.
        normalisation: of gray levels, from the training part.
        prep: settings of `nemo prep` that made the training faces (`PrepConfig.to_dict()`).
        mean_shape: (68,2) float64 that they were warped to.
        triangles: (K,3) int32 of the warp.
        ages: youngest, median and oldest age trained on, years.
        subjects: codes of those seen in `training` and `validation`.
        dataset: uuid and name of the file it was trained on.
        synthetic: whether its faces were generated; its ages then mean nothing for people.
        videos: SHA-256 of the files of all videos seen in training and validation; empty where that is not recorded.
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
    versions: dict[str, str] = dataclasses.field(default_factory=lambda: library_versions())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; floats survive exactly."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
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
            "versions": self.versions,
            "prep": self.prep,
            "mean_shape": np.asarray(self.mean_shape, dtype=np.float64).tolist(),
            "triangles": np.asarray(self.triangles, dtype=np.int64).tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelCard:
        """The inverse of `to_dict`. Raises KeyError, TypeError or ValueError on what is none."""
        mean_shape = np.array(values["mean_shape"], dtype=np.float64)
        triangles = np.array(values["triangles"], dtype=np.int32)
        if mean_shape.shape != (68, 2) or triangles.ndim != 2 or triangles.shape[1] != 3:
            raise ValueError("mean_shape must be (68,2) and triangles (K,3)")
        made = {
            "model": SIAMConfig.from_dict(values["model"]),
            "train": TrainConfig.from_dict(values["train"]),
            "mean_shape": mean_shape,
            "triangles": triangles,
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
        write_bytes(temporary / "model.safetensors", save(tensors))
        write_bytes(temporary / "config.json", json.dumps(card.to_dict(), indent=1).encode())
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
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            return folder
    what = "is not there" if not path.exists() else "holds no model (no config.json, nor model/config.json)"
    raise NemoError(f"{printable(str(path))} {what}; give a run folder of `nemo train`.")


def load_card(path: Path) -> ModelCard:
    """The card of a run folder or its `model/`, without its weights.

    Raises:
        NemoError: there is none, it is damaged, or a newer version of nemo wrote it.
    """
    file = model_folder(path) / "config.json"
    shown = printable(str(file))
    try:
        if file.stat().st_size > _LONGEST_CARD:
            raise NemoError(f"{shown} is too large to be a model's description.")
        values = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise NemoError(f"{shown} does not describe a model of `nemo train`.")
        if int(values["format_version"]) > FORMAT_VERSION:
            raise NemoError(
                f"{shown} was written by a newer version of nemo; update with `pip install -U nemo-faces`."
            )
        return ModelCard.from_dict(values)
    except OSError as error:
        raise NemoError(f"{shown} cannot be read: {error.strerror}.") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise NemoError(
            f"{shown} is damaged ({printable(str(error))}); train again or take another copy."
        ) from None


def load_model(path: Path, device: torch.device | str = "cpu") -> tuple[SIAM, ModelCard]:
    """Network (in evaluation mode) and card of a run folder or its `model/`.

    Raises:
        NemoError: as `load_card`, or the weights are missing or do not fit the configuration.
    """
    card = load_card(path)
    file = model_folder(path) / "model.safetensors"
    shown = printable(str(file))
    try:
        tensors = load_file(file)
        with torch.device("meta"):  # no memory for initial values that are thrown away
            model = SIAM(card.model)
        model.load_state_dict(tensors, assign=True)
    except FileNotFoundError:
        raise NemoError(
            f"{shown} is missing: the folder of a model holds config.json and model.safetensors."
        ) from None
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = printable(str(error).splitlines()[0][:200])
        raise NemoError(f"{shown} does not hold the weights of its config.json ({reason}).") from None
    return model.to(device).eval(), card
