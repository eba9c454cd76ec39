"""A run opened for training: its settings, its data and its splits; and how its folder is begun."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.errors import DataError, RunError, SettingsError
from nemo_pipeline.fields import from_record
from nemo_pipeline.marks import NONE, write_marks
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.marked import MarkedFaces, file_uuid, open_marked
from nemo_pipeline.store.text import equal_codes, escape_controls, listed
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.data import Clips, VideoTable, labelled_videos
from siam_model.protocol.doubts import doubtful_subjects, repeated_files
from siam_model.protocol.overrides import configure
from siam_model.protocol.reporter import Reporter
from siam_model.protocol.request import Runtime, TrainRequest
from siam_model.protocol.settings import RunSettings, check_data, claim, read_settings
from siam_model.protocol.splits import HOW_BALANCED, Split, balance, check_folds, plan_splits, restrict
from siam_model.protocol.subsets import take_subset
from siam_model.run_folder import RunFolder, read_json, write_json
from siam_model.runs import check_no_links, new_run_folder
from siam_model.sums import check_sums, write_sums
from siam_model.training.start import Start, check_people, describe, read_start


@dataclasses.dataclass(frozen=True, slots=True)
class OpenRun:
    """A run opened for training.

    Attributes:
        folder: of the run.
        settings: what was asked for.
        model, config: the base configurations, before any search.
        dataset, table: the data, and their videos that take part.
        splits: one per fold, or a single one.
        clips: for `fit`.
        variant: its name in a study, "" outside one.
        runtime: how this process trains.
        reporter: who is told.
        start: weights that every model starts from; None: all start fresh.
    """

    folder: RunFolder
    settings: RunSettings
    model: SIAMConfig
    config: TrainConfig
    dataset: FaceDataset
    table: VideoTable
    splits: tuple[Split, ...]
    clips: Clips
    variant: str
    runtime: Runtime
    reporter: Reporter
    start: Start | None = None

    @property
    def folded(self) -> bool:
        """Whether it is a cross-validation."""
        return self.settings.folds is not None

    def index(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the table -> indices of the dataset."""
        return self.table.index[rows]


def settings_for(data: Path, request: TrainRequest) -> tuple[RunSettings, FaceDataset]:
    """Check what was asked for, without writing anything.

    Raises:
        NemoError: data that cannot be read, subject codes that may be one person (unless
            `request.distinct_subjects`), or a setting that cannot be.
    """
    dataset = open_marked(data, request.marks)
    if not request.distinct_subjects:
        _check_codes(dataset)
    request.check()
    asked = {field.name: getattr(request, field.name) for field in dataclasses.fields(TrainRequest)}
    settings = RunSettings(
        **asked,
        data=str(dataset.path),
        uuid=dataset.uuid,
        file=escape_controls(dataset.path.name),
        synthetic=dataset.synthetic,
    )
    model, _ = configurations(settings, dataset)
    if settings.init is not None:
        start = read_start(settings.init)
        describe(start, model, dataset)
        settings = dataclasses.replace(settings, init_sha256=start.sha256)
    return settings, dataset


def configurations(settings: RunSettings, dataset: FaceDataset) -> tuple[SIAMConfig, TrainConfig]:
    """Network and training as the settings say, for faces of the size of the data. Raises NemoError.

    Where every video is one frame there is nothing to recur over: without a setting of their own, recurrence and
    temporal attention are left out.
    """
    still = only_stills(dataset) and not {"model.recurrent", "model.temporal_attention"} & set(
        settings.overrides
    )
    return configure(
        settings.preset, settings.overrides, train__epochs=settings.epochs, model__face_size=dataset.size,
        model__recurrent=False if still else None, model__temporal_attention=False if still else None,
    )  # fmt: skip


def only_stills(dataset: FaceDataset) -> bool:
    """Whether every usable video is a single frame."""
    usable = np.asarray(dataset.usable, dtype=np.int64)
    return len(usable) > 0 and bool((dataset.videos["length"][usable] == 1).all())


