"""How fast `FaceDataset` reads faces: clips in order and at random, from shards and from one packed file, in 1 and 2
processes, against reading the same bytes as files; and what chunks of one frame cost against larger ones.

    python benchmarks/loading.py [--clips 2000] [--frames 30] [--repeats 3] [--folder DIR] [--json FILE]

"cold": the system was told to forget the file first (posix_fadvise; nothing where the folder is in memory). "warm": it
was just read. Rates are of faces, MB/s of the least wall time of the repeats; CPU is processor time per 1,000 frames.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, print_table

from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.store.files import open_h5
from nemo_pipeline.store.pack import pack

SIDE = 114
#: Frames of a chunk that are compared; 0 is one contiguous dataset.
CHUNKS = (1, 4, 16, 64, 0)


def write_clips(path: Path, clips: int, frames: int) -> Path:
    """Noise: nothing on the way could make it smaller."""
    rng = np.random.default_rng(0)
    made = (
        {"id": f"v{i}", "frames": rng.integers(0, 256, (frames, SIDE, SIDE), dtype=np.uint8)}
        for i in range(clips)
    )
    return write_dataset(path, made)


def forget(paths: Sequence[Path]) -> None:
    """Out of the system's memory with them."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def raw(paths: Sequence[Path]) -> None:
    """The files as they are, a megabyte at a time."""
    buffer = bytearray(1 << 20)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def read_clips(path: Path, rows: Sequence[int]) -> float:
    """The faces of these clips; processor time that it took."""
    started = time.process_time()
    with FaceDataset(path) as data:
        for row in rows:
            data.read(row, "frames")
    return time.process_time() - started


def read_slices(path: Path, starts: Sequence[int], count: int) -> float:
    """So many frames of /frames from each place; processor time that it took."""
    started = time.process_time()
    with open_h5(path) as file:
        frames = file["frames"]
        for start in starts:
            frames[start : start + count]
    return time.process_time() - started


def timed(call: Callable[[], Any], files: Sequence[Path], repeats: int, cold: bool) -> tuple[float, float]:
    """Least wall time, and the processor time that `call` says it took then."""
    best = (float("inf"), 0.0)
    for _ in range(repeats):
        if cold:
            forget(files)
        started = time.perf_counter()
        used = call()
        best = min(best, (time.perf_counter() - started, used or 0.0))
    return best


def readers(folder: Path, clips: int, frames: int, repeats: int) -> list[dict[str, Any]]:
    """Every way to the same faces."""
    index = write_clips(folder / "noise.h5", clips, frames)
    packed = pack(index, folder / "packed.h5")
    shards = sorted((folder / "noise.shards").glob("*.h5"))
    order = {
        "in order": list(range(clips)),
        "at random": np.random.default_rng(1).permutation(clips).tolist(),
    }
    results = []

    def add(name: str, how: str, workers: int, call: Callable[[], Any], files: Sequence[Path]) -> None:
        for cold in (True, False):
            wall, cpu = timed(call, files, repeats, cold)
            results.append(
                {
                    "source": name, "order": how, "workers": workers, "cold": cold, "wall_s": wall, "cpu_s": cpu,
                    "mb_s": clips * frames * SIDE**2 / wall / 1e6, "cpu_ms_1000": cpu / clips / frames * 1e6,
                }
            )  # fmt: skip
        print(f"{name} {how} {workers} done", file=sys.stderr)

    add("the shards as files", "in order", 1, lambda: raw(shards), shards)
    for name, path, files in (("shards", index, shards), ("packed", packed, [packed])):
        for how, rows in order.items():
            add(name, how, 1, functools.partial(read_clips, path, rows), files)
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                pool.starmap(read_clips, [(path, [0]), (path, [0])])
                parts = [(path, rows[0::2]), (path, rows[1::2])] if how == "at random" else halves(path, rows)
                add(name, how, 2, lambda pool=pool, parts=parts: sum(pool.starmap(read_clips, parts)), files)
    return results


def halves(path: Path, rows: list[int]) -> list[tuple[Path, list[int]]]:
    """The first and the second half."""
    middle = len(rows) // 2
    return [(path, rows[:middle]), (path, rows[middle:])]


def chunked(folder: Path, clips: int, frames: int, repeats: int) -> list[dict[str, Any]]:
    """The same faces in chunks of several sizes: clips in order and at random, and single frames at random."""
    rng, results = np.random.default_rng(2), []
    content = rng.integers(0, 256, (frames, SIDE, SIDE), dtype=np.uint8)
    order = rng.permutation(clips) * frames
    single = rng.permutation(clips * frames)[: 10 * clips]
    for size in CHUNKS:
        path = folder / f"chunks{size}.h5"
        with h5py.File(path, "w", libver="v110") as file:
            shape = (clips * frames, SIDE, SIDE)
            made = file.create_dataset("frames", shape, "u1", chunks=(size, SIDE, SIDE) if size else None)
            for start in range(0, shape[0], frames):
                made[start : start + frames] = content
        line: dict[str, Any] = {"chunk": size, "file_mb": path.stat().st_size / 1e6}
        for name, starts, count in (
            ("clips in order", sorted(order.tolist()), frames), ("clips at random", order.tolist(), frames),
            ("frames at random", single.tolist(), 1),
        ):  # fmt: skip
            for cold in (True, False):
                wall, cpu = timed(functools.partial(read_slices, path, starts, count), [path], repeats, cold)
                n = len(starts) * count
                line[f"{name}, {'cold' if cold else 'warm'}"] = {
                    "mb_s": n * SIDE**2 / wall / 1e6, "cpu_ms_1000": cpu / n * 1e6,
                }  # fmt: skip
        results.append(line)
        path.unlink()
        print(f"chunks of {size} done", file=sys.stderr)
    return results


def main() -> None:
    """Measure, print two tables, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sizes = (arguments.clips, arguments.frames, arguments.repeats)
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="nemo-loading-") as name:
        found = readers(Path(name), *sizes)
        chunks = chunked(Path(name), *sizes)
    disk = {line["cold"]: line["mb_s"] for line in found[:2]}
    print_table(
        f"{arguments.clips} clips of {arguments.frames} frames",
        ["faces from", "clips", "processes", "cold, MB/s", "of the files'", "warm, MB/s", "of the files'",
         "CPU, ms per 1,000 frames"],
        [
            [
                cold["source"], cold["order"], cold["workers"],
                f"{cold['mb_s']:.0f}", f"{cold['mb_s'] / disk[True]:.2f}",
                f"{warm['mb_s']:.0f}", f"{warm['mb_s'] / disk[False]:.2f}", f"{warm['cpu_ms_1000']:.1f}",
            ]
            for cold, warm in zip(found[::2], found[1::2], strict=True)
        ],
    )  # fmt: skip
    names = [name for name in chunks[0] if name not in ("chunk", "file_mb")]
    print_table(
        "MB/s of faces (CPU, ms per 1,000 frames) with chunks of so many frames",
        ["chunk", *names],
        [
            [
                line["chunk"] or "none: contiguous",
                *(f"{line[name]['mb_s']:.0f} ({line[name]['cpu_ms_1000']:.1f})" for name in names),
            ]
            for line in chunks
        ],
    )
    if arguments.json:
        facts = machine_facts()
        arguments.json.write_text(
            json.dumps({"machine": facts, "readers": found, "chunks": chunks}, indent=1)
        )


if __name__ == "__main__":
    main()
