"""Tracking on pictures drawn for it: who is where, from very small to cut off, upright to upside down."""

import dataclasses
import functools

import cv2
import numpy as np
import pytest

from nemo_pipeline.stages.cuts import Glimpse, Shot
from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.stages.landmarks import REGION_SCALE, Detection, Engine, FaceMesh, face_region
from nemo_pipeline.stages.search import DETECTOR_VIEW, full_search, judged, refine
from nemo_pipeline.stages.track import Observation, Tracker, observe
from tests.support.clips import Actor, acted, masked, other_person, person, scene, smooth_pictures, sway

A, B = person(), other_person()
SIZE = (320, 240)


@functools.cache
def engine() -> Engine:
    return load_engine("litert")


@functools.cache
def known_landmarks(actor: Actor) -> np.ndarray:
    """(68, 2) in the person's own picture, found once on an enlarged copy."""
    large = cv2.resize(actor.picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    (face,) = full_search(engine(), Frame.from_rgb(large))
    return (observe(face).landmarks - 0.5) / 2


def expected(actor: Actor, place: np.ndarray) -> np.ndarray:
    return known_landmarks(actor) @ place[:, :2].T + place[:, 2]


def error(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean error in distances of the outer eye corners."""
    return float(np.hypot(*(found - truth).T).mean() / np.hypot(*(truth[45] - truth[36])))


def track(
    pictures: list[np.ndarray], subject: str = "largest", fps: float = 25.0
) -> tuple[list[list[Observation]], Tracker]:
    tracker = Tracker(engine(), subject)
    seen = [tracker.step(Frame.from_rgb(p, k, k / fps)) for k, p in enumerate(pictures)]
    return seen, tracker


def place(
    actor: Actor, k: int, x: float = 160, y: float = 100, eye_px: float = 60, roll: float = 0.0
) -> np.ndarray:
    dx, dy = sway(k)
    return actor.placed(x + dx, y + dy, eye_px, roll)


def background(size: tuple[int, int] = SIZE) -> np.ndarray:
    return smooth_pictures(1, *size)[0] // 2 + 40


@pytest.mark.parametrize(
    ("size", "eye_px"),
    [
        ((320, 240), 60),
        ((160, 120), 40),
        ((640, 480), 200),
        ((400, 400), 180),
        ((96, 54), 15),
        ((120, 90), 15),
    ],
)
def test_one_face_of_any_size(size: tuple[int, int], eye_px: float) -> None:
    x, y = size[0] / 2, size[1] * 0.42
    places = [place(A, k, x, y, eye_px) for k in range(8)]
    seen, tracker = track([scene(size, (A, p)) for p in places])
    assert [[o.person for o in found] for found in seen] == [[1]] * 8
    assert tracker.trusted(1)
    assert tracker.n_faces == 1
    for p, (one,) in zip(places, seen, strict=True):
        assert error(one.landmarks, expected(A, p)) < (0.03 if eye_px > 20 else 0.06)
        assert one.eye_distance_px == pytest.approx(eye_px, rel=0.12)
        assert one.face_presence > 0.9
        assert max(map(abs, one.pose)) < 15


@pytest.mark.parametrize("roll", [-35, 35, 90, -90, 180, 150])
def test_a_rolled_head(roll: float) -> None:
    """Lying and upside-down pictures too, with the landmarks where they belong."""
    size = (300, 300)
    places = [place(A, k, 150, 150, 55, roll) for k in range(6)]
    seen, _ = track([scene(size, (A, p)) for p in places])
    assert [len(found) for found in seen] == [1] * 6
    for p, (one,) in zip(places, seen, strict=True):
        assert error(one.landmarks, expected(A, p)) < 0.04
        assert (one.pose[2] - roll + 180) % 360 - 180 == pytest.approx(0, abs=6)


DARK, PURPLE, BROWN = (25, 25, 28), (120, 60, 160), (90, 60, 50)


def mask_clip(n: int, colour: tuple[int, int, int], eye_px: float = 80) -> list[np.ndarray]:
    """A masked person who moves a little."""
    places = [place(A, k, 160, 120, eye_px) for k in range(n)]
    return [masked(scene((320, 300), (A, p)), expected(A, p), colour) for p in places]


@pytest.mark.parametrize(("colour", "eye_px"), [(DARK, 80), (DARK, 90), (PURPLE, 80), (BROWN, 80)])
def test_a_masked_face_is_upright(colour: tuple[int, int, int], eye_px: float) -> None:
    """To the detector's best score alone, each of these lies upside down."""
    seen, tracker = track(mask_clip(8, colour, eye_px))
    assert [[o.person for o in found] for found in seen] == [[1]] * 8
    assert tracker.trusted(1)
    assert max(abs(o.pose[2]) for found in seen for o in found) < 20


def upside_down(picture: np.ndarray) -> FaceMesh:
    """What is seen of a face if it is taken for one upside down."""
    frame = Frame.from_rgb(picture)
    whole = Region((frame.width - 1) / 2, (frame.height - 1) / 2, 320.0, np.pi)
    box = engine().detect(frame.view(whole, DETECTOR_VIEW))[0]
    to_frame = whole.to_source(DETECTOR_VIEW)
    x, y = to_frame[:, :2] @ (box.x, box.y) + to_frame[:, 2]
    size = box.size * whole.size / DETECTOR_VIEW * REGION_SCALE
    mesh = refine(engine(), frame, Region(float(x), float(y), size, box.angle + np.pi))
    assert mesh is not None and abs(observe(mesh).pose[2]) > 150
    return mesh


def test_which_way_up_is_judged_again() -> None:
    picture = mask_clip(1, DARK)[0]
    mesh = judged(engine(), Frame.from_rgb(picture), upside_down(picture))
    assert mesh is not None and abs(observe(mesh).pose[2]) < 20
    # A face without a mask that does lie upside down stays so.
    turned = scene((320, 300), (A, place(A, 0, 160, 160, 80, roll=180)))
    mesh = upside_down(turned)
    assert judged(engine(), Frame.from_rgb(turned), mesh) is mesh


def test_who_was_first_taken_for_upside_down_is_followed_upright_after_some_looks() -> None:
    pictures = mask_clip(10, DARK)
    tracker = Tracker(engine())
    first = Frame.from_rgb(pictures[0])
    tracker.step(first)
    (follower,) = tracker._followers
    wrong = upside_down(pictures[0]).points
    follower.region = face_region(wrong)
    follower.shot = Shot(Glimpse.of(first, FaceMesh(wrong, 1.0)))
    seen = [tracker.step(Frame.from_rgb(p, k, k / 25)) for k, p in enumerate(pictures) if k]
    rolls = [[abs(round(o.pose[2], -1)) for o in found] for found in seen]
    assert rolls == [[180]] + [[0]] * 8  # the second look against it decides
    assert [o.person for found in seen for o in found] == [1] + [2] * 8
    assert tracker.trusted(2) and not tracker.trusted(1)


@pytest.mark.parametrize(("x", "y"), [(22, 110), (298, 110), (160, 6)])
def test_a_face_cut_by_the_edge_keeps_its_points_outside(x: float, y: float) -> None:
    places = [place(A, k, x, y, 60) for k in range(6)]
    seen, _ = track([scene(SIZE, (A, p)) for p in places])
    assert [len(found) for found in seen] == [1] * 6
    for p, (one,) in zip(places, seen, strict=True):
        truth = expected(A, p)
        outside = (truth < 0).any() or (truth > np.array(SIZE)).any()
        assert outside
        assert error(one.landmarks, truth) < 0.12
        assert (one.landmarks < 0).any() or (one.landmarks > np.array(SIZE)).any()


def test_nobody() -> None:
    noise = np.random.default_rng(0)
    pictures = [background() + noise.integers(0, 12, (240, 320, 1), dtype=np.uint8) for _ in range(12)]
    seen, tracker = track(pictures)
    assert not any(seen)
    assert tracker.n_faces == 0


def test_face_then_none_then_face() -> None:
    pictures = acted(12, SIZE, lambda k: [(A, place(A, k))])
    pictures += [background()] * 40
    pictures += acted(8, SIZE, lambda k: [(A, place(A, k, x=110))])
    seen, _ = track(pictures)
    assert [len(found) for found in seen] == [1] * 12 + [0] * 40 + [1] * 8
    assert {o.person for found in seen[:12] for o in found} == {1}
    assert {o.person for found in seen[52:] for o in found} == {
        2
    }  # gone for longer than anybody is remembered


def test_none_then_face_is_seen_at_once() -> None:
    pictures = [background()] * 9 + acted(6, SIZE, lambda k: [(A, place(A, k))])
    seen, tracker = track(pictures)
    assert [len(found) for found in seen] == [0] * 9 + [1] * 6
    assert tracker.trusted(1)


@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_a_dropout_of_five_frames_is_the_same_person_again(fps: float) -> None:
    pictures = acted(24, SIZE, lambda k: [(A, place(A, k))])
    for k in range(10, 15):
        pictures[k] = pictures[k].copy()
        pictures[k][30:190, 80:240] = 0  # a black box over the face
    seen, _ = track(pictures, fps=fps)
    assert [[o.person for o in found] for found in seen] == [[1]] * 10 + [[]] * 5 + [[1]] * 9


def test_a_hard_cut_to_somebody_else_at_the_same_place() -> None:
    pictures = acted(10, SIZE, lambda k: [(A, place(A, k))]) + acted(10, SIZE, lambda k: [(B, place(B, k))])
    seen, _ = track(pictures)
    assert [[o.person for o in found] for found in seen] == [[1]] * 10 + [[2]] * 10


def test_a_hard_cut_to_the_same_person_elsewhere() -> None:
    pictures = acted(8, SIZE, lambda k: [(A, place(A, k, x=90))]) + acted(
        8, SIZE, lambda k: [(A, place(A, k, x=240))]
    )
    seen, _ = track(pictures)
    assert {o.person for found in seen[:8] for o in found} == {1}
    assert {o.person for found in seen[8:] for o in found} == {2}


def test_a_face_shown_once_is_not_followed_into_nothing() -> None:
    pictures = [background()] * 4 + [scene(SIZE, (A, place(A, 0)))] + [background()] * 10
    seen, _ = track(pictures)
    assert [len(found) for found in seen] == [0] * 4 + [1] + [0] * 10


@pytest.mark.parametrize("subject", ["largest", "central", "all"])
def test_two_people_stay_two(subject: str) -> None:
    """Side by side, of similar size, moving: each keeps the own number."""
    size = (640, 300)

    def play(k: int) -> list[tuple[Actor, np.ndarray]]:
        return [(A, place(A, k, 190, 120, 60)), (B, place(B, k + 9, 460, 130, 66))]

    seen, tracker = track(acted(18, size, play), subject)
    where: dict[int, list[float]] = {}
    for found in seen[3:]:
        assert len(found) == 2
        for one in found:
            where.setdefault(one.person, []).append(float(one.landmarks[:, 0].mean()))
    assert len(where) == 2
    middles = sorted(float(np.mean(x)) for x in where.values())
    assert middles == pytest.approx([190, 460], abs=25)
    assert max(float(np.ptp(x)) for x in where.values()) < 30  # nobody jumped
    assert tracker.n_faces == 2


def test_all_follows_small_faces_beside_a_large_one() -> None:
    size = (640, 360)

    def play(k: int) -> list[tuple[Actor, np.ndarray]]:
        return [(A, place(A, k, 200, 170, 90)), (B, place(B, k, 520, 120, 30))]

    everybody, _ = track(acted(8, size, play), "all")
    assert len({o.person for found in everybody for o in found}) == 2
    one, _ = track(acted(8, size, play), "largest")
    assert {round(o.eye_distance_px / 30) for found in one for o in found} == {3}


def test_a_newcomer_is_followed_from_the_next_census() -> None:
    size = (640, 300)
    pictures = acted(10, size, lambda k: [(A, place(A, k, 190, 120, 60))])
    pictures += acted(20, size, lambda k: [(A, place(A, k, 190, 120, 60)), (B, place(B, k, 460, 120, 66))])
    seen, _ = track(pictures, "all")
    assert {o.person for found in seen[:10] for o in found} == {1}
    assert [len(found) for found in seen[25:]] == [2] * 5
    assert all(found[0].person == 1 for found in seen)


@pytest.mark.slow
class Counting:
    """The engine with a score and a presence of one's own; it counts the runs of its detector."""

    name = "litert"

    def __init__(self, score: float, presence: float) -> None:
        self.runs, self._score, self._presence = 0, score, presence

    def detect(self, view: np.ndarray) -> list[Detection]:
        self.runs += 1
        return [dataclasses.replace(face, score=self._score) for face in engine().detect(view)]

    confirm = detect

    def mesh(self, view: np.ndarray) -> tuple[np.ndarray, float] | None:
        found = engine().mesh(view)
        return found and (found[0], self._presence)


@pytest.mark.parametrize(
    ("score", "presence", "again"), [(0.95, 1, False), (0.85, 1, True), (0.95, np.nan, True)]
)
def test_a_census_looks_again_at_a_face_only_where_there_is_doubt(
    score: float, presence: float, again: bool
) -> None:
    """An engine that says nothing of presence says nothing by its scores."""
    counting = Counting(score, presence)
    tracker, runs = Tracker(counting, "largest"), [0]
    for k in range(20):
        picture = scene(SIZE, (A, place(A, k, eye_px=80)), background=background())
        assert len(tracker.step(Frame.from_rgb(picture, k, k / 25))) == 1
        runs.append(counting.runs)
    (census,) = (n for n in np.diff(runs)[8:] if n)
    assert census > 1 if again else census == 1


def test_a_small_face_in_a_large_picture() -> None:
    size = (1920, 1080)
    paper = background(size)
    places = [place(A, k, 1403, 391, 40) for k in range(5)]
    seen, _ = track([scene(size, (A, p), background=paper) for p in places])
    assert [len(found) for found in seen] == [1] * 5
    for p, (one,) in zip(places, seen, strict=True):
        assert error(one.landmarks, expected(A, p)) < 0.04


def test_trackers_share_an_engine_but_nothing_else() -> None:
    pictures = acted(6, SIZE, lambda k: [(A, place(A, k))])
    alone, _ = track(pictures)
    track(acted(6, SIZE, lambda k: [(B, place(B, k, x=90, eye_px=45))]))
    again, _ = track(pictures)
    for (a,), (b,) in zip(alone, again, strict=True):
        np.testing.assert_array_equal(a.mesh, b.mesh)


def test_noise_free_copies_give_steady_points() -> None:
    """The same picture again and again: the region settles, and the points rest."""
    picture = scene(SIZE, (A, place(A, 0)))
    seen, _ = track([picture] * 12)
    points = np.stack([found[0].landmarks for found in seen[6:]])
    assert np.abs(points - points.mean(axis=0)).max() < 0.1
