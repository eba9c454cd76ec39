"""Big and odd single pictures: the same faces as in small ones, in a number of looks that does not grow with size."""

import dataclasses
import functools
import itertools

import cv2
import numpy as np
import pytest
from skimage import data

from nemo_pipeline.stages import stills
from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.frame import Region
from nemo_pipeline.stages.landmarks import Detection, Engine
from nemo_pipeline.stages.stills import faces_in_picture
from nemo_pipeline.stages.track import observe_all
from nemo_pipeline.video import landmarks_in_image
from tests.support.clips import other_person, person, scene


class Counting:
    """An engine that counts what it is asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name = engine.name
        self.detected = self.meshed = 0

    def detect(self, view: np.ndarray) -> list[Detection]:
        self.detected += 1
        return self._engine.detect(view)

    confirm = detect

    def mesh(self, view: np.ndarray) -> tuple[np.ndarray, float] | None:
        self.meshed += 1
        return self._engine.mesh(view)


@functools.cache
def small() -> np.ndarray:
    """(760, 1000, 3): a face of 120 pixels between the eyes, and a smaller one."""
    people = (person(), (400, 330), 120.0), (other_person(), (820, 420), 50.0)
    return scene((1000, 760), *((actor, actor.placed(*at, eyes)) for actor, at, eyes in people))


def enlarged(picture: np.ndarray, factor: float) -> np.ndarray:
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))


@pytest.mark.parametrize("factor", [2.0, 3.35])
def test_a_big_picture_has_the_faces_of_the_small_one(factor: float) -> None:
    counting = Counting(load_engine("litert"))
    expected = landmarks_in_image(small())
    faces = [points for _, points in faces_in_picture(counting, enlarged(small(), factor))]
    assert len(expected) == len(faces) == 2
    for face, points in zip(faces, expected, strict=True):
        eyes = np.hypot(*(points[45] - points[36]))
        off = np.hypot(*((face + 0.5) / factor - 0.5 - points).T) / eyes
        assert off.mean() < 0.01 and off.max() < 0.04
    assert counting.detected <= 190
    assert counting.meshed <= 40


def test_the_largest_faces_need_fewer_looks() -> None:
    counting = Counting(load_engine("litert"))
    ((mesh, points), *_) = faces_in_picture(counting, small(), everyone=False)
    np.testing.assert_array_equal(points, landmarks_in_image(small())[0])
    assert np.hypot(*(mesh.points[33, :2] - points[36])) < 4
    assert counting.detected <= 30


@functools.cache
def four() -> np.ndarray:
    """(720, 860, 3): faces of 120, 100, 95 and 50 pixels between the eyes."""
    people = (
        (person(), (220, 220), 100.0), (other_person(), (600, 230), 120.0),
        (person(), (240, 540), 95.0), (other_person(), (650, 560), 50.0),
    )  # fmt: skip
    return scene((860, 720), *((actor, actor.placed(*at, eyes)) for actor, at, eyes in people))


def test_where_the_largest_is_wanted_others_get_as_many_looks_as_they_need() -> None:
    """Those of about its size are found with fewer looks of the landmark network, clearly smaller ones with none."""
    counting = Counting(load_engine("litert"))
    everybody, _ = stills.found_in_picture(counting, four())
    assert len(everybody) == 4
    looks = counting.meshed
    counting.meshed = 0
    faces, closely = stills.found_in_picture(counting, four(), everyone=False)
    assert len(faces) == 3
    assert counting.meshed <= looks - 3
    np.testing.assert_array_equal(faces[0].points, everybody[0].points)
    for face, exact in zip(faces, everybody, strict=False):
        eyes = np.hypot(*(exact.points[263] - exact.points[33])[:2])
        assert np.hypot(*(face.points - exact.points)[:, :2].T).mean() < 0.1 * eyes
    np.testing.assert_array_equal(closely(faces[0]), landmarks_in_image(four())[0])


def test_where_every_face_is_turned_too_far_each_is_looked_at_with_care() -> None:
    engine = load_engine("litert")
    everybody, _ = stills.found_in_picture(engine, four())
    faces, _ = stills.found_in_picture(engine, four(), everyone=False, max_yaw_degrees=0.0)
    assert len(faces) >= 3
    for face, exact in zip(faces, everybody, strict=False):
        np.testing.assert_array_equal(face.points, exact.points)


def test_the_largest_face_is_the_largest_that_is_not_turned_too_far() -> None:
    faces, _ = stills.found_in_picture(load_engine("litert"), four())
    seen = observe_all([(face, number) for number, face in enumerate(faces)])
    assert stills.largest_face(seen, 45.0).person == 0
    turned = [dataclasses.replace(one, pose=(60.0, 0.0, 0.0)) for one in seen[:2]]
    assert stills.largest_face([*turned, *seen[2:]], 45.0).person == 2
    assert stills.largest_face(turned, 45.0).person == 0


def test_a_small_face_in_a_big_picture() -> None:
    """4000 x 3000; a seventieth of its diagonal lies between the eyes."""
    wide = scene((2000, 1500), (person(), person().placed(1500, 400, 36)))
    (face,) = landmarks_in_image(enlarged(wide, 2.0))
    eyes = (face[[36, 45]] + 0.5) / 2 - 0.5
    assert np.abs(eyes.mean(axis=0) - (1500, 400)).max() < 2
    assert abs(np.hypot(*(eyes[1] - eyes[0])) - 36) < 3


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_big_picture_that_lies_on_its_side_or_head(quarters: int) -> None:
    actor = person()
    picture = np.rot90(enlarged(scene((800, 600), (actor, actor.placed(300, 250, 90))), 3.0), quarters)
    (face,) = landmarks_in_image(picture)
    across = face[45] - face[36]
    roll = np.degrees(np.arctan2(across[1], across[0]))
    assert abs((roll + 90 * quarters + 180) % 360 - 180) < 8


def test_a_panorama() -> None:
    strip = np.hstack(
        [scene((1000, 400), (person(), person().placed(300 + 200 * k, 200, 60))) for k in range(3)]
    )
    strip = enlarged(np.hstack([strip, strip]), 1.5)
    assert strip.shape == (600, 9000, 3)
    assert len(landmarks_in_image(strip)) == 6


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 6000), (6000, 1), (2, 3), (3, 40000), (127, 129), (255, 257), (1501, 1501)]
)
def test_pictures_of_any_shape(shape: tuple[int, int]) -> None:
    assert landmarks_in_image(np.full((*shape, 3), 120, np.uint8)).shape == (0, 68, 2)


def test_gray_and_cut_out_pictures() -> None:
    gray = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)
    (face,) = landmarks_in_image(gray)
    (colour,) = landmarks_in_image(data.astronaut())
    assert np.hypot(*(face - colour).T).mean() < 2
    (again,) = landmarks_in_image(data.astronaut()[:, :, ::-1][..., ::-1])
    np.testing.assert_array_equal(again, colour)


@pytest.mark.parametrize(
    ("side", "shape"), [(300.0, (800, 1100)), (128.0, (200, 131)), (1870.0, (800, 1100))]
)
def test_tiles_cover_the_picture(side: float, shape: tuple[int, int]) -> None:
    """Every pixel lies in a tile, and a tile shows what lies at its place."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    ramp = np.stack([x * 255 / shape[1], y * 255 / shape[0], 0 * x], axis=-1).astype(np.uint8)
    seen = np.zeros(shape, bool)
    for tile, place in stills._tiles(stills._halved(ramp)[0], side):
        assert tile.shape == (128, 128, 3) and place.size == side
        at = place.to_source(128)
        for u, v in itertools.product((20, 64, 107), repeat=2):
            px, py = at[:, :2] @ (u, v) + at[:, 2]
            if 2 < px < shape[1] - 3 and 2 < py < shape[0] - 3:
                expected = (px * 255 / shape[1], py * 255 / shape[0])
                assert np.abs(tile[v, u, :2].astype(float) - expected).max() < 3
        low = np.maximum(np.floor([place.cy - side / 2, place.cx - side / 2]), 0).astype(int)
        high = np.ceil([place.cy + side / 2, place.cx + side / 2]).astype(int) + 1
        seen[low[0] : high[0], low[1] : high[1]] = True
    assert seen.all()


def test_a_tile_inside_a_face_is_not_searched() -> None:
    face = Region(500, 400, 600)  # the face's box has 400 pixels
    assert stills._within(Region(500, 400, 390), face)
    assert stills._within(Region(560, 400, 280), face)
    assert not stills._within(Region(500, 400, 410), face)
    assert not stills._within(Region(700, 400, 280), face)
