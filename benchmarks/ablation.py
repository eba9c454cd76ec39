"""MAE of SIAM, built up module by module, against the median, where age shows in one way only: synthetic faces.

    python benchmarks/accuracy.py --no-track --siam [--siam-subjects N] [--siam-clips N] [--siam-seeds N]
                                  [--siam-preset small|paper] [--siam-epochs N] [--siam-folds K] [--siam-device cpu]
                                  [--siam-sets NAME ...] [--siam-models NAME ...] [--siam-set NAME=VALUE ...]
                                  [--siam-folder DIR] [--json FILE]

Three sets of the same people (nemo_pipeline.synth, warped faces written straight): `appearance` (lines on the skin,
all smile the same way), `dynamics` (skin without age; every clip shows the same set of intensities, in an order and
tempo that depend on age: frames taken singly carry none), and `joint` (both, as `nemo synth` makes them by default).
On each, with each seed (of split, start and order), four models: convolution only, + recurrence, + spatial attention,
+ temporal attention. Errors are on people held out; next to them always the training median, and the ridge
regressions that `nemo train` makes (on the mean face; on the phases' durations, speeds and sizes).

A row is printed, and added to DIR/rows.jsonl, when a training ends; with --siam-folder, trainings that are there
already are not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import print_table

#: Set -> what differs in its settings.
SETS: dict[str, dict[str, Any]] = {
    "appearance": {"appearance": 1.0, "dynamics": 0.0},
    "dynamics": {"appearance": 0.0, "dynamics": 1.0, "balanced": True},
    "joint": {"appearance": 1.0, "dynamics": 1.0},
}
BASELINES = ("median", "ridge_mean_face", "ridge_phases")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this part."""
    parser.add_argument("--siam", action="store_true", help="train SIAM and its ablations on three sets")
    parser.add_argument("--siam-subjects", type=int, default=32)
    parser.add_argument("--siam-clips", type=int, default=2, help="clips of each subject")
    parser.add_argument("--siam-seeds", type=int, default=3)
    parser.add_argument("--siam-sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--siam-models", nargs="*", help="conv, conv_recurrent, conv_recurrent_spatial, full")
    parser.add_argument("--siam-set", nargs="*", default=[], help="as nemo train --set: train.batch_size=4")
    parser.add_argument("--siam-preset", default="small", choices=["small", "paper"])
    parser.add_argument("--siam-epochs", type=int, help="most epochs, instead of the preset's")
    parser.add_argument("--siam-folds", type=int, help="every subject is tested once, in this many folds")
    parser.add_argument("--siam-device", default="cpu")
    parser.add_argument(
        "--siam-folder", type=Path, help="keep sets, runs and rows here; go on where it was broken off"
    )


def run_ablation(options: argparse.Namespace) -> dict[str, Any]:
    """Train everything; print rows as they come and the table at the end; answers both."""
    with tempfile.TemporaryDirectory(prefix="nemo-ablation-") as scratch:
        root = options.siam_folder or Path(scratch)
        root.mkdir(parents=True, exist_ok=True)
        rows = list(_rows(root, options))
    table = summarize(rows)
    show(table, options)
    return {"rows": rows, "table": table}


def _rows(root: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    from nemo_pipeline.synth import render_faces
    from siam_model.study import STUDIES

    record = root / "rows.jsonl"
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {(row["set"], row["seed"], row["model"]) for row in rows}
    for seed in range(options.siam_seeds):
        for name in options.siam_sets:
            data = root / f"{name}.h5"
            if not data.exists():
                render_faces(data, options.siam_subjects, options.siam_clips, 0, workers=1, **SETS[name])
            for variant in STUDIES["modules"]:
                unwanted = options.siam_models is not None and variant.name not in options.siam_models
                if unwanted or (name, seed, variant.name) in done:
                    continue
                row = _train(data, root / "runs" / f"{name}-{seed}-{variant.name}", seed, variant, options)
                row = {"set": name, "seed": seed, "model": variant.name, "label": variant.label, **row}
                rows.append(row)
                with record.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                figures = f"MAE {row['mae']:.2f}, median {row['median']:.2f} ({row['seconds']:.0f} s)"
                print(f"{name}, seed {seed}, {variant.label}: {figures}", file=sys.stderr, flush=True)
    return rows


def _train(data: Path, run: Path, seed: int, variant: Any, options: argparse.Namespace) -> dict[str, Any]:
    """One training and its errors on people held out."""
    import shutil

    from siam_model.predictions import read_predictions
    from siam_model.protocol.overrides import split_assignments
    from siam_model.protocol.request import Runtime, TrainRequest
    from siam_model.train import train

    shutil.rmtree(run, ignore_errors=True)  # broken off
    begun, cpu = time.monotonic(), time.process_time()
    run.parent.mkdir(parents=True, exist_ok=True)
    overrides = {**split_assignments(options.siam_set), **variant.overrides}
    request = TrainRequest(
        options.siam_preset, seed, options.siam_epochs, options.siam_folds, overrides=overrides
    )
    train(data, run, request, Runtime(options.siam_device))
    predicted = read_predictions(run / "predictions.csv")
    row: dict[str, Any] = {"mae": float(predicted.error.mean()), "clips": len(predicted)}
    for name in BASELINES:
        path = run / "baselines" / f"{name}.csv"
        if path.exists():
            row[name] = float(read_predictions(path).error.mean())
    return row | {"seconds": time.monotonic() - begun, "cpu_seconds": time.process_time() - cpu}


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line per set and model: mean and standard deviation over seeds, and of the gain on the median."""
    lines = []
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name]
        for model in dict.fromkeys(row["model"] for row in own):
            these = [row for row in own if row["model"] == model]
            gain = [row["median"] - row["mae"] for row in these]
            lines.append(_line(name, these[0]["label"], [row["mae"] for row in these], gain))
        for baseline in BASELINES:
            seeds = {row["seed"]: row for row in own if baseline in row}
            if seeds:
                values = [row[baseline] for row in seeds.values()]
                gain = [row["median"] - row[baseline] for row in seeds.values()]
                lines.append(_line(name, f"baseline: {baseline.replace('_', ' ')}", values, gain))
    return lines


def _line(name: str, label: str, values: list[float], gain: list[float]) -> dict[str, Any]:
    return {
        "set": name, "model": label, "mae": float(np.mean(values)), "sd": float(np.std(values)),
        "gain": float(np.mean(gain)), "gain_least": float(np.min(gain)), "gain_most": float(np.max(gain)),
        "seeds": len(values),
    }  # fmt: skip


def show(table: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """The table of `summarize`."""
    cells = [
        [
            line["set"], line["model"], f"{line['mae']:.2f} ± {line['sd']:.2f}", f"{line['gain']:+.2f}",
            f"{line['gain_least']:+.2f} to {line['gain_most']:+.2f}", str(line["seeds"]),
        ]
        for line in table
    ]  # fmt: skip
    print_table(
        f"SIAM on synthetic faces, people held out ({options.siam_subjects} subjects x {options.siam_clips} clips, "
        f"preset {options.siam_preset}): mean absolute error in synthetic years, mean ± deviation over seeds; "
        "gain = the training median's error less the model's",
        ["age shows in", "model", "MAE", "gain", "gain by seed", "seeds"], cells,
    )  # fmt: skip
