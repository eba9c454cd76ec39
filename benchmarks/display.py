"""Clips whose pictures are not displayed as they are stored, against FFmpeg's display of them (ffmpeg with zscale).

    python benchmarks/display.py CLIP [--frames N] [--json FILE]

CLIP is stored again with pixels of other shapes, in sizes that change in mid-stream, and in HLG and PQ. Each copy is
prepared, and so is what FFmpeg makes of it: square pixels in one size, SDR. Compared are the points as tracked and the
faces.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, print_table

from nemo_pipeline import prep_video

#: Stored size, pixel aspect, extension, encoder.
SHAPES = [
    ("720x576 at 64:45", "scale=720:576,setsar=64/45", ".mp4", ["-c:v", "libx264", "-crf", "12"]),
    ("640x512 at 64:45", "scale=640:512,setsar=64/45", ".mp4", ["-c:v", "libx264", "-crf", "12"]),
    ("640x720 at 2:1", "scale=640:720,setsar=2/1", ".mp4", ["-c:v", "libx264", "-crf", "12"]),
    ("1440x1080 at 4:3, .m2ts", "scale=1440:1080,setsar=4/3", ".m2ts", ["-c:v", "libx264", "-crf", "12"]),
    ("DV, 720x576 at 64:45", "scale=720:576,setsar=64/45", ".dv", ["-r", "25", "-pix_fmt", "yuv420p"]),
]
PARTS = ["512:480", "384:360", "256:240", "512:480"]
_LIGHT = "zscale=t=linear:npl=203,format=gbrpf32le"
_TAGGED = "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709"
HDR = {"HLG": "arib-std-b67", "PQ": "smpte2084"}
_SQUARE = "scale=iw*sar:ih,setsar=1"


def ffmpeg(*arguments: object) -> None:
    """Run it, quietly, over what is there."""
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True)


def displayed(stored: Path, route: str = _SQUARE) -> Path:
    """FFmpeg's own display of a copy."""
    target = stored.with_name(f"{stored.stem}_displayed.mkv")
    ffmpeg("-i", stored, "-an", "-vf", route, "-c:v", "libx264", "-preset", "veryfast", "-crf", "6", target)
    return target


def copies(clip: Path, folder: Path, frames: int) -> list[tuple[str, Path, Path]]:
    """(what it is, the copy, FFmpeg's display of it)."""
    found = []
    start = ["-i", clip, "-an", "-frames:v", frames]
    for k, (name, scale, extension, encoder) in enumerate(SHAPES):
        stored = folder / f"shape{k}{extension}"
        ffmpeg(*start, "-vf", scale, *encoder, stored)
        found.append((name, stored, displayed(stored)))
    parts = []
    for k, size in enumerate(PARTS):
        parts.append(folder / f"part{k}.webm")
        ffmpeg(*start, "-vf", f"scale={size}", "-c:v", "libvpx", "-b:v", "3M", parts[-1])
    (folder / "parts.txt").write_text("".join(f"file {part.name}\n" for part in parts))
    joined = folder / "joined.webm"
    ffmpeg("-f", "concat", "-i", folder / "parts.txt", "-c", "copy", joined)
    # One size from the first frame on: what FFmpeg scales to does not depend on the picture's own.
    width, height = subprocess.run(
        ["ffprobe", "-v", "error", "-show_entries", "stream=width,height", "-of", "csv=p=0", displayed(parts[0])],
        capture_output=True, text=True, check=True,
    ).stdout.strip().split(",")  # fmt: skip
    found.append(("VP8 in changing sizes", joined, displayed(joined, f"scale={width}:{height},setsar=1")))
    sdr = folder / "sdr.mkv"
    ffmpeg(*start, "-vf", _TAGGED, "-c:v", "ffv1", sdr)
    for name, transfer in HDR.items():
        stored = folder / f"{name}.mkv"
        route = (
            f"{_LIGHT},zscale=p=bt2020:npl=203,zscale=t={transfer}:m=bt2020nc:r=tv:npl=203,format=yuv420p10le"
        )
        tags = ["-color_trc", transfer, "-color_primaries", "bt2020", "-colorspace", "bt2020nc"]
        ffmpeg("-i", sdr, "-vf", route, "-c:v", "ffv1", *tags, stored)
        found.append((name, stored, sdr))
    return found


def compare(stored: Path, shown: Path) -> dict[str, float | int]:
    """How far the two preparations are apart."""
    ours, theirs = prep_video(stored), prep_video(shown)
    n = min(len(ours), len(theirs))
    if not n:
        return {"frames": 0}
    points, others = ours.landmarks_raw[:n], theirs.landmarks_raw[:n]
    eyes = np.hypot(*(others[:, 45] - others[:, 36]).T)[:, None]
    apart = np.hypot(*np.moveaxis(points - others, -1, 0)) / eyes
    inside = theirs.frames[:n] > 0
    faces = ours.frames[:n].astype(float) - theirs.frames[:n]
    return {
        "frames": n,
        "points_percent": 100 * float(apart.mean()),
        "largest_percent": 100 * float(apart.max()),
        "levels": float(np.abs(faces[inside]).mean()),
        "levels_bias": float(faces[inside].mean()),
    }


def main() -> None:
    """Make the copies, compare, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=60, help="of each copy")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    if shutil.which("ffmpeg") is None:
        sys.exit("ffmpeg is not installed: on Debian or Ubuntu, sudo apt-get install -y ffmpeg.")
    with tempfile.TemporaryDirectory() as folder:
        figures = {name: compare(*pair) for name, *pair in copies(options.clip, Path(folder), options.frames)}
    rows = [
        [name, *(f"{value:.2f}" if isinstance(value, float) else str(value) for value in found.values())]
        for name, found in figures.items()
    ]
    headings = ["stored as", "frames", "points, % of the eye distance", "largest", "faces, levels", "mean"]
    print_table(f"{options.clip.name} against FFmpeg's display", headings, rows)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine_facts(), "copies": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
