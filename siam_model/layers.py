"""The parts of SIAM that PyTorch does not have: response normalisation, the spatial and temporal attention,
and the ReLU recurrence. Each docstring cites the equation that it is.

Naming: a parameter whose name ends in `weight` is a weight and is regularised; one that ends in `bias` is
not.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from siam_model.config import Mechanism, RecurrentInit
from siam_model.devices import recurrence_in_float32

#: Longest time constant that a fresh recurrence remembers over, in frames.
LONGEST_MEMORY = 32.0
#: Frames whose maps a CPU normalises at a time: so few that what is computed in between stays in its caches, and enough
#: that its threads have more to do than to wait for each other.
FRAMES_IN_CACHE = 4


class ResponseNorm(nn.Module):
    """AlexNet's response normalisation over neighbouring channels, which the paper cites:
    y_c = x_c / (k + alpha * sum of x^2 over `size` channels around c)^beta.

    `torch.nn.functional.local_response_norm` divides the sum by `size`: there the same thing is alpha * size.
    """

    def __init__(self, size: int, alpha: float, beta: float, k: float) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        """(F,C,M,N) -> (F,C,M,N)."""
        return _ResponseNorm.apply(x, self.size, self.alpha, self.beta, self.k)


class _ResponseNorm(torch.autograd.Function):
    """With its own backward pass: the input alone is kept, and a CPU takes few frames at a time in both passes, so that
    what is computed in between stays in its caches.

    With s_c = k + alpha * sum of x^2 and y_c = x_c s_c^-beta, the gradient is
    dx_c = dy_c s_c^-beta - 2 alpha beta x_c * (sum over the same window of dy x s^(-beta-1)).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.size, ctx.alpha, ctx.beta, ctx.k = size, alpha, beta, k
        y = torch.empty_like(x)
        for piece, out in zip(_in_cache(x), _in_cache(y), strict=True):
            # Half-precision maps are squared and summed in float32; normalised maps are as wide as came.
            full = to_float32(piece)
            out.copy_(_inverse_power(_scale(full, size, alpha, k), beta).mul_(full))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (x,), change = ctx.saved_tensors, torch.empty_like(grads[0])
        for piece, grad, out in zip(_in_cache(x), _in_cache(grads[0]), _in_cache(change), strict=True):
            full = to_float32(piece)
            scale = _scale(full, ctx.size, ctx.alpha, ctx.k)
            direct = _inverse_power(scale, ctx.beta).mul_(grad)  # dy s^-beta
            shared = _window_sum((direct * full).div_(scale), ctx.size)  # sum of dy x s^(-beta-1)
            out.copy_(direct.addcmul_(full, shared, value=-2 * ctx.alpha * ctx.beta))
        return change, None, None, None, None


def _in_cache(x: Tensor) -> tuple[Tensor, ...]:
    """Parts of (F,C,M,N) for one turn each: FRAMES_IN_CACHE frames on a CPU, all elsewhere."""
    return x.split(FRAMES_IN_CACHE if x.device.type == "cpu" else max(1, len(x)))


def _scale(x: Tensor, size: int, alpha: float, k: float) -> Tensor:
    """s of float32 maps, (F,C,M,N)."""
    return _window_sum(x * x, size).mul_(alpha).add_(k)


def to_float32(x: Tensor) -> Tensor:
    """Half-precision numbers as float32; others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _window_sum(x: Tensor, size: int) -> Tensor:
    """Sum over the `size` channels around each, fewer at the ends: (F,C,M,N) -> (F,C,M,N)."""
    channels, total = x.shape[1], x.clone()
    for shift in range(1, min(size // 2, channels - 1) + 1):
        total[:, shift:] += x[:, :-shift]
        total[:, :-shift] += x[:, shift:]
    return total


def _inverse_power(base: Tensor, beta: float) -> Tensor:
    """base^-beta; AlexNet's 0.75 by two square roots, since a general power is several times slower."""
    if beta == 0.75:
        root = base.rsqrt()
        return root.sqrt().mul_(root)
    return base.pow(-beta)


