"""Training of the paper's SIAM: milliseconds a frame of a plain implementation, of the package's with one optimisation
after another switched on, and of its convolutions and linear layers alone, forward and backward with RMSprop's step.
Then the package's own training, faces and all, and what the paper's whole protocol takes at that rate.

    python benchmarks/train.py [--device cpu|cuda] [--threads N] [--frames N] [--repeats N] [--json FILE]
                               [--curves FIGURE.png]

Faces are noise, videos have 32 frames (200 in the package's own training on a GPU), and time does not depend on what
they show. On a CPU the times are processor time of one process. `--curves` trains small networks instead, 200 steps
from the same weights on the same batches: a plain loop around the plain implementation, and the package's training in
float32 and in bfloat16, as one figure.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from common import print_table
from plain_siam import PlainSIAM
from siam_variants import age_of, options, run

from nemo_pipeline.store import FaceDataset, write_dataset
from siam_model.config import SIAMConfig, TrainConfig, preset
from siam_model.data import Clips, LengthBuckets, labelled_videos, measure_normalisation
from siam_model.devices import resolve_device
from siam_model.training.inputs import FitInputs
from siam_model.training.loop import Place, Training

#: The database of the paper: 1,240 videos. Its faces of 114 pixels take 3.1 GB.
DATABASE_FRAMES = 240_000
#: The protocol: 10 folds of 20 combinations each, and the model of all subjects; at most so many epochs each.
TRAININGS, EPOCHS = 201, 200
#: Parts of the frames that train and validate in a fold; a validation frame costs a third of one that trains.
TRAINED, VALIDATED = 0.9 * 0.85, 0.9 * 0.15
STEPS = 200


def case(module: torch.nn.Module, frames: Tensor) -> Callable[[], object]:
    """One step."""
    module.train()
    optimiser = torch.optim.RMSprop(module.parameters(), lr=1e-6)

    def step() -> None:
        optimiser.zero_grad()
        age_of(module, frames).float().abs().mean().backward()
        optimiser.step()

    return step


def write_faces(path: Path, videos: int, frames: int, size: int = 114) -> Path:
    """A prepared file of noise that is the lighter, and the more striped, the older."""
    rng = np.random.default_rng(0)
    stripes = 127 * np.sin(np.linspace(0, 20, size))

    def made() -> Iterator[dict[str, Any]]:
        for i in range(videos):
            age = 18 + 60 * i / videos
            gray = 40 + age + stripes * age / 100 + rng.normal(0, 10, (frames, size, size))
            faces = np.clip(gray, 0, 255).astype(np.uint8)
            yield {"id": f"v{i}", "subject": f"s{i}", "age": age, "frames": faces}

    return write_dataset(path, made())


def inputs_of(
    path: Path, network: SIAMConfig, config: TrainConfig, precision: str, validating: int
) -> FitInputs:
    """A training on all but the last videos, which validate."""
    dataset = FaceDataset(path)
    table = labelled_videos(dataset)
    rows = np.arange(len(table))
    training, validation = rows[: len(rows) - validating], rows[len(rows) - validating :]
    normalisation = measure_normalisation(dataset, table.index[:4])
    clips = Clips(dataset, table, config.temporal_stride)
    return FitInputs(clips, training, validation, network, config, normalisation, (0,), precision=precision)


def own_training(arguments: argparse.Namespace) -> dict[str, Any]:
    """The package's training as `nemo train` runs it, in its second epoch: faces kept where they fit, batches of 8."""
    device = resolve_device(arguments.device)
    on_gpu = device.type == "cuda"
    videos, frames, batch, precision = (160, 200, 8, "bf16-mixed") if on_gpu else (6, 32, 2, "32")
    with tempfile.TemporaryDirectory(prefix="nemo-train-") as folder:
        path = write_faces(Path(folder) / "noise.h5", videos, frames)
        inputs = inputs_of(path, SIAMConfig(), TrainConfig(batch_size=batch), precision, videos // 8)
        training = Training(inputs, Place(device), None, print)
        training.epoch(None)  # the first waits for what is made once
        started, processor = time.perf_counter(), time.process_time()
        record = training.epoch(None)
        taken = time.perf_counter() - started if on_gpu else time.process_time() - processor
    worth = len(inputs.training) * frames + len(inputs.validation) * frames / 3
    rate = worth / taken
    epoch = DATABASE_FRAMES * (TRAINED + VALIDATED / 3) / rate
    result = {
        "precision": precision,
        "frames_s": rate,
        "loss": record.loss,
        "protocol_h": TRAININGS * EPOCHS * epoch / 3600,
    }
    if on_gpu:
        result["gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20
    print(
        f"The package's own training ({precision}): {rate:.0f} frames/s, with reading, validation and the optimiser.\n"
        f"The database ({DATABASE_FRAMES} frames): {epoch:.3g} s an epoch, at most {EPOCHS * epoch / 60:.3g} min a "
        f"training; {TRAININGS} trainings\n(10 folds of 20 combinations, and all subjects): at most "
        f"{result['protocol_h']:.3g} h on one such device, without what checkpoints take."
    )
    return result


def plain_losses(model: PlainSIAM, inputs: FitInputs, device: torch.device, steps: int) -> list[float]:
    """A loop as one would write it first, around the plain implementation."""
    model.to(device).train()
    config, losses = inputs.config, []
    optimiser = torch.optim.RMSprop(
        [p for p in model.parameters() if p.requires_grad], lr=config.learning_rate, alpha=config.rmsprop_alpha,
        eps=config.epsilon,
    )  # fmt: skip
    for chosen in batches_of(inputs, steps):
        batch = inputs.clips.__getitems__(chosen)
        frames = inputs.normalisation(batch.frames).to(device)
        optimiser.zero_grad()
        error = (model(frames) - batch.age.to(device)).abs()
        loss = error.mean() + config.l2 * sum(w.square().sum() for w in model.weights())
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), config.clip)
        optimiser.step()
        losses.append(loss.item())
    return losses


