"""What a GPU does otherwise than a CPU, run here on a CPU: faces that are kept, packed batches, numbers that are read
late, the recurrence in one call, compiled convolutions. It gives what the plain way gives, and no step waits."""

from __future__ import annotations

import contextlib
import math
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_pipeline.errors import NotFinite
from nemo_pipeline.store import FaceDataset
from siam_model import SIAM, SIAMConfig, layers
from siam_model import model as siam
from siam_model.augment import augment_frames
from siam_model.data import Clips, ClipSample, LengthBuckets, labelled_videos
from siam_model.devices import read_later
from siam_model.layers import Recurrence
from siam_model.training import feed as feed_module
from siam_model.training.feed import KeptFaces, ahead, augment_packed, make_feed, where_to_keep
from siam_model.training.loop import Place, Training, train
from siam_model.training.passes import bytes_per_frame, compile_appearance, frames_that_fit
from tests.support.fits import MODEL, curve, go, inputs_of
from tests.support.siam_faces import smiling_file

CPU = torch.device("cpu")
STILL = {"dropout_conv": 0.0, "dropout_recurrent": 0.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return smiling_file(tmp_path_factory.mktemp("drawn") / "out.h5")


# --- the same numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_kept_faces_and_late_numbers_change_no_bit(data, precision):
    plain = go(data, precision=precision)
    for faces in ("device", "memory"):
        place = Place(CPU, faces=faces, every=3)
        state = train(inputs_of(data, precision=precision), place, None, None, None, None)
        assert curve(state.history) == curve(plain.history)
        own = plain.model.state_dict()
        assert all(torch.equal(own[name], tensor) for name, tensor in state.best_state.items())


@pytest.mark.parametrize(
    "train_settings", [{"pretrain": "shape", "pretrain_epochs": 2}, {"freeze_appearance": 2}]
)
def test_so_do_pretraining_and_a_frozen_appearance_module(data, train_settings):
    options = {"model": STILL, "train": {"epochs": 3, **train_settings}}
    plain = go(data, **options)
    state = train(inputs_of(data, **options), Place(CPU, faces="device", every=50), None, None, None, None)
    assert curve(state.history) == curve(plain.history)


def test_every_batch_is_what_the_file_gives(data):
    inputs = inputs_of(data)
    order = LengthBuckets(inputs.clips.table, inputs.training, inputs.config, (5,), 1).batches
    for where in ("files", "memory", "device"):
        feed = make_feed(inputs.clips, CPU, 0, where=where)
        for chosen, batch in zip(order, feed.batches(order), strict=True):
            expected = inputs.clips.__getitems__(chosen)
            frames, lengths = batch.frames, batch.lengths.tolist()
            if frames.ndim == 3:  # packed
                frames = torch.nn.utils.rnn.pad_sequence(frames.split(lengths), batch_first=True)
            assert torch.equal(frames, expected.frames)
            assert all(torch.equal(a, b) for a, b in zip(batch[1:], expected[1:], strict=True))


def test_augmentation_of_packed_clips(data):
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 256, (n, 5, 7), dtype=np.uint8) for n in (3, 1, 4)]
    chosen = [
        ClipSample(0, 0, True, 1.3, move=(4.0, 0.1, -0.05)), ClipSample(1, 0), ClipSample(2, 0, True, 0.7),
    ]  # fmt: skip
    expected = np.concatenate(
        [augment_frames(p, c.mirror, c.gain, c.move) for p, c in zip(parts, chosen, strict=True)]
    )
    found = augment_packed(torch.from_numpy(np.concatenate(parts)), [3, 1, 4], chosen)
    assert np.array_equal(found.numpy(), expected)


