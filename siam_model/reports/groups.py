"""Errors by any label: a table for each label, the largest gap between two of its groups, and whether the intervals
hold as often in every group.

The interval of `nemo predict` has one width for everybody, and its promise is on average over people. What it is worth
for a group shows here: each subject's videos are tested with the interval that all other subjects' errors give.
"""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nemo_pipeline.errors import DataError, SettingsError
from nemo_pipeline.store.text import csv_value, escape_controls, listed
from siam_model.interval import half_width
from siam_model.predictions import Predictions, read_table
from siam_model.reports.content import Column, Group, Report, Table, Value
from siam_model.reports.inputs import EvaluationInputs
from siam_model.reports.stats import COVERAGE, LEAST_SUBJECTS, RESAMPLES, interval, per_subject
from siam_model.reports.tables import breakdown

#: The interval whose calibration is shown: the one that `nemo predict` gives unless told otherwise.
LEVEL = 0.9
_KEYS = ("video", "file", "subject")
#: Columns of /videos that make no groups.
_OUR_COLUMNS = frozenset(("id", "file", "subject", "age", "start", "length", "message", "sha256"))


@dataclasses.dataclass(frozen=True, slots=True)
class Gap:
    """The largest difference between the mean absolute errors of two groups.

    Attributes:
        worse, better: the groups.
        years: how much larger the error of the first is.
        low, high: 95 % interval by bootstrap over subjects, years.
        groups: how many were compared: those of at least 10 subjects.
    """

    worse: str
    better: str
    years: float
    low: float
    high: float
    groups: int


def largest_gap(predictions: Predictions, labels: Sequence[str], seed: int = 0) -> Gap | None:
    """Of the groups with at least 10 subjects; None where there are not two. "" is not a group.

    Subjects are drawn with replacement, each with all videos, so subjects who are in both groups count in both.
    """
    names = [n for n in sorted(set(labels)) if n and len(_people(predictions, labels, n)) >= LEAST_SUBJECTS]
    if len(names) < 2:
        return None
    inside = np.array([[label == name for name in names] for label in labels], dtype=np.float64)  # (V, G)
    mae = (inside * predictions.error[:, None]).sum(axis=0) / inside.sum(axis=0)
    worse, better = max(
        itertools.permutations(range(len(names)), 2), key=lambda pair: mae[pair[0]] - mae[pair[1]]
    )
    sums, _ = per_subject(inside * predictions.error[:, None], predictions.subject)
    counts, _ = per_subject(inside, predictions.subject)
    rng = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(b"gap")]))
    times = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    with np.errstate(invalid="ignore", divide="ignore"):  # a drawing without anybody of a group
        drawn = (times @ sums[:, [worse, better]]) / (times @ counts[:, [worse, better]])
    tail = 50 * (1 - COVERAGE)
    low, high = np.nanpercentile(drawn[:, 0] - drawn[:, 1], [tail, 100 - tail])
    years = float(mae[worse] - mae[better])
    return Gap(names[worse], names[better], years, float(low), float(high), len(names))


def _people(predictions: Predictions, labels: Sequence[str], name: str) -> set[str]:
    return {person for person, label in zip(predictions.subject, labels, strict=True) if label == name}


def covered(predictions: Predictions, level: float = LEVEL) -> np.ndarray:
    """(V,) 1 where the true age lies in the interval that the other subjects' errors give, 0 where not; NaN where they
    are too few for one."""
    inside = np.full(len(predictions), np.nan)
    subjects = np.array(predictions.subject, dtype=np.str_)
    for person in np.unique(subjects):
        mine = subjects == person
        others = tuple(subjects[~mine].tolist())
        width = half_width(predictions.error[~mine], others, level) if others else np.inf
        if np.isfinite(width):
            inside[mine] = predictions.error[mine] <= width
    return inside


def add_groups(given: EvaluationInputs, report: Report) -> None:
    """Tables by the labels that were asked for; gaps and calibration for these, gender and condition."""
    about, ours, synthetic = given.main.described(), given.main.predictions, given.synthetic
    for name, labels in given.groups.items():
        report.add(
            breakdown(
                _key(name), f"Errors by {name}", about, name, labels, given.methods, synthetic=synthetic
            )
        )
    by = {**_own_labels(given), **given.groups}
    if not by:
        return
    gaps, rates = [], []
    inside = covered(ours)
    for name, labels in by.items():
        gap = largest_gap(ours, labels)
        if gap is not None:
            gaps.append((name, gap.worse, gap.better, gap.years, gap.low, gap.high, gap.groups))
        rates += [(name, *_rate(ours, inside, labels, group)) for group in sorted(set(labels))]
    if gaps:
        report.add(Table(
            "table-gaps", "breakdowns", "", "The largest gap between two groups",
            f"{about}. Difference of mean absolute errors, years, with its 95 % interval by bootstrap over subjects; "
            "only groups of at least 10 subjects are compared. It is the largest of all pairs, chosen after looking: "
            "among many groups some gap is large by chance.",
            (Column("by", "label"), Column("larger error", "worse"), Column("smaller error", "better"),
             Column("difference", "difference", "years"), Column("95 % from", "interval_low", "years"),
             Column("to", "interval_high", "years"), Column("groups", "groups", "int")),
            (Group("", tuple(gaps)),), synthetic,
        ))  # fmt: skip
    if np.isfinite(inside).any():
        report.add(Table(
            "table-calibration", "breakdowns", "", f"How often the {100 * LEVEL:.0f} % interval holds, by group",
            f"{about}. Share of videos (%) whose true age lies in the interval that all other subjects' errors give, "
            "with its 95 % interval by bootstrap over subjects, from 10 subjects on. The interval is made to hold on "
            "average over subjects: for a group well below that average it promises too much.",
            (Column("by", "label"), Column("group", "name"), Column("videos", "videos", "int"),
             Column("subjects", "subjects", "int"), Column("holds, %", "holds_percent", "percent"),
             Column("95 % from", "interval_low", "percent"), Column("to", "interval_high", "percent")),
            (Group("", (("all", "", *_rate(ours, inside, ["all"] * len(ours), "all")[1:]), *rates)),), synthetic,
        ))  # fmt: skip


