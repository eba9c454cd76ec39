"""A whole database: 300 clips, every tenth broken in some way, killed three times and resumed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.run import PrepInputs, RunOptions, prep
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.verify import verify
from tests.support.runs import arrays, write_clip

N_CLIPS = 300


def broken(path: Path, good: bytes, kind: int, rng: random.Random) -> None:
    """A file that is broken in one of ten ways."""
    if kind == 0:
        path.write_bytes(b"")
    elif kind == 1:
        path.write_text("this is not a video")
    elif kind == 2:
        path.write_bytes(good[: len(good) // 2])
    elif kind == 3:
        damaged = bytearray(good)
        for _ in range(200):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
    elif kind == 4:
        path.symlink_to(path.parent / "nowhere.mp4")
    elif kind == 5:
        write_clip(path, frames=3)
    elif kind == 6:
        write_clip(path, frames=8, gain=0.0)
    elif kind == 7:
        path.write_bytes(rng.randbytes(5000))
    elif kind == 8:
        path.write_bytes(good[: len(good) * 9 // 10])
    else:
        path.symlink_to(path)


@pytest.mark.slow
def test_three_hundred_clips_killed_three_times(tmp_path):
    rng = random.Random(4)
    folder = tmp_path / "in"
    folder.mkdir()
    originals = [write_clip(tmp_path / f"o{i}.mp4", frames=8 + i, seed=i).read_bytes() for i in range(10)]
    for i in range(N_CLIPS):
        path = folder / f"clip{i}.mp4"
        good = originals[i % 10]
        if i % 10 == 7:
            broken(path, good, i // 10 % 10, rng)
        else:
            # The same pictures, but no two files with the same bytes: a free box at the end.
            path.write_bytes(good + (8 + 4).to_bytes(4, "big") + b"free" + i.to_bytes(4, "big"))
    expected = tmp_path / "expected.h5"
    config = PrepConfig(size=48)
    summary = prep(PrepInputs(discover([folder]).videos), expected, config, RunOptions())
    output = tmp_path / "out.h5"
    command = [sys.executable, "-m", "nemo_cli.main", "prep", str(folder), str(output), "--size", "48"]
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(rng.uniform(3, 10))
        os.kill(process.pid, signal.SIGKILL)
        _, said = process.communicate()
        print(said.decode().splitlines()[0])
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0
    print(done.stderr.decode().splitlines()[0])
    assert arrays(output) == arrays(expected)
    one, two = FaceDataset(output), FaceDataset(expected)
    for name in one.videos:
        assert list(map(str, one.videos[name])) == list(map(str, two.videos[name])), name
    assert len(one) == N_CLIPS and summary.n_failed <= 30
    assert [finding for finding in verify(output) if finding.level == "error"] == []
    assert not list(output.with_suffix(".shards").glob(".work*"))
    print(Counter(one.videos["status"]))
    shutil.rmtree(folder)
    assert arrays(output) == arrays(expected)
