"""Landmarks in pictures: checked positions, orientations, both engines, no face, and the bundle that carries it all."""

import json
import subprocess
import sys

import numpy as np
import pytest
from skimage import data

from nemo_pipeline import bundle
from nemo_pipeline.errors import InstallationError, NemoError
from nemo_pipeline.ibug68 import MIRROR, from_mesh
from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.landmarks import MESH_VIEW, face_region, mesh_in_view, still_landmarks
from nemo_pipeline.stages.search import full_search
from nemo_pipeline.video import landmarks_in_image
from tests.support.paths import ROOT

BENCHMARK = ROOT / "benchmarks" / "landmarks.py"
EYES = 58.2  # outer-eye distance in the portrait, pixels

# Where these points lie in skimage.data.astronaut(), looked at in the picture enlarged eight times.
CHECKED = {
    **{0: (179.6, 100.5), 4: (185.1, 148.8), 8: (221.3, 178.3), 12: (260.9, 152.8), 16: (271.2, 105.1)},
    **{17: (186.3, 92.8), 21: (215.3, 91.8), 22: (235.6, 92.7), 26: (265.0, 96.9)},
    **{27: (224.9, 101.2), 30: (223.6, 126.4), 33: (223.3, 134.3)},
    **{36: (196.1, 101.1), 39: (212.6, 103.4), 42: (237.3, 104.8), 45: (254.2, 104.2)},
    **{48: (202.2, 139.2), 51: (223.2, 140.7), 54: (244.3, 140.6), 57: (222.3, 155.5)},
    **{62: (223.1, 142.9), 66: (222.6, 149.8)},
}


@pytest.fixture(scope="module")
def portrait():
    """(512, 512, 3) uint8."""
    return data.astronaut()


@pytest.fixture(scope="module")
def found(portrait):
    """(68, 2) of the one face in the portrait."""
    faces = landmarks_in_image(portrait)
    assert faces.shape == (1, 68, 2)
    return faces[0]


@pytest.fixture(scope="module")
def mediapipe():
    """The other engine, where this machine has what it links."""
    try:
        return load_engine("mediapipe")
    except NemoError as error:
        pytest.skip(str(error))


def off(a, b):
    """(n,) distances in percent of the outer-eye distance."""
    return 100 / EYES * np.hypot(*(np.asarray(a) - np.asarray(b)).T)


def test_the_points_of_a_known_portrait(found):
    error = off(found[list(CHECKED)], list(CHECKED.values()))
    assert error.mean() < 1.5
    assert error.max() < 4.0


def test_points_are_float64_and_faces_come_largest_first(portrait):
    small = np.full((512, 900, 3), 128, np.uint8)
    small[100:356, 600:856] = portrait[::2, ::2]
    small[:, :512] = portrait
    faces = landmarks_in_image(small)
    assert faces.dtype == np.float64
    assert len(faces) == 2
    eyes = np.hypot(*(faces[:, 45] - faces[:, 36]).T)
    assert eyes[0] > 1.5 * eyes[1]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_picture_that_lies_on_its_side_or_head(portrait, found, quarters):
    side = len(portrait) - 1
    expected = found
    for _ in range(quarters):  # np.rot90 turns the top to the left
        expected = np.stack([expected[:, 1], side - expected[:, 0]], axis=1)
    faces = landmarks_in_image(np.ascontiguousarray(np.rot90(portrait, quarters)))
    assert len(faces) == 1
    assert off(faces[0], expected).mean() < 1.5


def test_a_mirrored_picture_gives_mirrored_points(portrait, found):
    faces = landmarks_in_image(np.ascontiguousarray(portrait[:, ::-1]))
    assert len(faces) == 1
    expected = found[MIRROR] * (-1, 1) + (portrait.shape[1] - 1, 0)
    assert off(faces[0], expected).mean() < 1.5


@pytest.mark.parametrize("name", ["flat", "noise", "coffee", "text"])
def test_no_face(name):
    rng = np.random.default_rng(0)
    pictures = {
        "flat": lambda: np.full((240, 320, 3), 90, np.uint8),
        "noise": lambda: rng.integers(0, 256, (240, 320, 3), dtype=np.uint8),
        "coffee": data.coffee,
        "text": lambda: np.repeat(data.text()[..., None], 3, axis=2),
    }
    assert landmarks_in_image(pictures[name]()).shape == (0, 68, 2)


@pytest.mark.parametrize("bad", [np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), np.zeros(5, np.uint8)])
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(ValueError, match="uint8"):
        landmarks_in_image(bad)


