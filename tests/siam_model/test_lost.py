"""Runs that were killed, cut off or copied in part, and files of the user's own: nothing is lost, nothing passes for
what it is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nemo_pipeline.errors import DataError, OutputError, RunError, SettingsError
from siam_model import load
from siam_model.data import VideoTable
from siam_model.evaluate import evaluate
from siam_model.predictions import read_predictions
from siam_model.protocol.doubts import doubtful_subjects, repeated_files
from siam_model.reports.inputs import EvaluateRequest
from siam_model.reports.source import open_run
from siam_model.run_folder import RunFolder
from tests.support.siam_runs import results, resume, train
from tests.support.siam_smiles import OPTIONS, smiling_file, trained


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return smiling_file(tmp_path_factory.mktemp("lost") / "data.h5")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    return trained(data, tmp_path_factory.mktemp("lost") / "run")


@pytest.fixture
def run(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_a_joined_run_without_its_last_word_is_not_finished(whole, run):
    """Killed after the model of all subjects was in place, and before run.json and the curves were written again."""
    values = json.loads((run / "run.json").read_text())
    (run / "curves.png").unlink()
    for left in (json.dumps({**values, "provisional": True, "seconds": 0}), ""):
        (run / "run.json").write_text(left)
        assert not RunFolder(run).is_finished()
        resume(run, device="cpu")
        again = json.loads((run / "run.json").read_text())
        assert {**again, "finished": 0} == {**values, "finished": 0}
        assert (run / "curves.png").is_file() and results(run) == results(whole)


def test_evaluate_writes_over_nothing_of_anybodys(run, tmp_path):
    out = tmp_path / "paper"
    (out / "figures").mkdir(parents=True)
    mine = {out / "figures" / "figure-overview.png", out / "figures" / "figure-1.svg", out / "report.html"}
    for path in mine:
        path.write_text("mine")
    for name in ("report.html", "evaluation.json"):
        (out / name).write_text("{}")
        with pytest.raises(OutputError, match=f"{name} is there already"):
            evaluate([run], out, request=EvaluateRequest(quick=True, faces=False))
        assert (out / name).read_text() == "{}"
        (out / name).unlink()
    first = evaluate([run], out, request=EvaluateRequest(quick=True, faces=False))
    numbers = json.loads((out / "evaluation.json").read_text())
    numbers.pop("files")  # as an earlier version left it
    (out / "evaluation.json").write_text(json.dumps(numbers))
    evaluate([run], out, request=EvaluateRequest(quick=True, faces=False))
    stale = out / "figures" / "figure-of-before.png"
    stale.write_text("an earlier call's")
    numbers = json.loads((out / "evaluation.json").read_text())
    (out / "evaluation.json").write_text(
        json.dumps(
            {
                **numbers,
                "files": [
                    *numbers["files"],
                    "figures/figure-of-before.png",
                    "../outside",
                    str(tmp_path / "outside"),
                ],
            }
        )
    )
    (tmp_path / "outside").write_text("mine")
    assert evaluate([run], out, request=EvaluateRequest(quick=True, faces=False)).parts == first.parts
    assert not stale.exists() and (tmp_path / "outside").exists()
    assert all(path.read_text() == "mine" for path in mine - {out / "report.html"})


def test_predictions_that_were_cut_off_are_none(run):
    every = read_predictions(run / "predictions.csv")
    lines = (run / "predictions.csv").read_bytes().splitlines(keepends=True)
    (run / "predictions.csv").write_bytes(b"".join(lines[:3]))
    with pytest.raises(DataError, match=f"holds 2 videos, and .*{len(every)}: it was cut off"):
        open_run(RunFolder(run))


def test_a_history_that_is_gone_is_said(run):
    shutil.rmtree(run / "model")
    (run / "folds" / "01" / "history.csv").write_text("")
    (run / "folds" / "01" / "SHA256SUMS").unlink()  # as an earlier version left it
    with pytest.raises(DataError, match=r"history\.csv of a finished training is empty"):
        resume(run, device="cpu")


def test_an_ensemble_of_some_folds_is_none(run):
    load(run, ensemble=True)
    model = run / "folds" / "01" / "model"
    model.rename(run / "elsewhere")
    with pytest.raises(RunError, match="is finished, but its model/ is gone"):
        load(run, ensemble=True)
    shutil.rmtree(run / "folds" / "01")
    with pytest.raises(RunError, match=r"Fold 1 of .* has no model yet"):
        load(run, ensemble=True)


def test_processes_that_train_side_by_side_read_data_with_processes_of_their_own(data, whole, tmp_path):
    run = trained(data, tmp_path / "both", jobs=2, workers=1)
    assert results(run) == results(whole)


def test_jobs_need_folds(data, tmp_path):
    with pytest.raises(SettingsError, match="`jobs` trains folds in parallel"):
        train(data, tmp_path / "run", **{**OPTIONS, "folds": None, "jobs": 2})
    assert not (tmp_path / "run").exists()
    with pytest.raises(SettingsError, match="leave one of them out"):
        train(data, tmp_path / "run", **{**OPTIONS, "overrides": {"train.epochs": "2"}})
    assert not (tmp_path / "run").exists()


def test_predictions_as_a_spreadsheet_saves_them(run, tmp_path):
    ours = read_predictions(run / "predictions.csv")
    data = (run / "predictions.csv").read_bytes()
    (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbf" + data.replace(b",", b";"))
    other = read_predictions(tmp_path / "x.csv")
    assert other.subject == ours.subject and np.array_equal(other.predicted, ours.predicted)
    (tmp_path / "y.csv").write_text("video,subject\n" + "a" * 200_000 + ",b\n")
    with pytest.raises(DataError, match="is not a CSV file"):
        read_predictions(tmp_path / "y.csv")


def test_subjects_that_are_hardly_one_person():
    def table(*rows):
        subject, age, gender = zip(*rows, strict=True)
        n = len(rows)
        return VideoTable(
            index=np.arange(n), id=tuple(map(str, range(n))), subject=subject, age=np.array(age, float),
            gender=gender, length=np.full(n, 9), fold=np.zeros(n, int),
        )  # fmt: skip

    assert (
        doubtful_subjects(table(("a", 20, "male"), ("a", 25, "male"), ("b", 60, ""), ("b", 60, "female")))
        == ""
    )
    said = doubtful_subjects(
        table(("a", 20, "male"), ("a", 50, "male"), ("b", 9, "male"), ("b", 9, "female"))
    )
    assert said == "subject a is 20 to 50 years old, subject b is female and male."


def test_the_same_file_under_two_subjects_is_said():
    def table(*rows):
        subject, file = zip(*rows, strict=True)
        n = len(rows)
        return VideoTable(
            index=np.arange(n), id=tuple(map(str, range(n))), subject=subject, age=np.full(n, 20.0), gender=("",) * n,
            length=np.full(n, 9), fold=np.zeros(n, int), file=file,
        )  # fmt: skip

    said = repeated_files(table(("a", "x.jpg"), ("b", "y.jpg"), ("c", "z.jpg")), ["1", "1", "2"])
    assert said.startswith("x.jpg and y.jpg are the same file under different subjects: one may be")
    more = repeated_files(table(("a", "x"), ("b", "y"), ("c", "z"), ("d", "w")), ["1", "1", "2", "2"])
    assert "(1 more case)" in more
    for rows, hashes in (
        ((("a", "x"), ("a", "y")), ["1", "1"]),  # a copy of the same person's
        ((("a", "x"), ("b", "x")), ["1", "1"]),  # two people in one file
        ((("a", "x"), ("b", "y")), ["", ""]),  # not known
    ):
        assert repeated_files(table(*rows), hashes) == ""
