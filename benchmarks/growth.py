"""How the commands grow with the number of clips: time and memory of `nemo prep`, of a rerun with nothing to do, and of
info, verify, label and report.

    python benchmarks/growth.py [--clips 300 3000 10000] [--real 30 100 300] [--workers N] [--folder DIR]
                                [--json FILE]

`--real`: so many tiny clips (10 frames, 160 pixels; distinct files) are prepared from their pictures. `--clips`: as
many such files and their finished shards, noise of two frames a clip, written by the package's own writer, since
tracking thousands of clips says nothing new; the first `nemo prep` then recognises each file by its hash and writes the
index, and the second has nothing to do. Times are processor time of a command and its children; memory is the peak of
the largest of these processes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, print_table
from memory import write_clip

from nemo_pipeline.bundle import SHA256 as MODEL_SHA256
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.platform import library_versions
from nemo_pipeline.status import Status
from nemo_pipeline.store.schema import frame_fields
from nemo_pipeline.store.shard import ShardRow, new_shard_path, write_shard
from nemo_pipeline.store.tables import Provenance, typed_fields

NEMO = Path(sys.executable).with_name("nemo")
#: A process that is small itself: a child's peak begins with what its parent held.
_LAUNCHER = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(status)
"""
#: As `nemo prep` plans its shards.
PER_SHARD = 32
#: Files that were changed less than this before, seconds, are hashed whatever their time.
SETTLED = 3.5


def clips(folder: Path, count: int, content: bytes) -> list[Path]:
    """Files with this content and their number: others, by their bytes."""
    folder.mkdir(parents=True)
    paths = []
    for i in range(count):
        path = folder / f"s{i // 2:05d}_{i % 2}.mp4"
        path.write_bytes(content + b"\0\0\0\x10free" + f"{i:08d}".encode())
        paths.append(path)
    return paths


def write_labels(folder: Path, paths: list[Path]) -> Path:
    """Two clips a subject."""
    table = folder / "labels.csv"
    lines = [f"{path.name},{path.stem.split('_')[0]},{18 + i // 2 % 60}" for i, path in enumerate(paths)]
    table.write_text("\n".join(["video,subject,age", *lines]) + "\n")
    return table


def write_finished(shards: Path, paths: list[Path]) -> None:
    """The shards that `nemo prep` would have made of these files."""
    shards.mkdir()
    config, rng = PrepConfig(), np.random.default_rng(0)
    made = Provenance(config, library_versions(), MODEL_SHA256)
    fields = typed_fields(frame_fields(config), config.size)
    arrays = {
        name: rng.integers(0, 200, (2, *f.tail)).astype(f.dtype) if f.dtype.kind != "b" else np.ones((2, *f.tail), bool)
        for name, f in fields.items()
    }  # fmt: skip
    arrays |= {"timestamps": np.array([0.0, 0.04]), "frame_index": np.array([0, 1], "<i4")}
    arrays |= {"face_presence": np.ones(2, "<f4"), "pose": np.zeros((2, 3), "<f4")}
    arrays |= {"eye_distance_px": np.full(2, 50, "<f4")}
    for start in range(0, len(paths), PER_SHARD):
        videos = [(_row(path), [arrays]) for path in paths[start : start + PER_SHARD]]
        write_shard(new_shard_path(shards), videos, made)


def _row(path: Path) -> ShardRow:
    content = path.read_bytes()
    return ShardRow(
        file=path.name, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), length=2, fps=25.0,
        width=160, height=160, n_decoded=2, n_interpolated=0, status=Status.OK, message="",
    )  # fmt: skip


def measure(*arguments: str | Path) -> dict[str, float]:
    """One command: processor time with its children, wall time, and the peak memory of the largest of them."""
    started = time.perf_counter()
    command = [sys.executable, "-c", _LAUNCHER, str(NEMO), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"nemo {arguments[0]}: {done.stderr}")
    cpu, memory = map(float, done.stdout.split())
    return {"cpu_s": cpu, "wall_s": time.perf_counter() - started, "mb": memory / 1024}


def commands(folder: Path, paths: list[Path], workers: int) -> dict[str, dict[str, float]]:
    """Every command on one set of clips, in the order in which people run them."""
    data, table = folder / "out.h5", write_labels(folder, paths)
    prep = ("prep", paths[0].parent, data, "--workers", str(workers))
    return {
        "prep": measure(*prep),
        "rerun": measure(*prep),
        "info": measure("info", data),
        "verify": measure("verify", data),
        "label": measure("label", data, table),
        "report": measure("report", data, folder / "report.html"),
    }


def main() -> None:
    """Measure, print a table, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, nargs="*", default=[300, 3000, 10_000])
    parser.add_argument("--real", type=int, nargs="*", default=[30, 100, 300])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    for kind, counts in (("tracked", arguments.real), ("finished", arguments.clips)):
        for count in counts:
            with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="nemo-growth-") as name:
                folder = Path(name)
                write_clip(folder / "one.mp4", 10)
                paths = clips(folder / "clips", count, (folder / "one.mp4").read_bytes())
                if kind == "finished":
                    write_finished(folder / "out.shards", paths)
                time.sleep(SETTLED)
                found = commands(folder, paths, arguments.workers)
            results.append({"kind": kind, "clips": count, "commands": found})
            print(f"{kind} {count} done", file=sys.stderr)
    for kind in ("tracked", "finished"):
        shown = [r for r in results if r["kind"] == kind]
        if not shown:
            continue
        head = "Clips that are tracked" if kind == "tracked" else "Clips whose shards are there"
        rows = [
            [
                name,
                *(f"{r['commands'][name]['cpu_s']:.2f} ({r['commands'][name]['wall_s']:.2f})" for r in shown),
                *(f"{r['commands'][name]['mb']:.0f}" for r in shown),
            ]
            for name in shown[0]["commands"]
        ]
        counts = [r["clips"] for r in shown]
        print_table(
            head,
            ["command", *(f"{n} clips, CPU s (wall)" for n in counts), *(f"{n}, MB" for n in counts)],
            rows,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine_facts(), "cases": results}, indent=1))


if __name__ == "__main__":
    main()