def test_a_still_is_the_mean_of_looks_that_agree(portrait):
    engine = load_engine("litert")
    frame = Frame.from_rgb(portrait)
    mesh = full_search(engine, frame)[0]
    one, mean = from_mesh(mesh.points), still_landmarks(engine, frame, mesh)
    assert off(one, mean).mean() < 2.0
    region = face_region(mesh.points)
    flipped = mesh_in_view(engine, frame.view(region, MESH_VIEW), region, mirrored=True)
    assert flipped is not None
    assert off(from_mesh(flipped.points)[MIRROR], one).mean() < 2.5
    # A mirrored picture and region give exactly the mirrored mean: each look has its mirrored partner.
    width = portrait.shape[1] - 1
    seen = mesh.points * np.array([-1, 1, 1], np.float32) + np.array([width, 0, 0], np.float32)
    other = Frame.from_rgb(np.ascontiguousarray(portrait[:, ::-1]))
    # Vertices 33 and 263 (the outer eye corners, by which a region is turned upright) change places.
    seen[[33, 263]] = seen[[263, 33]]
    again = still_landmarks(engine, other, type(mesh)(seen, mesh.face_presence))
    assert off(again[MIRROR] * (-1, 1) + (width, 0), mean).max() < 0.5


def test_both_engines_agree(portrait, found, mediapipe):
    faces = landmarks_in_image(portrait, engine="mediapipe")
    assert faces.shape == (1, 68, 2)
    error = off(faces[0], found)
    assert error.mean() < 1.5
    assert error.max() < 4.0


@pytest.mark.parametrize("logit", [-1e4, -np.inf, np.nan])
def test_whatever_the_network_says_of_presence_is_an_answer(monkeypatch, logit):
    engine = load_engine("litert")
    said = [np.zeros((1, 1, 1, 1434), np.float32), np.full((1, 1), logit, np.float32), np.zeros(1)]
    monkeypatch.setattr(engine, "_landmarks", lambda *_: said)
    assert engine.mesh(np.zeros((MESH_VIEW, MESH_VIEW, 3), np.uint8)) is None


def test_the_direct_engine_never_imports_mediapipe():
    code = (
        "import sys; from skimage import data; from nemo_pipeline import landmarks_in_image;"
        "assert len(landmarks_in_image(data.astronaut())) == 1;"
        "print([m for m in sys.modules if m.split('.')[0] in ('mediapipe', 'tensorflow', 'jax', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.fixture
def other_bundle(tmp_path, monkeypatch):
    """Puts a file in the place of the shipped bundle; gives the path."""
    path = tmp_path / "face_landmarker.task"
    monkeypatch.setattr(bundle, "shipped_path", lambda: path)
    bundle.read_bundle.cache_clear()
    yield path
    bundle.read_bundle.cache_clear()


def test_a_damaged_bundle_is_named_in_one_sentence(other_bundle):
    other_bundle.write_bytes(b"PK\x03\x04 not what was shipped")
    with pytest.raises(InstallationError, match=r"damaged \(sha256 .*reinstall nemo-faces\.$") as caught:
        load_engine("litert")
    assert "\n" not in str(caught.value)
    assert str(other_bundle) in str(caught.value)


def test_a_missing_bundle_is_named_in_one_sentence(other_bundle):
    with pytest.raises(InstallationError, match=r"cannot be read \(No such file.*reinstall nemo-faces\.$"):
        load_engine("litert")


def test_another_bundle_without_the_networks_is_refused(tmp_path):
    path = tmp_path / "other.task"
    path.write_bytes(b"no zip at all")
    with pytest.raises(InstallationError, match="not a Face Landmarker bundle"):
        bundle.network(bundle.LANDMARKS, path)


def test_the_benchmark_finds_no_error_where_the_annotation_is_ours(tmp_path, portrait):
    import cv2

    engine, frame = load_engine("litert"), Frame.from_rgb(portrait)
    points = still_landmarks(engine, frame, full_search(engine, frame, everyone=True)[0])
    cv2.imwrite(str(tmp_path / "portrait.png"), cv2.cvtColor(portrait, cv2.COLOR_RGB2BGR))
    lines = [f"{x:.6f} {y:.6f}" for x, y in points + 1]  # .pts files count pixels from 1
    (tmp_path / "portrait.pts").write_text("version: 1\nn_points: 68\n{\n" + "\n".join(lines) + "\n}\n")
    report = tmp_path / "report.json"
    command = [sys.executable, str(BENCHMARK), str(tmp_path), "--json", str(report)]
    subprocess.run(command, check=True, capture_output=True)
    measured = json.loads(report.read_text())
    table = measured["engines"]["litert"]["table"]
    assert table["all found | still"]["pictures"] == 1
    assert table["all found | still"]["all 68"] < 0.05
    assert table["all found | ours"]["all 68"] < 2.0
    assert table["all found | table"]["jaw"] > 4.0
    assert measured["facts"]["versions"]["nemo-faces"]
