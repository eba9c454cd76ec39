"""Speed of `nemo prep`: against the script one would write first, and against the floor (decode + network alone).

    python benchmarks/prep.py [--clip FILE] [--seconds S] [--json FILE] [--repeats N] [--heights H ...] [--no-script]

The contenders run on the same clips (made from a synthetic 1080p clip at 50 frames/s, or from --clip), each in a
process of its own on the same core, and take turns: once each in every round, so that ratios hold on a busy machine
too. Figures are CPU milliseconds a frame after a warm-up, the median of the rounds; the ratio is the median of the
rounds' ratios, with the smallest and the largest. The script is `cv2.VideoCapture`, BGR to RGB, MediaPipe's Face
Landmarker in VIDEO mode on the whole frame, the index table, and scikit-image's piecewise-affine estimate and warp; it
runs once, on 40 frames.

Then, at 1080p: nemo and the script by stage; `nemo prep` from its start to its end on a clip of two frames (no less
than to the first frame); and --copies clips with one and with two workers.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from common import USUAL_TABLE, machine_facts, print_table
from stages import our_stages, script_stages

from nemo_pipeline.supervise import ONE_THREAD

HEIGHTS = (1080, 720, 360)
#: Contenders, and how the table calls them.
HEADINGS = {
    "script": "script",
    "floor": "decode + network",
    "decode": "decode",
    "ours": "nemo",
}
KINDS = tuple(HEADINGS)


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


def serve(kind: str, clip: str, frames: int) -> None:
    """In a fresh, pinned process: a line on standard input starts a run; its answer is CPU and wall milliseconds a
    frame, as JSON."""
    run = globals()[f"measure_{kind}"](clip, frames)
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, start = time.monotonic(), time.process_time()
        done = run()
        figures = (time.process_time() - start, time.monotonic() - wall)
        print(json.dumps([seconds / done * 1e3 for seconds in figures]), flush=True)


class Contender:
    """A child that runs one kind on one clip whenever it is asked."""

    def __init__(self, kind: str, clip: Path, frames: int) -> None:
        self._process = subprocess.Popen(
            [*_child_command(kind, clip), "--frames", str(frames)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | _ENVIRONMENT,
            preexec_fn=_pin,
        )
        self._line()  # "ready"
        self.rounds: list[list[float]] = []

    def run(self) -> None:
        """Once more."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        self.rounds.append(json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args} ended")
        return line

    def close(self) -> None:
        """No more runs."""
        self._process.communicate()

    def ms(self, clock: int = 0) -> float:
        """Median of the rounds, CPU (0) or wall (1) milliseconds a frame."""
        return statistics.median(one[clock] for one in self.rounds)


_ENVIRONMENT = {**ONE_THREAD, "MPLBACKEND": "Agg"}


def _pin() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _child_command(kind: str, clip: Path) -> list[str]:
    return [sys.executable, __file__, "--child", kind, "--clip", str(clip)]


