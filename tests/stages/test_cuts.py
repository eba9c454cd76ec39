"""Cuts and dissolves end a track at their frame; light, zoom, blinks and turns do not."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.stages import cuts
from nemo_pipeline.stages.cuts import Glimpse, Shot, change, dissolve
from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.stages.headframe import METHODS
from nemo_pipeline.stages.landmarks import Engine, FaceMesh
from nemo_pipeline.stages.search import full_search
from nemo_pipeline.stages.track import Tracker
from nemo_pipeline.video import prep_video_rows
from tests.support.clips import Actor, acted, other_person, person, smooth_pictures, sway, write_clip

A, B = person(), other_person()
SIZE = (240, 200)
FPS = 30.0
Pictures = list[np.ndarray]


@functools.cache
def engine() -> Engine:
    return load_engine("litert")


def place(actor: Actor, k: int) -> np.ndarray:
    dx, dy = sway(k)
    return actor.placed(120 + dx, 88 + dy, 60, 3 * float(np.sin(k / 6)))


@functools.cache
def room(number: int) -> np.ndarray:
    return smooth_pictures(30 * number + 1, *SIZE)[-1]


@functools.cache
def shot(actor: Actor, number: int, n: int = 30) -> Pictures:
    """One person in one room, the eyes always at the same place."""
    return acted(n, SIZE, lambda k: [(actor, place(actor, k))], room(number))


def people(pictures: Pictures, subject: str = "largest", fps: float = FPS) -> list[list[int]]:
    tracker = Tracker(engine(), subject)
    return [[o.person for o in tracker.step(Frame.from_rgb(p, k, k / fps))] for k, p in enumerate(pictures)]


def dissolved(a: Pictures, b: Pictures, start: int, n: int) -> Pictures:
    """`n` mixed pictures between two shots; both go on meanwhile."""
    mixed = [
        np.round(x * (1 - (k + 1) / (n + 1)) + y * ((k + 1) / (n + 1))).astype(np.uint8)
        for k, (x, y) in enumerate(zip(a[start : start + n], b[start : start + n], strict=True))
    ]
    return a[:start] + mixed + b[start + n :]


@pytest.mark.parametrize(("first", "second"), [(A, B), (B, A)])
@pytest.mark.parametrize("rooms", [(0, 1), (0, 0)])
def test_a_hard_cut_ends_the_track_at_its_frame(first: Actor, second: Actor, rooms: tuple[int, int]) -> None:
    seen = people(shot(first, rooms[0])[:8] + shot(second, rooms[1])[8:16])
    assert seen == [[1]] * 8 + [[2]] * 8


@pytest.mark.parametrize("cut", [8, 9, 10, 11])
def test_at_a_high_rate_a_cut_is_found_at_its_frame_too(cut: int) -> None:
    """Not every frame is compared there; each one that shows somebody else is, be it one alone."""
    still = [shot(A, 0)[0]] * cut
    assert people(still + [shot(B, 1)[0]] * 6, fps=120) == [[1]] * cut + [[2]] * 6
    seen = people([*still, shot(B, 0)[0], *still], fps=120)
    assert seen[:cut] == [[1]] * cut and 1 not in seen[cut]


@pytest.mark.parametrize(
    ("fps", "step", "compared"),
    [(120, 0.0, 30), (50, 0.0, 25), (30, 0.0, 30), (25, 0.0, 25), (120, 0.02, 120)],
)
def test_frames_are_compared_at_most_thirty_times_a_second_while_a_face_rests(
    fps: int, step: float, compared: int
) -> None:
    rng = np.random.default_rng(3)
    points = np.pad(rng.uniform(100, 200, (478, 2)), ((0, 0), (0, 1))).astype(np.float32)
    size = FaceMesh(points, 1.0).region.size
    pace = cuts.Pace(0.0, points[:468, :2])
    moved = [FaceMesh(points + np.float32([k * step * size, 0, 0]), 1.0) for k in range(1, fps + 1)]
    taken = [pace.takes(k / fps, mesh) for k, mesh in enumerate(moved, start=1)]
    assert sum(taken) == compared


@pytest.mark.parametrize(("block", "fps"), [(5, 30), (32, 30), (32, 100)])
def test_frames_in_blocks_are_followed_as_one_by_one(block: int, fps: int) -> None:
    """With a cut within a block, a face that is lost, and one that is looked for."""
    pictures = shot(A, 0)[:14] + shot(B, 1)[:9] + [room(1)] * 3 + shot(B, 1)[9:20]
    frames = [Frame.from_rgb(picture, k, k / fps) for k, picture in enumerate(pictures)]
    one_by_one, in_blocks = Tracker(engine(), "all"), Tracker(engine(), "all")
    expected = [(one_by_one.look(frame), one_by_one.n_faces) for frame in frames]
    got = [seen for k in range(0, len(frames), block) for seen in in_blocks.look_all(frames[k : k + block])]
    assert {number for found, _ in expected for _, number in found} >= {1, 2}
    for (found, n_faces), (others, n_others) in zip(expected, got, strict=True):
        assert n_faces == n_others
        assert [number for _, number in found] == [number for _, number in others]
        for (mesh, _), (other, _) in zip(found, others, strict=True):
            np.testing.assert_array_equal(mesh.points, other.points)


@pytest.mark.parametrize("seed", [33, 48])
def test_flat_parts_have_a_finite_structure(seed: int) -> None:
    """Texture above one level, as with bars and studios: the running sums of a mean end just below 0 there. What is
    not a number would be no cut."""
    texture = np.random.default_rng(seed).integers(0, 256, (24, 64))
    picture = np.vstack([texture, np.full((24, 64), 16)]).astype(np.uint8)
    structure = cuts._structure(picture)
    assert np.isfinite(structure).all()
    assert abs(float((structure**2).sum()) - 1) < 1e-5
    assert np.abs(structure[36:]).max() < 1e-6


@pytest.mark.parametrize("n", [1, 3, 6, 15])
def test_a_dissolve_ends_the_track_on_its_way(n: int) -> None:
    seen = people(dissolved(shot(A, 0), shot(B, 1), 10, n)[: n + 20])
    before, after = {i for s in seen[:10] for i in s}, {i for s in seen[10 + n :] for i in s}
    assert before == {1}
    assert not before & after
    assert all(seen[:10]) and all(seen[10 + n :])


def test_tiles_that_change_places_are_other_people() -> None:
    """2 x 2 tiles; the two people in the upper row change places, the lower row stays."""

    def gallery(k: int, left: Actor, right: Actor) -> np.ndarray:
        upper = [shot(left, 0 if left is A else 1)[k], shot(right, 0 if right is A else 1)[k]]
        return np.vstack([np.hstack(upper), np.hstack([room(2), shot(B, 3)[k]])])

    seen = people([gallery(k, A, B) for k in range(8)] + [gallery(k, B, A) for k in range(8, 16)], "all")
    assert len(seen[0]) == 3
    stays = set(seen[7]) & set(seen[8])
    assert len(stays) == 1 and len(set(seen[8])) == 3
    assert set(seen[15]) == set(seen[8])


def lit(pictures: Pictures, light: Callable[[int], float | np.ndarray]) -> Pictures:
    return [np.clip(p * light(k), 0, 255).astype(np.uint8) for k, p in enumerate(pictures)]


def zoomed(pictures: Pictures, scale: Callable[[int], float]) -> Pictures:
    places = [cv2.getRotationMatrix2D((120, 95), 0, scale(k)) for k in range(len(pictures))]
    return [
        cv2.warpAffine(p, m, SIZE, borderMode=cv2.BORDER_REPLICATE)
        for p, m in zip(pictures, places, strict=True)
    ]


def blinking(pictures: Pictures) -> Pictures:
    """Skin over both eyes for three frames."""
    out = [p.copy() for p in pictures]
    for k in range(8, 11):
        for x in (-30, 30):
            at = (120 + round(sway(k)[0]) + x, 88 + round(sway(k)[1]))
            cv2.ellipse(out[k], at, (14, 7), 0, 0, 360, (205, 160, 140), -1)
    return out


@pytest.mark.parametrize(
    "happening",
    [
        lambda p: lit(p, lambda k: 1.5 if k in (8, 9) else 1.0),
        lambda p: lit(p, lambda k: np.linspace(1.5, 0.6, 240)[None, :, None] if k >= 8 else 1.0),
        lambda p: lit(p, lambda k: 0.4 if k >= 8 else 1.0),
        lambda p: zoomed(p, lambda k: 1 + 0.4 * float(np.clip((k - 6) / 6, 0, 1))),
        blinking,
        lambda p: [*p[:10], *p[20:28]],
    ],
    ids=["flash", "lamp", "lights out", "zoom", "blink", "ten frames left out"],
)
def test_one_person_stays_one(happening: Callable[[Pictures], Pictures]) -> None:
    assert people(happening(shot(A, 0)[:28])[:18]) == [[1]] * 18


def test_a_picture_of_somebody_else_for_a_moment_is_skipped() -> None:
    """What comes back within a second is what was there."""
    seen = people([*shot(A, 0)[:8], *shot(B, 1)[8:10], *shot(A, 0)[10:16]])
    assert seen == [[1]] * 8 + [[2]] * 2 + [[1]] * 6


def test_nothing_is_smoothed_across_a_cut(tmp_path: Path) -> None:
    """Through a file: each row's points are those of its own frames alone."""
    clip = write_clip(tmp_path / "cut.mp4", shot(A, 0)[:14] + shot(B, 1)[14:30], fps=30)
    config = PrepConfig(segments="all", size=48, mesh=False)
    rows = prep_video_rows(clip, config)
    assert [(v.status, v.frame_index[0], v.frame_index[-1]) for v in rows] == [("ok", 0, 13), ("ok", 14, 29)]
    for video in rows:
        alone = METHODS[config.smooth][0](video.landmarks_raw.astype(np.float64))
        np.testing.assert_array_equal(video.landmarks, alone.astype(np.float32))


