"""The inputs of one call of `nemo evaluate`, and the commands that make what is missing."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nemo_pipeline.errors import DataError, NemoError, OutputError, RunError, SettingsError
from nemo_pipeline.marks import NONE
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.marked import open_marked
from nemo_pipeline.store.text import escape_controls, safe_name
from siam_model.external import runs_on
from siam_model.predictions import Predictions
from siam_model.protocol.baselines import LABELS, NAMES
from siam_model.reports.marked import marked_since
from siam_model.reports.source import (
    Data,
    Run,
    Study,
    is_own,
    open_data,
    open_source,
    parse_with,
    same_videos,
)
from siam_model.run_folder import RunFolder, read_json
from siam_model.verdict import Verdict, verdict_from

#: Study -> the variant that is the model of the paper.
_PRINCIPAL = {"mechanisms": "indexed", "positions": "conv2", "modules": "full", "conditions": "all"}

#: Methods that one figure tells apart.
_MOST_DRAWN = 6

#: Settings that a study varies by itself, and refuses to be given.
_VARIED = (
    "model.attention_mechanism",
    "model.attention_position",
    "model.temporal_attention",
    "model.recurrent",
)


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """What an evaluation is asked for, besides the runs.

    Attributes:
        data: out.h5, if it is not where run.json says; or an external test set: another prepared file with labels,
            whose videos are predicted by the model of each run. Videos and subjects that a model was trained on are
            left out.
        distinct_subjects: subjects of an external test set differ from the training subjects, even if their codes
            agree.
        others: name -> CSV of another method's predictions, in the columns of predictions.csv.
        figures: methods of Figures 7 and 8, the first of which is compared with the others: names in tables, `siam`,
            or names of compared methods. Empty: the paper's three, or the first six that there are.
        by: labels to break errors down by: columns of `labels`, or of the data's videos.
        marks: a file of marks (`nemo_pipeline.marks`); None: the one next to the data, if there is one; `none`: marks
            are left out of account. Videos that are marked as a whole are left out of everything.
        labels: CSV with these columns, and `video`, `file` or `subject`.
        faces: whether pictures of people may be drawn.
        quick: leave out Table II, unless phases.csv of an earlier call has it: it runs models over every video.
        stability: measure how far the age wanders within a video: it runs models twice over every video.
    """

    data: str | os.PathLike[str] | None = None
    distinct_subjects: bool = False
    others: Mapping[str, str | os.PathLike[str]] = dataclasses.field(default_factory=dict)
    figures: Sequence[str] = ()
    by: Sequence[str] = ()
    labels: str | os.PathLike[str] | None = None
    marks: str | os.PathLike[str] | None = None
    faces: bool = True
    quick: bool = False
    stability: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationInputs:
    """Everything that was given, opened.

    Attributes:
        paths: as the user gave them.
        out: the folder to write to.
        main: the run that the tables are about.
        methods: name -> predictions of the same videos: SIAM, further runs, other methods, baselines.
        drawn: names of those in Figures 7 and 8, the one that the others are compared with first.
        studies: kind -> study.
        data: of the main run; None if they cannot be found or opened.
        notes: what the reader must know about the data, sentences.
        no_data: why, a sentence.
        request: what is asked for.
        device: where models run.
        on_step: told what is being done.
        groups: name -> a label of every predicted video, "" where unknown: what errors are broken down by.
    """

    paths: tuple[Path, ...]
    out: Path
    main: Run
    methods: dict[str, Predictions]
    drawn: tuple[str, ...]
    studies: dict[str, Study]
    data: Data | None
    notes: tuple[str, ...]
    no_data: str
    request: EvaluateRequest
    device: str
    on_step: Callable[[str], None]
    groups: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    @property
    def drawn_methods(self) -> dict[str, Predictions]:
        """The methods of Figures 7 and 8."""
        return {name: self.methods[name] for name in self.drawn}

    @property
    def synthetic(self) -> bool:
        """Whether the main run's faces are generated."""
        return self.main.synthetic

    @property
    def verdict(self) -> Verdict | None:
        """The main run against always guessing the training median; None where that was not predicted."""
        median = self.main.baselines.get(NAMES["median"])
        return None if median is None else verdict_from(self.main.predictions, median)

    def again(self, *more: str) -> str:
        """This command once more, with something added."""
        if self.main.external and self.data is not None:
            distinct = ("--distinct-subjects",) if self.request.distinct_subjects else ()
            more = ("--data", str(self.data.dataset.path), *distinct, *more)
        more = (*more, "--marks", str(self.request.marks)) if self.request.marks else more
        return _command("nemo", "evaluate", *map(str, self.paths), *more)

    def train_study(self, kind: str) -> str:
        """The commands that train a study with the settings of the main run, and evaluate it with what was given."""
        folder = self.main.folder.path.resolve()
        inside = RunFolder(folder.parent).is_study
        out = (folder.parent if inside else folder).with_name(
            f"{(folder.parent if inside else folder).name}-{kind}"
        )
        shown = _relative(out)
        return (
            f"{self._train('--study', kind, varied=True)} --out {shlex.quote(shown)} && {self.again(shown)}"
        )

    def train_again(self) -> str:
        """The command that trains the main run again."""
        return self._train()

    def _train(self, *more: str, varied: bool = False) -> str:
        meta = dict(self.main.meta)
        if self.main.folder.is_begun:
            meta |= read_json(self.main.folder.settings, overrides=dict, methods=list)
        words = ["nemo", "train", str(meta.get("data") or "DATA.h5")]
        for name in ("preset", "seed", "epochs", "folds", "trials"):
            # --trials 0 is said too: with folds, the paper's preset would search.
            if meta.get(name) not in (None, 0) or (name == "trials" and meta.get(name) == 0):
                words += [f"--{name}", str(meta[name])]
        if meta.get("methods") and (not varied or "conditions" in more):
            words += ["--methods", ",".join(meta["methods"])]
        for name, value in sorted((meta.get("overrides") or {}).items()):
            if not varied or name not in _VARIED:
                words += ["--set", f"{name}={value}"]
        return _command(*words, *more)


