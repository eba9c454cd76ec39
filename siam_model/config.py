"""`SIAMConfig` (the network) and `TrainConfig` (its training): one validated field per decision, and the
presets.

Needs neither torch nor numpy, so that the command line can print and check settings without loading them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

from nemo_pipeline.fields import added, check_kinds, from_record, plain, whole

Mechanism = Literal["indexed", "agnostic", "full", "mediate"]
RecurrentInit = Literal["leaky", "identity"]
Schedule = Literal["constant", "cosine"]
AgeWeighting = Literal["none", "density"]
Pretrain = Literal["none", "expression", "shape"]
Centre = Literal["none", "clip", "both"]
Preset = Literal["paper", "small", "dynamics", "stills"]
Precision = Literal["32", "bf16-mixed", "16-mixed"]
StudyName = Literal["mechanisms", "positions", "modules", "conditions"]


class ReceptiveField(NamedTuple):
    """What one cell of a feature map looks at. Cell i is centred at pixel `first + i * step`; `size` pixels
    wide."""

    first: float
    step: int
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class SIAMConfig:
    """The network; the defaults are those of the paper's section III.

    The paper gives neither padding nor pooling sizes; it cites AlexNet for both normalisation and
    architecture, so 3x3 pools of stride 2, no padding, and AlexNet's response normalisation are the defaults.

    Attributes:
        face_size: side S of the input face, pixels.
        channels: kernels of the three convolutional layers.
        kernels: their sides.
        strides: their strides.
        paddings: zeros added on each side of their inputs.
        pools: side of the max-pool after each convolutional layer; 0 means no pool.
        pool_stride: stride of every max-pool.
        pool_padding: padding of every max-pool.
        lrn: response normalisation after the first and second convolutional layer.
        lrn_size: channels that are summed over.
        lrn_alpha: factor of the sum of squares (AlexNet's; PyTorch's own function divides by the size first).
        lrn_beta: exponent.
        lrn_k: constant term.
        fully_connected: neurons of the first fully connected layer. The second has `hidden` neurons.
        hidden: h, units of each recurrent layer.
        recurrent_layers: layers of the recurrent module.
        centre: what the recurrence sees of the features p_t: `none` (the paper's): p_t; `clip`: p_t less its mean over
            the clip, so that what is constant in a clip, a person's looks, drops out; `both`, one after the other.
        recurrent: False for the ablation without recurrence (age per frame; their mean is the video's age).
        recurrent_init: how a recurrence starts: see `siam_model.layers.Recurrence`.
        attention_mechanism: how weights are shared in the spatial attention (Table I of the paper).
        attention_position: after which convolutional layer the spatial attention sits; 0 for none.
        attention_dim: d, width of the spatial attention's first layer.
        temporal_attention: False for the ablation that takes the plain mean of z_t. Needs `recurrent`.
        temporal_dim: n', width of the temporal attention's first layer (the paper leaves it open).
        dropout_conv: dropout of the convolutional part: on the input of both fully connected layers.
        dropout_recurrent: dropout of the recurrent part: on the input of every recurrent layer, not on the
            state.

    Examples:
        >>> from siam_model import SIAMConfig
        >>> SIAMConfig(hidden=128).attention_mechanism
        'indexed'
    """

    face_size: int = 114
    channels: tuple[int, int, int] = (128, 256, 256)
    kernels: tuple[int, int, int] = (7, 5, 3)
    strides: tuple[int, int, int] = (2, 1, 1)
    paddings: tuple[int, int, int] = (0, 0, 0)
    pools: tuple[int, int, int] = (3, 3, 0)
    pool_stride: int = 2
    pool_padding: int = 0
    lrn: bool = True
    lrn_size: int = 5
    lrn_alpha: float = 1e-4
    lrn_beta: float = 0.75
    lrn_k: float = 2.0
    fully_connected: int = 4096
    hidden: int = 256
    recurrent_layers: int = 2
    centre: Centre = added("none")
    recurrent: bool = True
    recurrent_init: RecurrentInit = "leaky"
    attention_mechanism: Mechanism = "indexed"
    attention_position: int = 2
    attention_dim: int = 256
    temporal_attention: bool = True
    temporal_dim: int = 128
    dropout_conv: float = 0.0
    dropout_recurrent: float = 0.0

    def __post_init__(self) -> None:
        """Check every field. Raises ValueError with the field, its value and what is allowed."""
        check_kinds(self)
        for name in ("channels", "kernels", "strides", "paddings", "pools"):
            values = getattr(self, name)
            least = 0 if name in ("paddings", "pools") else 1
            ok = (
                isinstance(values, Sequence)
                and len(values) == 3
                and all(whole(v) and v >= least for v in values)
            )
            _need(ok, self, name, f"three whole numbers of at least {least}")
            object.__setattr__(self, name, tuple(int(v) for v in values))
        for name in (
            "face_size", "fully_connected", "hidden", "recurrent_layers", "attention_dim", "temporal_dim",
            "lrn_size", "pool_stride",
        ):  # fmt: skip
            _need(getattr(self, name) >= 1, self, name, "at least 1")
        _need(self.lrn_size % 2 == 1, self, "lrn_size", "an odd number of channels")
        _need(self.lrn_k > 0, self, "lrn_k", "above 0")
        for name in ("lrn_alpha", "lrn_beta"):
            _need(getattr(self, name) >= 0, self, name, "at least 0")
        _need(self.pool_padding >= 0, self, "pool_padding", "at least 0")
        for pool in self.pools:
            _need(
                not pool or 2 * self.pool_padding <= pool,
                self,
                "pool_padding",
                "at most half of a pool's side",
            )
        _need(
            self.attention_mechanism in get_args(Mechanism), self, "attention_mechanism", _one_of(Mechanism)
        )
        _need(self.recurrent_init in get_args(RecurrentInit), self, "recurrent_init", _one_of(RecurrentInit))
        _need(self.attention_position in (0, 1, 2, 3), self, "attention_position", "0 (none), 1, 2 or 3")
        for name in ("dropout_conv", "dropout_recurrent"):
            _need(0 <= getattr(self, name) < 1, self, name, "at least 0 and below 1")
        _need(self.centre in get_args(Centre), self, "centre", _one_of(Centre))
        _need(
            self.recurrent or self.centre == "none", self, "centre",
            "none when model.recurrent is false, since it is the recurrence's input",
        )  # fmt: skip
        _need(
            self.recurrent or not self.temporal_attention, self, "temporal_attention",
            "false when model.recurrent is false, since it weighs the recurrence's states",
        )  # fmt: skip
        if min(self.map_sizes()) < 1:
            trail = " -> ".join(str(n) for n in self.map_sizes())
            raise ValueError(
                f"face_size is {self.face_size}, and no pixel is left after the layers ({trail}); take larger "
                "faces, or smaller kernels, strides and pools."
            )

    def map_sizes(self) -> tuple[int, ...]:
        """Sides of the maps: 114, 54, 26, 22, 10, 8 by default (side after the input, then after each
        convolution and each pool)."""
        sizes = [self.face_size]
        for layer in range(3):
            sizes.append(
                (sizes[-1] + 2 * self.paddings[layer] - self.kernels[layer]) // self.strides[layer] + 1
            )
            if self.pools[layer]:
                sizes.append((sizes[-1] + 2 * self.pool_padding - self.pools[layer]) // self.pool_stride + 1)
        return tuple(sizes)

    def map_size(self, position: int) -> int:
        """Side of the map after convolutional layer `position` (1 to 3) and its pool."""
        steps = sum(1 + bool(self.pools[layer]) for layer in range(position))
        return self.map_sizes()[steps]

    def receptive_field(self, position: int | None = None) -> ReceptiveField:
        """Centre of the first cell, step and size of the field, in pixels of the face; position 1 to 3.

        By default that of the spatial attention's map: (17, 8, 35) after the second layer.
        """
        position = self.attention_position if position is None else position
        first, step, size = 0.0, 1, 1
        for layer in range(position):
            stages = [(self.kernels[layer], self.strides[layer], self.paddings[layer])]
            if self.pools[layer]:
                stages.append((self.pools[layer], self.pool_stride, self.pool_padding))
            for kernel, stride, padding in stages:
                first += ((kernel - 1) / 2 - padding) * step
                size += (kernel - 1) * step
                step *= stride
        return ReceptiveField(first, step, size)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON types (`nemo_pipeline.fields.plain`)."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SIAMConfig:
        """The inverse of `to_dict`. Raises ValueError on an unknown field or a value that cannot be."""
        return from_record(cls, values, strict=True)


@dataclasses.dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a SIAM is trained. Defaults are the paper's where it gives them (section IV-C).

    Attributes:
        epochs: maximum number of passes over the training videos.
        batch_size: videos per step.
        learning_rate: of RMSprop.
        schedule: of the learning rate over `epochs`: `constant` (the paper names none), or `cosine`, which falls
            to zero and so ends without the jitter of large steps.
        rmsprop_alpha: decay of RMSprop's running mean of squared gradients.
        epsilon: added to RMSprop's denominator.
        l2: lambda: factor of the sum of squared weights (not biases) in the loss.
        clip: every element of the gradient is clipped to [-clip, clip].
        patience: epochs without a better validation error before training stops.
        validation_fraction: part of the training subjects kept for early stopping. 0: all train, every epoch is run,
            and the last weights are kept.
        test_fraction: part of all subjects held out and predicted at the end of a run without folds.
        temporal_stride: a video is read as this many interleaved series of every n-th frame. A training pass
            takes one of them at random, a prediction is the mean over all. 1 is the paper's: every frame.
        max_frames_per_pass: maximum number of frames that pass through the convolutions at once; a training step
            with more recomputes them, a quarter of that at a time, in its backward pass, so that memory hardly grows
            with a video's length.
        age_weighting: `none` (the paper's), or `density`: videos of rare ages weigh more in the loss
            (`siam_model.augment.density_weights`).
        augment_mirror: mirror half of the training clips, chosen at random (not in the paper).
        augment_brightness: multiply a training clip's gray levels by a random factor between 1/(1+b) and
            1+b; 0 is the paper's.
        augment_turn: turn a training clip's faces by up to so many degrees either way; 0 is the paper's.
        augment_shift: shift them by up to this part of their side, across and down; 0 is the paper's.
        predict_mirrored: a prediction is the mean over a clip and its mirror image; False is the paper's.
        temporal_crop: a pass over the training clips, with ages, takes a contiguous part of each, at a random place,
            whose share of the clip is drawn evenly from 1 - temporal_crop to 1; 0 is the paper's: whole clips.
        pretrain: what the appearance module learns before ages, without labels: `none` (the paper's), `expression` or
            `shape` (`siam_model.training.pretrain`).
        pretrain_epochs: passes over the training videos for that.
        pretrain_learning_rate: of RMSprop in these.
        pretrain_share: part of the h units that learn it. The others keep their start, for age to use.
        freeze_appearance: first epochs of ages in which the appearance module stays as it is. Its features are then
            computed once. 0 is the paper's.
        frozen_learning_rate: of RMSprop in these; the schedule spans them alone, and starts over after them.

    Examples:
        >>> from siam_model import TrainConfig
        >>> TrainConfig(epochs=50).learning_rate
        0.0001
    """

    epochs: int = 200
    batch_size: int = 8
    learning_rate: float = 1e-4
    schedule: Schedule = "constant"
    rmsprop_alpha: float = 0.9
    epsilon: float = 1e-8
    l2: float = 1e-4
    clip: float = 5.0
    patience: int = 20
    validation_fraction: float = 0.15
    test_fraction: float = 0.25
    temporal_stride: int = 1
    max_frames_per_pass: int = 128
    age_weighting: AgeWeighting = "none"
    augment_mirror: bool = False
    augment_brightness: float = 0.0
    augment_turn: float = added(0.0)
    augment_shift: float = added(0.0)
    predict_mirrored: bool = added(False)
    temporal_crop: float = added(0.0)
    pretrain: Pretrain = added("none")
    pretrain_epochs: int = added(6)
    pretrain_learning_rate: float = added(1e-3)
    pretrain_share: float = added(1.0)
    freeze_appearance: int = added(0)
    frozen_learning_rate: float = added(3e-3)

    def __post_init__(self) -> None:
        """Check every field. Raises ValueError with the field, its value and what is allowed."""
        check_kinds(self)
        for name in (
            "epochs", "batch_size", "patience", "temporal_stride", "max_frames_per_pass", "pretrain_epochs",
        ):  # fmt: skip
            _need(getattr(self, name) >= 1, self, name, "at least 1")
        for name in ("learning_rate", "epsilon", "clip", "pretrain_learning_rate", "frozen_learning_rate"):
            _need(getattr(self, name) > 0, self, name, "above 0")
        _need(self.schedule in get_args(Schedule), self, "schedule", _one_of(Schedule))
        _need(0 <= self.rmsprop_alpha < 1, self, "rmsprop_alpha", "at least 0 and below 1")
        _need(self.l2 >= 0, self, "l2", "at least 0")
        _need(self.age_weighting in get_args(AgeWeighting), self, "age_weighting", _one_of(AgeWeighting))
        _need(self.pretrain in get_args(Pretrain), self, "pretrain", _one_of(Pretrain))
        _need(0 < self.pretrain_share <= 1, self, "pretrain_share", "above 0 and at most 1")
        _need(self.freeze_appearance >= 0, self, "freeze_appearance", "at least 0")
        _need(0 <= self.augment_brightness <= 4, self, "augment_brightness", "from 0 to 4")
        _need(0 <= self.augment_turn <= 45, self, "augment_turn", "from 0 to 45 degrees")
        _need(0 <= self.augment_shift <= 0.25, self, "augment_shift", "from 0 to 0.25 of the side")
        _need(0 <= self.temporal_crop < 1, self, "temporal_crop", "at least 0 and below 1")
        _need(0 <= self.validation_fraction < 0.9, self, "validation_fraction", "at least 0 and below 0.9")
        _need(0 < self.test_fraction < 0.9, self, "test_fraction", "above 0 and below 0.9")

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON types (`nemo_pipeline.fields.plain`)."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`. Raises ValueError on an unknown field or a value that cannot be."""
        return from_record(cls, values, strict=True)


#: Settings that the paper has no counterpart of; at their defaults they do nothing.
_BEYOND = (
    "model.centre", "train.pretrain", "train.freeze_appearance", "train.age_weighting", "train.augment_mirror",
    "train.augment_brightness", "train.augment_turn", "train.augment_shift", "train.predict_mirrored",
    "train.temporal_crop",
)  # fmt: skip


def beyond_paper(model: dict[str, Any], train: dict[str, Any]) -> list[str]:
    """What a training has that is beyond the paper, as `name=value`; from the `to_dict()` of both configurations."""
    parts = {"model": (model, SIAMConfig), "train": (train, TrainConfig)}
    found = []
    for setting in _BEYOND:
        section, _, name = setting.partition(".")
        values, config = parts[section]
        default = next(field.default for field in dataclasses.fields(config) if field.name == name)
        if values.get(name, default) != default:
            found.append(f"{setting}={values[name]}")
    return found


def preset(name: str) -> tuple[SIAMConfig, TrainConfig]:
    """The two configurations of a preset.

    `paper`: sections III and IV-C of the paper. `small`: a network of the same shape that trains in about a
    minute on two cores with some 70 clips of 60 frames: narrower layers, every fourth frame, and a larger step
    that shrinks to nothing, since so few videos make so few steps. Its narrow maps leave room for twice as many frames
    at once, so that a batch of clips of up to some 120 frames is not computed twice. `dynamics`: beyond the paper; the
    network of `small`, half of whose features are first taught how far the expression has gone, for ages that show in
    its course (`train.pretrain`). `stills`: beyond the paper; for single pictures, chosen by
    measurement (docs/real-ages.md): wider than `small`, no response normalisation, dropout, augmentation, predictions
    over a face and its mirror image.

    Raises:
        ValueError: the preset does not exist.
    """
    if name == "paper":
        return SIAMConfig(), TrainConfig()
    small = SIAMConfig(
        channels=(16, 24, 32), fully_connected=128, hidden=32, attention_dim=16, temporal_dim=16
    )
    training = TrainConfig(
        epochs=40,
        learning_rate=1e-3,
        schedule="cosine",
        patience=40,
        temporal_stride=4,
        max_frames_per_pass=256,
    )
    if name == "small":
        return small, training
    if name == "dynamics":
        return dataclasses.replace(small, centre="both"), dataclasses.replace(
            training,
            epochs=24,
            validation_fraction=0.0,
            pretrain="expression",
            pretrain_share=0.5,
        )
    if name == "stills":
        model = SIAMConfig(
            channels=(32, 64, 96), lrn=False, fully_connected=256, hidden=64, attention_dim=16, temporal_dim=16,
            dropout_conv=0.2,
        )  # fmt: skip
        return model, TrainConfig(
            epochs=30,
            learning_rate=7e-4,
            schedule="cosine",
            patience=30,
            validation_fraction=0.0,
            temporal_stride=4,
            max_frames_per_pass=256,
            augment_mirror=True,
            predict_mirrored=True,
            augment_brightness=0.15,
            augment_turn=4.0,
            augment_shift=0.02,
        )
    raise ValueError(f"there is no preset {name!r}; there are {', '.join(get_args(Preset))}.")


def _need(ok: bool, config: Any, field: str, allowed: str) -> None:
    if not ok:
        raise ValueError(f"{field} is {getattr(config, field)!r}; it must be {allowed}.")


def _one_of(literal: Any) -> str:
    return "one of " + ", ".join(get_args(literal))
