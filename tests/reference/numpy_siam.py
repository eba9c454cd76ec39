"""SIAM in plain NumPy, float64, a loop per index: the slow truth that the torch modules are held against.

Written from the equations alone; shares no code with `siam_model`.
"""

from __future__ import annotations

import numpy as np


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0)


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """Cross-correlation: x (C,H,W), weight (K,C,k,k), bias (K,) -> (K,H',W')."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    k = weight.shape[2]
    height, width = ((n - k) // stride + 1 for n in x.shape[1:])
    out = np.empty((len(weight), height, width))
    for i in range(height):
        for j in range(width):
            window = x[:, i * stride : i * stride + k, j * stride : j * stride + k]
            out[:, i, j] = (weight * window).sum(axis=(1, 2, 3)) + bias
    return out


def response_norm(x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    """AlexNet's, x (C,H,W): divided by (k + alpha * sum of squares over `size` channels around)^beta."""
    out = np.empty_like(x)
    for c in range(len(x)):
        near = x[max(0, c - size // 2) : min(len(x), c + size // 2 + 1)]
        out[c] = x[c] / (k + alpha * (near**2).sum(axis=0)) ** beta
    return out


def max_pool(x: np.ndarray, side: int, stride: int, padding: int) -> np.ndarray:
    """x (C,H,W); what is padded never wins."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)), constant_values=-np.inf)
    height, width = ((n - side) // stride + 1 for n in x.shape[1:])
    out = np.empty((len(x), height, width))
    for i in range(height):
        for j in range(width):
            window = x[:, i * stride : i * stride + side, j * stride : j * stride + side]
            out[:, i, j] = window.max(axis=(1, 2))
    return out


def spatial_attention(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, fuse: np.ndarray, c: float, mechanism: str
) -> tuple[np.ndarray, np.ndarray]:
    """Equations 1 and 2: F (C,M,N) -> I (C,M,N), A (M,N).

    weight (MN or 1, d, C), bias (MN or 1, d), fuse (MN or 1, d), by the mechanism's sharing.
    """
    _, m, n = x.shape
    attention = np.empty((m, n))
    for i in range(m):
        for j in range(n):
            cell = i * n + j
            own_first = {"indexed": True, "full": True, "mediate": False, "agnostic": False}[mechanism]
            own_second = {"indexed": False, "full": True, "mediate": True, "agnostic": False}[mechanism]
            w, b = (weight[cell], bias[cell]) if own_first else (weight[0], bias[0])
            u = fuse[cell] if own_second else fuse[0]
            attention[i, j] = sigmoid(u @ np.tanh(w @ x[:, i, j] + b) + c)
    return x * attention, attention


def recurrence(p: np.ndarray, w: np.ndarray, v: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Equation 3: p (T,n) -> z (T,h)."""
    z, states = np.zeros(len(b)), []
    for row in p:
        z = relu(w @ row + v @ z + b)
        states.append(z)
    return np.array(states)


def temporal_attention(
    z: np.ndarray, m: np.ndarray, b: np.ndarray, v: np.ndarray, c: float
) -> tuple[np.ndarray, np.ndarray]:
    """Equations 4 to 6: z (T,h) -> s (h,), o (T,)."""
    e = np.array([sigmoid(v @ np.tanh(m @ row + b) + c) for row in z])
    o = e / e.sum()
    return sum(weight * row for weight, row in zip(o, z, strict=True)), o


def siam(
    tensors: dict[str, np.ndarray], config: dict, frames: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray | None]:
    """The whole model on one video.

    Args:
        tensors: a model's parameters by name, as its safetensors file holds them.
        config: the entry "model" of its config.json.
        frames: (T,S,S) float64, standardised.

    Returns:
        Age in years, temporal weights (T,), spatial attention (T,M,N) or None.
    """
    t = {name: np.asarray(value, dtype=np.float64) for name, value in tensors.items()}
    position, features, maps = config["attention_position"], [], []
    for frame in frames:
        x = frame[None]
        for i in range(3):
            name = f"appearance.convolutions.{i}"
            weight, bias = t[f"{name}.weight"], t[f"{name}.bias"]
            x = relu(convolve(x, weight, bias, config["strides"][i], config["paddings"][i]))
            if config["lrn"] and i < 2:
                x = response_norm(
                    x, config["lrn_size"], config["lrn_alpha"], config["lrn_beta"], config["lrn_k"]
                )
            if config["pools"][i]:
                x = max_pool(x, config["pools"][i], config["pool_stride"], config["pool_padding"])
            if position == i + 1:
                name = "appearance.attention"
                x, attention = spatial_attention(
                    x,
                    t[f"{name}.first_weight"],
                    t[f"{name}.first_bias"],
                    t[f"{name}.second_weight"],
                    float(t[f"{name}.second_bias"]),
                    config["attention_mechanism"],
                )
                maps.append(attention)
        x = relu(t["appearance.first.weight"] @ x.ravel() + t["appearance.first.bias"])
        features.append(relu(t["appearance.second.weight"] @ x + t["appearance.second.bias"]))
    z = np.array(features)
    k, b = t["regression.weight"][0], float(t["regression.bias"][0])
    spatial = np.array(maps) if maps else None
    if not config["recurrent"]:
        return float(np.mean([k @ row + b for row in z])), np.full(len(z), 1 / len(z)), spatial
    for layer in range(config["recurrent_layers"]):
        name = f"recurrence.{layer}"
        z = recurrence(z, t[f"{name}.input_weight"], t[f"{name}.state_weight"], t[f"{name}.bias"])
    if config["temporal_attention"]:
        s, o = temporal_attention(
            z,
            t["temporal.first_weight"],
            t["temporal.first_bias"],
            t["temporal.second_weight"],
            float(t["temporal.second_bias"]),
        )
    else:
        s, o = z.mean(axis=0), np.full(len(z), 1 / len(z))
    return float(k @ s + b), o, spatial