def _check_codes(dataset: FaceDataset) -> None:
    """One person under two codes would be trained on and tested. Raises NemoError."""
    groups = equal_codes(labelled_videos(dataset).subject)
    if groups:
        shown = "; ".join(listed([repr(code) for code in group]) for group in groups[:3])
        more = f" and {len(groups) - 3} more such groups" if len(groups) > 3 else ""
        file = escape_controls(str(dataset.path))
        raise SettingsError(
            f"{file} has subject codes that may mean one person: {shown}{more}. That person would be in training and "
            f"test. Give every person one code (`nemo label {file} FILE`), or say that they are different people: "
            "`distinct_subjects`.",
            "distinct_subjects",
        )


def plan(settings: RunSettings, dataset: FaceDataset, reporter: Reporter) -> tuple[list[Split], VideoTable]:
    """The splits of all labelled videos, whatever the run's subset: so that runs on subsets share their folds.

    Raises:
        NemoError: ages or subjects are missing, too few of them, or a fold column that contradicts itself.
    """
    model, config = configurations(settings, dataset)
    if settings.trials and not config.validation_fraction:
        raise SettingsError(
            "`trials` are compared on validation subjects, and `train.validation_fraction` is 0: set it above 0, or "
            "leave out `trials`.",
            "trials",
        )
    if isinstance(dataset, MarkedFaces) and dataset.exclusions.file:
        reporter.say(str(dataset.exclusions))
    table = labelled_videos(dataset)
    if only_stills(dataset) and not model.recurrent:
        reporter.say("Every video is one frame: the model has no recurrence and no temporal attention.")
    if settings.init is not None:
        for line in describe(read_start(settings.init), model, dataset):
            reporter.say(line)
    if table.dropped:
        count = f"{table.dropped} video{'s' if table.dropped > 1 else ''}"
        reporter.say(f"Left out: {count} without an age or a subject.")
    for doubt in (doubtful_subjects(table), repeated_files(table, dataset.videos["sha256"])):
        if doubt:
            reporter.say(f"Look at the labels: {doubt}")
    splits = plan_splits(
        table,
        folds=settings.folds,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=settings.seed,
    )
    return splits, table


def begin(
    out: Path | None,
    settings: RunSettings,
    dataset: FaceDataset,
    splits: Sequence[Split],
    table: VideoTable,
    *,
    shared: bool = False,
) -> tuple[RunFolder, list[dict[str, Any]]]:
    """Make the folder of a run (or find that of a shared one), with settings.json and split.json.

    Args:
        out: the folder, new or empty; None: `runs/<date-time>`.
        splits, table: of all labelled videos, as from `plan`; the run takes the part that its subset says.
        shared: several processes may begin the same folder; the first one writes it, the others compare.

    Returns:
        The folder, and the balance of its parts.

    Raises:
        NemoError: the folder holds something else, or the subset leaves too little.
    """
    part = take_subset(table, dataset, settings.subset)
    mine = [restrict(split, part) for split in splits]
    if settings.folds is not None:
        check_folds(mine, part)
    if settings.init is not None:
        start = read_start(settings.init)
        check_people(start, [split.test for split in mine], part, dataset, settings.distinct_subjects)
    lines = balance(mine, part)
    path = new_run_folder(out, shared=shared)
    folder = RunFolder(path)
    claim(path, settings, *configurations(settings, dataset))
    if isinstance(dataset, MarkedFaces) and dataset.exclusions and not folder.marks.is_file():
        write_marks(folder.marks, dataset.marks)
    if not folder.split.is_file():
        write_json(folder.split, split_json(mine, part, settings.folds is not None, lines))
        write_sums(path)
    return folder, lines


