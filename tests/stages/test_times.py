"""Presentation times that always run forward; on real files: tests/stages/test_decode.py."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_pipeline.stages.times import PATIENCE, repair_times

NAN = math.nan


def repaired(times: list[float], interval: float = 0.1) -> tuple[list[float], list[bool]]:
    out = list(repair_times(((t, k) for k, t in enumerate(times)), interval))
    assert [k for _, _, k in out] == list(range(len(times)))
    return [round(t, 9) for t, _, _ in out], [changed for _, changed, _ in out]


def test_sound_times_are_left_alone() -> None:
    times = [5.0, 5.033, 5.067, 5.2, 5.9, 6.0]
    assert repaired(times) == (times, [False] * 6)


@pytest.mark.parametrize(
    ("times", "expected", "n"),
    [
        ([0, 0.1, NAN, 0.3, 0.4], [0, 0.1, 0.2, 0.3, 0.4], 1),
        ([0, 0.1, 0.1, 0.3, 0.4], [0, 0.1, 0.2, 0.3, 0.4], 1),
        ([0, 0.1, 0.0, 0.05, 0.4], [0, 0.1, 0.2, 0.3, 0.4], 2),
        # A repeated time takes the room there is; the ones after it keep theirs.
        ([0, 0.1, 0.1, 0.2, 0.2, 0.3], [0, 0.1, 0.15, 0.2, 0.25, 0.3], 2),
        # At the end there is no next one: the last step goes on.
        ([0, 0.2, 0.4, NAN, NAN], [0, 0.2, 0.4, 0.6, 0.8], 2),
        # At the beginning: back from the first known one, in the stream's own steps, and never below zero.
        ([NAN, NAN, 0.5, 0.6], [0.3, 0.4, 0.5, 0.6], 2),
        ([NAN, 0.0, 0.1], [0, 0.1, 0.2], 3),
        # Negative times move the clip to zero.
        ([-0.2, -0.1, 0.0, 0.15], [0, 0.1, 0.2, 0.35], 4),
        ([NAN, NAN, NAN], [0, 0.1, 0.2], 3),
        ([NAN], [0], 1),
        ([], [], 0),
    ],
)
def test_repairs(times: list[float], expected: list[float], n: int) -> None:
    got, changed = repaired(times)
    assert got == pytest.approx(expected)
    assert sum(changed) == n


def test_a_clock_set_back_goes_on_with_its_own_steps() -> None:
    first = [k * 0.1 for k in range(30)]
    second = [k * 0.04 for k in range(60)]
    got, changed = repaired([*first, *second])
    assert got[:30] == pytest.approx(first)
    steps = [b - a for a, b in itertools.pairwise(got[30:])]
    assert steps == pytest.approx([0.04] * 59)
    assert sum(changed) == 60


def test_no_times_at_all() -> None:
    got, changed = repaired([NAN] * 100, 1 / 25)
    assert got == pytest.approx([k / 25 for k in range(100)])
    assert all(changed)
    got, _ = repaired([3.0] * 100, 1 / 25)
    assert got == pytest.approx([3 + k / 25 for k in range(100)])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.just(NAN), st.floats(-5, 100)), max_size=80), st.floats(0.001, 1))
def test_always_forward_never_negative_and_nothing_lost(times: list[float], interval: float) -> None:
    pulled = 0

    def source():  # type: ignore[no-untyped-def]
        nonlocal pulled
        for pulled, time in enumerate(times, start=1):
            yield time, pulled

    given_out, last = 0, -1.0
    for time, changed, item in repair_times(source(), interval):
        given_out += 1
        assert item == given_out
        assert pulled - given_out <= PATIENCE
        assert math.isfinite(time)
        assert time >= 0
        assert time > last or time == pytest.approx(last, abs=1e-9)
        assert changed or time == times[item - 1]
        last = time
    assert given_out == len(times)
