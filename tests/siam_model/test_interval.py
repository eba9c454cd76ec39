"""The interval of an age: its quantile against plain loops, its coverage where videos of a person are alike."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siam_model.interval import half_width, interval_from, load_interval
from siam_model.predictions import Predictions, write_predictions


def made(errors: list[float], subjects: list[str]) -> Predictions:
    age = np.full(len(errors), 40.0)
    names = tuple(f"v{i}" for i in range(len(errors)))
    return Predictions(names, tuple(subjects), np.zeros(len(errors), int), age, age - np.array(errors))


def by_definition(errors: list[float], subjects: list[str], level: float) -> float:
    """The least s of which at least `level` of the mass, infinity's included, is at or below it."""
    codes = sorted(set(subjects))
    for s in sorted(set(errors)):
        mass = 0.0
        for code in codes:
            mine = [e for e, c in zip(errors, subjects, strict=True) if c == code]
            mass += sum(e <= s for e in mine) / len(mine) / (len(codes) + 1)
        if mass >= level - 1e-12:
            return s
    return math.inf


@given(st.data())
def test_the_quantile_is_the_definition(data):
    size = data.draw(st.integers(1, 30))
    errors = data.draw(st.lists(st.integers(0, 40).map(float), min_size=size, max_size=size))
    subjects = data.draw(st.lists(st.sampled_from("abcdefghijkl"), min_size=size, max_size=size))
    level = data.draw(st.sampled_from([0.5, 0.8, 0.9, 0.95]))
    assert half_width(np.array(errors), tuple(subjects), level) == by_definition(errors, subjects, level)


def test_equal_numbers_of_one_video_are_plain_split_conformal():
    errors = np.arange(1.0, 20.0)  # 19 subjects: the ceil(0.9 * 20) = 18th smallest
    assert half_width(errors, tuple(map(str, range(19))), 0.9) == 18.0


def test_nine_subjects_are_enough_for_90_percent_and_eight_are_not():
    nine = interval_from(made([1.0] * 8 + [7.0], list("abcdefghi")), 0.9)
    assert (nine.half_width, nine.subjects, nine.reason) == (7.0, 9, "")
    assert nine.around(40) == (33, 47) and nine.around(3) == (0, 10)
    eight = interval_from(made([1.0] * 80, list("abcdefgh") * 10), 0.9)
    assert math.isnan(eight.half_width) and eight.around(40) is None
    assert "only 8 unseen subjects" in eight.reason and "at least 9" in eight.reason
    assert interval_from(made([1.0] * 80, list("abcdefgh") * 10), 0.8).half_width == 1.0
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval_from(made([1.0], ["a"]), 90)


def simulate(rng: np.random.Generator, people: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Errors that are mostly a person's own; who has a large error has few videos more often than many."""
    errors, subjects = [], []
    for person in range(people):
        own = rng.normal(0, 8)
        count = 1 if abs(own) > 8 else int(rng.integers(4, 12))
        errors.append(np.abs(own + rng.normal(0, 2, count)))
        subjects += [str(person)] * count
    return np.concatenate(errors), tuple(subjects)


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_it_covers_new_people_though_videos_of_a_person_are_alike(level):
    rng = np.random.default_rng(5)
    covered, by_video = [], []
    for _ in range(1500):
        errors, subjects = simulate(rng, 30)
        new, _ = simulate(rng, 1)
        covered.append(rng.choice(new) <= half_width(errors, subjects, level))
        by_video.append(rng.choice(new) <= np.quantile(errors, level, method="higher"))
    deviation = math.sqrt(level * (1 - level) / len(covered))
    mean = np.mean(covered)
    assert level - 3 * deviation <= mean <= level + 2 / 31 + 3 * deviation, mean
    assert np.mean(by_video) < level - 5 * deviation, "without subjects it would promise too much"


def test_it_is_read_beside_the_model(tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    for path in (tmp_path, tmp_path / "model"):
        assert "no predictions.csv" in load_interval(path, 0.9).reason
    write_predictions(tmp_path / "predictions.csv", made([2.0] * 20, [str(k) for k in range(20)]))
    for path in (tmp_path, tmp_path / "model"):
        assert load_interval(path, 0.9).half_width == 2.0