def _rate(
    predictions: Predictions, inside: np.ndarray, labels: Sequence[str], group: str
) -> tuple[Value, ...]:
    """One group's row: its name, videos, subjects, how often the interval holds, percent, and from where to where."""
    rows = np.flatnonzero([label == group for label in labels])
    people = [predictions.subject[i] for i in rows]
    low = high = np.nan
    if len(set(people)) >= LEAST_SUBJECTS:
        low, high = (float(v) for v in interval(100 * inside[rows], people))
    share = 100 * float(inside[rows].mean())
    return escape_controls(group) or "unknown", len(rows), len(set(people)), share, low, high


def _own_labels(given: EvaluationInputs) -> dict[str, list[str]]:
    """Gender, condition and expression, where the data have more than one."""
    if given.data is None:
        return {}
    found = {
        name: given.data.labels(name, given.main.predictions)
        for name in ("gender", "condition", "expression")
    }
    return {name: labels for name, labels in found.items() if len(set(labels) - {""}) > 1}


def _key(name: str) -> str:
    plain = "".join(c if c.isalnum() and c.isascii() else "-" for c in name.lower()).strip("-")
    return f"table-by-label-{plain or zlib.crc32(name.encode('utf-8', 'surrogateescape'))}"


def read_groups(given: EvaluationInputs) -> dict[str, list[str]]:
    """The labels `by` of the request, of every predicted video, "" where unknown: columns of its table, which finds a
    row by `video` (ids, or names of files), `file` or `subject`; the data's own columns where it lacks them.

    Raises:
        NemoError: there is no such column, or it says nothing about any video.
    """
    table = Path(given.request.labels) if given.request.labels is not None else None
    rows = _rows(table) if table is not None else []
    shown, predictions = escape_controls(str(table)), given.main.predictions
    own = [] if given.data is None else [c for c in given.data.dataset.videos if c not in _OUR_COLUMNS]
    found: dict[str, list[str]] = {}
    for name in given.request.by:
        if rows and name in rows[0] and name not in _KEYS:
            found[name] = _match(rows, name, predictions)
            where = shown
        elif given.data is not None and name in own:
            found[name] = given.data.labels(name, predictions)
            where = "the data"
        else:
            known = [c for c in (rows[0] if rows else ()) if c not in _KEYS] + own
            has = f"; there are {listed(known)}" if known else ""
            hint = "" if table is not None else ": name a table with it, `labels=FILE.csv`"
            raise SettingsError(f"`by={escape_controls(name)}`: there is no such label{has}{hint}.", "by")
        if not any(found[name]):
            raise SettingsError(
                f"`by={escape_controls(name)}`: {where} says nothing about any predicted video; rows are found by "
                "`video` (an id or the name of a file), `file` or `subject`.",
                "by",
            )
    return found


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        rows = read_table(table)
    except OSError as error:
        raise DataError(f"{escape_controls(str(table))} cannot be read: {error.strerror}.", table) from None
    except ValueError as error:
        raise DataError(
            f"{escape_controls(str(table))} is not a CSV file ({escape_controls(str(error))}).", table
        ) from None
    if not rows or not any(key in rows[0] for key in _KEYS):
        raise DataError(
            f"{escape_controls(str(table))} needs a column video, file or subject, and a row for each.", table
        )
    return rows


def _match(rows: Sequence[Mapping[str, str]], name: str, predictions: Predictions) -> list[str]:
    """The label of each predicted video: by its id or file, else by its subject."""
    places: dict[tuple[str, str], str] = {}
    for row in rows:
        for key in _KEYS:
            if row.get(key):
                kind = "subject" if key == "subject" else "video"
                places.setdefault((kind, csv_value(row[key]).strip()), csv_value(row.get(name) or "").strip())
    files = predictions.file or ("",) * len(predictions)
    by_video = any(kind == "video" for kind, _ in places)
    bases = Counter(Path(file).name for file in files)
    found = []
    for video, file, subject in zip(predictions.video, files, predictions.subject, strict=True):
        base = Path(file).name if bases[Path(file).name] == 1 else ""  # in two folders, it says nothing
        keys = (
            [("video", text) for text in (video, file, base) if text] if by_video else [("subject", subject)]
        )
        found.append(next((places[key] for key in keys if key in places), ""))
    return found
