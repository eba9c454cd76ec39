"""Training: what a run leaves behind, what follows from the seed, and every way in which it has to refuse."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_pipeline.errors import DataError, NotFinite, OutputError, SettingsError
from nemo_pipeline.store import FaceDataset, write_dataset
from siam_model import load
from siam_model.config import TrainConfig, preset
from siam_model.data import (
    Clips,
    ClipSample,
    LengthBuckets,
    batch_loader,
    labelled_videos,
    validation_order,
)
from siam_model.predictions import read_predictions
from siam_model.training.fit import EpochRecord
from tests.support.siam_faces import drawn_file, drawn_videos
from tests.support.siam_runs import TINY, quick  # noqa: F401


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return drawn_file(tmp_path_factory.mktemp("drawn") / "out.h5", size=70, subjects=14, frames=10)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    return quick(data, tmp_path_factory.mktemp("runs") / "run", seed=1)


@pytest.fixture(scope="module")
def folded(data, tmp_path_factory) -> Path:
    return quick(data, tmp_path_factory.mktemp("runs") / "folded", folds=3)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_folder_is_complete(run, data):
    dataset, split = FaceDataset(data), json.loads((run / "split.json").read_text())
    parts = [set(split[name]) for name in ("training", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 14
    predictions = read_predictions(run / "predictions.csv")
    assert set(predictions.subject) == parts[2]
    assert sorted(predictions.video) == sorted(v.id for v in dataset.values() if v.subject in parts[2])
    assert all(dataset[v].age == a for v, a in zip(predictions.video, predictions.age, strict=True))
    history = rows(run / "history.csv")
    assert [line["epoch"] for line in history] == ["1", "2"]
    model = load(run)
    assert set(model.subjects["training"]) == parts[0]
    assert set(model.subjects["validation"]) == parts[1]
    assert model.card.dataset["uuid"] == dataset.uuid
    np.testing.assert_array_equal(model.mean_shape, dataset.mean_shape)
    np.testing.assert_array_equal(model.triangles, dataset.triangles)
    assert model.prep_config == dataset.config.to_dict()
    assert not model.synthetic
    assert model.network.config.face_size == 70
    ages = [v.age for v in dataset.values() if v.subject in parts[0] | parts[1]]
    assert model.age_range == (min(ages), max(ages))
    for file in run.rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, f"{file} can be read by others"


def test_predictions_are_what_the_saved_model_says(run, data):
    model, dataset = load(run), FaceDataset(data)
    predictions = read_predictions(run / "predictions.csv")
    for video, predicted in zip(predictions.video, predictions.predicted, strict=True):
        assert model.predict(dataset[video].frames).age == predicted


def test_every_video_is_predicted_once_by_a_model_that_never_saw_its_subject(folded, data):
    predictions, split = (
        read_predictions(folded / "predictions.csv"),
        json.loads((folded / "split.json").read_text()),
    )
    assert sorted(predictions.video) == sorted(FaceDataset(data).videos["id"])
    for fold in split["folds"]:
        mine = {s for s, f in zip(predictions.subject, predictions.fold, strict=True) if f == fold["fold"]}
        assert mine == set(fold["test"])
        assert not mine & {*fold["training"], *fold["validation"]}
    assert len(split["training"]) == 14
    assert split["test"] == []
    assert load(folded).subjects["training"] == sorted(set(FaceDataset(data).videos["subject"]))
    last = [line for line in rows(folded / "history.csv") if line["fold"] == "-1"]
    assert last and all(line["validation_mae"] == "nan" for line in last)


def test_equal_seeds_give_equal_curves_and_others_differ(data, tmp_path):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    curves: dict[str, list[EpochRecord]] = {}
    dropout = {"model.dropout_conv": "0.2", "model.dropout_recurrent": "0.1"}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        curves[name] = []
        quick(data, tmp_path / name, seed=seed, overrides=dropout, on_epoch=curves[name].append)
    a, b, c = ([(e.loss, e.training_mae, e.validation_mae) for e in curves[name]] for name in "abc")
    assert a == b
    assert a != c
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]
    assert torch.equal(torch.random.get_rng_state(), before), "training changed the caller's random state"


def test_it_learns(tmp_path):
    """On drawn faces whose stripes grow with age, far better than the median in some seconds."""
    data = drawn_file(tmp_path / "out.h5", size=70, subjects=24, clips=2, frames=9)
    overrides = {"train.schedule": "cosine", "train.patience": "99", "train.batch_size": "4"}
    run = quick(data, tmp_path / "run", epochs=32, overrides=overrides)
    error = read_predictions(run / "predictions.csv").error.mean()
    assert error < 0.7 * read_predictions(run / "baselines" / "median.csv").error.mean()


def test_standardisation_sees_the_training_part_alone(data, run):
    dataset, model = FaceDataset(data), load(run)
    pixels = np.concatenate(
        [v.frames.ravel() for v in dataset.values() if v.subject in model.subjects["training"]]
    )
    assert model.card.normalisation.mean == pytest.approx(pixels.mean(), rel=1e-12)
    assert model.card.normalisation.deviation == pytest.approx(pixels.std(), rel=1e-12)


def test_clipping_sees_the_l2_term(data, tmp_path, monkeypatch):
    """With a huge lambda every weight's gradient is +-5 at the optimiser: the term is in the loss, and
    clipped by element. Biases, which it does not see, keep their small gradients."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    step = torch.optim.RMSprop.step

    def spy(self, closure=None):
        value = closure() if closure is not None else None
        for group in self.param_groups:
            seen.extend((p.detach().clone(), p.grad.clone()) for p in group["params"])
        step(self)
        return value

    monkeypatch.setattr(torch.optim.RMSprop, "step", spy)
    quick(data, tmp_path / "run", epochs=1, overrides={"train.l2": "1e9", "train.learning_rate": "1e-9"})
    assert seen
    assert max(g.abs().max().item() for _, g in seen) == 5.0
    weights = [(p, g) for p, g in seen if p.ndim > 1]
    assert weights
    for p, g in weights:
        clear = p.abs() > 1e-6
        assert torch.equal(g[clear], 5 * p[clear].sign())


