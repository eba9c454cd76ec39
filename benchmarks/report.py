"""How large the report of a whole database is, how long it takes to make, and how long Chromium takes to show it.

    nemo synth --direct set.h5
    python benchmarks/report.py set.h5

The videos of set.h5 are repeated, each time another stretch of 120 to 280 frames, until there are 1240, as many as in
UvA-NEMO; the file that this makes (3.3 GB) is removed at the end.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.view.report import write_report

_FIELDS = (
    "frames",
    "landmarks",
    "landmarks_raw",
    "tracked",
    "pose",
    "eye_distance_px",
    "face_presence",
    "n_faces",
    "sharpness",
)


def repeated(data: FaceDataset, count: int) -> Iterator[dict[str, Any]]:
    """`count` videos, each a stretch of one of `data`, forwards and backwards; 2 % of the frames interpolated."""
    rng = np.random.default_rng(0)
    usable = data.usable
    for k in range(count):
        video = data[usable[k % len(usable)]]
        arrays = {name: video.read(name) for name in _FIELDS}
        length, n = int(rng.integers(120, 280)), video.length
        there = np.abs((np.arange(length) + rng.integers(0, n)) % max(1, 2 * n - 2) - (n - 1))
        chosen = {name: values[there] for name, values in arrays.items()}
        chosen["tracked"] &= rng.random(length) > 0.02
        yield {
            **chosen,
            "id": f"{k:04d}_smile",
            "fps": 50.0,
            "width": 1920,
            "height": 1080,
            "n_decoded": length + int(rng.integers(0, 20)),
            "subject": f"{k % 400:03d}",
            "age": float(rng.integers(8, 77)),
            "expression": "smile",
        }


def in_chromium(path: Path) -> list[str]:
    """Times of three visits; nothing where there is no Chromium."""
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    program = next(filter(None, found), None)
    if program is None:
        return ["no Chromium on this machine"]
    from playwright.sync_api import sync_playwright

    lines = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for _ in range(3):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(path.as_uri())
            paint, load = page.evaluate(
                "() => [performance.getEntriesByName('first-contentful-paint')[0].startTime,"
                " performance.getEntriesByType('navigation')[0].loadEventEnd]"
            )
            times = [
                page.evaluate(
                    "(what) => { const t = performance.now(); document.querySelector(what).click();"
                    " document.body.offsetHeight; return performance.now() - t; }",
                    what,
                )
                for what in ("#table thead th:nth-child(9) button", "#table .open")
            ]
            lines.append(
                f"first paint {paint:.0f} ms, loaded {load:.0f} ms; sort {times[0]:.0f} ms, open {times[1]:.0f} ms"
            )
            page.close()
        browser.close()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--videos", type=int, default=1240)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = FaceDataset(
            write_dataset(Path(folder) / "big.h5", repeated(FaceDataset(options.data), options.videos))
        )
        for faces in (True, False):
            path = Path(folder) / "report.html"
            start = time.perf_counter()
            write_report(data, path, faces=faces)
            seconds = time.perf_counter() - start
            what = "with faces" if faces else "without faces"
            print(f"{len(data.rows)} videos {what}: {path.stat().st_size / 1e6:.1f} MB in {seconds:.1f} s")
            for line in in_chromium(path):
                print("   ", line)


if __name__ == "__main__":
    main()
