"""The ONNX file gives what the model gives, in onnxruntime, whatever the number of frames."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from siam_model import SIAM, LoadedModel
from siam_model.config import TrainConfig
from siam_model.onnx import to_onnx
from tests.support.models import card, faces

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.mark.parametrize(
    ("changes", "stride", "mirrored"),
    [
        ({}, 1, False),
        ({}, 4, True),
        ({"attention_mechanism": "full", "attention_position": 1, "centre": "both"}, 3, False),
        (
            {"attention_mechanism": "agnostic", "attention_position": 3, "lrn": False, "centre": "clip"},
            2,
            True,
        ),
        ({"attention_mechanism": "mediate", "pool_padding": 1, "paddings": (1, 2, 0)}, 1, False),
        ({"attention_position": 0, "temporal_attention": False}, 2, True),
        ({"recurrent": False, "temporal_attention": False, "lrn_beta": 0.5, "lrn_size": 3}, 4, True),
        ({"recurrent_layers": 1}, 1, True),
    ],
)
def test_it_gives_what_the_model_gives(changes, stride, mirrored):
    config = dataclasses.replace(card().model, **changes)
    torch.manual_seed(1)
    network = SIAM(config).eval()
    network.start_at(40.0)
    with torch.no_grad():  # states and weights that differ between frames
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    train = TrainConfig(temporal_stride=stride, predict_mirrored=mirrored)
    described = card(model=config, train=train)
    session = onnxruntime.InferenceSession(to_onnx(network, described), providers=["CPUExecutionProvider"])
    model = LoadedModel(network, described)
    for count in (1, 3, 4, 11, 60):
        frames = faces(count)
        ours = model.predict(frames)
        given = dict(
            zip([o.name for o in session.get_outputs()], session.run(None, {"frames": frames}), strict=True)
        )
        assert float(given["age"]) == pytest.approx(ours.age, abs=0.01)
        np.testing.assert_allclose(given["temporal_weights"], ours.temporal_weights, atol=1e-4)
        if ours.spatial_attention is None:
            assert "spatial_attention" not in given
        else:
            np.testing.assert_allclose(given["spatial_attention"], ours.spatial_attention, atol=1e-4)


def test_it_says_how_its_faces_are_made():
    described = card()
    data = to_onnx(SIAM(described.model).eval(), described)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    said = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    assert said["prep"] == described.prep and said["synthetic"] is False
    np.testing.assert_array_equal(said["mean_shape"], described.mean_shape)
    assert "subjects" not in said and "videos" not in said
