"""`FaceTrack`: what it takes, what it says, and that a row read from a file is one."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from nemo_pipeline import FaceTrack
from nemo_pipeline.status import Status
from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.store.schema import FRAME_FIELDS
from tests.support.videos import sound_videos


def test_arrays_are_attributes():
    track = FaceTrack({"tracked": np.array([True, False, True]), "pose": np.zeros((3, 3))}, n_decoded=9)
    assert track.pose is track.arrays["pose"] and (len(track), track.n_interpolated) == (3, 1)
    assert track.mesh is None and not track.holds("mesh")
    with pytest.raises(AttributeError, match="no landmarks; it has tracked, pose"):
        _ = track.landmarks
    assert repr(track) == "FaceTrack(ok, 3 of 9 frames: tracked (3,) bool, pose (3, 3) float64)"
    assert repr(FaceTrack({}, Status.NO_FACE, n_decoded=4)) == "FaceTrack(no_face, 0 of 4 frames)"
    assert set(FRAME_FIELDS) <= set(dir(track)) and "degrees" in (type(track).pose.__doc__ or "")
    again = pickle.loads(pickle.dumps(track))
    np.testing.assert_array_equal(again.pose, track.pose)
    assert list(track.only("pose", "frames").arrays) == ["pose"] and len(track.only("tracked")) == 3


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"smile": np.zeros(3)}, "'smile' is not a frame dataset"),
        (
            {"landmarks": np.zeros((3, 66, 2))},
            r"landmarks is float64 \(3, 66, 2\); float32 \(T, 68, 2\) is needed",
        ),
        ({"landmarks": np.zeros((3, 68))}, "is needed"),
        ({"timestamps": np.float64(3)}, r"float64 \(T\) is needed"),
        ({"frames": np.zeros((3, 9, 9))}, r"frames is float64 .*; uint8 \(T, S, S\) is needed"),
        ({"tracked": np.ones(3)}, "bool"),
        (
            {"tracked": np.ones(3, bool), "timestamps": np.zeros(4)},
            "different lengths: tracked 3, timestamps 4",
        ),
    ],
)
def test_other_arrays_are_refused(arrays, said):
    with pytest.raises(ValueError, match=said):
        FaceTrack(arrays)


def test_a_row_of_a_file(tmp_path):
    data = FaceDataset(write_dataset(tmp_path / "out.h5", sound_videos()))
    for video in data.values():
        track = video.track()
        assert list(track.arrays) == list(data.fields) and len(track) == video.length
        assert (track.status, track.id, track.n_interpolated) == (
            video.status,
            video.id,
            video.n_interpolated,
        )
        for name in data.fields:
            np.testing.assert_array_equal(track.read(name), getattr(video, name))
        np.testing.assert_array_equal(track.points_off, video.points_off)
        assert list(video.track("pose").arrays) == ["pose"]
