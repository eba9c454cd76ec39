"""Codes, selection and the two-level regression: against plain loops and known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siam_model.methods.base import Reduction
from siam_model.methods.ief import Codebook, nearest_codes, neighbourhoods, pca_tree
from siam_model.methods.learner import (
    CENTRES,
    AgeLearner,
    Inputs,
    Selector,
    age_group,
    choose_classifier,
)
from siam_model.methods.selection import mrmr_order


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(8, 20))
def test_neighbourhoods_are_the_plain_loop(seed, size):
    rng = np.random.default_rng(seed)
    face = rng.integers(0, 4, (size, size)).astype(np.uint8)
    counted = np.zeros((size, size), bool)
    counted[2:-2, 2:-2] = rng.random((size - 4, size - 4)) < 0.5
    found = neighbourhoods(face, counted)
    assert found.shape == (counted.sum(), 25)
    for row, (y, x) in zip(found, np.argwhere(counted), strict=True):
        part = [float(face[y + i, x + j]) for i in range(-2, 3) for j in range(-2, 3)]
        part = np.array(part) - sum(part) / 25
        length = np.sqrt((part**2).sum())
        np.testing.assert_allclose(row, part / length if length > 0 else part, atol=1e-5)


def loop_tree(vectors: list[np.ndarray], depth: int) -> list[np.ndarray]:
    """Recursively, with the first axis by singular values."""
    x = np.array(vectors)
    if depth == 0 or len(x) < 2:
        return [x.mean(axis=0)]
    _, _, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    score = (x - x.mean(axis=0)) @ axes[0]
    low, high = x[score <= np.median(score)], x[score > np.median(score)]
    if not len(high) or np.ptp(score) < 1e-9:
        return [x.mean(axis=0)]
    return loop_tree(list(low), depth - 1) + loop_tree(list(high), depth - 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 16, 64, 200]))
def test_the_tree_is_the_recursive_one(seed, n):
    """An even number of vectors a node, so that the axis' sign, which is free, decides nothing."""
    x = np.random.default_rng(seed).normal(size=(n, 7)) * np.arange(1, 8)
    depth = 3 if n != 200 else 2
    found, expected = pca_tree(x, depth), np.array(loop_tree(list(x), depth))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], atol=1e-8)


def test_a_tree_of_depth_six_has_64_codes_and_fewer_where_nothing_can_be_cut():
    rng = np.random.default_rng(0)
    assert len(pca_tree(rng.normal(size=(1000, 25)))) == 64
    assert len(pca_tree(np.ones((50, 25)))) == 1
    assert len(pca_tree(np.zeros((0, 25)))) == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12))
def test_soft_codes_are_the_plain_loop(seed, codes):
    rng = np.random.default_rng(seed)
    book = Codebook(rng.normal(size=(codes, 4)), 0.7)
    vectors = rng.normal(size=(9, 4))
    expected = np.zeros(16)
    for v in vectors:
        away = [float(((v - c) ** 2).sum()) for c in book.codes]
        near = sorted(range(codes), key=lambda k: away[k])[:5]
        weights = {k: np.exp(-away[k] / (2 * 0.7**2)) for k in near}
        for k in near:
            expected[k] += weights[k] / sum(weights.values()) / len(vectors)
    found = book.histogram(vectors, 16)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert found.sum() == pytest.approx(1)
    near, squared = nearest_codes(vectors, book.codes, 1)
    for v, k, d in zip(vectors, near[:, 0], squared[:, 0], strict=True):
        assert d == pytest.approx(((v - book.codes[k]) ** 2).sum(), abs=1e-9)
        assert d == pytest.approx(((v - book.codes) ** 2).sum(axis=1).min(), abs=1e-9)


def test_a_patch_without_pixels_has_no_codes():
    empty = Codebook.learn(np.zeros((0, 25)))
    assert not empty.histogram(np.ones((3, 25))).any()
    assert not Codebook(np.ones((2, 25)), 1.0).histogram(np.zeros((0, 25))).any()


def test_selection_takes_what_is_relevant_and_passes_over_its_copies():
    rng = np.random.default_rng(0)
    age = rng.uniform(10, 70, 300)
    noise = rng.normal(size=(300, 4))
    a, b = age + rng.normal(0, 6, 300), age + rng.normal(0, 9, 300)
    x = np.stack([noise[:, 0], a, a + rng.normal(0, 0.1, 300), noise[:, 1], b, noise[:, 2]], axis=1)
    order = mrmr_order(x, age, 6)
    assert sorted(order) == list(range(6))
    assert order[0] in (1, 2)
    copy = {1: 2, 2: 1}[int(order[0])]
    assert list(order).index(4) < list(order).index(copy)


