"""Faces behind masks, scarves and hands: how often they are found, and the right way up.

    python benchmarks/covered.py FOLDER... [--every N] [--json FILE]

FOLDERs hold pictures with one upright face each; every N-th is taken, in the order of their names. On the largest face
of each, a cover is drawn in the colours named below. A face is right when it is found within 50 degrees of how it
lies, wrong when it is found otherwise. The same pictures without a cover are shown upright, and turned by 90 and 180
degrees.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import cv2
import numpy as np
from common import machine_facts, print_table
from numpy.typing import NDArray

from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.landmarks import Engine
from nemo_pipeline.stages.search import full_search, quick_search
from nemo_pipeline.stages.track import observe

Picture = NDArray[np.uint8]
Points = NDArray[np.float64]

#: Longer sides are reduced to this: all faces are large then, and a full search is quick.
LONGEST_SIDE = 400
COLOURS = {"white": (232, 236, 240), "blue": (150, 190, 220), "black": (25, 25, 28), "red": (160, 50, 60)}
COVERS = ("mask", "mask below the nose", "scarf", "hand")


def covered(picture: Picture, points: Points, cover: str, colour: tuple[int, int, int]) -> Picture:
    """A copy of a picture whose face, known by its 68 points, is covered from below."""
    across = points[45] - points[36]
    down = np.array([-across[1], across[0]])
    chin = points[1:16] + np.linspace(0, 1, 15)[:, None] * (1 - np.linspace(0, 1, 15)[:, None]) * 0.3 * down
    if cover == "mask":
        outlines = [np.concatenate([chin, points[28:29]])]
    elif cover == "mask below the nose":
        outlines = [np.concatenate([chin[1:-1], points[33:34]])]
    elif cover == "scarf":
        ends = np.stack([points[16] + 0.3 * across, points[16] + 0.5 * across + 2.2 * down])
        other = np.stack([points[0] - 0.5 * across + 2.2 * down, points[0] - 0.3 * across])
        outlines = [np.concatenate([points[28:29], ends, other])]
    else:
        mouth = (points[48] + points[54]) / 2
        outlines = []
        for finger in range(5):
            start = mouth - 0.75 * across + (0.2 * finger - 0.45) * down
            end = start + 1.3 * across + 0.1 * (finger - 2) * down
            outlines.append(np.stack([start, end, end + 0.17 * down, start + 0.17 * down]))
    shape = np.zeros(picture.shape[:2], np.float32)
    for outline in outlines:
        cv2.fillPoly(shape, [np.round(outline * 16).astype(np.int32)], 1.0, lineType=cv2.LINE_AA, shift=4)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    height = ((x - points[27, 0]) * down[0] + (y - points[27, 1]) * down[1]) / (across @ across)
    cloth = np.clip((1 + 0.1 * np.sin(14 * height))[..., None] * colour, 0, 255)
    weight = shape[..., None]
    return np.round(weight * cloth + (1 - weight) * picture).astype(np.uint8)


def skin(picture: Picture, points: Points) -> tuple[int, int, int]:
    """The colour along the bridge of the nose, a little darker."""
    x, y = np.round(points[27:31]).astype(int).T
    at = picture[np.clip(y, 0, len(picture) - 1), np.clip(x, 0, picture.shape[1] - 1)]
    r, g, b = (0.9 * np.median(at, axis=0)).astype(int).tolist()
    return r, g, b


def judgement(engine: Engine, picture: Picture, points: Points) -> str:
    """ "right", "wrong" or "not found" for the face whose points are known."""
    across = points[45] - points[36]
    for mesh in full_search(engine, Frame.from_rgb(np.ascontiguousarray(picture))):
        seen = observe(mesh)
        if np.hypot(*(seen.landmarks.mean(axis=0) - points.mean(axis=0))) < 1.5 * np.hypot(*across):
            off = seen.pose[2] - np.degrees(np.arctan2(across[1], across[0]))
            return "right" if abs((off + 180) % 360 - 180) < 50 else "wrong"
    return "not found"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    engine = load_engine("litert")
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    n_pictures = 0
    for folder in arguments.folders:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        for path in files[:: arguments.every]:
            read = cv2.imread(str(path))
            if read is None:
                continue
            factor = min(1.0, LONGEST_SIDE / max(read.shape[:2]))
            picture = cv2.resize(read, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)[..., ::-1]
            picture = np.ascontiguousarray(picture)
            seen = [observe(mesh) for mesh in quick_search(engine, Frame.from_rgb(picture))]
            upright = [one for one in seen if abs(one.pose[2]) < 45]
            if not upright:
                continue
            n_pictures += 1
            points = max(upright, key=lambda one: one.eye_distance_px).landmarks
            far = np.array([picture.shape[1] - 1.0, picture.shape[0] - 1.0])
            on_its_side = np.stack([points[:, 1], far[0] - points[:, 0]], axis=1)
            counts["bare, upright"][judgement(engine, picture, points)] += 1
            counts["bare, turned by 90"][judgement(engine, np.rot90(picture), on_its_side)] += 1
            counts["bare, turned by 180"][judgement(engine, picture[::-1, ::-1], far - points)] += 1
            for cover in COVERS:
                colours = {"": skin(picture, points)} if cover == "hand" else COLOURS
                for name, colour in colours.items():
                    drawn = covered(picture, points, cover, colour)
                    counts[f"{cover} {name}".strip()][judgement(engine, drawn, points)] += 1
    answers = ("right", "wrong", "not found")
    rows = [[name, *(str(count[answer]) for answer in answers)] for name, count in counts.items()]
    print_table(f"{n_pictures} pictures", ["face", *answers], rows)
    if arguments.json:
        facts = machine_facts()
        arguments.json.write_text(
            json.dumps({"facts": facts, "pictures": n_pictures, "counts": counts}, indent=2)
        )


if __name__ == "__main__":
    main()
