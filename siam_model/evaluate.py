"""`evaluate`: the paper's tables and figures from finished runs, as files and as one page."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import NemoError, OutputError, SettingsError
from nemo_pipeline.store.marked import read_record
from nemo_pipeline.store.text import escape_controls
from siam_model.config import beyond_paper
from siam_model.predictions import Predictions, as_csv, write_bytes
from siam_model.reports.accuracy import add_accuracy, add_breakdowns, add_people, add_phases, headline
from siam_model.reports.content import Missing, Picture, Report, Table
from siam_model.reports.formats import EXTENSIONS, as_json, format_value, write_as
from siam_model.reports.groups import add_groups, read_groups
from siam_model.reports.inputs import EvaluateRequest, EvaluationInputs, gather
from siam_model.reports.numbers import summary_json
from siam_model.reports.page import PageHead, render
from siam_model.reports.stability import add_stability
from siam_model.reports.studies import add_studies, add_videos
from siam_model.reports.style import to_png, to_svg
from siam_model.run_folder import EvaluationFolder, read_json, write_json
from siam_model.runs import make_private
from siam_model.verdict import Verdict

#: Said wherever a number of a run on generated faces is shown.
SYNTHETIC_NOTE = "Trained or tested on synthetic faces: these numbers say nothing about people."
#: Said where pictures of people are.
FACES_NOTE = (
    "This page shows faces, ages and codes of people: biometric data. Share it only with those who may see them, or "
    "make one without faces."
)


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of `evaluate`.

    Attributes:
        run: its folder.
        methods: name -> held-out predictions: SIAM first, then what it is compared with.
        synthetic: whether the faces were generated.
        header, rows: the table by decade (Table III's layout) as text, without the paper's rows: a row for each
            method, the interval of the first one below it; the last two rows count videos and subjects.
        numbers: everything as JSON types.
        verdict: whether the model beats always guessing the training median; None where that was not predicted.
        headline: name and value, as text, of the first numbers.
        report: all parts, and what is missing.
        folder: where everything was written.
        files: report.html and evaluation.json.
        parts: every figure and table as files.
    """

    run: Path
    methods: dict[str, Predictions]
    synthetic: bool
    header: list[str]
    rows: list[list[str]]
    numbers: dict[str, Any]
    verdict: Verdict | None
    headline: list[tuple[str, str]]
    report: Report
    folder: Path
    files: tuple[Path, ...] = ()
    parts: tuple[Path, ...] = ()

    @property
    def gaps(self) -> tuple[tuple[Any, ...], ...]:
        """Rows of the table of the largest gaps: label, group of the larger error, of the smaller, difference and its
        interval, groups compared."""
        return tuple(row for t in self.report.tables if t.key == "table-gaps" for row in t.groups[0].rows)

    @property
    def missing(self) -> tuple[Missing, ...]:
        """What could not be made."""
        return tuple(self.report.missing)