def gather(
    paths: Sequence[Path],
    out: Path | None,
    request: EvaluateRequest,
    *,
    device: str,
    on_step: Callable[[str], None],
) -> EvaluationInputs:
    """Open everything.

    Args:
        paths: runs and studies. The first run is what the tables are about; without one, the paper's variant of
            the first study is.
        out: the folder to write to; None: `evaluation` in the first path, `evaluation-NAME` for an external test set.
        request: what is asked for.
        device: where models run.
        on_step: told what is being done.

    Raises:
        NemoError: a source cannot be opened, or two of them do not belong together.
    """
    runs: list[Run] = []
    studies: dict[str, Study] = {}
    for path in paths:
        source = open_source(path)
        if isinstance(source, Run):
            runs.append(source)
        elif source.kind in studies:
            raise SettingsError(
                f"{escape_controls(str(studies[source.kind].folder))} and {escape_controls(str(path))} are both a "
                f"study of {source.kind}; give one of them.",
                "runs",
            )
        else:
            studies[source.kind] = source
    if not runs:
        runs.append(_principal_run(studies))
    data = Path(request.data) if request.data is not None else None
    external = data is not None and not is_own(runs[0], FaceDataset(data))
    notes: list[str] = []
    if external:
        assert data is not None
        if studies:
            raise DataError(
                f"{escape_controls(str(data))} is not the data of these studies. An external test set needs "
                "runs: name the run of a variant.",
                data,
            )
        tested = open_marked(data, request.marks)
        runs, notes = runs_on(
            runs, tested, device, distinct_subjects=request.distinct_subjects, on_step=on_step
        )
        notes += [str(tested.exclusions)] if tested.exclusions else []
    main = runs[0]
    methods = {"SIAM": main.predictions}
    for other in runs[1:]:
        name = f"run {other.name}" if f"run {other.name}" not in methods else f"run {other.folder}"
        methods[escape_controls(name)] = same_videos(other.predictions, main.predictions, other.folder.path)
    given = parse_with({name: Path(path) for name, path in request.others.items()}, main.predictions)
    for name in given:
        if name in (*methods, *main.baselines):
            raise SettingsError(
                f"`others`: {name}: there is a method of that name already; choose another.", "others"
            )
    methods |= {**given, **main.baselines}
    found, reason = None, ""
    try:
        found = open_data(main, data, request.marks)
    except NemoError as error:
        if data is not None or request.marks not in (None, NONE):
            raise
        reason = str(error)
    if found is not None and found.note:
        notes.append(
            f"{found.note} Phases and attention are of its faces, all other numbers of the run's own."
        )
    if found is not None and not external:
        since = marked_since(main, found, request.marks)
        if since.note:
            notes.append(since.note)
            main, studies = since.without_in(main), since.without_in_studies(studies)
            methods = {name: since.without(line) for name, line in methods.items()}
    if out is None:
        out = RunFolder(paths[0]).evaluation
        if external and data is not None:
            out = out.with_name(f"{out.name}-{safe_name(data.stem)}")
        if out.is_symlink():
            raise OutputError(
                f"{escape_controls(str(out))} is a link to another folder: name where to write with `out`.",
                out,
            )
    return EvaluationInputs(
        tuple(paths),
        out,
        main,
        methods,
        _drawn(methods, request.figures),
        studies,
        found,
        tuple(notes),
        reason,
        request,
        device,
        on_step,
    )


def _drawn(methods: Mapping[str, Predictions], wanted: Sequence[str]) -> tuple[str, ...]:
    """The methods of Figures 7 and 8: those named, by their names in tables or on the command line. Without names the
    paper's three where they are there, with what is compared by hand; else the first that a figure can hold.

    Raises:
        NemoError: an unknown name.
    """
    names = {"siam": "SIAM", **{name: label for name, label in LABELS.items() if label in methods}}
    found = []
    for name in wanted:
        label = name if name in methods else names.get(name.strip().lower().replace("-", "_"))
        if label is None:
            known = ", ".join([*names, *(m for m in methods if m not in names.values())])
            raise SettingsError(
                f"There is no method {escape_controls(name)} here; there are {known}.", "figures"
            )
        found.append(label)
    if found:
        return tuple(dict.fromkeys(found))
    three = ["SIAM", LABELS["ief_dynamics"], LABELS["lbp_dynamics"]]
    if all(name in methods for name in three):
        return tuple(dict.fromkeys([*three, *(name for name in methods if name not in LABELS.values())]))
    return tuple(methods)[:_MOST_DRAWN]


def _principal_run(studies: dict[str, Study]) -> Run:
    for kind, study in studies.items():
        named = {variant.name: run for variant, run in study.finished}
        if named:
            return named.get(_PRINCIPAL.get(kind, ""), next(iter(named.values())))
    study = next(iter(studies.values()))
    reason = next((variant.reason for variant in study.variants), "it has no variants.")
    raise RunError(
        f"No variant of {escape_controls(str(study.folder))} is finished: {reason}", study.folder.path
    )


def _relative(path: Path) -> str:
    """Relative to the current folder where it lies below it: the shorter command to copy."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _command(*words: str) -> str:
    """Words as a shell takes them."""
    return " ".join(shlex.quote(word) for word in words)
