"""A trained SIAM as one ONNX file: faces in, age and attention out, for any number of frames.

Needs the package `onnx` (extra `nemo-faces[onnx]`). The graph is written out operation by operation from the weights,
as the equations have it: what an export by tracing makes of the recurrence holds for one number of frames alone.

    input   frames            (T,S,S) uint8, as `nemo prep` warps them with the settings in the file's metadata
    output  age               () float32, years
            temporal_weights  (T,) float32, sums to 1
            spatial_attention (T,M,N) float32, 0..1; not there without spatial attention
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.errors import InstallationError
from siam_model.checkpoint import ModelCard
from siam_model.config import SIAMConfig
from siam_model.model import SIAM
from siam_model.predictions import write_bytes

#: The first version in which all operations are as they are used here.
OPSET = 18
INSTALL = "pip install 'nemo-faces[onnx]'"


def write_onnx(path: Path, model: SIAM, card: ModelCard) -> None:
    """Write the file, by rename.

    Raises:
        NemoError: the package `onnx` is missing.
    """
    write_bytes(path, to_onnx(model, card))


def to_onnx(model: SIAM, card: ModelCard) -> bytes:
    """The model with its normalisation and its reading of every n-th frame, checked by `onnx`.

    Raises:
        NemoError: the package `onnx` is missing.
    """
    try:
        import onnx
    except ImportError:
        raise InstallationError(
            f"ONNX needs the package onnx, which is not installed: {INSTALL}", "onnx"
        ) from None
    graph = _Graph()
    _write(graph, model, card)
    side, config = card.model.face_size, card.model
    outputs: list[tuple[str, list[str | int]]] = [("age", []), ("temporal_weights", ["T"])]
    if config.attention_position:
        cells = config.map_size(config.attention_position)
        outputs.append(("spatial_attention", ["T", cells, cells]))
    made = onnx.helper.make_graph(
        graph.nodes,
        "SIAM",
        [onnx.helper.make_tensor_value_info("frames", onnx.TensorProto.UINT8, ["T", side, side])],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs],
        graph.constants,
    )
    whole = onnx.helper.make_model(
        made, producer_name="nemo", opset_imports=[onnx.helper.make_opsetid("", OPSET)]
    )
    whole.ir_version = 10
    onnx.helper.set_model_props(whole, metadata(card))
    onnx.checker.check_model(whole)
    data: bytes = whole.SerializeToString()
    return data


def metadata(card: ModelCard) -> dict[str, str]:
    """What the file says of itself; subjects and videos are left out."""
    return {
        "synthetic": json.dumps(card.synthetic),
        "ages": json.dumps(card.ages),
        "prep": json.dumps(card.prep),
        "mean_shape": json.dumps(np.asarray(card.mean_shape).tolist()),
        "triangles": json.dumps(np.asarray(card.triangles).tolist()),
        "versions": json.dumps(card.versions),
    }


class _Graph:
    """Nodes and constants of a graph; values are known by their names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, op: str, *inputs: Any, name: str = "", **attributes: Any) -> str:
        """Add an operation with one output; answers its name. Inputs are names or arrays."""
        return self.several(op, 1, *inputs, name=name, **attributes)[0]

    def several(self, op: str, count: int, *inputs: Any, name: str = "", **attributes: Any) -> list[str]:
        """The same with `count` outputs."""
        from onnx import helper

        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        out = (
            [name or f"v{len(self.nodes)}"]
            if count == 1
            else [f"v{len(self.nodes)}_{k}" for k in range(count)]
        )
        self.nodes.append(helper.make_node(op, names, out, **attributes))
        return out

    def constant(self, value: Any) -> str:
        """An array as a constant."""
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name


