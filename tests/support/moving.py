"""Videos of plain arrays with an expression, for the compared methods."""

from __future__ import annotations

import numpy as np

from nemo_pipeline.geometry import shipped_mean_shape, shipped_template
from siam_model.methods.grid import hull_of
from siam_model.methods.inputs import ArrayVideo
from tests.support.siam_smiles import smile_course


def moving_video(
    age: float = 40,
    seed: int = 0,
    frames: int = 24,
    size: int = 48,
    fps: float = 25,
    kind: str = "smile",
    key: str = "",
) -> ArrayVideo:
    """A textured face whose stripes deepen with age and expression.

    Args:
        kind: `smile`, `disgust` or `still`; older smiles are slower.
        key: see `ArrayVideo`.
    """
    rng = np.random.default_rng(seed)
    y, _ = np.mgrid[:size, :size]
    course = smile_course(frames) if frames > 1 and kind != "still" else np.zeros(frames)
    stripes = np.sin(y * 2.1)[None] * (0.3 + course[:, None, None])
    faces = rng.uniform(100, 140) + age * 0.8 * stripes + rng.normal(0, 3, (frames, size, size))
    faces = np.clip(np.where(hull_of(shipped_template(size)), faces, 0), 0, 255).astype(np.uint8)
    points = np.repeat((shipped_mean_shape() * 80 + 160)[None], frames, axis=0)
    if kind == "disgust":
        points[:, [31, 35, 50, 52], 1] -= 6 * course[:, None]
    else:
        points[:, 48, 0] -= 6 * course
        points[:, 54, 0] += 6 * course
    times = np.arange(frames) / fps * (1 + age / 40)
    return ArrayVideo(faces, points, times, expression="" if kind == "still" else kind, key=key)


def moving_people(
    people: int = 6, clips: int = 2, **options
) -> tuple[list[ArrayVideo], np.ndarray, list[str]]:
    """Videos, ages (years) and subjects."""
    ages = np.repeat(np.linspace(10, 70, people).round(), clips)
    subjects = [f"s{i // clips}" for i in range(people * clips)]
    return [moving_video(age, seed, **options) for seed, age in enumerate(ages)], ages, subjects
