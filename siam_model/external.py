"""An external test set: a prepared file with labels of its own, predicted by the model of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import DataError, LeakageError, NemoError
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.text import escape_controls, listed, pluralize
from siam_model.checkpoint import ModelCard
from siam_model.data import VideoTable, labelled_videos
from siam_model.loading import load
from siam_model.predict import LoadedModel
from siam_model.protocol.baselines import NAMES, to_predictions
from siam_model.reports.source import Run

#: Settings of a preparation that do not change how a face looks, or that are checked by themselves.
_HARMLESS = ("mesh", "stream", "mean_shape", "mean_shape_sha256", "size", "margin")


def check_faces(card: ModelCard, dataset: FaceDataset) -> str:
    """Check that a model can predict the faces of a prepared file.

    Returns:
        A sentence about settings of the preparation that differ; "" if none does.

    Raises:
        NemoError: the faces have another size, margin or mean shape than those of the training.
    """
    shown, prep = escape_controls(str(dataset.path)), PrepConfig.from_dict(card.prep, strict=False)
    side = card.model.face_size
    if dataset.size != side:
        raise DataError(
            f"{shown} has faces of {dataset.size} x {dataset.size} pixels, and the model was trained on faces of "
            f"{side} x {side}: warp them again (`nemo rewarp`) with `size={side}`.",
            dataset.path,
        )
    same_shape = np.allclose(dataset.mean_shape, card.mean_shape) and np.array_equal(
        dataset.triangles, card.triangles
    )
    if dataset.config.margin != prep.margin or not same_shape:
        what = f"margin {prep.margin:g}" if same_shape else "mean shape"
        raise DataError(
            f"{shown} has faces of another crop than the model was trained on: prepare these videos with the {what} "
            "of the model (`nemo rewarp` does so without tracking again).",
            dataset.path,
        )
    there, here = dataclasses.asdict(prep), dataclasses.asdict(dataset.config)
    other = [
        f"{name} ({here[name]} here, {there[name]} there)"
        for name in sorted(there)
        if name not in _HARMLESS and here[name] != there[name]
    ]
    return (
        f"{shown} was prepared with other settings than the model's videos: {listed(other)}." if other else ""
    )


def is_known(model: LoadedModel, subject: str, sha256: str) -> bool:
    """Whether the model was trained on this file, or on another video of this subject."""
    return sha256 in model.videos or subject in {*model.subjects["training"], *model.subjects["validation"]}


def runs_on(
    runs: Sequence[Run],
    dataset: FaceDataset,
    device: str,
    *,
    distinct_subjects: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> tuple[list[Run], list[str]]:
    """Predict the labelled videos of a prepared file with the model of each run.

    Videos and subjects that a model was trained on are left out, for all runs: their tables are about the same videos.

    Args:
        distinct_subjects: compare files alone: subjects differ from the training subjects, even if their codes agree.
        on_step: called with a phrase before each video.

    Returns:
        The runs with predictions of this file, and notes for the reader, sentences.

    Raises:
        NemoError: a run has no model yet, faces or labels do not suit it, or no unknown subject is left.
    """
    table, notes = labelled_videos(dataset), []
    rows, models = np.arange(len(table)), []
    for run in runs:
        model = load(run.folder, device)
        notes.append(check_faces(model.card, dataset))
        unknown, note = _unknown(model, dataset, table, distinct_subjects)
        notes.append(note)
        if not model.videos:
            notes.append(
                "The model does not record which files it was trained on: only subjects were compared."
            )
        rows = np.intersect1d(rows, unknown)
        models.append(model)
    if not len(rows):
        raise LeakageError(
            f"{escape_controls(str(dataset.path))} has no video that is new to all of these runs."
        )
    tested = []
    for run, model in zip(runs, models, strict=True):
        ages = []
        for number, row in enumerate(rows, 1):
            on_step(f"video {number} of {len(rows)}")
            try:
                ages.append(model.predict(dataset[int(table.index[row])]).age)
            except NemoError as error:
                raise DataError(
                    f"{escape_controls(str(dataset.path))}, {escape_controls(table.id[row])}: {error}",
                    dataset.path,
                ) from None
        median = np.full(len(rows), model.card.ages["median"])
        meta = {
            **run.meta,
            "folds": None,
            "subset": {},
            "synthetic": run.synthetic or dataset.synthetic,
            "dataset": {"uuid": dataset.uuid, "file": escape_controls(dataset.path.name)},
            "data": str(dataset.path),
        }
        tested.append(
            dataclasses.replace(
                run,
                meta=meta,
                predictions=to_predictions(table, rows, 0, np.array(ages)),
                baselines={NAMES["median"]: to_predictions(table, rows, 0, median)},
                external=True,
            )
        )
    return tested, list(dict.fromkeys(filter(None, notes)))


def _unknown(
    model: LoadedModel, dataset: FaceDataset, table: VideoTable, distinct_subjects: bool
) -> tuple[np.ndarray, str]:
    """Rows of the table that the model was not trained on, and a sentence about the others."""
    hashes = [str(dataset.videos["sha256"][i]) for i in table.index]
    known = [
        is_known(model, "" if distinct_subjects else subject, digest)
        for subject, digest in zip(table.subject, hashes, strict=True)
    ]
    rows = np.flatnonzero(np.logical_not(known))
    if len(rows) == len(table):
        return rows, ""
    people = {table.subject[i] for i in np.flatnonzero(known)}
    copies = sum(digest in model.videos for digest in hashes)
    shown, who = escape_controls(str(dataset.path)), listed(sorted(people), 5)
    how = (
        f"{pluralize(copies, 'identical file')}"
        if copies
        else "no identical file, but the same subject codes"
    )
    hint = "" if distinct_subjects or copies else ". If the codes name other people, add `distinct_subjects`"
    if not len(rows):
        raise LeakageError(
            f"{shown} is not the data of this run, and cannot test it either: the model was trained on all of its "
            f"subjects ({who}; {how}){hint}.",
            *sorted(people),
        )
    what = f"{pluralize(len(table) - len(rows), 'video')} of {pluralize(len(people), 'subject')} ({who})"
    return rows, f"Left out {what} that the model was trained on: {how}{hint}."
