"""What is evaluated: runs, studies of several runs, predictions of other methods, and the data behind them."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.errors import DataError, NemoError, RunError
from nemo_pipeline.marks import NONE
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.marked import file_uuid, open_marked
from nemo_pipeline.store.text import escape_controls, listed, pluralize
from siam_model.predictions import Predictions, read_predictions
from siam_model.protocol.baselines import LABELS
from siam_model.run_folder import RunFolder, read_json
from siam_model.sums import FILE, changed_files

#: Ages are float32 in out.h5; two files agree when they differ by less than this, years.
_SAME_AGE = 1e-3


#: What is looked up in run.json, where it is there.
_KINDS: dict[str, type] = dict.fromkeys(
    ("dataset", "model", "train", "subset", "overrides", "versions"), dict
) | {"best_epochs": list, "data": str, "folds": int}


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """A run whose predictions are complete.

    Attributes:
        folder: where it is.
        name: what it is called where several runs are compared, printable.
        meta: run.json; settings.json where only the folds are finished.
        predictions: held out, one row per video.
        baselines: name for tables -> predictions of the same videos.
        note: what is not as the training wrote it, a sentence; "" otherwise.
        external: the predictions are of an external test set (`siam_model.external`), not of the run's own data.
    """

    folder: RunFolder
    name: str
    meta: dict[str, Any]
    predictions: Predictions
    baselines: dict[str, Predictions]
    note: str = ""
    external: bool = False

    @property
    def synthetic(self) -> bool:
        """Whether its faces are generated; where nothing says so, they are taken for generated."""
        return bool(self.meta.get("synthetic", True))

    @property
    def folds(self) -> int | None:
        """Number of folds; None where a part of the subjects was held out."""
        return self.meta.get("folds")

    @property
    def dataset(self) -> dict[str, Any]:
        """uuid and name of its data."""
        return self.meta.get("dataset") or {}

    def model_folder(self, fold: int) -> RunFolder:
        """Folder of the model that predicted this fold."""
        return self.folder if self.folds is None else self.folder.fold(fold)

    @property
    def has_models(self) -> bool:
        """Whether the model behind every prediction is there."""
        folds = {int(k) for k in self.predictions.fold}
        return all(self.model_folder(k).has_model for k in folds)

    def described(self) -> str:
        """On which data its numbers were made, a phrase."""
        how = f"{self.folds} folds" if self.folds else "held-out subjects"
        how = "external test set" if self.external else how
        subset = " ".join(str(v) for v in reversed(list((self.meta.get("subset") or {}).values())))
        kind = "SYNTHETIC faces, " if self.synthetic else ""
        part = f" ({subset} only)" if subset else ""
        videos = pluralize(len(self.predictions), "video")
        people = len(set(self.predictions.subject))
        name = self.dataset.get("file", "data without a name")
        return escape_controls(f"{kind}{name}{part}: {videos} of {people} subjects, {how}")


@dataclasses.dataclass(frozen=True, slots=True)
class VariantRun:
    """One variant of a study: its run, or why it has no finished run."""

    name: str
    label: str
    subset: dict[str, str]
    run: Run | None
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Study:
    """A study: several runs over shared folds."""

    folder: RunFolder
    kind: str
    variants: tuple[VariantRun, ...]

    @property
    def finished(self) -> tuple[tuple[VariantRun, Run], ...]:
        """Variants that have a run."""
        return tuple((v, v.run) for v in self.variants if v.run is not None)


def open_source(path: Path) -> Run | Study:
    """A run or a study.

    Raises:
        NemoError: it is neither, or a run without complete predictions.
    """
    if not path.is_dir():
        raise DataError(
            f"{escape_controls(str(path))} is not a folder; give a run folder of `nemo train`.", path
        )
    folder = RunFolder(path)
    return _open_study(folder) if folder.is_study else open_run(folder)


def open_run(folder: RunFolder, name: str = "") -> Run:
    """A run. Folds that were trained apart (array jobs) and not joined yet are read together; nothing is written.

    Raises:
        NemoError: no predictions, folds missing, or a baseline whose videos are not those of the predictions.
    """
    meta_file = folder.settings if folder.is_begun and not folder.run.is_file() else folder.run
    meta = read_json(meta_file, **_KINDS)
    if "dataset" not in meta and "uuid" in meta:  # settings.json
        meta = {**meta, "dataset": {"uuid": meta["uuid"], "file": meta.get("file", "")}}
    if not folder.predictions.is_file() and folder.folds.is_dir():
        from siam_model.protocol.crossval import read_folds

        joined = read_folds(folder)
        predictions, found = joined.predictions, joined.baselines
    else:
        predictions = read_predictions(folder.predictions)
        found = {file.stem: read_predictions(file) for file in sorted(folder.baselines.glob("*.csv"))}
    baselines = {}
    for stem in sorted(found, key=lambda s: (list(LABELS).index(s) if s in LABELS else len(LABELS), s)):
        line, file = found[stem], folder.baseline(stem)
        if len(line) > len(predictions):
            raise DataError(
                f"{escape_controls(str(folder.predictions))} holds {len(predictions)} videos, and "
                f"{escape_controls(str(file))} {len(line)}: it was cut off; copy it again.",
                folder.predictions,
            )
        baselines[LABELS.get(stem, escape_controls(stem))] = same_videos(line, predictions, file)
    changed, note = changed_files(folder.path), ""
    if changed:
        note = (
            f"{escape_controls(str(folder))} is not as the training wrote it: its {FILE} does not fit "
            f"{listed(changed)}. Copy the run again; another method's predictions are given with `others`."
        )
        warnings.warn(note, stacklevel=2)
    return Run(
        folder, name or escape_controls(folder.path.resolve().name), meta, predictions, baselines, note
    )


def same_videos(other: Predictions, ours: Predictions, path: Path) -> Predictions:
    """`other` for the videos of `ours`, in the order of `ours`.

    Raises:
        NemoError: a video is not predicted, or has another age.
    """
    place = {video: i for i, video in enumerate(other.video)}
    shown = escape_controls(str(path))
    missing = [video for video in ours.video if video not in place]
    if missing:
        raise DataError(
            f"{shown} does not predict the same videos as predictions.csv: {escape_controls(missing[0])} is missing"
            f"{f', and {len(missing) - 1} more' if len(missing) > 1 else ''}.",
            path,
        )
    rows = np.array([place[video] for video in ours.video])
    wrong = np.flatnonzero(np.abs(other.age[rows] - ours.age) > _SAME_AGE)
    if len(wrong):
        i = wrong[0]
        raise DataError(
            f"{shown} gives {escape_controls(ours.video[i])} the age {other.age[rows][i]:g}, and predictions.csv "
            f"{ours.age[i]:g}; both need the same true ages.",
            path,
        )
    return Predictions(ours.video, ours.subject, ours.fold, ours.age, other.predicted[rows], ours.file)


def _open_study(folder: RunFolder) -> Study:
    from siam_model.study import variants_in

    kind = read_json(folder.study, study=str).get("study") or ""
    variants = []
    for line in variants_in(folder):
        run, reason = None, ""
        try:
            run = open_run(folder.variant(line.name), escape_controls(line.label))
        except NemoError as error:
            reason = str(error)
        variants.append(VariantRun(line.name, escape_controls(line.label), dict(line.subset), run, reason))
    return Study(folder, kind, tuple(variants))


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """The data of a run, opened.

    Attributes:
        dataset: the file.
        row: id of a video -> its index there.
        note: what is not as it was in training, a sentence; "" otherwise.
    """

    dataset: FaceDataset
    row: dict[str, int]
    note: str = ""

    def label(self, name: str, video: str) -> str:
        """The text label `name` of a video, "" where unknown."""
        return str(self.dataset.videos[name][self.row[video]]).strip()

    def labels(self, name: str, predictions: Predictions) -> list[str]:
        """The label of every predicted video."""
        return [self.label(name, video) for video in predictions.video]


def is_own(run: Run, dataset: FaceDataset) -> bool:
    """Whether a prepared file is the data of a run, or a copy of them: it has all videos that the run predicted."""
    same = file_uuid(dataset.uuid) == file_uuid(str(run.dataset.get("uuid")))
    return same or set(run.predictions.video) <= set(dataset.videos["id"])


def open_data(run: Run, given: Path | None, marks: str | os.PathLike[str] | None = None) -> Data:
    """The data that a run was made from, without what its marks left out: `given`, or where run.json says they were.

    A packed copy, or a file whose other labels were corrected, is taken too: what has to agree is every predicted
    video's subject and age.

    Args:
        marks: of an external test set, as `open_marked` takes them.

    Raises:
        NemoError: the file is gone, or is other data.
    """
    path = given if given is not None else Path(str(run.meta.get("data") or ""))
    shown = escape_controls(str(path))
    if given is None and not run.meta.get("data"):
        raise RunError(
            "run.json does not say where the data are; name them with `data=DATA.h5`.", run.folder.path
        )
    if given is None and not path.is_file():
        raise DataError(f"{shown} is not there any more; say where the data are with `data=DATA.h5`.", path)
    own = run.folder.marks if run.folder.marks.is_file() else NONE
    dataset = open_marked(path, marks if run.external else own)
    size = (run.meta.get("model") or {}).get("face_size", dataset.size)
    if dataset.size != size:
        raise DataError(
            f"{shown} has faces of {dataset.size} x {dataset.size} pixels, and the run was trained on faces of "
            f"{size} x {size}: give the file that it was trained on, or prepare these videos again with "
            f"`size={size}`.",
            path,
        )
    row = {str(name): i for i, name in enumerate(dataset.videos["id"])}
    if len(row) and dataset.uuid == run.dataset.get("uuid"):
        return Data(dataset, row)
    for video, subject, age in zip(
        run.predictions.video, run.predictions.subject, run.predictions.age, strict=True
    ):
        i = row.get(video)
        if i is None or dataset.videos["length"][i] < 1:
            raise DataError(
                f"{shown} is not the data of this run: it has no video {escape_controls(video)}.", path
            )
        other = str(dataset.videos["subject"][i]).strip(), float(dataset.videos["age"][i])
        if other[0] != subject or not abs(other[1] - age) <= _SAME_AGE:
            raise DataError(
                f"{shown} is not the data of this run: {escape_controls(video)} shows subject "
                f"{escape_controls(other[0])} of {other[1]:g} years there, and {escape_controls(subject)} of {age:g} "
                "years here.",
                path,
            )
    return Data(dataset, row, f"{shown} is another file than the run was trained on, with the same videos.")


def parse_with(values: Mapping[str, Path], ours: Predictions) -> dict[str, Predictions]:
    """Predictions of other methods: name -> predictions for the videos of `ours`. Raises NemoError."""
    return {
        escape_controls(name): same_videos(read_predictions(path), ours, path)
        for name, path in values.items()
    }
