"""Streams: which video stream of a file is used, where it has several (screen and webcam, a proxy, two cameras)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nemo_pipeline.stages.container import VideoStream, default_stream, streams_note
from nemo_pipeline.stages.decode import VideoReader
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.landmarks import Engine
from nemo_pipeline.stages.search import full_search, quick_search
from nemo_pipeline.stages.track import observe
from nemo_pipeline.store.text import pluralize

#: Pictures of each stream that are looked at, spread over its length; fewer where every scale is searched.
LOOKS, THOROUGH_LOOKS = 8, 3
#: Of more streams the file's own choice is taken without a look: each look opens the file once more.
MOST_STREAMS = 16
#: The file's own choice stays unless another stream shows faces this much larger.
MUCH_LARGER = 1.25


def open_video(path: str | Path, wish: str, engine: Engine | None) -> VideoReader:
    """A reader of the stream that is wished for.

    Args:
        path: the video.
        wish: a stream's number (`VideoStream.index`); "default", the one that the file says is to be played;
            "largest", the one with the most pixels; "face", the one in which faces are largest over time (the
            default one where they are about as large in it, where there are none, and of more than `MOST_STREAMS`).
        engine: finds faces; without one, "face" means the default stream.

    Raises:
        DecodeError: the file cannot be read, is not a video, or has no such stream.
    """
    reader = VideoReader(path, int(wish) if wish.isdigit() else -1)
    choices = [stream for stream in reader.streams if stream.decodable and not stream.still]
    if wish not in ("largest", "face") or len(choices) < 2 or (wish == "face" and engine is None):
        return reader
    default = default_stream(choices)
    seen: dict[int, str] = {}
    if wish == "face" and engine is not None and len(choices) > MOST_STREAMS:
        best = default
    elif wish == "face" and engine is not None:
        weights, seen = _faces(path, choices, engine)
        best = max(choices, key=lambda stream: weights[stream.index])
        if weights[best.index] <= MUCH_LARGER * weights[default.index]:
            best = default
    else:
        best = max(choices, key=lambda stream: (stream.width * stream.height, stream is default))
    if best is not default:
        reader.close()
        reader = VideoReader(path, best.index)
    reader.report.streams = streams_note(reader.streams, best.index, seen)
    return reader


def _faces(
    path: str | Path, streams: list[VideoStream], engine: Engine
) -> tuple[dict[int, float], dict[int, str]]:
    """By a stream's index: mean size of its largest face over the pictures looked at (0 if no face was found), pixels
    between the outer eye corners; and a clause on it."""
    sizes: dict[int, list[float]] = {}
    for thorough in (False, True):
        for stream in streams:
            sizes[stream.index] = []
            with VideoReader(path, stream.index) as reader:
                for frame in reader.sample(THOROUGH_LOOKS if thorough else LOOKS):
                    sizes[stream.index].append(_largest_face(engine, frame, thorough))
        if any(max(found, default=0.0) for found in sizes.values()):
            break
    weights = {index: float(np.mean(found)) if found else 0.0 for index, found in sizes.items()}
    return weights, {index: _clause(found) for index, found in sizes.items()}


def _largest_face(engine: Engine, frame: Frame, thorough: bool) -> float:
    faces = full_search(engine, frame) if thorough else quick_search(engine, frame)
    return max((observe(mesh).eye_distance_px for mesh in faces), default=0.0)


def _clause(sizes: list[float]) -> str:
    there = [size for size in sizes if size]
    if not there:
        return f"no face in {pluralize(len(sizes), 'look')}"
    return (
        f"a face in {len(there)} of {pluralize(len(sizes), 'look')}, eyes {np.median(there):.0f} pixels apart"
    )
