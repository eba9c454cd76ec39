"""Make tests/data/v1: what the first version of the file formats looks like, for every later version to read.

    python tests/data/make_v1.py FOLDER [NEMO]

FOLDER is new or empty. NEMO is the command of the version that is to write it, `nemo` by default. All faces are
synthetic (`nemo synth`). The folder holds:

    clips/              two of the six clips that out.h5 was made from; labels.csv
    out.h5, out.shards  six videos in two shards, with labels, and the labels of a seventh video that left the index
    run/                a cross-validation of a tiny network: fold 0 finished, fold 1 killed between two epochs
    held/               a finished run without folds
    study/              the study `modules`, broken off: two of its four variants are finished
    expected.json       columns, sums of the arrays, predictions; those of run/ as the version that wrote it finished it
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import av
import h5py
import numpy as np

#: Of every clip this many frames are kept: the files have to be small.
FRAMES = 7
PEOPLE = 6
#: A network of some 2,000 weights, for faces of 20 pixels.
NETWORK = {
    "model.channels": "2,3,4", "model.kernels": "5,3,3", "model.paddings": "0,0,1", "model.pools": "3,0,0",
    "model.fully_connected": "8", "model.hidden": "4", "model.attention_dim": "3", "model.temporal_dim": "3",
    "train.batch_size": "2", "train.temporal_stride": "2", "train.learning_rate": "0.003",
}  # fmt: skip


def main(folder: Path, nemo: str) -> None:
    """Make everything; prints what it does."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty.")

    def run(*arguments: object, codes: tuple[int, ...] = (0,)) -> None:
        command = [nemo, *map(str, arguments)]
        print("$", *command, flush=True)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode not in codes:
            raise SystemExit(f"exit {done.returncode}\n{done.stdout}\n{done.stderr}")

    run("synth", "made", "--subjects", PEOPLE + 1, "--clips", 1, "--size", "200x200", "--seconds", 0.8, 0.9,
        "--face", 0.3, 0.34, "--seed", 11, "--workers", 1)  # fmt: skip
    made = sorted((folder / "made").glob("*.mp4"))
    clips = folder / "clips"
    clips.mkdir()
    for clip in made:
        cut(clip, clips / clip.name)
    shutil.copy(folder / "made" / "labels.csv", clips)
    leaver = clips / made[-1].name

    prep = ("prep", "--size", 20, "--no-mesh", "--workers", 1, "--quiet", "--labels", clips / "labels.csv")
    run(*prep, *(clips / clip.name for clip in made[:4]), leaver, "out.h5")
    help_text = subprocess.run([nemo, "prep", "--help"], capture_output=True, text=True, check=True).stdout
    drop = (
        ["--prune"] if "--prune" in help_text else []
    )  # the first version dropped a video that was not named
    run(*prep, *drop, *(clips / clip.name for clip in made[:-1]), "out.h5")
    run("verify", "out.h5")

    settings = [word for name, value in NETWORK.items() for word in ("--set", f"{name}={value}")]
    train = ("train", "out.h5", "--preset", "small", "--trials", 0, "--device", "cpu", "--quiet", *settings)
    run(*train, "--epochs", 2, "-o", "held")
    run(*train, "--epochs", 2, "-o", "study", "--study", "modules")
    run(*train, "--epochs", 12, "--folds", 2, "--fold", 0, "-o", "run")
    kill_in_fold(folder, nemo, "run", 1)
    shutil.copytree(folder / "run", folder / "made" / "run")
    run("train", "out.h5", "--resume", "-o", "made/run", "--device", "cpu", "--quiet")
    for variant in ("conv_recurrent_spatial", "full"):
        shutil.rmtree(folder / "study" / variant)
    write_expected(folder)

    shutil.rmtree(folder / "made")
    for clip in made[2:]:
        (clips / clip.name).unlink()
    for picture in folder.rglob("*.png"):
        picture.unlink()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1000:.0f} kB in {sum(p.is_file() for p in folder.rglob('*'))} files")


def cut(source: Path, target: Path) -> None:
    """The first `FRAMES` frames, compressed hard."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        video = old.streams.video[0]
        stream = new.add_stream("libx264", rate=video.average_rate, options={"crf": "30", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
        for i, frame in enumerate(old.decode(video)):
            if i < FRAMES:
                new.mux(stream.encode(frame.reformat(format="yuv420p")))
        new.mux(stream.encode())


def kill_in_fold(folder: Path, nemo: str, run: str, fold: int) -> None:
    """Go on with a run and kill it as soon as the fold has left the state of an epoch."""
    place = folder / run / "folds" / f"{fold:02d}"
    command = [nemo, "train", "--resume", "-o", run, "--fold", str(fold), "--device", "cpu", "--quiet"]
    print("$", *command, "(killed)", flush=True)
    process = subprocess.Popen(command, cwd=folder)
    while process.poll() is None and not any(place.glob("*.pt")):
        time.sleep(0.005)
    process.kill()
    process.wait()
    if not any(place.glob("*.pt")) or (place / "predictions.csv").exists():
        raise SystemExit("the fold was not killed between two epochs; try again.")


def write_expected(folder: Path) -> None:
    """What is in the files, read with nothing of nemo."""
    with h5py.File(folder / "out.h5") as file:
        columns = {
            name: [v.decode() if isinstance(v, bytes) else v for v in dataset[()].tolist()]
            for name, dataset in file["videos"].items()
        }
        sums = {
            name: float(np.nansum(dataset[()], dtype=np.float64))
            for name, dataset in file.items()
            if isinstance(dataset, h5py.Dataset)
        }
    predictions = {}
    for path in sorted(folder.rglob("predictions.csv")):
        with path.open(newline="") as table:
            rows = {row["video"]: float(row["age_predicted"]) for row in csv.DictReader(table)}
        predictions[str(path.relative_to(folder))] = rows
    values = {"videos": columns, "sums": sums, "predictions": predictions}
    (folder / "expected.json").write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) == 3 else "nemo")
