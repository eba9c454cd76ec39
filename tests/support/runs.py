"""Runs of `nemo prep` over tiny clips of a real face (the public-domain portrait that scikit-image ships)."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import skimage.data

from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.run import PrepInputs, RunOptions, prep
from nemo_pipeline.config import PrepConfig

CONFIG = PrepConfig(size=48)


def write_clip(
    path: Path, *, frames: int = 10, seed: int = 0, side: int = 160, gain: float | None = None
) -> Path:
    """A face that moves a little, differently for every seed. `gain` 0 makes it black."""
    rng = np.random.default_rng(seed)
    portrait = skimage.data.astronaut()
    top, left = rng.integers(4, 16), rng.integers(140, 160)
    gain = rng.uniform(0.8, 1.1) if gain is None else gain
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = side
        stream.bit_rate = 1_000_000
        for i in range(frames):
            dx, dy = int(3 * np.sin(i / 5 + seed)), int(2 * np.cos(i / 4))
            picture = portrait[top + dy : top + dy + side, left + dx : left + dx + side]
            picture = np.clip(picture * gain, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def arrays(path: Path) -> dict[str, dict[str, bytes]]:
    """Every array of every video of an out.h5, by file and dataset."""
    from nemo_pipeline.store import FaceDataset

    data = FaceDataset(path)
    return {
        f"{video.file} {video.id}": {name: video.read(name).tobytes() for name in data.fields}
        for video in data.values()
    }


def run(inputs, output, *, config=CONFIG, workers=1, events=None, on_event=None, labels=None, **options):
    heard = [] if events is None else events

    def hear(event):
        heard.append(event)
        if on_event is not None:
            on_event(event)

    videos = discover(inputs).videos
    run_options = RunOptions(workers=workers, **options)
    return prep(PrepInputs(videos, labels=labels), output, config, run_options, on_event=hear)


def copy_of(first, tmp_path):
    _, output = first
    shutil.copytree(output.with_suffix(".shards"), tmp_path / "out.shards")
    return Path(shutil.copy(output, tmp_path / "out.h5"))
