"""The network: every equation, mechanism, position and ablation against NumPy; what padding may not do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from siam_model import SIAM, SIAMConfig
from siam_model.layers import Recurrence, ResponseNorm, SpatialAttention, TemporalAttention
from siam_model.model import absolute_error, l2_term
from tests.reference import numpy_siam

MECHANISMS = ("indexed", "agnostic", "full", "mediate")


def tiny(**changes) -> SIAMConfig:
    """A network of the paper's shape, small enough to be looped over."""
    values = {
        "face_size": 62,
        "channels": (4, 5, 6),
        "fully_connected": 9,
        "hidden": 7,
        "attention_dim": 5,
        "temporal_dim": 4,
        "lrn_alpha": 0.05,
    }
    return SIAMConfig(**{**values, **changes})


def random_model(config: SIAMConfig, seed: int = 0, dtype: torch.dtype = torch.float64) -> SIAM:
    """Every parameter random, biases too, so that no term of an equation is zero by chance."""
    generator = torch.Generator().manual_seed(seed)
    model = SIAM(config).to(torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / fan**0.5)
    return model.to(dtype).eval()


def reference(model: SIAM, frames: np.ndarray):
    tensors = {name: p.detach().double().numpy() for name, p in model.state_dict().items()}
    return numpy_siam.siam(tensors, model.config.to_dict(), frames)


ABLATIONS = {
    "convolution": {"recurrent": False, "temporal_attention": False},
    "recurrence": {"temporal_attention": False},
    "full": {},
}


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize(
    ("mechanism", "position"), [*itertools.product(MECHANISMS, (1, 2, 3)), ("indexed", 0)]
)
def test_whole_model_matches_numpy(mechanism, position, ablation):
    config = tiny(attention_mechanism=mechanism, attention_position=position, **ABLATIONS[ablation])
    rng = np.random.default_rng(position)
    frames, lengths = rng.normal(size=(2, 4, 62, 62)), [4, 3]
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        model = random_model(config, dtype=dtype)
        with torch.inference_mode():
            output = model(torch.tensor(frames, dtype=dtype), torch.tensor(lengths))
        for b, length in enumerate(lengths):
            age, weights, maps = reference(model, frames[b, :length])
            assert output.age[b].item() == pytest.approx(age, abs=tolerance)
            np.testing.assert_allclose(output.temporal_weights[b, :length], weights, atol=tolerance, rtol=0)
            assert (output.temporal_weights[b, length:] == 0).all()
            if position:
                np.testing.assert_allclose(output.spatial_attention[b, :length], maps, atol=tolerance, rtol=0)
                assert (output.spatial_attention[b, length:] == 0).all()
            else:
                assert output.spatial_attention is None


@pytest.mark.parametrize(
    "changes",
    [
        {"paddings": (3, 2, 1)},
        {"pools": (2, 0, 2), "attention_position": 3},
        {"pool_stride": 1, "pool_padding": 1, "strides": (3, 2, 1), "kernels": (5, 3, 3)},
        {"lrn": False},
        {"lrn_size": 3, "lrn_beta": 0.5, "lrn_k": 1.0},
        {"recurrent_layers": 1},
        {"recurrent_layers": 3},
        {"face_size": 70, "attention_position": 1},
    ],
)
def test_padding_pooling_and_normalisation_by_configuration(changes):
    config = tiny(**changes)
    model, size = random_model(config), config.face_size
    frames = np.random.default_rng(1).normal(size=(3, size, size))
    with torch.inference_mode():
        output = model(torch.tensor(frames)[None])
    age, weights, maps = reference(model, frames)
    assert output.age.item() == pytest.approx(age, abs=1e-9)
    np.testing.assert_allclose(output.temporal_weights[0], weights, atol=1e-9)
    np.testing.assert_allclose(output.spatial_attention[0], maps, atol=1e-9)


def test_sizes_of_the_paper():
    config = SIAMConfig()
    assert config.map_sizes() == (114, 54, 26, 22, 10, 8)
    assert [config.map_size(p) for p in (1, 2, 3)] == [26, 10, 8]
    assert config.receptive_field() == (17, 8, 35)
    with torch.device("meta"):
        model = SIAM(config)
        p, attention = model.appearance(torch.empty(3, 1, 114, 114))
    assert p.shape == (3, 256)
    assert attention.shape == (3, 10, 10)
    assert model.appearance.first.weight.shape == (4096, 256 * 8 * 8)
    assert model.appearance.attention.first_weight.shape == (100, 256, 256)


