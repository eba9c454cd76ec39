"""Training of the paper's SIAM: milliseconds a frame of a plain implementation, of the package's with one optimisation
after another switched on, and of its convolutions and linear layers alone, forward and backward with RMSprop's step.

    python benchmarks/train.py [--device cpu|cuda] [--threads N] [--frames N] [--repeats N] [--json FILE]

Faces are noise, videos have 32 frames, and a step takes all of them; time does not depend on what they show. On a CPU
the times are processor time of one process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from siam_variants import age_of, options, run


def case(module: torch.nn.Module, frames: Tensor) -> Callable[[], object]:
    """One step."""
    module.train()
    optimiser = torch.optim.RMSprop(module.parameters(), lr=1e-6)

    def step() -> None:
        optimiser.zero_grad()
        age_of(module, frames).float().abs().mean().backward()
        optimiser.step()

    return step


if __name__ == "__main__":
    run("Training of the paper's SIAM", options(__doc__).parse_args(), case)
