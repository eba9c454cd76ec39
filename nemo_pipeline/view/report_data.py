"""What the report of a prepared file shows of each video, as compact JSON values: reading and reducing, no drawing."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nemo_pipeline.phases import Measure, amplitude, find_phases
from nemo_pipeline.status import Status
from nemo_pipeline.store.facetrack import FaceTrack
from nemo_pipeline.store.reader import FaceDataset, FaceVideo
from nemo_pipeline.store.schema import BLENDSHAPES
from nemo_pipeline.store.text import escape_controls, pluralize
from nemo_pipeline.view.quality_flags import Reason, middle, reasons

#: Points of a curve at most: twice the pixels of a phone, and under 2 kB.
MOST_POINTS = 400
#: Faces in a strip, and their side: 8 x 96 pixels are as wide as the details on a large screen.
STRIP_FACES, STRIP_SIDE = 8, 96
_QUALITY = 62
#: What is read of a video.
TRACK_FIELDS = (
    "landmarks", "landmarks_raw", "tracked", "pose", "eye_distance_px", "face_presence", "timestamps", "n_faces",
    "sharpness", "frame_index",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """One row of the table: names are made printable, numbers are NaN where they are unknown."""

    id: str
    file: str
    status: Status
    usable: bool
    message: str
    subject: str
    age: float
    gender: str
    expression: str
    condition: str
    decoded: int
    kept: int
    interpolated: int
    seconds: float
    rate: float
    eyes: float
    yaw: float
    sharpness: float
    face_presence: float
    reasons: tuple[Reason, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Reported:
    """A video's row, and what is shown when it is opened (JSON types)."""

    summary: Summary
    details: dict[str, Any]


def read_report(data: FaceDataset, *, faces: bool = True) -> Iterator[Reported]:
    """Every video of a prepared file, in its order. Memory holds one video at a time.

    A video's sharpness is compared with the median over the file, so the sharpness of all is read first.
    """
    eyes, usual = measures_of(data)
    for video in map(data.__getitem__, data.rows):
        yield _usable(video, eyes, usual, faces) if video.length else _failed(video)


def measures_of(data: FaceDataset) -> tuple[float, float]:
    """Distance of the outer eye corners in the faces of a file, pixels; and the median of its videos' sharpness: what
    its videos are judged by."""
    eyes = float(np.hypot(*(data.landmarks_in_crop[45] - data.landmarks_in_crop[36])))
    return eyes, middle(np.array([middle(data.read(row, "sharpness")) for row in data.usable]))


def _failed(video: FaceVideo) -> Reported:
    nan = math.nan
    return Reported(_summary(video, nan, nan, nan, nan, nan, ()), {"size": video.picture})


def _usable(video: FaceVideo, eyes_in_crop: float, usual_sharpness: float, faces: bool) -> Reported:
    track = video.track(*TRACK_FIELDS)
    found = reasons(track, eyes_in_crop, usual_sharpness)
    times = track.timestamps - track.timestamps[0]
    details: dict[str, Any] = {
        "size": video.picture,
        "n": video.length,
        "why": [[reason.code, reason.text] for reason in found],
        "t": rounded(_thinned(times), 3),
        "frames": frame_bar(track.frame_index, np.where(track.tracked, 1, 2), video.n_decoded),
        "gaps": [[round(float(times[a]), 3), round(float(times[b - 1]), 3)] for a, b in runs(~track.tracked)],
        "pose": [rounded(_thinned(track.pose[:, k]), 1) for k in range(3)],
    }
    details |= _lips(video, track, times)
    if video.blendshapes is not None:
        smile = video.blendshapes[:, [BLENDSHAPES.index(f"mouthSmile{side}") for side in ("Left", "Right")]]
        details["smile"] = [rounded(_thinned(smile[:, k]), 3) for k in range(2)]
    if faces:
        details["strip"], details["shown"] = _strip(video, times, track.tracked)
    seconds = float(times[-1]) + (float(np.median(np.diff(times))) if len(times) > 1 else 0.0)
    presence = middle(track.face_presence[track.tracked])
    yaw = _largest(track)
    return Reported(
        _summary(
            video,
            seconds,
            middle(track.eye_distance_px),
            yaw,
            middle(track.sharpness),
            presence,
            tuple(found),
        ),
        details,
    )


def _largest(track: FaceTrack) -> float:
    """The yaw that 5 % of the frames exceed, degrees, with its sign left away."""
    turned = track.pose[:, 0].astype(np.float64)
    yaw = np.abs(turned[np.isfinite(turned)])
    return float(np.quantile(yaw, 0.95)) if len(yaw) else math.nan


