"""The tables: which rows and columns, from predictions. The paper's own numbers are set apart and marked as such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nemo_pipeline.store.text import escape_controls
from siam_model.predictions import Predictions
from siam_model.reports import paper
from siam_model.reports.content import Column, Group, Kind, Table, Value
from siam_model.reports.stats import Errors, paired_test, summarize_errors, thresholds

#: Columns of an `Errors`.
ERRORS = (
    Column("videos", "videos", "int"),
    Column("subjects", "subjects", "int"),
    Column("MAE", "mae", "years"),
    Column("SD", "deviation", "years"),
    Column("95 % from", "interval_low", "years"),
    Column("to", "interval_high", "years"),
)
HOW = (
    "MAE and SD: mean and standard deviation of the absolute error over videos, years. The 95 % interval of the MAE "
    "is by bootstrap over subjects, since videos of one subject are not independent; it is given from 10 subjects on."
)
NOT_COMPARABLE = "real people, not synthetic faces: no number above may be compared with these"


#: Said where a compared method was measured here.
REIMPLEMENTATIONS = (
    "Methods are re-implementations: docs/methods.md says what was found of each and what was chosen; a number is not "
    "expected to equal the paper's"
)


class Line(NamedTuple):
    """A row of a table of errors: its name, our predictions (None: not there), the paper's number, and what the paper
    calls it, where that is another name."""

    label: str
    predictions: Predictions | None
    paper: paper.Error | None = None
    paper_label: str = ""


def cells(errors: Errors | None) -> tuple[Value, ...]:
    """The values of ERRORS."""
    if errors is None:
        return (None,) * len(ERRORS)
    return (errors.videos, errors.subjects, errors.mae, errors.deviation, errors.low, errors.high)


def errors_of_predictions(predictions: Predictions, rows: np.ndarray | None = None) -> Errors:
    """Of all rows, or of some."""
    rows = np.arange(len(predictions)) if rows is None else rows
    return summarize_errors(predictions.error[rows], [predictions.subject[i] for i in rows])


class Heading(NamedTuple):
    """What a `Table` is called and says above its numbers, field by field as there."""

    key: str
    section: str
    number: str
    title: str
    caption: str


def table_of_errors(
    heading: Heading,
    first_column: str,
    lines: Sequence[Line],
    *,
    synthetic: bool,
    source: str = paper.SMILES,
) -> Table:
    """One row per line. On real faces the paper's numbers are two columns of their own; on synthetic ones, rows of
    their own below, since side by side they would ask to be compared.

    Args:
        heading: of the table; how errors are measured is added to its caption.
        first_column: its heading.
        source: on what the paper measured.
    """
    beside = any(line.paper is not None for line in lines)
    first = Column(first_column, "name")
    whose = f" The paper's numbers: {heading.number}, {source}." if beside else ""
    rows = [
        (line.label, *cells(errors_of_predictions(line.predictions) if line.predictions else None))
        for line in lines
    ]
    if beside and not synthetic:
        columns: tuple[Column, ...] = (
            first, *ERRORS, Column("the paper: MAE", "paper_mae", "years"),
            Column("the paper: SD", "paper_deviation", "years"),
        )  # fmt: skip
        wide = [(*row, *(line.paper or (None, None))) for row, line in zip(rows, lines, strict=True)]
        groups = [Group("", tuple(wide))]
    else:
        columns = (first, *ERRORS)
        groups = [Group("", tuple(rows))]
        if beside:
            theirs = [
                (line.paper_label or line.label, None, None, line.paper.mae, line.paper.deviation, None, None)
                for line in lines
                if line.paper is not None
            ]
            groups.append(Group(f"The paper, {heading.number} ({NOT_COMPARABLE})", tuple(theirs), paper=True))
    heading = heading._replace(caption=f"{heading.caption}. {HOW}{whose}")
    return Table(*heading, columns, tuple(groups), synthetic)


def to_decade(age: np.ndarray) -> np.ndarray:
    """(V,) ages in years -> (V,) 0 for 0-9, 1 for 10-19, ..."""
    return np.floor(age / 10).astype(np.int64)


def decade_name(decade: int) -> str:
    """ "10-19" for 1."""
    return f"{10 * decade}-{10 * decade + 9}"


def table_three(methods: Mapping[str, Predictions], caption: str, *, synthetic: bool) -> tuple[Table, Table]:
    """Table III in the paper's layout: of the measured rows, the second is the interval of the first method, the last
    two count videos and subjects; and all of it in full, a row for each method and decade."""
    first = next(iter(methods.values()))
    decade = to_decade(first.age)
    shown = range(min(decade.min(), 0), max(decade.max(), len(paper.DECADES) - 1) + 1)
    names = [decade_name(d) for d in shown]
    parts = [np.flatnonzero(decade == d) for d in shown] + [np.arange(len(first))]
    found = {
        name: [errors_of_predictions(p, rows) for rows in parts] for name, p in methods.items()
    }  # fmt: skip
    text = [_span(e) for e in found[next(iter(methods))]]
    columns = (
        Column("Method", "method"),
        *(Column(name, name, "years") for name in names),
        Column("All", "all", "years"),
        Column("SD", "deviation", "years"),
    )
    ours: list[tuple[Value, ...]] = []
    for i, (name, line) in enumerate(found.items()):
        ours.append((name, *(e.mae if e.videos else None for e in line), line[-1].deviation))
        if not i:
            ours.append((f"{name}: 95 % interval", *text, None))
    counted = found[next(iter(methods))]
    ours.append(("Videos", *(e.videos for e in counted), None))
    ours.append(("Subjects", *(e.subjects for e in counted), None))
    pad = [None] * (len(names) - len(paper.DECADES))
    theirs: list[tuple[Value, ...]] = [
        (m.name, *m.decades, *pad, m.all.mae, m.all.deviation) for m in paper.METHODS
    ]
    theirs.append(("Videos", *paper.SAMPLES, *pad, paper.ALL_SAMPLES, None))
    note = NOT_COMPARABLE if synthetic else paper.SMILES
    counts = (len(ours) - 2, len(ours) - 1)
    groups = (
        Group("", tuple(ours), notes=(1, *counts)),
        Group(f"The paper, Table III ({note})", tuple(theirs), paper=True, notes=(len(theirs) - 1,)),
    )
    title = "Mean absolute error (years) by age"
    short = Table(
        "table-3", "accuracy", "Table III", title,
        f"{caption}. SD: standard deviation of all absolute errors of the row, years; interval: 95 %, by bootstrap "
        f"over subjects, from 10 subjects on. The paper's rows: {paper.SMILES}; references are the paper's.",
        columns, groups, synthetic,
    )  # fmt: skip
    rows = tuple(
        (method, name, *cells(e))
        for method, line in found.items()
        for name, e in zip([*names, "All"], line, strict=True)
        if e.videos
    )
    full = Table(
        "table-3-details", "accuracy", "", "The same in full: every method and decade", f"{caption}. {HOW}",
        (Column("Method", "method"), Column("Age", "age_group"), *ERRORS), (Group("", rows),), synthetic,
        detail=True,
    )  # fmt: skip
    return short, full


def _span(errors: Errors) -> str | None:
    return f"{errors.low:.1f}–{errors.high:.1f}" if np.isfinite(errors.low) else None


def breakdown(
    key: str,
    title: str,
    caption: str,
    head: str,
    labels: Sequence[str],
    methods: Mapping[str, Predictions],
    *,
    synthetic: bool,
) -> Table:
    """The errors of the first method by a label of the videos, with the other methods' MAE.

    It has no number of the paper, which never breaks one model down like this.

    Args:
        labels: V texts; "" counts as unknown.
    """
    name, ours = next(iter(methods.items()))
    others = list(methods.items())[1:]
    rows = []
    for value in sorted(set(labels), key=lambda text: (not text, text)):
        mine = np.flatnonzero([label == value for label in labels])
        rows.append(
            (
                escape_controls(value) or "unknown",
                *cells(errors_of_predictions(ours, mine)),
                *(float(p.error[mine].mean()) for _, p in others),
            )
        )
    extra = tuple(Column(f"{other}: MAE", f"mae_{other}", "years") for other, _ in others)
    return Table(
        key, "breakdowns", "", title, f"{caption}. Errors of {name}. {HOW}",
        (Column(head, "name"), *ERRORS, *extra), (Group("", tuple(rows)),), synthetic,
    )  # fmt: skip


def table_of_tests(methods: Mapping[str, Predictions], caption: str, *, synthetic: bool) -> Table:
    """The first method against each other one: paired t-tests over subjects, corrected for their number."""
    from siam_model.reports.stats import holm

    (name, ours), *others = methods.items()
    tests = [paired_test(ours.error, p.error, ours.subject) for _, p in others]
    corrected = holm([test.p for test in tests])
    rows = [
        (other, float(p.error.mean()), test.difference, test.pairs, test.t, test.p, both)
        for (other, p), test, both in zip(others, tests, corrected, strict=True)
    ]
    columns = (
        Column("Method", "method"), Column("MAE", "mae", "years"), Column("difference", "difference", "years"),
        Column("subjects", "subjects", "int"), Column("t", "t", "years"), Column("p", "p", "p"),
        Column("p, Holm", "p_holm", "p"),
    )  # fmt: skip
    return Table(
        "table-tests", "accuracy", "", f"{name} against every other method",
        f"{caption}. Difference: {name} minus the other method, mean over subjects of their mean differences, years; "
        "below 0 where the first is better. p: two-sided paired t-test over subjects; p, Holm: corrected for as many "
        "tests as there are rows (Holm 1979).",
        columns, (Group("", tuple(rows)),), synthetic, detail=len(rows) < 4,
    )  # fmt: skip


def table_of_thresholds(methods: Mapping[str, Predictions], caption: str, *, synthetic: bool) -> Table:
    """Figure 8's numbers: the videos left for every minimum number of samples per age, the first method's errors on
    them, and its paired t-test against each other method, by subjects and by videos."""
    from siam_model.reports.stats import age_counts

    name, ours = next(iter(methods.items()))
    others = list(methods.items())[1:]
    counts = age_counts(ours.age)
    columns: list[Column] = [Column("at least", "minimum", "int"), Column("ages", "ages", "int"), *ERRORS]
    for other, _ in others:
        for head, field, kind in _TESTS:
            columns.append(Column(f"{other}: {head}", f"{field}_{other}", kind))
    rows = []
    for least in thresholds(ours):
        left = np.flatnonzero(counts >= least)
        row: list[Value] = [least, len(set(np.floor(ours.age[left]).tolist()))]
        row += cells(errors_of_predictions(ours, left))
        subject = [ours.subject[i] for i in left]
        for _, other_predictions in others:
            theirs = other_predictions.error[left]
            people = paired_test(ours.error[left], theirs, subject)
            videos = paired_test(ours.error[left], theirs)
            row += [float(theirs.mean()), people.difference, people.t, people.p, videos.p]
        rows.append(tuple(row))
    return Table(
        "figure-8-numbers", "accuracy", "", "Figure 8 in numbers",
        f"{caption}. A row keeps the ages (whole years) of which there are at least N videos. {HOW} Difference: "
        f"{name} minus the other method, mean of the subjects' mean differences; p: two-sided paired t-test over "
        "subjects, and over videos (which takes every video for independent).",
        tuple(columns), (Group("", tuple(rows)),), synthetic, detail=True,
    )  # fmt: skip


_TESTS: tuple[tuple[str, str, Kind], ...] = (
    ("MAE", "mae", "years"),
    ("difference", "difference", "years"),
    ("t", "t", "years"),
    ("p, subjects", "p_subjects", "p"),
    ("p, videos", "p_videos", "p"),
)
