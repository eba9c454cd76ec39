"""The Spatially-Indexed Attention Model, read top to bottom: appearance, spatial attention, recurrence,
temporal attention, regression (Figure 1 of the paper)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from siam_model.config import SIAMConfig
from siam_model.devices import to_device
from siam_model.layers import Recurrence, ResponseNorm, SpatialAttention, TemporalAttention, to_float32

#: Frames that pass through the convolutions at once, where a training did not say otherwise.
MAX_FRAMES_PER_PASS = 128
#: Frames that a CPU takes through the convolutions at a time, so that their maps stay in its caches. The fully
#: connected layers take all frames of a pass at once, since every pass reads their weights from memory.
FRAMES_IN_CACHE = 16
#: Autocast takes single and half precision alike, and nothing else.
_MIXED = (torch.float32, torch.float16, torch.bfloat16)


@dataclasses.dataclass(frozen=True, slots=True)
class SIAMOutput:
    """The output of one forward pass for B videos of at most T frames.

    Attributes:
        age: (B,) years.
        temporal_weights: (B,T), sums to 1 over a video's frames; exactly 0 on padding. 1/length where the
            configuration has no temporal attention.
        state_age: (B,T) years, 0 on padding: equation 7 of each frame's state alone. Their mean, weighted by
            `temporal_weights`, is the age.
        spatial_attention: (B,T,M,N) in 0..1, 0 on padding; None where the configuration has no spatial
            attention.
        frame_age: (B,T) years, 0 on padding; only where the configuration has no recurrence, else None.
    """

    age: Tensor
    temporal_weights: Tensor
    state_age: Tensor
    spatial_attention: Tensor | None = None
    frame_age: Tensor | None = None


class AppearanceModule(nn.Module):
    """Convolutional appearance module with the spatial attention inside it (sections III-A and III-B).

    Each convolution is followed by ReLU; the first two then by response normalisation; then by a max-pool
    where the configuration has one; then by the spatial attention where it sits. Two fully connected layers
    with ReLU end it.
    """

    def __init__(self, config: SIAMConfig) -> None:
        super().__init__()
        self.config = config
        inputs = (1, *config.channels[:2])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs[i], config.channels[i], config.kernels[i], config.strides[i], config.paddings[i])
            for i in range(3)
        )
        self.norm = ResponseNorm(config.lrn_size, config.lrn_alpha, config.lrn_beta, config.lrn_k)
        self.attention: SpatialAttention | None = None
        if config.attention_position:
            side, channels = (
                config.map_size(config.attention_position),
                config.channels[config.attention_position - 1],
            )
            self.attention = SpatialAttention(
                config.attention_mechanism, side, side, channels, config.attention_dim
            )
        self.first = nn.Linear(config.channels[2] * config.map_sizes()[-1] ** 2, config.fully_connected)
        self.second = nn.Linear(config.fully_connected, config.hidden)
        self.dropout = nn.Dropout(config.dropout_conv)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """He's rule for ReLU layers, times what the layers between take away from a layer's input: a fresh response
        normalisation divides by about k^beta (1.68) and a fresh attention halves. Without the compensation features
        start at a fifth of their size, and a small training set spends its first dozen epochs at the median."""
        config = self.config
        for i, layer in enumerate((*self.convolutions, self.first, self.second)):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
            if config.lrn and i in (1, 2):
                layer.weight *= config.lrn_k**config.lrn_beta
            if config.attention_position and i == config.attention_position:
                layer.weight *= 2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised frames (F,1,S,S) -> p (F,h) and attention maps (F,M,N) (F,0,0 without attention).

        By default, in the paper's sizes: (F,1,114,114) -> (F,128,54,54) -> (F,128,26,26) -> (F,256,22,22)
        -> (F,256,10,10) -> attended -> (F,256,8,8) -> (F,4096) -> (F,h).
        """
        if x.device.type == "cpu" and len(x) > FRAMES_IN_CACHE:
            pieces = [self._maps(piece) for piece in x.split(FRAMES_IN_CACHE)]
            x, attention = map(torch.cat, zip(*pieces, strict=True))
        else:
            x, attention = self._maps(x)
        x = F.relu(self.first(self.dropout(x)))  # (F, 4096)
        return F.relu(self.second(self.dropout(x))), attention  # (F, h), (F, M, N)

    def _maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the convolutions make of frames: (F,1,S,S) -> flattened maps (F,C*M*M) and attention maps (F,M,N)."""
        config, attention = self.config, x.new_empty((x.shape[0], 0, 0))
        for i, convolution in enumerate(self.convolutions):
            x = F.relu(convolution(x), inplace=True)  # (F, C_i, M_i, M_i)
            if config.lrn and i < 2:
                x = self.norm(x)  # (F, C_i, M_i, M_i)
            if config.pools[i]:
                x = F.max_pool2d(
                    x, config.pools[i], config.pool_stride, config.pool_padding
                )  # (F, C_i, M_i', M_i')
            if self.attention is not None and config.attention_position == i + 1:
                x, attention = self.attention(x)  # (F, C_i, M, N), (F, M, N)
        return x.flatten(1), attention


class SIAM(nn.Module):
    """The complete model. `SIAM(config)(frames, lengths)` -> `SIAMOutput`.

    Attributes:
        max_frames_per_pass: maximum number of frames that pass through the convolutions at once. A training step with
            more passes them in pieces of a quarter of that, recomputed in the backward pass, so that a long video
            costs time and not memory. (On a CPU quarters are as fast, and the allocator's heap has far smaller holes.)
        compiled: whether `appearance` was compiled (`siam_model.training.passes`), for any number of frames.

    Examples:
        >>> import torch
        >>> from siam_model import SIAM, SIAMConfig
        >>> model = SIAM(SIAMConfig(face_size=70, channels=(4, 6, 6), fully_connected=9, hidden=8)).eval()
        >>> frames = torch.randn(2, 5, 70, 70)  # standardised faces of two videos, of 5 and 3 frames
        >>> out = model(frames, torch.tensor([5, 3]))
        >>> out.age.shape, out.temporal_weights.shape
        (torch.Size([2]), torch.Size([2, 5]))

    """

    def __init__(self, config: SIAMConfig | None = None) -> None:
        super().__init__()
        self.config = config = SIAMConfig() if config is None else config
        if not isinstance(config, SIAMConfig):
            raise TypeError(f"a SIAM is made from a SIAMConfig, not from {config!r}.")
        self.max_frames_per_pass = MAX_FRAMES_PER_PASS
        self.compiled = False
        self.appearance = AppearanceModule(config)
        self.recurrence = nn.ModuleList()
        if config.recurrent:
            seen = config.hidden * (2 if config.centre == "both" else 1)
            self.recurrence.extend(
                Recurrence(config.hidden if layer else seen, config.hidden, config.recurrent_init)
                for layer in range(config.recurrent_layers)
            )
        self.dropout = nn.Dropout(config.dropout_recurrent)
        self.temporal = (
            TemporalAttention(config.hidden, config.temporal_dim) if config.temporal_attention else None
        )
        self.regression = nn.Linear(config.hidden, 1)  # k and b of equation 7
        # Deviation 1, since states differ by some tenths between people and ages by decades: with the usual
        # 1/sqrt(h) most of a short training is spent on k's growth.
        nn.init.uniform_(self.regression.weight, -(3**0.5), 3**0.5)

    def start_at(self, age: float) -> None:
        """Set equation 7's bias b to `age`, years. The training median is where the absolute error of a
        constant is least, so a fresh model starts as that baseline and its weights only learn to differ
        from it."""
        with torch.no_grad():
            self.regression.bias.fill_(age)

    def weights(self) -> Iterator[Tensor]:
        """The parameters that the L2 term sums over: weights, not biases."""
        return (p for name, p in self.named_parameters() if name.endswith("weight"))

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
    ) -> SIAMOutput:
        """Ages and attention of a batch.

        Args:
            frames: (B,T,S,S) float, standardised; or what `prepare` makes that of. Padding frames are
                never read. Or (F,S,S): the frames of B videos one after another, without padding.
            lengths: (B,) whole numbers from 1 to T; None when every video has T frames. Lengths that are on the CPU
                spare a GPU a wait in every call. Packed frames need them, and they sum to F.
            prepare: (F,S,S) -> (F,S,S) float, standardised, applied to `max_frames_per_pass` frames at a time: a
                `Normalisation`, so that a long video waits as uint8, a quarter of the memory.

        Raises:
            TypeError: frames that are not a tensor.
            ValueError: a wrong shape or dtype, no video, or lengths that are not B whole numbers from 1 to T.
        """
        return self.regress(*self.features(frames, lengths, prepare))

    def features(
        self,
        frames: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the appearance module makes of a batch; arguments and errors as `forward`.

        Returns:
            p (B,T,h), 0 on padding; the lengths (B,) int, on the CPU; attention maps (B,T,M,N), 0 on padding, None
            without spatial attention.
        """
        lengths, time = self._checked(frames, lengths, prepare is not None)
        # Which frames there are is worked out on the CPU: a GPU would have to be waited for.
        videos, times = (
            to_device(place, frames.device) for place in _real(lengths, time).nonzero(as_tuple=True)
        )
        p_real, maps = self._appearance(frames, videos, times, prepare)  # (F, h), (F, M, N), F real frames
        p = p_real.new_zeros(len(lengths), time, p_real.shape[1])  # (B, T, h)
        p[videos, times] = p_real
        spatial = None
        if self.appearance.attention is not None:
            spatial = maps.new_zeros(len(lengths), time, *maps.shape[1:])  # (B, T, M, N)
            spatial[videos, times] = maps
        # Half precision ends here: a state that forgets a 32nd per frame, and an age in years, need more digits than
        # bfloat16's three, and what follows costs little.
        return to_float32(p), lengths, spatial

    def _checked(
        self, frames: Tensor, lengths: Tensor | Sequence[int] | None, prepared: bool
    ) -> tuple[Tensor, int]:
        """The lengths (B,) int on the CPU, and T. Raises as `forward`."""
        side = self.config.face_size
        if not isinstance(frames, Tensor):
            raise TypeError(
                f"frames are of the type {type(frames).__name__}; this model takes a torch tensor "
                f"(B,T,{side},{side})."
            )
        packed = frames.ndim == 3 and lengths is not None
        if not (packed or frames.ndim == 4) or frames.shape[-2:] != (side, side) or not frames.shape[0]:
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}; this model takes (B,T,{side},{side}), at least one "
                "video."
            )
        own = self.regression.weight.dtype
        mixed = torch.is_autocast_enabled(frames.device.type) and frames.dtype in _MIXED
        if not prepared and frames.dtype != own and not mixed:
            raise ValueError(
                f"frames are {frames.dtype}; this model takes standardised {own}. `prepare`, a `Normalisation`, makes "
                "that of uint8."
            )
        if lengths is None:
            lengths = torch.full((frames.shape[0],), frames.shape[1])
        need = f"there must be {'some' if packed else len(frames)} of them, whole numbers " + (
            f"from 1 that sum to {len(frames)}." if packed else f"from 1 to {frames.shape[1]}."
        )
        try:
            lengths = torch.as_tensor(lengths).cpu()
        except (TypeError, ValueError, RuntimeError):  # no numbers, or lists of different lengths
            raise ValueError(f"lengths are {lengths!r}; {need}") from None
        whole = not lengths.is_floating_point() and not lengths.is_complex() and lengths.dtype != torch.bool
        whole = whole and lengths.ndim == 1 and len(lengths) > 0 and int(lengths.min()) >= 1
        if packed:
            fits = whole and int(lengths.sum()) == len(frames)
        else:
            fits = whole and len(lengths) == len(frames) and int(lengths.max()) <= frames.shape[1]
        if not fits:
            raise ValueError(f"lengths are {lengths.tolist()}; {need}")
        return lengths, int(lengths.max()) if packed else frames.shape[1]

    def regress(self, p: Tensor, lengths: Tensor, spatial: Tensor | None = None) -> SIAMOutput:
        """Recurrence, temporal attention and regression: features p (B,T,h) float32, zero beyond the lengths (B,) ->
        `SIAMOutput`, with the attention maps given."""
        real = to_device(_real(lengths, p.shape[1]), p.device)
        with torch.autocast(p.device.type, enabled=False):
            return self._regress(p, real, to_device(lengths, p.device), spatial)

    def _regress(self, p: Tensor, real: Tensor, lengths: Tensor, spatial: Tensor | None) -> SIAMOutput:
        """Recurrence, temporal attention and regression: features p (B,T,h) -> `SIAMOutput`."""
        even = real / lengths[:, None].to(p.dtype)  # (B, T): weights of a plain mean over a video's frames

        if not self.config.recurrent:  # section V-B: age per frame, averaged over the video
            frame_age = self.regression(self.dropout(p))[..., 0] * real  # (B, T)
            return SIAMOutput((frame_age * even).sum(1), even, frame_age, spatial, frame_age)

        z = self._centred(p, real, lengths)  # (B, T, h), or 2 h with both
        for layer in self.recurrence:
            z = layer(self.dropout(z))  # (B, T, h)   equation 3
        if self.temporal is not None:
            summary, o = self.temporal(z, real)  # (B, h), (B, T)   equations 4 to 6
        else:
            summary, o = torch.einsum("bt,bth->bh", even, z), even
        age = self.regression(summary)[:, 0]  # (B,)   equation 7
        return SIAMOutput(age, o, self.regression(z)[..., 0] * real, spatial)

    def _centred(self, p: Tensor, real: Tensor, lengths: Tensor) -> Tensor:
        """What the recurrence sees of p (B,T,h): see `SIAMConfig.centre`. 0 stays 0 on padding."""
        if self.config.centre == "none":
            return p
        mean = p.sum(1, keepdim=True) / lengths[:, None, None].to(p.dtype)  # (B, 1, h); padding is 0
        rest = (p - mean) * real[..., None]
        return rest if self.config.centre == "clip" else torch.cat([p, rest], -1)

    def _appearance(
        self, frames: Tensor, videos: Tensor, times: Tensor, prepare: Callable[[Tensor], Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """`AppearanceModule` of the real frames, some at a time: (B,T,S,S) or (F,S,S) -> (F,h), (F,M,N)."""
        again = len(videos) > self.max_frames_per_pass and self.training and torch.is_grad_enabled()
        piece = max(1, self.max_frames_per_pass // 4) if again else self.max_frames_per_pass
        pieces: list[tuple[Tensor, ...]]
        if frames.ndim == 3:
            pieces = [(part,) for part in frames.split(piece)]
        else:
            pieces = [(frames, *place) for place in zip(videos.split(piece), times.split(piece), strict=True)]
        parts = []
        for part in pieces:
            if again:  # keeps the places alone, and computes the chunk again in the backward pass
                parts.append(checkpoint(self._chunk, prepare, *part, use_reentrant=False))
            else:
                parts.append(self._chunk(prepare, *part))
        if len(parts) == 1:
            return parts[0]
        return torch.cat([p for p, _ in parts]), torch.cat([a for _, a in parts])

    def _chunk(
        self, prepare: Callable[[Tensor], Tensor] | None, frames: Tensor, *place: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`AppearanceModule` of single frames: (F,S,S), or those at `place` ((F,), (F,)) of a batch (B,T,S,S) ->
        (F,h), (F,M,N)."""
        x = frames[place] if place else frames  # (F, S, S)
        if prepare is not None:
            x = prepare(x)
        # As channels-last, which every later layer keeps: convolutions and pools are several times faster there.
        x = x[..., None].permute(0, 3, 1, 2)
        if self.compiled:
            torch._dynamo.maybe_mark_dynamic(x, 0)
        return self.appearance(x)


def _real(lengths: Tensor, time: int) -> Tensor:
    """(B,) -> (B,T) bool: False on padding."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


def absolute_error(output: SIAMOutput, age: Tensor, lengths: Tensor) -> Tensor:
    """Equation 8 per video: |predicted - true|, (B,) years.

    Without recurrence every frame is an estimate of its own, so a video's error is the mean of its frames'
    errors.
    """
    if output.frame_age is None:
        return (output.age - age).abs()
    error = (output.frame_age - age[:, None]).abs() * (output.temporal_weights > 0)
    return error.sum(1) / to_device(lengths, error.device).to(error.dtype)


def l2_term(model: SIAM) -> Tensor:
    """Sum of squared weights (no biases), a scalar: part of the loss, so that clipping sees its gradient."""
    return torch.stack([w.square().sum() for w in model.weights()]).sum()
