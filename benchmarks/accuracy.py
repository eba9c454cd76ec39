"""How accurate the tool is on the synthetic set, whose truth is known. Nothing here is accuracy on people.

    python benchmarks/accuracy.py [--clips N] [--level-clips N] [--size WxH] [--fps N] [--seed N] [--workers N]
                                  [--folder DIR] [--json FILE] [--no-track] [--siam ...]

Renders clips (`--clips`, half of them posed and half spontaneous, two of each person; then `--level-clips` of them
again for each other face size, noise and head motion, and at rest), runs `nemo prep` on all of them, and compares.
`--clips 80 --level-clips 18` are 206 clips. --folder keeps clips and faces, and goes on where a run was broken off.

- landmark error: distance from the truth, per cent of the outer-eye distance. "followed": without each point's mean
  offset over the clip, which is a matter of definition (the truth is one portrait's own 68 points, moved).
- jitter: second difference in time on a face at rest that does not move, with new noise in every frame.
- lag: the shift in time at which the tracked amplitude (nemo_pipeline.phases) fits the true one best, around the onset
  and around the offset. A lag in time is the same at both; what has opposite signs is the curve's shape.
- outliers: single points of the raw track moved by 5 to 30 % of the outer-eye distance in single frames, one frame in
  twenty; removed where less than a tenth of the move is left after smoothing.
- gray level: the tool's face against the same face rendered directly in the mean shape, through no frame's pixels
  (nemo_pipeline.synth.shade), without noise and compression. "true landmarks": the decoded frame warped by them, so
  without tracking; "and no camera": the same without noise and compression, so what the warp alone costs. "followed":
  the tool's face against the decoded frame warped by the true landmarks moved by each point's mean offset. By level:
  against the frame without noise and compression, warped by its true landmarks.
- phases: boundaries found by nemo_pipeline.phases minus the true ones, from the track and from the true landmarks. The
  true course leaves and reaches its ends without a jerk, so nobody can see its very first frame: "5 %" compares with
  the frames at which it is a twentieth of its height away from them.

--siam: benchmarks/ablation.py, whose options follow the same names.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from ablation import add_options, run_ablation
from accuracy_tables import show
from common import machine_facts
from levels import LEVELS, Level, make_level, read_level, render_directly, same_settings
from measures import (
    REGIONS,
    edges,
    errors,
    eye_distance,
    found_edges,
    gray_errors,
    jitter,
    lag,
    mean_offset,
    near_edges,
    spikes_left,
)

from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.run import PrepInputs, RunOptions, prep
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.stages.decode import VideoReader
from nemo_pipeline.stages.warp import FaceWarp
from nemo_pipeline.store import FaceDataset, FaceVideo
from nemo_pipeline.synth.plan import SynthConfig
from nemo_pipeline.synth.truth import ClipTruth


def measure_clip(
    video: FaceVideo | None,
    truth: ClipTruth,
    reference: np.ndarray,
    path: Path,
    level: Level,
    seed: int,
    direct: np.ndarray | None = None,
) -> dict[str, Any]:
    """Everything about one clip.

    Args:
        video: its row, None where the tool has none.
        truth: what is true of it.
        reference: (T,114,114) its faces without noise and compression, by the true landmarks.
        path: the clip.
        level: how it was filmed.
        seed: of the outliers that are put in.
        direct: (T,114,114) its faces rendered directly in the mean shape; for the base set.
    """
    length = len(truth.landmarks)
    measures: dict[str, Any] = {
        "level": level.name, "video": truth.video, "age": truth.values["age"], "frames": length,
        "eye_px": float(eye_distance(truth.landmarks).mean()),
        "status": video.status if video else "missing", "kept": len(video) if video else 0,
    }  # fmt: skip
    if video is None or len(video) < 12:
        return measures
    at = video.frame_index
    raw, smooth = video.landmarks_raw.astype(np.float64), video.landmarks.astype(np.float64)
    true = truth.landmarks[at].astype(np.float64)
    measures["interpolated"] = int((~video.tracked).sum())
    measures["timestamps"] = float(np.abs(video.timestamps - at / truth.values["fps"]).max())
    for name, points in (("raw", raw), ("smooth", smooth)):
        distance, rest = errors(points, true)
        measures[name] = {region: float(distance[:, part].mean()) for region, part in REGIONS.items()}
        measures[f"{name} followed"] = {
            region: float(rest[:, part].mean()) for region, part in REGIONS.items()
        }
        if level.still:
            trembling = jitter(points, true)[10:-5]
            measures[f"{name} jitter"] = {r: float(trembling[:, part].mean()) for r, part in REGIONS.items()}
        else:
            for phase, row in (("onset", 0), ("offset", 2)):
                edge = (int(truth.phases[row, 0]), int(truth.phases[row, 1]))
                measures[f"{name} lag of the {phase}"] = lag(points, true, edge)
    faces = video.frames
    measures["gray"] = float(gray_errors(faces, reference[at]).mean())
    if direct is not None:
        measures["spikes left"] = spikes_left(raw, true, np.random.default_rng(seed))
        with VideoReader(path) as reader:
            grays = [frame.gray() for frame in reader]
        warp = FaceWarp()
        seen = np.stack([warp(grays[i], points) for i, points in zip(at, true, strict=True)])
        measures["gray direct"] = float(gray_errors(faces, direct[at]).mean())
        measures["gray without tracking"] = float(gray_errors(seen, direct[at]).mean())
        measures["gray without camera"] = float(gray_errors(reference[at], direct[at]).mean())
        shifted = true + mean_offset(smooth, true)
        shown = np.stack([warp(grays[i], points) for i, points in zip(at, shifted, strict=True)])
        measures["gray followed"] = float(gray_errors(faces, shown).mean())
    if not level.still:
        start = int(at[0])
        exact, near = truth.phases - start, near_edges(truth.intensity, truth.phases) - start
        for name, points in (("track", smooth), ("truth", true)):
            found = found_edges(points, video.timestamps)
            measures[f"phases of {name}"] = {"exact": found - edges(exact), "5 %": found - near}
    return measures


def run_tool(
    root: Path, base: SynthConfig, counts: dict[str, int], workers: int
) -> tuple[list[dict[str, Any]], float]:
    """Render, prepare, measure. Answers the measures of every clip and the seconds that `prep` took."""
    for level in LEVELS:
        begun = time.monotonic()
        make_level(root, base, level, counts[level.name], workers)
        print(
            f"{level.name}: {counts[level.name]} clips in {time.monotonic() - begun:.0f} s", file=sys.stderr
        )
    output = root / "faces.h5"
    found = discover([str(root / level.name) for level in LEVELS])
    begun = time.monotonic()
    prep(PrepInputs(found.videos), output, PrepConfig(mesh=False), RunOptions(workers=workers))
    seconds = time.monotonic() - begun
    data = FaceDataset(output)
    paths = {str(video.path): video.file for video in found.videos}
    rows = {video.file: video for video in data.values()}
    measures = []
    for level in LEVELS:
        direct = (
            render_directly(root, base, counts["base"]) if level.name == "base" else itertools.repeat(None)
        )
        clips = read_level(root, base, level, counts[level.name])
        for seed, ((truth, reference), face) in enumerate(zip(clips, direct, strict=False)):
            path = root / level.name / truth.video
            measures.append(
                measure_clip(rows.get(paths[str(path)]), truth, reference, path, level, seed, face)
            )
    return measures, seconds


def plain(value: Any) -> Any:
    """JSON's types; NaN as null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=12, help="clips of the base set")
    parser.add_argument(
        "--level-clips", type=int, help="clips of each other level; by default a quarter, at least 2"
    )
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--fps", type=float, default=50.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument(
        "--folder", type=Path, help="keep clips and faces here; go on where a run was broken off"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--no-track", action="store_true", help="leave the tool out (with --siam)")
    add_options(parser)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine_facts(), "synthetic": True}
    if not options.no_track:
        width, height = (int(part) for part in options.size.split("x"))
        base = SynthConfig(
            subjects=max(options.clips // 2, 1),
            clips=2,
            seed=options.seed,
            width=width,
            height=height,
            fps=options.fps,
        )
        count = base.subjects * base.clips
        few = min(options.level_clips or max(options.clips // 4, 2), count)
        counts = {level.name: count if level.name == "base" else few for level in LEVELS}
        with tempfile.TemporaryDirectory(prefix="nemo-accuracy-") as scratch:
            root = (options.folder or Path(scratch)).absolute()
            if not same_settings(root, {"config": base.to_dict(), "counts": counts}):
                parser.error(f"{root} was begun with other settings; name another folder.")
            measures, seconds = run_tool(root, base, counts, options.workers)
        result |= {"settings": base.to_dict(), "counts": counts, "prep_seconds": seconds}
        result |= {"accuracy": show(measures, base), "clips": measures}
    if options.siam:
        result["siam"] = run_ablation(options)
    if options.json:
        options.json.write_text(json.dumps(plain(result), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
