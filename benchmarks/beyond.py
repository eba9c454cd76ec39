"""What is beyond the paper, against the paper's setting, on synthetic faces: their errors mean nothing for people.

    nemo synth --direct DATA.h5 --subjects 36 --clips 2 --seed 21 --size 160x160
    python benchmarks/beyond.py DATA.h5 [--methods NAME ...] [--seeds N] [--epochs N] [--threads N] [--json FILE]

Every third person by age is tested on. Of the others, those older than 50 are thinned to every third, so that old ages
are rare in training and not in testing. Each method trains the small preset for a fixed number of epochs on the same
people with the same seeds, with nothing chosen by looking at the people tested on. `folds` is the mean of three models,
each trained without a third of the people, as `siam_model.load(run, ensemble=True)` takes it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, print_table

OLD = 50
METHODS: dict[str, dict[str, Any]] = {
    "paper": {},
    "density": {"age_weighting": "density"},
    "mirror": {"augment_mirror": True},
    "brightness": {"augment_brightness": 0.2},
    "folds": {},
}


def people(table: Any) -> tuple[list[str], list[str]]:
    """Subjects to train on (few old ones) and to test on."""
    age = dict(zip(table.subject, table.age, strict=True))
    ranked = sorted(age, key=lambda subject: (age[subject], subject))
    test = ranked[1::3]
    rest = [subject for subject in ranked if subject not in test]
    old = [subject for subject in rest if age[subject] > OLD]
    return [subject for subject in rest if subject not in old or old.index(subject) % 3 == 0], test


def main() -> None:
    """Train, test, print a table, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    import torch

    from nemo_pipeline.store import FaceDataset
    from siam_model.config import TrainConfig, preset
    from siam_model.data import Clips, labelled_videos, measure_normalisation
    from siam_model.predict import estimate
    from siam_model.training.fit import Machine, fit
    from siam_model.training.inputs import FitInputs

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dataset = FaceDataset(arguments.data)
    if not dataset.synthetic:
        sys.exit(
            f"{arguments.data} is not synthetic; this comparison is about `nemo synth --direct` files alone."
        )
    table = labelled_videos(dataset)
    network, usual = preset("small")
    training, test = people(table)
    rows = table.rows_of(test)

    def ages(subjects: list[str], changes: dict[str, Any], seed: int) -> np.ndarray:
        """(len(rows),) years: train on `subjects`, predict the people tested on."""
        config = TrainConfig(**{**usual.to_dict(), "epochs": arguments.epochs, **changes})
        known = table.rows_of(subjects)
        normalisation = measure_normalisation(dataset, table.index[known])
        clips = Clips(dataset, table, config.temporal_stride)
        inputs = FitInputs(clips, known, known[:0], network, config, normalisation, (seed,))
        fitted = fit(inputs, Machine("cpu"))
        videos = (dataset[int(i)].frames for i in table.index[rows])
        return np.array([estimate(fitted.model, f, normalisation, config).age for f in videos])

    age, old = table.age[rows], table.age[rows] > OLD
    median = float(np.median(table.age[table.rows_of(training)]))
    results = []
    for name in arguments.methods:
        started = time.perf_counter()
        errors = []
        for seed in arguments.seeds:
            if name == "folds":
                parts = [[s for i, s in enumerate(training) if i % 3 != k] for k in range(3)]
                predicted = np.mean([ages(part, {}, seed) for part in parts], axis=0)
            else:
                predicted = ages(training, METHODS[name], seed)
            errors.append(np.abs(predicted - age))
        results.append(
            {
                "method": name,
                "seeds": arguments.seeds,
                "mae": [float(e.mean()) for e in errors],
                "mae_old": [float(e[old].mean()) for e in errors],
                "mae_others": [float(e[~old].mean()) for e in errors],
                "seconds": time.perf_counter() - started,
            }
        )
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    constant = np.abs(median - age)
    print_table(
        f"Synthetic faces: {len(training)} people trained on, {len(test)} tested on ({len(rows)} clips, {old.sum()} of "
        f"people over {OLD}); mean absolute error in years, mean over seeds {arguments.seeds}",
        ["method", "all", f"over {OLD}", "others"],
        [
            ["training median", *(f"{part.mean():.2f}" for part in (constant, constant[old], constant[~old]))],
            *(
                [r["method"], *(f"{np.mean(r[key]):.2f}" for key in ("mae", "mae_old", "mae_others"))]
                for r in results
            ),
        ],
    )  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine_facts(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
