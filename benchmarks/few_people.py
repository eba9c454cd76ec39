"""How many people with clips a given error takes: with and without weights from stills of other people, and with and
without pretraining on the expression. On synthetic faces, whose errors say nothing about people.

    python benchmarks/few_people.py STILLS.h5 CLIPS.h5 ... --out DIR [--sizes 8 16 32 64] [--ways NAME ...]
        [--seeds 0] [--steps 160] [--figure FILE.png]

Each CLIPS.h5 is a file of `nemo synth --direct`; STILLS.h5 is one of other people (another seed) whose age shows on the
skin. Three frames of each of its clips become pictures: those of the least, the median and the greatest amplitude of
the smile. Of CLIPS.h5 every fourth person by age is tested on, and so many of the others as a size asks for train,
evenly over their ages, the few being among the many. Everything goes the way of the command line: a run of stills,
`--init`, a run of clips, its `predictions.csv`. With everything unfrozen, all ways take as many steps of eight clips,
whatever the number of people; nothing is chosen by looking at anybody (`train.validation_fraction=0`). What is in DIR
already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, print_table

from nemo_pipeline.phases import amplitude
from nemo_pipeline.store import FaceDataset, write_dataset
from siam_model.data import labelled_videos
from siam_model.predictions import read_predictions
from siam_model.protocol.request import Runtime, TrainRequest
from siam_model.run_folder import RunFolder
from siam_model.train import resume, train

#: Steps of pretraining, and of ages while the appearance module is frozen, in eights of clips. The latter cost little.
PRETRAIN_STEPS, FROZEN_STEPS = 160, 600
BATCH = 8
EXPRESSION = {"train.pretrain": "expression", "train.pretrain_share": "0.5", "model.centre": "both"}
#: Way -> (from stills, settings, frozen first, then everything).
WAYS: dict[str, tuple[bool, dict[str, str], bool, bool]] = {
    "ages alone": (False, {}, False, True),
    "init": (True, {}, False, True),
    "init, frozen": (True, {}, True, False),
    "pretrain": (False, EXPRESSION, False, True),
}


def copied(dataset: FaceDataset, index: int, frames: slice, **changes: Any) -> dict[str, Any]:
    """Some frames of one video, as `write_dataset` takes them."""
    video, columns = dataset[index], dataset.videos
    labels = {
        name: columns[name][index] for name in ("subject", "age", "gender", "expression", "condition", "fps")
    }
    arrays = {name: np.asarray(video.read(name))[frames] for name in ("frames", "landmarks")}
    return {"id": video.id, "file": video.file, **labels, **arrays, **changes}


def write_stills(clips: FaceDataset, path: Path) -> None:
    """Three frames of every clip as pictures of their own, of people whose codes begin with "still"."""

    def pictures() -> Iterator[dict[str, Any]]:
        for index in clips.usable:
            order = np.argsort(amplitude(clips[index].landmarks, "smile"), kind="stable")
            for place in {int(order[i]) for i in (0, len(order) // 2, -1)}:
                name, subject = f"{clips[index].id}-{place}", f"still-{clips[index].subject}"
                picture = slice(place, place + 1)
                yield copied(clips, index, picture, id=name, file=name, subject=subject, fps=0.0)

    write_dataset(path, pictures(), config=clips.config, synthetic=True)


def write_few(clips: FaceDataset, size: int, path: Path) -> None:
    """The clips of `size` people to train on (fold 0) and of those tested on (fold 1)."""
    table = labelled_videos(clips)
    age = dict(zip(table.subject, table.age, strict=True))
    ranked = sorted(age, key=lambda subject: (age[subject], subject))
    test = ranked[1::4]
    rest = [subject for subject in ranked if subject not in test]
    if len(rest) < size:
        sys.exit(f"{clips.path} has {len(rest)} people to train on, and {size} are asked for.")
    # Multiples of the golden ratio fill 0..1 evenly, however many of them are taken.
    order = np.argsort(np.arange(len(rest)) * (np.sqrt(5) - 1) / 2 % 1)
    fold = {rest[i]: 0 for i in order[:size]} | dict.fromkeys(test, 1)
    chosen = [row for row, subject in enumerate(table.subject) if subject in fold]
    videos = (copied(clips, int(table.index[r]), slice(None), fold=fold[table.subject[r]]) for r in chosen)
    write_dataset(path, videos, config=clips.config, synthetic=True)


def cpu() -> float:
    """Seconds of CPU that this process has used."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def trained(data: Path, out: Path, **request: Any) -> float:
    """Train a run, or the rest of it, unless it is there; the CPU seconds it took."""
    note = out.with_suffix(".cpu.json")
    if not note.exists():
        before = cpu()
        if RunFolder(out).settings.exists():
            resume(out, data, Runtime(device="cpu"))
        else:
            train(data, out, TrainRequest(preset="small", **request), Runtime(device="cpu"))
        note.write_text(json.dumps(cpu() - before))
    return float(json.loads(note.read_text()))


