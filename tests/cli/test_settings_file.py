"""`--config` and `--like`: settings from a file, a run or a prepared file, each checked by its option."""

from __future__ import annotations

import json
import tomllib

import pytest

from nemo_cli.train import command as train
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.toml import to_toml
from siam_model.protocol.settings import read_settings
from tests.support.commands import invoke
from tests.support.siam_faces import drawn_file
from tests.support.siam_runs import TINY


@pytest.fixture
def faces(tmp_path):
    return drawn_file(tmp_path / "faces.h5", synthetic=True, subjects=8, frames=6, size=70)


def test_toml_comes_back():
    values = {
        "a": 1, "b": 0.1, "c": True, "d": 'q"\\\n\x7f ü', "e": ["x", 2], "set": {"model.hidden": "7", "k k": 1e-9},
        "f": None,
    }  # fmt: skip
    back = tomllib.loads(to_toml("train", values))["train"]
    assert back == {name: value for name, value in values.items() if value is not None}


def test_a_run_is_repeated_by_its_settings(faces, tmp_path):
    sets = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    invoke(
        "train", faces, "--out", tmp_path / "a", "--preset", "small", "--epochs", "1", "--seed", "3", *sets
    )
    first = read_settings(tmp_path / "a")[0]
    written = tomllib.loads((tmp_path / "a" / "settings.toml").read_text())["train"]
    assert written["seed"] == 3 and written["set"] == TINY
    invoke("train", "--like", tmp_path / "a", "--out", tmp_path / "b")
    invoke("train", faces, "--config", tmp_path / "a" / "settings.toml", "--out", tmp_path / "c")
    assert read_settings(tmp_path / "b")[0] == read_settings(tmp_path / "c")[0] == first
    predictions = [(tmp_path / run / "predictions.csv").read_bytes() for run in "abc"]
    assert predictions[0] == predictions[1] == predictions[2]
    # the command line comes first, field by field
    invoke(
        "train", "--like", tmp_path / "a", "--out", tmp_path / "d", "--seed", "4", "--set", "model.hidden=9"
    )
    other = read_settings(tmp_path / "d")[0]
    assert other.seed == 4 and other.overrides == {**TINY, "model.hidden": "9"}


def test_a_file_is_made_like_another(clips, tmp_path):
    words = (
        "--size",
        "40",
        "--margin",
        "0.1",
        "--smooth",
        "none",
        "--max-gap",
        "0.3",
        "--no-mesh",
        "--quiet",
    )
    invoke("prep", clips, tmp_path / "a.h5", *words)
    invoke("prep", clips / "clip0.mp4", tmp_path / "b.h5", "--like", tmp_path / "a.h5", "--quiet")
    (tmp_path / "lab.toml").write_text(
        '[prep]\nsize = 40\nmargin = 0.1\nsmooth = "none"\nmax-gap = 0.3\nno-mesh = true\n[train]\nfolds = 3\n'
    )
    invoke("prep", clips / "clip0.mp4", tmp_path / "c.h5", "--config", tmp_path / "lab.toml", "--quiet")
    configs = [FaceDataset(tmp_path / f"{name}.h5").config for name in "abc"]
    assert configs[0] == configs[1] == configs[2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[train]\nfold = 3\n", "folds"),
        ("[train]\nfolds = 1\n", "folds"),
        ('[train]\nfolds = "many"\n', "folds"),
        ("[train]\nfolds = true\n", "a text or a number"),
        ("[train]\ntensorboard = 1\n", "true or false"),
        ('[train]\nset = ["model.hidden=3"]\n', "set is a table"),
        ("[train]\nset = { model.hidden = 3 }\n", '"model.hidden"'),
        ('[train]\nset = { "model.hiden" = 3 }\n', "model.hidden"),
        ("folds = 3\n", "[train]"),
        ("[trian]\n", "[train]"),
        ("[train\n", "not TOML"),
        ("[train]\nout = 'x'\n", "no setting 'out'"),
    ],
)
def test_what_a_settings_file_cannot_say(faces, tmp_path, text, said):
    (tmp_path / "lab.toml").write_text(text)
    code = 1 if said in ("[train]", "not TOML", "model.hidden") else 2
    done = invoke("train", faces, "--config", tmp_path / "lab.toml", "--out", tmp_path / "run", code=code)
    assert said in done.stderr and not (tmp_path / "run").exists()


def test_every_option_of_train_is_read_or_left_out():
    written = {
        "preset",
        "seed",
        "epochs",
        "folds",
        "trials",
        "study",
        "precision",
        "distinct-subjects",
        "set",
    }
    names = {
        name.removeprefix("--") for option in train.params for name in option.opts if name.startswith("--")
    }
    assert written <= names
    json.dumps(sorted(written))
