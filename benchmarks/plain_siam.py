"""SIAM the obvious way: eager PyTorch in float32, channels first, PyTorch's own response normalisation, all frames of a
batch at once. The package's model is timed against it and shares no code with it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainSIAM(nn.Module):
    """Figure 1 of the paper, by default in its sizes, for videos of equal length."""

    def __init__(
        self, size: int = 114, channels: tuple[int, int, int] = (128, 256, 256), first: int = 4096,
        hidden: int = 256, attention: int = 256, temporal: int = 128,
    ) -> None:  # fmt: skip
        super().__init__()
        a, b, c = channels
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(1, a, 7, stride=2), nn.Conv2d(a, b, 5), nn.Conv2d(b, c, 3)]
        )
        self.side = ((((size - 7) // 2 + 1 - 3) // 2 + 1) - 4 - 3) // 2 + 1  # 10
        self.cell_weight = nn.Parameter(torch.randn(self.side**2, attention, b) * 0.1)  # W_ij of equation 1
        self.cell_bias = nn.Parameter(torch.zeros(self.side**2, attention))
        self.cell_vector = nn.Parameter(torch.randn(attention) * 0.1)
        self.cell_shift = nn.Parameter(torch.zeros(()))
        self.first, self.second = nn.Linear(c * (self.side - 2) ** 2, first), nn.Linear(first, hidden)
        self.recurrence = nn.RNN(hidden, hidden, num_layers=2, nonlinearity="relu", batch_first=True)
        self.frame = nn.Linear(hidden, temporal)
        self.vector = nn.Linear(temporal, 1)
        self.regression = nn.Linear(hidden, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Standardised faces (B,T,S,S) float32 -> ages (B,), years."""
        batch, time = frames.shape[:2]
        x = frames.flatten(0, 1)[:, None]
        for number, convolution in enumerate(self.convolutions):
            x = F.relu(convolution(x))
            if number < 2:
                x = F.local_response_norm(x, 5, 5e-4, 0.75, 2)
                x = F.max_pool2d(x, 3, 2)
            if number == 1:
                weight = self.cell_weight.unflatten(0, (self.side, self.side))
                cells = torch.einsum("fcmn,mnkc->fmnk", x, weight)
                bias = self.cell_bias.unflatten(0, (self.side, self.side))
                score = torch.tanh(cells + bias) @ self.cell_vector + self.cell_shift
                x = x * torch.sigmoid(score)[:, None]
        p = F.relu(self.second(F.relu(self.first(x.flatten(1)))))
        z, _ = self.recurrence(p.view(batch, time, -1))
        weights = torch.sigmoid(self.vector(torch.tanh(self.frame(z)))[..., 0])
        summary = torch.einsum("bt,bth->bh", weights / weights.sum(1, keepdim=True), z)
        return self.regression(summary)[:, 0]

    def weights(self) -> list[Tensor]:
        """Those that the L2 term sums over."""
        return [p for name, p in self.named_parameters() if "weight" in name or name == "cell_vector"]

    @classmethod
    def of(cls, model: nn.Module) -> PlainSIAM:
        """With the weights of a `siam_model.SIAM` of the paper's design, in any sizes."""
        config = model.config
        made = cls(
            config.face_size, config.channels, config.fully_connected, config.hidden, config.attention_dim,
            config.temporal_dim,
        )  # fmt: skip
        for name, value in model.state_dict().items():
            for ours, here in _NAMES:
                name = name.replace(ours, here)
            _parameter(made, name).data.copy_(value.reshape(_parameter(made, name).shape))
        for layer in (0, 1):
            shift = _parameter(made, f"recurrence.bias_hh_l{layer}")  # the paper has one bias
            nn.init.zeros_(shift).requires_grad_(False)
        return made


#: Names of the package's parameters, in part, and of those here.
_NAMES = (
    ("appearance.attention.first_weight", "cell_weight"),
    ("appearance.attention.first_bias", "cell_bias"),
    ("appearance.attention.second_weight", "cell_vector"),
    ("appearance.attention.second_bias", "cell_shift"),
    ("appearance.", ""),
    ("temporal.first_", "frame."),
    ("temporal.second_", "vector."),
    ("recurrence.0.input_weight", "recurrence.weight_ih_l0"),
    ("recurrence.0.state_weight", "recurrence.weight_hh_l0"),
    ("recurrence.0.bias", "recurrence.bias_ih_l0"),
    ("recurrence.1.input_weight", "recurrence.weight_ih_l1"),
    ("recurrence.1.state_weight", "recurrence.weight_hh_l1"),
    ("recurrence.1.bias", "recurrence.bias_ih_l1"),
)


def _parameter(module: nn.Module, name: str) -> Tensor:
    """The parameter of this name with dots."""
    return dict(module.named_parameters())[name]


class Roof(nn.Module):
    """Its convolutions and large linear layers alone: what no implementation goes below on the same arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        plain = PlainSIAM()
        self.convolutions, self.first, self.second = plain.convolutions, plain.first, plain.second

    def forward(self, frames: Tensor) -> Tensor:
        """Standardised faces (B,T,114,114) -> a number per frame, meaningless."""
        parts = []
        # Channels last and few frames at a time, which is where convolutions are fastest on a CPU.
        piece = 16 if frames.device.type == "cpu" else frames.shape[0] * frames.shape[1]
        for x in frames.flatten(0, 1)[..., None].permute(0, 3, 1, 2).split(piece):
            for number, convolution in enumerate(self.convolutions):
                x = convolution(x)
                if number < 2:  # thinned to the size that the pools leave, without their work
                    side = (26, 10)[number]
                    x = x[:, :, : 2 * side : 2, : 2 * side : 2].contiguous(memory_format=torch.channels_last)
            parts.append(x.flatten(1))
        return self.second(self.first(torch.cat(parts))).sum(1)
