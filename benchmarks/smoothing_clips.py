"""The part of benchmarks/smoothing.py about clips of people, whose truth nobody knows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from measures import Array, eye_distance

from nemo_pipeline import FaceTrack, track_video
from nemo_pipeline.geometry import points_off
from nemo_pipeline.stages import headframe
from nemo_pipeline.view.quality_flags import MOST_JUMP, reasons

#: What the flag should find: points, how far they are moved (eye distances), over how many frames.
WRONG = {
    "mouth": (range(48, 68), 0.2, 1),
    "face": (range(68), 0.2, 1),
    "half of the face, 3 frames": (range(34), 0.3, 3),
    "face, 3 frames": (range(68), 0.3, 3),
}


def flagged_errors(raw: Array) -> list[str]:
    """Those errors, put into 2 % of the frames, of which the report's limit would say "points jump"."""
    rng, found = np.random.default_rng(0), []
    chosen = rng.choice(np.arange(4, len(raw) - 6), max(1, len(raw) // 50), replace=False)
    for name, (points, far, length) in WRONG.items():
        spoiled = raw.copy()
        for frame in chosen:
            at = np.arange(frame, frame + length)
            spoiled[np.ix_(at, points)] = raw[np.ix_(at, points)] + far * eye_distance(raw)[frame] * np.array(
                [0.6, 0.8]
            )
        if np.quantile(headframe.jumps(spoiled), 0.99, method="higher") > MOST_JUMP:
            found.append(name)
    return found


def measure_clips(paths: list[Path], folder: Path) -> dict[str, dict[str, Any]]:
    """Clip -> numbers. Of each clip the longest segment counts."""
    found = {}
    for path in paths:
        kept = folder / f"{path.name}.real.npz"
        if not kept.exists():
            track = track_video(path)
            names = ("landmarks_raw", "timestamps", "tracked", "pose", "face_presence")
            np.savez(kept, fps=track.info.fps, **{name: getattr(track, name) for name in names})
            print(path.name, file=sys.stderr)
        with np.load(kept) as stored:
            track = {name: stored[name] for name in stored.files}
        seen = np.isfinite(track["landmarks_raw"][:, 0, 0]).astype(int)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], seen, [0]]))).reshape(-1, 2)
        if not len(edges) or np.ptp(edges, axis=1).max() < 7:
            continue
        start, stop = edges[np.argmax(np.ptp(edges, axis=1))]
        fields = {name: values[start:stop] for name, values in track.items() if name != "fps"}
        raw = fields["landmarks_raw"]
        fields |= {
            "eye_distance_px": eye_distance(raw),
            "n_faces": np.ones(len(raw), int),
            "sharpness": np.ones(len(raw)),
        }
        row: dict[str, Any] = {"frames": len(raw), "fps": float(track["fps"])}
        row |= {"eyes": float(np.median(fields["eye_distance_px"])), "jump": 100 * headframe.jumps(raw).max()}
        row["found"] = flagged_errors(raw)
        for way in ("4253h", "head"):
            smooth = headframe.METHODS[way][0](raw)
            off = 100 * points_off(smooth, raw)
            flags = reasons(FaceTrack(fields | {"landmarks": smooth}, n_decoded=len(raw)), 60.0)
            row[way] = {
                "median": float(np.median(off)), "p95": float(np.quantile(off, 0.95)), "most": float(off.max()),
                "over 5 %": 100 * float((off > 5).mean()),
                "flags": [r.code for r in flags if r.code in ("jumps", "moved")],
            }  # fmt: skip
        found[path.name] = row
    return found
