"""Runs and models from elsewhere: damaged, absurd, or made to do harm. Each is refused with a sentence, and nothing of
it is executed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nemo_pipeline.errors import DataError, OutputError, RunError
from siam_model import load
from siam_model.evaluate import evaluate
from siam_model.predictions import read_predictions
from siam_model.protocol.crossval import join_folds
from siam_model.protocol.search import Trial, _read_trials, _write_trials
from siam_model.reports.inputs import EvaluateRequest
from siam_model.reports.source import open_run
from siam_model.run_folder import RunFolder, read_json
from siam_model.sums import FILE, changed_files, write_sums
from siam_model.training.records import EpochRecord
from siam_model.training.resume import load_state, read_checkpoint
from tests.support.fits import go
from tests.support.models import faces, write_model
from tests.support.siam_faces import drawn_file
from tests.support.siam_runs import Stop, quick, resume


class Payload:
    """What a hostile file would do: write another one."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return drawn_file(tmp_path_factory.mktemp("data") / "out.h5", size=62, subjects=8, frames=6, clips=1)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    return quick(data, tmp_path_factory.mktemp("runs") / "whole", folds=2, epochs=1)


@pytest.fixture
def run(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


# ---- models


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("model", "recurrent_layers"), 10**9, "recurrent_layers"),
        (("model", "hidden"), 10**12, "does not hold the weights"),
        (("model", "channels"), [10**15, 1, 1], "does not hold the weights"),
        (("model", "face_size"), 10**12, "does not hold the weights"),
        (("normalisation", "deviation"), 0, "deviation"),
        (("normalisation", "mean"), float("nan"), "mean"),
        (("ages",), {"min": 3.0, "max": 70.0}, "ages lacks median"),
        (("subjects",), {"training": []}, "subjects lacks validation"),
        (("triangles",), [[0, 1, 68]], "triangles"),
        (("triangles",), [[0, 1, 10**30]], "damaged"),
        (("mean_shape",), [[float("inf")] * 2] * 68, "mean_shape"),
        (("format_version",), float("inf"), "damaged"),
        (("synthetic",), "no", "synthetic"),
    ],
)
def test_a_card_with_absurd_values(tmp_path, place, value, said):
    write_model(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    values = json.loads(path.read_text())
    inner = values[place[0]] if len(place) > 1 else values
    inner[place[-1]] = value
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match=said):
        load(tmp_path)


def test_a_card_of_another_kind(tmp_path):
    write_model(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="larger than 32 MB"):
        load(tmp_path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="holds no model"):
        load(tmp_path)
    (tmp_path / "run.json").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="a device or a pipe"):
        read_json(tmp_path / "run.json")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "predictions.csv")
        with pytest.raises(DataError, match="a device or a pipe"):
            read_predictions(tmp_path / "predictions.csv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_weights_that_are_a_pipe_are_not_waited_for(tmp_path):
    write_model(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="a device or a pipe"):
        load(tmp_path)


def test_weights_that_are_not_those_of_the_card(tmp_path):
    write_model(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    good, tensors = path.read_bytes(), load_file(path)
    length = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + length])

    def refused(said: str) -> None:
        with pytest.raises(DataError, match=said):
            load(tmp_path)

    for claimed in (1 << 31, 1 << 62, 0):  # a header of gigabytes
        path.write_bytes(claimed.to_bytes(8, "little") + good[8:])
        refused("does not hold the weights")
    overlapping = {name: {**entry, "data_offsets": [0, 4]} for name, entry in header.items()}
    text = json.dumps(overlapping).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + good[8 + length :])
    refused("does not hold the weights")
    save_file({name: t.to(torch.float64) for name, t in tensors.items()}, path)
    refused("F64.* and it needs .*F32")
    save_file({**tensors, "more": torch.zeros(1)}, path)
    refused("more is .* and it needs none")
    name = next(iter(tensors))
    save_file({**tensors, name: torch.full_like(tensors[name], float("nan"))}, path)
    refused(f"{name} holds values that are not finite numbers")
    with path.open("wb") as file:  # terabytes, and none of them on the disk
        big = json.dumps(
            {name: {"dtype": "F32", "shape": [1 << 20, 1 << 18], "data_offsets": [0, 1 << 40]}}
        ).encode()
        file.write(len(big).to_bytes(8, "little") + big)
        file.truncate(8 + len(big) + (1 << 40))
    refused("does not hold the weights")
    flipped = bytearray(good)
    flipped[-2] ^= 0x20
    path.write_bytes(flipped)
    refused(rf"not as it was written: its {FILE} does not fit model\.safetensors")
    path.write_bytes(pickle.dumps(Payload(tmp_path / "mark")))
    refused("does not hold the weights")
    assert not (tmp_path / "mark").exists()
    path.write_bytes(good)
    (tmp_path / "model" / FILE).unlink()  # of an earlier version
    assert load(tmp_path).predict(faces(3)).age


