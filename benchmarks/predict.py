"""Prediction with the paper's SIAM: milliseconds a frame of a plain implementation, of the package's with one
optimisation after another switched on, and of its convolutions and linear layers alone.

    python benchmarks/predict.py [--device cpu|cuda] [--threads N] [--frames N] [--repeats N] [--json FILE]
                                 [--run RUN --data FILE.h5]

Faces are noise; time does not depend on what they show. On a CPU the times are processor time of one process.
With a run of the paper's or of any other size and a prepared file: the ages that the plain implementation gives its
videos with the run's weights, those of the package in float32 and in bfloat16, and the largest differences.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from common import print_table
from plain_siam import PlainSIAM
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
    """Ages of every usable video of `data`, by the plain implementation and in both precisions."""
    model, rows = siam_model.load(run_folder), []
    plain, step, prepare = (
        PlainSIAM.of(model.network).eval(),
        model.card.train.temporal_stride,
        model.card.normalisation,
    )
    dataset = FaceDataset(data)
    for row in dataset.usable:
        video = dataset[int(row)]
        series = [torch.from_numpy(video.frames[phase::step])[None] for phase in range(min(step, len(video)))]
        with torch.inference_mode():
            ages = [float(torch.stack([plain(prepare(part)) for part in series]).mean())]
        for precision in ("32", "bf16-mixed"):
            with autocast(precision, model.device):
                ages.append(model.predict(video).age)
        rows.append((video.id, *ages, abs(ages[1] - ages[0]), abs(ages[2] - ages[1])))
    rows.sort(key=lambda row: -row[5])
    shown = [
        [row[0], *(f"{age:.3f}" for age in row[1:4]), *(f"{d:.2g}" for d in row[4:])] for row in rows[:10]
    ]
    most = ["largest", "", "", "", *(f"{max(row[k] for row in rows):.2g}" for k in (4, 5))]
    print_table(
        f"Ages of {len(rows)} videos, the largest differences first, years",
        ["video", "plain", "32", "bf16-mixed", "32 - plain", "bf16 - 32"],
        [*shown, most],
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
