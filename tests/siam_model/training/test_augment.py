"""What a training reads: weights for rare ages, augmentation, crops, long videos; each against plain NumPy or SciPy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, gaussian_filter

from nemo_pipeline.store import FaceDataset, write_dataset
from siam_model import SIAM, SIAMConfig
from siam_model import data as data_module
from siam_model.augment import (
    AGE_DEVIATION,
    LARGEST_WEIGHT,
    augment_frames,
    density_weights,
    move_frames,
    sample_crops,
    sample_gain,
    sample_move,
)
from siam_model.config import TrainConfig
from siam_model.data import Clips, ClipSample, LengthBuckets, labelled_videos, measure_normalisation
from tests.support.fits import MODEL, go, same
from tests.support.siam_faces import drawn_file, drawn_videos

STILL = {"dropout_conv": 0.0, "dropout_recurrent": 0.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return drawn_file(tmp_path_factory.mktemp("drawn") / "out.h5", size=62, subjects=12, frames=8, clips=2)


def test_weights_by_density():
    rng = np.random.default_rng(0)
    age = np.concatenate([rng.integers(15, 40, 80), rng.integers(40, 70, 15), [88.0]])
    weight = density_weights(age)
    assert weight.mean() == pytest.approx(1)
    assert (weight > 0).all()
    from scipy.stats import norm

    density = norm.pdf(age[:, None], age[None], AGE_DEVIATION).sum(axis=1)
    free = (1 / density) / (1 / density).mean() < LARGEST_WEIGHT
    ratio = weight[free] * density[free]
    np.testing.assert_allclose(ratio, ratio[0])
    assert weight[-1] == weight.max() and not free[-1]
    np.testing.assert_allclose(density_weights(np.full(7, 30.0)), 1)


def test_density_weights_are_in_the_loss(data):
    """On the first step, before anything is learnt, the loss is the weighted mean of |age - median|."""
    dataset = FaceDataset(data)
    table = labelled_videos(dataset)
    age = table.age[:16]
    flat = {"l2": 0.0, "learning_rate": 1e-30, "epochs": 1, "age_weighting": "density", "batch_size": 16}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.init, "uniform_", lambda tensor, *_: tensor.data.zero_())  # k = 0: age = b
        fitted = go(data, train=flat)
    expected = np.mean(density_weights(age) * np.abs(age - np.median(age)))
    assert fitted.history[0].loss == pytest.approx(expected, rel=1e-5)
    assert fitted.history[0].training_mae == pytest.approx(np.abs(age - np.median(age)).mean(), rel=1e-5)


def test_augmentation_of_pixels():
    frames = np.random.default_rng(0).integers(0, 256, (3, 5, 5), dtype=np.uint8)
    assert augment_frames(frames, False, 1.0) is frames
    np.testing.assert_array_equal(augment_frames(frames, True, 1.0), frames[:, :, ::-1])
    bright = augment_frames(frames, False, 1.5)
    assert bright.dtype == np.uint8
    np.testing.assert_array_equal(bright, np.minimum(np.round(1.5 * frames.astype(float)), 255))
    assert not augment_frames(np.zeros_like(frames), True, 1.5).any(), "black around the face stays black"
    gains = sample_gain(np.random.default_rng(0), 0.25, 2000)
    assert 0.8 <= gains.min() < 0.81 and 1.24 < gains.max() <= 1.25
    assert np.log(gains).mean() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("size", [20, 21])
def test_moved_faces_are_those_that_scipy_moves(size):
    frames = gaussian_filter(np.random.default_rng(0).uniform(0, 255, (2, size, size)), (0, 1, 1)).astype(
        np.uint8
    )
    turn, right, down = 12.0, 0.1, -0.06
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    back = np.array([[c, -s], [s, c]])  # of (row, column): clockwise, with rows that go down
    middle = np.full(2, (size - 1) / 2)
    offset = middle - back @ (middle + np.array([size * down, size * right]))
    expected = [
        affine_transform(f.astype(float), back, offset, order=1, mode="grid-constant") for f in frames
    ]
    moved = move_frames(frames, turn, right, down)
    assert moved.dtype == np.uint8
    assert np.abs(moved - np.array(expected)).max() <= 0.51
    np.testing.assert_array_equal(move_frames(frames, 0, 2 / size, 0)[..., 2:], frames[..., :-2])
    assert not move_frames(frames, 0, 2 / size, 0)[..., :2].any(), "black comes in"
    moves = sample_move(np.random.default_rng(0), 8, 0.05, 2000)
    assert moves.shape == (2000, 3) and 7.9 < np.abs(moves[:, 0]).max() <= 8
    assert 0.049 < np.abs(moves[:, 1:]).max() <= 0.05


def test_augmentation_touches_training_alone_and_follows_from_seed_and_epoch(data):
    table, rows = labelled_videos(FaceDataset(data)), np.arange(20)
    still = TrainConfig(batch_size=4, temporal_stride=2)
    plain = LengthBuckets(table, rows, still, (0,), 3).batches
    moved = dataclasses.replace(
        still, augment_mirror=True, augment_brightness=0.3, augment_turn=5.0, augment_shift=0.1
    )
    varied = LengthBuckets(table, rows, moved, (0,), 3).batches
    again = LengthBuckets(table, rows, moved, (0,), 3).batches
    assert varied == again
    assert [[(c.row, c.phase) for c in b] for b in plain] == [[(c.row, c.phase) for c in b] for b in varied]
    clips = [c for batch in varied for c in batch]
    assert {c.mirror for c in clips} == {True, False}
    assert len({c.gain for c in clips}) == len({c.move for c in clips}) == 20
    assert all(not c.mirror and c.gain == 1 and not any(c.move) for batch in plain for c in batch)
    clips = Clips(FaceDataset(data), table, 2)
    loaded = data_module.batch_loader(clips, data_module.validation_order(clips, rows, 4), 0)
    batches = loaded.batch_sampler
    assert all(not c.mirror and c.gain == 1 and not any(c.move) for batch in batches for c in batch)


def test_crops_are_parts_of_clips_of_every_share_and_place():
    rng = np.random.default_rng(0)
    length = np.repeat([1, 3, 100], 2000)
    first, after = sample_crops(rng, 0.8, length)
    assert (first >= 0).all() and (after > first).all() and (after <= length).all()
    share = ((after - first) / length)[length == 100]
    assert (share.min(), share.max()) == (0.2, 1)
    assert share.mean() == pytest.approx(0.6, abs=0.01), "even between a fifth and the whole"
    room = (length - (after - first))[length == 100]
    place = (first[length == 100] / np.maximum(room, 1))[room > 20]
    assert place.mean() == pytest.approx(0.5, abs=0.02) and (place.min(), place.max()) == (0, 1)


def test_cropped_clips_are_read_as_they_were_drawn(data):
    """Against slices of the whole video; every clip once, another part in another epoch, validation whole."""
    dataset = FaceDataset(data)
    table, rows = labelled_videos(dataset), np.arange(20)
    config = TrainConfig(batch_size=4, temporal_stride=2, temporal_crop=0.7)
    clips = Clips(dataset, table, 2)
    epochs = [LengthBuckets(table, rows, config, (0,), epoch).batches for epoch in (0, 1)]
    assert epochs[0] != epochs[1] and epochs[0] == LengthBuckets(table, rows, config, (0,), 0).batches
    whole = LengthBuckets(table, rows, dataclasses.replace(config, temporal_crop=0.0), (0,), 0).batches
    assert [[c.row for c in batch] for batch in whole] == [[c.row for c in batch] for batch in epochs[0]]
    for batch in epochs[0]:
        got = clips.__getitems__(batch)
        for b, clip in enumerate(batch):
            want = dataset[int(table.index[clip.row])].frames[: clip.stop][clip.phase :: 2]
            assert len(want) == got.lengths[b] > 0
            np.testing.assert_array_equal(got.frames[b, : len(want)].numpy(), want)
            assert not got.frames[b, len(want) :].any()
    assert all(c.stop is None for batch in data_module.validation_order(clips, rows, 4) for c in batch)


def test_options_change_the_training_and_are_off_by_default(data):
    config = TrainConfig()
    assert (config.age_weighting, config.augment_mirror, config.augment_brightness) == ("none", False, 0.0)
    assert config.temporal_crop == 0 and not config.predict_mirrored
    assert (config.augment_turn, config.augment_shift) == (0.0, 0.0)
    names = ("augment_brightness", "augment_turn", "augment_shift", "temporal_crop")
    off = {"augment_mirror": False, "epochs": 1, **dict.fromkeys(names, 0.0)}
    plain = go(data, train=off)
    for option in (
        {"augment_mirror": True}, {"augment_brightness": 0.3}, {"augment_turn": 5.0}, {"augment_shift": 0.1},
        {"age_weighting": "density"}, {"temporal_crop": 0.5},
    ):  # fmt: skip
        assert not same(plain, go(data, train={**off, **option})), option
    assert same(plain, go(data, train=off))


# --- reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 3, 7])
def test_long_videos_are_read_in_blocks(tmp_path, monkeypatch, step):
    path = write_dataset(tmp_path / "out.h5", drawn_videos(2, 1, 60, size=24))
    dataset = FaceDataset(path)
    monkeypatch.setattr(data_module, "READ_FRAMES", 13)
    clips = Clips(dataset, labelled_videos(dataset), step)
    for row in range(2):
        for phase in range(step):
            frames, _, _ = clips[ClipSample(row, phase, mirror=True)]
            whole = dataset[int(clips.table.index[row])].frames
            np.testing.assert_array_equal(frames.numpy(), whole[phase::step][..., ::-1])
    pixels = np.concatenate([video.frames.ravel() for video in dataset.values()])
    found = measure_normalisation(dataset, clips.table.index)
    assert (found.mean, found.deviation) == (pytest.approx(pixels.mean()), pytest.approx(pixels.std()))


def test_raw_frames_with_a_normalisation_are_standardised_frames():
    torch.manual_seed(0)
    model = SIAM(SIAMConfig(**{**MODEL, **STILL}))
    model.max_frames_per_pass = 3
    raw = torch.randint(0, 256, (2, 5, 62, 62), dtype=torch.uint8)
    normalisation = data_module.Normalisation(97.5, 41.0)
    lengths = torch.tensor([5, 4])
    a = model(normalisation(raw), lengths)
    b = model(raw, lengths, normalisation)
    torch.testing.assert_close(a.age, b.age, rtol=0, atol=0)
    torch.testing.assert_close(a.temporal_weights, b.temporal_weights, rtol=0, atol=0)
