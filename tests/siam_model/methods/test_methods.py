"""Every compared method as a whole: it learns, it forgets nobody's test data, and no clip stops it."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from siam_model.methods import METHODS, labels_of, make_method, named_methods
from siam_model.methods.descriptors import DESCRIPTORS, FeatureCache, describe
from siam_model.methods.inputs import ArrayVideo, key_frames
from tests.support.moving import moving_people, moving_video

LEARNERS = [name for name in METHODS if name != "cnn"]
#: One of each kind of learner.
KINDS = ["vlbp", "lbp_top", "displacement", "ief_fusion", "lbp_dynamics"]
#: Of a video without a smile, of 7 frames, of disgust, of 1 frame, and without landmarks.
ODD = {
    "still": moving_video(kind="still"),
    "seven": moving_video(frames=7),
    "disgust": moving_video(kind="disgust"),
    "one": moving_video(frames=1),
    "blind": dataclasses.replace(moving_video(), landmarks=np.full((24, 68, 2), np.nan)),
}


@pytest.fixture(scope="module")
def people():
    """Videos, ages, subjects, and a cache that computes each descriptor once."""
    videos, ages, subjects = moving_people()
    keyed = [dataclasses.replace(video, key=f"k{i}") for i, video in enumerate(videos)]
    return keyed, ages, subjects, FeatureCache()


@pytest.mark.parametrize("name", LEARNERS)
def test_a_method_learns_and_answers_every_clip(name, people):
    videos, ages, subjects, cache = people
    method = make_method(name, cache)
    assert method.fit(videos, ages, subjects) is method
    state = pickle.dumps(_state(method))
    found = method.predict(videos)
    assert found.shape == ages.shape and found.dtype == np.float64
    assert np.corrcoef(found, ages)[0, 1] > 0.3
    odd = method.predict(list(ODD.values()))
    assert np.isfinite(odd).all() and (np.abs(odd) < 150).all()
    # Together or one by one, once or twice: what was learnt does not change.
    np.testing.assert_allclose([method.predict([video])[0] for video in ODD.values()], odd)
    assert pickle.dumps(_state(method)) == state


def _state(method: object) -> dict[str, object]:
    return {name: value for name, value in vars(method).items() if name != "describe"}


@pytest.fixture(scope="module")
def sabotaged(people):
    """The same, where the faces, landmarks and times of two people are replaced, in a cache that has seen them."""
    videos, _, subjects, cache = people
    rng = np.random.default_rng(0)
    shown, other = list(videos), FeatureCache()
    for i, subject in enumerate(subjects):
        if subject in ("s1", "s4"):
            faces = rng.integers(0, 255, videos[i].frames.shape).astype(np.uint8)
            points, times = rng.normal(100, 20, videos[i].landmarks.shape), 2 * videos[i].timestamps
            shown[i] = ArrayVideo(faces, points, times, key=f"other{i}")
    for descriptor in DESCRIPTORS:
        assert not np.array_equal(other(descriptor, shown), cache(descriptor, videos))
    return shown, other


@pytest.mark.parametrize("name", KINDS)
def test_what_is_learnt_is_the_same_whatever_the_test_people_look_like(name, people, sabotaged):
    videos, ages, subjects, cache = people
    known = [i for i, subject in enumerate(subjects) if subject not in ("s1", "s4")]
    states = []
    for shown, describe_ in ((videos, cache), sabotaged):
        method = make_method(name, describe_)
        method.fit([shown[i] for i in known], ages[known], [subjects[i] for i in known])
        states.append(pickle.dumps(_state(method)))
    assert states[0] == states[1]


def test_a_video_without_an_expression_has_no_dynamics_and_answers_alike():
    for name, shape in (("displacement", (3, 3, 25)), ("deformation", (8, 3, 25))):
        for odd in ("still", "one", "blind"):
            found = describe(name, [ODD[odd]])[0]
            assert found.shape == shape and not found.any()
        for other in ("seven", "disgust"):
            assert describe(name, [ODD[other]])[0].any()
    # Cheeks need a mesh, the forehead too.
    assert not describe("displacement", [ODD["disgust"]])[0, 2].any()
    assert not describe("deformation", [ODD["disgust"]])[0, 0].any()


def test_key_frames_are_the_onsets_ends():
    start, stop = key_frames(moving_video(frames=41))
    assert 6 <= start <= 10 and 14 <= stop <= 18
    assert key_frames(ODD["still"])[0] == 0
    assert key_frames(ODD["blind"]) == (0, 12)
    assert key_frames(ODD["one"]) == (0, 0)
    start, stop = key_frames(moving_video(frames=41, kind="disgust"))
    assert 6 <= start <= 10 and 14 <= stop <= 18


@pytest.mark.parametrize("name", list(DESCRIPTORS))
def test_descriptors_are_finite_and_of_one_shape(name):
    shapes = {"key_frames": (2, 48, 48), "lbp": (2, 2, 36, 59), "lbp_top": (36, 3, 59), "vlbp": (16384,),
              "displacement": (3, 3, 25), "deformation": (8, 3, 25)}  # fmt: skip
    found = describe(name, list(ODD.values()))
    assert found.shape == (len(ODD), *shapes[name]) and np.isfinite(found).all()


def test_arrays_that_do_not_belong_together_are_refused():
    video = moving_video()
    with pytest.raises(ValueError, match="landmarks"):
        ArrayVideo(video.frames, video.landmarks[:5], video.timestamps)
    with pytest.raises(ValueError, match="uint8"):
        ArrayVideo(video.frames.astype(float), video.landmarks, video.timestamps)


def test_features_are_computed_once_and_kept_by_content(tmp_path, monkeypatch):
    counted = []

    def compute(video):
        counted.append(video.key)
        return np.full(3, len(video), np.float32)

    monkeypatch.setitem(DESCRIPTORS, "lbp", dataclasses.replace(DESCRIPTORS["lbp"], compute=compute))
    a, b, unknown = (moving_video(frames=n, key=k) for n, k in ((5, "a"), (6, "b"), (7, "")))
    folder = tmp_path / "out.features"
    assert FeatureCache(folder)("lbp", [a, unknown])[:, 0].tolist() == [5, 7]
    assert FeatureCache(folder)("lbp", [b, a])[:, 0].tolist() == [6, 5]
    assert FeatureCache(folder)("lbp", [a, b, a])[:, 0].tolist() == [5, 6, 5]
    assert counted == ["a", "", "b"]
    (file,) = folder.glob("*.npz")
    assert folder.stat().st_mode & 0o077 == 0 and file.stat().st_mode & 0o077 == 0
    file.write_bytes(file.read_bytes()[:-40])  # damaged: computed again
    assert FeatureCache(folder)("lbp", [a])[:, 0].tolist() == [5]
    assert counted == ["a", "", "b", "a"]


def test_names_of_methods():
    assert named_methods("all") == tuple(METHODS)
    assert named_methods("lbp-neutral, VLBP") == ("vlbp", "lbp_neutral")
    with pytest.raises(Exception, match="no method 'lbq'"):
        named_methods("lbp_neutral,lbq")
    with pytest.raises(ValueError, match="cnn"):
        make_method("cnn")
    assert labels_of(["cnn", "vlbp"]) == {"cnn": "CNNs", "vlbp": "VLBP (re-implemented)"}
