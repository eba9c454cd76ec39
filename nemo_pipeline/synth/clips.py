"""One clip after the other: as a video, or as warped faces without one, each with its truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nemo_pipeline.synth.plan import ClipPlan, SynthConfig
from nemo_pipeline.synth.truth import ClipTruth

if TYPE_CHECKING:
    from nemo_pipeline.synth.render import ClipRenderer


def render_clips(config: SynthConfig, clips: list[ClipPlan], directory: Path) -> Iterator[ClipTruth]:
    """Render clips into `directory` (those that are there already are kept) and yield each one's truth."""
    from nemo_pipeline.synth.encode import is_whole, write_mp4

    for renderer in renderers(config, clips):
        path = directory / f"{renderer.clip.name}.mp4"
        if not is_whole(path, len(renderer.truth.landmarks)):
            write_mp4(path, renderer.frames(), renderer.noise(), config.fps, config.quality)
        yield clip_truth(renderer)


def warped_clips(
    config: SynthConfig, clips: list[ClipPlan], size: int
) -> Iterator[tuple[ClipTruth, np.ndarray]]:
    """Each clip's truth and its faces, (T, size, size) uint8: gray, noisy, warped to the shipped mean
    shape."""
    import cv2

    from nemo_pipeline.stages.warp import FaceWarp

    warp = FaceWarp(size=size)
    for renderer in renderers(config, clips):
        truth = clip_truth(renderer)
        faces = np.empty((len(truth.landmarks), size, size), np.uint8)
        gray = np.zeros((config.height, config.width), np.uint8)
        pairs = zip(renderer.faces(), renderer.noise(), strict=True)
        for index, ((window, picture), grain) in enumerate(pairs):
            noisy = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.int16) + grain[window]
            gray[window] = np.clip(noisy, 0, 255)
            faces[index] = warp(gray, renderer.truth.landmarks[index])
        yield truth, faces


def renderers(config: SynthConfig, clips: list[ClipPlan]) -> Iterator[ClipRenderer]:
    """A renderer for each clip in turn; OpenCV keeps to one thread meanwhile, since the work is shared by
    clips."""
    import cv2

    from nemo_pipeline.synth.render import ClipRenderer, Subject

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        subject: Subject | None = None
        for clip in clips:
            if subject is None or subject.person != clip.person:
                subject = Subject(config, clip.person)
            yield ClipRenderer(subject, clip)
    finally:
        cv2.setNumThreads(threads)


def clip_truth(renderer: ClipRenderer) -> ClipTruth:
    """What is known of a clip, ready to be written."""
    truth, subject, clip = renderer.truth, renderer.subject, renderer.clip
    values = {
        "subject": clip.person.code,
        "age": clip.person.age,
        "gender": clip.person.gender,
        "expression": clip.expression,
        "condition": clip.condition,
        "fps": renderer.config.fps,
        "width": renderer.config.width,
        "height": renderer.config.height,
        "camera": dataclasses.asdict(truth.camera),
        "identity": dataclasses.asdict(subject.identity),
        "complexion": {k: v for k, v in dataclasses.asdict(subject.look).items() if k != "lines"},
        "line_depths": subject.look.lines.depths,
    }
    phases = np.array([truth.course.onset, truth.course.apex, truth.course.offset], np.int32)
    return ClipTruth(
        f"{clip.name}.mp4",
        truth.landmarks.astype(np.float32),
        truth.pose.astype(np.float32),
        truth.course.intensity.astype(np.float32),
        phases,
        _plain(values),
    )


def _plain(value: Any) -> Any:
    """JSON's types."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