def test_a_loss_that_is_not_finite_stops_with_a_sentence(data, tmp_path):
    with pytest.raises(
        NotFinite,
        match=r"loss is not a finite number any more \(epoch 1, batch 2; videos \d.*\)\. It began in the "
        r"activations of appearance\.first; .*learning_rate=1e\+29",
    ):
        quick(data, tmp_path / "run", epochs=5, overrides={"train.learning_rate": "1e30"})
    assert not (tmp_path / "run" / "model").exists()


def test_patience(data, tmp_path):
    lines: list[EpochRecord] = []
    overrides = {"train.patience": "2", "train.learning_rate": "1e-12"}  # nothing gets better after the first
    quick(data, tmp_path / "run", epochs=30, overrides=overrides, on_epoch=lines.append)
    best = max(line.epoch for line in lines if line.best)
    assert len(lines) == best + 2 < 30


@pytest.mark.parametrize("ablation", ["convolution", "no spatial", "no temporal"])
def test_ablations_train(data, tmp_path, ablation):
    overrides = {
        "convolution": {"model.recurrent": "no", "model.temporal_attention": "no"},
        "no spatial": {"model.attention_position": "none"},
        "no temporal": {"model.temporal_attention": "no"},
    }[ablation]
    run = quick(data, tmp_path / "run", epochs=1, overrides=overrides)
    prediction = load(run).predict(FaceDataset(data)[0].frames)
    assert prediction.temporal_weights.sum() == pytest.approx(1)
    assert (prediction.spatial_attention is None) == (ablation == "no spatial")


def test_without_validation_every_epoch_is_run_and_the_last_weights_are_kept(data, tmp_path):
    overrides = {"train.validation_fraction": "0", "train.patience": "1", "train.learning_rate": "0.01"}
    run = quick(data, tmp_path / "run", epochs=3, overrides=overrides)
    history = rows(run / "history.csv")
    assert [line["epoch"] for line in history] == ["1", "2", "3"]
    assert {line["validation_mae"] for line in history} == {"nan"}
    split = json.loads((run / "split.json").read_text())
    assert split["validation"] == [] and load(run).subjects["validation"] == []
    assert history[-1]["best"] == "1"
    with pytest.raises(SettingsError, match=r"`train.validation_fraction` is 0: set it above 0"):
        quick(data, tmp_path / "searched", trials=2, overrides=overrides)


