"""What smoothing over time takes away and what it keeps: the table that decided for `--smooth head`.

    python benchmarks/smoothing.py [CLIP...] [--subjects N] [--size WxH] [--folder DIR] [--json FILE] [--picture FILE]

Renders clips of synthetic people (their truth is known; nothing here is accuracy on people), tracks them, and smooths
the same raw tracks in every way; then the same for the CLIPs named, whose truth nobody knows. Unit everywhere: per cent
of the outer-eye distance. --folder keeps clips and tracks; a second run only measures.

- sets: a face at rest that does not move ("still"; "small": in 176 x 144 pixels); --motion 0, 1 and 3; "shaken": frames
  moved by a known path, by up to 35 % of the eye distance at 0.8 to 2.5 Hz (a camera in the hand, a lively speaker), at
  25 and 15 frames a second.
- ways: `none`, `4253h`, `head` as of `nemo prep --smooth`; and what `head` consists of, one part left out each time:
  "limit alone" (no head frame: the rule for noise on raw coordinates), "shape alone" (4253H on the shape, the head's
  place as tracked), "no limit" (4253H on both, whatever it moves), "least squares" (no robust fit of the head's place);
  and with other constants than 1 % and three frames.
- jitter: second difference in time on the still faces, inner 51 points.
- error: distance from the truth, inner 51, without each point's mean offset over the clip (a matter of definition).
- lag: frames by which the mouth's width follows the true one around the onset, --motion 0, 1, 3.
- off: mean distance of a frame's smoothed points from its tracked ones; largest frame.
- smile, blink: height and steepest step kept of a smile (0.25 s up, 0.1 s held, 0.35 s down), a blink (0.08, 0.05,
  0.14) and a smile of five frames (triangular), with the tracker's own noise, at eight phases against the clock.
- single frames: one point, the mouth, or the whole face moved by 5 to 30 % in one frame of fifteen; removed where less
  than a tenth is left, against the same track without it.
- CLIPs: share of frames in which the points are more than 5 % off, and the largest; "jump" is the largest jump of the
  tracker (nemo_pipeline.stages.headframe.jumps); flags are those of the report, for files made in each way. Below, in
  how many of them "points jump" is said of errors put into 2 % of the frames.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import cv2
import numpy as np
from common import machine_facts, print_table
from measures import REGIONS, Array, errors, eye_distance, jitter, lag
from smoothing_clips import WRONG, measure_clips

from nemo_pipeline import track_video
from nemo_pipeline.geometry import points_off
from nemo_pipeline.stages import headframe
from nemo_pipeline.stages.decode import VideoReader
from nemo_pipeline.stages.smooth import smooth_4253h_twice
from nemo_pipeline.stages.warp import FaceWarp
from nemo_pipeline.synth.clips import clip_truth
from nemo_pipeline.synth.encode import write_mp4
from nemo_pipeline.synth.plan import SynthConfig, list_clips
from nemo_pipeline.synth.render import ClipRenderer, Subject
from nemo_pipeline.synth.take import still_take

INNER = REGIONS["inner 51"]
#: Set -> head motion, frames a second, how far frames are shaken (eye distances), whether the face is at rest.
SETS: dict[str, tuple[float, float, float, bool]] = {
    "still": (0, 25, 0, True),
    "still, small": (0, 25, 0, True),
    "motion 0": (0, 25, 0, False),
    "motion 1": (1, 25, 0, False),
    "motion 3": (3, 25, 0, False),
    "shaken, 25/s": (1, 25, 0.35, False),
    "shaken, 15/s": (1, 15, 0.35, False),
}
RATES = (15, 25, 30, 50)


def shape_alone(points: Array) -> Array:
    """4253H on the shape in the head's own frame; the head's place as tracked."""
    head = headframe._fit(points)
    return head.to_picture(smooth_4253h_twice(head.to_own(points)))


def no_limit(points: Array) -> Array:
    """4253H on the shape and on the head's place."""
    head = headframe._fit(points)
    shape = smooth_4253h_twice(head.to_own(points))
    return headframe._Head.from_ends(smooth_4253h_twice(head.ends())).to_picture(shape)


def limit_alone(points: Array) -> Array:
    """The rule for noise and single frames, on raw coordinates."""
    return headframe._steady(points, headframe._fit(points).size())


