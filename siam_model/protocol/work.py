"""A run opened for training: its settings, its data, its splits, and who is told how it goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.errors import NemoError
from nemo_pipeline.fields import from_record
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.text import equal_codes, listed, printable
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.data import Clips, VideoTable, labelled_videos
from siam_model.devices import resolve_device
from siam_model.protocol.overrides import configure
from siam_model.protocol.settings import RunSettings, check_data, claim, read_settings
from siam_model.protocol.splits import HOW_BALANCED, Split, balance, check_folds, plan_splits, restrict
from siam_model.protocol.subsets import subset_of
from siam_model.runs import new_run_folder, read_json, write_json
from siam_model.training.records import EpochRecord


@dataclasses.dataclass(frozen=True, slots=True)
class Where:
    """What is being trained: a fold (None without folds, -1 the model of all subjects), a trial of its search
    (None outside one) of how many, in a variant of a study ("" outside one)."""

    fold: int | None = None
    trial: int | None = None
    trials: int = 0
    variant: str = ""

    def __str__(self) -> str:
        parts = [self.variant] if self.variant else []
        if self.fold is not None:
            parts.append("all subjects" if self.fold < 0 else f"fold {self.fold}")
        if self.trial is not None:
            parts.append(f"trial {self.trial + 1}/{self.trials}")
        return ", ".join(parts)


class Reporter:
    """Is told how a training goes; this one listens to nothing. Where several processes train, their news come
    here too."""

    def begun(self, run: Path) -> None:
        """The folder of the run, or of the study, is there; `nemo train --resume` can go on with it from now on."""

    def say(self, text: str, where: Where | None = None) -> None:
        """A sentence."""

    def failed(self, text: str, where: Where) -> None:
        """A sentence on what is not finished, and why."""
        self.say(text, where)

    def balance(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """The parts, one line each, as `siam_model.protocol.splits.balance` has them."""

    def batch(self, where: Where, done: int, total: int) -> None:
        """Some batches of an epoch are done. Not told by other processes."""

    def epoch(self, where: Where, record: EpochRecord) -> None:
        """An epoch is finished."""


class CallbackReporter(Reporter):
    """Two functions as a reporter: `on_epoch(record)` and `say(text)`, either of which may be None."""

    def __init__(
        self, on_epoch: Callable[[EpochRecord], None] | None, say: Callable[[str], None] | None
    ) -> None:
        self._on_epoch, self._say = on_epoch, say

    def say(self, text: str, where: Where | None = None) -> None:
        if self._say is not None:
            self._say(f"{where}: {text}" if where is not None and str(where) else text)

    def balance(self, lines: Sequence[Mapping[str, Any]]) -> None:
        self.say(HOW_BALANCED)
        for line in lines:
            genders = ", ".join(f"{n} {g}" for g, n in line["gender"].items())
            self.say(printable(
                f"Test part of fold {line['fold']}: {line['subjects']} subjects ({genders}), {line['videos']} "
                f"videos, ages {line['age_min']:.0f} to {line['age_max']:.0f}, mean {line['age_mean']:.1f}."
            ))  # fmt: skip

    def epoch(self, where: Where, record: EpochRecord) -> None:
        if self._on_epoch is not None:
            self._on_epoch(record)


@dataclasses.dataclass(frozen=True, slots=True)
class Runtime:
    """How this process trains: nothing here is a property of the run.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        workers: processes that read data beside this one.
        fit: further keyword arguments of `siam_model.training.fit.fit`: `devices`, `tensorboard`.
    """

    device: str = "auto"
    workers: int = 0
    fit: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """A run opened for training.

    Attributes:
        run: its folder.
        settings: what was asked for.
        model, config: the base configurations, before any search.
        dataset, table: the data, and their videos that take part.
        splits: one per fold, or a single one.
        clips: for `fit`.
        variant: its name in a study, "" outside one.
    """

    run: Path
    settings: RunSettings
    model: SIAMConfig
    config: TrainConfig
    dataset: FaceDataset
    table: VideoTable
    splits: tuple[Split, ...]
    clips: Clips
    variant: str = ""

    @property
    def folded(self) -> bool:
        """Whether it is a cross-validation."""
        return self.settings.folds is not None

    def index(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the table -> indices of the dataset."""
        return self.table.index[rows]