def test_response_norm_is_alexnets_and_torchs_with_alpha_times_size():
    x = torch.tensor(np.random.default_rng(0).normal(size=(2, 7, 3, 4)) * 5, requires_grad=True)
    norm = ResponseNorm(5, 1e-4, 0.75, 2.0)
    expected = np.stack([numpy_siam.response_norm(f, 5, 1e-4, 0.75, 2.0) for f in x.detach().numpy()])
    np.testing.assert_allclose(norm(x).detach(), expected, atol=1e-12)
    theirs = torch.nn.functional.local_response_norm(x, size=5, alpha=5e-4, beta=0.75, k=2.0)
    np.testing.assert_allclose(norm(x).detach(), theirs.detach(), atol=1e-12)
    for beta in (0.75, 0.6):
        assert torch.autograd.gradcheck(ResponseNorm(5, 0.3, beta, 2.0), (x,))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_spatial_attention_alone(mechanism):
    layer = SpatialAttention(mechanism, 3, 4, 6, 5).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    attended, attention = layer(x)
    for f in range(2):
        expected, expected_map = numpy_siam.spatial_attention(
            x[f].numpy(),
            layer.first_weight.detach().numpy(),
            layer.first_bias.detach().numpy(),
            layer.second_weight.detach().numpy(),
            layer.second_bias.item(),
            mechanism,
        )
        np.testing.assert_allclose(attended[f].detach(), expected, atol=1e-12)
        np.testing.assert_allclose(attention[f].detach(), expected_map, atol=1e-12)
    sizes = {"indexed": (12, 1), "agnostic": (1, 1), "full": (12, 12), "mediate": (1, 12)}
    assert (layer.first_weight.shape[0], layer.second_weight.shape[0]) == sizes[mechanism]


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize(
    ("mechanism", "position"), [*itertools.product(MECHANISMS, (1, 2, 3)), ("indexed", 0)]
)
def test_gradients_by_finite_differences(mechanism, position, ablation):
    """Backward through every module: a directional derivative of the loss against central differences of the forward
    pass, which equals NumPy's; for each parameter, and for the frames."""
    model = random_model(
        tiny(attention_mechanism=mechanism, attention_position=position, **ABLATIONS[ablation])
    )
    frames = torch.randn(2, 3, 62, 62, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    frames.requires_grad_()
    lengths, age = torch.tensor([3, 2]), torch.tensor([30.0, 50.0], dtype=torch.float64)

    def loss() -> torch.Tensor:
        return absolute_error(model(frames, lengths), age, lengths).mean() + 1e-3 * l2_term(model)

    loss().backward()
    for name, tensor in [*model.named_parameters(), ("frames", frames)]:
        direction = torch.randn(tensor.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
        step = 1e-6 / max(1.0, float(direction.norm()))
        with torch.no_grad():
            tensor += step * direction
            up = loss()
            tensor -= 2 * step * direction
            down = loss()
            tensor += step * direction
        expected = (tensor.grad * direction).sum().item()
        assert ((up - down) / (2 * step)).item() == pytest.approx(expected, rel=1e-4, abs=1e-6), name
    assert not frames.grad[1, 2].any(), "padding has no gradient"


def test_padding_changes_nothing_whatever_stands_in_it():
    model = random_model(tiny())
    frames = torch.randn(1, 5, 62, 62, dtype=torch.float64)
    alone = model(frames, torch.tensor([5]))
    padded = torch.full((2, 9, 62, 62), float("nan"), dtype=torch.float64)
    padded[0, :5], padded[1] = frames[0], torch.randn(9, 62, 62)
    together = model(padded, torch.tensor([5, 9]))
    torch.testing.assert_close(together.age[:1], alone.age, rtol=0, atol=1e-12)
    torch.testing.assert_close(together.temporal_weights[:1, :5], alone.temporal_weights, rtol=0, atol=1e-12)
    together.age.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_chunks_with_recomputation_change_nothing():
    model = random_model(tiny()).train()
    frames, lengths = torch.randn(2, 6, 62, 62, dtype=torch.float64), torch.tensor([6, 4])
    results = []
    for chunk in (256, 3):
        model.max_frames_per_pass = chunk
        model.zero_grad()
        output = model(frames, lengths)
        output.age.sum().backward()
        results.append((output.age.detach(), [p.grad.clone() for p in model.parameters()]))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-12)
    for whole, chunked in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(whole, chunked, rtol=0, atol=1e-10)


@pytest.mark.parametrize("hidden", [32, 256])
@pytest.mark.parametrize("start", ["leaky", "identity"])
def test_gradients_over_300_frames_neither_vanish_nor_explode(start, hidden):
    """Of the age with respect to every frame's features, and to every weight. `leaky` must also bound the state, which
    `identity` lets grow with a video's length: the reason why it is the default."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(*(Recurrence(hidden, hidden, start) for _ in range(2)))
    attention = TemporalAttention(hidden, 16)
    p = torch.rand(4, 300, hidden).requires_grad_()
    z = layers(p)
    summary, _ = attention(z, torch.ones(4, 300, dtype=torch.bool))
    summary.sum().backward()
    norms = p.grad.norm(dim=-1).mean(0)  # (T,)
    assert norms[:280].min() > 1e-4
    assert norms.max() < (1e2 if start == "leaky" else 1e7)
    assert norms[:280].max() / norms[:280].min() < (1e2 if start == "leaky" else 1e5)
    for name, weight in layers.named_parameters():
        size = weight.grad.norm() / weight.numel() ** 0.5
        assert 1e-4 < size < (1e3 if start == "leaky" else 1e8), (name, size)
    if start == "leaky":
        assert z[:, 299].norm() < 10 * z[:, 30].norm()
    else:
        assert z[:, 299].norm() > 10 * z[:, 30].norm()


def test_those_bounds_tell_a_bad_start():
    """The bounds above are not empty: states scaled by 0.9 or 1.1 a frame leave them."""
    for factor in (0.9, 1.1):
        torch.manual_seed(0)
        layer = Recurrence(32, 32, "identity")
        with torch.no_grad():
            layer.state_weight.mul_(factor)
        p = torch.rand(4, 300, 32).requires_grad_()
        layer(p)[:, -1].sum().backward()
        norms = p.grad.norm(dim=-1).mean(0)
        assert norms[:280].max() / norms[:280].min() > 1e5


def test_start_and_weights():
    model = SIAM(tiny())
    model.start_at(37.0)
    assert model.regression.bias.item() == 37.0
    names = {name for name, p in model.named_parameters() if any(p is w for w in model.weights())}
    assert "recurrence.0.state_weight" in names
    assert "appearance.attention.second_weight" in names
    assert not any("bias" in name for name in names)
    expected = sum((p.double() ** 2).sum().item() for n, p in model.named_parameters() if n in names)
    assert l2_term(model).item() == pytest.approx(expected, rel=1e-5)


def test_loss_without_recurrence_is_the_mean_over_frames():
    model = random_model(tiny(**ABLATIONS["convolution"]))
    frames, lengths = torch.randn(2, 4, 62, 62, dtype=torch.float64), torch.tensor([4, 2])
    output = model(frames, lengths)
    age = torch.tensor([0.3, -0.2], dtype=torch.float64)
    error = absolute_error(output, age, lengths)
    for b, length in enumerate(lengths.tolist()):
        per_frame = [reference(model, frames[b, t : t + 1].numpy())[0] for t in range(length)]
        assert error[b].item() == pytest.approx(
            np.mean(np.abs(np.array(per_frame) - age[b].item())), abs=1e-9
        )


def test_wrong_shapes_are_answered():
    model = SIAM(tiny())
    with pytest.raises(ValueError, match="62,62"):
        model(torch.zeros(1, 2, 61, 62))
    for lengths in ([0], [3], [1, 1]):
        with pytest.raises(ValueError, match="lengths"):
            model(torch.zeros(1, 2, 62, 62), torch.tensor(lengths))
    for dtype in (torch.uint8, torch.float64):
        with pytest.raises(ValueError, match=r"takes standardised torch\.float32"):
            model(torch.zeros(1, 2, 62, 62, dtype=dtype))
    with pytest.raises(TypeError, match="SIAMConfig, not from 3"):
        SIAM(3)
    assert model(torch.zeros(2, 3, 62, 62), [3, 2]).age.shape == (2,)
    for lengths in ([3], [2.5, 2], [True, True], [None, 2], [[1, 2], [3]], "32"):
        with pytest.raises(ValueError, match="there must be 2 of them, whole numbers from 1 to 3"):
            model(torch.zeros(2, 3, 62, 62), lengths)
    with pytest.raises(TypeError, match="torch tensor"):
        model(np.zeros((1, 2, 62, 62), np.uint8))
    with pytest.raises(ValueError, match="at least one video"):
        model(torch.zeros(0, 2, 62, 62))
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match="takes standardised"):
        model(torch.zeros(1, 2, 62, 62, dtype=torch.uint8))


@pytest.mark.parametrize(
    "changes", [{}, {"lrn": False}, {"attention_position": 0}, {"attention_position": 3}]
)
def test_fresh_features_keep_their_size(changes):
    """What normalisation and attention take away is given back by the next layer's start: 0.1 without that."""
    torch.manual_seed(0)
    model = SIAM(
        SIAMConfig(channels=(16, 24, 32), fully_connected=128, hidden=32, attention_dim=16, **changes)
    )
    with torch.inference_mode():
        p, _ = model.appearance(torch.randn(4, 1, 114, 114))
    assert 0.5 < p.square().mean().sqrt() < 10
    assert 0.7 < model.regression.weight.std() < 1.3
