"""The sets of runs that one table or figure of the paper needs: on shared folds, one ordinary run per variant.

    STUDY/settings.json, split.json    what was asked for, and the folds that the variants share
    STUDY/study.json                   the variants: name, folder, label
    STUDY/<variant>/                   each an ordinary run (`siam_model.runs`)

mechanisms: Table I, how weights are shared in the spatial attention. positions: Figure 4, after which convolutional
layer it sits. modules: Figure 6, the model built up module by module. conditions: Table IV, separate models, each
trained and tested on the videos of one expression and condition, beside one of all videos.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from nemo_pipeline.errors import NemoError
from nemo_pipeline.fields import from_record, plain
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.text import printable, safe_name
from siam_model.data import VideoTable
from siam_model.protocol.crossval import Task, check_fold
from siam_model.protocol.jobs import run_tasks
from siam_model.protocol.overrides import configure
from siam_model.protocol.settings import RunSettings, check_same, claim, read_settings
from siam_model.protocol.splits import Split, balance, check_folds, restrict
from siam_model.protocol.subsets import subset_of, subsets_present
from siam_model.protocol.work import (
    Reporter,
    Runtime,
    Where,
    Work,
    begin,
    check_runtime,
    open_data,
    open_work,
    plan,
    read_splits,
    settings_for,
    split_json,
)
from siam_model.runs import is_finished, missing_folds, new_run_folder, read_json, write_json
from siam_model.train import go_on

StudyName = Literal["mechanisms", "positions", "modules", "conditions"]


@dataclasses.dataclass(frozen=True, slots=True)
class Variant:
    """One run of a study: its name (and folder), its label in tables, and what sets it apart."""

    name: str
    label: str
    overrides: dict[str, str] = dataclasses.field(default_factory=dict)
    subset: dict[str, str] = dataclasses.field(default_factory=dict)


_NO_TEMPORAL = {"model.temporal_attention": "no"}
_NO_SPATIAL = {"model.attention_position": "none"}
#: Study -> its variants, in the paper's order.
STUDIES: dict[str, tuple[Variant, ...]] = {
    "mechanisms": (
        Variant("indexed", "spatially indexed", {"model.attention": "indexed"}),
        Variant("agnostic", "spatially agnostic", {"model.attention": "agnostic"}),
        Variant("full", "fully spatially indexed", {"model.attention": "full"}),
        Variant("mediate", "mediate spatially indexed", {"model.attention": "mediate"}),
    ),
    "positions": (
        Variant("conv1", "after convolution 1", {"model.attention_position": "1"}),
        Variant("conv2", "after convolution 2", {"model.attention_position": "2"}),
        Variant("conv3", "after convolution 3", {"model.attention_position": "3"}),
        Variant("none", "no spatial attention", _NO_SPATIAL),
    ),
    "modules": (
        Variant("conv", "convolution", {**_NO_SPATIAL, **_NO_TEMPORAL, "model.recurrent": "no"}),
        Variant("conv_recurrent", "+ recurrence", {**_NO_SPATIAL, **_NO_TEMPORAL}),
        Variant("conv_recurrent_spatial", "+ spatial attention", _NO_TEMPORAL),
        Variant("full", "+ temporal attention (SIAM)"),
    ),
}


def train_study(
    data: str | os.PathLike[str],
    out_dir: str | os.PathLike[str] | None,
    study: StudyName,
    *,
    preset: str = "paper",
    seed: int = 0,
    epochs: int | None = None,
    folds: int | None = None,
    trials: int = 0,
    fold: int | None = None,
    overrides: Mapping[str, str] | None = None,
    device: str = "auto",
    workers: int = 0,
    jobs: int = 1,
    precision: str = "32",
    distinct_subjects: bool = False,
    fit_options: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Train every variant of a study; answers its folder. Arguments are those of `siam_model.train.train`.

    Raises:
        NemoError: as `train`; or an override is what the study varies; or the data hold no two conditions.
    """
    reporter = reporter or Reporter()
    if study not in get_args(StudyName):
        raise NemoError(f"There is no study {study!r}; there are {', '.join(get_args(StudyName))}.")
    settings, model, config, dataset = settings_for(
        Path(data), preset=preset, seed=seed, epochs=epochs, folds=folds, trials=trials,
        overrides=overrides, precision=precision, study=study, distinct_subjects=distinct_subjects,
    )  # fmt: skip
    runtime = Runtime(device, workers, dict(fit_options or {}))
    check_runtime(runtime, precision, jobs, folds)
    if fold is not None:
        check_fold(fold, folds)
        if out_dir is None:
            raise NemoError("--fold needs --out STUDY, the folder that the folds share.")
    splits, table = plan(settings, config, dataset, reporter)
    if folds is not None:
        check_folds(splits, table)
    variants = variants_of(study, settings, splits, table, dataset, reporter)
    folder = new_run_folder(Path(out_dir) if out_dir is not None else None, shared=fold is not None)
    claim(folder, settings, model, config)
    lines = balance(splits, table)
    if not (folder / "split.json").is_file():
        write_json(folder / "split.json", split_json(splits, table, folds is not None, lines))
    if not (folder / "study.json").is_file():
        write_json(folder / "study.json", _study_json(settings, variants))
    reporter.begun(folder)
    reporter.balance(lines)
    return _go_on(folder, variants, settings, dataset, runtime, reporter, fold, jobs)


