"""What the attention of a run's models does on chosen held-out videos: the numbers behind Figures 3, 4, 5, 9, 10."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from siam_model.config import SIAMConfig
from siam_model.predict import LoadedModel, Prediction
from siam_model.reports.inference import by_model, expressive_frame, predicted_video
from siam_model.reports.source import Data, Run
from siam_model.reports.stats import Components, principal_components

#: Frames of a video whose first attention layer is averaged for Figure 5.
_FRAMES = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A held-out video and what its model says of it.

    Attributes:
        video, subject, age: whose it is; years.
        frames: (T,S,S) uint8.
        frame: the most expressive one.
        prediction: of the model that never saw the subject.
        config: of that model.
    """

    video: str
    subject: str
    age: float
    frames: np.ndarray
    frame: int
    prediction: Prediction
    config: SIAMConfig


def spread_by_age(run: Run, count: int, among: Sequence[str] | None = None) -> list[int]:
    """Rows of the predictions: one video each of `count` subjects, spread evenly from the youngest to the oldest.

    Args:
        among: only these videos.
    """
    p = run.predictions
    allowed = set(p.video if among is None else among)
    first: dict[str, int] = {}
    for i, subject in enumerate(p.subject):
        if p.video[i] in allowed:
            first.setdefault(subject, i)
    people = sorted(first.values(), key=lambda i: (p.age[i], p.subject[i]))
    if not people:
        return []
    picked = np.unique(np.linspace(0, len(people) - 1, min(count, len(people))).round().astype(int))
    return [people[k] for k in picked]


def examples(run: Run, data: Data, rows: Sequence[int], device: str) -> list[Example]:
    """What the run says of these rows of its predictions, in their order.

    Raises:
        NemoError: a model or a video is missing.
    """
    found = {}
    for model, mine in by_model(run, rows, device):
        for i in mine:
            video = predicted_video(data, run, i)
            frames = video.frames
            found[i] = Example(
                run.predictions.video[i], run.predictions.subject[i], float(run.predictions.age[i]), frames,
                expressive_frame(video), model.predict(frames), model.config,
            )  # fmt: skip
    return [found[i] for i in rows]


def first_layer(model: LoadedModel, frames: np.ndarray) -> np.ndarray:
    """tanh(W_ij F_ij + b_ij) of equation 1 for single faces: (F,M,N,d) float64.

    Args:
        frames: (F,S,S) uint8.

    Raises:
        ValueError: the model has no spatial attention.
    """
    layer = model.network.appearance.attention
    if layer is None:
        raise ValueError("this model has no spatial attention.")
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        model.predict(frames)
    finally:
        hook.remove()
    x = torch.cat(seen)  # (F,C,M,N), in the order of the interleaved series; the mean over frames is the same
    cells = x.permute(2, 3, 0, 1).reshape(-1, x.shape[0], x.shape[1])  # (MN,F,C)
    with torch.inference_mode():
        middle = torch.tanh(
            cells @ layer.first_weight.transpose(1, 2) + layer.first_bias[:, None]
        )  # (MN,F,d)
    return middle.permute(1, 0, 2).reshape(len(frames), x.shape[2], x.shape[3], -1).double().cpu().numpy()


def components(run: Run, data: Data, device: str, most: int = 24) -> tuple[Components, int, int]:
    """Figure 5: principal components of the first attention layer of one model.

    The paper names what it analyses "the learned attention weights of the first layer", whose output it gives as a
    vector of d numbers at every cell of the map. Taken here: that output, tanh(W_ij F_ij + b_ij), mean over frames of
    videos that the model never saw; every cell is one observation of d numbers.

    Returns:
        The components, how many videos were averaged, and d.
    """
    rows = spread_by_age(run, len(run.predictions))
    fold = min(int(run.predictions.fold[i]) for i in rows)
    rows = [i for i in rows if run.predictions.fold[i] == fold][:most]
    total: np.ndarray | None = None
    for model, mine in by_model(run, rows, device):
        for i in mine:
            frames = predicted_video(data, run, i).frames
            chosen = np.unique(np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().astype(int))
            mean = first_layer(model, frames[chosen]).mean(axis=0)
            total = mean if total is None else total + mean
    assert total is not None  # a run has predictions
    return principal_components(total / len(rows)), len(rows), total.shape[2]
