"""Signals of lips, lids, cheeks and patches, and the 25 features: closed forms and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_pipeline.geometry import canonical_mesh, canonical_triangles, shipped_mean_shape, shipped_triangles
from nemo_pipeline.stages.smooth import smooth_4253h_twice
from siam_model.methods.deformation import (
    PATCHES,
    landmark_patches,
    mesh_patches,
    surface_signals,
    triangle_areas,
)
from siam_model.methods.signal_features import FEATURES, signal_features
from siam_model.methods.signals import Signal, eyelid, face_points, frontal, lip, smoothed

SHAPE = 100 * shipped_mean_shape()


def features(d, times, right=None, left=None, **options) -> dict[str, float]:
    d = np.asarray(d, dtype=float)
    signal = Signal(d, d if right is None else right, d if left is None else left)
    return dict(
        zip(FEATURES, signal_features(signal, np.asarray(times, dtype=float), **options), strict=True)
    )


def test_there_are_25_features():
    assert len(FEATURES) == len(set(FEATURES)) == 25


def test_a_straight_rise_has_closed_forms():
    times = np.arange(11) / 20  # half a second
    found = features(2 * times + 1, times, right=2 * times, left=2 * times + 3)
    expected = {
        "duration rising": 0.5, "duration": 0.5, "share rising": 1, "maximum": 2, "mean": 1.5, "mean rising": 0.1,
        "deviation": np.std(2 * times), "total rising": 1, "net": 1, "ratio rising": 1, "maximum speed rising": 2,
        "mean speed rising": 2, "net by duration": 2, "difference of sides": 3,
    }  # fmt: skip
    for name, value in found.items():
        assert value == pytest.approx(expected.get(name, 0), abs=1e-9), name


def test_a_triangle_rises_and_falls_equally():
    times = np.arange(21) / 10
    found = features(np.minimum(times, 2 - times), times)
    assert found["duration rising"] == pytest.approx(1) == found["duration falling"]
    assert found["share rising"] == found["ratio rising"] == pytest.approx(0.5) == found["ratio falling"]
    assert found["total rising"] == pytest.approx(1) == found["total falling"]
    assert found["net"] == pytest.approx(0, abs=1e-12) == found["net by duration"]
    assert found["maximum speed rising"] == pytest.approx(1) == found["maximum speed falling"]
    assert found["maximum acceleration falling"] == pytest.approx(10)  # from 1 to -1 per second in 0.2 s
    assert found["maximum acceleration rising"] == pytest.approx(0, abs=1e-9)


def test_a_parabola_has_a_constant_acceleration_inside():
    times = np.arange(50) / 50
    found = features(3 * times**2, times)
    assert found["mean acceleration rising"] == pytest.approx(6, rel=0.05)
    assert found["maximum speed rising"] == pytest.approx(6 * times[-1], rel=0.02)


def test_time_counts_not_frames():
    """The same rise, and twice as slow with uneven frames."""
    slow = np.array([0, 0.1, 0.5, 0.6, 1.0])
    found, twice = features(slow, slow), features(slow, 2 * slow)
    for name in FEATURES:
        power = 1 if name.startswith("duration") else -1 if "speed" in name or "by duration" in name else 0
        power = -2 if "acceleration" in name else power
        assert twice[name] == pytest.approx(found[name] * 2.0**power, abs=1e-9), name


def test_values_of_rising_frames_in_place_of_steps():
    found = features([0, 1, 3, 2], [0, 1, 2, 3], parts="values")
    assert found["total rising"] == 4 and found["total falling"] == 2 and found["mean rising"] == 2


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30))
def test_the_features_are_the_plain_loop(seed, n):
    rng = np.random.default_rng(seed)
    d = rng.integers(-3, 4, n).astype(float)
    right, left = d + rng.normal(size=n), d + rng.normal(size=n)
    times = np.cumsum(rng.uniform(0.01, 0.2, n))
    found = features(d, times, right, left)
    up = [(d[i] - d[i - 1], times[i] - times[i - 1]) for i in range(1, n) if d[i] > d[i - 1]]
    down = [(d[i - 1] - d[i], times[i] - times[i - 1]) for i in range(1, n) if d[i] < d[i - 1]]
    rise, fall = sum(s for s, _ in up), sum(s for s, _ in down)
    seconds = times[-1] - times[0]
    assert found["duration rising"] == pytest.approx(sum(t for _, t in up))
    assert found["duration falling"] == pytest.approx(sum(t for _, t in down))
    assert found["duration"] == pytest.approx(seconds)
    assert found["share rising"] == pytest.approx(sum(t for _, t in up) / seconds if n > 1 else 0)
    assert found["total rising"] == pytest.approx(rise) and found["total falling"] == pytest.approx(fall)
    assert found["net"] == pytest.approx(d[-1] - d[0])
    assert found["mean rising"] == pytest.approx(rise / len(up) if up else 0)
    assert found["mean falling"] == pytest.approx(fall / len(down) if down else 0)
    assert found["ratio falling"] == pytest.approx(fall / (rise + fall) if rise + fall else 0)
    assert found["net by duration"] == pytest.approx((d[-1] - d[0]) / seconds if n > 1 else 0)
    assert found["difference of sides"] == pytest.approx(abs(sum(right) - sum(left)) / n)
    if n > 1:
        v = np.gradient(d, times)
        a = np.gradient(v, times)
        for name, values in (("speed", v), ("acceleration", a)):
            assert found[f"maximum {name} rising"] == pytest.approx(
                max([x for x in values if x > 0], default=0)
            )
            falling = [-x for x in values if x < 0]
            assert found[f"maximum {name} falling"] == pytest.approx(max(falling, default=0))
            assert found[f"mean {name} falling"] == pytest.approx(
                sum(falling) / len(falling) if falling else 0
            )


def test_a_phase_without_frames_is_zero_and_repeated_times_do_no_harm():
    assert not any(features([], []).values())
    found = features([1, 2, 5, 3], [0, 1, 1, 2])
    assert all(np.isfinite(list(found.values()))) and found["total rising"] == 2


def moved(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same face elsewhere, larger and rolled in every frame."""
    rng = np.random.default_rng(seed)
    z = points[..., 0] + 1j * points[..., 1]
    z = z * (rng.uniform(0.5, 3, (len(z), 1)) * np.exp(1j * rng.uniform(-1, 1, (len(z), 1))))
    z = z + rng.normal(0, 200, (len(z), 1)) + 1j * rng.normal(0, 200, (len(z), 1))
    return np.stack([z.real, z.imag], axis=-1)


