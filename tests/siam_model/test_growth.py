"""What a run's JSON files may lack or have more, and what they may not: the rule of `nemo_pipeline.fields`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nemo_pipeline.errors import DataError
from siam_model.checkpoint import load_card
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.protocol.history import read_history
from siam_model.protocol.open_run import read_splits
from siam_model.protocol.settings import read_settings
from siam_model.run_folder import RunFolder
from siam_model.study import variants_in
from tests.support.paths import V1

READERS = {
    "settings.json": lambda folder: read_settings(folder),
    "split.json": lambda folder: read_splits(RunFolder(folder)),
    "study.json": lambda folder: variants_in(RunFolder(folder)),
    "model/config.json": lambda folder: load_card(folder),
}
#: File -> fields that a file of an earlier version may lack, and the value that they then have.
MISSING = {
    "settings.json": {"precision": "32", "study": None, "trials": 0, "subset": {}},
    "study.json": {},
    "split.json": {},
    "model/config.json": {"versions": {}},
}
WRONG = [
    ("settings.json", {"seed": "seven"}, "seed is 'seven'; it must be a whole number"),
    ("settings.json", {"overrides": ["x"]}, r"overrides is \['x'\]; it must be an object"),
    ("settings.json", {"data": None}, "data is None; it must be text"),
    ("settings.json", {"model": 3}, "3 is not an object"),
    ("settings.json", {"train": {"epochs": 1.5}}, "epochs is 1.5; it must be a whole number"),
    (
        "split.json",
        {"folds": [{"fold": 0, "training": "abc", "validation": [], "test": []}]},
        "training is 'abc'",
    ),
    ("study.json", {"variants": [{"folder": "a", "label": 3}]}, "label is 3; it must be text"),
    ("study.json", {"variants": [{"label": "a"}]}, "damaged"),
    ("model/config.json", {"synthetic": "no"}, "synthetic is 'no'; it must be true or false"),
    ("model/config.json", {"ages": {"median": "old"}}, "ages.median is 'old'; it must be a number"),
    ("model/config.json", {"ages": {"median": 10**400}}, "it must be a number"),
    ("settings.json", {"train": {"learning_rate": 10**400}}, "it must be a number"),
    ("model/config.json", {"normalisation": {"mean": 1.0}}, "normalisation: deviation is missing"),
    ("model/config.json", {"model": {"pools": [1, 2]}}, r"pools is \[1, 2\]; it must be a list of 3"),
    ("model/config.json", {"train": {"rmsprop_alpha": True}}, "rmsprop_alpha is True; it must be a number"),
]


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("settings.json", "split.json", "model"):
        source = V1 / "held" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    shutil.copy(V1 / "study" / "study.json", tmp_path)
    return tmp_path


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize("name", READERS)
def test_other_versions_are_read(folder, name):
    before = READERS[name](folder)
    change(folder / name, mood="fine", more={"x": [1, 2]})  # of a later version
    assert repr(READERS[name](folder)) == repr(before)
    values = json.loads((folder / name).read_text())
    for field in MISSING[name]:
        values.pop(field, None)
    (folder / name).write_text(json.dumps(values))
    found = READERS[name](folder)
    found = found[0] if name == "settings.json" else found
    assert all(getattr(found, field) == value for field, value in MISSING[name].items())


@pytest.mark.parametrize(("name", "values", "answer"), WRONG)
def test_a_value_of_the_wrong_type_is_a_sentence(folder, name, values, answer):
    change(folder / name, **values)
    with pytest.raises(DataError, match=answer):
        READERS[name](folder)


@pytest.mark.parametrize("make", [SIAMConfig, TrainConfig])
def test_settings_that_decide_about_numbers_must_be_known(make):
    values = make().to_dict()
    name = next(iter(values))
    del values[name]
    assert make.from_dict(values) == make()
    with pytest.raises(ValueError, match="unknown setting wings"):
        make.from_dict({**values, "wings": 2})


def test_a_history_of_another_version(tmp_path):
    file = tmp_path / "history.csv"
    shutil.copy(V1 / "held" / "history.csv", file)
    before = read_history(file)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0] + ",mood", *(line + ",fine" for line in lines[1:])]))
    assert read_history(file) == before
