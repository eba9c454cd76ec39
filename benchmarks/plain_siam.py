"""SIAM the obvious way: eager PyTorch in float32, channels first, PyTorch's own response normalisation, all frames of a
batch at once. The package's model is timed against it and shares no code with it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainSIAM(nn.Module):
    """Figure 1 of the paper in its sizes, for videos of equal length."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(1, 128, 7, stride=2), nn.Conv2d(128, 256, 5), nn.Conv2d(256, 256, 3)]
        )
        self.cell_weight = nn.Parameter(torch.randn(100, 256, 256) * 0.1)  # W_ij of equation 1
        self.cell_bias = nn.Parameter(torch.zeros(100, 256))
        self.cell_vector = nn.Parameter(torch.randn(256) * 0.1)
        self.first, self.second = nn.Linear(256 * 64, 4096), nn.Linear(4096, 256)
        self.recurrence = nn.RNN(256, 256, num_layers=2, nonlinearity="relu", batch_first=True)
        self.frame = nn.Linear(256, 128)
        self.vector = nn.Linear(128, 1)
        self.regression = nn.Linear(256, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Standardised faces (B,T,114,114) float32 -> ages (B,), years."""
        batch, time = frames.shape[:2]
        x = frames.flatten(0, 1)[:, None]
        for number, convolution in enumerate(self.convolutions):
            x = F.relu(convolution(x))
            if number < 2:
                x = F.local_response_norm(x, 5, 5e-4, 0.75, 2)
                x = F.max_pool2d(x, 3, 2)
            if number == 1:
                cells = torch.einsum("fcmn,mnkc->fmnk", x, self.cell_weight.view(10, 10, 256, 256))
                score = torch.tanh(cells + self.cell_bias.view(10, 10, 256)) @ self.cell_vector
                x = x * torch.sigmoid(score)[:, None]
        p = F.relu(self.second(F.relu(self.first(x.flatten(1)))))
        z, _ = self.recurrence(p.view(batch, time, -1))
        weights = torch.sigmoid(self.vector(torch.tanh(self.frame(z)))[..., 0])
        summary = torch.einsum("bt,bth->bh", weights / weights.sum(1, keepdim=True), z)
        return self.regression(summary)[:, 0]


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
