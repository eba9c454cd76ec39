"""What a training can be told: precision, devices, TensorBoard, weights for rare ages, augmentation; and what it says
when numbers stop being finite."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, gaussian_filter

from nemo_pipeline.errors import InstallationError, NemoError, NotFinite, SettingsError
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
from siam_model.data import Clips, ClipSample, LengthBuckets, labelled_videos, measure_normalisation, shared
from siam_model.figures.curves import curves_figure, draw_curves
from siam_model.layers import ResponseNorm
from siam_model.training.records import EpochRecord
from tests.support.fits import MODEL, curve, go, same
from tests.support.siam_faces import drawn_file, drawn_videos

STILL = {"dropout_conv": 0.0, "dropout_recurrent": 0.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return drawn_file(tmp_path_factory.mktemp("drawn") / "out.h5", size=62, subjects=12, frames=8, clips=2)


# --- numbers that are not finite ---------------------------------------------------------------------------------


def poisoned(monkeypatch, module: str, value: float, epoch: int = 2) -> None:
    """From `epoch` on, the output of a module is multiplied by `value`."""
    forward, steps = SIAM.forward, []

    def wrong(self, *arguments):
        steps.extend([1] * self.training)
        part = self.get_submodule(module)
        if len(steps) == 4 * (epoch - 1) + 1:
            right = part.forward
            part.forward = lambda x: right(x) * value
        return forward(self, *arguments)

    monkeypatch.setattr(SIAM, "forward", wrong)


@pytest.mark.parametrize("module", ["appearance.convolutions.1", "recurrence.0", "regression"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_module_where_it_began_is_named(data, monkeypatch, module, value):
    poisoned(monkeypatch, module, value)
    with pytest.raises(NemoError) as caught:
        go(data)
    sentence = str(caught.value)
    assert "The loss is not a finite number any more (epoch 2, batch 1; videos 0" in sentence
    assert f"It began in the activations of {module};" in sentence
    assert "`train.learning_rate=0.0003`." in sentence


def test_an_infinite_weight_is_named(data):
    with pytest.raises(NemoError, match=r"began in the weights, which the step before made infinite"):
        go(data, train={"learning_rate": 3e38, "schedule": "constant"})


def test_a_sum_of_squares_that_overflows_is_named(data, monkeypatch):
    start_at = SIAM.start_at

    def start(self, age):
        start_at(self, age)
        with torch.no_grad():
            self.temporal.first_weight.fill_(1e20)  # its tanh is 1 or -1; its square is beyond 32 bits

    monkeypatch.setattr(SIAM, "start_at", start)
    with pytest.raises(
        NemoError, match=r"epoch 1, batch 1;.*the sum of squared weights, with every activation"
    ):
        go(data)


def test_a_gradient_that_is_not_finite_is_not_clipped_away(data, monkeypatch):
    forward = SIAM.forward

    def wrong(self, *arguments, **options):
        output = forward(self, *arguments, **options)
        if self.training:
            output.age.register_hook(lambda grad: grad * math.inf)
        return output

    monkeypatch.setattr(SIAM, "forward", wrong)
    with pytest.raises(
        NemoError, match=r"The gradient is not .*epoch 1, batch 1;.*backward pass, from regression"
    ):
        go(data)


# --- precision ---------------------------------------------------------------------------------------------------


def test_half_precision_learns_the_same_within_its_digits(data):
    full, half = go(data, model=STILL), go(data, model=STILL, precision="bf16-mixed")
    assert all(p.dtype == torch.float32 for p in half.model.parameters())
    first, other = full.history[0], half.history[0]
    assert other.training_mae == pytest.approx(first.training_mae, rel=0.02)
    assert other.validation_mae == pytest.approx(first.validation_mae, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_response_normalisation_in_half_precision(dtype):
    """Squares of activations beyond 255 overflow float16; what comes out is the float32 result, rounded."""
    torch.manual_seed(0)
    layer = ResponseNorm(5, 1e-4, 0.75, 2.0)
    x = (400 * torch.randn(2, 8, 3, 3)).to(dtype)
    wide = x.float().requires_grad_()
    narrow = x.clone().requires_grad_()
    expected, found = layer(wide), layer(narrow)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected.to(dtype).float())
    expected.sum().backward()
    found.sum().backward()
    torch.testing.assert_close(narrow.grad.float(), wide.grad.to(dtype).float(), rtol=0.02, atol=1e-5)


def test_recurrence_and_age_keep_32_bits_under_half_precision():
    torch.manual_seed(0)
    model = SIAM(SIAMConfig(**{**MODEL, **STILL})).eval()
    model.start_at(61.3)
    frames = torch.randn(2, 300, 62, 62)
    with torch.inference_mode():
        exact = model(frames)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(frames)
    assert half.age.dtype == half.temporal_weights.dtype == torch.float32
    assert (half.age - exact.age).abs().max() < 0.02 * (exact.age - 61.3).abs().max() + 0.02
    torch.testing.assert_close(half.temporal_weights.sum(1), torch.ones(2))


def test_precisions_that_cannot_be(data):
    for precision, sentence in (("64", "32, bf16-mixed, 16-mixed; '64'"), ("16-mixed", "needs a GPU")):
        with pytest.raises(NemoError, match=sentence):
            go(data, precision=precision)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed"])
def test_a_gpu_learns_what_a_cpu_learns_and_goes_on(data, tmp_path, precision):
    train = {"epochs": 2}
    cpu = go(data, model=STILL, train=train)

    def stop(line: EpochRecord) -> None:
        raise InterruptedError

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(InterruptedError):
        go(data, path, model=STILL, train=train, device="cuda", precision=precision, on_epoch=stop)
    gpu = go(data, path, model=STILL, train=train, device="cuda", precision=precision)
    for a, b in zip(cpu.history, gpu.history, strict=True):
        assert b.validation_mae == pytest.approx(a.validation_mae, rel=0.05)


# --- several devices ---------------------------------------------------------------------------------------------


@pytest.fixture
def two_cores(monkeypatch):
    """Whatever this machine has: two processes can share one."""
    monkeypatch.setattr("siam_model.training.ddp.allowed_cores", lambda: [0, 1])


@pytest.mark.slow
def test_two_processes_do_what_one_does(data, tmp_path, two_cores):
    """Every batch is shared, so curve and weights are those of one process but for rounding; a stop of the caller's
    comes out, and the rest is made up for."""
    train = {"epochs": 2, "age_weighting": "density"}
    alone = go(data, model=STILL, train=train, rows=(15, 24))  # 15 videos: batches of 4, 4, 4 and 3
    path, steps = tmp_path / "checkpoint.pt", []

    def stop(line: EpochRecord) -> None:
        raise InterruptedError

    options = {"model": STILL, "train": train, "rows": (15, 24), "devices": 2}
    with pytest.raises(InterruptedError):
        go(data, path, on_epoch=stop, **options)
    together = go(data, path, on_batch=lambda *step: steps.append(step), **options)
    assert set(steps) <= {(1, 4), (2, 4), (3, 4), (4, 4)}
    for one, two in zip(alone.history, together.history, strict=True):
        assert two.training_mae == pytest.approx(one.training_mae, rel=1e-4)
        assert two.validation_mae == pytest.approx(one.validation_mae, rel=1e-4)
        assert two.loss == pytest.approx(one.loss, rel=1e-4)
    other = together.model.state_dict()
    for name, tensor in alone.model.state_dict().items():
        # RMSprop's first steps have the size of the learning rate whatever a gradient's: rounding decides on some.
        assert (tensor - other[name]).abs().median() < 1e-4, name


def test_devices_that_cannot_be_shared(data):
    for options, sentence in (
        ({"devices": 0}, "at least 1"),
        ({"devices": 2, "train": {"batch_size": 1}}, "cannot be shared"),
        ({"devices": 9999}, "this machine has"),
    ):
        with pytest.raises(NemoError, match=sentence):
            go(data, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_devices_mean_gpus_unless_the_cpu_is_named(data):
    with pytest.raises(SettingsError, match="this machine has none"):
        go(data, devices=2, device="auto")


def test_an_error_of_a_member_is_the_trainings_error(data, two_cores):
    """Its class too: a search goes on after this one."""
    with pytest.raises(NotFinite, match="not a finite number any more"):
        go(data, devices=2, train={"learning_rate": 3e38, "schedule": "constant"})


def test_shares_of_a_batch():
    batches = [[ClipSample(row, 0, weight=1 / 5) for row in range(5)], [ClipSample(5, 0)]]
    shares = [shared(batches, rank, 3) for rank in range(3)]
    assert all(len(share) == 2 for share in shares)
    rows = sorted(c.row for share in shares for c in share[0] if c.weight)
    assert rows == list(range(5))
    assert sum(c.weight for share in shares for c in share[0]) / 3 == pytest.approx(1)
    assert [len(share[1]) for share in shares] == [1, 1, 1]
    assert [share[1][0].weight for share in shares] == [3, 0, 0]
    assert shared(batches, 0, 1) == batches


# --- TensorBoard -------------------------------------------------------------------------------------------------


def test_tensorboard(data, tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fitted = go(data, tmp_path / "checkpoint.pt", tensorboard=True, train={"epochs": 2})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    values = [(e.step, e.value) for e in events.Scalars("error/validation")]
    assert values == [(r.epoch, pytest.approx(r.validation_mae)) for r in fitted.history]
    assert (tmp_path / "tensorboard").stat().st_mode & 0o077 == 0
    for name in [m for m in sys.modules if m.partition(".")[0] == "tensorboard"] + [
        "torch.utils.tensorboard"
    ]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InstallationError, match=r"pip install 'nemo-faces\[tensorboard\]'"):
        go(data, tmp_path / "other" / "checkpoint.pt", tensorboard=True)


# --- beyond the paper --------------------------------------------------------------------------------------------


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


# --- curves ------------------------------------------------------------------------------------------------------


def record(fold: int, epoch: int, validation: float, best: bool) -> EpochRecord:
    return EpochRecord(fold, epoch, 9.0, 10.0 / epoch, validation, best, 1.0)


def test_curves_show_each_fold_and_the_weights_that_are_kept(tmp_path):
    history = [record(f, e, 12 / e + f + (e == 4), e <= 3) for f in (0, 1) for e in range(1, 5)]
    history += [record(-1, e, math.nan, True) for e in (1, 2, 3)]
    left, right = curves_figure(history, synthetic=True).axes
    assert [line.get_label() for line in left.lines] == ["fold 0", "fold 1", "all subjects"]
    np.testing.assert_allclose(left.lines[0].get_ydata(), [10, 5, 10 / 3, 2.5])
    curves, dots = right.lines[0::2], right.lines[1::2]
    np.testing.assert_allclose(curves[1].get_ydata(), [13, 7, 5, 5])
    assert [(d.get_xdata()[0], d.get_ydata()[0]) for d in dots] == [(3, 4), (3, 5)]
    path = tmp_path / "curves.png"
    for lines in (history, history[-3:], history[:1]):
        draw_curves(lines, path)
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_mode & 0o077 == 0
    path.unlink()
    draw_curves([], path)
    assert not path.exists()


def test_curves_of_a_real_training(data, tmp_path):
    fitted = go(data, train={"epochs": 1})
    draw_curves(fitted.history, tmp_path / "curves.png")
    assert len(curve(fitted.history)) == 1
    assert Path(tmp_path / "curves.png").stat().st_size > 1000
