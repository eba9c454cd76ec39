"""Studies: the variants that a table of the paper needs, on shared folds, cut off and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nemo_pipeline.errors import NemoError, RunError, SettingsError
from nemo_pipeline.store import write_dataset
from siam_model import load
from siam_model.predictions import read_predictions
from siam_model.protocol.overrides import configure
from siam_model.run_folder import RunFolder
from siam_model.runs import newest_unfinished
from siam_model.study import STUDIES, variants_in
from tests.support.siam_faces import drawn_file, drawn_videos
from tests.support.siam_runs import TINY, Listener, Stop, results, resume, train


def studied(data: Path, out: Path, study: str = "modules", **options) -> Path:
    options = {"preset": "small", "epochs": 1, "folds": 2, "device": "cpu", "overrides": TINY, **options}
    return train(data, out, study=study, **options)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return drawn_file(tmp_path_factory.mktemp("drawn") / "out.h5", size=70, subjects=9, frames=5)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    return studied(data, tmp_path_factory.mktemp("studies") / "whole")


def test_variants_are_the_papers():
    for study, field, values in (
        ("mechanisms", "attention_mechanism", ["indexed", "agnostic", "full", "mediate"]),
        ("positions", "attention_position", [1, 2, 3, 0]),
    ):
        models = [configure("paper", variant.overrides)[0] for variant in STUDIES[study]]
        assert [getattr(model, field) for model in models] == values
        assert all(model.recurrent and model.temporal_attention for model in models)
    built = [configure("paper", variant.overrides)[0] for variant in STUDIES["modules"]]
    modules = [(m.recurrent, m.attention_position, m.temporal_attention) for m in built]
    assert modules == [(False, 0, False), (True, 0, False), (True, 2, False), (True, 2, True)]
    assert [v.name for v in STUDIES["positions"]] == ["conv1", "conv2", "conv3", "none"]
    names = ["conv", "conv_recurrent", "conv_recurrent_spatial", "full"]
    assert [v.name for v in STUDIES["modules"]] == names


def test_layout_of_a_study(whole, data):
    values = json.loads((whole / "study.json").read_text())
    assert values["study"] == "modules" and values["data"] == str(data.resolve())
    names = [line["name"] for line in values["variants"]]
    assert names == ["conv", "conv_recurrent", "conv_recurrent_spatial", "full"]
    shared = json.loads((whole / "split.json").read_text())
    videos = set()
    for variant in variants_in(RunFolder(whole)):
        run = whole / variant.name
        assert json.loads((run / "split.json").read_text())["folds"] == shared["folds"]
        assert RunFolder(run).is_finished()
        videos.add(read_predictions(run / "predictions.csv").video)
        assert load(run).config.recurrent == (variant.name != "conv")
    assert len(videos) == 1
    assert RunFolder(whole).is_finished()
    for file in whole.rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, f"{file} can be read by others"


def test_cut_off_and_resumed_it_is_the_same(whole, data, tmp_path):
    for stop_at in (4, 3):
        with pytest.raises(Stop):
            if stop_at == 4:
                studied(data, tmp_path / "s", reporter=Listener(stop_at=stop_at))
            else:
                resume(tmp_path / "s", device="cpu", reporter=Listener(stop_at=stop_at))
        assert newest_unfinished(tmp_path) == tmp_path / "s"
    listener = Listener()
    resume(tmp_path / "s", device="cpu", reporter=listener)
    assert {where.variant for where, _ in listener.epochs} <= {v.name for v in STUDIES["modules"][1:]}
    for variant in variants_in(RunFolder(whole)):
        assert results(tmp_path / "s" / variant.name) == results(whole / variant.name)
    with pytest.raises(RunError, match="is finished, and nothing is left to do"):
        resume(tmp_path / "s")


def test_several_processes_give_the_same(whole, data, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    listener = Listener()
    study = studied(data, tmp_path / "s", jobs=2, reporter=listener)
    for variant in variants_in(RunFolder(whole)):
        assert results(study / variant.name) == results(whole / variant.name)
    assert "conv, fold 1" in {str(where) for where, _ in listener.epochs}


def test_array_jobs_of_a_study(whole, data, tmp_path):
    for fold in (1, 0):
        studied(data, tmp_path / "s", fold=fold)
    assert (
        not RunFolder(tmp_path / "s" / "full").missing_folds(2)
        and not RunFolder(tmp_path / "s").is_finished()
    )
    resume(tmp_path / "s", device="cpu")
    for variant in variants_in(RunFolder(whole)):
        assert results(tmp_path / "s" / variant.name) == results(whole / variant.name)


def test_a_variant_is_an_ordinary_run(whole, data, tmp_path):
    """One of them can be resumed alone, on the folds of the study."""
    with pytest.raises(Stop):
        studied(data, tmp_path / "s", reporter=Listener(stop_at=2))
    resume(tmp_path / "s" / "conv", device="cpu")
    assert results(tmp_path / "s" / "conv") == results(whole / "conv")


def test_trials_and_no_folds(data, tmp_path):
    study = studied(data, tmp_path / "s", study="mechanisms", folds=None, trials=2)
    for variant in variants_in(RunFolder(study)):
        assert json.loads((study / variant.name / "choice.json").read_text())["budget"] == 2
        assert load(study / variant.name).config.attention_mechanism == variant.name


def conditions(path: Path, few: int = 0) -> Path:
    """Nine people with a posed and a spontaneous smile each, some of whom show disgust too, posed."""
    videos = []
    for i, video in enumerate(drawn_videos(9, 3, 5, size=70)):
        kind = i % 3
        if kind == 2 and i // 3 < few:
            continue
        labels = [("smile", "posed"), ("smile", "spontaneous"), ("disgust", "posed")][kind]
        videos.append({**video, "expression": labels[0], "condition": labels[1]})
    return write_dataset(path, videos)


def test_conditions_are_separate_models_on_shared_folds(tmp_path):
    study = studied(conditions(tmp_path / "out.h5"), tmp_path / "s", study="conditions")
    names = [v.name for v in variants_in(RunFolder(study))]
    assert names == ["disgust_posed", "smile_posed", "smile_spontaneous", "all"]
    shared = json.loads((study / "split.json").read_text())["folds"]
    folds = {subject: line["fold"] for line in shared for subject in line["test"]}
    for name in names:
        predictions = read_predictions(study / name / "predictions.csv")
        assert len(predictions) == (27 if name == "all" else 9)
        for subject, fold in zip(predictions.subject, predictions.fold, strict=True):
            assert folds[subject] == fold
    assert json.loads((study / "smile_posed" / "run.json").read_text())["subset"] == {
        "expression": "smile",
        "condition": "posed",
    }
    labels = {v.name: v.label for v in variants_in(RunFolder(study))}
    assert labels["smile_spontaneous"] == "spontaneous smile"


def test_a_condition_of_too_few_people_is_left_out(tmp_path):
    listener = Listener()
    study = studied(
        conditions(tmp_path / "out.h5", few=8), tmp_path / "s", study="conditions", reporter=listener
    )
    assert [v.name for v in variants_in(RunFolder(study))] == ["smile_posed", "smile_spontaneous", "all"]
    assert any(
        text.startswith("disgust_posed: left out: Of this part of the file no subject")
        for text in listener.said
    )


def test_what_cannot_be_studied_is_answered(data, whole, tmp_path):
    for options, sentence in (
        ({"study": "colours"}, "no study 'colours'; there are mechanisms, positions"),
        ({"study": "conditions"}, "does not name two expressions or conditions"),
        (
            {"overrides": {**TINY, "model.recurrent": "yes"}},
            r"`model\.recurrent` cannot be combined with `study=modules`",
        ),
        ({"fold": 5}, "no fold 5: `folds=2`"),
        ({"folds": 30}, "30 folds need at least 32"),
    ):
        with pytest.raises(NemoError, match=sentence):
            studied(data, tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()
    with pytest.raises(SettingsError, match="begun with `study=modules`, not with `study=positions`"):
        resume(whole, given={"study": "positions"})
    values = json.loads((whole / "study.json").read_text())
    values["variants"][0]["folder"] = "../../elsewhere"
    (tmp_path / "study.json").write_text(json.dumps(values))
    assert all(
        Path(v.name).name == v.name for v in variants_in(RunFolder(tmp_path))
    )  # a name from a file is never a path


def test_a_variant_that_fails_does_not_stop_the_others(data, tmp_path, monkeypatch):
    from siam_model.protocol import crossval

    good = crossval.train_split

    def bad(work, split, *rest):
        if work.variant == "conv_recurrent":
            raise NemoError("The loss is not a finite number any more.")
        good(work, split, *rest)

    monkeypatch.setattr(crossval, "train_split", bad)
    with pytest.raises(
        RunError, match=r"1 of 4 variants of .* not finished, first conv_recurrent: Fold 0 of 2"
    ):
        studied(data, tmp_path / "s")
    assert [RunFolder(tmp_path / "s" / v.name).is_finished() for v in STUDIES["modules"]] == [
        True,
        False,
        True,
        True,
    ]
    monkeypatch.setattr(crossval, "train_split", good)
    assert RunFolder(resume(tmp_path / "s", device="cpu")).is_finished()


def test_equal_variants_are_equal(data, whole, tmp_path):
    """The variant `full` of two studies is one and the same model: what sets variants apart is in them alone."""
    other = studied(data, tmp_path / "s", study="mechanisms")
    a, b = (
        read_predictions(run / "predictions.csv").predicted for run in (whole / "full", other / "indexed")
    )
    np.testing.assert_array_equal(a, b)
