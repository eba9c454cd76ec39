"""Pretraining on the expression: what its targets are, whose videos they come from, and that it goes on to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_pipeline.errors import DataError
from nemo_pipeline.geometry import shipped_mean_shape
from nemo_pipeline.phases import find_phases
from nemo_pipeline.store import FaceDataset
from siam_model import SIAM, SIAMConfig
from siam_model.config import TrainConfig
from siam_model.data import Clips, ClipSample, labelled_videos, measure_normalisation
from siam_model.protocol.history import read_history
from siam_model.training.pretrain import (
    ExpressionLoss,
    FrozenClips,
    aligned,
    amplitude_in_clip,
    ramps,
    targets_of,
)
from siam_model.training.records import EpochRecord
from siam_model.training.stages import stages_of
from tests.support.fits import MODEL, curve, go, same
from tests.support.siam_faces import smiling, smiling_file
from tests.support.siam_runs import Listener, Stop, quick, results, resume

STAGED = {
    "epochs": 3, "pretrain": "expression", "pretrain_epochs": 2, "pretrain_share": 0.5, "freeze_appearance": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return smiling_file(tmp_path_factory.mktemp("smiling") / "out.h5")


def opened(path: Path, step: int = 2) -> Clips:
    dataset = FaceDataset(path)
    return Clips(dataset, labelled_videos(dataset), step)


# --- targets -----------------------------------------------------------------------------------------------------


def test_ramps_are_those_of_a_plain_loop():
    for units in (1, 2, 7, 32):
        for a in (0.0, 0.13, 0.5, 1.0):
            half = (units + 1) // 2
            up = [2 * max(a - 0.8 * i / max(1, half - 1), 0) for i in range(half)]
            rest = units - half
            down = [2 * max(1 - 0.8 * i / max(1, rest - 1) - a, 0) for i in range(rest)]
            np.testing.assert_allclose(ramps(a, units), up + down, atol=1e-6)


def test_an_amplitude_goes_from_0_to_1_within_its_clip_whoever_smiles_and_however_the_head_moves():
    points = smiling(40, np.random.default_rng(1))
    a = amplitude_in_clip(points)
    assert a.min() == 0 and a.max() == 1
    assert abs(int(a.argmax()) - 20) <= 2
    smoothed = find_phases(points, np.arange(40) / 25).amplitude
    np.testing.assert_allclose(a, (smoothed - smoothed.min()) / np.ptp(smoothed))
    still = np.repeat(points[:1], 40, axis=0)
    assert amplitude_in_clip(still) is None, "nothing moves"
    assert amplitude_in_clip(np.full((40, 68, 2), np.nan)) is None


def test_alignment_is_the_least_squares_similarity():
    from skimage.transform import SimilarityTransform

    mean, points = shipped_mean_shape(), smiling(5, np.random.default_rng(2))
    found = aligned(points, mean)
    for frame, rest in zip(points, found, strict=True):
        fit = SimilarityTransform.from_estimate(frame, mean)
        np.testing.assert_allclose(rest, (fit(frame) - mean).T.ravel(), atol=1e-9)


def test_scores_are_principal_components_of_the_training_videos(data):
    from sklearn.decomposition import PCA

    clips, rows = opened(data), np.arange(10)
    targets = targets_of(clips, rows, TrainConfig(pretrain="shape"), 8)
    mean = clips.dataset.mean_shape
    shapes = [aligned(clips.dataset[int(clips.table.index[r])].landmarks, mean) for r in rows]
    whole = np.concatenate(shapes)
    scores = np.concatenate([targets.values[r] for r in rows])
    assert scores.shape == (len(whole), 4)
    # Videos differ by a frame in length, and count alike; PCA counts frames alike.
    theirs = PCA(4).fit(whole).transform(whole)
    for mine, other in zip(scores.T[:2], theirs.T[:2], strict=True):
        assert abs(np.corrcoef(mine, other)[0, 1]) > 0.95
    batch = targets.of([ClipSample(0, 1), ClipSample(3, 0)], 2)
    np.testing.assert_allclose(batch[1, :4, :4] - batch[1, :4, 4:], targets.values[3][:8:2][:4], atol=1e-6)
    assert (batch >= 0).all()


def test_the_share_of_units_learns_and_the_others_are_left_alone(data):
    clips = opened(data)
    targets = targets_of(clips, np.arange(4), TrainConfig(pretrain="expression", pretrain_share=0.5), 8)
    lengths = [len(targets.values[r]) for r in range(4)]
    keys = [ClipSample(0, 0), ClipSample(1, 1)]
    target = targets.of(keys, 2)
    np.testing.assert_allclose(target[0], ramps(targets.values[0][::2], 4))
    count = -(-(lengths[1] - 1) // 2)
    assert (target[1, :count].sum(-1) > 0).all() and (target[1, count:] == 0).all(), "padding is zero"

    torch.manual_seed(0)
    model, batch = SIAM(SIAMConfig(**MODEL)).eval(), clips.__getitems__(keys)
    normalisation = measure_normalisation(clips.dataset, clips.table.index[:4])
    loss, each = ExpressionLoss(model, normalisation)(batch, target)
    with torch.no_grad():
        p, _, _ = model.features(batch.frames, batch.lengths, normalisation)
    for video, n in enumerate(batch.lengths.tolist()):
        want = np.abs(p[video, :n, :4].numpy() - target[video, :n].numpy()).mean()
        np.testing.assert_allclose(each[video].item(), want, rtol=1e-5)
    loss.backward()
    last = model.appearance.second
    assert not last.weight.grad[4:].any() and not last.bias.grad[4:].any()
    assert last.weight.grad[:4].any()


def test_without_landmarks_there_is_nothing_to_pretrain_on(tmp_path):
    path = smiling_file(tmp_path / "out.h5", landmarks=False)
    with pytest.raises(DataError, match=r"nothing to pretrain on; leave out `train\.pretrain`"):
        go(path, train=STAGED)


# --- stages ------------------------------------------------------------------------------------------------------


def test_stages_by_default_are_one_and_otherwise_follow_each_other():
    (only,) = stages_of(TrainConfig(epochs=7))
    assert (only.kind, only.start, only.end, only.learning_rate) == ("all", 0, 7, 1e-4)
    config = TrainConfig(epochs=7, pretrain="shape", pretrain_epochs=3, freeze_appearance=5)
    assert [(s.kind, s.start, s.end) for s in stages_of(config)] == [
        ("expression", -3, 0), ("frozen", 0, 5), ("all", 5, 7),
    ]  # fmt: skip
    frozen = TrainConfig(epochs=7, freeze_appearance=99)
    assert [(s.kind, s.start, s.end) for s in stages_of(frozen)] == [("frozen", 0, 7)]


@pytest.fixture(scope="module")
def staged(data):
    return go(data, train=STAGED)


def test_its_curve_is_in_the_history_and_falls(data):
    found = go(data, train={**STAGED, "pretrain_epochs": 8, "pretrain_learning_rate": 3e-3})
    before = [line for line in found.history if line.epoch < 1]
    assert [line.epoch for line in found.history] == list(range(-7, 4))
    assert all(np.isnan([line.training_mae, line.validation_mae]).all() and not line.best for line in before)
    assert before[-1].loss < 0.7 * before[0].loss
    assert all(np.isfinite(line.training_mae) for line in found.history[8:])


def test_each_stage_trains_what_it_is_for(data):
    start = SIAM(SIAMConfig(**MODEL)).state_dict()
    only = go(data, train={**STAGED, "epochs": 1, "freeze_appearance": 1}).model.state_dict()
    twice = go(data, train={**STAGED, "epochs": 2, "freeze_appearance": 2, "patience": 9}, rows=(16, 16))
    after = twice.model.state_dict()
    for name in start:
        equal = torch.equal(only[name], after[name])
        assert equal == name.startswith("appearance"), name


@pytest.mark.parametrize("after", [-1, 0, 1, 2])
def test_cut_off_in_any_stage_it_goes_on_to_the_bit(data, staged, tmp_path, after):
    path = tmp_path / "checkpoint.pt"

    def stop(line: EpochRecord) -> None:
        if line.epoch == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(data, path, train=STAGED, on_epoch=stop)
    told: list[EpochRecord] = []
    resumed = go(data, path, train=STAGED, on_epoch=told.append)
    assert [line.epoch for line in told] == list(range(after + 1, 4))
    assert same(staged, resumed)


def test_a_run_of_the_preset_dynamics_cut_off_goes_on_to_the_bit(data, tmp_path):
    """Nobody validates, clips are cut in time, all stages: as the commands do it."""
    options = {
        "preset": "dynamics",
        "epochs": 3,
        "overrides": {
            "train.freeze_appearance": "1", "train.pretrain_epochs": "1", "train.temporal_crop": "0.6",
        },
    }  # fmt: skip
    whole = quick(data, tmp_path / "whole", **options)
    assert [line.epoch for line in read_history(whole / "history.csv")] == [0, 1, 2, 3]
    for epochs in (1, 3):
        run = tmp_path / f"cut-{epochs}"
        with pytest.raises(Stop):
            quick(data, run, reporter=Listener(epochs), **options)
        resume(run, device="cpu")
        assert results(run) == results(whole)


@pytest.mark.slow  # two processes that import torch
def test_two_processes_train_the_same_in_every_stage(data):
    still = {"dropout_conv": 0.0, "dropout_recurrent": 0.0}
    alone, together = (go(data, train=STAGED, model=still, devices=n) for n in (1, 2))
    for one, other in zip(alone.history, together.history, strict=True):
        assert one.epoch == other.epoch
        np.testing.assert_allclose(
            [one.loss, one.validation_mae], [other.loss, other.validation_mae], rtol=1e-4
        )


def test_frozen_features_are_those_that_the_network_computes(data):
    """Ages by cached features are those by frames: same model, whole videos, to rounding."""
    found = go(
        data, train={**STAGED, "freeze_appearance": 3, "augment_mirror": False, "augment_brightness": 0.0}
    )
    clips = opened(data)
    network = found.model
    normalisation = measure_normalisation(clips.dataset, clips.table.index[:16])
    frozen = FrozenClips(clips, np.arange(6), network, normalisation, torch.device("cpu"))
    keys = [ClipSample(0, 0), ClipSample(5, 1), ClipSample(3, 0), ClipSample(4, 3, stop=8)]
    plain, cached = clips.__getitems__(keys), frozen.__getitems__(keys)
    assert torch.equal(plain.lengths, cached.lengths) and torch.equal(plain.age, cached.age)
    with torch.no_grad():
        want = network(plain.frames, plain.lengths, normalisation)
        got = network.regress(cached.frames, cached.lengths)
    torch.testing.assert_close(got.age, want.age)
    torch.testing.assert_close(got.temporal_weights, want.temporal_weights)


# --- leakage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pretrain", ["expression", "shape"])
def test_points_of_people_who_do_not_train_change_nothing(data, tmp_path, pretrain):
    """Rows 16 to 24 validate or are tested on. Sabotage: their points are others, and no weight is."""
    settings = {**STAGED, "pretrain": pretrain, "epochs": 1}
    whole = go(data, train=settings)
    sabotaged = smiling_file(tmp_path / "sabotaged.h5", changed=tuple(range(16, 24)))
    assert same(whole, go(sabotaged, train=settings))
    seen = smiling_file(tmp_path / "seen.h5", changed=(3,))
    other = go(seen, train=settings)
    assert curve(other.history)[0] != curve(whole.history)[0], "points of a person who trains do"


# --- centring ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centre", ["clip", "both"])
def test_centred_features_forget_what_is_constant_in_a_clip(centre):
    torch.manual_seed(0)
    model = SIAM(SIAMConfig(**{**MODEL, "centre": centre})).eval()
    p, lengths = torch.rand(2, 6, 8), torch.tensor([6, 4])
    p[1, 4:] = 0
    real = (torch.arange(6) < lengths[:, None])[..., None]
    with torch.no_grad():
        moved = model.regress((p + 5) * real, lengths).age
        as_it_is = model.regress(p, lengths).age
        alone = model.regress(p[1:, :4], lengths[1:]).age
    torch.testing.assert_close(as_it_is[1:], alone, msg="padding counts for nothing")
    assert torch.allclose(moved, as_it_is, atol=1e-4) == (centre == "clip")
    assert model.recurrence[0].input_weight.shape == (8, 16 if centre == "both" else 8)
    assert model.recurrence[1].input_weight.shape == (8, 8)


def test_centring_is_of_the_recurrence():
    with pytest.raises(ValueError, match="centre"):
        SIAMConfig(**{**MODEL, "centre": "clip", "recurrent": False, "temporal_attention": False})
