"""What it costs to open a prepared file: all of it, and the digest that tells whether its tables were changed.

    python benchmarks/opening.py [--videos 1240 10000]

Processor time of this process, the least of 20 times; shards are not opened.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, print_table

from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.store.files import open_h5
from nemo_pipeline.store.sealed import read_tables


def videos(count: int) -> Iterator[dict[str, Any]]:
    """Two small faces each, with every label, and names as long as real ones."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 16), dtype=np.uint8)
    for i in range(count):
        name = f"{i:05d}_spontaneous_smile_1"
        yield {
            "id": name, "file": f"folder/{name}.mp4", "subject": f"{i // 3:05d}", "age": 20.0 + i % 50,
            "gender": "female", "expression": "smile", "condition": "spontaneous", "fold": i % 10,
            "sha256": f"{i:064x}", "frames": frames,
        }  # fmt: skip


def milliseconds(do: Callable[[], Any]) -> float:
    """Least processor time of 20."""
    times = []
    for _ in range(20):
        started = time.process_time()
        do()
        times.append(time.process_time() - started)
    return 1000 * min(times)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, nargs="+", default=[1240, 10_000])
    rows = []
    for count in parser.parse_args().videos:
        with tempfile.TemporaryDirectory() as folder:
            path = write_dataset(Path(folder) / "out.h5", videos(count))
            with open_h5(path) as file:
                tables = read_tables(file)
            opening, digest = (
                milliseconds(lambda p=path: FaceDataset(p, check=False)),
                milliseconds(tables.digest),
            )
            rows.append(
                [str(count), f"{path.stat().st_size / 1e6:.1f} MB", f"{opening:.0f} ms", f"{digest:.0f} ms"]
            )
    print_table("Opening a prepared file", ["videos", "index", "opening", "of that, digest"], rows)
    print(machine_facts())


if __name__ == "__main__":
    main()
