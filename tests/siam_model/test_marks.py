"""Marks in trainings and evaluations: what is left out is not learnt from, the run says so, and marks that were changed
since are noticed."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest

from nemo_pipeline.errors import DataError, RunError
from nemo_pipeline.geometry import Template
from nemo_pipeline.marks import Mark, marks_beside, read_marks, write_marks
from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.store.marked import open_marked
from siam_model.evaluate import evaluate
from siam_model.methods.descriptors import FeatureCache
from siam_model.methods.inputs import FileVideo
from siam_model.predictions import read_predictions
from siam_model.protocol.settings import read_settings
from siam_model.reports.inputs import EvaluateRequest
from siam_model.reports.source import open_data, open_run
from siam_model.run_folder import RunFolder
from tests.support.commands import invoke
from tests.support.siam_faces import drawn_videos
from tests.support.siam_runs import Listener, Stop, quick, results, resume

FRAMES = 12


def drawn(path, change=lambda video: video):
    """A prepared file of 8 subjects with two videos each, some of them changed; none that is None."""
    videos = (change(dict(video)) for video in drawn_videos(subjects=8, frames=FRAMES, size=70))
    return write_dataset(path, [video for video in videos if video is not None])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("marks") / "data.h5")


@pytest.fixture
def mine(data, tmp_path):
    """A copy that may be marked."""
    shutil.copytree(data.parent, tmp_path / "mine")
    return tmp_path / "mine" / "data.h5"


MARKS = [
    Mark("000_0", None, None, "blurred", "kim"),
    Mark("001_1", 2, 3, "hand"),
    Mark("002_0", None, 1, "hand"),
]


def test_a_training_with_marks_is_that_of_the_data_without(data, mine, tmp_path):
    def without(video):
        kept = {"001_1": [0, 1, *range(4, 99)], "002_0": range(2, 99), "000_0": []}.get(
            video["id"], range(99)
        )
        video["frames"] = video["frames"][[i for i in kept if i < len(video["frames"])]]
        return video if len(video["frames"]) else None

    plain = quick(drawn(tmp_path / "without.h5", without), tmp_path / "without")
    write_marks(marks_beside(mine), MARKS)
    said = Listener()
    run = quick(mine, tmp_path / "run", reporter=said)
    assert results(run) == results(plain)
    assert "000_0" not in read_predictions(run / "predictions.csv").video
    (line,) = [text for text in said.said if text.startswith("Marks:")]
    assert line.endswith(
        "data.marks.csv leaves out 1 video and 4 frames of 2 others (hand (2), blurred); `marks=none` ignores it."
    )
    assert read_marks(run / "marks.csv") == MARKS
    record = json.loads((run / "run.json").read_text())["left_out"]
    assert (record["videos"], record["frames"], record["cut"]) == (1, 4, 2)
    assert record["reasons"] == {"hand": 2, "blurred": 1}
    said_of = json.loads(invoke("info", run, "--json").stdout)["left_out_by_marks"]
    assert said_of == "1 video and 4 frames of 2 others (hand (2), blurred)"
    ignoring = quick(mine, tmp_path / "ignoring", marks="none")
    assert results(ignoring) == results(quick(data, tmp_path / "all")) != results(run)
    assert (
        not (ignoring / "marks.csv").exists()
        and json.loads((ignoring / "run.json").read_text())["left_out"] is None
    )


@pytest.fixture
def stopped(mine, tmp_path):
    """A run that was stopped after an epoch, and its data with marks beside."""
    write_marks(marks_beside(mine), MARKS)
    with pytest.raises(Stop):
        quick(mine, tmp_path / "run", folds=2, reporter=Listener(1))
    return tmp_path / "run", mine


def test_it_resumes_with_the_same_marks_said_otherwise(stopped, tmp_path):
    run, data = stopped
    write_marks(
        marks_beside(data), [Mark("001_1", 3, 3), Mark("001_1", 2, 2, "another reason"), MARKS[2], MARKS[0]]
    )
    whole = quick(data, tmp_path / "whole", folds=2)
    assert results(resume(run, device="cpu")) == results(whole)


@pytest.mark.parametrize("marks", [[], MARKS[:2], [*MARKS, Mark("003_0", 1, 1)]])
def test_changed_marks_are_noticed_and_the_run_can_go_on_with_its_own(stopped, marks):
    run, data = stopped
    write_marks(marks_beside(data), marks)
    with pytest.raises(RunError) as error:
        resume(run, device="cpu")
    assert "was begun with other marks than" in str(error.value) and f"`marks={run}/marks.csv`" in str(
        error.value
    )
    with pytest.raises(RunError, match="other marks"):
        resume(run, device="cpu", marks="none")
    resume(run, device="cpu", marks=str(run / "marks.csv"))
    assert "000_0" not in read_predictions(run / "predictions.csv").video


def test_marks_that_came_after_a_run_was_begun_are_noticed(mine, tmp_path):
    with pytest.raises(Stop):
        quick(mine, tmp_path / "run", reporter=Listener(1))
    write_marks(marks_beside(mine), MARKS)
    with pytest.raises(RunError, match="resume it with `marks=none`"):
        resume(tmp_path / "run", device="cpu")
    resume(tmp_path / "run", device="cpu", marks="none")


@pytest.mark.slow
def test_folds_in_other_processes_leave_out_the_same(stopped, tmp_path):
    run, data = stopped
    alone = resume(run, device="cpu")
    several = quick(data, tmp_path / "several", folds=2, jobs=2)
    assert results(several) == results(alone)


def test_the_settings_remember_a_file_that_was_named(mine, tmp_path):
    named = tmp_path / "named.csv"
    write_marks(named, MARKS[:1])
    run = quick(mine, tmp_path / "run", marks=str(named), epochs=1)
    settings, _, _ = read_settings(run)
    assert settings.marks == str(named) and settings.uuid.startswith(FaceDataset(mine).uuid + "+marks:")
    assert f'marks = "{named}"' in (run / "settings.toml").read_text()
    assert (
        len(read_predictions(run / "predictions.csv")) > 0
        and np.isfinite(FaceDataset(mine).videos["age"]).all()
    )


def test_spoilt_marks_stop_a_training_before_it_begins(mine, tmp_path):
    marks_beside(mine).write_text("video,start,stop\n000_0,x,\n")
    with pytest.raises(DataError, match="line 2: start is 'x'"):
        quick(mine, tmp_path / "run")
    write_marks(marks_beside(mine), [Mark(v) for v in FaceDataset(mine).ids])
    with pytest.raises(DataError, match=r"data\.marks\.csv leaves out every video of"):
        quick(mine, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with marks, and its data, not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    data = drawn(folder / "data.h5")
    write_marks(marks_beside(data), MARKS)
    return quick(data, folder / "run", folds=2, epochs=1), data


def evaluated(run, out, **request):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = evaluate(run, out, EvaluateRequest(quick=True, faces=False, **request), device="cpu")
    return found, [str(warning.message) for warning in said]


def test_an_evaluation_reads_the_frames_of_the_training(finished, tmp_path):
    run, _ = finished
    found, said = evaluated(run, tmp_path / "out")
    assert said == [] and found.numbers["notes"] == []
    source = open_run(RunFolder(run))
    assert open_data(source, None).dataset.uuid == source.dataset["uuid"]
    assert "1 video and 4 frames of 2 others (hand (2), blurred)" in found.files[0].read_text()
    assert len(found.methods["SIAM"]) == 15 and "000_0" not in found.methods["SIAM"].video


def test_clips_marked_since_are_left_out_of_the_evaluation_and_it_says_so(finished, tmp_path):
    run, data = finished
    later = tmp_path / "later.csv"
    write_marks(later, [*MARKS, Mark("003_1", reason="talking"), Mark("004_0", 0, 2), Mark("000_1", None, 9)])
    found, said = evaluated(run, tmp_path / "out", marks=later)
    everything, _ = evaluated(run, tmp_path / "all", marks="none")
    expected = [v for v in everything.methods["SIAM"].video if v not in ("003_1", "000_1")]
    for line in found.methods.values():
        assert list(line.video) == expected
    rows = [everything.methods["SIAM"].video.index(v) for v in expected]
    errors = everything.methods["SIAM"].error[rows]
    assert found.numbers["methods"]["SIAM"]["mae"] == pytest.approx(errors.mean())
    assert said == [
        f"Marks since the training ({later}): 2 videos of the run left out of every table and figure, 1 video "
        "predicted from other frames than are left now (train again); `marks=none` ignores them."
    ]
    assert found.numbers["notes"] == said
    with pytest.raises(RunError, match="leaves out every video"):
        write_marks(later, [Mark(v) for v in FaceDataset(data).ids])
        evaluated(run, tmp_path / "nothing", marks=later)


def test_an_external_test_set_is_without_its_marks(finished, tmp_path):
    run, _ = finished
    other = write_dataset(tmp_path / "other.h5", drawn_videos(subjects=3, frames=FRAMES, size=70, seed=5))
    write_marks(marks_beside(other), [Mark("001_1", reason="talking")])
    found, said = evaluated(run, tmp_path / "out", data=other, distinct_subjects=True)
    assert sorted(found.methods["SIAM"].video) == ["000_0", "000_1", "001_0", "002_0", "002_1"]
    assert any("leaves out 1 video (talking)" in text for text in said)
    found, _ = evaluated(run, tmp_path / "all", data=other, distinct_subjects=True, marks="none")
    assert len(found.methods["SIAM"]) == 6


def test_features_of_a_whole_clip_are_not_taken_for_those_of_what_is_left(mine):
    def textures():
        faces = open_marked(mine)
        cache = FeatureCache(mine.with_name("data.features"))
        template = Template(faces.mean_shape, faces.triangles, faces.size, faces.config.margin)
        return cache("lbp_top", [FileVideo(faces[name], template) for name in ("001_1", "002_1")])

    before = textures()
    write_marks(marks_beside(mine), [Mark("001_1", 8, 11)])
    after = textures()
    assert (after[0] != before[0]).any() and (after[1] == before[1]).all()
    marks_beside(mine).unlink()
    np.testing.assert_array_equal(textures(), before)
