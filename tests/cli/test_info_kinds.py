"""`nemo info` says of every kind of path what it is and what comes next; `nemo verify` counts what it found."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from nemo_cli.describe import describe
from nemo_cli.main import COMMANDS, main
from nemo_pipeline.batch.assemble import relabel
from nemo_pipeline.batch.label_table import read_labels
from nemo_pipeline.errors import DamagedFile, DataError
from nemo_pipeline.store import FaceDataset
from siam_model.interval import load_interval
from tests.support.siam_faces import drawn_file
from tests.support.siam_runs import TINY, Listener, Stop, train

QUICK = {"preset": "small", "epochs": 1, "device": "cpu", "overrides": TINY}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A data set, a finished run, one that was stopped after its first fold began, and files of other kinds."""
    folder = tmp_path_factory.mktemp("kinds")
    data = drawn_file(folder / "drawn.h5", synthetic=True, subjects=8, frames=6)
    train(data, folder / "runs" / "done", **QUICK)
    with pytest.raises(Stop):
        train(data, folder / "runs" / "stopped", folds=2, reporter=Listener(stop_at=1), **QUICK)
    (folder / "labels.csv").write_text("Filename,Age (years),Note\na.mp4,30,x\n")
    (folder / "other.csv").write_text("a,b\n1,2\n")
    (folder / "notes.txt").write_text("Nothing happened today.")
    (folder / "page.html").write_text("<!DOCTYPE html><title>x</title>")
    (folder / "marks.csv").write_text(
        "frame,face_id," + ",".join(f"{a}_{i}" for a in "xy" for i in range(68))
    )
    (folder / "begun.shards" / ".work").mkdir(parents=True)
    (folder / "empty").mkdir()
    return folder


@pytest.mark.parametrize(
    ("path", "kind", "follows"),
    [
        ("drawn.h5", "prepared file", "nemo train"),
        ("drawn.shards", "shards of drawn.h5", "nemo info"),
        ("begun.shards", "unfinished preparation", "rerun the same `nemo prep`"),
        ("runs", "folder of runs", "nemo info"),
        ("runs/done", "run folder, finished", "nemo evaluate"),
        ("runs/stopped", "run folder, unfinished", "nemo train --resume --out"),
        ("runs/done/model", "model of the run", "nemo predict"),
        ("runs/done/predictions.csv", "predictions of a run", "nemo evaluate"),
        ("runs/done/history.csv", "epochs of a training", "nemo info"),
        ("runs/done/run.json", "JSON", "nemo info"),
        ("runs/done/curves.png", "PNG picture", "viewer"),
        ("labels.csv", "label table", "nemo label out.h5"),
        ("other.csv", "table of another kind", "correct it"),
        ("marks.csv", "landmarks in OpenFace's columns", "nemo prep videos/ out.h5 --landmarks"),
        ("notes.txt", "text file", "nothing"),
        ("page.html", "web page", "browser"),
        ("empty", "folder without videos", "--dry-run"),
    ],
)
def test_every_kind_has_a_name_and_a_next_step(place, path, kind, follows):
    facts = describe(place / path)
    assert facts["kind"].startswith(kind) and follows in facts["next"]
    if facts["next"].startswith("nemo "):
        assert shlex.split(facts["next"])[1] in COMMANDS
    shown = CliRunner().invoke(main, ["info", str(place / path)])
    assert shown.exit_code == 0 and "next" in shown.stdout


def test_errors_come_first_and_settings_last(place):
    facts = describe(place / "runs" / "done")
    names = list(facts)
    assert names[2] == "mean_absolute_error_years" and {"SIAM", "training median"} <= set(facts[names[2]])
    assert names.index("next") < names.index("network") and names[-1] == "made_with"
    assert (
        facts["bytes_of_weights"] == (place / "runs" / "done" / "model" / "model.safetensors").stat().st_size
    )
    shown = CliRunner().invoke(main, ["info", str(place / "drawn.h5")]).stdout
    assert " kB" in shown or " MB" in shown
    stopped = describe(place / "runs" / "stopped")
    assert stopped["folds_done"] == "0 of 2" and list(stopped)[-1] == "settings"
    assert (
        json.loads(CliRunner().invoke(main, ["info", str(place / "runs"), "--json"]).stdout)["unfinished"]
        == "stopped"
    )


@pytest.mark.parametrize("name", ["predictions.csv", "model/config.json"])
def test_what_is_not_as_the_training_wrote_it_is_said(place, tmp_path, name):
    run = Path(shutil.copytree(place / "runs" / "done", tmp_path / "run"))
    assert "not_as_written" not in describe(run) and "not_as_written" not in describe(run / "model")
    text = (run / name).read_text()
    at = text.index("age_predicted" if name.endswith("csv") else '"deviation"') + 14
    digit = re.compile(r"[0-9]").search(text, at)
    (run / name).write_text(f"{text[: digit.start()]}{9 - int(digit[0])}{text[digit.end() :]}")
    assert describe(run)["not_as_written"].startswith(f"{name}: SHA256SUMS does not fit")
    assert ("not_as_written" in describe(run / "model")) == name.startswith("model")
    found = load_interval(run / "model", 0.5)
    assert ("predictions.csv is not as the training wrote it" in found.reason) == name.endswith("csv")


def test_a_missing_index_of_a_stopped_preparation_is_named(place):
    with pytest.raises(
        DataError, match=r"begun\.h5 does not exist\. begun\.shards is there: its preparation is not"
    ):
        describe(place / "begun.h5")
    (place / "text.h5").write_text("no HDF5")
    with pytest.raises(DamagedFile, match="cannot be opened as HDF5"):
        describe(place / "text.h5")


def test_verify_counts_warnings(tmp_path):
    data = drawn_file(tmp_path / "out.h5", subjects=2, clips=2, frames=3, landmarks=np.zeros((3, 68, 2)))
    shown = CliRunner().invoke(main, ["verify", str(data)])
    assert "no issues found" in shown.stderr
    name = FaceDataset(data).videos["file"][0]
    (tmp_path / "l.csv").write_text(f"video,age\n{name},1\n")
    relabel(data, read_labels(tmp_path / "l.csv"))
    shown = CliRunner().invoke(main, ["verify", str(data)])
    assert "1 warning." in shown.stderr and "more than 5 years apart" in " ".join(shown.stdout.split())
    # nemo label says the same at once.
    (tmp_path / "l.csv").write_text(f"video,age\n{name},2\n")
    said = CliRunner().invoke(main, ["label", str(data), str(tmp_path / "l.csv")]).stderr
    assert "Warning: These subjects have ages more than 5 years apart" in said
