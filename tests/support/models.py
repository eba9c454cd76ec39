"""Small models with random weights, on disk, and faces for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from nemo_pipeline.geometry import shipped_mean_shape, shipped_triangles
from siam_model import SIAM, SIAMConfig, TrainConfig
from siam_model.checkpoint import ModelCard, save_model
from siam_model.data import Normalisation

SIZE = 62


def card(**changes) -> ModelCard:
    config = SIAMConfig(
        face_size=SIZE, channels=(4, 5, 6), fully_connected=9, hidden=7, attention_dim=5, temporal_dim=4
    )
    values = {
        "model": config,
        "train": TrainConfig(temporal_stride=3),
        "normalisation": Normalisation(101.25, 1 / 3 + 40),
        "prep": {"size": SIZE},
        "mean_shape": shipped_mean_shape() / 3,
        "triangles": shipped_triangles(),
        "ages": {"min": 8.0, "median": 31.5, "max": 76.0},
        "subjects": {"training": ["a", "b"], "validation": ["c"]},
        "dataset": {"uuid": "u", "file": "out.h5"},
        "synthetic": False,
        "preset": "small",
        "seed": 3,
    }
    return ModelCard(**{**values, **changes})


def write_model(folder: Path, seed: int = 0, **changes) -> ModelCard:
    made = card(**changes)
    torch.manual_seed(seed)
    model = SIAM(made.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.start_at(40.0)
    save_model(folder, model, made)
    return made


def faces(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (length, SIZE, SIZE), dtype=np.uint8)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The format by its own definition: 8 bytes little-endian length, a JSON header, the arrays."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        assert entry["dtype"] == "F32"
        start, stop = (8 + length + o for o in entry["data_offsets"])
        found[name] = np.frombuffer(data[start:stop], "<f4").reshape(entry["shape"])
    return found