def evaluate(
    runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out_dir: str | os.PathLike[str] | None = None,
    request: EvaluateRequest | None = None,
    *,
    device: str = "auto",
    on_step: Callable[[str], None] | None = None,
) -> Evaluation:
    """Every table and figure that these runs allow, with their page.

    Reads predictions.csv, baselines/*.csv and run.json of a run; for what shows faces, models and labels also its
    data and models. Folds that were trained apart are read together. Nothing is trained, and nothing is written but
    to `out_dir`.

    Args:
        runs: one or several folders of `nemo train`, runs or studies. The first run is what the tables are about,
            further runs are compared with it.
        out_dir: the folder to write to; by default `evaluation` in the first folder (`evaluation-NAME` for an
            external test set NAME.h5).
        request: data elsewhere or an external test set, what to compare with, what to leave out; all defaults: the
            run's own data, and everything.
        device: for models: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        on_step: told what is being done.

    Raises:
        NemoError: a folder holds no finished run, predictions of other videos are to be compared, or nothing can be
            written to `out_dir`.
    """
    paths = [runs] if isinstance(runs, str | os.PathLike) else list(runs)
    if not paths:
        raise SettingsError("Name a run folder of `nemo train`.", "runs")
    given = gather(
        [Path(p) for p in paths], Path(out_dir) if out_dir is not None else None, request or EvaluateRequest(),
        device=device, on_step=on_step or (lambda _: None),
    )  # fmt: skip
    if given.request.by:
        given = dataclasses.replace(given, groups=read_groups(given))
    for note in given.notes:
        warnings.warn(note, stacklevel=2)
    _make_folders(given.out)
    report = Report()
    for add in (
        add_accuracy, add_breakdowns, add_groups, add_phases, add_stability, add_videos, add_studies, add_people,
    ):  # fmt: skip
        if not (given.main.external and add is add_studies):  # they are of the run's own data
            add(given, report)
    numbers = _numbers(given, report)
    given.on_step("writing")
    files, parts = _write(given, report, numbers)
    table = next(t for t in report.tables if t.key == "table-3")
    header, rows = _as_text(table)
    return Evaluation(
        given.main.folder.path, given.methods, given.synthetic, header, rows, numbers, given.verdict,
        headline(given), report, given.out, files, parts,
    )  # fmt: skip


def _as_text(table: Table) -> tuple[list[str], list[list[str]]]:
    """Table III's measured rows for a terminal; decades in which nobody is are left out."""
    rows = [row for group in table.groups if not group.paper for row in group.rows]
    videos = rows[-2]
    keep = [i for i, v in enumerate(videos) if v != 0]
    header = [table.columns[i].head for i in keep]
    return header, [[format_value(row[i], table.columns[i].kind) for i in keep] for row in rows]


def _numbers(given: EvaluationInputs, report: Report) -> dict[str, Any]:
    main = given.main
    return {
        "run": str(main.folder),
        "synthetic": given.synthetic,
        "note": SYNTHETIC_NOTE if given.synthetic else "",
        "dataset": main.meta.get("dataset"),
        "external": main.external,
        "notes": list(given.notes),
        "preset": main.meta.get("preset"),
        "seed": main.meta.get("seed"),
        "folds": main.meta.get("folds"),
        "verdict": given.verdict.as_json() if given.verdict is not None else None,
        "methods": {name: summary_json(p) for name, p in given.methods.items()},
        "tables": [as_json(table) for table in report.tables],
        "figures": [
            {"key": p.key, "number": p.number, "title": p.title, "caption": p.caption, "alt": p.alt}
            for p in report.pictures
        ],
        "missing": [dataclasses.asdict(item) for item in report.missing],
    }


def _make_folders(folder: Path) -> None:
    """Make the folders to write to, before any model is run. Raises NemoError."""
    try:
        for part in (EvaluationFolder(folder).figures, EvaluationFolder(folder).tables):
            make_private(part)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"Nothing can be written to {escape_controls(str(folder))} ({error.strerror}): name another folder with "
            "`out`.",
            folder,
        ) from None