def test_the_lip_signal_is_half_a_mouth_at_rest_and_grows_with_its_sides():
    points = np.repeat(SHAPE[None], 3, axis=0)
    width = np.linalg.norm(SHAPE[54] - SHAPE[48])
    points[1, 48, 0] -= 0.2 * width
    points[2, [48, 54], 0] += np.array([-0.1, 0.1]) * width
    for scene in (points, moved(points)):
        places = face_points(scene)
        signal = lip(places.lip_right, places.lip_left)
        np.testing.assert_allclose(signal.whole, [0.5, 0.6, 0.6], atol=1e-9)
        np.testing.assert_allclose(signal.right, [0.5, 0.7, 0.6], atol=1e-9)
        np.testing.assert_allclose(signal.left, [0.5, 0.5, 0.6], atol=1e-9)


def test_the_lid_signal_changes_its_sign_below_the_corners():
    points = np.repeat(SHAPE[None], 2, axis=0)
    for corners, lids in (((36, 39), (37, 38)), ((42, 45), (43, 44))):
        middle = SHAPE[list(corners)].mean(axis=0)
        width = np.linalg.norm(SHAPE[36] - SHAPE[39])
        points[0][list(lids)] = middle - np.array([0, 0.3 * width])  # y grows downwards
        points[1][list(lids)] = middle + np.array([0, 0.1 * width])
    for scene in (points, moved(points, 1)):
        p = face_points(scene)
        signal = eyelid(p.right_eye, p.left_eye, p.right_lid, p.left_lid)
        np.testing.assert_allclose(signal.right, [0.3, -0.1], atol=1e-9)
        np.testing.assert_allclose(signal.whole, (signal.right + signal.left) / 2)


