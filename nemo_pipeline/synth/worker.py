"""Renders clips, in this process or as `python -m nemo_pipeline.synth.worker` for a parent.

A plain process with a pipe, not a fork: OpenCV's and x264's threads do not survive forks, and a caller's main
module need not be importable. The request comes as one JSON line on standard input; one JSON line per
finished clip goes to standard output; an error ends it with a line that says so.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from nemo_pipeline.synth.plan import Clip, SynthConfig, list_clips
from nemo_pipeline.synth.truth import ClipTruth, save_part

if TYPE_CHECKING:
    from nemo_pipeline.synth.render import ClipRenderer


def render_clips(config: SynthConfig, clips: list[Clip], directory: Path) -> Iterator[ClipTruth]:
    """Render clips into `directory` (those that are there already are kept) and yield each one's truth."""
    from nemo_pipeline.synth.encode import write_mp4

    for renderer in renderers(config, clips):
        path = directory / f"{renderer.clip.name}.mp4"
        if not path.exists():
            write_mp4(path, renderer.frames(), renderer.noise(), config.fps, config.quality)
        yield truth_of(renderer)


def renderers(config: SynthConfig, clips: list[Clip]) -> Iterator[ClipRenderer]:
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


def truth_of(renderer: ClipRenderer) -> ClipTruth:
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


def main() -> int:
    """Serve one request (see the module's text). Keys: config, clips (indices), parts, and either directory
    (for mp4 files) or size (for warped faces of that side)."""
    request = json.loads(sys.stdin.readline())
    # The answers go to a private copy of standard output; whatever a library prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        config = config_from(request["config"])
        everything, parts = list_clips(config), Path(request["parts"])
        clips = [everything[index] for index in request["clips"]]
        if "directory" in request:
            done: Iterator[ClipTruth] = render_clips(config, clips, Path(request["directory"]))
            for index, truth in zip(request["clips"], done, strict=True):
                save_part(parts / f"{index}.npz", truth)
                _answer(answers, {"clip": index})
        else:
            from nemo_pipeline.synth.direct import warped_clips

            faces = warped_clips(config, clips, int(request["size"]))
            for index, (truth, frames) in zip(request["clips"], faces, strict=True):
                save_part(parts / f"{index}.npz", truth, frames)
                _answer(answers, {"clip": index})
    except BrokenPipeError:  # the parent is gone
        return 1
    except Exception as error:
        _answer(answers, {"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def _answer(answers: TextIO, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


def config_from(values: dict[str, Any]) -> SynthConfig:
    """SynthConfig from JSON (lists back to tuples)."""
    fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return SynthConfig(**fields)


if __name__ == "__main__":
    sys.exit(main())
