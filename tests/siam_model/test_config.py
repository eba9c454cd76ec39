"""Settings: presets, typed overrides, and answers to what does not fit. And what an import may load."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import SettingsError
from siam_model.config import SIAMConfig, TrainConfig, preset
from siam_model.protocol.overrides import configure, split_assignments


def test_the_papers_preset():
    model, train = preset("paper")
    assert (model.channels, model.kernels, model.strides) == ((128, 256, 256), (7, 5, 3), (2, 1, 1))
    assert (model.fully_connected, model.hidden, model.recurrent_layers) == (4096, 256, 2)
    assert (model.attention_mechanism, model.attention_position, model.attention_dim) == ("indexed", 2, 256)
    assert (train.learning_rate, train.rmsprop_alpha, train.clip, train.temporal_stride) == (
        1e-4,
        0.9,
        5.0,
        1,
    )
    assert train.schedule == "constant"


def test_the_dynamics_preset_is_the_small_one_but_for_what_is_beyond_the_paper():
    (model, train), (small, usual) = preset("dynamics"), preset("small")
    assert model == dataclasses.replace(small, centre="both")
    assert train.pretrain == "expression" and not train.freeze_appearance
    names = {f.name for f in dataclasses.fields(train) if getattr(train, f.name) != getattr(usual, f.name)}
    assert names == {"epochs", "validation_fraction", "pretrain", "pretrain_share"}


@pytest.mark.parametrize("name", ["paper", "small", "dynamics", "stills"])
def test_configurations_survive_json(name):
    model, train = preset(name)
    assert SIAMConfig.from_dict(json.loads(json.dumps(model.to_dict()))) == model
    assert TrainConfig.from_dict(json.loads(json.dumps(train.to_dict()))) == train


def test_typed_overrides():
    model, train = configure(
        "paper",
        {
            "model.hidden": "512",
            "model.channels": "8, 16,32",
            "model.lrn": "off",
            "model.attention_mechanism": "mediate",
            "model.attention_position": "none",
            "model.dropout_conv": "0.2",
            "train.l2": "3e-3",
        },
        train__epochs=7,
        model__face_size=130,
    )
    assert (model.hidden, model.channels, model.lrn, model.attention_mechanism) == (
        512,
        (8, 16, 32),
        False,
        "mediate",
    )
    assert (model.attention_position, model.dropout_conv, model.face_size) == (0, 0.2, 130)
    assert (train.l2, train.epochs) == (3e-3, 7)
    assert configure("paper", None, train__epochs=None)[1].epochs == TrainConfig().epochs


@pytest.mark.parametrize(
    ("name", "value", "answer"),
    [
        ("model.hiden", "3", "did you mean 'model.hidden'"),
        ("hidden", "3", "did you mean 'model.hidden'"),
        ("hiden", "3", "did you mean 'model.hidden'"),
        ("train.lr", "3", "did you mean 'train.learning_rate'"),
        ("LR", "3", "did you mean 'train.learning_rate'"),
        ("train.weight_decay", "3", "did you mean 'train.l2'"),
        ("model.dropout", "3", "did you mean 'model.dropout_conv' or 'model.dropout_recurrent'"),
        ("train.zzz", "3", "there are model.face_size, .*, train.learning_rate"),
        ("train.learning-rate", "3", "did you mean 'train.learning_rate'"),
        ("model.hidden", "many", "model.hidden takes a whole number; 'many'"),
        ("model.hidden", "2.5", "takes a whole number"),
        ("train.l2", "x", "takes a number"),
        ("model.lrn", "maybe", "takes true or false"),
        ("model.attention_mechanism", "spatial", "takes one of indexed, agnostic, full, mediate"),
        ("model.hidden", "0", "model.hidden is 0; it must be at least 1"),
        ("model.channels", "1,2", "three whole numbers"),
        ("model.dropout_conv", "1", "at least 0 and below 1"),
        ("model.attention_position", "4", "0 \\(none\\), 1, 2 or 3"),
        ("model.face_size", "40", "no pixel is left"),
        ("model.recurrent", "no", "temporal_attention"),
        ("train.clip", "0", "above 0"),
        ("train.schedule", "linear", "constant, cosine"),
        ("train.l2", "inf", "finite number"),
        ("train.clip", "nan", "finite number"),
    ],
)
def test_what_does_not_fit_is_answered(name, value, answer):
    with pytest.raises(SettingsError, match=answer):
        configure("paper", {name: value})


@pytest.mark.parametrize(
    ("make", "values", "answer"),
    [
        (SIAMConfig, {"hidden": "a"}, "hidden is 'a'; it must be a whole number"),
        (SIAMConfig, {"hidden": 3.5}, "whole number"),
        (SIAMConfig, {"hidden": True}, "whole number"),
        (SIAMConfig, {"channels": (8, 16.5, 32)}, "three whole numbers"),
        (SIAMConfig, {"channels": 8}, "three whole numbers"),
        (SIAMConfig, {"lrn": "yes"}, "true or false"),
        (SIAMConfig, {"lrn_alpha": -1.0}, r"lrn_alpha is -1\.0; it must be at least 0"),
        (SIAMConfig, {"lrn_beta": -1.0}, "at least 0"),
        (TrainConfig, {"learning_rate": None}, "finite number"),
        (PrepConfig, {"size": 64.5}, "whole number"),
        (PrepConfig, {"margin": "wide"}, "finite number"),
        (PrepConfig, {"mean_shape": 3.5}, "one of shipped, from-data, custom"),
        (PrepConfig, {"landmarks_source": "clnf", "mesh": False}, "one of track, openface"),
    ],
)
def test_a_value_of_another_kind_is_answered(make, values, answer):
    with pytest.raises(ValueError, match=answer):
        make(**values)


def test_a_whole_number_for_a_float_is_the_same_setting():
    one, other = PrepConfig(max_gap_seconds=1), PrepConfig(max_gap_seconds=np.float32(1.0))
    assert one.fingerprint() == other.fingerprint() == PrepConfig(max_gap_seconds=1.0).fingerprint()
    assert json.dumps(SIAMConfig(hidden=np.int64(32), lrn_k=2).to_dict()) == json.dumps(
        SIAMConfig(hidden=32, lrn_k=2.0).to_dict()
    )


def test_unknown_preset_and_malformed_assignment():
    with pytest.raises(SettingsError, match="paper, small"):
        configure("large")
    assert split_assignments(["a.b = 1=2"]) == {"a.b": "1=2"}
    with pytest.raises(SettingsError, match="FIELD=VALUE"):
        split_assignments(["model.hidden"])


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import siam_model", "mediapipe dask cv2 av torch matplotlib"),
        ("import siam_model; siam_model.SIAMConfig", "mediapipe dask cv2 av torch"),
        (
            "import siam_model; siam_model.SIAM; siam_model.load",
            "mediapipe dask cv2 av matplotlib scipy",
        ),
        ("import siam_model.train, siam_model.evaluate", "mediapipe dask cv2 av ai_edge_litert"),
        (
            "import nemo_cli.predict, siam_model.figures.plain, siam_model.predict",
            "mediapipe dask cv2 av",
        ),
        (
            "import nemo_cli.train, nemo_cli.evaluate, nemo_cli.predict",
            "torch mediapipe dask cv2 av",
        ),
    ],
)
def test_imports_stay_light(statement, forbidden):
    code = f"{statement}; import sys; print([m for m in {forbidden.split()!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