def batches_of(inputs: FitInputs, steps: int) -> list[Any]:
    """The first batches of a training."""
    order: list[Any] = []
    while len(order) < steps:
        epoch = len(order)
        order += LengthBuckets(inputs.clips.table, inputs.training, inputs.config, (0,), epoch).batches
    return order[:steps]


def draw_curves(path: Path, device: torch.device) -> None:
    """The loss of the same training by both implementations, and the ages that they then give."""
    from matplotlib.figure import Figure

    from siam_model.figures.plain import save_figure

    network, usual = preset("small")
    config = dataclasses.replace(
        usual, temporal_stride=1, batch_size=4, schedule="constant", learning_rate=3e-5
    )
    with tempfile.TemporaryDirectory(prefix="nemo-train-") as folder:
        file = write_faces(Path(folder) / "faces.h5", 40, 8)
        losses, ages = {}, {}
        for precision in ("32", "bf16-mixed"):
            inputs = inputs_of(file, network, config, precision, 8)
            training = Training(inputs, Place(device, every=50, faces="device"), None, print)
            plain = PlainSIAM.of(training.model.cpu())
            training.model.to(device).train()
            numbers = training._steps(batches_of(inputs, STEPS), [4] * STEPS, None)
            losses[f"package, {precision}"] = [loss for loss, _, _ in torch.stack(list(numbers)).tolist()]
            training.model.eval()
            ages[f"package, {precision}"] = final_ages(training.model, inputs, device)
            if precision == "32":
                losses["plain, float32"] = plain_losses(plain, inputs, device, STEPS)
                ages["plain, float32"] = final_ages(plain, inputs, device)
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for (name, values), style in zip(sorted(losses.items(), reverse=True), ("-", "--", ":"), strict=True):
        axes.plot(range(1, STEPS + 1), values, style, label=name, linewidth=1.2)
    axes.set(xlabel="step", ylabel="loss", title=f"{STEPS} steps from the same weights on {device.type}")
    axes.legend(frameon=False)
    save_figure(figure, path)
    reference = np.array(losses["plain, float32"])
    rows = [
        [
            name, f"{values[0]:.5f}", f"{np.mean(values[-50:]):.3f}",
            f"{np.abs(np.array(values) - reference)[:20].max():.2g}",
            f"{np.abs(np.array(values) - reference).max():.2g}",
            f"{np.abs(ages[name] - ages['plain, float32']).max():.2g}",
        ]
        for name, values in losses.items()
    ]  # fmt: skip
    print_table(
        "Losses, and the largest differences from the plain implementation's (ages of 8 unseen videos, years)",
        ["training", "first loss", "mean of the last 50", "in 20 steps", "in all steps", "ages after them"],
        rows,
    )


def final_ages(model: nn.Module, inputs: FitInputs, device: torch.device) -> np.ndarray:
    """Ages of the videos that validate."""
    index = inputs.clips.table.index[inputs.validation]
    videos = [torch.from_numpy(inputs.clips.dataset[int(i)].frames)[None].to(device) for i in index]
    with torch.no_grad():
        return np.array([float(age_of(model, inputs.normalisation(video))) for video in videos])


def main() -> None:
    """Time the variants, or draw the curves."""
    parser = options(__doc__)
    parser.add_argument("--curves", type=Path, metavar="FIGURE.png")
    arguments = parser.parse_args()
    if arguments.curves:
        torch.set_num_threads(arguments.threads)
        draw_curves(arguments.curves, resolve_device(arguments.device))
        return
    if arguments.device == "cpu":
        torch.set_num_threads(arguments.threads)
    own = own_training(arguments)
    run("Training of the paper's SIAM", arguments, case, {"own_training": own})


if __name__ == "__main__":
    main()