def altered(**constants: float) -> Callable[[Array], Array]:
    """`head` with other constants of its module."""

    def smooth(points: Array) -> Array:
        kept = {name: getattr(headframe, name) for name in constants}
        try:
            vars(headframe).update(constants)
            return headframe.smooth_in_head_frame(points)
        finally:
            vars(headframe).update(kept)

    return smooth


WAYS: dict[str, Callable[[Array], Array]] = {
    "none": headframe.METHODS["none"][0],
    "4253h": headframe.METHODS["4253h"][0],
    "limit alone": limit_alone,
    "shape alone": shape_alone,
    "no limit": no_limit,
    "least squares": altered(_ROUNDS=0),
    "limit 0.5 %": altered(LIMIT=0.005),
    "limit 2 %": altered(LIMIT=0.02),
    "reach 0": altered(REACH=0),
    "head": headframe.METHODS["head"][0],
}


# ---- rendered clips


def shaken_by(length: int, fps: float, seed: int) -> Array:
    """(T, 2) a path in eye distances: two sines in each direction."""
    rng = np.random.default_rng(seed)
    at, rate, phase = np.arange(length) / fps, rng.uniform(0.8, 2.5, 4), rng.uniform(0, 2 * np.pi, 4)
    waves = np.sin(2 * np.pi * rate * at[:, None] + phase) / 2
    return np.stack([waves[:, 0] + waves[:, 1], 0.7 * (waves[:, 2] + waves[:, 3])], axis=-1)


def rendered(folder: Path, name: str, base: SynthConfig) -> Iterator[dict[str, Any]]:
    """Raw track, truth and phases of each clip of a set; rendered and tracked where they are not in `folder`."""
    motion, fps, shake, still = SETS[name]
    config = dataclasses.replace(base, motion=motion, fps=fps)
    if name == "still, small":
        config = dataclasses.replace(config, width=176, height=144)
    for k, clip in enumerate(list_clips(config)):
        path = folder / f"{name.replace(', ', '-').replace('/', '').replace(' ', '-')}-{clip.name}.mp4"
        if not path.with_suffix(".npz").exists():
            renderer = ClipRenderer(
                Subject(config, clip.person), clip, still_take(config, clip) if still else None
            )
            truth = clip_truth(renderer)
            true = truth.landmarks.astype(np.float64)
            path_px = shake * eye_distance(true).mean() * shaken_by(len(true), fps, k)
            write_mp4(path, moved(renderer.frames(), path_px), renderer.noise(), fps, config.quality)
            np.savez(
                path.with_suffix(".npz"), raw=track_video(path).landmarks_raw, true=true + path_px[:, None],
                phases=truth.phases, intensity=truth.intensity,
            )  # fmt: skip
            print(path.name, file=sys.stderr)
        with np.load(path.with_suffix(".npz")) as stored:
            if np.isfinite(stored["raw"]).all():
                yield {"path": path, **{key: stored[key] for key in stored.files}}


def moved(frames: Iterator[np.ndarray], path: Array) -> Iterator[np.ndarray]:
    """Each picture, shifted."""
    for picture, (x, y) in zip(frames, path, strict=True):
        shift = np.array([[1, 0, x], [0, 1, y]], np.float32)
        size = (picture.shape[1], picture.shape[0])
        yield cv2.warpAffine(picture, shift, size, borderMode=cv2.BORDER_REFLECT) if path.any() else picture


