"""Smoothing in the head's own frame: a plain loop, streams, what it keeps and what it takes away."""

import json
import subprocess
import sys

import numpy as np
import pytest

from nemo_pipeline import track_video
from nemo_pipeline.geometry import points_off, shipped_mean_shape
from nemo_pipeline.stages import headframe
from nemo_pipeline.stages.headframe import LIMIT, METHODS, SUPPORT, jumps, smooth_in_head_frame
from nemo_pipeline.stages.smooth import StreamSmoother, smooth_4253h_twice
from tests.reference import headframe as reference
from tests.support.paths import ROOT, SHARED

EYES = 80.0  # pixels between the outer eye corners
MOUTH = slice(48, 68)


def walk(rng: np.random.Generator, length: int, fps: float = 25.0, *, shake: float = 0.3) -> np.ndarray:
    """(T, 2, 2): cos, sin (with scale) and place of a head whose path sways by `shake` eye distances at up to 2 Hz."""
    at = np.arange(length) / fps
    sway = [np.sin(2 * np.pi * (rng.uniform(0.5, 2.0) * at + rng.uniform())) for _ in range(4)]
    angle, scale = 0.1 * shake * sway[2], EYES * (1 + 0.1 * shake * sway[3])
    turn = np.stack([scale * np.cos(angle), scale * np.sin(angle)], axis=-1)
    return np.stack(
        [turn, np.stack([300 + shake * EYES * sway[0], 200 + shake * EYES * sway[1]], -1)], axis=1
    )


