"""The sets of runs that one table or figure of the paper needs: on shared folds, one ordinary run per variant.

    STUDY/settings.json, split.json    what was asked for, and the folds that the variants share
    STUDY/study.json                   the variants: name, folder, label
    STUDY/<variant>/                   each an ordinary run (`siam_model.run_folder`)

mechanisms: Table I, how weights are shared in the spatial attention. positions: Figure 4, after which convolutional
layer it sits. modules: Figure 6, the model built up module by module. conditions: Table IV, separate models, each
trained and tested on the videos of one expression and condition, and one of all videos for comparison.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import get_args

from nemo_pipeline.errors import DataError, NemoError, SettingsError
from nemo_pipeline.fields import from_record, plain
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.text import escape_controls, pluralize, safe_name
from siam_model.config import StudyName
from siam_model.data import VideoTable, labelled_videos
from siam_model.protocol.open_run import OpenRun, begin, open_run, read_splits
from siam_model.protocol.overrides import configure
from siam_model.protocol.reporter import Reporter, TrainingScope
from siam_model.protocol.request import Runtime
from siam_model.protocol.settings import RunSettings
from siam_model.protocol.splits import Split, restrict
from siam_model.protocol.subsets import subsets_present, take_subset
from siam_model.run_folder import STUDY, RunFolder, read_json, write_json


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
        Variant("indexed", "spatially indexed", {"model.attention_mechanism": "indexed"}),
        Variant("agnostic", "spatially agnostic", {"model.attention_mechanism": "agnostic"}),
        Variant("full", "fully spatially indexed", {"model.attention_mechanism": "full"}),
        Variant("mediate", "mediate spatially indexed", {"model.attention_mechanism": "mediate"}),
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


def make_variants(
    settings: RunSettings,
    splits: Sequence[Split],
    table: VideoTable,
    dataset: FaceDataset,
    reporter: Reporter,
) -> list[Variant]:
    """The variants of the settings' study on these data; none without a study.

    Raises:
        NemoError: an override is what the study varies, or the videos are all of one condition.
    """
    study = settings.study
    if study is None:
        return []
    if study not in get_args(StudyName):
        raise SettingsError(
            f"There is no study {study!r}; there are {', '.join(get_args(StudyName))}.", "study"
        )
    if study != "conditions":
        variants = list(STUDIES[study])
        varied = {name for variant in variants for name in variant.overrides}
        for name in sorted(varied & set(settings.overrides)):
            raise SettingsError(
                f"`{name}` cannot be combined with `study={study}`, which varies it.", "study", name
            )
        for variant in variants:  # what does not fit (an attention after a layer of no width) is said at once
            configure(settings.preset, {**settings.overrides, **variant.overrides})
        return variants
    found = []
    for subset in subsets_present(table, dataset):
        name = safe_name("_".join(subset.values()).replace(" ", "_"))
        part = take_subset(table, dataset, subset)
        try:
            for split in splits:
                restrict(split, part)
        except NemoError as error:
            reporter.say(f"left out: {error}", TrainingScope(variant=name))
            continue
        subjects = pluralize(len(set(part.subject)), "subject")
        reporter.say(f"{pluralize(len(part), 'video')} of {subjects}", TrainingScope(variant=name))
        found.append(Variant(name, " ".join(reversed(subset.values())), subset=subset))
    if not found or (len(found) == 1 and len(take_subset(table, dataset, found[0].subset)) == len(table)):
        raise DataError(
            f"{escape_controls(str(dataset.path))} does not name two expressions or conditions to compare; add the "
            "columns expression and condition with `nemo label`.",
            dataset.path,
        )
    return [*found, Variant("all", "all videos")]


def variants_in(folder: RunFolder) -> list[Variant]:
    """The variants in the study.json of a folder.

    Raises:
        NemoError: it is missing or damaged.
    """
    values = read_json(folder.study)
    try:
        found = [from_record(Variant, {**line, "name": line["folder"]}) for line in values["variants"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{escape_controls(str(folder.study))} is damaged ({escape_controls(str(error))}); start the study over "
            "with another `out`.",
            folder.study,
        ) from None
    return [dataclasses.replace(variant, name=safe_name(variant.name)) for variant in found]


def write_variants(folder: RunFolder, settings: RunSettings, variants: Sequence[Variant]) -> None:
    """study.json, unless another process wrote it."""
    if not folder.is_study:
        values = {
            "study": settings.study,
            "synthetic": settings.synthetic,
            "data": settings.data,
            "dataset": settings.dataset,
            "variants": [{"folder": variant.name, **plain(variant)} for variant in variants],
        }
        write_json(folder.study, STUDY.mark(values))


def open_variants(
    folder: RunFolder, settings: RunSettings, dataset: FaceDataset, runtime: Runtime, reporter: Reporter
) -> list[OpenRun]:
    """The run of every variant of a study, begun where it is not yet."""
    splits, table = read_splits(folder), labelled_videos(dataset)
    runs = []
    for variant in variants_in(folder):
        own = folder.variant(variant.name)
        if not own.split.is_file():
            overrides = {**settings.overrides, **variant.overrides}
            alone = dataclasses.replace(settings, overrides=overrides, subset=variant.subset, study=None)
            begin(own.path, alone, dataset, splits, table, shared=True)
        runs.append(open_run(own, dataset=dataset, variant=variant.name, runtime=runtime, reporter=reporter))
    return runs
