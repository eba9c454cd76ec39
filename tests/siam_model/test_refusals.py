"""What is never joined, resumed or begun: leaks, other data, contradictions; one sentence each."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nemo_pipeline.errors import DataError, LeakageError, NemoError, RunError, SettingsError
from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.store.relabel import write_labels
from nemo_pipeline.store.schema import LABEL_COLUMNS
from siam_model.predictions import read_predictions, write_predictions
from siam_model.protocol.crossval import join_folds
from siam_model.run_folder import RunFolder
from siam_model.runs import newest_unfinished
from tests.support.siam_faces import drawn_file, drawn_videos
from tests.support.siam_runs import Listener, Stop, quick, results, resume, train


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_subject_in_two_folds_is_never_joined(copy):
    first, second = (read_predictions(RunFolder(copy).fold(k).predictions) for k in (0, 1))
    taken = type(first)(
        *((*a[:-1], b[0]) for a, b in ((first.video, second.video), (first.subject, second.subject))),
        first.fold,
        np.append(first.age[:-1], second.age[0]),
        first.predicted,
    )
    write_predictions(RunFolder(copy).fold(0).predictions, taken)
    with pytest.raises(LeakageError) as caught:
        join_folds(RunFolder(copy))
    assert caught.value.shared == (second.subject[0],)


def test_a_fold_of_other_people_is_never_joined(copy):
    text = RunFolder(copy).fold(0).predictions.read_text()
    subject = read_predictions(RunFolder(copy).fold(0).predictions).subject[0]
    RunFolder(copy).fold(0).predictions.write_text(text.replace(f",{subject},", ",somebody,"))
    with pytest.raises(RunError, match=r"split\.json") as error:
        join_folds(RunFolder(copy))
    assert error.value.run == copy


def test_a_model_that_knows_whom_it_predicts_is_never_joined(copy):
    card = RunFolder(copy).fold(2).model.card
    values = json.loads(card.read_text())
    leaked = read_predictions(RunFolder(copy).fold(2).predictions).subject[0]
    values["subjects"]["training"].append(leaked)
    card.write_text(json.dumps(values))
    with pytest.raises(LeakageError) as caught:
        join_folds(RunFolder(copy))
    assert caught.value.shared == (leaked,)


def test_leaking_splits_are_refused_before_training(data, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(Stop):
        quick(data, run, folds=3, reporter=Listener(stop_at=1))
    values = json.loads((run / "split.json").read_text())
    values["folds"][1]["training"].append(values["folds"][1]["test"][0])
    (run / "split.json").write_text(json.dumps(values))
    with pytest.raises(LeakageError, match="fold 1") as caught:
        resume(run, device="cpu")
    assert caught.value.shared == (values["folds"][1]["test"][0],)
    values["folds"][1]["training"].pop()
    values["folds"][1]["test"].append(values["folds"][1]["validation"].pop())
    (run / "split.json").write_text(json.dumps(values))
    with pytest.raises(LeakageError, match="test part of 2 folds"):
        resume(run, device="cpu")


def test_joining_needs_no_data_and_changes_nothing(copy, whole):
    values = json.loads((copy / "settings.json").read_text())
    (copy / "settings.json").write_text(json.dumps({**values, "data": "/nowhere.h5"}))
    (copy / "predictions.csv").unlink()
    join_folds(RunFolder(copy))
    assert results(copy) == results(whole)


def test_data_may_move_and_may_not_change(data, tmp_path):
    moved, run = tmp_path / "before" / "out.h5", tmp_path / "run"
    moved.parent.mkdir()
    shutil.copytree(data.with_suffix(".shards"), moved.with_suffix(".shards"))
    shutil.copy(data, moved)
    with pytest.raises(Stop):
        quick(moved, run, folds=2, reporter=Listener(stop_at=1))
    moved.parent.rename(tmp_path / "after")
    with pytest.raises(RunError, match=r"which is not there any more; say where.*`resume\(.*, DATA\.h5\)`"):
        resume(run, device="cpu")
    other = drawn_file(tmp_path / "other.h5", size=70, subjects=10, frames=8)
    with pytest.raises(RunError, match=r"other\.h5 is another data set, or the same with other labels"):
        resume(run, other, device="cpu")
    assert RunFolder(resume(run, tmp_path / "after" / "out.h5", device="cpu")).is_finished()
    assert json.loads((run / "run.json").read_text())["data"] == str(tmp_path / "after" / "out.h5")


def test_what_cannot_be_resumed_is_answered(whole, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="no unfinished run in runs"):
        newest_unfinished()
    with pytest.raises(RunError, match="is not a folder"):
        resume(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"holds no settings\.json, so there is nothing to resume"):
        resume(tmp_path)
    with pytest.raises(RunError, match="is finished, and nothing is left to do"):
        resume(whole)
    for given, sentence in (
        ({"seed": 3}, "begun with `seed=0`, not with `seed=3`"),
        ({"folds": 10}, "begun with `folds=3`, not with `folds=10`"),
        ({"study": "modules"}, "begun with no `study`, not with `study=modules`"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            resume(whole, given=given)
    with pytest.raises(SettingsError, match="no fold 7: `folds=3` has the folds 0 to 2"):
        resume(whole, fold=7)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(DataError, match="is damaged: it is not JSON"):
        resume(tmp_path)
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(DataError, match="does not hold the settings of a run"):
        resume(tmp_path)


def test_folds_that_cannot_be_are_answered(data, tmp_path):
    for options, sentence in (
        ({"folds": 10, "fold": 12}, "no fold 12: `folds=10` has the folds 0 to 9"),
        ({"fold": 1}, "one of several folds; say how many with `folds`"),
        ({"folds": 9}, r"10 subjects, and 9 folds need at least 11"),
        ({"trials": -1}, "`trials` is -1"),
    ):
        with pytest.raises(NemoError, match=sentence):
            quick(data, tmp_path / "run", **options)
    with pytest.raises(SettingsError, match="`fold` needs `out=RUN`"):
        train(data, folds=3, fold=1)
    assert not (tmp_path / "run").exists()


def test_precision_is_the_runs_and_devices_are_not(data, tmp_path):
    run = quick(data, tmp_path / "run", folds=2, fold=0, epochs=1, precision="bf16-mixed")
    assert json.loads((run / "settings.json").read_text())["precision"] == "bf16-mixed"
    with pytest.raises(SettingsError, match="begun with `precision=bf16-mixed`, not with `precision=32`"):
        resume(run, given={"precision": "32"})
    with pytest.raises(
        SettingsError, match="`precision` takes 32, bf16-mixed, 16-mixed; '8' is not one of them"
    ):
        quick(data, tmp_path / "other", precision="8")
    with pytest.raises(SettingsError, match="`jobs` gives every fold a GPU of its own"):
        resume(run, device="cpu", jobs=2, devices=2)
    assert not (tmp_path / "other").exists()


def test_hostile_names_survive_the_protocol(tmp_path):
    names = ["=1+1", "[/b]", "$a^^b$", "caf\udce9", "'; --", "微笑", "\x1b[31mx", 'a,b"c']
    videos = [
        {
            **video,
            "subject": names[i // 2],
            "id": f"{names[i // 2]}_{i % 2}",
            "gender": "<b>" if i % 4 else "[/]",
        }
        for i, video in enumerate(drawn_videos(8, 2, 6, size=70))
    ]
    run = quick(write_dataset(tmp_path / "out.h5", videos), tmp_path / "run", folds=2, epochs=1)
    joined = read_predictions(run / "predictions.csv")
    assert sorted(set(joined.subject)) == sorted(names)
    with (run / "predictions.csv").open(newline="", errors="surrogateescape") as file:
        assert all(row["subject"][0] not in "=-+@" for row in csv.DictReader(file))


def test_labels_that_change_are_other_data(data, tmp_path):
    labelled = drawn_file(tmp_path / "out.h5", size=70, subjects=8, frames=6)
    with pytest.raises(Stop):
        quick(labelled, tmp_path / "run", reporter=Listener(stop_at=1))
    columns = FaceDataset(labelled).videos
    rows = [{name: columns[name][i] for name in LABEL_COLUMNS} for i in range(len(columns["id"]))]
    rows[0]["age"] = 33.0  # as `nemo label` corrects one
    write_labels(labelled, rows, False)
    with pytest.raises(RunError, match="other labels"):
        resume(tmp_path / "run", device="cpu")
