"""What a training can be told: precision, devices, TensorBoard, curves; and what it says when numbers stop being
finite."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_pipeline.errors import InstallationError, NemoError, NotFinite, SettingsError
from siam_model import SIAM, SIAMConfig
from siam_model.data import ClipSample, shared
from siam_model.figures.curves import curves_figure, draw_curves
from siam_model.layers import ResponseNorm
from siam_model.training.records import EpochRecord
from tests.support.fits import MODEL, curve, go
from tests.support.siam_faces import drawn_file

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