def posed_mesh(frames: int, seed: int = 0) -> np.ndarray:
    """The canonical face turned, moved and scaled, the same in all frames so that smoothing changes nothing."""
    rng = np.random.default_rng(seed)
    mesh, _, _ = canonical_mesh()
    turned = (
        mesh @ scipy.spatial.transform.Rotation.from_euler("xyz", rng.uniform(-0.5, 0.5, 3)).as_matrix().T
    )
    full = np.concatenate([rng.uniform(5, 20) * turned + rng.normal(0, 100, 3), np.zeros((10, 3))])
    return np.repeat(full[None], frames, axis=0)


def test_a_mesh_loses_its_pose():
    mesh, _, _ = canonical_mesh()
    np.testing.assert_allclose(frontal(posed_mesh(4)), np.repeat(mesh[None], 4, axis=0), atol=1e-6)


def test_a_mesh_is_smoothed_whole_though_it_passes_in_blocks(monkeypatch):
    from siam_model.methods import signals

    rng = np.random.default_rng(0)
    mesh = posed_mesh(90) + rng.normal(0, 1, (90, 478, 3))
    whole = frontal(mesh)
    monkeypatch.setattr(signals, "_BLOCK", 20)
    np.testing.assert_array_equal(frontal(mesh), whole)


def test_cheeks_come_from_the_mesh_alone():
    points = np.repeat(SHAPE[None], 3, axis=0)
    assert face_points(points).cheeks is None
    cheeks = face_points(points, posed_mesh(3)).cheeks
    assert cheeks is not None
    assert lip(*cheeks).whole == pytest.approx([0.5] * 3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([2, 3]))
def test_areas_are_half_the_cross_product(seed, dimensions):
    rng = np.random.default_rng(seed)
    points, triangles = rng.normal(size=(3, 6, dimensions)), rng.integers(0, 6, (5, 3))
    for t in range(3):
        for k, (a, b, c) in enumerate(triangles):
            u, v = (np.append(points[t, i] - points[t, a], 0)[:3] for i in (b, c))
            area = 0.5 * np.linalg.norm([
                u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]
            ])  # fmt: skip
            assert triangle_areas(points, triangles)[t, k] == pytest.approx(area)


def test_every_triangle_is_in_one_patch_and_patches_mirror_each_other():
    assert canonical_triangles().shape == (898, 3)
    for patches in (mesh_patches(), landmark_patches(shipped_mean_shape(), shipped_triangles())):
        assert patches.shares.shape == (8, 2, len(patches.triangles))
        np.testing.assert_allclose(patches.shares.sum(axis=(0, 1)), 1)
        np.testing.assert_allclose(*patches.shares.sum(axis=2).T)
    assert (mesh_patches().shares.sum(axis=(1, 2)) > 10).all()


def test_a_surface_signal_is_the_relative_change_of_area():
    mesh, _, _ = canonical_mesh()
    frames = np.repeat(mesh[None], 30, axis=0) * np.linspace(1, 1.2, 30)[:, None, None]
    for signal in surface_signals(frames, mesh_patches()):
        assert signal is not None
        np.testing.assert_allclose(
            signal.whole, smooth_4253h_twice(np.linspace(1, 1.2, 30) ** 2 - 1), atol=1e-9
        )
    patches = landmark_patches(shipped_mean_shape(), shipped_triangles())
    flat = surface_signals(np.repeat(SHAPE[None], 3, axis=0), patches)
    assert [name for name, s in zip(PATCHES, flat, strict=True) if s is None] == ["forehead"]


def test_smoothing_a_signal_smooths_its_sides():
    rng = np.random.default_rng(0)
    signal = Signal(*rng.normal(size=(3, 40)))
    for raw, smooth in zip(signal, smoothed(signal), strict=True):
        np.testing.assert_array_equal(smooth, smooth_4253h_twice(raw))
