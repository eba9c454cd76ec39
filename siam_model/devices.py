"""Which device computes, and how its memory is kept."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable, Iterator
from typing import get_args

import torch

from nemo_pipeline.errors import SettingsError
from siam_model.config import Precision

_HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a model trains or predicts with `precision`. Standardisation, response normalisation,
    recurrence, temporal attention and loss stay in float32 within it."""
    half = _HALF.get(precision)
    return torch.autocast(device.type, dtype=half, enabled=half is not None)


def check_precision(precision: str, device: torch.device) -> None:
    """Raises NemoError for a precision that does not exist, or that `device` does not have."""
    if precision not in get_args(Precision):
        raise SettingsError(
            f"`precision` takes {', '.join(get_args(Precision))}; {precision!r} is not one of them.",
            "precision",
        )
    if precision == "16-mixed" and device.type == "cpu":
        raise SettingsError("`precision=16-mixed` needs a GPU; a CPU has 32 and bf16-mixed.", "precision")


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
        raise SettingsError(
            f"There is no device {name!r}; `device` takes auto, cpu, cuda, cuda:N or mps.", "device"
        )
    if not available[kind] or (number and int(number) >= torch.cuda.device_count()):
        raise SettingsError(
            f"This machine has no usable device {name!r}; use `device=auto` or `device=cpu`.", "device"
        )
    return torch.device(name)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` there. A GPU takes it from pinned memory while this process goes on; nothing waits."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def read_later(tensors: Iterable[torch.Tensor], every: int) -> Iterator[list[float]]:
    """The numbers in these tensors of one shape, read `every` so many: reading waits until the device has come so far.
    The first two are read at once, since the time between them tells how long a step takes."""
    waiting: list[torch.Tensor] = []
    for number, tensor in enumerate(tensors):
        waiting.append(tensor)
        if number < 2 or len(waiting) >= every:
            yield from torch.stack(waiting).tolist()
            waiting.clear()
    if waiting:
        yield from torch.stack(waiting).tolist()


def free_memory(device: torch.device) -> int | None:
    """Bytes that tensors can still take on a GPU of CUDA; None elsewhere."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


@contextlib.contextmanager
def recurrence_in_float32(device: torch.device) -> Iterator[None]:
    """Within it, cuDNN's recurrence computes in float32; by default it takes TF32, with three digits."""
    # Versions of PyTorch before 2.9 have one switch for recurrence and convolutions.
    own = getattr(torch.backends.cudnn, "rnn", None)
    place, name, value = (
        (own, "fp32_precision", "ieee") if own is not None else (torch.backends.cudnn, "allow_tf32", False)
    )
    if device.type != "cuda":
        yield
        return
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


@contextlib.contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """On a CPU with glibc, let the allocator keep the large blocks that one training step frees for the next.

    By default every tensor above 32 MB goes back to the system at once, and its pages are zeroed again at its next
    use: a third of a small training's CPU time (50 000 page faults a step; 600 with this). Set back at the end.
    """
    change = None
    if device.type == "cpu":
        with contextlib.suppress(OSError, AttributeError):  # no glibc
            library = ctypes.CDLL("libc.so.6")
            change, trim = library.mallopt, library.malloc_trim
    if change is None:
        yield
        return
    trim_threshold, mmap_threshold, default = -1, -3, 128 * 1024  # names and default of malloc.h
    change(mmap_threshold, 2**30)
    change(trim_threshold, 2**31 - 1)
    try:
        yield
    finally:
        change(mmap_threshold, default)
        change(trim_threshold, default)
        trim(0)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Kernels that give the same result every time, where there are such; set back at the end."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