def _write(
    given: EvaluationInputs, report: Report, numbers: dict[str, Any]
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """All files, each by rename and for its owner alone; what an earlier call left and this one lacks goes."""
    folder = EvaluationFolder(given.out)
    files: dict[Path, bytes] = {}
    images = {}
    for picture in report.pictures:
        images[picture.key] = to_png(picture.figure)
        # Laid out already: doing so again for the SVG costs as much as drawing.
        picture.figure.set_layout_engine("none")
        files[folder.figures / f"{picture.key}.png"] = images[picture.key]
        files[folder.figures / f"{picture.key}.svg"] = to_svg(picture.figure)
    for table in report.tables:
        for extension in EXTENSIONS.values():
            text = write_as(table, extension)
            files[folder.tables / f"{table.key}.{extension}"] = text.encode("utf-8", "surrogateescape")
    page = render(_head(given, report), report, images, _folders(given)).encode("utf-8", "surrogateescape")
    everything = {folder.report: page, **files}
    if given.main.external:
        everything[folder.predictions] = as_csv(given.main.predictions)
    _make_room(folder, set(everything))
    # First of all: a call that is killed meanwhile has its files known by the next.
    numbers |= {"files": sorted(path.relative_to(folder.path).as_posix() for path in everything)}
    write_json(folder.numbers, numbers)
    for path, data in everything.items():
        write_bytes(path, data)
    return (folder.report, folder.numbers), tuple(files)


def _folders(given: EvaluationInputs) -> set[Path]:
    """The folders that sentences and commands of the page may name."""
    named = [*given.paths, given.out, given.main.folder.path]
    named += [Path(str(run["data"])) for run in (given.main.meta,) if run.get("data")]
    named += [given.data.dataset.path] if given.data is not None else []
    places = {Path.cwd(), Path.home()}
    for path in named:
        places |= {path.absolute().parent, path.resolve().parent}
    return places


def _make_room(folder: EvaluationFolder, writing: set[Path]) -> None:
    """Remove what an earlier call wrote and this one does not, which would pass for this one's, and nothing else.

    Raises:
        NemoError: a file that no earlier call wrote is in the way.
    """
    record, earlier = folder.numbers, set()
    if record.exists():
        with contextlib.suppress(NemoError, TypeError):
            values = read_json(record)
            # Whoever wrote the list: nothing outside the places that are ours is touched.
            ours = (folder.figures, folder.tables)
            files = [folder.path / name for name in values.get("files", [])]
            alone = (folder.report, folder.predictions)
            earlier = {file for file in files if file.parent in ours or file in alone}
            if "methods" in values and not earlier:  # of a version that kept no list
                earlier = set(writing)
        if not earlier:
            raise _in_the_way(record)
    for path in sorted(writing - earlier):
        if path.exists():
            raise _in_the_way(path)
    for path in earlier - writing:
        if path.is_file():
            path.unlink()


def _in_the_way(path: Path) -> NemoError:
    return OutputError(
        f"{escape_controls(str(path))} is there already, and is not of `nemo evaluate`: give `out` another folder, or "
        "move it.",
        path,
    )


def _left_out(record: Any) -> str:
    found = read_record(record)
    return f"{found.counts()} ({found.said()})" if found else ""


def _head(given: EvaluationInputs, report: Report) -> PageHead:
    meta = given.main.meta
    versions = meta.get("versions") or {}
    settings = [
        ("preset", meta.get("preset")),
        ("seed", meta.get("seed")),
        (
            "folds",
            meta.get("folds") or ("external test set" if given.main.external else "none, held-out subjects"),
        ),
        ("trials per fold", meta.get("trials") or "none"),
        ("beyond the paper", ", ".join(beyond_paper(meta.get("model") or {}, meta.get("train") or {}))),
        ("started from", meta.get("init")),
        ("left out by marks", _left_out(meta.get("left_out"))),
        ("best epochs", ", ".join(map(str, meta.get("best_epochs") or []))),
        ("trained", meta.get("finished")),
        *((name, versions.get(name)) for name in ("nemo-faces", "torch", "numpy") if versions.get(name)),
    ]
    shown_faces = any(isinstance(p, Picture) and p.faces for p in report.pictures)
    return PageHead(
        title=f"Age estimation: {given.main.name}",
        about=given.main.described(),
        synthetic=SYNTHETIC_NOTE if given.synthetic else "",
        faces=FACES_NOTE if shown_faces and not given.synthetic else "",
        verdict=str(given.verdict) if given.verdict is not None else "",
        poor=given.verdict is not None and given.verdict.outcome != "better",
        numbers=headline(given),
        settings=[(name, str(value)) for name, value in settings if value not in (None, "")],
        command=given.again(),
        notes=[note for note in (given.main.note, *given.notes) if note],
    )
