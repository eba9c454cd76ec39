"""Error of the 68 points against annotated pictures, and of the index table that people copy.

    python benchmarks/landmarks.py FOLDER [--kinds FILE] [--engine litert mediapipe] [--json FILE] [--overlay DIR]

FOLDER holds pictures with a `.pts` file of the same stem (68 points in the order of iBUG and Multi-PIE, pixels counted
from 1: the first pixel's centre is at 1, 1). In each picture the face nearest the annotation is taken. The error is
that of the 300-W challenge: mean distance of the points, divided by the distance of the annotated outer eye corners
(points 37 and 46), here in percent.

Three ways from the mesh to the points are compared:

- table: the 68 mesh indices that circulate as "MediaPipe to dlib" (one look at the face);
- ours: `nemo_pipeline.ibug68.from_mesh`, one look, as in a clip;
- still: ours as in `landmarks_in_image`, the mean of six looks.

--kinds names each picture's kind: a CSV file with the columns `picture` (stem or file name) and `kind`, or a Markdown
table with the columns `pair` and `kind`. Without it a head turned by more than 20 degrees (our own measurement) counts
as "turned", any other as "frontal". Every second picture of the frontal ones (in the order of their names) forms half
A, the others half B: choose on one, report the other (how far that was kept: docs/landmarks.md).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import cv2
import numpy as np
from common import USUAL_TABLE, machine_facts, print_table
from numpy.typing import NDArray

from nemo_pipeline import ibug68
from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.landmarks import Engine, still_landmarks
from nemo_pipeline.stages.pose import head_pose
from nemo_pipeline.stages.search import full_search

METHODS = ("table", "ours", "still")
REGIONS: dict[str, range] = {
    "jaw": range(0, 17),
    "brows": range(17, 27),
    "nose": range(27, 36),
    "eyes": range(36, 48),
    "outer mouth": range(48, 60),
    "inner mouth": range(60, 68),
    "inner 51": range(17, 68),
    "all 68": range(0, 68),
}
FRONTAL_KINDS = ("frontal", "smiling", "not smiling", "neutral")
TURNED_BEYOND = 20.0
PICTURES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp")


def read_pts(path: Path) -> NDArray[np.float64]:
    """(68, 2) points of a .pts file, x then y, pixels counted from 0 (the file counts from 1)."""
    try:
        body = path.read_text().split("{", 1)[1].split("}", 1)[0]
        points = np.array([line.split() for line in body.split("\n") if line.strip()], dtype=np.float64)
    except (IndexError, ValueError):
        sys.exit(f"{path} is no .pts file: it needs lines of `x y` between braces.")
    if points.shape != (68, 2):
        sys.exit(f"{path} holds {points.shape} numbers; 68 points of x and y are needed.")
    return points - 1.0


def annotated(folder: Path) -> Iterator[tuple[str, Path, NDArray[np.float64]]]:
    """(stem, picture, points) of every annotated picture, in the order of the names."""
    for pts in sorted(folder.glob("*.pts")):
        pictures = [p for p in sorted(folder.glob(f"{pts.stem}.*")) if p.suffix.lower() in PICTURES]
        if pictures:
            yield pts.stem, pictures[0], read_pts(pts)


def read_kinds(path: Path) -> dict[str, str]:
    """Kind by picture's stem, from a CSV file or the Markdown table with the columns `pair` and `kind`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    kinds: dict[str, str] = {}
    if path.suffix.lower() == ".csv":
        for row in csv.DictReader(lines):
            kinds[Path(row["picture"]).stem] = row["kind"].strip()
        return kinds
    columns: list[str] = []
    for line in lines:
        cells = [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            columns = []
        elif not columns:
            columns = cells
        elif {"pair", "kind"} <= set(columns) and not set(line) <= set("|-: "):
            row = dict(zip(columns, cells, strict=False))
            kinds[row["pair"]] = row["kind"].split(":")[0]
    return kinds


def to_curve(points: NDArray[np.float64], curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) distance of each point (n,2) from the polyline `curve` (m,2)."""
    start, step = curve[:-1], np.diff(curve, axis=0)
    share = ((points[:, None] - start) * step).sum(axis=2) / np.maximum((step**2).sum(axis=1), 1e-12)
    nearest = start + np.clip(share, 0, 1)[..., None] * step
    return np.hypot(*(nearest - points[:, None]).transpose(2, 0, 1)).min(axis=1)


def measure(engine: Engine, picture: Path, truth: NDArray[np.float64]) -> dict[str, Any]:
    """One picture: whether its face was found, its pose, and each method's points and errors (68,), percent."""
    bgr = cv2.imread(str(picture))
    if bgr is None:
        sys.exit(f"{picture} cannot be read as a picture.")
    frame = Frame.from_rgb(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    eyes = float(np.hypot(*(truth[45] - truth[36])))
    result: dict[str, Any] = {"eye_px": eyes, "found": False}

    def away(mesh: Any) -> float:
        return float(np.hypot(*(ibug68.from_mesh(mesh.points).mean(axis=0) - truth.mean(axis=0)))) / eyes

    faces = sorted(full_search(engine, frame, everyone=True), key=away)
    if not faces or away(faces[0]) > 0.5:
        return result
    mesh = faces[0]
    points = {
        "table": mesh.points[USUAL_TABLE, :2].astype(np.float64),
        "ours": ibug68.from_mesh(mesh.points),
        "still": still_landmarks(engine, frame, mesh),
    }
    result.update(found=True, pose=head_pose(mesh.points), points=points)
    result["error"] = {m: 100 / eyes * np.hypot(*(p - truth).T) for m, p in points.items()}
    result["curve"] = {m: 100 / eyes * to_curve(p[:17], truth[:17]).mean() for m, p in points.items()}
    return result


def groups(results: dict[str, dict[str, Any]], kinds: dict[str, str]) -> dict[str, list[str]]:
    """Names of the found pictures by group: each kind, frontal, its halves, frontal and turned, all."""
    for name, result in results.items():
        if result["found"] and not kinds:
            result["kind"] = "turned" if abs(result["pose"][0]) > TURNED_BEYOND else "frontal"
        elif kinds:
            result["kind"] = kinds.get(name, "unnamed")
    found = [name for name, result in results.items() if result["found"]]
    frontal = [name for name in found if results[name]["kind"] in FRONTAL_KINDS]
    turned = [name for name in found if results[name]["kind"].startswith("turned")]
    own = {
        kind: [n for n in found if results[n]["kind"] == kind] for kind in {results[n]["kind"] for n in found}
    }
    named = {kind: names for kind, names in sorted(own.items()) if kind != "frontal"}
    return {
        "frontal": frontal,
        "frontal, half A": frontal[0::2],
        "frontal, half B": frontal[1::2],
        **named,
        "frontal and turned": sorted([*frontal, *turned]),
        "all found": found,
    }


def overlay(folder: Path, picture: Path, truth: NDArray[np.float64], points: NDArray[np.float64]) -> None:
    """The face with the annotation in red, ours in green, and lines between them."""
    image = cv2.imread(str(picture))
    middle, side = (truth.min(axis=0) + truth.max(axis=0)) / 2, float(np.ptp(truth, axis=0).max()) * 1.4
    scale = 700 / side
    shift = 350 - scale * middle
    view = cv2.warpAffine(image, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), (700, 700))
    for a, b in zip(truth * scale + shift, points * scale + shift, strict=True):
        ends = [tuple(int(v) for v in np.round(p)) for p in (a, b)]
        cv2.line(view, ends[0], ends[1], (0, 255, 255), 1, cv2.LINE_AA)
        cv2.circle(view, ends[0], 3, (0, 0, 255), -1, cv2.LINE_AA)
        cv2.circle(view, ends[1], 3, (0, 255, 0), -1, cv2.LINE_AA)
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{picture.stem}.jpg"), view)


def main() -> None:
    """Measure, print one table per engine, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="pictures with .pts files")
    parser.add_argument("--kinds", type=Path, help="CSV or Markdown table: which picture is of which kind")
    parser.add_argument("--engine", nargs="+", default=["litert"], choices=["litert", "mediapipe"])
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--overlay", type=Path, help="write pictures of annotation and points there")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    kinds = read_kinds(options.kinds) if options.kinds else {}
    pictures = list(annotated(options.folder))
    if not pictures:
        sys.exit(f"{options.folder} holds no picture with a .pts file of the same stem.")
    report: dict[str, Any] = {
        "facts": machine_facts(),
        "unit": "percent of the outer-eye distance",
        "engines": {},
    }
    for name in options.engine:
        engine = load_engine(name)
        results: dict[str, dict[str, Any]] = {}
        for k, (stem, picture, truth) in enumerate(pictures):
            print(f"\r{name}: {k + 1} of {len(pictures)}", end="", file=sys.stderr, flush=True)
            results[stem] = measure(engine, picture, truth)
            if options.overlay and results[stem]["found"]:
                overlay(options.overlay, picture, truth, results[stem]["points"]["still"])
        print(file=sys.stderr)
        missed = [stem for stem, result in results.items() if not result["found"]]
        rows, figures = [], {}
        for group, names in groups(results, kinds).items():
            for method in METHODS if names else ():
                errors = np.array([results[n]["error"][method] for n in names])
                cells = {region: float(errors[:, list(points)].mean()) for region, points in REGIONS.items()}
                cells["jaw to curve"] = float(np.mean([results[n]["curve"][method] for n in names]))
                figures[f"{group} | {method}"] = {"pictures": len(names), **cells}
                rows.append([group, str(len(names)), method, *(f"{value:.2f}" for value in cells.values())])
        headings = ["pictures", "n", "points", *REGIONS, "jaw to curve"]
        title = (
            f"{name}: error in % of the outer-eye distance; {len(missed)} of {len(results)} faces not found"
        )
        print_table(title + (f" ({', '.join(missed)})" if missed else ""), headings, rows)
        report["engines"][name] = {
            "missed": missed,
            "table": figures,
            "pictures": {
                stem: {
                    "kind": result.get("kind", ""),
                    "eye_px": result["eye_px"],
                    "pose": result["pose"],
                    **{m: np.round(result["error"][m], 3).tolist() for m in METHODS},
                }
                for stem, result in results.items()
                if result["found"]
            },
        }
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