def _summary(
    video: FaceVideo, seconds: float, eyes: float, yaw: float, sharpness: float, presence: float,
    found: tuple[Reason, ...],
) -> Summary:  # fmt: skip
    return Summary(
        id=escape_controls(video.id),
        file=escape_controls(video.file),
        status=video.status,
        usable=video.status.usable and video.length > 0,
        message=escape_controls(video.message),
        subject=escape_controls(video.subject),
        age=video.age,
        gender=escape_controls(video.gender),
        expression=escape_controls(video.expression),
        condition=escape_controls(video.condition),
        decoded=video.n_decoded,
        kept=video.length,
        interpolated=video.n_interpolated,
        seconds=seconds,
        rate=video.fps,
        eyes=eyes,
        yaw=yaw,
        sharpness=sharpness,
        face_presence=presence,
        reasons=found,
    )


def _lips(video: FaceVideo, track: FaceTrack, times: NDArray[np.float64]) -> dict[str, Any]:
    """The lip corners' curve as tracked and as smoothed, and the phases in it; nothing where there are no points."""
    measure: Measure = "disgust" if video.expression.strip().lower() == "disgust" else "smile"
    points, raw = track.landmarks, track.landmarks_raw
    try:
        found = find_phases(points, track.timestamps, measure)
        tracked = amplitude(raw, measure)
    except ValueError:  # no landmarks, or no face: then there is no curve to show
        return {}
    smooth = found.amplitude
    phases, said = [], []
    for name, (start, stop) in (("onset", found.onset), ("apex", found.apex), ("offset", found.offset)):
        if stop > start:
            span = [round(float(times[start]), 3), round(float(times[min(stop, len(times) - 1)]), 3)]
            phases.append([name, *span])
            said.append(f"{name} {span[0]:.2f} to {span[1]:.2f} s")
    text = f"between {smooth.min():.2f} and {smooth.max():.2f} mouth widths; " + (
        ", ".join(said) or "no phases"
    )
    return {
        "measure": measure,
        "raw": rounded(_thinned(tracked), 4),
        "smooth": rounded(_thinned(smooth), 4),
        "phases": phases,
        "said": text,
    }


def frame_bar(index: NDArray[np.int32], kept: NDArray[np.integer], n_decoded: int) -> list[list[int]]:
    """Stretches of the file's frames, [state, how many]: 0 not kept; of those kept 1 tracked, 2 interpolated, 3 left
    out by a mark."""
    states = np.zeros(max(n_decoded, int(index[-1]) + 1), np.uint8)
    states[index] = kept
    cuts = np.flatnonzero(np.diff(states)) + 1
    starts = np.concatenate([[0], cuts])
    lengths = np.diff(np.concatenate([starts, [len(states)]]))
    return [[int(states[a]), int(n)] for a, n in zip(starts, lengths, strict=True)]


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open stretches in which `mask` is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _thinned(values: NDArray[Any]) -> NDArray[np.float64]:
    """At most `MOST_POINTS` of the values, evenly spaced, first and last among them."""
    if len(values) <= MOST_POINTS:
        return np.asarray(values, np.float64)
    chosen = np.linspace(0, len(values) - 1, MOST_POINTS).round().astype(int)
    return np.asarray(values[chosen], np.float64)


def rounded(values: NDArray[np.float64], digits: int) -> list[float | None]:
    """Rounded for JSON; None where nothing is known."""
    return [round(v, digits) if math.isfinite(v) else None for v in values.tolist()]


def _strip(
    video: FaceVideo, times: NDArray[np.float64], tracked: NDArray[np.bool_]
) -> tuple[str, list[list[Any]]]:
    """Faces evenly spaced in time side by side, as a data URI; and for each its time and whether it was seen."""
    chosen = np.unique(np.linspace(0, video.length - 1, min(STRIP_FACES, video.length)).round().astype(int))
    side = min(video.dataset.size, STRIP_SIDE)
    image = Image.new("L", (side * len(chosen), side))
    for i, k in enumerate(chosen):
        face = Image.fromarray(video.read("frames", int(k), int(k) + 1)[0])
        image.paste(face.resize((side, side), Image.Resampling.BOX, reducing_gap=2.0), (i * side, 0))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return uri, [[round(float(times[k]), 2), bool(tracked[k])] for k in chosen]


def headline(data: FaceDataset) -> str:
    """One line: how much there is."""
    usable = data.usable
    rate = data.videos["fps"]
    seconds = sum(float(data.videos["length"][i]) / float(rate[i]) for i in usable if rate[i] > 0)
    long = f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"
    if seconds < 120:
        long = f"{seconds:.0f} seconds"
    frames = int(data.videos["length"].sum())
    return (
        f"{len(usable)} of {pluralize(len(data.rows), 'video')} usable, {frames:,} faces of {data.size} × {data.size} "
        f"pixels, {long}"
    )
