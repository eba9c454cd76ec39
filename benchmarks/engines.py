"""Which engine, mode and region: jitter on a still face, lag on a fast onset, error on pictures, CPU a frame.

    python benchmarks/engines.py [FOLDER] [--kinds FILE] [--stills N] [--smiles N] [--json FILE]

- jitter: a still picture moved by a known sub-pixel sway (shift, turn, size) with new sensor noise in every frame;
  mean second difference of the points in the picture's own frame, in percent of the outer-eye distance; "smoothed"
  is the same after the pipeline's own smoothing (4253H, twice).
- lag: rendered smiles (nemo_pipeline.synth, 50 frames/s, posed, fast onset) whose mouth width is known in every
  frame; the shift in time at which the tracked width agrees best with the true one, around the onset.
- error: the 300-W convention, as in benchmarks/landmarks.py, on the frontal pictures of FOLDER (with --kinds as
  there). Each engine looks three times, the last two in the region of its own points.
- CPU: process time a frame in ms on the still clips (1280 x 720), from the decoded planes to the mesh, pinned to
  one core; the fastest tenth, since other work on the machine can only add (the median is in the JSON).

Rows: the direct engine and MediaPipe's Face Landmarker (IMAGE) on regions of their own points, by the region's size
(times the box of the points) and whether it is turned upright; MediaPipe on whole frames as it is usually used
(VIDEO with its filter over time, and IMAGE). Without FOLDER there is no error column, and the still is one picture
(skimage.data.astronaut()); with it, the largest faces of FOLDER are used too.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import cv2
import numpy as np
from common import machine_facts, print_table
from landmarks import FRONTAL_KINDS, annotated, read_kinds
from numpy.typing import NDArray

from nemo_pipeline import bundle, ibug68
from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.stages.landmarks import REGION_SCALE, Engine, find_mesh
from nemo_pipeline.stages.smooth import smooth_4253h_twice

Points = NDArray[np.float64]
SIZE = (1280, 720)
STILL_EYES = 100.0  # outer-eye distance in the still clips, pixels
FRAMES = 75


class Looker(Protocol):
    """One way to follow a face from frame to frame."""

    label: str

    def start(self, where: Points | None) -> None:
        """Forget the last clip; `where` (n, 2) are points of the face in the first frame."""
        ...

    def look(self, frame: Frame) -> Points | None:
        """(478, 2) mesh in the next frame's pixels."""
        ...


class OwnRegion:
    """An engine that is shown the region of the points it saw last."""

    def __init__(self, engine: Engine, scale: float, upright: bool) -> None:
        self._engine, self._scale, self._upright = engine, scale, upright
        turned = "upright" if upright else "as it lies"
        self.label = f"{engine.name}, own region x {scale:g}, {turned}"
        self._region: Region | None = None

    def start(self, where: Points | None) -> None:
        """The first region: the box of `where`, a little larger (the 68 points leave the forehead out)."""
        assert where is not None
        low, high = where.min(axis=0), where.max(axis=0)
        middle = (low + high) / 2 - (0, 0.1 * (high - low)[1])
        self._region = Region(*middle, float((high - low).max()) * 1.15 * self._scale, 0.0)

    def look(self, frame: Frame) -> Points | None:
        """The mesh; the next look is where this one was."""
        assert self._region is not None
        mesh = find_mesh(self._engine, frame, self._region)
        if mesh is None:
            return None
        if self._upright:
            own = mesh.region
            self._region = dataclasses.replace(own, size=own.size / REGION_SCALE * self._scale)
        else:
            low, high = mesh.points[:, :2].min(axis=0), mesh.points[:, :2].max(axis=0)
            self._region = Region(*((low + high) / 2), float((high - low).max()) * self._scale, 0.0)
        return mesh.points[:, :2].astype(np.float64)


