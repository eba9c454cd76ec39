"""The error of a training whose numbers are no longer finite: where they stopped being so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nemo_pipeline.errors import NotFinite
from nemo_pipeline.store.text import escape_controls
from siam_model.data import Batch, Normalisation
from siam_model.model import SIAM, l2_term


def not_finite(
    model: SIAM,
    batch: Batch,
    normalisation: Normalisation,
    error: Tensor | None,
    ids: Sequence[str],
    where: str,
    advice: str,
) -> NotFinite:
    """The error to raise for a loss or, with `error` None, a gradient that is not finite.

    Args:
        batch: the videos of the step, and `ids` theirs.
        error: (B,) absolute errors.
        where: "epoch 3, batch 5".
        advice: what to do.
    """
    what = "The loss" if error is not None else "The gradient"
    wrong = (
        [name for name, e in zip(ids, error.tolist(), strict=True) if not _finite(e)]
        if error is not None
        else []
    )
    videos = tuple(wrong or ids)
    named = ", ".join(escape_controls(name) for name in videos[:3])
    named = f"{named} and {len(videos) - 3} more" if len(videos) > 3 else named
    origin = _origin(model, batch, normalisation, error)
    return NotFinite(
        f"{what} is not a finite number any more ({where}; videos {named}). It began in {origin}; {advice}.",
        where,
        origin,
        videos,
    )


def _origin(model: SIAM, batch: Batch, normalisation: Normalisation, error: Tensor | None) -> str:
    """The first thing that is not finite: a weight, an activation, the L2 term, the loss, or a gradient."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            return f"the weights, which the step before made infinite or NaN (first: {name})"
    if error is None:
        for name, parameter in reversed(list(model.named_parameters())):  # as the backward pass meets them
            if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
                return f"the backward pass, from {name} on, with every activation finite"
        return "the backward pass"
    first = _first_activation(model, batch, normalisation)
    if first:
        return first
    if not bool(l2_term(model).isfinite()):
        return "the sum of squared weights, with every activation finite"
    return "the loss itself, with every activation finite"


def _first_activation(model: SIAM, batch: Batch, normalisation: Normalisation) -> str | None:
    """Run the batch once more, and name the first module whose output is not finite."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            tensors = output if isinstance(output, tuple) else (output,)
            if not found and not all(bool(t.isfinite().all()) for t in tensors if isinstance(t, Tensor)):
                found.append(name)

        return hook

    handles = [
        module.register_forward_hook(look(name))
        for name, module in model.named_modules()
        if name and not isinstance(module, nn.ModuleList)
    ]
    try:
        with torch.no_grad():
            if batch.frames.is_floating_point():  # features of a frozen appearance module
                model.regress(batch.frames, batch.lengths)
            else:
                model(batch.frames, batch.lengths, normalisation)
    finally:
        for handle in handles:
            handle.remove()
    return f"the activations of {found[0]}" if found else None


def _finite(value: float) -> bool:
    return abs(value) < float("inf")
