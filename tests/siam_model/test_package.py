"""A model as one file: its card, the same ages and intervals as the run, and archives that are not what they say."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

import siam_model
from nemo_pipeline.errors import DataError
from siam_model.interval import load_interval
from siam_model.package import pack_model, unpacked
from siam_model.predictions import Predictions, read_predictions, write_predictions
from siam_model.verdict import load_verdict
from tests.support.commands import invoke
from tests.support.models import faces, write_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with errors of a few years on 20 people."""
    folder = tmp_path_factory.mktemp("package") / "run"
    write_model(folder / "model", videos=["ab" * 32])
    rng = np.random.default_rng(0)
    age = rng.uniform(10, 60, 40)
    codes = tuple(f"anna-{k // 2}" for k in range(40))
    names = tuple(f"secret{k}.mp4" for k in range(40))
    p = Predictions(names, codes, np.zeros(40, int), age, age + rng.normal(0, 4, 40), names)
    write_predictions(folder / "predictions.csv", p)
    (folder / "baselines").mkdir()
    median = Predictions(names, codes, p.fold, age, np.full(40, 31.0), names)
    write_predictions(folder / "baselines" / "median.csv", median)
    return folder


def test_it_is_the_run(run, tmp_path):
    card = pack_model(run, tmp_path / "model.zip", licence="CC-BY-4.0", note="webcams only")
    with unpacked(tmp_path / "model.zip") as folder:
        assert load_interval(folder, 0.8).half_width == load_interval(run, 0.8).half_width
        assert load_verdict(folder) == load_verdict(run)
        inside = folder
    assert not inside.exists()
    frames = faces(9)
    ours, theirs = siam_model.load(run), siam_model.load(tmp_path / "model.zip")
    assert ours.predict(frames).age == theirs.predict(frames).age and theirs.videos == {"ab" * 32}
    p = read_predictions(run / "predictions.csv")
    assert card["tested_on"]["people"] == 20 and card["licence"] == "CC-BY-4.0"
    thirties = (p.age >= 30) & (p.age < 40)
    line = card["tested_on"]["by_decade"]["30-39"]
    assert line == {
        "videos": int(thirties.sum()),
        "mean_absolute_error": pytest.approx(p.error[thirties].mean()),
    }


def test_no_name_travels(run, tmp_path):
    pack_model(run, tmp_path / "a.zip")
    pack_model(run, tmp_path / "b.zip")
    data = (tmp_path / "a.zip").read_bytes()
    assert b"secret" not in data and b"anna" not in data
    assert data == (tmp_path / "b.zip").read_bytes(), "the same run gives the same bytes"


def test_the_command_and_its_card(run, tmp_path):
    done = invoke("pack-model", run, tmp_path / "model.zip", "--note", "webcams only")
    assert "20 people" in done.stdout and "webcams only" in done.stdout and "--licence" in done.stderr
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert archive.read("card.md").decode().splitlines() == done.stdout.splitlines()
    bad = tmp_path / "clip.mp4"
    bad.write_text("no video")
    said = invoke("predict", bad, "--model", tmp_path / "model.zip", "--json", code=1)
    assert json.loads(said.stdout)["model"].endswith("model.zip")
    assert "on 40 videos of 20 unseen" in said.stderr
    invoke("pack-model", run, tmp_path / "model.tar", code=2)


def _edited(source, target, name, data, compress=zipfile.ZIP_STORED):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, data if info.filename == name else old.read(info), compress)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("card.json", b"{}", "something else"),
        ("card.json", b'{"format": "nemo-model", "format_version": 9}', "newer version"),
        ("card.json", b"[" * 100_000, "is not a model"),
        ("model/model.safetensors", b"x" * 100, "does not hold the weights"),
        ("model/config.json", b"{}", "does not describe a model"),
    ],
)
def test_what_is_no_model_is_said(run, tmp_path, name, data, said):
    pack_model(run, tmp_path / "model.zip")
    _edited(tmp_path / "model.zip", tmp_path / "bad.zip", name, data)
    with pytest.raises(DataError, match=said):
        siam_model.load(tmp_path / "bad.zip")


def test_archives_that_are_none(run, tmp_path):
    (tmp_path / "text.zip").write_text("no archive")
    pack_model(run, tmp_path / "model.zip")
    whole = (tmp_path / "model.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    _edited(
        tmp_path / "model.zip",
        tmp_path / "bomb.zip",
        "model/config.json",
        b" " * (1 << 20),
        zipfile.ZIP_DEFLATED,
    )
    with zipfile.ZipFile(tmp_path / "model.zip", "a") as archive:
        archive.writestr("../outside.txt", "x")
    for name in ("text.zip", "cut.zip", "bomb.zip"):
        with pytest.raises(DataError, match="is not a model"):
            siam_model.load(tmp_path / name)
    siam_model.load(tmp_path / "model.zip")
    assert not (tmp_path.parent / "outside.txt").exists()
