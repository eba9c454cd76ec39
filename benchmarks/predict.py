"""Prediction with the paper's SIAM: milliseconds a frame of a plain implementation, of the package's with one
optimisation after another switched on, and of its convolutions and linear layers alone.

    python benchmarks/predict.py [--device cpu|cuda] [--threads N] [--frames N] [--repeats N] [--json FILE]
                                 [--run RUN --data FILE.h5]

Faces are noise; time does not depend on what they show. On a CPU the times are processor time of one process.
With a run of the paper's or of any other size and a prepared file: the ages of its videos in float32 and in bfloat16,
and their largest difference.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from common import print_table
from siam_variants import age_of, options, run

import siam_model
from nemo_pipeline.store import FaceDataset
from siam_model.devices import autocast


def case(module: torch.nn.Module, frames: Tensor) -> Callable[[], object]:
    """One pass without gradients."""
    module.eval()

    def predict() -> None:
        with torch.inference_mode():
            age_of(module, frames)

    return predict


def compare(run_folder: Path, data: Path) -> None:
    """Ages of every usable video of `data` in both precisions."""
    model, rows = siam_model.load(run_folder), []
    dataset = FaceDataset(data)
    for row in dataset.usable:
        video = dataset[int(row)]
        ages = []
        for precision in ("32", "bf16-mixed"):
            with autocast(precision, model.device):
                ages.append(model.predict(video).age)
        rows.append((video.id, *ages, abs(ages[1] - ages[0])))
    rows.sort(key=lambda row: -row[3])
    shown = [[row[0], *(f"{value:.3f}" for value in row[1:])] for row in rows[:10]]
    print_table(
        f"Ages of {len(rows)} videos, the largest differences first, years",
        ["video", "32", "bf16-mixed", "difference"],
        shown,
    )


def main() -> None:
    """Time the variants; compare precisions where a run is given."""
    parser = options(__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    if arguments.run:
        compare(arguments.run, arguments.data)
        return
    run("Prediction with the paper's SIAM", arguments, case)


if __name__ == "__main__":
    main()
