"""Videos of random numbers for the tests of the store, and how what was read is compared with them."""

from __future__ import annotations

import numpy as np

from nemo_pipeline.store.schema import FRAME_FIELDS

SIZE = 16


def make_videos(lengths, seed=0, mesh=False):
    """Videos whose every array is random, so that a mix-up of rows or datasets cannot go unnoticed."""
    rng = np.random.default_rng(seed)
    videos = []
    for i, length in enumerate(lengths):
        video = {
            "id": f"clip{i}",
            "file": f"clip{i}.mp4",
            "subject": f"s{i % 3}",
            "age": 20.5 + i,
            "fold": i % 2,
            "frames": rng.integers(0, 256, (length, SIZE, SIZE), dtype=np.uint8),
            "tracked": rng.random(length) > 0.3,
            "n_faces": rng.integers(0, 9, length).astype(np.uint8),
            "frame_index": np.sort(rng.integers(0, 1000, length)).astype(np.int32),
            "timestamps": np.sort(rng.random(length)),
        }
        for name in (
            "landmarks",
            "landmarks_raw",
            "pose",
            "eye_distance_px",
            "sharpness",
            "face_presence",
            "mesh",
        ):
            if name != "mesh" or mesh:
                shape = (length, *FRAME_FIELDS[name].tail)
                video[name] = rng.normal(size=shape).astype(np.float32)
        if not length:
            video |= {"status": "no_face", "message": "no face was found"}
        videos.append(video)
    return videos


def assert_equal(data, videos):
    assert data.videos["id"] == [video["id"] for video in videos]
    for video in videos:
        found = data[video["id"]]
        for name, values in video.items():
            if name in FRAME_FIELDS:
                np.testing.assert_array_equal(found.read(name), values, err_msg=name)
            else:
                assert getattr(found, name) == values


def sound_videos(seed=0):
    """Videos that verify has nothing to say about."""
    videos = make_videos([7, 0, 12, 9], seed)
    for video in videos:
        length = len(video["frames"])
        video["timestamps"] = np.arange(length) / 25
        video["frame_index"] = np.arange(length, dtype=np.int32)
        video["face_presence"] = np.full(length, 0.5, np.float32)
        video["eye_distance_px"] = np.full(length, 50, np.float32)
    return videos
