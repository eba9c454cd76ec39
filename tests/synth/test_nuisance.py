"""Age must not leak: what a face looks like apart from its age predicts age no better than the median."""

from __future__ import annotations

import numpy as np
import pytest

from nemo_pipeline.synth.identity import draw_identity
from nemo_pipeline.synth.plan import SynthConfig, draw_camera, draw_frames, draw_people, generator, list_clips
from nemo_pipeline.synth.portrait import portrait
from nemo_pipeline.synth.render import ClipRenderer, Subject
from nemo_pipeline.synth.texture import draw_complexion


def better_than_median(features, ages) -> float:
    """How much lower a ridge regression's mean absolute error is than the median's, as a fraction of it; both
    cross-validated over ten parts. (n, k) features, (n,) ages."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13)))
    error = np.abs(cross_val_predict(model, features, ages, cv=10) - ages).mean()
    base = np.abs(np.median(ages) - ages).mean()
    return float(1 - error / base)


def numbers(value) -> list[float]:
    """All numbers in a dataclass, depth first."""
    if isinstance(value, (int, float)):
        return [float(value)]
    if isinstance(value, np.ndarray):
        return value.ravel().tolist()
    if isinstance(value, tuple):
        return [n for item in value for n in numbers(item)]
    if hasattr(value, "__dataclass_fields__"):
        # Seeds and courses of lines are not measures.
        skip = {"grain_seed", "backdrop_seed", "lines"}
        return [
            n
            for name in value.__dataclass_fields__
            if name not in skip
            for n in numbers(getattr(value, name))
        ]
    return []


@pytest.mark.parametrize("settings", [{}, {"profile": "nemo"}, {"balanced": True, "appearance": 0}])
def test_parameters_of_face_skin_and_camera_say_nothing_of_age(settings):
    config = SynthConfig(subjects=200, clips=1, seed=5, **settings)
    rows, ages = [], []
    for person in draw_people(config):
        rng = generator(config, 1, person.index)
        who, look = draw_identity(rng, person.gender), draw_complexion(rng, portrait(), person.tone)
        rng = generator(config, 2, person.index, 0)
        length = draw_frames(rng, config)
        camera = draw_camera(rng, config)
        shape = numbers(who)
        wobble = who.wobble.ravel().tolist()
        shape = [n for n in shape if n not in wobble] + who.wobble.mean(0).tolist()
        rows.append([*shape, *numbers(look), *numbers(camera), length, person.gender == "male"])
        ages.append(person.age)
    assert better_than_median(np.array(rows), np.array(ages, float)) < 0.02


def test_brightness_position_and_background_say_nothing_of_age():
    """On rendered pictures: mean gray of face and frame, place and size of the face, colours of the
    background."""
    config = SynthConfig(subjects=60, clips=1, seed=5, width=128, height=128)
    rows, ages = [], []
    for clip in list_clips(config):
        renderer = ClipRenderer(Subject(config, clip.person), clip)
        picture = next(renderer.frames()).astype(np.float64)
        points = renderer.truth.landmarks[0]
        x0, y0 = np.maximum(points.min(0), 0).astype(int)
        x1, y1 = points.max(0).astype(int)
        face = picture[y0:y1, x0:x1]
        corners = [picture[:20, :20].mean((0, 1)), picture[:20, -20:].mean((0, 1))]
        rows.append([
            face.mean(), picture.mean(), *face.mean((0, 1)), *points.mean(0), np.hypot(*(points[45] - points[36])),
            *np.ravel(corners), renderer.camera.noise, *renderer.pose.mean(0),
        ])  # fmt: skip
        ages.append(clip.person.age)
    assert better_than_median(np.array(rows), np.array(ages, float)) < 0.03
