"""Histograms of local binary patterns, on one face and in time: against plain loops on random arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_pipeline.geometry import shipped_template
from siam_model.methods.grid import block_numbers, hull_of, inner, uniform_codes
from siam_model.methods.inputs import ArrayVideo, nearest_frames, resampled
from siam_model.methods.lbp import lbp_histograms
from siam_model.methods.lbp_top import lbp_top_histograms
from siam_model.methods.vlbp import vlbp_histogram


def drawn(seed: int, frames: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Few gray levels, so that many pixels are equal; and an irregular hull."""
    rng = np.random.default_rng(seed)
    faces = (rng.integers(0, 6, (frames, size, size)) * 40).astype(np.uint8)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return faces, x**2 + y**2 < (0.48 * size) ** 2


def at(faces: np.ndarray, t: float, y: float, x: float) -> float:
    """Linear interpolation by hand."""
    total = 0.0
    for dt, dy, dx in np.ndindex(2, 2, 2):
        ti, yi, xi = math.floor(t + 1e-9) + dt, math.floor(y + 1e-9) + dy, math.floor(x + 1e-9) + dx
        weight = (1 - abs(t - ti)) * (1 - abs(y - yi)) * (1 - abs(x - xi))
        if weight > 1e-9:
            total += weight * float(faces[ti, yi, xi])
    return total


def counted(hull: np.ndarray, y: int, x: int, radius: int) -> bool:
    if min(y, x) < radius or max(y, x) >= len(hull) - radius:
        return False
    return bool(hull[y - radius : y + radius + 1, x - radius : x + radius + 1].all())


def pattern(bits: list[bool]) -> int:
    return sum(1 << i for i, bit in enumerate(bits) if bit)


def code_of(bits: list[bool]) -> int:
    """58 codes for patterns that change at most twice, in ascending order, one for the rest."""
    uniform = [
        p for p in range(256)
        if sum((p >> i & 1) != (p >> (i + 1) % 8 & 1) for i in range(8)) <= 2
    ]  # fmt: skip
    return uniform.index(pattern(bits)) if pattern(bits) in uniform else 58


def shares(counts: np.ndarray) -> np.ndarray:
    total = counts.sum(-1, keepdims=True)
    return np.divide(counts, total, out=np.zeros_like(counts, dtype=float), where=total > 0)


def test_uniform_codes_are_the_58_and_the_rest():
    codes = uniform_codes()
    assert len(set(codes.tolist())) == 59
    for p in range(256):
        assert codes[p] == code_of([bool(p >> i & 1) for i in range(8)])


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000), st.integers(9, 15), st.integers(1, 2), st.integers(1, 2))
def test_lbp_top_is_the_plain_loop(seed, size, radius, time_radius):
    faces, hull = drawn(seed, 2 * time_radius + 2, size)
    counts = np.zeros((4, 3, 59))
    angles = [2 * math.pi * k / 8 for k in range(8)]
    for t in range(time_radius, len(faces) - time_radius):
        for y in range(size):
            for x in range(size):
                if not counted(hull, y, x, radius):
                    continue
                block = (y * 2 // size) * 2 + x * 2 // size
                planes: list[list[bool]] = [[], [], []]
                for a in angles:
                    c, s = round(math.cos(a), 12), round(math.sin(a), 12)
                    places = (
                        (t, y - radius * s, x + radius * c),
                        (t + time_radius * s, y, x + radius * c),
                        (t + time_radius * s, y + radius * c, x),
                    )
                    for bits, place in zip(planes, places, strict=True):
                        bits.append(at(faces, *place) >= float(faces[t, y, x]) - 1e-7)
                for plane, bits in enumerate(planes):
                    counts[block, plane, code_of(bits)] += 1
    found = lbp_top_histograms(faces, hull, radius, time_radius, blocks=2)
    np.testing.assert_allclose(found, shares(counts), atol=1e-6)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000), st.integers(7, 15), st.integers(1, 2), st.sampled_from([2, 4]))
def test_vlbp_is_the_plain_loop(seed, size, interval, neighbours):
    faces, hull = drawn(seed, 2 * interval + 2, size)
    counts = np.zeros(2 ** (3 * neighbours + 2))
    for t in range(interval, len(faces) - interval):
        for y in range(size):
            for x in range(size):
                if not counted(hull, y, x, 1):
                    continue
                values = [at(faces, t - interval, y, x)]
                for frame in (t - interval, t, t + interval):
                    for k in range(neighbours):
                        a = 2 * math.pi * k / neighbours
                        values.append(
                            at(faces, frame, y - round(math.sin(a), 12), x + round(math.cos(a), 12))
                        )
                values.append(at(faces, t + interval, y, x))
                counts[pattern([v >= float(faces[t, y, x]) for v in values])] += 1
    found = vlbp_histogram(faces, hull, 1, interval, neighbours)
    np.testing.assert_allclose(found, shares(counts), atol=1e-6)


