"""The compared methods in a run: the same folds and table as SIAM, resumed, and blind to the test people."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest

from nemo_pipeline.errors import SettingsError
from nemo_pipeline.store import FaceDataset, write_dataset
from siam_model.data import labelled_videos
from siam_model.methods import METHODS
from siam_model.predictions import read_predictions
from siam_model.protocol.baselines import LABELS, NAMES
from siam_model.protocol.compared import fit_method
from siam_model.protocol.open_run import read_splits
from siam_model.protocol.request import TrainRequest
from siam_model.protocol.splits import plan_splits
from siam_model.run_folder import RunFolder
from tests.support.siam_runs import Listener, resume
from tests.support.siam_smiles import smiling_file, smiling_videos, trained

COMPARED = ("vlbp", "displacement", "lbp_neutral", "cnn", "lbp_dynamics")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    data = smiling_file(folder / "smiles.h5", subjects=6, frames=16)
    listener = Listener()
    run = trained(data, folder / "run", methods=COMPARED, reporter=listener)
    # The last clip does not smile.
    (said,) = [text for text in listener.said if "onset" in text]
    assert said.startswith(
        "fold 0: 1 of 12 videos shows no onset of an expression: the first frame counts as neutral"
    )
    return data, run


def test_every_method_predicts_every_video_once_in_the_fold_of_its_subject(run):
    data, folder = run
    siam = read_predictions(folder / "predictions.csv")
    assert {file.stem for file in (folder / "baselines").iterdir()} == {*NAMES, *COMPARED}
    fold_of = {s: split.fold for split in read_splits(RunFolder(folder)) for s in split.test}
    for name in COMPARED:
        found = read_predictions(folder / "baselines" / f"{name}.csv")
        assert sorted(found.video) == sorted(siam.video) == sorted(FaceDataset(data).ids)
        assert [fold_of[s] for s in found.subject] == found.fold.tolist()
    assert RunFolder(folder).fold(0).method("cnn").has_model
    # Features lie next to the data, not in them.
    assert {file.name for file in (data.parent / "smiles.features").glob("*.npz")} == {
        "vlbp-1.npz", "displacement-1.npz", "lbp-1.npz", "deformation-1.npz"
    }  # fmt: skip


def test_a_run_goes_on_with_what_it_lacks_and_gives_the_same(run, tmp_path):
    data, folder = run
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = {file.name: file.read_bytes() for file in (copy / "baselines").iterdir()}
    kept = copy / "folds" / "01" / "baselines" / "vlbp.csv"
    stamp = kept.stat().st_mtime_ns
    for gone in ("run.json", "SHA256SUMS", "predictions.csv", "folds/01/predictions.csv", "folds/01/SHA256SUMS",
                 "folds/01/baselines/lbp_neutral.csv", "folds/01/baselines/cnn.csv"):  # fmt: skip
        (copy / gone).unlink()
    shutil.rmtree(copy / "model")
    resume(copy, data, device="cpu")
    assert {file.name: file.read_bytes() for file in (copy / "baselines").iterdir()} == before
    assert kept.stat().st_mtime_ns == stamp
    with pytest.raises(SettingsError, match="methods=vlbp,displacement"):
        resume(folder, data, given={"methods": ("vlbp",)})


@pytest.mark.parametrize("name", ["vlbp", "displacement", "ief_fusion", "lbp_dynamics"])
def test_replaced_faces_and_ages_of_the_test_people_change_nothing_that_is_learnt(name, tmp_path):
    rng = np.random.default_rng(0)
    states = []
    for sabotage in (False, True):
        videos = list(smiling_videos(subjects=6, frames=16))
        test = sorted({video["subject"] for video in videos})[:2]
        for video in videos:
            if sabotage and video["subject"] in test:
                video["frames"] = rng.integers(0, 255, video["frames"].shape).astype(np.uint8)
                video["landmarks"] = video["landmarks_raw"] = rng.normal(100, 30, video["landmarks"].shape)
                video["age"] = 99.0
            video["fold"] = 0 if video["subject"] in test else 1
        dataset = FaceDataset(write_dataset(tmp_path / f"{sabotage}.h5", videos))
        table = labelled_videos(dataset)
        split = plan_splits(table, folds=2, validation_fraction=0.2, test_fraction=0.2, seed=0)[0]
        assert sorted(split.test) == test
        method = fit_method(name, dataset, table, split)
        states.append(pickle.dumps({k: v for k, v in vars(method).items() if k != "describe"}))
    assert states[0] == states[1]


def test_requests_that_cannot_be_are_refused():
    with pytest.raises(SettingsError, match="no method 'siam'"):
        TrainRequest(methods=("siam",)).check()
    with pytest.raises(SettingsError, match="learn the same in every variant"):
        TrainRequest(methods=("vlbp",), study="modules").check()
    TrainRequest(methods=tuple(METHODS), study="conditions").check()
    assert list(LABELS)[: len(METHODS)] == list(METHODS)
