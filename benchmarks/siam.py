"""Training and prediction of SIAM: time, frames a second and peak memory, each case in a fresh process.

    python benchmarks/siam.py [--case PRESET:BATCH:FRAMES ...] [--device cpu|cuda] [--precision 32|bf16-mixed|16-mixed]
                              [--steps N] [--threads N] [--chunk FRAMES] [--every N] [--folder DIR] [--json FILE]

A case trains on BATCH videos of FRAMES frames of noise (a file on disk, read as `nemo train` reads it) for 1 + N steps
through `siam_model.training.fit`: the first step warms up, the others are timed, reading included. Then one of the
videos is predicted. Frames a second count the frames that pass through the network; a preset that reads every fourth
frame of a video trains on a quarter of them. Memory is the process's peak resident memory (`before`: with everything
imported), and on a GPU also the peak that torch allocated there. Nothing depends on what the faces show.

By default: the small preset on single clips of 900 and of 9000 frames (3 minutes at 50 a second) and on a usual batch;
the paper's on two clips of 195 frames.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, print_table

CASES = ("small:1:900", "small:1:9000", "small:8:200", "paper:2:195")


def write_noise(path: Path, videos: int, frames: int) -> None:
    """A file of `nemo prep` with noise for faces."""
    import numpy as np

    from nemo_pipeline.store import write_dataset

    rng = np.random.default_rng(0)
    made = (
        {
            "id": f"v{i}", "subject": f"s{i}", "age": 20.0 + i,
            "frames": rng.integers(0, 256, (frames, 114, 114), dtype=np.uint8),
        }
        for i in range(videos)
    )  # fmt: skip
    write_dataset(path, made)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """One case, in this process, on the file that `case` names."""
    import numpy as np
    import torch

    from nemo_pipeline.store import FaceDataset
    from siam_model.config import TrainConfig, preset
    from siam_model.data import Clips, labelled_videos, measure_normalisation
    from siam_model.predict import estimate
    from siam_model.training.fit import Machine, fit
    from siam_model.training.inputs import FitInputs

    if case["threads"]:
        torch.set_num_threads(case["threads"])
    network, usual = preset(case["preset"])
    config = TrainConfig(
        **{
            **usual.to_dict(),
            "epochs": 1 + case["steps"],
            "batch_size": case["batch"],
            **({"max_frames_per_pass": case["chunk"]} if case["chunk"] else {}),
            **({"temporal_stride": case["every"]} if case["every"] else {}),
        }
    )
    dataset = FaceDataset(case["file"])
    clips = Clips(dataset, labelled_videos(dataset), config.temporal_stride)
    rows = np.arange(case["batch"])
    before = peak_mb()
    normalisation = measure_normalisation(dataset, clips.table.index)
    inputs = FitInputs(
        clips, rows, rows[:0], network, config, normalisation, (0,), precision=case["precision"]
    )
    fitted = fit(inputs, Machine(case["device"]))
    trained = peak_mb()
    seconds = sorted(record.seconds for record in fitted.history[1:])
    middle = seconds[len(seconds) // 2]
    on_gpu = case["device"].startswith("cuda")
    result = {
        "step_s": middle,
        "frames_a_step": sum(math.ceil(case["frames"] / config.temporal_stride) for _ in rows),
        "before_mb": before,
        "train_peak_mb": trained,
        "train_gpu_mb": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None,
        "parameters": sum(p.numel() for p in fitted.model.parameters()),
        "threads": torch.get_num_threads(),
    }
    model = fitted.model.to(case["device"])
    frames = dataset[0].frames
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2 if on_gpu else 1):
        started = time.perf_counter()
        estimate(model, frames, normalisation, config)
        result["predict_s"] = time.perf_counter() - started
    result["predict_frames"] = len(frames)
    result["predict_gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None
    if on_gpu:
        result["gpu"] = torch.cuda.get_device_name()
    return result


def peak_mb() -> float:
    """Highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure, print a table, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", nargs="*", default=list(CASES), metavar="PRESET:BATCH:FRAMES")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="32")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--chunk", type=int, default=0)
    parser.add_argument("--every", type=int, default=0, help="temporal_stride, in place of the preset's")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print("\n" + json.dumps(measure(json.loads(arguments.child))))
        return
    results = []
    for text in arguments.case:
        name, batch, frames = text.split(":")
        with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="nemo-siam-") as folder:
            file = Path(folder) / "noise.h5"
            write_noise(file, int(batch), int(frames))
            case = {
                "preset": name, "batch": int(batch), "frames": int(frames), "file": str(file),
                "device": arguments.device, "precision": arguments.precision, "steps": arguments.steps,
                "threads": arguments.threads, "chunk": arguments.chunk, "every": arguments.every,
            }  # fmt: skip
            command = [sys.executable, __file__, "--child", json.dumps(case)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{text} failed (exit code {done.returncode})", file=sys.stderr)
            continue
        results.append({**case, **json.loads(done.stdout.splitlines()[-1])})
        print(f"{text} done", file=sys.stderr)
    print_table(
        f"SIAM on {arguments.device}, precision {arguments.precision}",
        ["preset", "videos x frames", "train, s a step", "frames/s", "peak, MB (before)", "GPU, MB",
         "predict one, s", "frames/s"],
        [
            [
                r["preset"],
                f"{r['batch']} x {r['frames']}",
                f"{r['step_s']:.2f}",
                f"{r['frames_a_step'] / r['step_s']:.1f}",
                f"{r['train_peak_mb']:.0f} ({r['before_mb']:.0f})",
                "-" if r["train_gpu_mb"] is None else f"{r['train_gpu_mb']:.0f}",
                f"{r['predict_s']:.2f}",
                f"{r['predict_frames'] / r['predict_s']:.1f}",
            ]
            for r in results
        ],
    )  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine_facts(), "cases": results}, indent=1))


if __name__ == "__main__":
    main()