def test_packed_frames_are_a_batch_without_its_padding():
    torch.manual_seed(0)
    model = SIAM(SIAMConfig(**MODEL)).eval()
    frames, lengths = torch.randn(3, 9, 62, 62), torch.tensor([9, 1, 5])
    packed = torch.cat([video[:n] for video, n in zip(frames, lengths, strict=True)])
    for most in (128, 4):
        model.max_frames_per_pass = most
        padded, other = model(frames, lengths), model(packed, lengths)
        assert torch.equal(padded.age, other.age)
        assert torch.equal(padded.spatial_attention, other.spatial_attention)
    for wrong in (torch.tensor([9, 1, 4]), torch.tensor([15, 0]), torch.tensor([15.0])):
        with pytest.raises(ValueError, match="whole numbers from 1 that sum to 15"):
            model(packed, wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_recurrence_in_one_call(dtype):
    torch.manual_seed(0)
    layer = Recurrence(6, 8, "leaky").to(dtype)
    p = torch.randn(3, 50, 6, dtype=dtype, requires_grad=True)
    found = []
    for way in (layer.steps, layer.scan):
        layer.zero_grad()
        p.grad = None
        z = way(p)
        z.square().sum().backward()
        found.append([z.detach(), p.grad, *(w.grad for w in layer.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4 if dtype == torch.float32 else 1e-11, atol=1e-5)


# --- no step waits -----------------------------------------------------------------------------------------------


@pytest.fixture
def device_without_numbers(monkeypatch) -> torch.device:
    """`meta`: tensors there have a place and a shape, and whoever asks for their numbers, or computes with them and
    others, gets an error: what a GPU would have to be waited for, and what would be on the wrong side."""
    autocast, enabled = torch.autocast, torch.is_autocast_enabled
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda kind, **o: contextlib.nullcontext() if kind == "meta" else autocast(kind, **o),
    )
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind != "meta" and enabled(kind))
    return torch.device("meta")


@pytest.mark.parametrize(
    ("faces", "train_settings"),
    [
        ("device", {}), ("memory", {}), ("files", {}),
        ("device", {"max_frames_per_pass": 3, "age_weighting": "density", "augment_turn": 5.0}),
        ("device", {"pretrain": "shape"}),
    ],
)  # fmt: skip
def test_a_step_reads_no_number_of_the_device(data, device_without_numbers, faces, train_settings):
    inputs = inputs_of(data, train=train_settings)
    training = Training(inputs, Place(device_without_numbers, faces=faces, every=50), None)
    training.model.train()
    order = LengthBuckets(inputs.clips.table, training.rows, inputs.config, (5,), 0).batches
    numbers = list(training._steps(order, [4] * len(order), None))
    assert len(numbers) == len(order)
    assert all(n.device.type == "meta" and n.shape == (3,) for n in numbers)
    if training.targets is None:
        assert len(list(training._validations(order))) == len(order)
    with pytest.raises(NotImplementedError):  # a number that is read is noticed
        list(read_later(numbers, 50))


@pytest.mark.parametrize("module", ["appearance.convolutions.1", "recurrence.0", "regression"])
def test_what_is_not_finite_is_said_some_steps_later_as_it_is_at_once(data, monkeypatch, module):
    forward, steps = SIAM.forward, []

    def wrong(self, *arguments):
        steps.append(self.training)
        if steps.count(True) == 3 or len(steps) > 5:
            part = self.get_submodule(module)
            if "forward" not in vars(part):
                right = part.forward
                part.forward = lambda x: right(x) * math.nan
        return forward(self, *arguments)

    monkeypatch.setattr(SIAM, "forward", wrong)
    sentences = []
    for every in (1, 50):
        steps.clear()
        with pytest.raises(NotFinite) as caught:
            train(inputs_of(data), Place(CPU, every=every), None, None, None, None)
        sentences.append(str(caught.value))
    assert sentences[0] == sentences[1]
    assert "epoch 1, batch 3; videos" in sentences[1] and f"activations of {module};" in sentences[1]


def test_so_is_a_weight_that_became_infinite(data):
    options = {"train": {"learning_rate": 3e38, "schedule": "constant"}}
    with pytest.raises(NotFinite, match=r"began in the weights, which the step before made infinite"):
        train(inputs_of(data, **options), Place(CPU, every=50), None, None, None, None)


def test_weights_stay_as_they_were_before_a_step_that_is_not_finite(data):
    inputs = inputs_of(data)
    training = Training(inputs, Place(CPU, every=50), None)
    order = LengthBuckets(inputs.clips.table, inputs.training, inputs.config, (5,), 0).batches
    batch, bad = list(training.feed.batches(order))[:2]
    training.step(batch, None, 0)
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    numbers = training.step(bad._replace(age=torch.full_like(bad.age, math.inf)), None, 1)
    assert numbers[2] == 0
    assert training.step(batch, None, 2)[2] == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in training.model.state_dict().items())


def test_numbers_that_are_read_late():
    read = []

    def made():
        for i in range(8):
            yield torch.tensor([float(i)])
            read.append(i)

    assert [line for line in read_later(made(), 3)] == [[float(i)] for i in range(8)]
    assert list(read_later(iter([]), 3)) == []


# --- where faces are kept ----------------------------------------------------------------------------------------


def test_where_faces_are_kept():
    gb = 1e9
    assert where_to_keep(3.1 * gb, 80 * gb, 64 * gb) == "device"
    assert where_to_keep(3.1 * gb, 6 * gb, 64 * gb) == "memory"
    assert where_to_keep(40 * gb, 16 * gb, 64 * gb) == "files"
    assert where_to_keep(40 * gb, 16 * gb, None) == "files"
    assert where_to_keep(1, None, 64 * gb) == "files"  # a CPU


