"""Phases: curves whose cuts are known by construction, heads that move, and rendered clips with their truth."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_pipeline.phases import LEAST_RISE, MARGIN, Phases, amplitude, cut_phases, find_phases
from nemo_pipeline.synth import read_truth, render_set
from nemo_pipeline.synth.clips import clip_truth, renderers
from nemo_pipeline.synth.dynamics import ease
from nemo_pipeline.synth.plan import SynthConfig, list_clips


def course(rest: int, rise: int, hold: int, fall: int, height: float = 0.2) -> np.ndarray:
    """Amplitudes of a smile that begins at frame `rest`; flat before and after."""
    up, down = ease(np.arange(rise) / rise), 1 - ease(np.arange(fall) / fall)
    return 0.5 + height * np.concatenate([np.zeros(rest), up, np.ones(hold), down, np.zeros(rest)])


def neutral_face() -> np.ndarray:
    """(68,2) points: eyes, brows, nose and mouth where a face has them, everything else at its middle."""
    face = np.full((68, 2), (0.5, 0.5))
    face[[36, 39, 42, 45]] = [(0.15, 0.3), (0.38, 0.3), (0.62, 0.3), (0.85, 0.3)]
    face[[21, 22]] = [(0.42, 0.2), (0.58, 0.2)]
    face[[31, 35]] = [(0.42, 0.6), (0.58, 0.6)]
    face[[50, 52]] = [(0.45, 0.75), (0.55, 0.75)]
    face[[48, 54]] = [(0.3, 0.8), (0.7, 0.8)]
    return 200 * face


def smiling(curve: np.ndarray) -> np.ndarray:
    """(T,68,2) landmarks whose lip corners move outwards by the curve (0.5 is rest), in mouth widths."""
    points = np.repeat(neutral_face()[None], len(curve), axis=0)
    points[:, 48, 0] -= (curve - 0.5) * 80  # a mouth of 80 pixels
    points[:, 54, 0] += (curve - 0.5) * 80
    return points


def moved(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same faces, each frame turned in the picture, scaled and shifted by chance."""
    angle, scale = rng.uniform(-0.6, 0.6, len(points)), rng.uniform(0.5, 2, len(points))
    turn = scale[:, None, None] * np.stack(
        [np.stack([np.cos(angle), -np.sin(angle)], -1), np.stack([np.sin(angle), np.cos(angle)], -1)], 1
    )
    return points @ turn.transpose(0, 2, 1) + rng.uniform(-500, 500, (len(points), 1, 2))


def test_amplitude_is_the_definition_and_the_heads_motion_drops_out():
    curve = course(10, 12, 15, 18)
    points = smiling(curve)
    np.testing.assert_allclose(amplitude(points), curve, atol=1e-12)
    np.testing.assert_allclose(amplitude(moved(points, np.random.default_rng(0))), curve, atol=1e-9)


def test_disgust_is_the_nearness_of_lip_and_nose_to_the_brows():
    points = np.repeat(neutral_face()[None], 3, axis=0)
    points[1, [50, 52, 31, 35], 1] -= 8  # upper lip and nose wings rise
    points[2, [21, 22], 1] += 8  # brows come down
    brow, part = points[:, [21, 21, 22, 22]], points[:, [50, 31, 52, 35]]
    distance = np.linalg.norm(brow - part, axis=-1).mean(axis=1)
    found = amplitude(moved(points, np.random.default_rng(1)), "disgust")
    np.testing.assert_allclose(found, (distance[0] - distance) / 80, atol=1e-9)
    assert found[0] == 0
    assert found[1] > 0.05 and found[2] > 0.05
    assert abs(amplitude(points, "smile") - 0.5).max() < 1e-12, "neither moves the lip corners"


def test_cuts_of_a_known_course():
    rest, rise, hold, fall = 20, 25, 15, 30
    found = find_phases(smiling(course(rest, rise, hold, fall)), np.arange(110) / 25)
    # Where the minimum-jerk curve has left its end by the margin: found by bisection, as a part of its duration.
    flat = next(x for x in np.linspace(0, 1, 10001) if ease(np.array(x)) >= MARGIN)
    expected = [
        rest + flat * rise, rest + (1 - flat) * rise,
        rest + rise + hold + flat * fall, rest + rise + hold + (1 - flat) * fall,
    ]  # fmt: skip
    cuts = [found.onset[0], found.onset[1], found.offset[0], found.offset[1]]
    np.testing.assert_allclose(cuts, expected, atol=1.0)
    assert found.apex == (found.onset[1], found.offset[0])
    assert found.seconds("apex") == pytest.approx((found.apex[1] - found.apex[0]) / 25)
    mask = found.mask("onset", "offset")
    assert mask.dtype == bool and mask.sum() == (cuts[1] - cuts[0]) + (cuts[3] - cuts[2])
    with pytest.raises(ValueError, match="onset, apex, offset"):
        found.mask("smile")  # type: ignore[arg-type]


