"""Speed of `nemo prep`: against the script one would write first, and against the floor (decode + network alone).

    python benchmarks/prep.py [--clip FILE] [--json FILE] [--frames N] [--repeats N]

Each measurement runs in a process of its own, pinned to one core, on the same clips (1080p, 720p, 360p; made from a
synthetic 1080p clip at 50 frames/s, or from --clip); figures are CPU milliseconds a frame after a warm-up, the
median of the repeats. The script is `cv2.VideoCapture`, BGR to RGB, MediaPipe's Face Landmarker in VIDEO mode on the
whole frame, the index table, and scikit-image's piecewise-affine estimate and warp.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from common import USUAL_TABLE, machine_facts, print_table
from stages import our_stages, script_stages

HEIGHTS = (1080, 720, 360)
KINDS = ("script", "floor", "decode", "track", "ours")


def measure_script(clip: str, frames: int) -> Callable[[], int]:
    """The obvious script; returns a function that runs it once and gives the frames done."""
    import cv2
    import mediapipe as mp
    import numpy as np
    from mediapipe.tasks.python import BaseOptions, vision
    from skimage.transform import PiecewiseAffineTransform, warp

    from nemo_pipeline.bundle import shipped_path
    from nemo_pipeline.geometry import shipped_template

    cv2.setNumThreads(1)
    target = shipped_template().landmarks

    def run() -> int:
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(shipped_path())),
            running_mode=vision.RunningMode.VIDEO,
        )
        done = 0
        with vision.FaceLandmarker.create_from_options(options) as landmarker:
            capture = cv2.VideoCapture(clip)
            while done < frames:
                ok, bgr = capture.read()
                if not ok:
                    break
                rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
                image = mp.Image(image_format=mp.ImageFormat.SRGB, data=rgb)
                found = landmarker.detect_for_video(image, done * 20)
                if found.face_landmarks:
                    face = np.array(
                        [(p.x * rgb.shape[1], p.y * rgb.shape[0]) for p in found.face_landmarks[0]]
                    )
                    transform = PiecewiseAffineTransform()
                    transform.estimate(target, face[USUAL_TABLE])
                    gray = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
                    warp(gray, transform, output_shape=(114, 114), order=1, preserve_range=True)
                done += 1
            capture.release()
        return done

    return run


def measure_floor(clip: str, frames: int) -> Callable[[], int]:
    """PyAV's decoding and one run of the landmark network per frame, nothing else."""
    import numpy as np

    from nemo_pipeline.stages.decode import VideoReader
    from nemo_pipeline.stages.engine_litert import LitertEngine

    engine = LitertEngine()
    view = np.random.default_rng(0).random((256, 256, 3)).astype(np.float32)

    def run() -> int:
        done = 0
        with VideoReader(clip) as reader:
            for _ in reader:
                engine._landmarks(view)
                done += 1
                if done >= frames:
                    break
        return done

    return run


def measure_decode(clip: str, frames: int) -> Callable[[], int]:
    """Decoding alone."""
    from nemo_pipeline.stages.decode import VideoReader

    def run() -> int:
        done = 0
        with VideoReader(clip) as reader:
            for _ in reader:
                done += 1
                if done >= frames:
                    break
        return done

    return run


def measure_track(clip: str, frames: int) -> Callable[[], int]:
    """Decoding and tracking: search, follow, 68 points, pose."""
    from nemo_pipeline.stages.decode import VideoReader
    from nemo_pipeline.stages.engines import load_engine
    from nemo_pipeline.stages.track import Tracker

    engine = load_engine("litert")

    def run() -> int:
        done = 0
        with VideoReader(clip) as reader:
            tracker = Tracker(engine)
            for frame in reader:
                tracker.step(frame)
                done += 1
                if done >= frames:
                    break
        return done

    return run


def measure_ours(clip: str, frames: int) -> Callable[[], int]:
    """`process_video`: everything up to the records on disk."""
    from nemo_pipeline.config import PrepConfig
    from nemo_pipeline.video import process_video

    folder = tempfile.TemporaryDirectory()

    def run() -> int:
        result = process_video(clip, PrepConfig(), Path(folder.name) / "clip")
        assert result.rows[0].status == "ok", result.rows[0]
        return result.n_decoded

    return run


def child(kind: str, clip: str, frames: int, repeats: int) -> None:
    """In a fresh, pinned process: CPU milliseconds a frame of each repeat, as JSON."""
    run = globals()[f"measure_{kind}"](clip, frames)
    run()
    figures = []
    for _ in range(repeats):
        start = time.process_time()
        done = run()
        figures.append((time.process_time() - start) / done * 1e3)
    print(json.dumps(figures))


