"""Unseen: what a video without a face shows instead, so that its message says where to look."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nemo_pipeline.stages.decode import DecodeError, VideoReader
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.landmarks import Engine
from nemo_pipeline.stages.quality import SMALLEST_EYE_DISTANCE_PX
from nemo_pipeline.stages.search import CONFIRM, candidates
from nemo_pipeline.store.text import pluralize

#: Pictures that are looked at again.
LOOKS = 3
#: Mean gray levels below and above which a picture shows no face to anybody, and the least spread.
DARK, BRIGHT, FLAT = 12.0, 243.0, 3.0
#: Of what looks like a face, the largest within this of the best score is named.
AS_LIKELY = 0.05
#: Distance of the outer eye corners over the side of a detected face's box, median.
EYES_OF_BOX = 0.55


def why_no_face(path: str | Path, stream: int, engine: Engine, n_frames: int) -> str:
    """The sentence for a video in which no face was found, with what a few of its pictures show: how bright they
    are, and the largest candidate for a face.

    Args:
        path: the video.
        stream: its video stream.
        engine: the landmark engine.
        n_frames: frames decoded.
    """
    with contextlib.suppress(DecodeError), VideoReader(path, stream) as reader:
        return why_no_face_in(reader.sample(LOOKS), engine, pluralize(n_frames, "frame"))
    return why_no_face_in([], engine, pluralize(n_frames, "frame"))


def why_no_face_in(frames: Iterable[Frame], engine: Engine, where: str, kind: str = "clip") -> str:
    """The sentence for pictures in which no face was found, `where` says in what; `kind` is what the file is."""
    levels, spreads, found = [], [], []
    with contextlib.suppress(DecodeError):
        for frame in frames:
            gray = frame.gray()
            levels.append(float(gray.mean()))
            spreads.append(float(gray.std()))
            found += candidates(engine, frame)
    start = f"No face was found in {where}"
    if not levels:
        return f"{start}; check that the {kind} shows one."
    level, spread = float(np.median(levels)), float(np.median(spreads))
    shown = f"mean level {level:.0f} of 255"
    if spread < FLAT or not DARK <= level <= BRIGHT:
        what = "black" if level < DARK else "white" if level > BRIGHT else "of one gray level"
        return (
            f"{start}: the picture is nearly {what} ({shown}); make a copy with other levels "
            f"(ffmpeg -i FILE -vf normalize NEW.{'mp4' if kind == 'clip' else 'png'}), or check what was recorded."
        )
    if not found:
        return (
            f"{start} ({shown}, and nothing looks like a face); check that the {kind} shows a face of at least "
            f"{SMALLEST_EYE_DISTANCE_PX:.0f} pixels between the outer eye corners."
        )
    best = max(score for score, _ in found)
    size, score = max((size, score) for score, size in found if score >= best - AS_LIKELY)
    eyes, least = size * EYES_OF_BOX, max(least for least, _ in CONFIRM)
    judged = (
        f" and a score of {score:.2f}, where faces have {least:g} and more"
        if score < least
        else ", and the landmark network finds no face there"
    )
    advice = (
        f"{SMALLEST_EYE_DISTANCE_PX:.0f} pixels are needed: use a version of the {kind} with more pixels"
        if eyes < SMALLEST_EYE_DISTANCE_PX
        else f"check that the {kind} shows a face that is sharp, large and not covered"
    )
    return (
        f"{start} ({shown}; the largest candidate has about {eyes:.0f} pixels between the outer eye corners{judged}); "
        f"{advice}."
    )
