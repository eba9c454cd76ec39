"""`nemo train` as people call it: the balance, progress, --resume, --fold, --study, an interrupt, what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner, Result

import siam_model
from nemo_cli.main import main
from nemo_pipeline.geometry import shipped_mean_shape
from nemo_pipeline.store import FaceDataset, write_dataset
from siam_model.protocol.reporter import TrainingScope
from siam_model.protocol.request import Runtime
from siam_model.run_folder import RunFolder
from tests.support.processes import PATIENCE
from tests.support.siam_faces import drawn_file, drawn_videos
from tests.support.siam_runs import TINY

SETTINGS = [part for name, value in TINY.items() for part in ("--set", f"{name}={value}")]
SMALL = ["--preset", "small", "--device", "cpu", *SETTINGS]


def nemo(*args: str | Path, cwd: Path, code: int = 0) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setenv("COLUMNS", "160")
        done = CliRunner().invoke(main, [str(a) for a in args])
    assert done.exit_code == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    drawn_file(folder / "out.h5", synthetic=True, size=70, subjects=10, frames=6)
    return folder


@pytest.fixture(scope="module")
def started(place) -> Path:
    """A run of which fold 1 alone is trained."""
    nemo("train", "out.h5", *SMALL, "--epochs", "1", "--folds", "3", "--fold", "1", "-o", "begun", cwd=place)
    return place / "begun"


def test_folds_balance_and_results(place):
    done = nemo(
        "train",
        "out.h5",
        *SMALL,
        "--epochs",
        "1",
        "--folds",
        "3",
        "--trials",
        "2",
        "-o",
        "a",
        "--json",
        cwd=place,
    )
    told = flat(done.stderr)
    assert "Subjects in the test part of each fold" in told and "Parts share no subject." in told
    rows = re.findall(r"^ *([012]) +(\d) +(\d) +(\d) +(\d) +\d+-\d+ ", done.stderr, re.MULTILINE)
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert sum(int(row[1]) for row in rows) == 10 == sum(int(row[2]) + int(row[3]) for row in rows)
    assert "fold 2, trial 2/2, epoch 1: training error" in told
    assert told.count("A step takes") == 1 and "7 trainings of at most 1 epoch, " in told
    assert "fold 0: chose trial" in told and "Now on all subjects, for 1 epochs" in told
    answer = json.loads(done.stdout)
    assert set(answer["baselines"]) == {"training median", "ridge, mean face", "ridge, smile phases"}
    assert answer["folds"] == 3 and answer["trials"] == 2 and answer["mae"] > 0
    assert "say nothing about people" in told


def test_quiet_and_no_terminal(place):
    done = nemo("train", "out.h5", *SMALL, "--epochs", "1", "-o", "quiet", "--quiet", cwd=place)
    assert "epoch" not in done.stderr and "Mean absolute error" in done.stderr
    assert "\x1b" not in done.stderr and "\r" not in done.stderr


def test_array_job_and_resume(started, place):
    assert RunFolder(started).missing_folds(3) == [0, 2]
    done = nemo(
        "train",
        "out.h5",
        *SMALL,
        "--epochs",
        "1",
        "--folds",
        "3",
        "--fold",
        "0",
        "-o",
        "begun",
        "--json",
        cwd=place,
    )
    answer = json.loads(done.stdout)
    assert (answer["fold"], answer["missing_folds"]) == (0, [2]) and answer["mae"]["SIAM"] > 0
    assert "Missing: fold 2" in done.stderr
    contradiction = nemo("train", "--resume", "-o", "begun", "--seed", "4", cwd=place, code=1)
    assert "begin a new run" in flat(contradiction.stderr) and "--seed 0, not with --seed 4" in flat(
        contradiction.stderr
    )
    done = nemo("train", "--resume", "-o", "begun", "--seed", "0", "--folds", "3", cwd=place)
    assert "2 of 3 folds are finished" in done.stderr and RunFolder(started).is_finished()
    done = nemo("train", "--resume", "-o", "begun", cwd=place, code=1)
    assert "is finished, and nothing is left to do: nemo evaluate begun." in flat(done.stderr)


def test_pretrained_run_is_marked_and_its_model_needs_no_data(tmp_path):
    """From faces whose lip corners move; afterwards the data are gone."""

    def videos():
        for video in drawn_videos(10, 1, 8, 70):
            length = len(video["frames"])
            points = np.repeat(100 * shipped_mean_shape()[None], length, axis=0)
            points[:, [48, 54], 0] += np.outer(np.sin(np.linspace(0, np.pi, length)) ** 2, [-9, 9])
            yield video | {"landmarks": points.astype(np.float32)}

    write_dataset(tmp_path / "out.h5", videos(), synthetic=True)
    words = ["--epochs", "2", "--set", "train.freeze_appearance=1", "--set", "train.pretrain_epochs=2"]
    both = nemo(
        "train", "out.h5", "--pretrain", "shape", "--set", "train.pretrain=expression", cwd=tmp_path, code=2
    )
    assert "--pretrain and --set train.pretrain say different things" in flat(both.stderr)
    done = nemo("train", "out.h5", *SMALL, *words, "--pretrain", "expression", "-o", "run", cwd=tmp_path)
    said = flat(done.stderr)
    assert "pretraining 1 of 2: loss" in said and "epoch 2: training error" in said
    assert "Beyond the paper: train.pretrain=expression, train.freeze_appearance=1." in said
    again = nemo("train", "--resume", "-o", "run", "--pretrain", "shape", cwd=tmp_path, code=1)
    assert "train.pretrain=expression" in again.stderr
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000
    faces = FaceDataset(tmp_path / "out.h5")[0].frames
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    (tmp_path / "out.h5").unlink()
    model = siam_model.load(tmp_path / "elsewhere")
    assert np.isfinite(model.predict(faces).age)
    about = nemo("info", "elsewhere/model", "--json", cwd=tmp_path)
    assert json.loads(about.stdout)["beyond_paper"][0] == "train.pretrain=expression"


def test_resume_takes_the_newest_unfinished_run(place, tmp_path):
    done = nemo("train", "--resume", cwd=tmp_path, code=1)
    assert "There is no unfinished run in runs" in flat(done.stderr)
    arguments = ("--epochs", "1", "--folds", "3", "--fold", "2", "-o", "runs/one")
    nemo("train", place / "out.h5", *SMALL, *arguments, cwd=tmp_path)
    nemo("train", "--resume", "--quiet", cwd=tmp_path)
    assert RunFolder(tmp_path / "runs" / "one").is_finished()


def test_a_study_and_its_table(place):
    arguments = ("--epochs", "1", "--study", "positions", "--folds", "2", "-o", "study")
    done = nemo("train", "out.h5", *SMALL, *arguments, cwd=place)
    for label in ("after convolution 1", "after convolution 3", "no spatial attention", "ridge, mean face"):
        assert label in flat(done.stdout)
    assert "conv2, fold 1, epoch 1: training error" in done.stderr
    assert done.stderr.count("Subjects in the test part") == 1
    done = nemo("train", "--resume", "-o", "study", cwd=place, code=1)
    assert "is finished" in done.stderr
    arguments = (*arguments[:-1], "other", "--json", "--quiet")
    answer = json.loads(nemo("train", "out.h5", *SMALL, *arguments, cwd=place).stdout)
    assert [line["name"] for line in answer["variants"]] == ["conv1", "conv2", "conv3", "none"]


def test_the_papers_protocol_searches_by_default(place, monkeypatch):
    from siam_model import train as module

    asked = {}

    def instead(data, out, request, *_):
        asked["trials"] = request.trials
        raise SystemExit(7)

    monkeypatch.setattr(module, "train", instead)
    for words, trials in (
        (("--folds", "10"), 20),
        (("--folds", "10", "--preset", "small"), 0),
        ((), 0),
        (("--folds", "10", "--trials", "3"), 3),
    ):
        nemo("train", "out.h5", *words, cwd=place, code=7)
        assert asked["trials"] == trials
    assert "Default: 20 with --folds and --preset paper" in flat(
        nemo("train", "--help", cwd=place).stdout
    ).replace("│ │ ", "")


def test_what_cannot_be_is_one_sentence(place, started, tmp_path):
    unlabelled = [{**video, "age": float("nan")} for video in drawn_videos(6, 1, 4, size=70)]
    write_dataset(place / "unlabelled.h5", unlabelled)
    drawn_file(place / "other.h5", size=70, subjects=10, frames=6, seed=1)
    for words, code, sentence in (
        (("train",), 2, "name a prepared file, DATA.h5, or resume a run: --resume"),
        (
            ("train", "unlabelled.h5"),
            1,
            "has no ages, so there is nothing to learn from; add the labels with `nemo label",
        ),
        (("train", "out.h5", "--folds", "9"), 1, "9 folds need at least 11"),
        (
            ("train", "out.h5", "--folds", "10", "--fold", "12", "-o", "x"),
            1,
            "There is no fold 12: --folds 10 has the folds 0 to 9",
        ),
        (("train", "out.h5", "--folds", "3", "--fold", "1"), 1, "--fold needs --out RUN"),
        (("train", "out.h5", "--fold", "1", "-o", "x"), 1, "say how many with --folds"),
        (("train", "--resume", "-o", "nowhere"), 1, "nothing to resume"),
        (("train", "--resume", "-o", "."), 1, "holds no settings.json"),
        (("train", "other.h5", "--resume", "-o", "begun", "--fold", "0"), 1, "is another data set"),
        (
            ("train", "out.h5", "--study", "conditions", "--preset", "small"),
            1,
            "does not name two expressions or conditions",
        ),
        (("train", "out.h5", "-o", "begun"), 1, "exists already"),
    ):
        done = nemo(*words, cwd=place, code=code)
        assert sentence in flat(done.stderr).replace("│ │ ", ""), (words, done.stderr)
        assert not done.stdout


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupt_says_how_to_go_on(place, tmp_path, how, jobs):
    call = [
        sys.executable, "-m", "nemo_cli.main", "train", place / "out.h5", *SMALL, "--epochs", "100000", "--folds", "2",
        "-o", "run", "--jobs", str(jobs), "--set", "train.patience=100000",
    ]  # fmt: skip
    process = subprocess.Popen(
        [os.fspath(word) for word in call],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "epoch 3" in line:
            break
    process.send_signal(how)  # it has a day to go
    rest = process.stderr.read()
    assert process.wait() == 130
    assert "nemo train --resume --out run" in rest and "Traceback" not in rest
    end = time.monotonic() + PATIENCE
    while str(tmp_path) in str([each.info["cmdline"] for each in psutil.process_iter(["cmdline"])]):
        assert time.monotonic() < end, "a process outlived its parent"
        time.sleep(0.1)
    assert list((tmp_path / "run").glob("folds/*/history.csv"))
    assert not list((tmp_path / "run").glob("folds/*/predictions.csv"))


def test_what_failed_is_said_even_when_quiet(capsys):
    """By what the training tells, not by how a sentence begins."""
    from nemo_cli.train_progress import TrainProgress

    with TrainProgress(quiet=True, runtime=Runtime()) as progress:
        progress.say("failed trials: none", TrainingScope(fold=1))
        progress.failed("The loss is not a number.", TrainingScope(fold=2))
    assert capsys.readouterr().err == "fold 2: The loss is not a number.\n"