def run_child(kind: str, clip: Path, frames: int, repeats: int) -> Any:
    """Figures of one kind on one clip, as that child printed them."""
    core = max(os.sched_getaffinity(0))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    command = [sys.executable, __file__, "--child", kind, "--clip", str(clip)]
    command += ["--frames", str(frames), "--repeats", str(repeats)]
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode:
        raise SystemExit(f"{kind} failed on {clip}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def scaled(clip: Path, height: int, folder: Path) -> Path:
    """The clip at another height, H.264, same rate and frames."""
    import av

    out = folder / f"clip{height}.mp4"
    with av.open(str(clip)) as source, av.open(str(out), "w") as target:
        stream_in = source.streams.video[0]
        width = round(stream_in.width * height / stream_in.height / 2) * 2
        stream = target.add_stream(
            "libx264", rate=stream_in.average_rate, options={"crf": "23", "preset": "fast"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in source.decode(stream_in):
            small = frame.reformat(width, height, "yuv420p")
            small.pts, small.time_base = frame.pts, frame.time_base
            target.mux(stream.encode(small))
        target.mux(stream.encode())
    return out


def bit_rate(clip: Path) -> float:
    """Megabits per second of the file: what decoding costs depends on it."""
    import av

    with av.open(str(clip)) as container:
        return clip.stat().st_size * 8e-6 / (container.duration * 1e-6)


def workers_ratio(clip: Path, folder: Path, copies: int) -> dict[str, float]:
    """Wall seconds of `nemo prep` on copies of a clip, with 1 and with 2 workers: of the whole command, start of Python
    included, and by its own clock."""
    videos = folder / "videos"
    videos.mkdir()
    data = clip.read_bytes()
    for k in range(copies):  # different bytes, so that nothing is taken for the same video
        (videos / f"copy{k}.mp4").write_bytes(data + bytes([0, 0, 0, 9]) + b"free" + bytes([k]))
    seconds: dict[str, float] = {}
    for workers in (1, 2):
        out = folder / f"w{workers}.h5"
        command = ["nemo", "prep", str(videos), str(out), "--workers", str(workers), "--json", "--quiet"]
        start = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds[f"workers_{workers}"] = time.monotonic() - start
        report = json.loads(done.stdout)
        seconds[f"inside_{workers}"] = report["seconds"]
        seconds["frames"] = sum(video["n_decoded"] for video in report["videos"])
    seconds["ratio"] = seconds["workers_1"] / seconds["workers_2"]
    seconds["inside_ratio"] = seconds["inside_1"] / seconds["inside_2"]
    return seconds


def main() -> None:
    """Measure everything, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--clip", type=Path, help="a video of one face; by default a synthetic 1080p clip is made"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument(
        "--frames", type=int, default=100, help="frames of the clip that the script is run on"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--copies", type=int, default=12, help="clips that 1 and 2 workers do")
    parser.add_argument("--child", choices=(*KINDS, "stages"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "stages":
        ours, script = our_stages(str(options.clip)), script_stages(str(options.clip), options.frames)
        print(json.dumps({"nemo": ours, "script": script}))
        return
    if options.child:
        child(options.child, str(options.clip), options.frames, options.repeats)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = options.clip
        if clip is None:
            command = ["nemo", "synth", str(folder / "synth"), "--subjects", "1", "--clips", "1"]
            subprocess.run([*command, "--size", "1920x1080", "--fps", "50"], check=True, capture_output=True)
            clip = next((folder / "synth").glob("*.mp4"))
        rows, figures = [], {}
        for height in HEIGHTS:
            small = scaled(clip, height, folder)
            ms = {"mbit_per_s": bit_rate(small)}
            for kind in KINDS:
                frames = min(options.frames, 40) if kind == "script" else 10**9
                ms[kind] = statistics.median(
                    run_child(kind, small, frames, 1 if kind == "script" else options.repeats)
                )
            figures[f"{height}p"] = ms
            rows.append(
                [
                    f"{height}p",
                    f"{ms['mbit_per_s']:.1f}",
                    *(f"{ms[k]:.1f}" for k in KINDS),
                    f"{ms['script'] / ms['ours']:.1f}",
                    f"{ms['ours'] / ms['floor']:.2f}",
                ]
            )
        headings = [
            "clip",
            "Mbit/s",
            "script",
            "decode + network",
            "decode",
            "decode + track",
            "nemo",
            "script / nemo",
            "nemo / floor",
        ]
        print_table("CPU milliseconds a frame, one core", headings, rows)
        full = scaled(clip, 1080, folder)
        stages = run_child("stages", full, min(options.frames, 40), 1)
        for who, parts in stages.items():
            rows = [[name, f"{ms:.2f}"] for name, ms in sorted(parts.items(), key=lambda part: -part[1])]
            print_table(
                f"1080p by stage: {who}", ["stage", "ms"], [*rows, ["all", f"{sum(parts.values()):.2f}"]]
            )
        workers = workers_ratio(full, folder, options.copies)
        print(f"{options.copies} clips of 1080p ({workers['frames']} frames), wall seconds: 1 worker "
              f"{workers['workers_1']:.1f}, 2 workers {workers['workers_2']:.1f}, ratio {workers['ratio']:.2f}; by "
              f"the command's own clock {workers['inside_1']:.1f} and {workers['inside_2']:.1f}, ratio "
              f"{workers['inside_ratio']:.2f}")  # fmt: skip
    result = {"machine": machine_facts(), "ms_per_frame": figures, "stages_1080p": stages, "workers": workers}
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    else:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
