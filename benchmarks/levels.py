"""The clips of benchmarks/accuracy.py: a set of synthetic people, filmed again with smaller faces, more noise, ...

Every level shows the same people, courses, cameras and backgrounds as the first of the base set: only what the level
is about differs. Rendered by nemo_pipeline.synth; nothing here says anything about people.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nemo_pipeline.stages.warp import FaceWarp
from nemo_pipeline.synth.clips import clip_truth
from nemo_pipeline.synth.encode import write_mp4
from nemo_pipeline.synth.mark import mark_text
from nemo_pipeline.synth.plan import SynthConfig, list_clips
from nemo_pipeline.synth.render import ClipRenderer, Subject
from nemo_pipeline.synth.shade import MeanShapeView
from nemo_pipeline.synth.take import still_take
from nemo_pipeline.synth.truth import ClipTruth, load_part, save_part
from nemo_pipeline.synth.worker import config_from


@dataclasses.dataclass(frozen=True, slots=True)
class Level:
    """One way to film: what differs from the base set, and under which heading and value it is reported."""

    name: str
    about: str = ""
    value: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    still: bool = False


#: The base set first; it is also the middle of every series.
LEVELS = (
    Level("base"),
    Level("still", still=True),
    Level("face-9", "outer-eye distance / height", "0.09", {"face": (0.09, 0.09)}),
    Level("face-15", "outer-eye distance / height", "0.15", {"face": (0.15, 0.15)}),
    Level("noise-0", "camera noise", "0", {"noise": 0.0}),
    Level("noise-4", "camera noise", "4", {"noise": 4.0}),
    Level("motion-0", "head motion", "0", {"motion": 0.0}),
    Level("motion-3", "head motion", "3", {"motion": 3.0}),
)
BASE_VALUES = {"outer-eye distance / height": "0.21 to 0.29", "camera noise": "1", "head motion": "1"}


def level_config(base: SynthConfig, level: Level) -> SynthConfig:
    """The settings of a level."""
    return dataclasses.replace(base, **level.settings)


def make_level(root: Path, base: SynthConfig, level: Level, count: int, workers: int) -> None:
    """Render the first `count` clips of a level into root/<level>, with truth and reference faces next to them.

    What is there already stays. Parts: root/<level>/parts/<clip>.npz.
    """
    folder, config = root / level.name, level_config(base, level)
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    (folder / "synth.json").write_text(mark_text(config.to_dict()), encoding="utf-8")
    shares: dict[int, list[int]] = {}
    for index, clip in enumerate(list_clips(config)[:count]):
        if not (folder / "parts" / f"{clip.name}.npz").exists():
            shares.setdefault(clip.person.index, []).append(index)
    jobs = [(config.to_dict(), indices, str(folder), level.still) for indices in shares.values()]
    if workers > 1 and len(jobs) > 1:
        # Started again, not forked: OpenCV's and x264's threads do not survive a fork.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(_render_person, jobs))
    else:
        for job in jobs:
            _render_person(job)


def _render_person(job: tuple[dict[str, Any], list[int], str, bool]) -> None:
    """All wanted clips of one person: the video, its truth, and its faces before noise and compression."""
    values, indices, folder, still = job
    cv2.setNumThreads(1)
    config = config_from(values)
    plan = list_clips(config)
    subject = Subject(config, plan[indices[0]].person)
    warp = FaceWarp()
    for index in indices:
        clip = plan[index]
        renderer = ClipRenderer(subject, clip, still_take(config, clip) if still else None)
        faces: list[np.ndarray] = []

        def seen(renderer: ClipRenderer, faces: list[np.ndarray]) -> Iterator[np.ndarray]:
            for points, picture in zip(renderer.truth.landmarks, renderer.frames(), strict=True):
                faces.append(warp(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), points))
                yield picture

        path = Path(folder) / f"{clip.name}.mp4"
        write_mp4(path, seen(renderer, faces), renderer.noise(), config.fps, config.quality)
        part = Path(folder) / "parts" / f"{clip.name}.npz"
        save_part(part.with_suffix(".part"), clip_truth(renderer), np.stack(faces))
        part.with_suffix(".part").replace(part)


def read_level(
    root: Path, base: SynthConfig, level: Level, count: int
) -> Iterator[tuple[ClipTruth, np.ndarray]]:
    """Truth and reference faces (T,114,114) of each clip."""
    for clip in list_clips(level_config(base, level))[:count]:
        truth, faces = load_part(root / level.name / "parts" / f"{clip.name}.npz")
        assert faces is not None
        yield truth, faces


def render_directly(root: Path, base: SynthConfig, count: int) -> Iterator[np.ndarray]:
    """(T,114,114) faces of each clip of the base set, rendered in the mean shape itself."""
    view, subject = MeanShapeView(), None
    for clip in list_clips(base)[:count]:
        path = root / "base" / "parts" / f"{clip.name}.direct.npy"
        if not path.exists():
            if subject is None or subject.person != clip.person:
                subject = Subject(base, clip.person)
            renderer = ClipRenderer(subject, clip)
            with path.with_suffix(".part").open("wb") as file:
                np.save(file, np.stack([view(renderer, frame) for frame in range(len(renderer.pose))]))
            path.with_suffix(".part").replace(path)
        yield np.load(path)


def same_settings(root: Path, about: dict[str, Any]) -> bool:
    """Whether `root` is new, or was begun with the same settings (which are then written down)."""
    mark, text = root / "accuracy.json", json.dumps(about, sort_keys=True)
    if mark.exists():
        return mark.read_text(encoding="utf-8") == text
    root.mkdir(parents=True, exist_ok=True)
    mark.write_text(text, encoding="utf-8")
    return True
