"""The age of the tracked face in every frame of a clip, each as a still picture: both sides of that job in a child."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.batch.heat import draw_in_child
from nemo_pipeline.batch.worker import Pool
from nemo_pipeline.errors import DataError

#: So many faces are given to the network at once.
_BATCH = 16


def still_ages(
    path: Path,
    frame_index: Sequence[int] | NDArray[np.integer],
    landmarks: NDArray[np.floating],
    folder: Path,
    pool: Pool,
    *,
    stream: int = -1,
    timeout: float | None = None,
    on_frames: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Years, (T,) float32, one for each frame of `frame_index`.

    Args:
        path: the clip.
        frame_index: (T,) numbers of decoded frames, rising.
        landmarks: (T, 68, 2) of the face in them, source pixels.
        folder: for files between the processes; the caller removes it.
        pool: of child processes.
        stream: the video stream, below 0 the clip's default one.
        timeout: seconds, or None.
        on_frames: told now and then how many frames were decoded.

    Raises:
        NemoError: the clip could not be read again, with the reason, or the package is missing.
    """
    arrays, target = folder / "still-in.npz", folder / "still-out.npz"
    np.savez(arrays, frame_index=np.asarray(frame_index), landmarks=landmarks)
    job = {
        "do": "still-age",
        "path": str(path),
        "target": str(target),
        "arrays": str(arrays),
        "stream": stream,
    }
    note = draw_in_child(job, pool, timeout=timeout, on_frames=on_frames, undone="Its age was not estimated")
    if note:
        raise DataError(note, path)
    with np.load(target, allow_pickle=False) as file:
        ages: NDArray[np.float32] = file["ages"]
    return ages


def draw_job(job: dict[str, Any], progress: Callable[[int], None]) -> None:
    """The child's side. Raises NemoError when the clip cannot be read."""
    from nemo_pipeline.stages.decode import DecodeError, VideoReader
    from nemo_pipeline.stages.still_age import StillAge

    with np.load(job["arrays"], allow_pickle=False) as file:
        place = {int(frame): t for t, frame in enumerate(file["frame_index"])}
        landmarks = file["landmarks"]
    network, chips, ages = StillAge(), [], np.full(len(place), np.nan, np.float32)
    waiting: list[int] = []
    try:
        with VideoReader(Path(job["path"]), job["stream"]) as reader:
            for frame in reader:
                if frame.index % 16 == 0:
                    progress(frame.index + 1)
                t = place.pop(frame.index, None)
                if t is not None:
                    chips.append(network.chip(frame.rgb(), landmarks[t]))
                    waiting.append(t)
                if waiting and (len(waiting) == _BATCH or not place):
                    ages[waiting] = network.ages(chips)
                    chips, waiting = [], []
                if not place:
                    break
    except DecodeError as error:
        raise DataError(f"{job['path']} could not be read again: {error}", job["path"]) from None
    if place:
        raise DataError(
            f"{job['path']} has fewer frames than before: it changed, or its disk is failing.", job["path"]
        )
    np.savez(job["target"], ages=ages)
