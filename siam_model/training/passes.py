"""What a GPU is told before a training: how many frames pass through the convolutions at once, and compiled kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from siam_model.devices import autocast
from siam_model.model import SIAM

#: Part of the free memory that a pass may take; the rest is left to cuDNN's workspaces and to fragments.
SHARE = 0.7
#: float32 copies of the largest normalised map that the backward pass of response normalisation makes.
_COPIES = 5
#: Trainings of fewer frames, in all epochs together, are over before compiling has paid.
LEAST_FRAMES_TO_COMPILE = 2_000_000


def bytes_per_frame(model: SIAM, precision: str) -> int:
    """Memory that a training step takes for a frame in a pass of the appearance module: what is kept for the backward
    pass, measured with a few frames, and what that computes in between."""
    device, side = model.regression.weight.device, model.config.face_size

    def kept(count: int) -> int:
        storages: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        x = torch.zeros(count, side, side, device=device)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            autocast(precision, device),
        ):
            output = model.appearance(x[..., None].permute(0, 3, 1, 2))
        del output
        return sum(storages.values())

    training = model.training
    model.eval()  # draws nothing
    measured = (kept(4) - kept(2)) // 2
    model.train(training)
    sizes, config = model.config.map_sizes(), model.config
    maps = [
        4 * c * sizes[1 + i + sum(bool(p) for p in config.pools[:i])] ** 2
        for i, c in enumerate(config.channels)
    ]
    return measured + side**2 + (_COPIES if config.lrn else 1) * max(maps)


def frames_that_fit(model: SIAM, precision: str, free: int) -> int:
    """Frames that a training step can take through the convolutions at once, in so many free bytes, before gradients
    and the optimiser's state are there."""
    held = 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return max(0, int(SHARE * (free - held)) // bytes_per_frame(model, precision))


def compile_appearance(
    model: SIAM, precision: str, say: Callable[[str], None] | None = None, **options: str
) -> bool:
    """Compile the appearance module, for any number of frames, with torch.compile; whether that worked. Where it does
    not, the module stays as it is, and the reason is said.

    Args:
        options: as torch.compile takes them.
    """
    torch._dynamo.reset()  # what was compiled for another model of this process
    model.appearance.compile(**options)
    model.compiled = True
    side, device = model.config.face_size, model.regression.weight.device
    try:
        for count in (2, 3):  # two, so that it is seen to serve any number
            x = torch.zeros(1, count, side, side, device=device)
            with autocast(precision, device):
                p, _, _ = model.features(x)
            if p.requires_grad:
                p.sum().backward()
        return True
    except Exception as error:  # of the compiler, of the machine's C compiler, of Triton
        model.appearance._compiled_call_impl = None
        model.compiled = False
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        if say is not None:
            say(f"torch.compile does not work here ({reason}); training goes on without it, slower.")
        return False
    finally:
        for parameter in model.parameters():
            parameter.grad = None
