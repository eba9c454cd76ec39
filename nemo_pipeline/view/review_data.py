"""What the page of `nemo review` shows of a prepared file, as JSON types: a line per video, and a video's curves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.phases import Measure, amplitude, find_phases
from nemo_pipeline.store.reader import FaceDataset, FaceVideo
from nemo_pipeline.store.text import escape_controls
from nemo_pipeline.view.quality_flags import reasons
from nemo_pipeline.view.report_data import TRACK_FIELDS, rounded


def video_lines(data: FaceDataset) -> list[dict[str, Any]]:
    """The videos that have frames: `row`, `id` (as marks name it), `name` (printable), `n` frames and `about`."""
    lines = []
    for row in data.usable:
        video = data[row]
        about = [
            f"subject {video.subject}" if video.subject else "",
            f"{video.age:g} years" if math.isfinite(video.age) else "",
            video.condition,
            video.expression,
            str(video.status) if video.status != "ok" else "",
        ]
        lines.append(
            {
                "row": row,
                "id": video.id,
                "names": sorted({video.video_id, video.file} - {"", video.id}),
                "name": escape_controls(video.id),
                "n": len(video),
                "about": escape_controls(" · ".join(filter(None, about))),
            }
        )
    return lines


def video_curves(data: FaceDataset, row: int, measures: tuple[float, float]) -> dict[str, Any]:
    """A video: per frame its `time` (seconds from the first), `frame` (number in the source), `tracked`, `pose`
    (yaw, pitch, roll; degrees), the lip corners' curve as `smooth` and `raw` (mouth widths) with its `phases`
    ([name, first, last frame here]); `why` it is worth a look, by the `measures_of` the file."""
    video = data[row]
    track = video.track(*TRACK_FIELDS)
    times = track.timestamps - track.timestamps[0]
    return {
        "file": escape_controls(video.file),
        "picture": video.picture,
        "width": video.width,
        "height": video.height,
        "time": rounded(times, 3),
        "frame": track.frame_index.tolist(),
        "tracked": track.tracked.astype(int).tolist(),
        "pose": [rounded(track.pose[:, k], 1) for k in range(3)],
        "why": [reason.text for reason in reasons(track, *measures)],
        **_lips(video, track.landmarks, track.landmarks_raw, track.timestamps),
    }


def _lips(
    video: FaceVideo, points: NDArray[Any], raw: NDArray[Any], times: NDArray[np.float64]
) -> dict[str, Any]:
    """The curve and its phases; nothing where there are no points."""
    measure: Measure = "disgust" if video.expression.strip().lower() == "disgust" else "smile"
    try:
        found = find_phases(points, times, measure)
        tracked = amplitude(raw, measure)
    except ValueError:
        return {}
    parts = (("onset", found.onset), ("apex", found.apex), ("offset", found.offset))
    return {
        "measure": measure,
        "smooth": rounded(found.amplitude, 4),
        "raw": rounded(tracked, 4),
        "phases": [[name, int(a), int(b) - 1] for name, (a, b) in parts if b > a],
    }


def points_bytes(data: FaceDataset, row: int) -> bytes:
    """(T, 68, 2) float32, little endian: the smoothed points, source pixels; NaN where there are none."""
    return np.ascontiguousarray(data.read(row, "landmarks"), "<f4").tobytes()


def frames_bytes(data: FaceDataset, row: int, start: int, stop: int) -> bytes:
    """(n, S, S) uint8: faces start to stop (half-open)."""
    return np.ascontiguousarray(data.read(row, "frames", start, stop)).tobytes()
