"""Which device computes. Needs torch, not Lightning."""

from __future__ import annotations

import torch

from nemo_pipeline.errors import NemoError


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps` as a device that this machine has. `auto` prefers a GPU.

    Raises:
        NemoError: no such device here.
    """
    kind, _, number = name.partition(":")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(k for k, there in available.items() if there))
    if kind not in available or (":" in name and not (kind == "cuda" and number.isdecimal())):
        raise NemoError(f"There is no device {name!r}; --device takes auto, cpu, cuda, cuda:N or mps.")
    if not available[kind] or (number and int(number) >= torch.cuda.device_count()):
        raise NemoError(f"This machine has no usable device {name!r}; use --device auto or --device cpu.")
    return torch.device(name)