def resume_study(
    folder: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    given: Mapping[str, Any] | None = None,
    fold: int | None = None,
    device: str = "auto",
    workers: int = 0,
    jobs: int = 1,
    fit_options: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Go on with a study that was cut off; arguments as `siam_model.train.resume`.

    Raises:
        NemoError: as there.
    """
    folder, reporter = Path(folder), reporter or Reporter()
    settings, _, config = read_settings(folder)
    if settings.study is None:
        raise NemoError(f"{printable(str(folder))} is no study; it is a run.")
    check_same(folder, settings, given or {})
    if fold is not None:
        check_fold(fold, settings.folds)
    elif (folder / "study.json").is_file() and is_finished(folder):
        shown = printable(str(folder))
        raise NemoError(f"{shown} is finished, and nothing is left to do: nemo evaluate {shown}.")
    runtime = Runtime(device, workers, dict(fit_options or {}))
    check_runtime(runtime, settings.precision, jobs, settings.folds)
    dataset = open_data(folder, settings, Path(data) if data is not None else None)
    reporter.begun(folder)
    if not (folder / "study.json").is_file():  # killed as it began
        splits, table = plan(settings, config, dataset, reporter)
        lines = balance(splits, table)
        write_json(folder / "split.json", split_json(splits, table, settings.folds is not None, lines))
        variants = variants_of(settings.study, settings, splits, table, dataset, reporter)
        write_json(folder / "study.json", _study_json(settings, variants))
    variants = variants_in(folder)
    return _go_on(folder, variants, settings, dataset, runtime, reporter, fold, jobs)


def variants_of(
    study: str,
    settings: RunSettings,
    splits: Sequence[Split],
    table: VideoTable,
    dataset: FaceDataset,
    reporter: Reporter,
) -> list[Variant]:
    """The variants of a study on these data.

    Raises:
        NemoError: an override is what the study varies, or the videos are all of one condition.
    """
    if study != "conditions":
        variants = list(STUDIES[study])
        varied = {name for variant in variants for name in variant.overrides}
        for name in sorted(varied & set(settings.overrides)):
            raise NemoError(f"--set {name} cannot be combined with --study {study}, which varies it.")
        for variant in variants:  # what does not fit (an attention after a layer of no width) is said at once
            configure(settings.preset, {**settings.overrides, **variant.overrides})
        return variants
    found = []
    for subset in subsets_present(table, dataset):
        name = safe_name("_".join(subset.values()).replace(" ", "_"))
        part = subset_of(table, dataset, subset)
        try:
            for split in splits:
                restrict(split, part)
        except NemoError as error:
            reporter.say(f"left out: {error}", Where(variant=name))
            continue
        people = len(set(part.subject))
        reporter.say(f"{len(part)} videos of {people} people", Where(variant=name))
        found.append(Variant(name, " ".join(reversed(subset.values())), subset=subset))
    if not found or (len(found) == 1 and len(subset_of(table, dataset, found[0].subset)) == len(table)):
        raise NemoError(
            f"{printable(str(dataset.path))} does not name two expressions or conditions to compare; add the columns "
            "expression and condition with `nemo label`."
        )
    return [*found, Variant("all", "all videos")]


def variants_in(folder: Path) -> list[Variant]:
    """The variants in the study.json of a folder.

    Raises:
        NemoError: it is missing or damaged.
    """
    values = read_json(folder / "study.json")
    try:
        found = [from_record(Variant, {**line, "name": line["folder"]}) for line in values["variants"]]
    except (KeyError, TypeError, ValueError) as error:
        raise NemoError(
            f"{printable(str(folder / 'study.json'))} is damaged ({printable(str(error))}); begin the study anew with "
            "another --out."
        ) from None
    return [dataclasses.replace(variant, name=safe_name(variant.name)) for variant in found]


def _study_json(settings: RunSettings, variants: Sequence[Variant]) -> dict[str, Any]:
    return {
        "format": "nemo-study",
        "format_version": 1,
        "study": settings.study,
        "synthetic": settings.synthetic,
        "data": settings.data,
        "dataset": settings.dataset,
        "variants": [{"folder": variant.name, **plain(variant)} for variant in variants],
    }


def _go_on(
    folder: Path,
    variants: Sequence[Variant],
    settings: RunSettings,
    dataset: FaceDataset,
    runtime: Runtime,
    reporter: Reporter,
    fold: int | None,
    jobs: int,
) -> Path:
    """Train what is missing in every variant. One that fails is said, and the others go on."""
    splits = read_splits(folder)
    failed: dict[str, str] = {}
    works = [_open(folder, variant, settings, dataset, splits, reporter) for variant in variants]
    if jobs > 1 and settings.folds is not None:
        failed |= _side_by_side(works, jobs, fold, runtime, reporter)
    for work in works:
        if work.variant in failed:
            continue
        try:
            if fold is not None:
                go_on(work, runtime, reporter, fold=fold)
            elif not is_finished(work.run):
                go_on(work, runtime, reporter)
        except NemoError as error:
            failed[work.variant] = str(error)
            reporter.failed(f"failed: {error}", Where(variant=work.variant))
    if failed:
        name, reason = next(iter(failed.items()))
        shown = printable(str(folder))
        raise NemoError(
            f"{len(failed)} of {len(works)} variants of {shown} are not finished, first {name}: {reason.rstrip('.')}. "
            f"Go on with `nemo train --resume --out {shown}`."
        )
    return folder


def _open(
    folder: Path,
    variant: Variant,
    settings: RunSettings,
    dataset: FaceDataset,
    splits: Sequence[Split],
    reporter: Reporter,
) -> Work:
    """The run of a variant, begun where it is not yet."""
    run = folder / variant.name
    if (run / "split.json").is_file():
        return open_work(run, dataset=dataset, variant=variant.name)
    overrides = {**settings.overrides, **variant.overrides}
    model, config = configure(
        settings.preset, overrides, train__epochs=settings.epochs, model__face_size=dataset.size
    )
    own = dataclasses.replace(settings, overrides=overrides, subset=variant.subset, study=None)
    return begin(run, own, model, config, dataset, reporter, splits=splits, shared=True, variant=variant.name)


def _side_by_side(
    works: Sequence[Work], jobs: int, fold: int | None, runtime: Runtime, reporter: Reporter
) -> dict[str, str]:
    """The folds of all variants in several processes; variant -> why a fold of it failed."""
    tasks = [
        Task(work.run, k, str(work.dataset.path), work.variant)
        for work in works
        for k in missing_folds(work.run, len(work.splits))
        if fold in (None, k)
    ]
    if len(tasks) < 2:
        return {}
    return {task.variant: text for task, text in run_tasks(tasks, jobs, runtime, reporter).items()}


def studied_table(folder: Path) -> list[tuple[Variant, Path]]:
    """The variants of a study with their run folders, in order.

    Raises:
        NemoError: the folder is no study.
    """
    return [(variant, folder / variant.name) for variant in variants_in(folder)]