def settings_for(
    data: Path,
    *,
    preset: str,
    seed: int,
    epochs: int | None,
    folds: int | None,
    trials: int,
    overrides: Mapping[str, str] | None,
    precision: str = "32",
    subset: Mapping[str, str] | None = None,
    study: str | None = None,
    distinct_subjects: bool = False,
) -> tuple[RunSettings, SIAMConfig, TrainConfig, FaceDataset]:
    """Check what was asked for, without writing anything.

    Raises:
        NemoError: data that cannot be read, subject codes that may be one person (unless `distinct_subjects`), or a
            setting that cannot be.
    """
    dataset = FaceDataset(data)
    if not distinct_subjects:
        _check_codes(dataset)
    if "model.face_size" in (overrides or {}):
        raise NemoError(
            "model.face_size follows from the data; prepare faces of another size with `nemo prep --size`."
        )
    if epochs is not None and "train.epochs" in (overrides or {}):
        raise NemoError("--epochs and --set train.epochs say the same thing: leave one of them out.")
    model, config = configure(preset, overrides, train__epochs=epochs, model__face_size=dataset.size)
    if folds is not None and folds < 2:
        raise NemoError(f"--folds is {folds}; a cross-validation takes at least 2 folds.")
    if trials < 0:
        raise NemoError(f"--trials is {trials}; it is a number of combinations, or 0 for no search.")
    settings = RunSettings(
        data=str(dataset.path),
        uuid=dataset.uuid,
        file=printable(dataset.path.name),
        synthetic=dataset.synthetic,
        preset=preset,
        seed=seed,
        epochs=epochs,
        folds=folds,
        trials=trials,
        overrides=dict(overrides or {}),
        precision=precision,
        subset=dict(subset or {}),
        study=study,
    )
    return settings, model, config, dataset


def _check_codes(dataset: FaceDataset) -> None:
    """One person under two codes would be trained on and tested. Raises NemoError."""
    groups = equal_codes(labelled_videos(dataset).subject)
    if groups:
        shown = "; ".join(listed([repr(code) for code in group]) for group in groups[:3])
        more = f" and {len(groups) - 3} more such groups" if len(groups) > 3 else ""
        file = printable(str(dataset.path))
        raise NemoError(
            f"{file} has subject codes that may mean one person: {shown}{more}. That person would be in training and "
            f"test. Give every person one code (`nemo label {file} FILE`), or say that they are different people: "
            "--distinct-subjects."
        )


def plan(
    settings: RunSettings, config: TrainConfig, dataset: FaceDataset, reporter: Reporter
) -> tuple[list[Split], VideoTable]:
    """The splits of all labelled videos, whatever the run's subset: so that runs on subsets share their folds.

    Raises:
        NemoError: ages or subjects are missing, too few of them, or a fold column that contradicts itself.
    """
    table = labelled_videos(dataset)
    if table.dropped:
        count = f"{table.dropped} video{'s' if table.dropped > 1 else ''}"
        reporter.say(f"Left out: {count} without an age or a subject.")
    doubtful = doubtful_subjects(table)
    if doubtful:
        reporter.say(f"Look at the labels: {doubtful}")
    splits = plan_splits(
        table,
        folds=settings.folds,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=settings.seed,
    )
    return splits, table


def doubtful_subjects(table: VideoTable) -> str:
    """A sentence on subjects that are hardly one person each: ages more than 10 years apart, or two genders. "" where
    there is none. (One code for two people keeps both in one part; two codes for one would let a test know its people.)
    """
    ages: dict[str, list[float]] = {}
    genders: dict[str, set[str]] = {}
    for subject, age, gender in zip(table.subject, table.age, table.gender, strict=True):
        ages.setdefault(subject, []).append(float(age))
        genders.setdefault(subject, set()).update({gender} - {"", "unknown"})
    found = [
        f"{code} is {min(own):g} to {max(own):g} years old"
        if max(own) - min(own) > 10
        else f"{code} is {' and '.join(sorted(genders[code]))}"
        for code, own in sorted(ages.items())
        if max(own) - min(own) > 10 or len(genders[code]) > 1
    ]
    more = f", and {len(found) - 3} more such subjects" if len(found) > 3 else ""
    return printable(f"subject {', subject '.join(found[:3])}{more}.") if found else ""