class SpatialAttention(nn.Module):
    """Equations 1 and 2: A_ij = sigmoid(u' tanh(W_ij F_ij + b_ij) + c), I = F * A.

    Four mechanisms (section V-A1). `indexed` (the paper's): W_ij and b_ij per location, u shared.
    `agnostic`: all shared. `full`: W_ij, b_ij and u_ij per location. `mediate`: W and b shared, u_ij per
    location. c is one number in all four, as in equation 1.
    """

    def __init__(self, mechanism: Mechanism, height: int, width: int, channels: int, dim: int) -> None:
        super().__init__()
        first = height * width if mechanism in ("indexed", "full") else 1
        second = height * width if mechanism in ("full", "mediate") else 1
        self.mechanism, self.height, self.width = mechanism, height, width
        self.first_weight = nn.Parameter(torch.empty(first, dim, channels))  # W_ij
        self.first_bias = nn.Parameter(torch.zeros(first, dim))  # b_ij
        self.second_weight = nn.Parameter(torch.empty(second, dim))  # u
        self.second_bias = nn.Parameter(torch.zeros(()))  # c
        # Glorot's uniform rule for tanh; u small, so that a fresh map is near sigmoid(0) = 0.5 at every
        # location.
        nn.init.uniform_(self.first_weight, *_symmetric(math.sqrt(6 / (channels + dim))))
        nn.init.uniform_(self.second_weight, *_symmetric(math.sqrt(3 / dim)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """F (F,C,M,N) -> attended I (F,C,M,N) and map A (F,M,N)."""
        frames, channels = x.shape[:2]
        cells = x.permute(2, 3, 0, 1).reshape(-1, frames, channels)  # (MN, F, C)
        if self.first_weight.shape[0] == 1:
            middle = cells @ self.first_weight[0].T + self.first_bias[0]  # (MN, F, d)
        else:
            middle = torch.baddbmm(
                self.first_bias[:, None], cells, self.first_weight.transpose(1, 2)
            )  # (MN, F, d)
        score = (torch.tanh(middle) * self.second_weight[:, None]).sum(-1) + self.second_bias  # (MN, F)
        attention = torch.sigmoid(score).T.reshape(frames, self.height, self.width)  # (F, M, N)
        return x * attention[:, None], attention


class Recurrence(nn.Module):
    """One layer of equation 3: z_t = relu(W p_t + V z_{t-1} + b), z_0 = 0.

    A fresh V has to keep gradients alive over hundreds of frames without letting states grow with a video's
    length. `identity` (Le, Jaitly, Hinton 2015: V = I) does the first and not the second: every unit sums
    its input, the second layer sums sums, and a 300-frame video gives states of the order of 300^2 times
    those of one frame. `leaky`
    is the default: V is diagonal with 1 - 1/tau, tau log-spaced over the units from 1 to 32 frames, and the
    rows of W are scaled by 1/tau. A still face then drives every unit to the same state whatever its tau
    and however long the video is, fast units see changes, slow ones history, and both sides of the scale
    are learnt from there.
    """

    def __init__(self, inputs: int, hidden: int, start: RecurrentInit) -> None:
        super().__init__()
        self.input_weight = nn.Parameter(torch.empty(hidden, inputs))  # W
        self.state_weight = nn.Parameter(torch.empty(hidden, hidden))  # V
        self.bias = nn.Parameter(torch.zeros(hidden))  # b
        nn.init.kaiming_uniform_(self.input_weight, nonlinearity="relu")
        with torch.no_grad():
            if start == "leaky":
                tau = torch.logspace(0, math.log10(LONGEST_MEMORY), hidden)
                self.state_weight.copy_(torch.diag(1 - 1 / tau))
                self.input_weight.div_(tau[:, None])
            else:
                self.state_weight.copy_(torch.eye(hidden))

    def forward(self, p: Tensor) -> Tensor:
        """p (B,T,n) -> z (B,T,h).

        On a GPU all steps are one call of cuDNN, in float32: launching two kernels a step and layer, and three times as
        many in the backward pass, takes longer than the steps themselves.
        """
        return self.scan(p) if p.device.type == "cuda" else self.steps(p)

    def steps(self, p: Tensor) -> Tensor:
        """`forward` a step after the other, as equation 3 has it: p (B,T,n) -> z (B,T,h)."""
        driven = (p @ self.input_weight.T + self.bias).unbind(1)  # T times (B, h)
        state, states = driven[0].new_zeros(driven[0].shape), []
        for drive in driven:
            state = torch.relu(torch.addmm(drive, state, self.state_weight.T))  # (B, h)
            states.append(state)
        return torch.stack(states, 1)

    def scan(self, p: Tensor) -> Tensor:
        """`forward` as one operation: p (B,T,n) -> z (B,T,h)."""
        weights = [self.input_weight, self.state_weight, self.bias, torch.zeros_like(self.bias)]
        start = p.new_zeros(1, p.shape[0], self.bias.shape[0])
        # cuDNN keeps what its backward pass needs in its training mode alone.
        with recurrence_in_float32(p.device), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not part of single contiguous chunk of memory.*")
            z, _ = torch.rnn_relu(p, start, weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)
        return z


class TemporalAttention(nn.Module):
    """Equations 4 to 6: e_t = sigmoid(v' tanh(M z_t + b) + c), o_t = e_t / sum of e, s = sum of o_t z_t."""

    def __init__(self, hidden: int, dim: int) -> None:
        super().__init__()
        self.first_weight = nn.Parameter(torch.empty(dim, hidden))  # M
        self.first_bias = nn.Parameter(torch.zeros(dim))  # b
        self.second_weight = nn.Parameter(torch.empty(dim))  # v
        self.second_bias = nn.Parameter(torch.zeros(()))  # c
        nn.init.uniform_(self.first_weight, *_symmetric(math.sqrt(6 / (hidden + dim))))
        nn.init.uniform_(self.second_weight, *_symmetric(math.sqrt(3 / dim)))

    def forward(self, z: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """z (B,T,h) and real (B,T) bool (False on padding) -> s (B,h) and o (B,T), exactly 0 on padding."""
        middle = torch.tanh(z @ self.first_weight.T + self.first_bias)  # (B, T, n')
        e = torch.sigmoid(middle @ self.second_weight + self.second_bias) * real  # (B, T)
        o = e / e.sum(1, keepdim=True)  # (B, T)
        return torch.einsum("bt,bth->bh", o, z), o


def _symmetric(bound: float) -> tuple[float, float]:
    return -bound, bound
