"""Pretraining of the appearance module, before ages: the shape that the warp took out of the picture. Beyond the paper.

The warp gives every face the mean shape, so an expression's amplitude has to be read from the skin; ages teach that to
the convolutions slowly. The file still has the landmarks, so it can be taught frame by frame, without any label.
Targets come from the training subjects alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from nemo_pipeline.errors import DataError
from nemo_pipeline.phases import amplitude
from nemo_pipeline.stages.smooth import smooth_4253h_twice
from siam_model.config import TrainConfig
from siam_model.data import Batch, Clips, ClipSample, Normalisation
from siam_model.devices import to_device
from siam_model.model import SIAM

#: Ramps begin at amplitudes from 0 to this, so that even the last one sees a fifth of the way.
LAST_THRESHOLD = 0.8
#: A clip whose amplitude moves less than this (mouth widths) shows no expression, as in `nemo_pipeline.phases`.
LEAST_RANGE = 0.015


def ramps(a: ArrayLike, units: int) -> NDArray[np.float32]:
    """Amplitudes (...,) in 0..1 -> (..., units): 2 max(a - th, 0) for the first half, 2 max(1 - th - a, 0) for the
    second, th evenly spread from 0 to LAST_THRESHOLD."""
    rising = (units + 1) // 2
    value = np.asarray(a, dtype=np.float32)[..., None]
    up = np.linspace(0, LAST_THRESHOLD, rising, dtype=np.float32)
    down = np.linspace(0, LAST_THRESHOLD, units - rising, dtype=np.float32)
    return np.concatenate([2 * np.maximum(value - up, 0), 2 * np.maximum(1 - down - value, 0)], axis=-1)


def amplitude_in_clip(landmarks: ArrayLike, expression: str = "") -> NDArray[np.float64] | None:
    """(T,68,2) -> (T,): how far the expression has gone, from 0 at the clip's least to 1 at its most; None where
    nothing moves, or landmarks are missing.

    Args:
        expression: "disgust" is measured by another signal than everything else, which counts as a smile.
    """
    try:
        curve = smooth_4253h_twice(amplitude(landmarks, "disgust" if expression == "disgust" else "smile"))
    except ValueError:
        return None
    low, high = float(curve.min()), float(curve.max())
    return (curve - low) / (high - low) if high - low >= LEAST_RANGE else None


def aligned(landmarks: ArrayLike, mean_shape: ArrayLike) -> NDArray[np.float64] | None:
    """(T,68,2) -> (T,136): moved, turned and scaled onto the mean shape (least squares), less that shape, x before y;
    None where landmarks are missing."""
    points = np.asarray(landmarks, dtype=np.float64)
    if not len(points) or not np.isfinite(points).all():
        return None
    z = points @ np.array([1, 1j])
    m = np.asarray(mean_shape, dtype=np.float64) @ np.array([1, 1j])
    z, m = z - z.mean(axis=1, keepdims=True), m - m.mean()
    size = (np.abs(z) ** 2).sum(axis=1)
    if not (size > 0).all():
        return None
    rest = z * ((z.conj() @ m) / size)[:, None] - m
    return np.concatenate([rest.real, rest.imag], axis=1)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What the first units of p are to be in every frame of the training videos.

    Attributes:
        values: row of the table -> (T,) amplitudes or (T,K) scores.
        units: how many of p learn. Those after them have no target.
    """

    values: dict[int, NDArray[np.float32]]
    units: int

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows that have targets."""
        return np.array(sorted(self.values), dtype=np.int64)

    def of(self, clips: Sequence[ClipSample], step: int) -> Tensor:
        """The targets of a batch, (B,T,units) float32, zero beyond a length."""
        series = [self.values[clip.row][clip.series(step)] for clip in clips]
        target = np.zeros((len(series), max(len(s) for s in series), self.units), dtype=np.float32)
        for place, s in zip(target, series, strict=True):
            place[: len(s)] = ramps(s, self.units) if s.ndim == 1 else signed(s, self.units)
        return torch.from_numpy(target)


def signed(scores: NDArray[np.float32], units: int) -> NDArray[np.float32]:
    """Scores (T,K) -> (T,units), units at most 2 K: positive parts, then negative ones, since p is not below zero."""
    half = (units + 1) // 2
    positive, negative = np.maximum(scores[:, :half], 0), np.maximum(-scores[:, : units - half], 0)
    return np.concatenate([positive, negative], axis=1)


def targets_of(clips: Clips, rows: np.ndarray, config: TrainConfig, hidden: int) -> Targets:
    """The targets of the videos `rows`, and of no other.

    `expression`: the amplitude of the expression within its clip, as `ramps`. `shape`: scores on the leading principal
    components of the aligned points of these videos, each with deviation 1, as positive and negative parts.

    Raises:
        NemoError: none of these videos has landmarks in which something moves.
    """
    units = max(1, round(config.pretrain_share * hidden))
    dataset, index = clips.dataset, clips.table.index
    values: dict[int, NDArray[np.float32]] = {}
    for row in rows.tolist():
        video = dataset[int(index[row])]
        found = (
            aligned(video.landmarks, dataset.mean_shape)
            if config.pretrain == "shape"
            else amplitude_in_clip(video.landmarks, video.expression)
        )
        if found is not None:
            values[row] = found.astype(np.float32)
    if not values:
        raise DataError(
            "No training video has landmarks in which an expression moves, so there is nothing to pretrain on; leave "
            "out `train.pretrain`."
        )
    if config.pretrain == "shape":
        values = _scores(values, (units + 1) // 2)
    return Targets(values, units)


def _scores(shapes: dict[int, NDArray[np.float32]], count: int) -> dict[int, NDArray[np.float32]]:
    """Row -> (T,136) to row -> (T,count): scores of deviation 1, 0 beyond the 136th. Every video counts alike."""
    weight = np.concatenate([np.full(len(s), 1 / len(s)) for s in shapes.values()])
    points = np.concatenate(list(shapes.values())).astype(np.float64)
    centre = np.average(points, axis=0, weights=weight)
    spread = (points - centre) * np.sqrt(weight / weight.sum())[:, None]
    variance, vectors = np.linalg.eigh(spread.T @ spread)
    variance, vectors = variance[::-1][:count], vectors[:, ::-1][:, :count]
    # A component's sign is chance (LAPACK's): its largest entry is made positive.
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    scale = np.sqrt(np.maximum(variance, 1e-12 * variance[0]))
    lacking = ((0, 0), (0, max(0, count - vectors.shape[1])))
    return {
        row: np.pad((s - centre) @ vectors / scale, lacking).astype(np.float32) for row, s in shapes.items()
    }


class ExpressionLoss(nn.Module):
    """Mean absolute difference of the first units of p and their targets; every video counts alike."""

    def __init__(self, model: SIAM, normalisation: Normalisation) -> None:
        super().__init__()
        self.model, self.normalisation = model, normalisation

    def forward(self, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a batch, and (B,) mean differences; target (B,T,units)."""
        p, lengths, _ = self.model.features(batch.frames, batch.lengths, self.normalisation)
        # On padding both are zero, and the padding's own zeros add nothing.
        error = (p[..., : target.shape[-1]] - target).abs().mean(-1).sum(1) / to_device(lengths, p.device)
        return (batch.weight * error).sum(), error