def measure_sets(sets: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Way -> measure -> number."""
    found: dict[str, dict[str, float]] = {}
    for way, smooth in WAYS.items():
        row: dict[str, float] = {}
        lags = []
        for name, clips in sets.items():
            smoothed = [smooth(clip["raw"]) for clip in clips]
            pairs = list(zip(smoothed, [clip["true"] for clip in clips], strict=True))
            if name.startswith("still"):
                row[name.replace("still", "jitter")] = float(
                    np.mean([jitter(a, b)[8:-8, INNER].mean() for a, b in pairs])
                )
            row[f"error, {name}"] = float(np.mean([errors(a, b)[1][:, INNER].mean() for a, b in pairs]))
            row[f"off, {name}"] = 100 * max(
                points_off(a, clip["raw"]).max() for a, clip in zip(smoothed, clips, strict=True)
            )
            if name.startswith("motion"):
                lags += [
                    lag(a, clip["true"], tuple(clip["phases"][0]))
                    for a, clip in zip(smoothed, clips, strict=True)
                ]
        found[way] = row | {"lag": float(np.median(lags))}
    return found


# ---- a fast smile, a blink


def bump(at: Array, up: float, held: float, down: float, start: float = 1.0) -> Array:
    """(T,) 0 to 1 and back, without a jerk at its ends."""
    rise, fall = np.clip((at - start) / up, 0, 1), np.clip((at - start - up - held) / down, 0, 1)
    return (np.cos(np.pi * fall) - np.cos(np.pi * rise)) / 2


def measure_expressions(sets: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, list[float]]]:
    """Way -> expression and rate -> per cent kept of its height, and of its steepest step upwards."""
    clip = sets["motion 0"][0]
    true = headframe._fit(clip["true"]).to_own(clip["true"])
    order = np.argsort(clip["intensity"])
    rest, smiling = true[order[:5]].mean(axis=0), true[order[-5:]].mean(axis=0)
    closed = rest.copy()
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        closed[[upper, lower]] = 0.15 * rest[upper] + 0.85 * rest[lower]
    still = sets["still"][0]
    noise = (still["raw"] - still["true"]) / eye_distance(still["true"])[:, None, None]
    noise = np.concatenate([noise - noise.mean(axis=0)] * 3)
    kinds = {
        "smile": (smiling, (54, 48), (0.25, 0.1, 0.35)),
        "blink": (closed, (37, 41), (0.08, 0.05, 0.14)),
        "smile of five frames": (smiling, (54, 48), None),
    }
    found: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    for kind, (other, (a, b), course) in kinds.items():
        for rate in RATES if course else (25,):
            for way, smooth in WAYS.items():
                kept = []
                for phase in np.arange(8) / 8:
                    at = (np.arange(round(2.6 * rate)) + phase) / rate
                    frame = np.arange(len(at))
                    share = bump(at, *course) if course else np.clip(1 - np.abs(frame - 30) / 3, 0, 1)
                    shapes = rest + share[:, None, None] * (other - rest)
                    start = int(8 * phase)
                    points = 300 + 100 * (shapes + noise[start : start + len(at)])
                    got, want = (
                        np.linalg.norm(p[:, a] - p[:, b], axis=1) for p in (smooth(points), 100 * shapes)
                    )
                    sign = np.sign(want[np.argmax(share)] - want[0])
                    height = (got[np.argmax(share)] - got[:8].mean()) / (want[np.argmax(share)] - want[0])
                    step = np.diff(sign * got).max() / np.diff(sign * want).max()
                    kept.append((height, step))
                label = f"{kind}, {rate}/s" if course else kind
                found[way][label] = [float(v) for v in 100 * np.mean(kept, axis=0)]
    return found


# ---- single frames


def measure_singles(sets: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Way -> what was moved, in which set -> per cent removed."""
    found: dict[str, dict[str, float]] = {way: {} for way in WAYS}
    for name in ("still", "motion 3", "shaken, 25/s"):
        for what, points_of in {
            "one point": lambda rng: rng.integers(0, 68, 1),
            "mouth": lambda rng: np.arange(48, 68),
            "whole face": lambda rng: np.arange(68),
        }.items():
            rng = np.random.default_rng(0)
            removed: dict[str, list[bool]] = {way: [] for way in WAYS}
            for clip in sets[name]:
                raw = clip["raw"]
                frames = np.arange(6, len(raw) - 6, 15)
                spoiled, moved_points = raw.copy(), [points_of(rng) for _ in frames]
                size, angle = rng.uniform(0.05, 0.3, len(frames)), rng.uniform(0, 2 * np.pi, len(frames))
                by = (size * eye_distance(raw)[frames])[:, None] * np.stack(
                    [np.cos(angle), np.sin(angle)], -1
                )
                for frame, points, vector in zip(frames, moved_points, by, strict=True):
                    spoiled[frame, points] += vector
                for way, smooth in WAYS.items():
                    left = smooth(spoiled) - smooth(raw)
                    for frame, points, vector in zip(frames, moved_points, by, strict=True):
                        rest = np.linalg.norm(left[frame, points].mean(axis=0)) / np.linalg.norm(vector)
                        removed[way].append(bool(rest < 0.1))
            for way in WAYS:
                found[way][f"{what}, {name}"] = 100 * float(np.mean(removed[way]))
    return found


# ---- what is shown


def show(result: dict[str, Any]) -> None:
    """Tables in Markdown."""
    sets, expressions, singles = result["sets"], result["expressions"], result["singles"]
    names = [name for name in SETS if "small" not in name]
    headings = ["", "jitter", "jitter, small", "lag", *(f"error, {name}" for name in names)]
    headings += ["off, motion 3", "off, shaken, 25/s"]
    digits = {"jitter": 3, "jitter, small": 3}
    rows = [[way, *(f"{sets[way][h]:.{digits.get(h, 2)}f}" for h in headings[1:])] for way in WAYS]
    print_table("Rendered truth, % of the eye distance (lag: frames)", headings, rows)
    kinds = list(expressions["none"])
    rows = [[way, *("{:.0f} / {:.0f}".format(*expressions[way][kind]) for kind in kinds)] for way in WAYS]
    print_table("Kept of height / of steepest step, %", ["", *kinds], rows)
    kinds = list(singles["none"])
    rows = [[way, *(f"{singles[way][kind]:.0f}" for kind in kinds)] for way in WAYS]
    print_table("Single frames removed, %", ["", *kinds], rows)
    rows = []
    for name, row in result["clips"].items():
        cells = [name, str(row["frames"]), f"{row['fps']:.3g}", f"{row['eyes']:.0f}"]
        for way in ("4253h", "head"):
            one = row[way]
            cells.append(
                f"{one['median']:.1f} / {one['p95']:.1f} / {one['most']:.1f} / {one['over 5 %']:.1f}"
            )
            cells.append(", ".join(one["flags"]))
        rows.append([*cells, f"{row['jump']:.1f}"])
    if rows:
        off = "off: median / 95 % / most / frames over 5 %"
        headings = [
            "clip",
            "frames",
            "fps",
            "eyes, px",
            f"4253h, {off}",
            "flag",
            f"head, {off}",
            "flag",
            "jump",
        ]
        print_table("Clips named, % of the eye distance", headings, rows)
        found = [name for row in result["clips"].values() for name in row["found"]]
        print(*(f"{name}: found in {found.count(name)} of {len(rows)}" for name in WRONG), sep="\n")


def draw(clips: list[dict[str, Any]], target: Path) -> None:
    """The same four frames of a shaken clip, warped from tracked points, by the literal form, and by the default."""
    off = [points_off(WAYS["4253h"](clip["raw"]), clip["raw"]) for clip in clips]
    clip = clips[int(np.argmax([values.max() for values in off]))]
    raw = clip["raw"]
    worst = int(np.argmax(points_off(WAYS["4253h"](raw), raw)))
    chosen = range(max(0, worst - 2), min(len(raw), worst + 3))
    warp, columns = FaceWarp(), []
    points = {way: WAYS[way](raw) for way in ("none", "4253h", "head")}
    with VideoReader(clip["path"]) as reader:
        for frame in reader:
            if frame.index in chosen:
                columns.append(np.vstack([warp(frame.gray(), points[way][frame.index]) for way in points]))
    sheet = cv2.resize(np.hstack(columns), None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
    sheet = cv2.copyMakeBorder(sheet, 0, 0, 120, 0, cv2.BORDER_CONSTANT, value=255)
    for k, way in enumerate(points):
        at = (10, round((k + 0.5) * 171))
        cv2.putText(sheet, way, at, cv2.FONT_HERSHEY_SIMPLEX, 0.7, 0, 1, cv2.LINE_AA)
    cv2.imwrite(str(target), sheet, [cv2.IMWRITE_JPEG_QUALITY, 88])


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "clips", nargs="*", type=Path, metavar="CLIP", help="videos of people, to measure only"
    )
    parser.add_argument("--subjects", type=int, default=4, help="synthetic people in each set, one clip each")
    parser.add_argument("--size", default="640x480")
    parser.add_argument(
        "--folder", type=Path, help="keep clips and tracks here, and use those that are there"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--picture", type=Path, help="draw the same frames in three ways")
    options = parser.parse_args()
    width, height = (int(part) for part in options.size.split("x"))
    base = SynthConfig(subjects=options.subjects, clips=1, width=width, height=height, seconds=(3.0, 3.6))
    with tempfile.TemporaryDirectory(prefix="nemo-smoothing-") as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        sets = {name: list(rendered(folder, name, base)) for name in SETS}
        result = {
            "machine": machine_facts(),
            "settings": base.to_dict(),
            "sets": measure_sets(sets),
            "expressions": measure_expressions(sets),
            "singles": measure_singles(sets),
            "clips": measure_clips(options.clips, folder),
        }
        show(result)
        if options.picture:
            draw(sets["shaken, 15/s"], options.picture)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
