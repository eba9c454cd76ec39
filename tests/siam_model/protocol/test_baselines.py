"""Baselines: against plain loops and closed forms, and that they never look at the test part."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_pipeline.store import FaceDataset
from siam_model.data import labelled_videos
from siam_model.protocol.baselines import (
    NAMES,
    PENALTIES,
    Features,
    fit_baselines,
    phase_features,
    ridge,
    shrink,
)
from siam_model.protocol.splits import plan_splits
from tests.support.siam_faces import drawn_file


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 130), st.integers(1, 40))
def test_cells_are_means_of_their_pixels(size, side):
    image = np.random.default_rng(size).random((size, size))
    small = shrink(image, side)
    if size <= side:
        assert small is image
        return
    edges = [i * size // side for i in range(side)] + [size]
    for i in range(0, side, max(1, side // 5)):
        for j in range(0, side, max(1, side // 5)):
            cell = image[edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
            assert small[i, j] == pytest.approx(cell.mean(), rel=1e-12)


def closed_form(x: np.ndarray, y: np.ndarray, new: np.ndarray, penalty: float) -> np.ndarray:
    """Ridge on standardised features, ages centred: w = (X'X + aI)^-1 X'y."""
    centre, spread = x.mean(0), x.std(0)
    z, zn = (x - centre) / spread, (new - centre) / spread
    w = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (y - y.mean()))
    return y.mean() + zn @ w


def test_ridge_is_the_closed_form_with_the_penalty_that_grouped_folds_choose():
    """The penalty by plain loops: every one on folds of subjects, each subject in one of them."""
    from sklearn.model_selection import GroupKFold

    rng = np.random.default_rng(0)
    x, groups = rng.normal(3, 2, (40, 6)), [f"s{i // 2}" for i in range(40)]
    age = 40 + 5 * x[:, 0] + rng.normal(0, 6, 40)
    new = rng.normal(3, 2, (7, 6))
    errors = []
    centre, spread = x.mean(0), x.std(0)
    z = (x - centre) / spread
    for penalty in PENALTIES:
        folds = []
        for inside, outside in GroupKFold(5).split(z, age, groups):
            assert not {groups[i] for i in inside} & {groups[i] for i in outside}
            mean = z[inside].mean(0)
            zi, yi = z[inside] - mean, age[inside]
            w = np.linalg.solve(zi.T @ zi + penalty * np.eye(6), zi.T @ (yi - yi.mean()))
            folds.append(np.abs(yi.mean() + (z[outside] - mean) @ w - age[outside]).mean())
        errors.append(np.mean(folds))
    best = PENALTIES[int(np.argmin(errors))]
    np.testing.assert_allclose(ridge(x, age, groups, new), closed_form(x, age, new, best), rtol=1e-9)


def test_ridge_survives_what_does_not_vary():
    age = np.array([20.0, 30.0, 40.0, 50.0])
    flat = np.ones((4, 3))
    np.testing.assert_array_equal(ridge(flat, age, list("abcd"), np.zeros((2, 3))), [35.0, 35.0])
    one = np.c_[np.ones(4), np.arange(4.0)]
    assert np.isfinite(ridge(one, age, list("aaaa"), one)).all()  # a single subject: nothing to choose with
    assert ridge(one, age, list("aabb"), np.array([[99.0, 1.0]])) == pytest.approx(
        ridge(one, age, list("aabb"), np.array([[1.0, 1.0]]))
    )


def smile(t: int = 60, rise: int = 20, height: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks whose lip corners go apart from frame 10 on, stay, and come back."""
    rng = np.random.default_rng(0)
    face = rng.uniform(-1, 1, (68, 2))
    face[36], face[39], face[42], face[45] = (-2, -2), (-1, -2), (1, -2), (2, -2)
    face[48], face[54] = (-1.5, 2), (1.5, 2)
    curve = np.interp(np.arange(t), [10, 10 + rise, t - 20, t - 8], [0, 1, 1, 0])
    points = np.repeat(face[None], t, axis=0)
    points[:, 48, 0] -= 3 * height * curve
    points[:, 54, 0] += 3 * height * curve
    return points * 40 + 300, np.arange(t) / 25


def test_phases_become_durations_and_amplitudes():
    for rise in (10, 20):
        points, times = smile(rise=rise)
        values = phase_features(points, times).reshape(3, 3)
        assert values[0, 0] == pytest.approx(rise / 25, abs=0.2)
        assert values[1, 2] == pytest.approx(0.65, abs=0.02)  # half a mouth width, and 0.15
        assert values[0, 2] > 0.1 and values[2, 2] < -0.1
    assert not phase_features(np.full((5, 68, 2), np.nan), np.arange(5.0)).any()
    assert not phase_features(points[:1], times[:1]).any()
    assert not phase_features(np.zeros((5, 68, 2)), np.arange(5.0)).any()
    assert phase_features(points, times, "disgust").shape == (9,)


def test_baselines_know_nothing_of_the_test_part(tmp_path):
    """Other ages and pictures in the test part change none of its predictions but through its own pictures."""
    dataset = FaceDataset(drawn_file(tmp_path / "out.h5", size=70, subjects=10, frames=5))
    table = labelled_videos(dataset)
    split = plan_splits(table, folds=3, validation_fraction=0.2, test_fraction=0.25, seed=0)[1]
    features = Features(dataset, table)
    found = fit_baselines(split, table, features)
    assert set(found) == set(NAMES)
    test = table.rows_of(split.test)
    for line in found.values():
        assert set(line.subject) == set(split.test) and (line.fold == 1).all()
        np.testing.assert_array_equal(line.age, table.age[test])
    sabotaged = table.age.copy()
    sabotaged[test] = 99.0
    again = fit_baselines(split, dataclasses.replace(table, age=sabotaged), features)
    for name in NAMES:
        np.testing.assert_array_equal(found[name].predicted, again[name].predicted)


def test_the_mean_face_sees_what_age_does(tmp_path):
    """On drawn faces whose stripes grow with age, the regression beats the median."""
    dataset = FaceDataset(drawn_file(tmp_path / "out.h5", size=70, subjects=24, frames=6))
    table = labelled_videos(dataset)
    features = Features(dataset, table)
    errors = {name: [] for name in NAMES}
    for split in plan_splits(table, folds=4, validation_fraction=0.2, test_fraction=0.25, seed=0):
        for name, line in fit_baselines(split, table, features).items():
            errors[name] += line.error.tolist()
    assert np.mean(errors["ridge_mean_face"]) < 0.6 * np.mean(errors["median"])
    assert features.mean_face.shape == (48, 38 * 38) and features.phases.shape == (48, 9)
