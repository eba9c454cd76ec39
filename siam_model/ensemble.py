"""The mean of the models that a run's folds left: beyond the paper, which predicts with one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nemo_pipeline.errors import RunError
from nemo_pipeline.store.text import escape_controls
from siam_model.checkpoint import load_model
from siam_model.predict import LoadedModel, Prediction, faces_of, mean_prediction
from siam_model.run_folder import RunFolder, read_json

if TYPE_CHECKING:
    from nemo_pipeline.store import FaceVideo


class Ensemble(LoadedModel):
    """Several models as one: age, temporal weights and heat maps are the means of theirs.

    Attributes:
        members: the models of the folds.
        network: the first one's, for what needs one (`config`, receptive fields).
        card: the first one's, with the ages and subjects of all: every subject of the run trained some member, so its
            ages are not a test of anything on those subjects.
    """

    def __init__(self, members: list[LoadedModel]) -> None:
        first = members[0]
        ages = [member.card.ages for member in members]
        card = dataclasses.replace(
            first.card,
            ages={
                "min": min(a["min"] for a in ages),
                "median": float(np.median([a["median"] for a in ages])),
                "max": max(a["max"] for a in ages),
            },
            subjects={
                part: sorted({code for member in members for code in member.subjects.get(part, [])})
                for part in ("training", "validation")
            },
            videos=sorted({video for member in members for video in member.card.videos}),
            synthetic=any(member.synthetic for member in members),
        )
        super().__init__(first.network, card)
        self.members = members

    def predict(self, frames: np.ndarray | FaceVideo) -> Prediction:
        """The mean prediction of the members for one video; arguments and errors as of `LoadedModel.predict`.

        Weights are means over members frame by frame, so they sum to 1. Heat maps are None where members differ in
        where (or whether) they attend.
        """
        faces = faces_of(frames)
        return mean_prediction([member.predict(faces) for member in self.members])

    def spread(self, frames: np.ndarray | FaceVideo) -> float:
        """Standard deviation of the members' ages, years: how far they disagree, which is not an error bar."""
        return float(np.std([member.predict(frames).age for member in self.members]))

    def __repr__(self) -> str:
        return f"Ensemble of {len(self.members)}: {super().__repr__()}"


def load_ensemble(run: Path, device: torch.device) -> Ensemble:
    """The models in `run`/folds/*/model.

    Raises:
        NemoError: the run has no folds, one is not finished, or they do not belong together.
    """
    shown = escape_controls(str(run))
    whole = RunFolder(run)
    folders = [RunFolder(path) for path in sorted(whole.folds.glob("*")) if path.is_dir()]
    if not folders:
        raise RunError(
            f"{shown} holds no models of folds; an ensemble needs a run with `folds`, which keeps them in "
            "folds/.",
            run,
        )
    gone = [folder for folder in folders if folder.predictions.is_file() and not folder.has_model]
    if gone:
        raise RunError(
            f"{escape_controls(str(gone[0]))} is finished, but its model/ is gone: copy it again.", run
        )
    unfinished = [folder.path.name for folder in folders if not folder.has_model]
    if whole.is_begun:
        count = read_json(whole.settings, folds=int).get("folds") or 0
        missing = next((k for k in range(count) if not whole.fold(k).path.is_dir()), None)
        unfinished += [] if missing is None else [str(missing)]
    if unfinished:
        raise RunError(
            f"Fold {escape_controls(unfinished[0])} of {shown} has no model yet; resume with `resume({shown})`.",
            run,
        )
    members = [LoadedModel(*load_model(folder.model.path, device)) for folder in folders]
    first = members[0]
    for folder, member in zip(folders, members, strict=True):
        if (
            member.prep_config != first.prep_config
            or not np.array_equal(member.mean_shape, first.mean_shape)
            or not np.array_equal(member.triangles, first.triangles)
        ):
            raise RunError(
                f"{escape_controls(str(folder))} was trained on faces that were prepared in another way than those of "
                f"{folders[0].path.name}; they do not belong to one run.",
                run,
            )
    return Ensemble(members)
