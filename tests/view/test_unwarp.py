"""The heat map on the face in the frame: the inverse of the warp against plain loops, and the clip that is drawn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from nemo_pipeline.batch.heat import draw_in_child, heat_job
from nemo_pipeline.batch.worker import Pool
from nemo_pipeline.errors import OutputError
from nemo_pipeline.geometry import Template, shipped_mean_shape, shipped_template, shipped_triangles
from nemo_pipeline.view.attention import Attention
from nemo_pipeline.view.heat_video import draw_heat_video
from nemo_pipeline.view.unwarp import sample, unwarp
from siam_model.config import SIAMConfig
from siam_model.explain import cell_weights
from tests.support.clips import write_clip
from tests.support.processes import PATIENCE

TEMPLATE = shipped_template(48)
#: One cell in the middle of the crop's lower left quarter, as wide as a mouth.
ROWS = np.exp(-0.5 * ((np.arange(48)[:, None] - [34.0]) / 3) ** 2)
COLUMNS = np.exp(-0.5 * ((np.arange(48)[:, None] - [16.0]) / 3) ** 2)


def weights_in(triangle: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Barycentric weights by solving three equations."""
    return np.linalg.solve(np.vstack([triangle.T, np.ones(3)]), np.append(point, 1.0))


def forward(template: Template, landmarks: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Where in the frame the warp looks for a place in the crop: a loop over the triangles, the surest one counts."""
    best = max(
        (weights_in(template.landmarks[list(t)], place).min(), tuple(t)) for t in template.triangles.tolist()
    )[1]
    return weights_in(template.landmarks[list(best)], place) @ landmarks[list(best)]


def face(
    seed: int, scale: float = 40.0, centre: tuple[float, float] = (60.0, 55.0), noise: float = 0.5
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle = rng.uniform(-0.5, 0.5)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return shipped_mean_shape() @ turn.T * scale + centre + rng.normal(0, noise, (68, 2))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6))
def test_it_undoes_the_warp(seed):
    landmarks = face(seed)
    found = unwarp(TEMPLATE, landmarks, 120, 110)
    assert len(found.x) > 500
    for k in np.random.default_rng(seed).integers(0, len(found.x), 15):
        np.testing.assert_allclose(
            forward(TEMPLATE, landmarks, found.crop[k]), (found.x[k], found.y[k]), atol=1e-6
        )


def test_every_pixel_of_the_face_and_no_other():
    landmarks = face(1, 22, (30.0, 28.0))
    found = unwarp(TEMPLATE, landmarks, 48, 60)
    inside = {
        (x, y)
        for x in range(48)
        for y in range(60)
        if any(weights_in(landmarks[t], np.array([x, y])).min() >= -1e-9 for t in TEMPLATE.triangles)
    }
    assert set(zip(found.x.tolist(), found.y.tolist(), strict=True)) == inside
    assert len(found.x) == len(inside), "each once"


def test_a_face_beyond_the_picture():
    half = unwarp(TEMPLATE, face(2, 40, (0.0, 0.0)), 50, 50)
    assert len(half.x) and half.x.min() == 0 and half.y.min() == 0
    assert len(unwarp(TEMPLATE, face(2, 40, (-500.0, 0.0)), 50, 50).x) == 0
    assert len(unwarp(TEMPLATE, face(2, 90000), 50, 50).x) == 0
    for wrong in (np.zeros((67, 2)), np.full((68, 2), np.nan)):
        with pytest.raises(ValueError, match="68 finite points"):
            unwarp(TEMPLATE, wrong, 50, 50)


@given(st.integers(1, 9), st.integers(0, 10**6))
def test_sample_is_bilinear(side, seed):
    rng = np.random.default_rng(seed)
    values, place = rng.normal(size=(side, side)), rng.uniform(-2, side + 1, (20, 2))
    expected = map_coordinates(values, place[:, ::-1].T, order=1, mode="nearest")
    np.testing.assert_allclose(sample(values, place), expected, atol=1e-12)


TIMES = [150 + t for t in (0, 1, 2, 4, 7, 8, 9, 10, 14, 15)]
KEPT = [2, 3, 4, 5, 6, 7, 8]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = [np.full((360, 700, 3), 96, np.uint8)] * len(TIMES)
    return write_clip(tmp_path_factory.mktemp("heat") / "caf\udce9 $a^^b$.mkv", pictures, times=TIMES)


def attention(maps: bool = True) -> Attention:
    """Kept frames 2 to 8: the face moves to the right; the map's one cell glows in all; weights rise."""
    landmarks = np.stack([shipped_mean_shape() * 110 + (200 + 30 * t, 150) for t in range(len(KEPT))])
    one = np.ones((len(KEPT), 1, 1), np.float32) if maps else None
    return Attention(np.array(KEPT), landmarks, np.arange(1, 8) / 28, one, ROWS, COLUMNS)


def decoded(path: Path) -> tuple[list[float], list[np.ndarray], str]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        kind = f"{stream.codec_context.name} {stream.codec_context.pix_fmt}"
        frames = [(float(f.time), f.to_ndarray(format="rgb24")) for f in container.decode(stream)]
    return [t for t, _ in frames], [picture for _, picture in frames], kind


def test_the_heat_lies_on_the_face_in_the_frame(clip, tmp_path):
    target = tmp_path / "seen.mp4"
    draw_heat_video(clip, target, attention(), TEMPLATE, title="caf\udce9 $a^^b$", note="Means nothing.")
    times, pictures, kind = decoded(target)
    assert kind == "h264 yuv420p" and target.stat().st_mode & 0o777 == 0o600
    with av.open(str(clip)) as container:
        source = np.array([float(f.time) for f in container.decode(video=0)])
    np.testing.assert_allclose(times, source - source[0], atol=1e-4)
    for k, picture in enumerate(pictures):
        changed = np.abs(picture[:360, :700].astype(int) - 96).max(axis=2)
        if k not in KEPT:
            assert changed.max() < 14, "a frame that the model did not see stays as it is"
            continue
        landmarks = attention().landmarks[KEPT.index(k)]
        y, x = np.unravel_index((picture[:360, :700].astype(int) @ (1, 1, 1)).argmax(), (360, 700))
        wanted = forward(TEMPLATE, landmarks, np.array([16.0, 34.0]))
        assert np.hypot(x - wanted[0], y - wanted[1]) < 8, k
        low, high = landmarks.min(axis=0) - 4, landmarks.max(axis=0) + 4
        outside = np.ones((360, 700), bool)
        outside[int(low[1]) : int(high[1]), int(low[0]) : int(high[0])] = False
        assert changed[outside].max() < 14


def test_flat_attention_is_one_tint_over_the_whole_face(clip, tmp_path):
    """The scale begins at 0: a map that hardly differs is not stretched to all colours."""
    noise = np.random.default_rng(0).uniform(0.49, 0.5, (len(KEPT), 10, 10))
    weights = cell_weights(SIAMConfig())
    seen = dataclasses.replace(attention(), maps=noise, rows=weights, columns=weights, largest=0.5)
    draw_heat_video(clip, tmp_path / "a.mp4", seen, shipped_template(114), title="a")
    _, pictures, _ = decoded(tmp_path / "a.mp4")
    for k in KEPT:
        points = attention().landmarks[KEPT.index(k)].astype(int)
        inner = points[[27, 30, 33, 48, 54, 57, 39, 42]]  # nose, mouth, inner corners of the eyes
        colours = pictures[k][inner[:, 1], inner[:, 0]].astype(int)
        assert np.ptp(colours, axis=0).max() < 14, k
        assert (colours.max(axis=1) - colours.min(axis=1) > 40).all()


def test_the_weights_are_marked_below(clip, tmp_path):
    draw_heat_video(clip, tmp_path / "a.mp4", attention(), TEMPLATE, title="a")
    _, pictures, _ = decoded(tmp_path / "a.mp4")
    strips = [picture[360:-24] for picture in pictures]  # without the colour scale
    yellow = [(p[..., 0] > 190) & (p[..., 1] > 150) & (p[..., 2] < 140) for p in strips]
    heights = [int(mark.sum(axis=0).max()) for mark in yellow]
    assert heights[0] == heights[9] == 0
    marked = [heights[k] for k in KEPT]
    assert marked == sorted(marked) and marked[-1] > 4 * marked[0]
    places = [float(np.flatnonzero(yellow[k].sum(axis=0) > 12).mean()) for k in KEPT[3:]]
    assert places == sorted(places)


def test_without_spatial_attention(clip, tmp_path):
    draw_heat_video(clip, tmp_path / "a.mp4", attention(maps=False), TEMPLATE, title="a")
    _, pictures, _ = decoded(tmp_path / "a.mp4")
    assert len(pictures) == 10 and max(np.abs(p[:360, :700].astype(int) - 96).max() for p in pictures) < 14


def test_a_child_draws_it_and_what_fails_is_a_sentence(clip, tmp_path):
    pool = Pool()
    try:
        job = heat_job(
            clip, tmp_path / "a.mp4", attention(), TEMPLATE, tmp_path / "a.npz", title="a", note=""
        )
        assert draw_in_child(job, pool) == ""
        draw_heat_video(clip, tmp_path / "b.mp4", attention(), TEMPLATE, title="a")
        assert all(
            (p == q).all()
            for p, q in zip(decoded(tmp_path / "a.mp4")[1], decoded(tmp_path / "b.mp4")[1], strict=True)
        )
        broken = tmp_path / "broken.mp4"
        broken.write_text("this is not a video")
        note = draw_in_child(job | {"path": str(broken), "target": str(tmp_path / "c.mp4")}, pool)
        assert "c.mp4 could not be drawn" in note
        assert not list(tmp_path.glob("*c.mp4*"))
        note = draw_in_child(job | {"target": str(tmp_path / "nowhere" / "c.mp4")}, pool)
        assert "could not be drawn" in note
    finally:
        pool.stop()
    with pytest.raises(OutputError, match="could not be drawn"):
        draw_heat_video(broken, tmp_path / "d.mp4", attention(), TEMPLATE, title="a")


def test_a_child_that_takes_too_long_leaves_nothing(tmp_path):
    pictures = [np.full((240, 320, 3), 96, np.uint8)] * 100
    path = write_clip(tmp_path / "long.mkv", pictures)
    pool = Pool()
    try:
        what = (path, tmp_path / "a.mp4", attention(), TEMPLATE, tmp_path / "a.npz")
        slot, child = pool.acquire()
        child.ask({"do": "probe", "path": str(path)}, PATIENCE)  # it has started
        pool.release(slot, child, True)
        assert "was not drawn within 0.05 s" in draw_in_child(
            heat_job(*what, title="a", note=""), pool, timeout=0.05
        )
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "long.mkv"]
    finally:
        pool.stop()


def test_triangles_of_another_shape():
    wide = Template(shipped_mean_shape() * (1.3, 1.0), shipped_triangles(), 48, 0.1)
    landmarks = face(5)
    found = unwarp(wide, landmarks, 120, 110)
    for k in range(0, len(found.x), 300):
        np.testing.assert_allclose(
            forward(wide, landmarks, found.crop[k]), (found.x[k], found.y[k]), atol=1e-6
        )
