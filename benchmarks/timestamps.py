"""Presentation times of every clip in a folder, against those that ffprobe reports (it must be installed).

    python benchmarks/timestamps.py DIR [--json FILE]

A sound file's times must be equal to a microsecond. Where ffprobe and the file disagree with themselves (times that
are missing or run backwards), the last column says what was repaired.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, print_table

from nemo_pipeline.stages.decode import DecodeError, VideoReader


def ffprobe_times(path: Path) -> list[float | None]:
    """Best-effort presentation time of every frame that ffprobe decodes, seconds; None where it has none."""
    command = ["ffprobe", "-v", "quiet", "-select_streams", "V:0", "-of", "json"]
    command += ["-show_entries", "frame=best_effort_timestamp:stream=time_base", f"file:{path}"]
    answer = json.loads(subprocess.run(command, capture_output=True, check=False).stdout or b"{}")
    streams = answer.get("streams", [])
    if not streams:
        return []
    base = Fraction(streams[0]["time_base"])
    stamps = [frame.get("best_effort_timestamp") for frame in answer.get("frames", [])]
    return [None if stamp is None else float(stamp * base) for stamp in stamps]


def compare(path: Path) -> dict[str, object]:
    """Both sides of one clip, and their largest difference in microseconds (over the frames that both have)."""
    theirs = ffprobe_times(path)
    try:
        with VideoReader(path) as reader:
            ours = {frame.index: frame.time for frame in reader}
            report, damage = reader.report, reader.report.damage
    except DecodeError as error:
        return {
            "frames": 0,
            "ffprobe": len(theirs),
            "microseconds": None,
            "note": error.status,
            "sound": not theirs,
        }
    both = [(ours[k], theirs[k]) for k in ours if k < len(theirs) and theirs[k] is not None]
    worst = max((abs(a - float(b or 0.0)) * 1e6 for a, b in both), default=None)
    notes = [damage] if damage else []
    if report.n_repaired_times:
        notes.append(f"{report.n_repaired_times} times repaired")
    if any(time is None for time in theirs):
        notes.append("ffprobe lacks some times")
    equal = worst is not None and worst <= 1.0 and len(theirs) == report.n_frames
    return {
        "frames": report.n_frames,
        "ffprobe": len(theirs),
        "microseconds": worst,
        "note": "; ".join(notes),
        "sound": equal or bool(notes),
    }


def main() -> None:
    """Compare every file, print the table, write the JSON; the exit code says whether every sound file is equal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a folder of clips, searched with its subfolders")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    if shutil.which("ffprobe") is None:
        sys.exit("ffprobe is not installed: on Debian or Ubuntu, sudo apt-get install -y ffmpeg.")
    paths = sorted(p for p in options.folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    figures = {str(p.relative_to(options.folder)): compare(p) for p in paths}
    rows = []
    for name, found in figures.items():
        worst = found["microseconds"]
        shown = "-" if worst is None else f"{worst:.3f}"
        rows.append([name, str(found["frames"]), str(found["ffprobe"]), shown, str(found["note"])])
    headings = ["clip", "frames", "ffprobe", "largest difference, µs", "remark"]
    print_table("Presentation times against ffprobe's", headings, rows)
    if options.json:
        result = {"machine": machine_facts(), "clips": figures}
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(0 if all(found["sound"] for found in figures.values()) else 1)


if __name__ == "__main__":
    main()