def _whole(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def _write(g: _Graph, model: SIAM, card: ModelCard) -> None:
    """The whole graph. n interleaved series of every n-th frame are a batch of n: frame t*n + k is at (t, k). Where
    mirror images count as well, each is a series behind its own: a batch of n*m, m = 2, else 1."""
    config, side, n = card.model, card.model.face_size, card.train.temporal_stride
    m = 2 if card.train.predict_mirrored else 1
    weights = {name: p.detach().cpu().numpy() for name, p in model.state_dict().items()}
    count = g("Gather", g("Shape", "frames"), np.int64(0), axis=0)  # T
    rows = g("Div", g("Add", count, np.int64(n - 1)), np.int64(n))  # T' = ceil(T / n)
    padded = g("Mul", rows, np.int64(n))
    # Frames behind the last one are black; their weight is 0.
    missing = g("Reshape", g("Sub", padded, count), _whole(1))
    pads = g("Concat", _whole(0, 0, 0), missing, _whole(0, 0), axis=0)
    frames = g("Pad", g("Cast", "frames", to=1), pads, np.float32(0))
    x = g(
        "Div", g("Sub", frames, np.float32(card.normalisation.mean)), np.float32(card.normalisation.deviation)
    )
    x = g("Reshape", x, _whole(-1, 1, side, side))
    if m == 2:
        x = g("Reshape", g("Concat", x, _mirrored(g, x, 3), axis=1), _whole(-1, 1, side, side))
    x, attention = _appearance(g, x, config, weights)  # (T'nm, h), (T'nm, M, N)
    p = g("Reshape", x, _whole(-1, n * m, config.hidden))  # (T', nm, h)
    place = g("Div", g("Range", np.int64(0), g("Mul", padded, np.int64(m)), np.int64(1)), np.int64(m))
    real = g("Cast", g("Reshape", g("Less", place, count), _whole(-1, n * m)), to=1)  # (T', nm)
    length = g("Max", g("ReduceSum", real, _whole(0), keepdims=1), np.float32(1))  # (1, nm)
    series = g("Mul", g("Cast", g("Min", count, np.int64(n)), to=1), np.float32(m))  # how many have frames
    even = g("Div", real, length)
    if config.recurrent:
        z = _centred(g, p, real, length, config)
        for layer in range(config.recurrent_layers):
            z = _recurrence(g, z, weights, f"recurrence.{layer}")
        o = _temporal(g, z, real, weights) if config.temporal_attention else even
    else:
        z, o = p, even
    summary = g("ReduceSum", g("Mul", z, g("Unsqueeze", o, _whole(2))), _whole(0), keepdims=0)  # (nm, h)
    age = g("Gemm", summary, weights["regression.weight"], weights["regression.bias"], transB=1)  # (nm, 1)
    there = g("Cast", g("Less", np.arange(n * m, dtype=np.int64) // m, count), to=1)  # (nm,)
    total = g("ReduceSum", g("Mul", g("Reshape", age, _whole(n * m)), there), keepdims=0)
    g("Div", total, series, name="age")
    end = g("Reshape", count, _whole(1))
    both = g("ReduceSum", g("Reshape", o, _whole(-1, m)), _whole(1), keepdims=0)
    flat = g("Div", both, series)
    g("Slice", flat, _whole(0), end, _whole(0), name="temporal_weights")
    if attention:
        if m == 2:
            cells = config.map_size(config.attention_position)
            maps = g("Reshape", attention, _whole(-1, 2, cells, cells))
            own, other = (g("Gather", maps, np.int64(k), axis=1) for k in range(2))
            attention = g("Mul", g("Add", own, _mirrored(g, other, 2)), np.float32(0.5))
        g("Slice", attention, _whole(0), end, _whole(0), name="spatial_attention")


def _mirrored(g: _Graph, x: str, axis: int) -> str:
    """The same, from right to left."""
    return g("Slice", x, _whole(-1), _whole(-(2**31)), _whole(axis), _whole(-1))


def _appearance(g: _Graph, x: str, config: SIAMConfig, weights: dict[str, np.ndarray]) -> tuple[str, str]:
    """(F,1,S,S) -> p (F,h), and the name of the attention maps (F,M,N), "" without."""
    attention = ""
    for i in range(3):
        x = g(
            "Conv", x, weights[f"appearance.convolutions.{i}.weight"], weights[f"appearance.convolutions.{i}.bias"],
            kernel_shape=[config.kernels[i]] * 2, strides=[config.strides[i]] * 2, pads=[config.paddings[i]] * 4,
        )  # fmt: skip
        x = g("Relu", x)
        if config.lrn and i < 2:  # ONNX divides alpha by the size, as PyTorch does
            x = g(
                "LRN", x, size=config.lrn_size, alpha=config.lrn_alpha * config.lrn_size, beta=config.lrn_beta,
                bias=config.lrn_k,
            )  # fmt: skip
        if config.pools[i]:
            x = g(
                "MaxPool", x, kernel_shape=[config.pools[i]] * 2, strides=[config.pool_stride] * 2,
                pads=[config.pool_padding] * 4,
            )  # fmt: skip
        if config.attention_position == i + 1:
            x, attention = _spatial(g, x, config.map_size(i + 1), config.channels[i], weights)
    x = g("Flatten", x, axis=1)
    for name in ("first", "second"):
        x = g(
            "Relu",
            g("Gemm", x, weights[f"appearance.{name}.weight"], weights[f"appearance.{name}.bias"], transB=1),
        )
    return x, attention


def _spatial(g: _Graph, x: str, cells: int, channels: int, weights: dict[str, np.ndarray]) -> tuple[str, str]:
    """Equations 1 and 2: (F,C,M,N) -> attended, map (F,M,N)."""
    first, bias, second, last = (
        weights[f"appearance.attention.{name}"]
        for name in ("first_weight", "first_bias", "second_weight", "second_bias")
    )
    each = g(
        "Reshape", g("Transpose", x, perm=[2, 3, 0, 1]), _whole(cells * cells, -1, channels)
    )  # (MN, F, C)
    middle = g("Add", g("MatMul", each, first.transpose(0, 2, 1)), bias[:, None])  # (MN, F, d)
    score = g("ReduceSum", g("Mul", g("Tanh", middle), second[:, None]), _whole(-1), keepdims=0)  # (MN, F)
    maps = g("Transpose", g("Sigmoid", g("Add", score, last)), perm=[1, 0])
    attention = g("Reshape", maps, _whole(-1, cells, cells))
    return g("Mul", x, g("Unsqueeze", attention, _whole(1))), attention


def _centred(g: _Graph, p: str, real: str, length: str, config: SIAMConfig) -> str:
    """What the recurrence sees of p (T',n,h): `SIAMConfig.centre`."""
    if config.centre == "none":
        return p
    mask = g("Unsqueeze", real, _whole(2))
    mean = g("ReduceSum", g("Mul", p, mask), _whole(0), keepdims=1)
    rest = g("Mul", g("Sub", p, g("Div", mean, g("Unsqueeze", length, _whole(2)))), mask)
    return rest if config.centre == "clip" else g("Concat", g("Mul", p, mask), rest, axis=2)


def _recurrence(g: _Graph, p: str, weights: dict[str, np.ndarray], layer: str) -> str:
    """Equation 3, one layer: (T',n,i) -> (T',n,h)."""
    bias, hidden = weights[f"{layer}.bias"], len(weights[f"{layer}.bias"])
    both = np.concatenate([bias, np.zeros_like(bias)])[None]  # ONNX has a second one, of the state
    inputs, state = weights[f"{layer}.input_weight"][None], weights[f"{layer}.state_weight"][None]
    z = g("RNN", p, inputs, state, both, hidden_size=hidden, activations=["Relu"])  # (T', 1, n, h)
    return g("Squeeze", z, _whole(1))


def _temporal(g: _Graph, z: str, real: str, weights: dict[str, np.ndarray]) -> str:
    """Equations 4 and 5: z (T',n,h) -> o (T',n), 0 where there is no frame."""
    first, bias, second, last = (
        weights[f"temporal.{name}"] for name in ("first_weight", "first_bias", "second_weight", "second_bias")
    )
    middle = g("Tanh", g("Add", g("MatMul", z, first.T), bias))
    score = g("ReduceSum", g("Mul", middle, second), _whole(2), keepdims=0)
    e = g("Mul", g("Sigmoid", g("Add", score, last)), real)
    # A series without frames has no weight.
    total = g("Max", g("ReduceSum", e, _whole(0), keepdims=1), np.float32(1e-30))
    return g("Div", e, total)
