"""An external test set: a prepared file with labels of its own, for a model that was trained on another one."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from nemo_cli.main import main
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import DataError, LeakageError
from nemo_pipeline.store import FaceDataset, write_dataset
from siam_model import load
from siam_model.evaluate import evaluate
from siam_model.predictions import read_predictions
from siam_model.reports.inputs import EvaluateRequest
from tests.support.siam_faces import drawn_videos
from tests.support.siam_runs import quick

SIZE = 70


def videos(prefix: str, seed: int, **options: Any) -> list[dict[str, Any]]:
    """Drawn videos of people whose codes begin with `prefix`; every file has a hash of its own."""
    made = drawn_videos(size=SIZE, frames=6, clips=1, seed=seed, **options)
    return [
        video
        | {
            "id": f"{prefix}{video['id']}",
            "subject": f"{prefix}{video['subject']}",
            "sha256": f"{prefix}{video['id']}".encode().hex().ljust(64, "0"),
            "n_decoded": len(video["frames"]),
        }
        for video in made
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run without folds: 8 people `a...`, 2 of them held out."""
    folder = tmp_path_factory.mktemp("external")
    data = write_dataset(folder / "own.h5", videos("a", 0, subjects=8))
    return quick(data, folder / "run", epochs=1)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    return write_dataset(folder / "other.h5", videos("b", 1, subjects=11))


def nemo(*words: Any, code: int = 0) -> Result:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == code, done.stderr
    return done


def test_every_video_is_predicted_by_the_runs_model(trained, other):
    result = evaluate(trained, request=EvaluateRequest(data=other))
    assert result.folder == trained / "evaluation-other"
    predictions = read_predictions(result.folder / "predictions.csv")
    model, dataset = load(trained), FaceDataset(other)
    assert predictions.video == tuple(dataset.videos["id"])
    for video, age, predicted in zip(predictions.video, predictions.age, predictions.predicted, strict=True):
        assert age == dataset[video].age and predicted == model.predict(dataset[video].frames).age
    assert result.numbers["external"] and result.numbers["dataset"]["file"] == "other.h5"
    assert list(result.methods) == ["SIAM", "training median"]
    assert set(result.methods["training median"].predicted) == {model.card.ages["median"]}
    assert result.verdict is not None and result.verdict.subjects == 11
    page = result.files[0].read_text()
    assert "other.h5: 11 videos of 11 subjects, external test set" in page and "--data" in page
    assert {"Figure 9", "Figure 10", "Figure 7"} <= {p.number for p in result.report.pictures}
    own = evaluate(
        trained, request=EvaluateRequest(quick=True, faces=False)
    )  # in a folder of its own, as before
    assert not own.numbers["external"] and own.folder == trained / "evaluation"
    assert (
        evaluate(trained, request=EvaluateRequest(data=other, quick=True, faces=False)).folder
        == result.folder
    )  # once more, over its own files


def test_videos_and_people_of_the_training_are_left_out(trained, tmp_path):
    seen = load(trained).subjects["training"]
    mixed = videos("b", 1, subjects=6)
    mixed[0]["subject"] = seen[0]  # another clip of one of its people, or another person of the same code
    known = next(video for video in videos("a", 0, subjects=8) if video["subject"] == seen[1])
    mixed[1] |= {"sha256": known["sha256"], "frames": known["frames"]}  # one of its files under another name
    path = write_dataset(tmp_path / "mixed.h5", mixed)
    with pytest.warns(UserWarning, match=r"Left out 2 videos of 2 subjects .*: 1 identical file"):
        result = evaluate(trained, tmp_path / "out", request=EvaluateRequest(data=path, faces=False))
    assert set(result.methods["SIAM"].video) == {video["id"] for video in mixed[2:]}
    with pytest.warns(UserWarning, match="Left out 1 video of 1 subject"):
        result = evaluate(
            trained, tmp_path / "out", request=EvaluateRequest(data=path, distinct_subjects=True, faces=False)
        )
    assert len(result.methods["SIAM"]) == 5 and mixed[0]["id"] in result.methods["SIAM"].video
    assert "mixed.h5 --distinct-subjects" in result.files[0].read_text()


def test_nothing_is_left_where_all_were_trained_on(trained, tmp_path):
    seen = load(trained).subjects["training"]
    renamed = [
        video | {"id": f"new {video['id']}"}
        for video in videos("a", 0, subjects=8)
        if video["subject"] in seen
    ]
    path = write_dataset(tmp_path / "same.h5", renamed)
    with pytest.raises(LeakageError, match="5 identical files") as caught:
        evaluate(trained, request=EvaluateRequest(data=path))
    assert set(caught.value.shared) == set(seen)
    path = write_dataset(tmp_path / "codes.h5", [video | {"sha256": ""} for video in renamed])
    with pytest.raises(LeakageError, match="add `distinct_subjects`"):
        evaluate(trained, request=EvaluateRequest(data=path))


def test_faces_of_another_kind_are_refused(trained, tmp_path):
    small = [video | {"frames": video["frames"][:, ::2, ::2]} for video in videos("b", 1, subjects=3)]
    path = write_dataset(tmp_path / "small.h5", small)
    with pytest.raises(DataError, match=r"faces of 35 x 35 pixels.*trained on faces of 70 x 70.*`size=70`"):
        evaluate(trained, request=EvaluateRequest(data=path))
    assert "35 x 35" in nemo("predict", path, "-m", trained, code=1).stderr
    config = dataclasses.replace(PrepConfig(), size=SIZE, margin=0.1)
    path = write_dataset(tmp_path / "margin.h5", videos("b", 1, subjects=3), config=config)
    with pytest.raises(DataError, match=r"another crop.*margin"):
        evaluate(trained, request=EvaluateRequest(data=path))


def test_a_prepared_file_is_predicted_without_its_videos(trained, tmp_path):
    table = tmp_path / "ages.csv"
    other = write_dataset(tmp_path / "other.h5", videos("b", 1, subjects=3))
    done = nemo("predict", other, "-m", trained, "--csv", table, "--explain", tmp_path / "seen", "--json")
    lines = json.loads(done.stdout)["clips"]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    model, dataset = load(trained), FaceDataset(other)
    assert [row["video"] for row in rows] == [line["video"] for line in lines] == list(dataset)
    for row, video in zip(rows, dataset.values(), strict=True):
        assert float(row["age_predicted"]) == model.predict(video.frames).age
        assert float(row["age_true"]) == video.age and row["note"] == ""
    drawn = {path.name for path in (tmp_path / "seen").iterdir() if not path.name.startswith(".")}
    assert drawn == {f"{name}.{what}.png" for name in dataset for what in ("attention", "weights")}


def test_people_of_the_training_get_no_interval(trained, tmp_path):
    """A run predicts its own prepared file: what it was trained on is said beside each age."""
    own = FaceDataset(json.loads((trained / "run.json").read_text())["data"])
    done = nemo("predict", own.path, "-m", trained, "--interval", "0.5")
    seen = {code for codes in load(trained).subjects.values() for code in codes}
    for line, video in zip(done.stdout.splitlines(), own.values(), strict=True):
        assert ("trained on this very clip" in line) == (video.subject in seen)
        assert ("interval 0" in line or "50 % interval" in line) == (video.subject not in seen)
        assert f"labelled {video.age:g}" in line
    assert np.isfinite([video.age for video in own.values()]).all()