def test_batches_of_like_length_cover_every_video_once(data):
    table = labelled_videos(FaceDataset(data))
    everyone = np.arange(len(table))
    config = TrainConfig(batch_size=4, temporal_stride=3)
    epochs = [LengthBuckets(table, everyone, config, (0, 0), epoch).batches for epoch in range(3)]
    for batches in epochs:
        assert sorted(clip.row for batch in batches for clip in batch) == everyone.tolist()
        assert all(0 <= clip.phase < 3 for batch in batches for clip in batch)
    assert epochs[0] != epochs[1]
    assert epochs[0] == LengthBuckets(table, everyone, config, (0, 0), 0).batches
    assert epochs[0] != LengthBuckets(table, everyone, config, (1, 0), 0).batches


def test_workers_read_the_same_pixels(data):
    dataset = FaceDataset(data)
    clips = Clips(dataset, labelled_videos(dataset), 3)
    everyone = np.arange(len(clips.table))
    batches = LengthBuckets(
        clips.table, everyone, TrainConfig(batch_size=4, temporal_stride=3), (0, 0), 0
    ).batches
    alone = list(batch_loader(clips, batches, workers=0))
    for batch, other in zip(alone, batch_loader(clips, batches, workers=2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))
    for batch in alone:
        for b, row in enumerate(batch.row.tolist()):
            video = dataset[int(clips.table.index[row])]
            length = int(batch.lengths[b])
            expected = [video.frames[phase::3] for phase in range(3)]
            assert any(np.array_equal(batch.frames[b, :length].numpy(), e) for e in expected)
            assert not batch.frames[b, length:].any()
    assert sum(len(batch) for batch in validation_order(clips, everyone, 4)) == len(everyone)
    frames, age, row = clips[ClipSample(2, 1)]
    assert (len(frames), row) == (len(dataset[2].frames[1::3]), 2)
    assert age == dataset[2].age


def test_what_is_missing_is_said(tmp_path):
    def write(name: str, **labels) -> Path:
        return write_dataset(tmp_path / f"{name}.h5", drawn_videos(4, 1, 4, size=62, **labels))

    cases = {
        "no_ages": ({"age": float("nan")}, r"has no ages.*nemo label .*no_ages.h5 FILE"),
        "no_subjects": ({"subject": ""}, r"which videos show the same person.*nemo label"),
        "year_of_birth": ({"age": 1975.0}, r"age of 1975 years, which cannot be right"),
        "few": ({}, r"4 subjects.*at least 6"),
    }
    for name, (labels, sentence) in cases.items():
        path = write(name, **labels)
        with pytest.raises(DataError, match=sentence):
            quick(path, tmp_path / "run")
    empty = [{"id": "a", "frames": np.zeros((0, 62, 62), np.uint8), "age": 30.0, "subject": "s"}]
    path = write_dataset(tmp_path / "empty.h5", empty)
    with pytest.raises(DataError, match="no video with frames"):
        quick(path, tmp_path / "run")
    assert not (tmp_path / "run").exists(), "a refused training leaves no folder"


def test_videos_without_an_age_are_left_out_with_a_word(tmp_path):
    videos = list(drawn_videos(7, 2, 4, size=70))
    videos[3]["age"] = float("nan")
    said: list[str] = []
    path = write_dataset(tmp_path / "out.h5", videos, synthetic=True)
    run = quick(path, tmp_path / "run", epochs=1, say=said.append)
    assert said[0] == "Left out: 1 video without an age or a subject."
    assert load(run).synthetic


def test_settings_that_cannot_be(data, run, tmp_path):
    for options, sentence in (
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"device": "cuda:99"}, "no usable device"),
        ({"folds": 1}, "at least 2"),
        ({"overrides": {"model.face_size": "114"}}, "follows from the data"),
        ({"preset": "huge"}, "paper, small"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            quick(data, tmp_path / "new", **options)
    with pytest.raises(OutputError, match="exists already"):
        quick(data, run)
    with pytest.raises(DataError, match=r"nowhere\.h5 does not exist"):
        quick(tmp_path / "nowhere.h5", tmp_path / "new")


def test_the_papers_preset_fits_the_data():
    model, config = preset("paper")
    assert model.map_sizes()[-1] == 8
    assert config.l2 > 0