class WholeFrame:
    """MediaPipe's Face Landmarker as it is usually called: on the whole picture, one face."""

    def __init__(self, video: bool) -> None:
        import mediapipe as mp
        from mediapipe.tasks.python import BaseOptions, vision

        self._mp, self._vision, self._video = mp, vision, video
        self._options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=bundle.read_bundle()[0]),
            running_mode=vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE,
        )
        self.label = f"mediapipe, whole frame, {'VIDEO' if video else 'IMAGE'}"
        self._landmarker: Any = None

    def start(self, where: Points | None) -> None:
        """A fresh landmarker."""
        self.close()
        self._landmarker = self._vision.FaceLandmarker.create_from_options(self._options)

    def close(self) -> None:
        """Give the landmarker back."""
        if self._landmarker is not None:
            self._landmarker.close()

    def look(self, frame: Frame) -> Points | None:
        """The mesh of the one face it finds."""
        image = self._mp.Image(image_format=self._mp.ImageFormat.SRGB, data=frame.rgb())
        if self._video:
            found = self._landmarker.detect_for_video(image, round(1000 * frame.time))
        else:
            found = self._landmarker.detect(image)
        if not found.face_landmarks:
            return None
        points = np.array([(p.x, p.y) for p in found.face_landmarks[0]])
        return points * (frame.width, frame.height) - 0.5


def lookers() -> list[Looker]:
    """Every row of the table."""
    direct, mediapipe = load_engine("litert"), load_engine("mediapipe")
    return [
        *(OwnRegion(direct, scale, True) for scale in (1.3, 1.4, 1.5, 1.6, 1.7)),
        OwnRegion(direct, 1.5, False),
        OwnRegion(mediapipe, 1.3, True),
        OwnRegion(mediapipe, 1.5, True),
        OwnRegion(mediapipe, 1.7, True),
        OwnRegion(mediapipe, 1.5, False),
        WholeFrame(video=False),
        WholeFrame(video=True),
    ]


@dataclasses.dataclass
class EngineClip:
    """Frames in memory, the truth where it is known, and points to begin with."""

    frames: list[Frame]
    first: Points
    to_picture: list[NDArray[np.float64]] = dataclasses.field(default_factory=list)
    eyes: float = 0.0
    mouth: NDArray[np.float64] | None = None
    onset: tuple[int, int] = (0, 0)


