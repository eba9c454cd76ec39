"""The complete pipeline once, at its smallest: synth, prep, train, evaluate, predict on held-out subjects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nemo_cli.demo import unseen_subjects
from nemo_pipeline.errors import SettingsError
from tests.support.commands import invoke

SPLIT = {"training": ["001", "002"], "validation": ["003"], "test": ["004", "005"]}


def nemo(*words, code=0):
    """(standard output, standard error) of `nemo`."""
    done = invoke(*words, code=code)
    return done.stdout, done.stderr


def test_demo_end_to_end(tmp_path):
    folder = tmp_path / "demo"
    out, err = nemo(
        "demo", "--dir", folder, "--subjects", 8, "--clips", 1, "--size", "160x160", "--epochs", 1, "--json"
    )
    result = json.loads(out)
    assert result["synthetic"] is True
    assert "say nothing about people" in result["note"]
    for path in result["written"].values():
        assert Path(path).exists()
    split = json.loads((folder / "run" / "split.json").read_text())
    trained = {*split["training"], *split["validation"]}
    shown = {line["subject"] for line in result["shown"]}
    assert shown == set(split["test"]) and not shown & trained
    for line in result["shown"]:
        assert 0 <= line["predicted"] <= 120
        assert line["median"] == result["shown"][0]["median"]
    assert "Synthetic faces" in err and "true age" in err
    assert json.loads((folder / "run" / "model" / "config.json").read_text())["synthetic"] is True

    # Somebody who was trained on is not shown, and nothing is trained for nothing but once more on what is
    # there.
    _, err = nemo(
        "demo", "--dir", folder, "--subjects", 8, "--clips", 1, "--size", "160x160", "--epochs", 1,
        "--show", sorted(trained)[0], code=1,
    )  # fmt: skip
    assert "was used in training" in err


def test_only_people_held_out_are_shown():
    assert unseen_subjects(SPLIT) == ["004", "005"]
    assert unseen_subjects(SPLIT, ["005"]) == ["005"]
    with pytest.raises(SettingsError, match=r"001 was used in training.*004, 005"):
        unseen_subjects(SPLIT, ["004", "001"])
    with pytest.raises(SettingsError, match="003"):
        unseen_subjects(SPLIT, ["003"])
    with pytest.raises(SettingsError, match="009"):
        unseen_subjects(SPLIT, ["009"])
    with pytest.raises(SettingsError, match="nobody to show"):
        unseen_subjects({"training": ["001"], "validation": [], "test": ["001"]})


def test_demo_leaves_a_foreign_folder_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    _, err = nemo("demo", "--dir", tmp_path, code=1)
    assert "not empty" in err and "--dir" in err
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_synth_says_what_it_wrote(tmp_path):
    out, err = nemo(
        "synth", tmp_path / "set", "--subjects", 1, "--clips", 1, "--size", "96x96", "--seed", 2, "--json"
    )
    result = json.loads(out)
    assert result["synthetic"] is True and len(result["clips"]) == 1
    assert "labels.csv" in err and "truth.h5" in err
    _, err = nemo("synth", tmp_path / "set", "--seed", 3, code=1)
    assert "other settings" in err
    _, err = nemo("synth", tmp_path / "new", "--size", "big", code=2)
    assert "1920x1080" in err