def test_vlbp_has_16384_patterns_and_flat_faces_the_last():
    histogram = vlbp_histogram(np.full((6, 20, 20), 90, np.uint8), np.ones((20, 20), bool))
    assert histogram.shape == (16384,) and histogram[-1] == 1


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000), st.integers(12, 24), st.sampled_from([1, 2]))
def test_lbp_is_the_plain_loop(seed, size, radius):
    """Up to the numbering of the codes, which is scikit-image's: which pixels share a code is compared. Many gray
    levels: where four pixels around a neighbour equal the centre, scikit-image's rounding decides."""
    _, hull = drawn(seed, 1, size)
    face = np.random.default_rng(seed).integers(0, 256, (size, size)).astype(np.uint8)
    counts = np.zeros((4, 256))
    for y in range(size):
        for x in range(size):
            if counted(hull, y, x, radius):
                # As scikit-image places them: rounded to five digits.
                around = [
                    (y - round(radius * math.sin(2 * math.pi * k / 8), 5),
                     x + round(radius * math.cos(2 * math.pi * k / 8), 5))
                    for k in range(8)
                ]  # fmt: skip
                bits = [at(face[None], 0, *place) >= float(face[y, x]) - 1e-7 for place in around]
                counts[(y * 2 // size) * 2 + x * 2 // size, code_of(bits)] += 1
    found = lbp_histograms(face, hull, (radius,), blocks=2)[0]
    assert found.shape == (4, 59)
    np.testing.assert_allclose(np.sort(found, axis=1), np.sort(shares(counts)[:, :59], axis=1), atol=1e-6)


def test_blocks_are_19_pixels_of_114_and_cover_any_size():
    numbers = block_numbers(114)
    assert numbers[18, 18] == 0 and numbers[19, 18] == 6 and numbers[113, 113] == 35
    assert set(np.bincount(numbers.ravel())) == {19 * 19}
    assert sorted(np.unique(block_numbers(50))) == list(range(36))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(5, 20), st.integers(0, 3))
def test_inner_pixels_have_their_whole_neighbourhood_in_the_hull(seed, size, radius):
    hull = np.random.default_rng(seed).random((size, size)) < 0.95
    expected = [[counted(hull, y, x, radius) for x in range(size)] for y in range(size)]
    np.testing.assert_array_equal(inner(hull, radius), expected)


def test_black_around_the_face_has_no_code():
    """A face that fills its hull: whatever lies outside, nothing changes."""
    hull = hull_of(shipped_template(60))
    rng = np.random.default_rng(0)
    faces = rng.integers(1, 255, (7, 60, 60)).astype(np.uint8)
    black = np.where(hull, faces, 0).astype(np.uint8)
    np.testing.assert_array_equal(lbp_top_histograms(faces, hull), lbp_top_histograms(black, hull))
    np.testing.assert_array_equal(vlbp_histogram(faces, hull), vlbp_histogram(black, hull))
    np.testing.assert_array_equal(lbp_histograms(faces[0], hull), lbp_histograms(black[0], hull))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.001, 0.2), min_size=0, max_size=40),
    st.sampled_from([10.0, 25.0, 50.0]),
)
def test_resampling_takes_the_frame_nearest_in_time(steps, rate):
    times = np.concatenate([[3.0], 3 + np.cumsum(steps)])
    found = nearest_frames(times, rate)
    assert len(found) == int(np.floor((times[-1] - times[0]) * rate + 1e-6)) + 1
    assert (np.diff(found) >= 0).all()
    for k, index in enumerate(found):
        away = np.abs(times - (3.0 + k / rate))
        assert away[index] == pytest.approx(away.min(), abs=1e-6)


def test_resampled_frames_are_those_and_a_short_clip_is_filled_up():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (600, 4, 4)).astype(np.uint8)
    video = ArrayVideo(frames, np.zeros((600, 68, 2)), np.arange(600) / 30)
    found = list(resampled(video, 50.0))
    np.testing.assert_array_equal(found, frames[nearest_frames(video.timestamps, 50.0)])
    short = ArrayVideo(frames[:2], np.zeros((2, 68, 2)), np.array([0.0, 0.01]))
    np.testing.assert_array_equal(list(resampled(short, 50.0, least=5)), [frames[0]] * 5)
