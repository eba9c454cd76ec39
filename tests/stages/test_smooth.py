"""4253H, twice: the worked example, the published conventions, a plain loop, and the properties of the smoother."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nemo_pipeline import smooth_4253h_twice
from nemo_pipeline.stages.smooth import SUPPORT, StreamSmoother
from tests.reference import smoother as reference

WORKED = [0, 80, 32, 64, 96, 112, 80, 144, 0, 80, 112, 112, 112, 80, 64, 144]
WORKED_RESULT = [0, 35, 59.9375, 75.5, 84.5, 88.5, 90.3125, 91.9375, 92.75, 95.5625, 101.1875, *[104] * 5]
SHORT = [0, 8, 4, 16, 8, 32, 24, 40]
SHORT_RESULTS = {
    1: [0],
    2: [0, 8],
    3: [4, 4, 4],
    4: [0, 4.84375, 9.9375, 16],
    5: [2.25, 5.75, 8, 9, 9.25],
    6: [0.375, 4.640625, 7.71875, 11.21875, 18.296875, 29.5625],
    7: [1.6875, 5.1875, 7.9375, 11.578125, 17.46875, 22.65625, 24],
    8: [1.5625, 5.0625, 7.8125, 11.1875, 16.671875, 23.515625, 31, 40],
}
series = arrays(
    np.float64, st.integers(0, 80), elements=st.floats(-1000, 1000, allow_nan=False, allow_subnormal=False)
)


def test_worked_example_is_exact() -> None:
    np.testing.assert_array_equal(smooth_4253h_twice(WORKED), WORKED_RESULT)


@pytest.mark.parametrize("n", SHORT_RESULTS)
def test_short_series(n: int) -> None:
    np.testing.assert_array_equal(smooth_4253h_twice(SHORT[:n]), SHORT_RESULTS[n])


@given(series)
def test_equals_the_plain_loop(y: np.ndarray) -> None:
    np.testing.assert_allclose(
        smooth_4253h_twice(y), reference.smooth_4253h_twice(y.tolist()), rtol=0, atol=1e-12 * 1000
    )


def test_equals_the_plain_loop_on_random_walks() -> None:
    rng = np.random.default_rng(1)
    for n in range(3, 120):
        y = rng.normal(size=n).cumsum()
        np.testing.assert_allclose(
            smooth_4253h_twice(y), reference.smooth_4253h_twice(y.tolist()), rtol=0, atol=1e-12
        )


@given(series, st.floats(-50, 50), st.floats(-8, 8))
def test_commutes_with_scale_shift_and_time_reversal(y: np.ndarray, a: float, b: float) -> None:
    s = smooth_4253h_twice(y)
    np.testing.assert_allclose(smooth_4253h_twice(a + b * y), a + b * s if len(y) else y, atol=1e-9)
    np.testing.assert_allclose(smooth_4253h_twice(y[::-1]), s[::-1], atol=1e-9)


@given(st.integers(1, 60), st.integers(-512, 512), st.integers(-64, 64))
def test_constants_and_lines_are_reproduced(n: int, a: int, b: int) -> None:
    line = a + b * np.arange(n) / 8
    np.testing.assert_array_equal(smooth_4253h_twice(line), line)


def test_single_frame_spike_vanishes_and_integers_are_not_truncated() -> None:
    y = np.zeros(40, dtype=np.int32)
    y[17] = 1000
    assert not smooth_4253h_twice(y).any()
    assert y[17] == 1000
    assert smooth_4253h_twice(np.array([0, 1, 0, 1, 1], dtype=np.uint8)).dtype == np.float64


def test_every_coordinate_is_a_series_of_its_own() -> None:
    y = np.random.default_rng(2).normal(size=(30, 68, 2)).cumsum(axis=0)
    whole = smooth_4253h_twice(y)
    assert whole.shape == y.shape
    for point, axis in ((0, 0), (40, 1), (67, 0)):
        np.testing.assert_array_equal(whole[:, point, axis], smooth_4253h_twice(y[:, point, axis]))


def test_complex_numbers_have_no_order() -> None:
    with pytest.raises(ValueError, match="complex"):
        smooth_4253h_twice(np.arange(9) + 1j)
    with pytest.raises(ValueError, match="complex"):
        StreamSmoother().push(np.arange(9) + 1j)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_values_outside_the_definition(bad: float) -> None:
    with pytest.raises(ValueError, match="first at sample 3"):
        smooth_4253h_twice([1, 2, 3, bad, 5])


@settings(max_examples=60)
@given(st.integers(0, 150), st.lists(st.integers(0, 40), max_size=12), st.integers(0, 10**6))
def test_a_stream_gives_the_whole_series_to_the_bit(n: int, cuts: list[int], seed: int) -> None:
    y = np.random.default_rng(seed).normal(size=(n, 3)).cumsum(axis=0)
    stream, pieces, at = StreamSmoother(), [], 0
    for cut in [*cuts, n]:
        pieces.append(stream.push(y[at : at + cut]))
        at = min(n, at + cut)
    pieces.append(stream.finish())
    got = np.concatenate([p.reshape(-1, 3) for p in pieces])
    np.testing.assert_array_equal(got, smooth_4253h_twice(y))


def test_support_is_what_is_claimed() -> None:
    rng = np.random.default_rng(3)
    reach = 0
    for _ in range(400):
        y = rng.normal(size=60).cumsum()
        z = y.copy()
        at = rng.integers(0, 60)
        z[at] += rng.normal() * 5
        changed = np.flatnonzero(smooth_4253h_twice(y) != smooth_4253h_twice(z))
        if changed.size:
            reach = max(reach, int(np.abs(changed - at).max()))
    assert reach <= SUPPORT