def stages_of(clip: Path, frames: int) -> Any:
    """nemo and the script by stage, in a fresh, pinned process."""
    command = [*_child_command("stages", clip), "--frames", str(frames)]
    done = subprocess.run(
        command,
        env=os.environ | _ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=_pin,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(clip: Path, kinds: Sequence[str], repeats: int) -> dict[str, Any]:
    """The contenders on one clip, in turn."""
    contenders = {kind: Contender(kind, clip, 40 if kind == "script" else 10**9) for kind in kinds}
    for _ in range(repeats):
        for kind, contender in contenders.items():
            if kind != "script" or not contender.rounds:  # once: it takes as long as all the others
                contender.run()
    for contender in contenders.values():
        contender.close()
    ours, floor = (contenders[kind].rounds for kind in ("ours", "floor"))
    ratios = sorted(a[0] / b[0] for a, b in zip(ours, floor, strict=True))
    return {
        "mbit_per_s": bit_rate(clip),
        **{kind: contender.ms() for kind, contender in contenders.items()},
        "wall": {kind: contender.ms(1) for kind, contender in contenders.items()},
        "ours_by_floor": [statistics.median(ratios), ratios[0], ratios[-1]],
    }


def start_seconds(clip: Path, folder: Path, repeats: int = 5) -> dict[str, float]:
    """`nemo prep` on the first two frames of a clip: wall and CPU seconds of the command and its children, the least of
    some runs."""
    import av

    short = folder / "two.mp4"
    with av.open(str(clip)) as source, av.open(str(short), "w") as target:
        stream = target.add_stream("libx264", rate=source.streams.video[0].average_rate)
        stream.width, stream.height = source.streams.video[0].width, source.streams.video[0].height
        for frame, _ in zip(source.decode(video=0), range(2), strict=False):
            target.mux(stream.encode(frame.reformat(format="yuv420p")))
        target.mux(stream.encode())
    wall, cpu = [], []
    for k in range(repeats):
        before, start = os.times(), time.monotonic()
        command = ["nemo", "prep", str(short), str(folder / f"start{k}" / "out.h5"), "--quiet"]
        (folder / f"start{k}").mkdir()
        subprocess.run(command, capture_output=True, check=False)
        wall.append(time.monotonic() - start)
        after = os.times()
        cpu.append(after[2] + after[3] - before[2] - before[3])
    return {"wall": min(wall), "cpu": min(cpu)}


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
    """Measure everything, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--clip", type=Path, help="a video of one face; by default a synthetic 1080p clip is made"
    )
    parser.add_argument("--seconds", type=float, default=3.9, help="of the synthetic clip (50 frames/s)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--frames", type=int, default=40, help="frames that the script's stages are shown")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--heights", type=int, nargs="+", default=HEIGHTS)
    parser.add_argument("--no-script", action="store_true", help="leave the script out")
    parser.add_argument(
        "--copies", type=int, default=12, help="clips that 1 and 2 workers do; 0: leave that out"
    )
    parser.add_argument("--child", choices=(*KINDS, "stages"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "stages":
        ours, script = our_stages(str(options.clip)), script_stages(str(options.clip), options.frames)
        print(json.dumps({"nemo": ours, "script": script}))
        return
    if options.child:
        serve(options.child, str(options.clip), options.frames)
        return
    kinds = [kind for kind in KINDS if not (kind == "script" and options.no_script)]
    result: dict[str, Any] = {"machine": machine_facts(), "load": os.getloadavg(), "ms_per_frame": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = options.clip or synthetic(folder, options.seconds)
        rows = []
        for height in options.heights:
            ms = compare(scaled(clip, height, folder), kinds, options.repeats)
            result["ms_per_frame"][f"{height}p"] = ms
            ratio, least, most = ms["ours_by_floor"]
            cells = [f"{ms[kind]:.1f}" for kind in kinds]
            rows.append(
                [f"{height}p", f"{ms['mbit_per_s']:.1f}", *cells, f"{ratio:.2f} ({least:.2f}-{most:.2f})"]
            )
        headings = ["clip", "Mbit/s", *(HEADINGS[kind] for kind in kinds), "nemo / floor"]
        print_table("CPU milliseconds a frame, one core", headings, rows)
        full = scaled(clip, max(options.heights), folder)
        result["start"] = start_seconds(full, folder)
        print("From the start of `nemo prep` to its end on two frames: "
              f"{result['start']['wall']:.2f} s, {result['start']['cpu']:.2f} s of a processor")  # fmt: skip
        if not options.no_script:
            result["stages"] = stages_of(full, options.frames)
            for who, parts in result["stages"].items():
                rows = [[one, f"{ms:.2f}"] for one, ms in sorted(parts.items(), key=lambda part: -part[1])]
                print_table(
                    f"By stage: {who}", ["stage", "ms"], [*rows, ["all", f"{sum(parts.values()):.2f}"]]
                )
        if options.copies:
            result["workers"] = workers = workers_ratio(full, folder, options.copies)
            print(f"{options.copies} clips ({workers['frames']} frames), wall seconds: 1 worker "
                  f"{workers['workers_1']:.1f}, 2 workers {workers['workers_2']:.1f}, ratio {workers['ratio']:.2f}; by "
                  f"the command's own clock {workers['inside_1']:.1f} and {workers['inside_2']:.1f}, ratio "
                  f"{workers['inside_ratio']:.2f}")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    else:
        print(json.dumps(result))


def synthetic(folder: Path, seconds: float) -> Path:
    """A clip of one synthetic face, 1080p at 50 frames/s."""
    command = [
        "nemo",
        "synth",
        str(folder / "synth"),
        "--subjects",
        "1",
        "--clips",
        "1",
        "--size",
        "1920x1080",
    ]
    command += ["--fps", "50", "--seconds", str(seconds), str(seconds)]
    subprocess.run(command, check=True, capture_output=True)
    return next((folder / "synth").glob("*.mp4"))


if __name__ == "__main__":
    main()
