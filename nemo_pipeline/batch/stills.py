"""The age of the tracked face in every frame of a clip, each as a still picture: both sides of that job in a child."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.batch.heat import draw_in_child
from nemo_pipeline.batch.worker import Pool
from nemo_pipeline.errors import DataError
from nemo_pipeline.stages.still_age import check_installed
from nemo_pipeline.store.files import file_hash
from nemo_pipeline.store.reader import FaceDataset, FaceVideo
from nemo_pipeline.store.text import listed

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


def file_ages(
    data: FaceDataset,
    rows: Sequence[int],
    recordings: Sequence[str],
    on_row: Callable[[FaceVideo], None] = lambda video: None,
) -> NDArray[np.float64]:
    """Years, one for each of some rows of a prepared file: the median of the ages in its tracked frames, of the faces
    where the file has them.

    Args:
        data: the prepared file.
        rows: numbers of rows with frames.
        recordings: files or folders where the recordings are.
        on_row: called with each before it is done.

    Raises:
        NemoError: the package is missing; a recording is, or is not the one that was prepared; or it cannot be read.
    """
    from nemo_pipeline.batch.rewarp import locate_videos

    check_installed()
    if data.config.stills:
        raise DataError(
            f"{data.path} was prepared from pictures, and still-age looks at recordings.", data.path
        )
    paths = {video.file: (video.path, there) for video, there in locate_videos(data, recordings)}
    missing = sorted({data[row].file for row in rows if not paths[data[row].file][1]})
    if missing:
        places = listed([str(place) for place in recordings])
        raise DataError(
            f"still-age needs the recordings of {data.path.name}, and {listed(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not in {places}.",
            data.path,
        )
    ages, pool = [], Pool()
    try:
        for row in rows:
            video = data[row]
            path = paths[video.file][0]
            on_row(video)
            if file_hash(path)[1] != video.sha256:
                raise DataError(
                    f"{path} has other content than the video of this name that was prepared.", path
                )
            seen = video.tracked
            with tempfile.TemporaryDirectory(prefix="nemo-still-") as folder:  # mode 0700
                found = still_ages(
                    path,
                    video.frame_index[seen],
                    video.landmarks[seen],
                    Path(folder),
                    pool,
                    stream=video.stream,
                )
            ages.append(float(np.median(found)))
    finally:
        pool.stop()
    return np.array(ages)


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