def begin(
    out: Path | None,
    settings: RunSettings,
    model: SIAMConfig,
    config: TrainConfig,
    dataset: FaceDataset,
    reporter: Reporter,
    *,
    splits: Sequence[Split] | None = None,
    shared: bool = False,
    variant: str = "",
) -> Work:
    """Make the folder of a run (or find that of a shared one), with settings.json and split.json.

    Args:
        out: the folder, new or empty; None: `runs/<date-time>`.
        splits: of a study, in place of new ones.
        shared: several processes may begin the same folder; the first one writes it, the others compare.
        variant: its name in a study, which has told of folder and balance itself.

    Raises:
        NemoError: as `plan`, or the folder holds something else.
    """
    full = labelled_videos(dataset)
    if splits is None:
        splits, full = plan(settings, config, dataset, reporter)
    table = subset_of(full, dataset, settings.subset)
    mine = [restrict(split, table) for split in splits]
    if settings.folds is not None:
        check_folds(mine, table)
    lines = balance(mine, table)
    run = new_run_folder(out, shared=shared)
    claim(run, settings, model, config)
    if not (run / "split.json").is_file():
        write_json(run / "split.json", split_json(mine, table, settings.folds is not None, lines))
    if not variant:
        reporter.begun(run)
        reporter.balance(lines)
    return open_work(run, dataset=dataset, variant=variant)


def open_work(
    run: Path, data: Path | None = None, *, dataset: FaceDataset | None = None, variant: str = ""
) -> Work:
    """A run that was begun, ready to go on.

    Args:
        data: where its data are now; None: where they were.

    Raises:
        NemoError: the folder is no run, or the data are not those that it was begun with.
    """
    settings, model, config = read_settings(run)
    if dataset is None:
        dataset = open_data(run, settings, data)
    check_data(run, settings, dataset.uuid, str(dataset.path))
    table = subset_of(labelled_videos(dataset), dataset, settings.subset)
    splits = read_splits(run)
    known = set(table.subject)
    for split in splits:
        for subject in (*split.training, *split.validation, *split.test):
            if subject not in known:
                raise NemoError(
                    f"{printable(str(run / 'split.json'))} names the subject {printable(subject)}, who is not in the "
                    "data; begin a new run."
                )
    if settings.folds is not None:
        check_folds(splits, table)
    clips = Clips(dataset, table, config.frame_step)
    return Work(run, settings, model, config, dataset, table, splits, clips, variant)


def open_data(run: Path, settings: RunSettings, data: Path | None) -> FaceDataset:
    """The data of a run: at `data`, or where they were.

    Raises:
        NemoError: they are not there, or others.
    """
    if data is None and not Path(settings.data).is_file():
        shown = printable(str(run))
        raise NemoError(
            f"{shown} was begun with {printable(settings.data)}, which is not there any more; say where it is now: "
            f"nemo train DATA.h5 --resume --out {shown}."
        )
    dataset = FaceDataset(data if data is not None else settings.data)
    check_data(run, settings, dataset.uuid, str(dataset.path))
    return dataset


def split_json(
    splits: Sequence[Split], table: VideoTable, folded: bool, lines: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Subjects by part of the model that is kept, and of every fold's; and the balance.

    The model kept after a cross-validation has seen everybody: its test part is empty.
    """
    kept = splits[0].to_dict()
    if folded:
        kept = {"training": sorted(set(table.subject)), "validation": [], "test": []}
    kept.pop("fold", None)
    return {
        **kept,
        "folds": [split.to_dict() for split in splits],
        "how": HOW_BALANCED,
        "balance": [dict(line) for line in lines],
    }


def read_splits(run: Path) -> tuple[Split, ...]:
    """The splits of split.json, in order.

    Raises:
        NemoError: the file is missing or damaged, or a subject is in two parts.
    """
    values = read_json(run / "split.json")
    try:
        return tuple(from_record(Split, line) for line in values["folds"])
    except (KeyError, TypeError, ValueError):
        raise NemoError(
            f"{printable(str(run / 'split.json'))} is damaged; begin a new run with another --out."
        ) from None


def check_runtime(runtime: Runtime, precision: str, jobs: int, folds: int | None) -> None:
    """Raises NemoError when this machine lacks the device, or the device the precision, or they cannot be combined."""
    from siam_model.training.fit import check_devices, check_precision

    check_devices(runtime.device, runtime.fit.get("devices", 1))
    check_precision(precision, resolve_device(runtime.device))
    if jobs > 1 and runtime.fit.get("devices", 1) > 1:
        raise NemoError("--jobs gives every fold a GPU of its own; it cannot be combined with --devices.")
    if jobs > 1 and folds is None:
        raise NemoError(
            "--jobs trains folds side by side, and there are none: add --folds K, or leave it out."
        )