def test_a_long_slow_sway_is_no_onset_and_a_hesitation_does_not_end_one():
    smile = course(60, 15, 10, 15)
    sway = smile + 0.02 * np.sin(np.arange(len(smile)) / len(smile) * 2 * np.pi)
    (start, stop), _, _ = cut_phases(sway)
    assert 58 <= start <= 66 and 70 <= stop <= 76
    hesitant = course(20, 30, 10, 20)
    hesitant[35:38] -= 0.012  # less than a tenth of the smile
    (start, stop), _, _ = cut_phases(hesitant)
    assert start < 28 and stop > 43


def test_a_smile_that_is_still_there_at_the_end_has_no_offset():
    curve = course(10, 12, 15, 18)[:37]
    found = find_phases(smiling(curve), np.arange(37) / 25)
    assert found.onset[1] > found.onset[0]
    assert found.apex == (found.onset[1], 37)
    assert found.offset == (37, 37) and found.seconds("offset") == 0


@pytest.mark.parametrize("frames", [1, 2, 3, 40])
def test_short_and_still_videos_have_no_phases(frames):
    found = find_phases(np.repeat(neutral_face()[None], frames, axis=0), np.arange(frames) / 25)
    assert found.amplitude.shape == (frames,)
    assert not found.mask("onset", "apex", "offset").any()
    assert [found.seconds(name) for name in ("onset", "apex", "offset")] == [0, 0, 0]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.4, 0.9), min_size=1, max_size=60), st.sampled_from(["smile", "disgust"]))
def test_any_curve_gives_ordered_phases(values, measure):
    found = find_phases(smiling(np.array(values)), np.arange(len(values)) / 25, measure)
    assert found.measure == measure
    spans = [found.onset, found.apex, found.offset]
    assert all(0 <= a <= b <= len(values) for a, b in spans)
    if found.mask("onset").any():
        assert found.onset[1] == found.apex[0] and found.apex[1] == found.offset[0]
        rise = found.amplitude[found.onset[1]] - found.amplitude[found.onset[0]]
        assert rise > LEAST_RISE / 2


def test_what_cannot_be_measured_is_said():
    points, times = smiling(course(5, 5, 5, 5)), np.arange(25) / 25
    for bad, sentence in (
        ((points[:, :67], times), "68,2"),
        ((points[:0], times[:0]), "T > 0"),
        ((np.full_like(points, np.nan), times), "not finite"),
        ((points, times[:-1]), "25 rising numbers"),
        ((points, times[::-1]), "rising"),
        ((np.zeros_like(points), times), "eyes coincide"),
    ):
        with pytest.raises(ValueError, match=sentence):
            find_phases(*bad)
    with pytest.raises(ValueError, match="smile, disgust"):
        amplitude(points, "joy")  # type: ignore[arg-type]


def errors(truth: np.ndarray, found: Phases) -> np.ndarray:
    """(4,) frames: start and end of the onset, start and end of the offset, found minus true."""
    cuts = [*found.onset, *found.offset]
    return np.array(cuts) - [*truth[0], *truth[2]]


@pytest.mark.parametrize("expression", ["smile", "disgust"])
def test_true_points_of_the_synthetic_set_with_noise(expression):
    """Known landmarks of moving heads, each coordinate off by 0.3 % of the eye distance as tracking is."""
    config = SynthConfig(subjects=8, clips=2, seed=5, expression=expression)
    rng, found = np.random.default_rng(0), []
    for renderer in renderers(config, list_clips(config)):
        truth = clip_truth(renderer)
        eyes = np.linalg.norm(truth.landmarks[0, 45] - truth.landmarks[0, 36])
        noisy = truth.landmarks + rng.normal(0, 0.003 * eyes, truth.landmarks.shape)
        times = np.arange(len(noisy)) / config.fps
        found.append(errors(truth.phases, find_phases(noisy, times, expression)))
    error = np.abs(found).mean(axis=0)
    assert (error < [3, 3, 3, 6]).all(), error


def test_rendered_and_tracked_smiles(tmp_path):
    """The whole way: pictures, tracking, smoothing, cuts; mean error of the four cuts, frames of 1/25 s."""
    from nemo_pipeline import track_video

    made = render_set(tmp_path / "set", 3, 1, 11, workers=1, width=240, height=240)
    truth, found = read_truth(made.truth), []
    for path in made.clips:
        track = track_video(path)
        found.append(errors(truth[path.stem].phases, find_phases(track.landmarks, track.timestamps)))
    error = np.abs(found).mean(axis=0)
    assert (error < [4, 4, 4, 6]).all(), error


def test_the_figure_takes_any_title(tmp_path):
    from matplotlib.image import imread

    from siam_model.figures.phases import phase_figure

    found = find_phases(smiling(course(10, 12, 15, 18)), np.arange(65) / 25)
    still = find_phases(np.repeat(neutral_face()[None], 1, axis=0), [0.0])
    for name, phases in (("$a^^b$.mp4 \udcff [/b]", found), ("still", still)):
        phase_figure(phases, name).savefig(tmp_path / "phases.png")
        assert imread(tmp_path / "phases.png").std() > 0.01


def test_numpy_alone():
    code = (
        "import sys, nemo_pipeline.phases; "
        "print([m for m in ('torch', 'cv2', 'av', 'mediapipe', 'dask', 'scipy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