def test_selection_is_the_plain_loop():
    from sklearn.feature_selection import mutual_info_regression

    rng = np.random.default_rng(1)
    x, age = rng.normal(size=(60, 8)), rng.uniform(10, 70, 60)
    x[:, 3] = x[:, 0] + 0.3 * rng.normal(size=60)
    relevance = mutual_info_regression(x, age, n_neighbors=3, random_state=0)
    order = [int(np.argmax(relevance))]
    while len(order) < 5:
        best = None
        for j in range(8):
            if j not in order:
                r = [np.corrcoef(x[:, j], x[:, k])[0, 1] for k in order]
                score = relevance[j] - np.mean([-0.5 * np.log(1 - v**2) for v in r])
                best = max(best or (-np.inf, 0), (score, j))
        order.append(best[1])
    assert list(mrmr_order(x, age, 5)) == order


def test_features_that_do_not_vary_are_never_selected():
    rng = np.random.default_rng(0)
    pool = np.c_[np.ones(30), rng.normal(size=30), np.full(30, 7.0)]
    selector = Selector().fit(pool, rng.uniform(10, 70, 30))
    assert list(selector.order) == [1]
    assert selector.transform(pool, 10).shape == (30, 1)
    assert np.abs(selector.transform(pool, 10)).mean() == pytest.approx(1)
    assert Selector().fit(np.ones((5, 2)), np.arange(5.0)).transform(np.ones((3, 2)), 10).shape == (3, 0)


def test_groups_grow_until_they_have_enough_videos():
    ages = np.r_[np.full(100, 10.0), np.full(100, 30.0), np.full(60, 70.0)]
    assert len(age_group(ages, 10, least=50)) == 100
    assert len(age_group(ages, 10, least=150)) == 200
    assert len(age_group(ages, 70, least=150)) == 160
    assert len(age_group(ages, 70, least=1000)) == 260


def test_the_learner_finds_an_age_that_features_hold_and_blends_neighbouring_groups():
    rng = np.random.default_rng(0)
    age = rng.uniform(10, 70, 240)
    x = np.stack([age / 30, np.sin(age / 20), rng.normal(size=240)], axis=1) + rng.normal(0, 0.02, (240, 3))
    pool = np.c_[age + rng.normal(0, 3, 240), rng.normal(size=(240, 20))]
    subjects = [f"s{i // 2}" for i in range(240)]
    for inputs in (Inputs(x, np.zeros((240, 0))), Inputs(np.zeros((240, 0)), pool), Inputs(x, pool)):
        train, test = np.arange(180), np.arange(180, 240)
        learner = AgeLearner().fit(inputs.rows(train), age[train], subjects[:180])
        found = learner.predict(inputs.rows(test))
        assert np.abs(found - age[test]).mean() < 4
        # By hand, from the same machines.
        features = learner._features(inputs.rows(test))
        rough = learner.first.predict(features)
        for row in (0, 7, 30):
            first = min(max(rough[row], CENTRES[0]), CENTRES[-1])
            low = max(k for k, c in enumerate(CENTRES[:-1]) if c <= first)
            part = (first - CENTRES[low]) / 2
            a, b = (learner.bank[k].predict(features[row : row + 1])[0] for k in (low, low + 1))
            assert found[row] == pytest.approx((1 - part) * a + part * b)


def test_the_learner_answers_the_median_where_there_is_nothing_to_learn_from():
    ages = np.array([20.0, 30.0, 70.0])
    none = Inputs(np.zeros((3, 0)), np.ones((3, 5)))
    for subjects in (["a", "b", "c"], ["a", "a", "a"]):
        assert list(AgeLearner().fit(none, ages, subjects).predict(none)) == [30.0] * 3
    assert len(AgeLearner().fit(none, ages, ["a", "b", "c"]).predict(none.rows(np.zeros(0, np.intp)))) == 0


def test_components_keep_their_sizes_among_each_other():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6)) * [9, 5, 1, 0.1, 0.1, 0.1]
    reduction = Reduction()
    scores = reduction.fit_transform(x)
    assert np.linalg.norm(scores, axis=1).mean() == pytest.approx(1)
    assert scores.shape == (80, 2)
    assert scores[:, 0].std() / scores[:, 1].std() == pytest.approx(x[:, 0].std() / x[:, 1].std(), rel=0.1)
    np.testing.assert_allclose(reduction.transform(x), scores)
    assert Reduction().fit_transform(np.ones((4, 3))).shape == (4, 0)


def test_a_machine_of_one_side_answers_that_side():
    x = np.arange(12.0).reshape(6, 2)
    for side in (True, False):
        machine = choose_classifier(x, np.full(6, side), list("aabbcc"))
        assert list(machine.predict(x)) == [side] * 6
    both = choose_classifier(x, np.array([False] * 3 + [True] * 3), list("abcdef"))
    assert list(both.predict(x)) == [False] * 3 + [True] * 3