def open_run(
    folder: RunFolder,
    data: Path | None = None,
    *,
    dataset: FaceDataset | None = None,
    variant: str = "",
    runtime: Runtime | None = None,
    reporter: Reporter | None = None,
) -> OpenRun:
    """A run that was begun, ready to be continued.

    Args:
        data: where its data are now; None: where they were.

    Raises:
        NemoError: the folder is not a run, or the data are not those that it was begun with.
    """
    settings, model, config = read_settings(folder.path)
    check_no_links(folder.path)
    if dataset is None:
        dataset = open_data(folder.path, settings, data)
    check_data(folder.path, settings, dataset.uuid, str(dataset.path))
    table = take_subset(labelled_videos(dataset), dataset, settings.subset)
    splits = read_splits(folder)
    known = set(table.subject)
    for split in splits:
        for subject in (*split.training, *split.validation, *split.test):
            if subject not in known:
                raise RunError(
                    f"{escape_controls(str(folder.split))} names the subject {escape_controls(subject)}, who is not in "
                    "the data; begin a new run.",
                    folder,
                )
        left_out = known - {*split.training, *split.validation, *split.test}
        if left_out:
            raise RunError(
                f"{escape_controls(str(folder.split))} has the subject {escape_controls(min(left_out))} in no part of "
                f"fold {split.fold}; begin a new run.",
                folder,
            )
    if settings.folds is not None:
        check_folds(splits, table)
    check_sums(
        folder.path,
        "copy it again, or begin a new run",
        (folder.settings.name, folder.split.name, folder.marks.name),
    )
    start = None
    if settings.init is not None:
        start = read_start(settings.init)
        if start.sha256 != settings.init_sha256:
            raise RunError(
                f"{start.shown} holds other weights than those that {escape_controls(str(folder))} was begun with; "
                "begin a new run.",
                folder,
            )
        check_people(start, [split.test for split in splits], table, dataset, settings.distinct_subjects)
    clips = Clips(dataset, table, config.temporal_stride)
    return OpenRun(
        folder,
        settings,
        model,
        config,
        dataset,
        table,
        splits,
        clips,
        variant,
        runtime or Runtime(),
        reporter or Reporter(),
        start,
    )


def open_data(run: Path, settings: RunSettings, data: Path | None) -> FaceDataset:
    """The data of a run, without what its own copy of the marks leaves out: at `data`, or where they were.

    Raises:
        NemoError: they are not there, or others.
    """
    own = RunFolder(run).marks
    dataset = open_marked(_place(run, settings, data), own if own.is_file() else NONE)
    check_data(run, settings, dataset.uuid, str(dataset.path))
    return dataset


def open_data_again(run: Path, settings: RunSettings, data: Path | None, marks: str | None) -> FaceDataset:
    """As `open_data`, with the marks as they are now: `marks`, or those that the run was asked for.

    Raises:
        NemoError: as `open_data`, or the marks leave out something else than when the run was begun.
    """
    path = _place(run, settings, data)
    dataset = open_marked(path, marks if marks is not None else settings.marks)
    if dataset.uuid != settings.uuid and file_uuid(dataset.uuid) == file_uuid(settings.uuid):
        own, shown = RunFolder(run).marks, escape_controls(str(run))
        now = f"{dataset.exclusions.file} has now" if dataset.exclusions.file else "there are now"
        then = f"`marks={escape_controls(str(own))}`" if own.is_file() else "`marks=none`"
        raise RunError(
            f"{shown} was begun with other marks than {now}: resume it with {then}, or begin a new run with another "
            "`out`.",
            run,
        )
    check_data(run, settings, dataset.uuid, str(dataset.path))
    return dataset


def _place(run: Path, settings: RunSettings, data: Path | None) -> Path:
    """Where the data of a run are. Raises NemoError."""
    if data is None and not Path(settings.data).is_file():
        shown = escape_controls(str(run))
        raise RunError(
            f"{shown} was begun with {escape_controls(settings.data)}, which is not there any more; say where it is "
            f"now: `resume({shown}, DATA.h5)`.",
            run,
        )
    return data if data is not None else Path(settings.data)


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


def read_splits(run: RunFolder) -> tuple[Split, ...]:
    """The splits of split.json, in order.

    Raises:
        NemoError: the file is missing or damaged, or a subject is in two parts.
    """
    values = read_json(run.split)
    try:
        return tuple(from_record(Split, line) for line in values["folds"])
    except (KeyError, TypeError, ValueError) as error:
        shown, why = escape_controls(str(run.split)), escape_controls(str(error))
        raise DataError(
            f"{shown} is damaged ({why}); begin a new run with another `out`.", run.split
        ) from None
