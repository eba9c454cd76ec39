"""Single pictures, however big: time, number of looks, and faces lost against a search at every scale and turn.

    python benchmarks/stills.py PICTURES [--megapixels N] [--every N] [--limit MS] [--json FILE]

PICTURES is a folder of pictures, of which every N-th is taken. Each is searched by `landmarks_in_image` as it is,
enlarged to so many megapixels (default 8.5), and as a third of a scene of that size (before its own blurred copy). The
faces to be found are those that `full_search` finds in the picture as it is. Where a picture has a `.pts` file beside
it, the error of the face nearest to it is measured (percent of the distance of the outer eye corners). Time is CPU time
of one thread; "networks alone" is what the looks of the median picture take when nothing else runs.

A second table is about the largest face alone, which is what `nemo prep` keeps of a picture: the time of search and
points (the least of three tries), and how many pictures take more than the limit (default 60 ms).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import cv2
import numpy as np
from common import machine_facts, print_table
from landmarks import read_pts
from numpy.typing import NDArray

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.landmarks import Engine, still_landmarks
from nemo_pipeline.stages.search import full_search
from nemo_pipeline.stages.stills import faces_in_picture, found_in_picture, largest_face
from nemo_pipeline.stages.track import observe_all

Picture = NDArray[np.uint8]
Points = NDArray[np.float64]

#: A face is the same as another whose points lie within this part of the distance of the outer eye corners.
SAME = 0.15
#: `nemo prep` keeps no face that is turned further.
MAX_YAW_DEGREES = PrepConfig().max_yaw_degrees


class Counting:
    """An engine that counts what it is asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.name = engine, engine.name
        self.looks = {"detector": 0, "landmarks": 0}

    def detect(self, view: Picture) -> Any:
        self.looks["detector"] += 1
        return self._engine.detect(view)

    confirm = detect

    def mesh(self, view: Picture) -> Any:
        self.looks["landmarks"] += 1
        return self._engine.mesh(view)