def still_clip(rgb: NDArray[np.uint8], points: Points, seed: int) -> EngineClip:
    """A picture swaying by sub-pixel steps, with new noise in every frame.

    Args:
        rgb: (H, W, 3).
        points: (68, 2) of the face, roughly.
        seed: decides noise and phases.
    """
    rng = np.random.default_rng(seed)
    scale = STILL_EYES / float(np.hypot(*(points[45] - points[36])))
    while scale < 0.5:  # the usual halving, so that what is sampled below is not aliased
        rgb, points, scale = (
            cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
            points / 2,
            scale * 2,
        )
    middle, phase = points.mean(axis=0), rng.uniform(0, 2 * np.pi, 4)
    lean = np.radians(15.0 if seed % 2 else 0.0)
    frames, back = [], []
    for k in range(FRAMES):
        sway = np.sin(2 * np.pi * k / np.array([37, 53, 61, 71]) + phase)
        angle, size = lean + np.radians(2) * sway[2], scale * (1 + 0.01 * sway[3])
        c, s = size * np.cos(angle), size * np.sin(angle)
        linear = np.array([[c, -s], [s, c]])
        shift = np.array(SIZE) / 2 + 3 * sway[:2] - linear @ middle
        forward = np.column_stack([linear, shift])
        view = cv2.warpAffine(rgb, forward, SIZE, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        noisy = view + rng.normal(0, 3.0, view.shape)
        frames.append(Frame.from_rgb(np.clip(np.round(noisy), 0, 255).astype(np.uint8), k, k / 30))
        back.append(cv2.invertAffineTransform(forward))
    first = points @ (scale * np.array([[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]])).T
    return EngineClip(frames, first - first.mean(axis=0) + np.array(SIZE) / 2, back, STILL_EYES / scale)


def smile_clips(count: int) -> Iterator[EngineClip]:
    """Rendered posed smiles with their true mouth width."""
    from nemo_pipeline.synth.plan import SynthConfig, list_clips
    from nemo_pipeline.synth.render import ClipRenderer, Subject

    config = SynthConfig(subjects=count, clips=1, seed=5, width=640, height=640, fps=50.0, ages=(16, 40))
    for planned in list_clips(config):
        renderer = ClipRenderer(Subject(config, planned.person), planned)
        truth, frames = renderer.truth, []
        for k, (bgr, grain) in enumerate(zip(renderer.frames(), renderer.noise(), strict=True)):
            noisy = np.clip(bgr.astype(np.int16) + grain[..., None], 0, 255).astype(np.uint8)
            frames.append(Frame.from_rgb(cv2.cvtColor(noisy, cv2.COLOR_BGR2RGB), k, k / config.fps))
        onset = (max(truth.course.onset[0] - 15, 0), truth.course.onset[1] + 15)
        yield EngineClip(frames, truth.landmarks[0], mouth=_mouth_width(truth.landmarks), onset=onset)


def _mouth_width(landmarks: Points) -> NDArray[np.float64]:
    """(T,) distance of the lip corners over that of the outer eye corners."""
    mouth, eyes = (np.hypot(*(landmarks[:, a] - landmarks[:, b]).T) for a, b in ((54, 48), (45, 36)))
    return mouth / eyes


def follow(looker: Looker, clip: EngineClip) -> tuple[Points | None, list[float]]:
    """(T, 68, 2) points (None when the face was lost) and the CPU seconds of each look."""
    looker.start(clip.first)
    seen, seconds = [], []
    for frame in clip.frames:
        began = time.process_time()
        mesh = looker.look(frame)
        seconds.append(time.process_time() - began)
        if mesh is None:
            return None, seconds
        seen.append(ibug68.from_mesh(mesh))
    return np.stack(seen), seconds


def jitter(points: Points, clip: EngineClip) -> tuple[float, float, float]:
    """Mean second difference in the picture's own frame, percent of the eye distance: inner 51 points, jaw line, and
    the inner 51 after the pipeline's own smoothing."""

    def second(path: Points) -> Points:
        own = np.stack([p @ m[:, :2].T + m[:, 2] for p, m in zip(path, clip.to_picture, strict=True)])
        return 100 / clip.eyes * np.hypot(*np.moveaxis(np.diff(own[10:-5], 2, axis=0), 2, 0))

    raw, smoothed = second(points), second(smooth_4253h_twice(points))
    return float(raw[:, 17:].mean()), float(raw[:, :17].mean()), float(smoothed[:, 17:].mean())


def lag(points: Points, clip: EngineClip) -> float:
    """Frames by which the tracked mouth width follows the true one (best correlation around the onset)."""
    assert clip.mouth is not None
    width, at = _mouth_width(points), np.arange(len(points), dtype=np.float64)
    around = slice(*clip.onset)
    shifts = np.arange(-8, 8.01, 0.05)
    fits = [
        np.corrcoef(width[around], np.interp(at[around] - shift, at, clip.mouth))[0, 1] for shift in shifts
    ]
    return float(shifts[int(np.argmax(fits))])


def picture_error(looker: Looker, frame: Frame, truth: Points) -> tuple[float, float] | None:
    """Errors in percent (inner 51 points, jaw line) on a picture; None where the annotated face was not found."""
    looker.start(truth)
    mesh = None
    for k in range(3):
        mesh = looker.look(dataclasses.replace(frame, time=k / 30))
        if mesh is None:
            return None
    eyes = float(np.hypot(*(truth[45] - truth[36])))
    points = ibug68.from_mesh(mesh)
    if np.hypot(*(points.mean(axis=0) - truth.mean(axis=0))) > 0.5 * eyes:
        return None
    error = 100 / eyes * np.hypot(*(points - truth).T)
    return float(error[17:].mean()), float(error[:17].mean())


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8."""
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def stills(pictures: list[tuple[Path, Points]], count: int) -> Iterator[EngineClip]:
    """Still clips of the astronaut and of the largest faces, one in memory at a time."""
    from skimage.data import astronaut

    rough = np.zeros((68, 2))
    engine = OwnRegion(load_engine("litert"), 1.5, True)
    engine.start(np.array([(165.0, 70.0), (275.0, 190.0)]))
    for _ in range(2):
        mesh = engine.look(Frame.from_rgb(astronaut()))
        assert mesh is not None
        rough = ibug68.from_mesh(mesh)
    large = sorted(pictures, key=lambda item: -float(np.hypot(*(item[1][45] - item[1][36]))))
    yield still_clip(astronaut(), rough, 0)
    for seed, (path, truth) in enumerate(large[: count - 1], start=1):
        yield still_clip(read_rgb(path), truth, seed)


def main() -> None:
    """Measure every row, print the table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="pictures with .pts files")
    parser.add_argument("--kinds", type=Path, help="CSV or Markdown table: which picture is of which kind")
    parser.add_argument("--stills", type=int, default=6, help="still clips (6)")
    parser.add_argument("--smiles", type=int, default=6, help="rendered smiles (6)")
    parser.add_argument("--json", type=Path, help="write every figure there")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    facts = machine_facts()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    kinds = read_kinds(options.kinds) if options.kinds else {}
    pictures = [
        (path, truth)
        for stem, path, truth in (annotated(options.folder) if options.folder else ())
        if not kinds or kinds.get(stem) in FRONTAL_KINDS
    ]
    rows = {looker.label: (looker, {"jitter": [], "lag": [], "cpu": [], "lost": 0}) for looker in lookers()}
    clips = itertools.chain(stills(pictures, options.stills), smile_clips(options.smiles))
    for clip in clips:
        for looker, figures in rows.values():
            points, seconds = follow(looker, clip)
            if points is None:
                figures["lost"] += 1
            elif clip.mouth is None:
                figures["jitter"].append(jitter(points, clip))
                figures["cpu"] += seconds[10:]
            else:
                figures["lag"].append(lag(points, clip))
        print(".", end="", file=sys.stderr, flush=True)
    errors: dict[str, list[tuple[float, float] | None]] = {label: [] for label in rows}
    for path, truth in pictures:
        frame = Frame.from_rgb(read_rgb(path))
        for label, (looker, _) in rows.items():
            errors[label].append(picture_error(looker, frame, truth))
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for looker, _ in rows.values():
        if isinstance(looker, WholeFrame):
            looker.close()
    shared = [k for k in range(len(pictures)) if all(own[k] is not None for own in errors.values())]
    still_count = 1 + min(len(pictures), options.stills - 1)
    table, report = [], {}
    for label, (_, figures) in rows.items():
        jitters = np.mean(figures["jitter"], axis=0)
        seen = [errors[label][k] or (np.nan, np.nan) for k in shared] or [(np.nan, np.nan)]
        own = {
            "jitter inner 51": jitters[0],
            "jitter jaw": jitters[1],
            "jitter smoothed": jitters[2],
            "lag frames": np.mean(figures["lag"]),
            "lag ms": np.mean(figures["lag"]) * 20,
            "error inner 51": np.mean([entry[0] for entry in seen]),
            "error jaw": np.mean([entry[1] for entry in seen]),
            "CPU ms": 1000 * np.quantile(figures["cpu"], 0.1),
        }
        missed = sum(entry is None for entry in errors[label])
        report[label] = {
            **{k: round(float(v), 4) for k, v in own.items()},
            "CPU ms, median": round(1000 * float(np.median(figures["cpu"])), 4),
            "lags": figures["lag"],
            "missed": missed,
            "lost": figures["lost"],
        }
        table.append([label, *(f"{value:.2f}" for value in own.values()), str(missed), str(figures["lost"])])
    headings = ["engine", *own, "pictures missed", "clips lost"]
    title = f"{still_count} still clips, {options.smiles} smiles, errors on the {len(shared)} pictures that all found"
    print_table(title, headings, table)
    if options.json:
        options.json.write_text(json.dumps({"facts": facts, "rows": report}, indent=1))


if __name__ == "__main__":
    main()