def glimpse(picture: np.ndarray, time: float = 0.0) -> Glimpse:
    frame = Frame.from_rgb(picture, 0, time)
    (face,) = full_search(engine(), frame)
    return Glimpse.of(frame, face)


def test_a_mixture_is_told_from_a_movement() -> None:
    """The same two ends; between them mixtures of the two, or a picture that is none."""
    a, b = glimpse(shot(A, 0)[0]), glimpse(shot(B, 1)[0])
    mixed = [
        dataclasses.replace(a, scene=np.round(a.scene * (1 - w) + b.scene * w).astype(np.uint8))
        for w in (0.25, 0.5, 0.75)
    ]
    moved = [dataclasses.replace(a, scene=np.roll(a.scene, 5 * k, axis=1)) for k in (1, 2, 3)]
    assert change(a, b) > 2 * cuts.CUT
    assert dissolve([a, *mixed, b]) > 2 * cuts.DISSOLVE
    assert dissolve([a, *moved, b]) < cuts.DISSOLVE / 2
    assert dissolve([a, a, a, b, b]) == 0  # one step: a cut or a lamp, and `change` knows which
    assert change(a, a) == dissolve([a, a, a, a]) == 0


def test_a_shot_remembers_half_a_second() -> None:
    one = glimpse(shot(A, 0)[0])
    for step in (1 / 240, 1 / 50, 1 / 30, 1 / 15):
        following = Shot(one)
        for k in range(400):
            following.add(dataclasses.replace(one, time=k * step))
        assert len(following._kept) <= 17
        assert 0.45 < following.last.time - following._kept[0].time < 0.54
        new = dataclasses.replace(one, time=400 * step)
        lengths = [stretch[-1].time - stretch[0].time for stretch in following.stretches(new)]
        assert lengths == pytest.approx(cuts.STRETCHES, abs=0.041)
    following.add(dataclasses.replace(one, time=100.0))  # a pause
    assert [kept.time for kept in following._kept] == [100.0]


@pytest.mark.parametrize("where", [(0, 0, 10), (-500, 90, 60), (239, 1000, 3), (120, 100, 5000)])
def test_the_surroundings_lie_in_the_picture(where: tuple[float, float, float]) -> None:
    frame = Frame.from_rgb(room(0))
    for part, n in zip(cuts._around(frame, Region(*where)), frame.coarse.shape, strict=True):
        assert part.start >= 0 and part.stop <= n and part.stop - part.start >= 6
