"""From aligned faces to an age. Nothing of the video side is imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nemo_pipeline.errors import DataError
from siam_model.checkpoint import ModelCard
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.data import Normalisation
from siam_model.model import SIAM

if TYPE_CHECKING:
    from nemo_pipeline.store import FaceVideo


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """A model's prediction for one video of T frames.

    Attributes:
        age: years.
        temporal_weights: (T,) float64, sums to 1.
        spatial_attention: (T,M,N) float32 in 0..1; None where the model has no spatial attention.
        frame_ages: (T,) float64, years: what the state after each frame says alone. Their mean, weighted by
            `temporal_weights`, is the age of one model; of an ensemble, they are the models' means.
    """

    age: float
    temporal_weights: np.ndarray
    spatial_attention: np.ndarray | None
    frame_ages: np.ndarray | None = None


def shown_age(age: float) -> float:
    """An age in years as people read it, not below 0. Tables keep the model's own number."""
    return max(0.0, age)


def estimate(
    model: SIAM, frames: np.ndarray, normalisation: Normalisation, config: TrainConfig
) -> Prediction:
    """Age and attention of one video.

    A model trained with a `temporal_stride` of n has seen every n-th frame of a video. The video is therefore read as n
    interleaved series (frames 0, n, 2n, ...; frames 1, n+1, ...), each gives an age, and the answer is
    their mean; so every frame counts, and a frame's temporal weight is its weight in its series divided by
    the number of series.

    Args:
        model: in evaluation mode.
        frames: (T,S,S) uint8, T at least 1, S the model's face size.
        config: how the model was trained: `temporal_stride`; and with `predict_mirrored`, the answer is the mean of
            those for the video and for its mirror image, whose spatial attention is mirrored back.

    Raises:
        ValueError: another shape or dtype.
    """
    frames, side = np.asarray(frames), model.config.face_size
    if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[1:] != (side, side) or not len(frames):
        raise ValueError(
            f"frames are {frames.dtype} {frames.shape}; uint8 (T,{side},{side}) is needed, with T > 0."
        )
    if config.predict_mirrored:
        once = dataclasses.replace(config, predict_mirrored=False)
        own, other = (estimate(model, f, normalisation, once) for f in (frames, frames[..., ::-1]))
        if other.spatial_attention is not None:
            other = dataclasses.replace(other, spatial_attention=other.spatial_attention[..., ::-1])
        return mean_prediction([own, other])
    device = next(model.parameters()).device
    step = min(config.temporal_stride, len(frames))
    series = [torch.from_numpy(np.ascontiguousarray(frames[phase::step])) for phase in range(step)]
    lengths = torch.tensor([len(s) for s in series])
    batch = torch.nn.utils.rnn.pad_sequence(series, batch_first=True)  # (n, T', S, S) uint8
    with torch.inference_mode():
        output = model(batch.to(device), lengths, normalisation)
    weights, ages = np.empty(len(frames)), np.empty(len(frames))
    maps = None
    if output.spatial_attention is not None:
        maps = np.empty((len(frames), *output.spatial_attention.shape[2:]), dtype=np.float32)
    for phase, length in enumerate(lengths.tolist()):
        weights[phase::step] = output.temporal_weights[phase, :length].double().cpu().numpy() / step
        ages[phase::step] = output.state_age[phase, :length].double().cpu().numpy()
        if maps is not None and output.spatial_attention is not None:
            maps[phase::step] = output.spatial_attention[phase, :length].float().cpu().numpy()
    return Prediction(float(output.age.double().mean()), weights, maps, ages)


def mean_prediction(each: Sequence[Prediction]) -> Prediction:
    """The mean of predictions for one video, frame by frame; no spatial attention where they differ in where (or
    whether) they attend."""
    maps = [p.spatial_attention for p in each if p.spatial_attention is not None]
    together: np.ndarray | None = None
    if len(maps) == len(each) and len({m.shape for m in maps}) == 1:
        together = np.asarray(np.mean(maps, axis=0, dtype=np.float64), dtype=np.float32)
    return Prediction(
        float(np.mean([p.age for p in each])),
        np.mean([p.temporal_weights for p in each], axis=0),
        together,
        np.mean([p.frame_ages for p in each if p.frame_ages is not None], axis=0),
    )


def faces_of(video: np.ndarray | FaceVideo) -> np.ndarray:
    """The faces to predict: the array itself, or the `frames` of a video of `FaceDataset`.

    Raises:
        TypeError: neither of the two.
        NemoError: there is no face in them: in every frame all pixels are equal.
    """
    frames = np.asarray(getattr(video, "frames", video))
    if frames.dtype.kind not in "biuf":
        raise TypeError(
            "predict takes the faces of a video, uint8 (T,S,S): a video of FaceDataset, or its .frames; this is "
            f"{type(video).__name__}."
        )
    if frames.ndim == 3 and frames.size and (frames == frames[:, :1, :1]).all():
        raise DataError("These frames show no face: in each of them all pixels are equal.")
    return frames


class LoadedModel:
    """A trained model, ready to predict. `siam_model.load(path)` makes one.

    Attributes:
        network: the SIAM, in evaluation mode.
        card: all that was stored with its weights.

    Examples:
        >>> import siam_model
        >>> from nemo_pipeline import FaceDataset
        >>> video = FaceDataset("smiles.h5")["000_0"]
        >>> prediction = siam_model.load("RUN").predict(video)
        >>> bool(prediction.age > 0), prediction.temporal_weights.shape == (len(video),)
        (True, True)
    """

    def __init__(self, network: SIAM, card: ModelCard) -> None:
        self.network, self.card = network, card

    def predict(self, frames: np.ndarray | FaceVideo) -> Prediction:
        """The age of the person in one video.

        Args:
            frames: (T,S,S) uint8 faces, warped as `nemo prep` does with this model's mean shape; or a video of
                `FaceDataset`.

        Raises:
            TypeError, ValueError: no faces, or of another dtype or shape.
            NemoError: the frames are blank.
        """
        return estimate(self.network, faces_of(frames), self.card.normalisation, self.card.train)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.network.parameters()).device

    @property
    def config(self) -> SIAMConfig:
        """The network's configuration."""
        return self.card.model

    @property
    def prep_config(self) -> dict[str, Any]:
        """Settings of the preparation that its faces need (`PrepConfig.from_dict` takes them)."""
        return self.card.prep

    @property
    def mean_shape(self) -> np.ndarray:
        """(68,2) float64, unitless: the shape that its faces were warped to."""
        return self.card.mean_shape

    @property
    def triangles(self) -> np.ndarray:
        """(K,3) int32: the triangles of that warp."""
        return self.card.triangles

    @property
    def synthetic(self) -> bool:
        """Whether it was trained on generated faces: its ages then mean nothing for people."""
        return self.card.synthetic

    @property
    def age_range(self) -> tuple[float, float]:
        """Youngest and oldest age that it was trained on, years."""
        return self.card.ages["min"], self.card.ages["max"]

    @property
    def subjects(self) -> dict[str, list[str]]:
        """Codes of the subjects seen in `training` and in `validation`."""
        return self.card.subjects

    @property
    def videos(self) -> frozenset[str]:
        """SHA-256 of the files of the videos seen in training and validation; empty where that is not recorded."""
        return frozenset(self.card.videos)

    def __repr__(self) -> str:
        kind = ", trained on synthetic faces" if self.synthetic else ""
        low, high = self.age_range
        return f"LoadedModel({self.config.attention_mechanism} attention, ages {low:g} to {high:g}{kind})"
