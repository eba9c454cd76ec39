"""The pipeline's tracker follows synthetic faces: what it finds lies where the truth says."""

from __future__ import annotations

import numpy as np
import pytest

from nemo_pipeline.synth import read_truth, render_set


@pytest.fixture(scope="module")
def one_clip(tmp_path_factory):
    made = render_set(
        tmp_path_factory.mktemp("track") / "set",
        1,
        1,
        4,
        workers=1,
        width=240,
        height=240,
        seconds=(1.2, 1.2),
    )
    return made.clips[0], next(iter(read_truth(made.truth).values()))


def test_tracked_landmarks_lie_at_the_true_ones(one_clip):
    from nemo_pipeline import track_video

    path, truth = one_clip
    track = track_video(path)
    assert track.landmarks.shape == truth.landmarks.shape
    assert track.observed.all()
    eyes = np.linalg.norm(truth.landmarks[:, 45] - truth.landmarks[:, 36], axis=1)
    error = np.linalg.norm(track.landmarks_raw - truth.landmarks, axis=-1) / eyes[:, None]
    assert error[:, 17:].mean() < 0.04
    assert error[:, :17].mean() < 0.07

    def width(points):
        return np.linalg.norm(points[:, 54] - points[:, 48], axis=1)

    found, true = width(track.landmarks), width(truth.landmarks)
    assert (np.abs(found - true) / true).mean() < 0.06
    # The smile is followed: neutral to broad, most of the true change is found.
    assert np.ptp(found) > 0.8 * np.ptp(true)
