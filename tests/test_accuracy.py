"""The measures of benchmarks/accuracy.py against cases whose answer is known, and the whole of it at its smallest."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from nemo_pipeline.synth.dynamics import natural_course
from nemo_pipeline.synth.expression import Style, expression_points
from nemo_pipeline.synth.portrait import portrait
from tests.support.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def measures():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("measures")


@pytest.fixture(scope="module")
def smile():
    """A smile's true points, (T,68,2), its phases and its intensity; 50 frames a second."""
    course = natural_course(np.random.default_rng(3), 30, "posed", 1.0, 120, 50.0)
    face, style = portrait(), Style()
    points = np.stack([expression_points(face, value, 0.0, style).landmarks for value in course.intensity])
    return points, np.array([course.onset, course.apex, course.offset]), course.intensity


def test_an_offset_is_an_error_but_no_fault_of_following(measures, smile):
    true = smile[0]
    eyes = np.linalg.norm(true[:, 45] - true[:, 36], axis=1)
    found = true + 0.03 * eyes[:, None, None] * np.array([0.6, 0.8])
    distance, rest = measures.errors(found, true)
    np.testing.assert_allclose(distance, 3.0, rtol=1e-9)
    np.testing.assert_allclose(rest, 0.0, atol=1e-9)
    np.testing.assert_allclose(true + measures.mean_offset(found, true), found, atol=1e-9)


def test_jitter_of_white_noise(measures, smile):
    """The second difference of white noise of deviation s has deviation s sqrt(6) on each axis: a Rayleigh mean."""
    rng = np.random.default_rng(0)
    still = np.repeat(smile[0][:1], 400, axis=0)
    eyes = np.linalg.norm(still[0, 45] - still[0, 36])
    found = still + rng.normal(0, 0.01 * eyes, still.shape)
    assert measures.jitter(found, still).mean() == pytest.approx(np.sqrt(6 * np.pi / 2), rel=0.01)


@pytest.mark.parametrize("shift", [-2, 0, 3])
def test_lag_is_the_shift_in_frames(measures, smile, shift):
    true, phases, _ = smile
    late = true[np.clip(np.arange(len(true)) - shift, 0, len(true) - 1)]
    assert measures.lag(late, true, tuple(phases[0])) == pytest.approx(shift, abs=0.06)


def test_single_frame_spikes_are_removed_and_a_step_is_not_called_removed(measures, smile):
    true = smile[0]
    left = measures.spikes_left(true, true, np.random.default_rng(1))
    assert len(left) >= 5 and left.max() < 0.1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "smooth_in_head_frame", lambda points: points)
        np.testing.assert_allclose(measures.spikes_left(true, true, np.random.default_rng(1)), 1.0, rtol=1e-6)


def test_boundaries_from_the_truth_are_near_where_the_course_leaves_its_ends(measures, smile):
    true, phases, intensity = smile
    found = measures.found_edges(true, np.arange(len(true)) / 50)
    near = measures.near_edges(intensity, phases)
    height = np.interp(near, np.arange(len(intensity)), intensity)
    low, top = intensity.min(), intensity.max()
    np.testing.assert_allclose((height - low) / (top - low), [0.05, 0.95, 0.95, 0.05], atol=1e-9)
    assert np.abs(found - near).max() <= 2.5
    assert (measures.edges(phases)[[0, 2]] <= found[[0, 2]]).all()
    assert np.isnan(measures.found_edges(np.repeat(true[:1], 50, axis=0), np.arange(50) / 50)).all()


def test_gray_levels_are_compared_within_the_face(measures):
    reference = np.zeros((3, 8, 8), np.uint8)
    reference[:, 2:6, 2:6] = 100
    faces = reference.copy()
    faces[1, 2:6, 2:6] = 104
    faces[:, 0, 0] = 255
    np.testing.assert_allclose(measures.gray_errors(faces, reference), [0, 4, 0])


@pytest.mark.slow
def test_the_whole_benchmark_at_its_smallest(tmp_path):
    words = [
        "--clips", "2", "--level-clips", "2", "--size", "240x240", "--fps", "25", "--json", tmp_path / "out.json",
        "--siam", "--siam-subjects", "8", "--siam-clips", "1", "--siam-seeds", "1", "--siam-sets", "dynamics",
        "--siam-epochs", "1",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "accuracy.py"), *map(str, words)],
        capture_output=True, text=True, check=False, timeout=900, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["synthetic"] is True
    accuracy = result["accuracy"]
    assert accuracy["frames"]["clips"] == 16 and accuracy["frames"]["kept"] == accuracy["frames"]["rendered"]
    assert 0 < accuracy["landmarks"]["inner 51"]["smooth"] < 5
    assert accuracy["time"]["jitter"]["smooth"]["inner 51"] < accuracy["time"]["jitter"]["raw"]["inner 51"]
    models = {line["model"] for line in result["siam"]["table"]}
    assert {"convolution", "baseline: median", "baseline: ridge phases"} <= models
    assert "Landmark error" in done.stdout and "age shows in" in done.stdout