class FrozenClips(Clips):
    """Clips as the features that a frozen appearance module makes of them, computed once: batches hold p (B,T,h)
    float32 in place of frames. Without augmentation, and without dropout of the convolutional part.
    """

    def __init__(
        self, clips: Clips, rows: np.ndarray, model: SIAM, normalisation: Normalisation, device: torch.device
    ) -> None:
        super().__init__(clips.dataset, clips.table, clips.step)
        before = model.training
        model.eval()
        self.features = {row: _features(clips, row, model, normalisation, device) for row in rows.tolist()}
        model.train(before)

    def __getitems__(self, clips: Sequence[ClipSample]) -> Batch:
        """The clips as one zero-padded batch."""
        series = [self.features[clip.row][clip.series(self.step)] for clip in clips]
        padded = nn.utils.rnn.pad_sequence(series, batch_first=True)
        return self.batch(clips, padded, [len(s) for s in series])


@torch.no_grad()
def _features(
    clips: Clips, row: int, model: SIAM, normalisation: Normalisation, device: torch.device
) -> Tensor:
    """p of all frames of one video, (T,h) float32 on the CPU."""
    frames = torch.from_numpy(np.asarray(clips.dataset[int(clips.table.index[row])].frames))
    p, _, _ = model.features(frames[None].to(device), None, normalisation)
    return p[0].float().cpu()
