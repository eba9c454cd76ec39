"""Blendshapes: MediaPipe's own scores, from the mesh; in the file with their names; the same by rewarp."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from skimage.data import astronaut

from nemo_pipeline import PrepConfig, bundle
from nemo_pipeline.frame_table import frame_table
from nemo_pipeline.stages.blendshapes import blendshapes
from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.search import full_search
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.schema import BLENDSHAPES
from tests.support.commands import invoke


@pytest.fixture(scope="module")
def theirs():
    """MediaPipe's answer for a picture: its mesh (478, 3) in our pixels, and its scores by name."""
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        BaseOptions(model_asset_buffer=bundle.read_bundle()[0]), output_face_blendshapes=True
    )
    picture = astronaut()
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        found = landmarker.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=picture))
    mesh = np.array([(p.x, p.y, p.z) for p in found.face_landmarks[0]]) * 512 - (0.5, 0.5, 0)
    return picture, mesh, {shape.category_name: shape.score for shape in found.face_blendshapes[0]}


def test_the_scores_of_its_own_mesh_are_mediapipes(theirs):
    _, mesh, scores = theirs
    assert tuple(scores) == BLENDSHAPES
    np.testing.assert_allclose(blendshapes(mesh), list(scores.values()), atol=1e-3)


def test_the_scores_of_our_mesh_are_near_mediapipes(theirs):
    picture, _, scores = theirs
    mesh = full_search(load_engine("litert"), Frame.from_rgb(picture))[0].points
    ours = dict(zip(BLENDSHAPES, blendshapes(mesh), strict=True))
    assert ours["mouthSmileLeft"] > 0.5 and ours["jawOpen"] == pytest.approx(scores["jawOpen"], abs=0.05)
    assert np.abs(np.array(list(ours.values())) - list(scores.values())).mean() < 0.02


def test_they_are_in_the_file_with_their_names_and_rewarp_gives_the_same(clips, first, tmp_path):
    report = tmp_path / "report.html"
    invoke(
        "prep", clips, tmp_path / "with.h5", "--blendshapes", "--size", "48", "--quiet", "--report", report
    )
    with h5py.File(tmp_path / "with.h5") as file:
        assert tuple(file["blendshapes"].attrs["names"]) == BLENDSHAPES
    data, plain = FaceDataset(tmp_path / "with.h5"), FaceDataset(first[1])
    table = frame_table(data)
    assert np.array_equal(
        table["mouthSmileLeft"], np.concatenate([v.blendshapes[:, 44] for v in data.values()])
    )
    assert BLENDSHAPES[44] == "mouthSmileLeft" and "jawOpen" not in frame_table(plain)
    for name in data:
        video = data[name]
        assert video.blendshapes.shape == (len(video), 52) and video.blendshapes.dtype == np.float32
        for scores, mesh in zip(video.blendshapes, video.mesh, strict=True):
            np.testing.assert_array_equal(scores, blendshapes(mesh))
        np.testing.assert_array_equal(video.frames, plain[name].frames)
        assert plain[name].blendshapes is None
    assert "mouthSmileLeft" in report.read_text(encoding="utf-8")
    invoke("rewarp", first[1], clips, tmp_path / "added.h5", "--blendshapes", "--quiet")
    added = FaceDataset(tmp_path / "added.h5")
    for name in data:
        np.testing.assert_array_equal(added[name].blendshapes, data[name].blendshapes)


def test_without_the_mesh_there_are_none():
    with pytest.raises(ValueError, match="without the mesh"):
        PrepConfig(mesh=False, blendshapes=True)
    assert (
        PrepConfig(blendshapes=False).fingerprint()
        == PrepConfig().fingerprint()
        != PrepConfig(blendshapes=True).fingerprint()
    )
