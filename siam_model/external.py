"""An external test set: a prepared file with labels of its own, predicted by the model of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import NemoError
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.text import counted, listed, printable
from siam_model.checkpoint import ModelCard
from siam_model.data import VideoTable, labelled_videos
from siam_model.loading import load
from siam_model.predict import LoadedModel
from siam_model.protocol.baselines import NAMES, predictions_of
from siam_model.reports.source import Run

#: Settings of a preparation that make no other faces of the same landmarks, or follow from the videos.
_HARMLESS = ("mesh", "stream", "mean_shape", "mean_shape_sha256", "size", "margin")


def check_faces(card: ModelCard, dataset: FaceDataset) -> str:
    """Whether a model may be asked about the faces of a prepared file; answers a sentence on settings that differ, ""
    where none does.

    Raises:
        NemoError: they were warped to another size, margin or mean shape.
    """
    shown, prep = printable(str(dataset.path)), PrepConfig.from_dict(card.prep, strict=False)
    side = card.model.face_size
    if dataset.size != side:
        raise NemoError(
            f"{shown} has faces of {dataset.size} x {dataset.size} pixels, and the model was trained on faces of "
            f"{side} x {side}: prepare these videos with `nemo prep --size {side}`."
        )
    same_shape = np.allclose(dataset.mean_shape, card.mean_shape) and np.array_equal(
        dataset.triangles, card.triangles
    )
    if dataset.config.margin != prep.margin or not same_shape:
        what = f"margin {prep.margin:g}" if same_shape else "mean shape"
        raise NemoError(
            f"{shown} was prepared for faces of another crop than those that the model was trained on: prepare these "
            f"videos with the {what} of the model."
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
    """Whether a video, or another one of its person, was among those that the model was trained on."""
    return sha256 in model.videos or subject in {*model.subjects["training"], *model.subjects["validation"]}


@dataclasses.dataclass(frozen=True, slots=True)
class ExternalTest:
    """A run as it does on an external test set, and what has to be known of the set, sentences."""

    run: Run
    notes: tuple[str, ...]


def run_on(
    run: Run,
    dataset: FaceDataset,
    device: str,
    *,
    distinct_subjects: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> ExternalTest:
    """Predict all labelled videos of a prepared file with the run's model; those that it knows are left out.

    Args:
        distinct_subjects: subjects are other people than those of the training, though codes are equal.
        on_step: told of every video.

    Raises:
        NemoError: the run has no model yet, the faces or labels are not fit for it, or it knows everybody.
    """
    model = load(run.folder, device)
    notes = [check_faces(model.card, dataset)]
    table = labelled_videos(dataset)
    rows, left_out = _unknown(model, dataset, table, distinct_subjects)
    notes.append(left_out)
    if not model.videos:
        notes.append("The model does not say which files it was trained on: subjects alone were compared.")
    ages = []
    for number, row in enumerate(rows, 1):
        on_step(f"video {number} of {len(rows)}")
        ages.append(model.predict(dataset[int(table.index[row])].frames).age)
    predictions = predictions_of(table, rows, 0, np.array(ages))
    median = predictions_of(table, rows, 0, np.full(len(rows), model.card.ages["median"]))
    meta = {
        **run.meta,
        "folds": None,
        "subset": {},
        "synthetic": run.synthetic or dataset.synthetic,
        "dataset": {"uuid": dataset.uuid, "file": printable(dataset.path.name)},
        "data": str(dataset.path),
    }
    tested = dataclasses.replace(
        run, meta=meta, predictions=predictions, baselines={NAMES["median"]: median}, external=True
    )
    return ExternalTest(tested, tuple(filter(None, notes)))


def _unknown(
    model: LoadedModel, dataset: FaceDataset, table: VideoTable, distinct_subjects: bool
) -> tuple[np.ndarray, str]:
    """Rows of the table that the model knows nothing of, and a sentence on the others."""
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
    shown, who = printable(str(dataset.path)), listed(sorted(people), 5)
    what = f"{counted(len(table) - len(rows), 'video')} of {counted(len(people), 'subject')} ({who})"
    how = f"{copies} of them the very files" if copies else "no file among them, the subjects' codes alone"
    hint = "" if distinct_subjects or copies else "; --distinct-subjects says that they are other people"
    if not len(rows):
        raise NemoError(
            f"{shown} is not the data of this run, and no test of it: the model was trained on all of its subjects "
            f"({who}; {how}){hint}."
        )
    return rows, f"Left out: {what} that the model was trained on ({how}){hint}."
