"""Memory of `nemo prep`: does it depend on a clip's length, and does it grow from clip to clip?

    python benchmarks/memory.py [--minutes 1 30] [--clips 2000] [--workers N] [--folder DIR] [--json FILE]

Length: one clip of each duration (25 frames/s, a face that moves; synthetic), each by a fresh child process; the
figure is that process's peak resident memory. Growth: many short clips in one run; resident memory of the command and
of its children, read after every clip.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import skimage.data

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, print_table

from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.run import Event, PrepInputs, RunOptions, prep
from nemo_pipeline.batch.worker import running_children
from nemo_pipeline.config import PrepConfig


def write_clip(path: Path, frames: int, seed: int = 0, side: int = 160) -> None:
    """A real face (public domain) that drifts within the picture."""
    portrait = skimage.data.astronaut()
    top, left = 8 + seed % 8, 142 + seed % 16
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = side
        stream.bit_rate = 1_000_000
        for i in range(frames):
            dx, dy = int(3 * np.sin(i / 9 + seed)), int(3 * np.cos(i / 7))
            picture = portrait[top + dy : top + dy + side, left + dx : left + dx + side]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def resident_kb(pid: int | str, name: str = "VmRSS") -> int:
    """A memory figure of a process from /proc, kilobytes; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def by_length(folder: Path, minutes: list[float]) -> list[dict[str, Any]]:
    """Peak memory of the child, and of the whole command's own process, for one clip of each duration."""
    rows = []
    for length in minutes:
        clip = folder / f"{length:g}min.mp4"
        write_clip(clip, int(length * 60 * 25))
        peak = 0

        def watch(event: Event) -> None:
            nonlocal peak
            peak = max([peak, *(resident_kb(pid, "VmHWM") for pid in running_children())])

        options = RunOptions(workers=1, video_timeout=None)
        output = folder / f"{length:g}.h5"
        summary = prep(PrepInputs(discover([clip]).videos), output, PrepConfig(), options, on_event=watch)
        rows.append(
            {
                "minutes": length,
                "frames": summary.videos[0]["n_decoded"],
                "status": summary.videos[0]["status"],
                "peak_child_mb": peak / 1024,
                "frames_per_second": summary.frames_per_second,
            }
        )
        clip.unlink()
    return rows


def by_count(folder: Path, count: int, workers: int | None) -> dict[str, Any]:
    """Memory of the command and of its children over many short clips in one run."""
    clips = folder / "many"
    clips.mkdir()
    for seed in range(16):
        write_clip(clips / f"{seed}.mp4", 8, seed)
    originals = [path.read_bytes() for path in sorted(clips.iterdir())]
    for i in range(count):
        # Bytes that differ, pictures that do not: a free box with a number at the end.
        (clips / f"{i}.mp4").write_bytes(
            originals[i % 16] + (12).to_bytes(4, "big") + b"free" + i.to_bytes(4, "big")
        )
    own: list[int] = []
    children: list[int] = []

    def watch(event: Event) -> None:
        if event.kind == "video":
            own.append(resident_kb("self"))
            children.append(max((resident_kb(pid) for pid in running_children()), default=0))

    summary = prep(
        PrepInputs(discover([clips]).videos),
        folder / "many.h5",
        PrepConfig(),
        RunOptions(workers=workers),
        on_event=watch,
    )
    half = len(own) // 2
    slope = np.polyfit(np.arange(half, len(own)), own[half:], 1)[0]
    return {
        "clips": count,
        "counts": summary.counts,
        "clips_per_second": count / summary.seconds,
        "command_mb": {str(n): own[n - 1] / 1024 for n in (100, count // 2, count) if 0 < n <= len(own)},
        "command_growth_kb_per_clip": float(slope),
        "largest_child_mb": {
            "first half": max(children[:half]) / 1024,
            "second half": max(children[half:]) / 1024,
        },
    }


def main() -> None:
    """Measure, print tables, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, nargs="*", default=[1.0, 30.0])
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": machine_facts()}
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="nemo-memory-") as name:
        folder = Path(name)
        if arguments.minutes:
            rows = result["length"] = by_length(folder, arguments.minutes)
            print_table(
                "One clip, by its length",
                ["minutes", "frames", "status", "peak of the child, MB", "ratio", "frames/s"],
                [
                    [
                        f"{row['minutes']:g}",
                        str(row["frames"]),
                        row["status"],
                        f"{row['peak_child_mb']:.1f}",
                        f"{row['peak_child_mb'] / rows[0]['peak_child_mb']:.3f}",
                        f"{row['frames_per_second']:.0f}",
                    ]
                    for row in rows
                ],
            )
        if arguments.clips:
            many = result["count"] = by_count(folder, arguments.clips, arguments.workers)
            print_table(
                f"{many['clips']} clips of 8 frames in one run",
                ["what", "figure"],
                [
                    *([f"command, MB after {n} clips", f"{mb:.1f}"] for n, mb in many["command_mb"].items()),
                    [
                        "command, growth over the second half, KB a clip",
                        f"{many['command_growth_kb_per_clip']:.2f}",
                    ],
                    *([f"largest child, MB, {w}", f"{mb:.1f}"] for w, mb in many["largest_child_mb"].items()),
                    ["clips/s", f"{many['clips_per_second']:.1f}"],
                ],
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
