"""Evaluation: from predictions.csv and run.json alone to numbers, tables and pictures."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nemo_pipeline.errors import DataError
from siam_model import SIAMConfig
from siam_model.evaluate import evaluate
from siam_model.figures.clip import clip_figure
from siam_model.figures.plain import save_figure
from siam_model.predict import Prediction
from siam_model.predictions import Predictions, read_predictions, write_predictions
from siam_model.reports.inputs import EvaluateRequest
from siam_model.reports.numbers import by_decade, cumulative_error

#: File names known to break naive code.
NASTY = (
    "clip[/b].mp4",
    "$a^^b$.mp4",
    "=cmd|' /C calc'!A0",
    "-1+1",
    "'quoted",
    "caf\udce9.mp4",
    'a,"b"\n.mp4',
)


def predictions(seed: int = 0, names: tuple[str, ...] = NASTY) -> Predictions:
    rng = np.random.default_rng(seed)
    age = np.array([8.0, 9.99, 10.0, 34.0, 35.0, 39.999, 76.0])
    return Predictions(
        names, tuple(f"s{i // 2}" for i in range(7)), np.arange(7) % 3, age, age + rng.normal(0, 6, 7)
    )


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "run"
    (folder / "baselines").mkdir(parents=True)
    write_predictions(folder / "predictions.csv", predictions())
    write_predictions(folder / "baselines" / "median.csv", predictions(1))
    meta = {"synthetic": False, "folds": 3, "dataset": {"file": "$a^^b$.h5", "uuid": "u"}, "seed": 0}
    (folder / "run.json").write_text(json.dumps(meta))
    return folder


def test_the_table_survives_hostile_names(tmp_path):
    write_predictions(tmp_path / "p.csv", predictions())
    back = read_predictions(tmp_path / "p.csv")
    assert back.video == NASTY
    np.testing.assert_array_equal(back.predicted, predictions().predicted)
    with (tmp_path / "p.csv").open(newline="", errors="surrogateescape") as file:
        assert all(not row["video"].startswith(("=", "-")) for row in csv.DictReader(file))


def test_columns_of_earlier_versions_are_read(tmp_path):
    p = predictions()
    p = dataclasses.replace(p, file=tuple(f"folder/{name}" for name in p.video))
    write_predictions(tmp_path / "p.csv", p)
    with (tmp_path / "p.csv").open(newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["video", "file", "subject", "fold", "age_true", "age_predicted"]
    assert read_predictions(tmp_path / "p.csv").file == p.file
    lines = (tmp_path / "p.csv").read_bytes().replace(b"age_true,age_predicted", b"age,predicted", 1)
    (tmp_path / "old.csv").write_bytes(lines)
    old = read_predictions(tmp_path / "old.csv")
    np.testing.assert_array_equal([old.age, old.predicted], [p.age, p.predicted])


def test_numbers(run):
    result = evaluate(run)
    p = predictions()
    ours = result.numbers["methods"]["SIAM"]
    error = np.abs(p.predicted - p.age)
    assert ours["mae"] == pytest.approx(error.mean())
    assert ours["deviation"] == pytest.approx(error.std(ddof=1))
    assert ours["by_decade"]["0-9"] == {
        "videos": 2,
        "mae": pytest.approx(error[:2].mean()),
        "deviation": pytest.approx(error[:2].std(ddof=1)),
    }
    assert ours["by_decade"]["20-29"] == {"videos": 0, "mae": None, "deviation": None}
    assert ours["by_decade"]["70-79"]["videos"] == 1
    assert ours["by_decade"]["All"]["videos"] == ours["videos"] == 7
    assert ours["subjects"] == 4
    assert ours["cumulative_error"]["share"][50] == 1
    assert ours["cumulative_error"]["share"][5] == pytest.approx((error <= 5).mean())
    assert "training median" in result.numbers["methods"]
    assert json.loads((run / "evaluation" / "evaluation.json").read_text())["methods"]["SIAM"] == ours


def test_table_three_and_figures(run):
    result = evaluate(run, run / "elsewhere")
    # Decades in which nobody is are left out here, where the paper's rows are not next to them.
    assert result.header == ["Method", "0-9", "10-19", "30-39", "70-79", "All", "SD"]
    names = ["SIAM", "SIAM: 95 % interval", "training median", "Videos", "Subjects"]
    assert [row[0] for row in result.rows] == names
    assert result.rows[-2][1:] == ["2", "1", "3", "1", "7", ""]
    assert all(len(row) == len(result.header) for row in result.rows)
    for file in (*result.files, *result.parts):
        assert file.is_file() and file.stat().st_mode & 0o077 == 0
        if file.suffix == ".png":
            assert np.asarray(Image.open(file).convert("L")).std() > 5


@pytest.mark.parametrize("name", ["Videos", "ours, 95 % interval"])
def test_a_method_may_be_called_anything(run, name, capsys):
    """Rows are known by their place: a method keeps its row and its numbers whatever it is called."""
    from nemo_cli.evaluate import _print

    plain = evaluate(run, run / "elsewhere")
    result = evaluate(run, run / "elsewhere", request=EvaluateRequest(others={name: run / "predictions.csv"}))
    assert result.header == plain.header
    ours = result.rows[0]
    assert next(row for row in result.rows if row[0] == name)[1:] == ours[1:]
    _print(result)
    shown = " ".join(capsys.readouterr().out.partition("Mean absolute error")[2].split())
    assert shown.count(f" {ours[-2]} ") == 2 and "training median" in shown


def test_decades_and_cumulative_error():
    p = predictions()
    assert list(by_decade(p))[-1] == "All"
    assert sum(s.n for name, s in by_decade(p).items() if name != "All") == 7
    share = cumulative_error(p, np.array([0.0, 1e9]))
    assert share.tolist() == [0, 1]
    one = Predictions(("v",), ("s",), np.zeros(1), np.array([20.0]), np.array([23.0]))
    assert list(by_decade(one)) == ["20-29", "All"]


@pytest.mark.parametrize(
    ("subjects", "age", "predicted"),
    [
        (["s"], [20.0], [23.0]),
        (["s", "s"], [20.0, 20.0], [20.0, 20.0]),
        (["s", "t"], [20.0, 20.0], [20.0, 20.0]),
        (["s", "t", "t"], [2.0, 101.0, 101.0], [20.0, -20.0, 300.0]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_handful_of_videos(run, subjects, age, predicted):
    names = tuple(f"v{i}" for i in range(len(age)))
    for offset, name in ((0, "predictions"), (1, "baselines/median")):
        p = Predictions(
            names, tuple(subjects), np.zeros(len(age)), np.array(age), np.array(predicted) + offset
        )
        write_predictions(run / f"{name}.csv", p)
    page = evaluate(run).files[0].read_text(encoding="utf-8")
    assert not re.search(r"\bnan\b", re.sub(r"base64,[\w+/=]*", "", page), re.IGNORECASE)


def test_synthetic_runs_say_so(run):
    meta = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**meta, "synthetic": True}))
    result = evaluate(run)
    assert result.synthetic and "say nothing about people" in result.numbers["note"]


def test_what_is_no_run_is_answered(run, tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        evaluate(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="finished run"):
        evaluate(tmp_path / "empty")
    other = predictions(names=("a", *NASTY[1:]))
    write_predictions(run / "baselines" / "median.csv", other)
    with pytest.raises(DataError, match="does not predict the same videos"):
        evaluate(run)
    shutil.rmtree(run / "baselines")
    for text, sentence in (
        ("video,subject,fold,age,predicted\n", "no predictions"),
        ("video,subject,age,predicted\nv,s,1,2\n", "lacks the column fold"),
        ("video,subject,fold,age,predicted\nv,s,0,x,2\n", "not a number"),
        ("video,subject,fold,age,predicted\nv,s,0,nan,2\n", "no finite number as age"),
        ("video,subject,fold,age,predicted\nv,s,0,1,2\nv,s,1,1,2\n", "predicted twice"),
    ):
        (run / "predictions.csv").write_text(text)
        with pytest.raises(DataError, match=sentence):
            evaluate(run)


@pytest.mark.parametrize("length", [1, 5, 40])
@pytest.mark.parametrize("maps", [True, False])
def test_clip_figure_draws_hostile_names(tmp_path, length, maps):
    rng, config = np.random.default_rng(0), SIAMConfig()
    frames = rng.integers(0, 255, (length, 114, 114), dtype=np.uint8)
    prediction = Prediction(33.0, np.full(length, 1 / length), rng.random((length, 10, 10)) if maps else None)
    path = tmp_path / "f.png"
    save_figure(
        clip_figure(
            frames, prediction, config, np.arange(length) / 25, f"{NASTY[1]} {NASTY[5]} \x1b[31m", "$x^^$"
        ),
        path,
    )
    image = Image.open(path)
    assert image.width > 200
    assert path.stat().st_mode & 0o077 == 0
