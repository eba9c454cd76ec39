"""A training that starts from another run's weights, for instance of still pictures. Beyond the paper."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nemo_pipeline.errors import DataError, LeakageError, SettingsError
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.text import escape_controls, listed
from siam_model.checkpoint import ModelCard, load_model
from siam_model.config import SIAMConfig
from siam_model.data import VideoTable
from siam_model.model import SIAM


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Start:
    """The weights that a training starts from.

    Attributes:
        tensors: all of that model, by name.
        card: that model's.
        shown: its folder, printable.
    """

    tensors: dict[str, Tensor]
    card: ModelCard
    shown: str

    @property
    def sha256(self) -> str:
        """Of names, shapes and values."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
        return digest.hexdigest()

    @property
    def people(self) -> list[str]:
        """Subjects that the weights have seen, in its own training and in those that it started from."""
        card = self.card
        return sorted({*card.subjects["training"], *card.subjects["validation"], *card.start_subjects})

    def fitting(self, model: SIAM) -> dict[str, Tensor]:
        """Those that `model` has a place for: of the same name and shape."""
        own = model.state_dict()
        return {k: v for k, v in self.tensors.items() if k in own and own[k].shape == v.shape}


def read_start(path: str | Path) -> Start:
    """The model of a run folder (or its `model/`). Raises NemoError as `load_model`."""
    model, card = load_model(Path(path))
    return Start(
        {k: v.detach().clone() for k, v in model.state_dict().items()}, card, escape_controls(str(path))
    )


def describe(start: Start, config: SIAMConfig, dataset: FaceDataset) -> list[str]:
    """What is taken and what is not, and how the faces differ; sentences.

    Raises:
        NemoError: the appearance module does not fit, or its faces were warped to another size.
    """
    with torch.device("meta"):
        model = SIAM(config)
    own, taken = model.state_dict(), start.fitting(model)
    if start.card.model.face_size != config.face_size:
        size = start.card.model.face_size
        raise DataError(
            f"{start.shown} saw faces of {size} pixels, and these have {config.face_size}: prepare them with "
            f"`size={size}`, or with `nemo rewarp`.",
            dataset.path,
        )
    wrong = sorted(k for k in own if k.startswith("appearance") and k not in taken)
    if wrong:
        there = tuple(start.tensors[wrong[0]].shape) if wrong[0] in start.tensors else "not there"
        raise SettingsError(
            f"The appearance module of {start.shown} does not fit this network: {wrong[0]} is {there}, and "
            f"{tuple(own[wrong[0]].shape)} is needed. Use its `preset` and `overrides` again.",
            "preset",
            "overrides",
        )
    parts = _parts(taken)
    fresh, left = _parts(set(own) - set(taken)), _parts(set(start.tensors) - set(taken))
    lines = [
        f"Starts from {start.shown}: {len(taken)} of {len(own)} tensors are taken ({listed(parts)})"
        + (f"; these start fresh: {listed(fresh)}" if fresh else "")
        + (f"; not used of its own: {listed(left)}" if left else "")
        + "."
    ]
    card, prep = start.card, dataset.config.to_dict()
    differ = [k for k in ("size", "margin", "smooth", "algorithm") if card.prep.get(k) != prep.get(k)]
    if not np.allclose(card.mean_shape, dataset.mean_shape, atol=1e-6):
        differ.append("mean shape")
    if differ:
        lines.append(
            f"Its faces were prepared otherwise ({', '.join(differ)}); what that does was not measured."
        )
    return lines


def _parts(names: Iterable[str]) -> list[str]:
    """The modules that tensors belong to, each once."""
    return sorted(
        {name.split(".")[0] if not name.startswith("recurrence") else "recurrence" for name in names}
    )


def check_people(
    start: Start, tests: Sequence[Iterable[str]], table: VideoTable, dataset: FaceDataset, distinct: bool
) -> None:
    """Nobody whom the model is tested on may have trained or chosen the weights that it starts from.

    Args:
        tests: subjects of the test part of each fold.
        distinct: subject codes of that run and of these data are other people's; its videos still count.

    Raises:
        NemoError: names one of them.
    """
    seen = set(start.people)
    tested = set().union(*tests)
    if not distinct and (both := seen & tested):
        raise LeakageError(
            f"Subject {escape_controls(min(both))} would be tested, and {start.shown} was trained with "
            f"{'them' if len(both) == 1 else f'{len(both)} of the people who would be'}: an error on them would mean "
            "nothing. Start from a run of other people; or, where equal codes are different people, say so: "
            "`distinct_subjects`.",
            *sorted(both),
        )
    hashes = dataset.videos["sha256"]
    known = set(start.card.videos)
    for row in table.rows_of(tested).tolist():
        if hashes[table.index[row]] in known:
            raise LeakageError(
                f"The video {escape_controls(table.id[row])} would be tested, and {start.shown} was trained with it: "
                "an error on it would mean nothing. Start from a run of other people.",
                table.id[row],
            )