# ---- checkpoints


def test_a_checkpoint_runs_nothing_and_unpacks_nothing(data, tmp_path):
    path, mark = tmp_path / "checkpoint.pt", tmp_path / "mark"
    values = {"format": "nemo-checkpoint", "format_version": 1, "fingerprint": {}, "history": []}
    for new in (True, False):
        torch.save({**values, "epoch": Payload(mark)}, path, _use_new_zipfile_serialization=new)
        with pytest.raises(DataError, match="damaged or no checkpoint"):
            load_state(path, {})
    path.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(DataError, match="damaged or no checkpoint"):
        load_state(path, {})
    torch.save({**values, "epoch": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in old.infolist():
            data_of = bytes(1 << 22) if entry.filename.endswith("/data/0") else old.read(entry)
            bomb.writestr(entry.filename, data_of)
    with pytest.raises(DataError, match="not stored as torch stores it"):
        load_state(tmp_path / "bomb", {})
    assert not mark.exists()
    for version in ("2", None, 99):
        torch.save({**values, "format_version": version}, path)
        with pytest.raises(DataError, match="newer version"):
            load_state(path, {})


@pytest.mark.parametrize("finished", [False, True])
def test_a_checkpoint_with_other_parts_is_damaged(data, tmp_path, finished):
    path, train = tmp_path / "checkpoint.pt", {"epochs": 2}

    def cut(record: EpochRecord) -> None:
        if record.epoch == 1 + finished:
            raise Stop

    with pytest.raises(Stop):
        go(data, path, rows=(5, 8), train=train, on_epoch=cut)
    values = {**read_checkpoint(path), "format": "nemo-checkpoint", "format_version": 1}
    name = next(iter(values["model"]))
    wrong: list[dict[str, Any]] = [
        {"best_state": {**values["best_state"], name: torch.zeros(3)}},
        {"history": [{"epoch": 1}]},
        {"epoch": "1"},
        {"fingerprint": 3},
    ]
    if not finished:  # else not looked at any more
        wrong += [
            {"model": {}},
            {"optimiser": {}},
            {"optimiser": {"state": {}, "param_groups": [{}]}},
            {"random": [{}]},
        ]
    for change in wrong:
        torch.save({**values, **change}, path)
        with pytest.raises(DataError, match=r"checkpoint\.pt (is damaged|belongs to another).*remove it"):
            go(data, path, rows=(5, 8), train=train)


# ---- runs


def test_what_changed_since_training_is_said(run, data, tmp_path):
    assert not any(changed_files(folder) for folder in (run, run / "model", *(run / "folds").iterdir()))
    text = (run / "predictions.csv").read_text()
    first = read_predictions(run / "predictions.csv").predicted[0]
    (run / "predictions.csv").write_text(text.replace(repr(float(first)), "99.5"))
    with pytest.warns(
        UserWarning, match=r"not as the training wrote it: its SHA256SUMS does not fit predictions\.csv"
    ):
        assert open_run(RunFolder(run)).note
    with pytest.warns(UserWarning, match="SHA256SUMS"):
        evaluate(run, tmp_path / "out", request=EvaluateRequest(data=data, quick=True, faces=False))
    assert "SHA256SUMS does not fit predictions.csv" in (tmp_path / "out" / "report.html").read_text()
    fold = RunFolder(run).fold(0).path
    for name in ("predictions.csv", "model/model.safetensors"):
        good = (fold / name).read_bytes()
        at = good.rindex(b"1") if name.endswith("csv") else len(good) - 2
        (fold / name).write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(DataError, match="not as it was written"):
            join_folds(RunFolder(run))
        (fold / name).write_bytes(good)
    join_folds(RunFolder(run))


def test_a_header_that_lost_a_column(run):
    """So that its rows have one cell more than it names."""
    path = run / "predictions.csv"
    path.write_text(path.read_text().replace("subject,fold", "subjecd", 1))
    with pytest.raises(DataError, match="lacks the column subject"):
        read_predictions(path)


@pytest.mark.parametrize(("key", "value"), [("dataset", "x"), ("model", [1]), ("data", 3), ("folds", "2")])
def test_a_run_json_of_other_types(run, key, value):
    values = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**values, key: value}))
    with pytest.raises(DataError, match=rf"run\.json is damaged: {key} is .*copy the run again"):
        open_run(RunFolder(run))


