"""Files of the first version of the formats (tests/data/v1) are opened, verified, resumed, evaluated, labelled, packed
and used for prediction."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from nemo_cli.main import main
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.pack import pack
from nemo_pipeline.store.sealed import seal
from nemo_pipeline.store.verify import verify
from siam_model.evaluate import evaluate
from siam_model.loading import load
from siam_model.predictions import read_predictions
from siam_model.run_folder import read_json
from tests.support.paths import V1

HERE = V1
EXPECTED = json.loads((HERE / "expected.json").read_text())


@pytest.fixture(scope="module")
def v1(tmp_path_factory) -> Path:
    """A copy for the tests that only read it."""
    return shutil.copytree(HERE, tmp_path_factory.mktemp("v1") / "v1")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A copy to change, and the current folder."""
    shutil.copytree(HERE, tmp_path / "v1")
    monkeypatch.chdir(tmp_path / "v1")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "v1"


def nemo(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(main, [os.fspath(w) if isinstance(w, Path) else str(w) for w in words])
    assert done.exit_code == code, done.output
    return done.output


def errors(path: Path) -> list[str]:
    return [f"{f.where}: {f.text}" for f in verify(path) if f.level == "error"]


def check_contents(path: Path, **changed: object) -> FaceDataset:
    data = FaceDataset(path)
    for name, values in (EXPECTED["videos"] | changed).items():
        assert np.asarray(data.videos[name]).tolist() == values, name
    for name in data.fields:
        arrays = [video.read(name) for video in data.values()]
        total = sum(float(np.nansum(array, dtype=np.float64)) for array in arrays)
        assert total == pytest.approx(EXPECTED["sums"][name], rel=1e-9), name
    assert data.synthetic
    return data


def made_by_version_1_of_the_method(path: Path) -> None:
    """An index and its shards say that an earlier version of the method made their numbers."""
    for each in (path, *path.with_suffix(".shards").glob("*.h5")):
        with h5py.File(each, "r+") as file:
            config = PrepConfig.from_dict(json.loads(file.attrs["config"]) | {"algorithm": 1})
            file.attrs["config"] = json.dumps(config.to_dict(), sort_keys=True)
            file.attrs["fingerprint"] = config.fingerprint()
            file.attrs["algorithm"] = 1
            seal(file)


def test_opened_and_verified(v1):
    assert len(check_contents(v1 / "out.h5")) == 6
    assert errors(v1 / "out.h5") == []
    assert "algorithm: 2" in nemo("info", v1 / "out.h5")


def test_prepared_again_with_what_is_missing(place):
    shutil.copy("clips/001_posed_smile_1.mp4", "clips/008.mp4")
    with Path("clips/008.mp4").open("ab") as file:
        file.write(bytes(8))
    nemo("prep", "clips", "out.h5", "--size", 20, "--no-mesh", "--workers", 1)
    data = FaceDataset(place / "out.h5")
    assert len(data) == 7 and errors(data.path) == []
    for video, age in zip(EXPECTED["videos"]["id"], EXPECTED["videos"]["age"], strict=True):
        assert data[video].age == age


def test_packed(v1, tmp_path):
    one = pack(v1 / "out.h5", tmp_path / "one.h5", compression=4)
    check_contents(one)
    assert errors(one) == []


def test_labelled(place):
    (place / "new.csv").write_text("video,age\n003_posed_smile_1,33\n")
    nemo("label", "out.h5", "new.csv")
    ages = list(EXPECTED["videos"]["age"])
    ages[2] = 33.0
    check_contents(place / "out.h5", age=ages)
    assert errors(place / "out.h5") == []


def test_prepared_again_without_a_mixture(place):
    words = ("--size", 20, "--no-mesh", "--workers", 1)
    made_by_version_1_of_the_method(place / "out.h5")
    said = nemo("prep", "clips", "out.h5", *words)  # every clip is in it: nothing is done again
    assert "by version 1 of the method and stays so" in said
    check_contents(place / "out.h5")
    assert errors(place / "out.h5") == []
    shutil.copy("clips/001_posed_smile_1.mp4", "clips/008.mp4")
    with Path("clips/008.mp4").open("ab") as file:
        file.write(bytes(8))
    said = nemo("prep", "clips", "out.h5", *words, code=1)
    assert "was prepared by version 1 of the method" in said and "--force" in said
    check_contents(place / "out.h5")


def test_labels_of_a_video_that_left_come_back(place):
    from nemo_pipeline.batch.assemble import recall_labels

    assert recall_labels(place / "out.shards").of("007_posed_smile_1.mp4", "", 0)["age"] == 45.0


def test_training_goes_on(place):
    nemo("train", "out.h5", "--resume", "-o", "run", "--device", "cpu", "--quiet")
    found = read_predictions(place / "run" / "predictions.csv")
    expected = EXPECTED["predictions"]["made/run/predictions.csv"]
    assert dict(zip(found.video, found.predicted, strict=True)) == pytest.approx(expected, abs=0.01)


def test_evaluated(v1, tmp_path):
    result = evaluate(v1 / "held", tmp_path / "evaluation")
    ages = dict(zip(EXPECTED["videos"]["id"], EXPECTED["videos"]["age"], strict=True))
    errors = [
        abs(age - ages[video]) for video, age in EXPECTED["predictions"]["held/predictions.csv"].items()
    ]
    assert result.numbers["methods"]["SIAM"]["mae"] == pytest.approx(np.mean(errors), abs=1e-6)


def test_study_goes_on(place):
    assert "conv_recurrent_spatial" in nemo("evaluate", "study", "--data", "out.h5", "--quick")
    nemo("train", "out.h5", "--resume", "-o", "study", "--device", "cpu", "--quiet")
    assert "provisional" not in read_json(place / "study" / "full" / "run.json")


def test_predicted(place):
    model, data = load(place / "held", "cpu"), FaceDataset(place / "out.h5")
    for video, expected in EXPECTED["predictions"]["held/predictions.csv"].items():
        assert model.predict(data[video].frames).age == pytest.approx(expected, abs=0.01)
    assert "synthetic" in nemo("predict", "clips/001_posed_smile_1.mp4", "--model", "held")