def placed(shapes: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Shapes (T, 68, 2) in the head's frame, laid along a path."""
    (c, s), (x, y) = path[:, 0].T[:, :, None], path[:, 1].T[:, :, None]
    u, v = shapes[..., 0], shapes[..., 1]
    return np.stack([c * u - s * v + x, s * u + c * v + y], axis=-1)


def face(length: int, smile: np.ndarray | None = None) -> np.ndarray:
    """(T, 68, 2): a face that is not the mean one, whose lip corners go out by `smile` eye distances."""
    shapes = np.repeat((shipped_mean_shape() * (1.05, 0.97))[None], length, axis=0)
    if smile is not None:
        shapes[:, 48, 0] -= smile
        shapes[:, 54, 0] += smile
    return shapes


def noisy(rng: np.random.Generator, points: np.ndarray, share: float = 0.003) -> np.ndarray:
    return points + rng.normal(0, share * EYES, points.shape)


def off(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(T, 68) distances, eye distances."""
    return np.linalg.norm(a - b, axis=-1) / EYES


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6, 9, 40])
def test_a_plain_loop_gives_the_same(length):
    rng = np.random.default_rng(length)
    shapes = face(length, 0.1 * rng.random(length))
    shapes[length // 2, MOUTH] += 0.1
    shapes[length // 3, rng.integers(0, 68)] += 0.3
    points = noisy(rng, placed(shapes, walk(rng, length)), 0.006)
    got = smooth_in_head_frame(points)
    np.testing.assert_allclose(got, reference.smooth_in_head_frame(points.tolist()), rtol=0, atol=1e-9)


@pytest.mark.parametrize("how", sorted(METHODS))
@pytest.mark.parametrize("blocks", [[1] * 75, [16] * 5, [3, 40, 1, 31], [75]])
def test_a_stream_gives_the_whole_to_the_bit(how, blocks):
    rng = np.random.default_rng(3)
    points = noisy(rng, placed(face(75), walk(rng, 75)), 0.005)
    points[30] += 20
    function, support = METHODS[how]
    stream, out, at, most = StreamSmoother(function, support), [], 0, 0
    for size in blocks:
        out.append(stream.push(points[at : at + size]))
        at += size
        most = max(most, at - sum(map(len, out)))
    out.append(stream.finish())
    np.testing.assert_array_equal(np.concatenate(out), function(points))
    assert most <= support + max(blocks)


def test_the_support_is_as_far_as_a_frame_reaches():
    """Garbage put beyond the support changes nothing; with one frame less it can."""
    rng = np.random.default_rng(5)
    points = noisy(rng, placed(face(80), walk(rng, 80)), 0.006)
    whole = smooth_in_head_frame(points)
    far = 0
    for cut in range(30, 50):
        other = smooth_in_head_frame(points[:cut])
        changed = np.flatnonzero((other != whole[:cut]).any(axis=(1, 2)))
        far = max(far, cut - int(changed.min()) if len(changed) else 0)
    assert 10 <= far <= SUPPORT


def test_a_still_face_is_smoothed_as_by_4253h():
    rng = np.random.default_rng(0)
    true = placed(face(120), walk(rng, 120, shake=0))
    points = noisy(rng, true, 0.002)
    got, literal = smooth_in_head_frame(points), smooth_4253h_twice(points)

    def tremble(p):
        return np.linalg.norm(np.diff(p - true, 2, axis=0), axis=-1).mean()

    assert tremble(got) < 1.2 * tremble(literal) < 0.2 * tremble(points)
    assert off(got, literal).mean() < 0.001


def test_a_moving_head_is_not_left_behind():
    rng = np.random.default_rng(1)
    true = placed(face(120), walk(rng, 120, fps=15, shake=0.6))
    points = noisy(rng, true, 0.002)
    assert off(smooth_4253h_twice(points), true).max() > 0.10, "the literal form leaves the face"
    got = smooth_in_head_frame(points)
    assert off(got, true).max() < 0.015
    assert off(got, true).mean() < off(points, true).mean(), "and yet it takes noise away"
    assert points_off(got, points).max() < 0.01


def test_no_point_goes_further_than_twice_the_limit():
    rng = np.random.default_rng(2)
    for share in (0.002, 0.01, 0.05):
        points = noisy(rng, placed(face(90, 0.2 * rng.random(90)), walk(rng, 90)), share)
        head = headframe._fit(points)
        alone = headframe._alone(head.to_own(points), np.ones(90))
        alone |= headframe._alone(head.ends(), head.size()).any(axis=1)[:, None]
        moved = np.linalg.norm(smooth_in_head_frame(points) - points, axis=-1) / head.size()[:, None]
        # The head's own share is that of two points at its sides: a little more at the chin, which lies further out.
        assert moved[~alone].max() < 3 * LIMIT


@pytest.mark.parametrize("fps", [15, 25, 30, 50])
def test_a_fast_smile_keeps_its_height(fps):
    at = np.arange(round(2 * fps)) / fps
    rise, fall = np.clip((at - 0.7) / 0.2, 0, 1), np.clip((at - 1.0) / 0.2, 0, 1)
    smile = 0.1 * (np.sin(rise * np.pi / 2) ** 2 - np.sin(fall * np.pi / 2) ** 2)
    rng = np.random.default_rng(fps)
    points = noisy(rng, placed(face(len(at), smile), walk(rng, len(at), fps)), 0.001)
    got = headframe._fit(points).to_own(smooth_in_head_frame(points))
    width = got[:, 54, 0] - got[:, 48, 0]
    assert np.ptp(width) > 0.95 * 2 * smile.max()


@pytest.mark.parametrize(
    "moved", [[33], list(range(48, 68)), list(range(68))], ids=["point", "mouth", "head"]
)
@pytest.mark.parametrize("shake", [0.0, 0.15])
def test_what_leaves_and_returns_within_one_frame_is_put_back(moved, shake):
    rng = np.random.default_rng(7)
    true = placed(face(60), walk(rng, 60, shake=shake))
    points = noisy(rng, true, 0.001)
    spoiled = points.copy()
    spoiled[30, moved] += (0.12 * EYES, -0.16 * EYES)  # a fifth of the eye distance
    left = off(smooth_in_head_frame(spoiled), smooth_in_head_frame(points))
    assert left[30, moved].max() < 0.02 and left.max() < 0.02
    assert jumps(spoiled)[30] > (0.05 if len(moved) > 1 else 0.001) and jumps(points).max() < 0.01


def test_it_follows_the_picture():
    """Shifted, enlarged, played backwards: the same face."""
    rng = np.random.default_rng(9)
    points = noisy(rng, placed(face(40), walk(rng, 40)), 0.004)
    got = smooth_in_head_frame(points)
    np.testing.assert_allclose(smooth_in_head_frame(3 * points + (70, -20)), 3 * got + (70, -20), atol=1e-7)
    np.testing.assert_allclose(smooth_in_head_frame(points[::-1]), got[::-1], atol=1e-9)


def test_points_that_are_none():
    points = np.zeros((9, 68, 2))
    np.testing.assert_array_equal(
        smooth_in_head_frame(points), points
    )  # all in one place: no face, and no NaN
    for bad in (np.nan, np.inf):
        spoiled = np.ones((9, 68, 2))
        spoiled[4, 3, 1] = bad
        with pytest.raises(ValueError, match="first in frame 4"):
            smooth_in_head_frame(spoiled)
    for shape in ((68, 2), (3, 67, 2), (3, 68, 3)):
        with pytest.raises(ValueError, match=r"\(T, 68, 2\)"):
            smooth_in_head_frame(np.zeros(shape))
    with pytest.raises(ValueError, match="complex"):
        smooth_in_head_frame(np.zeros((9, 68, 2)) * 1j)
    kept = np.ones((5, 68, 2), np.int64)
    assert smooth_in_head_frame(kept).dtype == np.float64 and (kept == 1).all()
    assert len(smooth_in_head_frame(np.zeros((0, 68, 2)))) == 0


@pytest.mark.slow
def test_the_benchmark_at_its_smallest(tmp_path):
    script = ROOT / "benchmarks" / "smoothing.py"
    words = ["--subjects", "1", "--size", "240x240", "--folder", tmp_path, "--json", tmp_path / "out.json"]
    subprocess.run([sys.executable, script, *words], check=True, capture_output=True)
    sets = json.loads((tmp_path / "out.json").read_text())["sets"]
    assert (
        sets["head"]["error, shaken, 15/s"]
        < sets["none"]["error, shaken, 15/s"]
        < sets["4253h"]["error, shaken, 15/s"]
    )


CLIP = SHARED / "data" / "videos" / "liveportrait_d11.mp4"


@pytest.mark.real
@pytest.mark.skipif(not CLIP.is_file(), reason="the real clips are not here")
def test_a_child_that_nods():
    track = track_video(CLIP)
    raw = track.landmarks_raw
    assert points_off(smooth_4253h_twice(raw), raw).max() > 0.05
    assert points_off(track.landmarks, raw).max() < 0.02 and jumps(raw).max() < 0.03