def shown(picture: Picture, pixels: float) -> Iterator[tuple[str, Picture, float, float, float]]:
    """How a picture is shown: name, pixels, and scale and shift of its pixels' edges."""
    yield "as it is", picture, 1.0, 0.0, 0.0
    h, w = picture.shape[:2]
    factor = float(np.sqrt(pixels / (h * w)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    large: Any = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=how)
    yield f"{pixels / 1e6:g} megapixels", large, factor, 0.0, 0.0
    scene: Any = cv2.resize(
        cv2.GaussianBlur(picture, (0, 0), max(h, w) / 20), (large.shape[1], large.shape[0])
    )
    how = cv2.INTER_AREA if factor < 3 else cv2.INTER_CUBIC
    part: Any = cv2.resize(picture, None, fx=factor / 3, fy=factor / 3, interpolation=how)
    y, x = (int(0.55 * (a - b)) for a, b in zip(scene.shape[:2], part.shape[:2], strict=True))
    scene[y : y + part.shape[0], x : x + part.shape[1]] = part
    yield "a third of a scene", scene, factor / 3, float(x), float(y)


def apart(a: Points, b: Points) -> float:
    """The mean distance of two faces' points, in distances of the outer eye corners of the second."""
    return float(np.hypot(*(a - b).T).mean() / np.hypot(*(b[45] - b[36])))


def cpu_ms(call: Callable[[], object], times: int) -> float:
    start = time.process_time()
    for _ in range(times):
        call()
    return 1e3 * (time.process_time() - start) / times


def largest_alone(engine: Counting, picture: Picture) -> dict[str, Any]:
    """Time, looks and number of faces where only the largest is wanted."""
    tries = []
    for _ in range(3):
        engine.looks = {"detector": 0, "landmarks": 0}
        start = time.process_time()
        faces, closely = found_in_picture(engine, picture, everyone=False, max_yaw_degrees=MAX_YAW_DEGREES)
        if faces:
            seen = observe_all([(face, number) for number, face in enumerate(faces)])
            closely(faces[largest_face(seen, MAX_YAW_DEGREES).person])
        tries.append(1e3 * (time.process_time() - start))
    return {"ms": min(tries), **engine.looks, "found": len(faces)}


def examine(engine: Counting, path: Path, pixels: float) -> dict[str, dict[str, Any]]:
    """What becomes of one picture, by how it is shown."""
    picture = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
    frame = Frame.from_rgb(picture)
    faces = [still_landmarks(engine, frame, m) for m in full_search(engine, frame, everyone=True)]
    truth = read_pts(path.with_suffix(".pts")) if path.with_suffix(".pts").exists() else None
    results = {}
    for name, large, scale, x, y in shown(picture, pixels):
        engine.looks = {"detector": 0, "landmarks": 0}
        start = time.process_time()
        found = [points for _, points in faces_in_picture(engine, large)]
        ms = 1e3 * (time.process_time() - start)
        own = [(points + 0.5 - (x, y)) / scale - 0.5 for points in found]
        lost = sum(min((apart(points, face) for points in own), default=np.inf) > SAME for face in faces)
        new = sum(min((apart(points, face) for face in faces), default=np.inf) > SAME for points in own)
        error = min((apart(points, truth) for points in own), default=np.inf) if truth is not None else np.nan
        results[name] = {"ms": ms, **engine.looks, "faces": len(faces), "found": len(found), "lost": lost}
        results[name] |= {"new": new, "error": error, "largest": largest_alone(engine, large)}
    return results


def main() -> None:
    """Examine every picture, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path, help="a folder of pictures")
    parser.add_argument("--megapixels", type=float, default=8.5)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--limit", type=float, default=60.0, help="milliseconds")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    engine = Counting(load_engine("litert"))
    blank = np.zeros((256, 256, 3), np.uint8)
    unit = {
        "detector": min(cpu_ms(lambda: engine.detect(blank[:128, :128].copy()), 20) for _ in range(5)),
        "landmarks": min(cpu_ms(lambda: engine.mesh(blank), 5) for _ in range(5)),
    }
    files = sorted(p for p in options.pictures.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    results: dict[str, Any] = {}
    for path in files[:: options.every]:
        results[path.name] = examine(engine, path, 1e6 * options.megapixels)
        print(path.name, json.dumps(results[path.name]), file=sys.stderr)
    rows = []
    for name in next(iter(results.values())):
        for people, most in (("one face", 1), ("any number", 1000)):
            chosen = [r[name] for r in results.values() if r[name]["faces"] <= most]
            if not chosen:
                continue
            looks = {kind: float(np.median([c[kind] for c in chosen])) for kind in unit}
            missed = [c["error"] for c in chosen if np.isfinite(c["error"]) and c["error"] < 2 * SAME]
            rows.append(
                [
                    name,
                    people,
                    str(len(chosen)),
                    f"{np.median([c['ms'] for c in chosen]):.0f}",
                    f"{max(c['ms'] for c in chosen):.0f}",
                    f"{looks['detector']:.0f} + {looks['landmarks']:.0f}",
                    f"{sum(looks[kind] * unit[kind] for kind in unit):.0f}",
                    str(sum(c["faces"] for c in chosen)),
                    str(sum(c["lost"] for c in chosen)),
                    str(sum(c["new"] for c in chosen)),
                    f"{100 * np.mean(missed):.2f}" if missed else "",
                    str(sum(c["error"] >= 2 * SAME for c in chosen)),
                ]
            )
    headings = [
        "shown",
        "pictures with",
        "n",
        "ms, median",
        "ms, most",
        "looks, median",
        "networks alone, ms",
    ]
    headings += ["faces", "lost", "new", "error, %", "annotated face missed"]
    print_table(f"{len(results)} pictures", headings, rows)
    rows = []
    for name in next(iter(results.values())):
        alone = [r[name]["largest"] for r in results.values() if r[name]["largest"]["found"]]
        times = [one["ms"] for one in alone]
        if not alone:
            continue
        looks = {kind: float(np.median([one[kind] for one in alone])) for kind in unit}
        rows.append(
            [
                name,
                str(len(alone)),
                *(f"{value:.1f}" for value in (np.median(times), np.quantile(times, 0.9), max(times))),
                str(sum(value > options.limit for value in times)),
                f"{looks['detector']:.0f} + {looks['landmarks']:.0f}",
            ]
        )
    headings = ["shown", "pictures with a face", "ms, median", "ms, 90 %", "ms, most"]
    headings += [f"over {options.limit:g} ms", "looks, median"]
    print_table("the largest face alone", headings, rows)
    if options.json:
        result = {"machine": machine_facts(), "unit_ms": unit, "pictures": results}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