def measured(
    few: Path, out: Path, stills: Path, way: str, clips: int, steps: int, seed: int
) -> dict[str, Any]:
    """One training and its error on the people it never saw."""
    init, settings, frozen, all_of_it = WAYS[way]
    settings = {"train.validation_fraction": "0", **settings}
    epochs = -(-steps * BATCH // clips) if all_of_it else 0
    if frozen:
        first = -(-FROZEN_STEPS * BATCH // clips)
        settings["train.freeze_appearance"] = str(first)
        epochs += first
    if "train.pretrain" in settings:
        settings["train.pretrain_epochs"] = str(-(-PRETRAIN_STEPS * BATCH // clips))
    start = str(stills.resolve()) if init else None
    seconds = trained(few, out, seed=seed, epochs=epochs, overrides=settings, init=start)
    found = read_predictions(RunFolder(out).predictions)
    median = read_predictions(RunFolder(out).baseline("median"))
    return {
        "mae": float(found.error.mean()),
        "median": float(median.error.mean()),
        "people_tested": len(set(found.subject)),
        "cpu_seconds": seconds,
    }


def draw(results: list[dict[str, Any]], sizes: list[int], path: Path) -> None:
    """A panel for each set: error over the number of people, a line for each way."""
    from matplotlib.figure import Figure

    from siam_model.figures.plain import plain_text, save_figure

    sets = list(dict.fromkeys(r["set"] for r in results))
    with plain_text():
        figure = Figure(figsize=(4.2 * len(sets), 3.4), layout="constrained")
        for number, (axes, name) in enumerate(
            zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True)
        ):
            mine = [r for r in results if r["set"] == name]
            for way, marker in zip(dict.fromkeys(r["way"] for r in mine), "osD^", strict=False):
                y = [mean(mine, way, size) for size in sizes]
                axes.plot(range(len(sizes)), y, marker + "-", label=way)
            axes.axhline(np.mean([r["median"] for r in mine]), color="0.6", ls="--", label="training median")
            axes.set(title=name, xlabel="people with clips to train on", ylim=(0, None))
            axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
            if not number:
                axes.set_ylabel("mean absolute error, years")
                axes.legend(frameon=False, fontsize=8, loc="center right")
    save_figure(figure, path)


def mean(results: list[dict[str, Any]], way: str, size: int) -> float:
    """Mean error over seeds; NaN where it was not measured."""
    found = [r["mae"] for r in results if r["way"] == way and r["size"] == size]
    return float(np.mean(found)) if found else float("nan")


def main() -> None:
    """Train what is missing; print a table of each set, write JSON and the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stills", type=Path)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="*", default=[8, 16, 32, 64])
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    sizes, out = sorted(options.sizes), options.out
    out.mkdir(parents=True, exist_ok=True)

    pictures, stills = out / "stills.h5", out / "stills"
    if not pictures.exists():
        write_stills(FaceDataset(options.stills), pictures)
    seconds = trained(pictures, stills, overrides={"train.validation_fraction": "0"})
    error = float(read_predictions(RunFolder(stills).predictions).error.mean())
    print(
        f"stills: {error:.2f} years on stills of people not seen, {seconds:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    results = []
    for path in options.clips:
        clips = FaceDataset(path)
        each = len(clips.usable) / len({clips[index].subject for index in clips.usable})
        for size in sizes:
            few = out / f"{path.stem}-{size}.h5"
            if not few.exists():
                write_few(clips, size, few)
            for way in options.ways:
                for seed in options.seeds:
                    name = f"{path.stem}-{size}-{list(WAYS).index(way)}-{seed}"
                    got = measured(few, out / name, stills, way, round(size * each), options.steps, seed)
                    results.append({"set": path.stem, "size": size, "way": way, "seed": seed, **got})
                    print(json.dumps(results[-1]), file=sys.stderr, flush=True)
        mine = [r for r in results if r["set"] == path.stem]
        tested = mine[0]["people_tested"]
        print_table(
            f"{path.stem}: mean absolute error in years on {tested} people, by how many people train (seeds "
            f"{options.seeds}; training median {np.mean([r['median'] for r in mine]):.2f})",
            ["way", *(str(size) for size in sizes), "CPU s of one"],
            [
                [
                    way,
                    *(f"{mean(mine, way, size):.2f}" for size in sizes),
                    f"{np.mean([r['cpu_seconds'] for r in mine if r['way'] == way]):.0f}",
                ]
                for way in options.ways
            ],
        )
    record = {
        "machine": machine_facts(),
        "stills": {"mae": error, "cpu_seconds": seconds},
        "results": results,
    }
    (out / "few_people.json").write_text(json.dumps(record, indent=1))
    if options.figure is not None:
        draw(results, sizes, options.figure)


if __name__ == "__main__":
    main()