def test_faces_of_some_videos_are_kept(data):
    dataset = FaceDataset(data)
    clips = Clips(dataset, labelled_videos(dataset), 3)
    kept = KeptFaces(dataset, clips.table.index[[7, 2]], CPU)
    assert len(kept.frames) == 16
    batch = kept.batch(clips, [ClipSample(2, 1), ClipSample(7, 0)])
    assert torch.equal(batch.frames[:3], torch.from_numpy(dataset[int(clips.table.index[2])].frames[1::3]))
    assert batch.lengths.tolist() == [3, 3]


def test_kept_faces_serve_trainings_on_the_same_device_alone(data, monkeypatch):
    """Other tests choose the place; here, a device that says how much memory it has does."""
    monkeypatch.setattr(feed_module, "free_memory", lambda device: 10**9 if device.type == "meta" else None)
    clips, said = inputs_of(data).clips, []
    first = make_feed(clips, torch.device("meta"), 0, say=said.append)
    assert first.kept is not None and first.kept.there and first.kept.frames.device.type == "meta"
    assert said == ["0.0 GB of faces, kept on the GPU."]
    assert make_feed(clips, torch.device("meta"), 0).kept is first.kept
    assert make_feed(clips, CPU, 0).kept is None


def test_batches_made_ahead():
    made = []

    def items(stop: int):
        for i in range(stop):
            made.append(i)
            yield i
        raise OSError("the disk")

    got = []
    with pytest.raises(OSError, match="the disk"):
        for item in ahead(items(10), 2):
            got.append(item)
    assert got == list(range(10))
    made.clear()
    some = ahead(items(1000), 2)
    assert next(some) == 0
    some.close()
    assert len(made) < 10
    assert not [t for t in threading.enumerate() if t.name == "nemo-batches"]


# --- passes and compiled kernels ---------------------------------------------------------------------------------


def test_memory_of_a_frame_grows_with_the_maps():
    small, wide = (SIAM(SIAMConfig(**{**MODEL, "channels": (c, 5, 6)})) for c in (4, 8))
    maps = 4 * 28**2 * 4  # 62 pixels, kernels of 7, steps of 2: bytes of 4 float32 maps
    growth = bytes_per_frame(wide, "32") - bytes_per_frame(small, "32")
    assert (
        maps * (2 + 5) <= growth <= maps * (4 + 5)
    )  # convolution and normalisation; what the backward pass copies
    assert bytes_per_frame(small, "bf16-mixed") < bytes_per_frame(small, "32")
    assert small.training and all(p.grad is None for p in small.parameters())


def test_frames_that_fit():
    model = SIAM(SIAMConfig(**MODEL))
    few, many = frames_that_fit(model, "32", 10**8), frames_that_fit(model, "32", 10**9)
    assert 0 < few < many < 10**9 / bytes_per_frame(model, "32")
    assert frames_that_fit(model, "32", 1000) == 0


COMPILER = shutil.which("g++") or shutil.which("clang++")
BUILT = pytest.mark.skipif(not COMPILER, reason="needs a C++ compiler")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=BUILT)])
def test_a_compiled_model_is_the_same_model(backend, monkeypatch):
    """For any number of frames, in one graph: with all frames at once, as a GPU takes them."""
    from torch._dynamo.testing import CompileCounterWithBackend  # seconds of every collection

    monkeypatch.setattr(layers, "FRAMES_IN_CACHE", 10**9)
    monkeypatch.setattr(siam, "FRAMES_IN_CACHE", 10**9)
    torch.manual_seed(0)
    model = SIAM(SIAMConfig(**{**MODEL, **STILL}))
    plain = SIAM(model.config)
    plain.load_state_dict(model.state_dict())
    counter = CompileCounterWithBackend(backend)
    assert compile_appearance(model, "32", backend=counter)
    assert list(model.state_dict()) == list(plain.state_dict())
    for lengths in ([3, 5], [1, 1], [9], *([[7, 9, 2], [30]] if backend == "aot_eager" else [])):
        frames = torch.randn(sum(lengths), 62, 62)
        ages = [m(frames, torch.tensor(lengths)).age for m in (plain, model)]
        torch.testing.assert_close(*ages, rtol=1e-4, atol=1e-4)
        for m, age in zip((plain, model), ages, strict=True):
            m.zero_grad()
            age.sum().backward()
        for a, b in zip(plain.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)
    # PyTorch chooses a CPU's convolution by the number of frames.
    assert counter.frame_count <= 2, "no graph for every number of frames"


def test_a_compiler_that_fails_is_left_out():
    def broken(graph, inputs):
        raise RuntimeError("no such compiler")

    model, said = SIAM(SIAMConfig(**MODEL)), []
    assert not compile_appearance(model, "32", said.append, backend=broken)
    assert "torch.compile does not work here" in said[0] and "training goes on without it" in said[0]
    assert model(torch.randn(1, 3, 62, 62)).age.shape == (1,)