def test_a_list_of_sums_that_is_damaged_or_hostile(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    write_sums(tmp_path)
    good = (tmp_path / FILE).read_text()
    assert good.split() == [hashlib.sha256(b"{}").hexdigest(), "run.json"]
    for text in (good[:-3], "x", f"{'0' * 64}  ../secret\n", f"{'0' * 64}  /etc/passwd\n", "\ud83d" * 9):
        (tmp_path / FILE).write_bytes(text.encode("utf-8", "surrogatepass"))
        assert changed_files(tmp_path) in ([FILE], ["run.js"]), text
    (tmp_path / FILE).write_text(good)
    with (tmp_path / "run.json").open("r+b") as file:  # terabytes of nothing
        file.truncate(1 << 42)
    assert changed_files(tmp_path) == ["run.json"]


def test_a_split_that_leaves_somebody_out(run):
    (run / "run.json").unlink()
    values = json.loads((run / "split.json").read_text())
    gone = values["folds"][1]["training"].pop()
    (run / "split.json").write_text(json.dumps(values))
    with pytest.raises(RunError, match=f"has the subject {gone} in no part of fold 1"):
        resume(run, device="cpu")


def test_settings_that_changed_meanwhile(run):
    (run / "run.json").unlink()
    text = (run / "settings.json").read_text()
    (run / "settings.json").write_text(text.replace('"seed": 0', '"seed": 4'))
    with pytest.raises(DataError, match=r"SHA256SUMS does not fit settings\.json; copy it again"):
        resume(run, device="cpu")


def test_trials_whose_errors_changed(tmp_path):
    order = [{"train.l2": 0.1}, {"train.l2": 0.2}]
    done = [Trial(order[0], [7.5, 7.25], 1.0, False), Trial(order[1], [8.5], 1.0, False)]
    path = tmp_path / "trials.json"
    _write_trials(path, done)
    assert _read_trials(path, order) == done
    path.write_text(path.read_text().replace("8.5", "1.5"))
    with pytest.raises(DataError, match="damaged or of another search"):
        _read_trials(path, order)


def test_links_are_read_and_never_trained_into(run, data, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (run / "model").rename(elsewhere)
    (run / "model").symlink_to(elsewhere)
    assert load(run).card.subjects["training"]
    before = {path: path.stat().st_mtime_ns for path in elsewhere.iterdir()}
    (run / "run.json").unlink()
    with pytest.raises(OutputError, match=r"model is a link to another folder"):
        resume(run, device="cpu")
    (run / "model").unlink()
    mine = tmp_path / "mine" / "000"
    mine.mkdir(parents=True)
    (mine / "thesis.tex").write_text("mine")
    shutil.rmtree(run / "folds" / "01")
    (run / "folds" / "01").mkdir()
    (run / "folds" / "01" / "trials").symlink_to(mine.parent)
    with pytest.raises(OutputError, match=r"trials is a link to another folder"):
        resume(run, device="cpu")
    assert (mine / "thesis.tex").read_text() == "mine"
    assert {path: path.stat().st_mtime_ns for path in elsewhere.iterdir()} == before
    (run / "evaluation").symlink_to(mine.parent)
    with pytest.raises(OutputError, match=r"evaluation is a link .*`out`"):
        evaluate(run, request=EvaluateRequest(data=data, quick=True))
