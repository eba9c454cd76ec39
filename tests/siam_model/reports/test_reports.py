"""Statistics, formats and the paper's numbers: against scipy, scikit-learn, plain loops and the paper's text."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from siam_model.predictions import Predictions
from siam_model.reports import paper
from siam_model.reports.content import Column, Group, Table
from siam_model.reports.formats import (
    format_value,
    latex,
    markdown,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
    write_as,
)
from siam_model.reports.stats import (
    age_counts,
    interval,
    paired_test,
    per_subject,
    principal_components,
    summarize_errors,
    thresholds,
)
from siam_model.reports.tables import (
    Heading,
    Line,
    breakdown,
    table_of_errors,
    table_of_thresholds,
    table_three,
)
from tests.support.paths import SHARED

NASTY = (
    "clip[/b]<img src=x onerror=alert(1)>",
    "$a^^b$",
    "=cmd|' /C calc'!A0",
    "caf\udce9",
    "a|b\\c_%#&{}~`*",
)


def some_predictions(n: int = 60, people: int = 20, seed: int = 0) -> Predictions:
    """Several videos of every subject, whose errors are alike."""
    rng = np.random.default_rng(seed)
    subject = rng.integers(0, people, n)
    subject[:people] = np.arange(people)
    age = rng.integers(8, 77, people).astype(float)[subject]
    predicted = age + rng.normal(0, 6, people)[subject] + rng.normal(0, 2, n)
    return Predictions(tuple(f"v{i}" for i in range(n)), tuple(f"s{k}" for k in subject),
                       rng.integers(0, 3, n), age, predicted)  # fmt: skip


# ---- statistics


def test_the_interval_is_that_of_scipy_when_people_are_drawn():
    p = some_predictions(90, 25)
    sums, counts = per_subject(p.error, p.subject)
    low, high = interval(p.error, p.subject, resamples=20000)
    theirs = scipy.stats.bootstrap(
        (sums, counts), lambda s, c, axis: s.sum(axis) / c.sum(axis), paired=True, vectorized=True,
        method="percentile", n_resamples=20000, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    # Two drawings of 20000 differ by a few hundredths of the interval's width.
    assert low == pytest.approx(theirs.low, abs=0.05 * (theirs.high - theirs.low))
    assert high == pytest.approx(theirs.high, abs=0.05 * (theirs.high - theirs.low))


def test_more_videos_of_the_same_people_make_no_narrower_interval():
    p = some_predictions(40, 15)
    once = interval(p.error, p.subject)
    thrice = interval(np.tile(p.error, 3), p.subject * 3)
    np.testing.assert_allclose(once, thrice)
    assert interval(p.error, p.subject) == once  # the same seed, the same interval
    assert interval(p.error, p.subject, seed=1) != once
    # Videos taken for independent would pretend to know three times as much.
    naive = interval(np.tile(p.error, 3), [f"v{i}" for i in range(120)])
    assert naive[1] - naive[0] < 0.75 * (once[1] - once[0])


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        person = np.abs(rng.normal(0, 5, 40))  # the mean of |N(0, 5)| is 5 sqrt(2/pi)
        low, high = interval(
            np.repeat(person, 3), np.repeat(np.arange(40), 3).astype(str).tolist(), resamples=400
        )
        hits += low <= 5 * np.sqrt(2 / np.pi) <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_intervals_of_several_means_at_once():
    p = some_predictions()
    limits = np.array([1.0, 5.0, 20.0])
    within = (p.error[:, None] <= limits).astype(float)
    low, high = interval(within, p.subject)
    for k in range(3):
        np.testing.assert_allclose(interval(within[:, k], p.subject), (low[k], high[k]))


def test_summaries_of_little():
    none = summarize_errors(np.array([]), [])
    assert (none.videos, none.subjects) == (0, 0) and np.isnan(none.mae) and np.isnan(none.low)
    one = summarize_errors(np.array([3.0]), ["s"])
    assert one.mae == 3 and np.isnan(one.deviation) and np.isnan(one.low)
    person = summarize_errors(np.array([3.0, 5.0]), ["s", "s"])
    assert (person.mae, person.deviation) == (4, pytest.approx(np.sqrt(2))) and np.isnan(person.low)


@given(st.integers(2, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_the_paired_test_is_that_of_scipy(n, seed):
    rng = np.random.default_rng(seed)
    ours, theirs = rng.exponential(5, n), rng.exponential(6, n)
    found, reference = paired_test(ours, theirs), scipy.stats.ttest_rel(ours, theirs)
    assert found.t == pytest.approx(reference.statistic) and found.p == pytest.approx(reference.pvalue)
    assert found.difference == pytest.approx(ours.mean() - theirs.mean()) and found.pairs == n
    subject = [f"s{k}" for k in rng.integers(0, max(2, n // 2), n)]
    people = sorted(set(subject))
    a = [np.mean([x for x, s in zip(ours, subject, strict=True) if s == who]) for who in people]
    b = [np.mean([x for x, s in zip(theirs, subject, strict=True) if s == who]) for who in people]
    found = paired_test(ours, theirs, subject)
    assert found.pairs == len(people)
    if len(people) > 1:
        assert found.p == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue)


def test_a_paired_test_of_nothing_says_nothing():
    same = paired_test(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert same.difference == 0 and np.isnan(same.p)
    assert np.isnan(paired_test(np.array([]), np.array([])).difference)


@given(npst.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 100)))
@settings(max_examples=60, deadline=None)
def test_ages_with_enough_videos(age):
    counts = age_counts(age)
    for i, a in enumerate(age):
        assert counts[i] == sum(int(b) == int(a) for b in age)
    p = Predictions(tuple(map(str, range(len(age)))), tuple(map(str, range(len(age)))),
                    np.zeros(len(age), int), age, age + 1)  # fmt: skip
    steps = thresholds(p)
    assert steps[0] == 1 and steps == sorted(set(steps)) and len(steps) <= 60
    assert steps == list(range(1, max([1, *(c for c in counts if c > 1)]) + 1)) or len(steps) == 60


def test_principal_components_are_those_of_scikit_learn():
    rng = np.random.default_rng(3)
    cells = rng.normal(size=(6, 7, 12)) * np.linspace(4, 0.1, 12)
    found = principal_components(cells, 3)
    from sklearn.decomposition import PCA

    pca = PCA(3, svd_solver="full").fit(cells.reshape(-1, 12))
    np.testing.assert_allclose(found.share, pca.explained_variance_ratio_)
    scores = pca.transform(cells.reshape(-1, 12)).T.reshape(3, 6, 7)
    for ours, theirs in zip(found.maps, scores, strict=True):
        assert min(np.abs(ours - theirs).max(), np.abs(ours + theirs).max()) < 1e-9
        assert ours.flat[np.abs(ours).argmax()] > 0
    flat = principal_components(np.ones((3, 3, 4)), 3)
    assert flat.share.tolist() == [0, 0, 0] and np.abs(flat.maps).max() == 0
    assert len(principal_components(rng.normal(size=(4, 4, 2)), 3).maps) == 2


# ---- tables


@given(st.integers(1, 50), st.integers(1, 12), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_table_three_by_plain_loops(n, people, seed):
    p = some_predictions(max(n, people), people, seed)
    short, full = table_three({"SIAM": p, "other": p}, "caption", synthetic=False)
    head = [c.head for c in short.columns]
    row = dict(zip(head, short.groups[0].rows[0], strict=True))
    for d in range(8):
        mine = [e for e, a in zip(p.error, p.age, strict=True) if 10 * d <= a < 10 * d + 10]
        value = row[f"{10 * d}-{10 * d + 9}"]
        assert (value is None) if not mine else value == pytest.approx(sum(mine) / len(mine))
    assert row["All"] == pytest.approx(p.error.mean())
    names = [c.name for c in full.columns]
    for line in full.groups[0].rows:
        got = dict(zip(names, line, strict=True))
        if got["age_group"] == "All":
            assert got["videos"] == len(p) and got["subjects"] == people
            assert got["mae"] == pytest.approx(p.error.mean())
        else:
            low = int(got["age_group"].split("-")[0])
            mine = [i for i, a in enumerate(p.age) if low <= a < low + 10]
            assert got["videos"] == len(mine)
            assert got["subjects"] == len({p.subject[i] for i in mine})


def test_ages_beyond_the_papers_have_a_column_too():
    old = Predictions(("a", "b"), ("a", "b"), np.zeros(2, int), np.array([85.0, 3.0]), np.array([80.0, 4.0]))
    short, _ = table_three({"SIAM": old}, "c", synthetic=False)
    assert [c.head for c in short.columns][1:-2] == [f"{10 * d}-{10 * d + 9}" for d in range(9)]
    theirs = next(g for g in short.groups if g.paper)
    assert all(row[9] is None for row in theirs.rows)  # 80-89: nobody in the paper
    assert theirs.rows[-2][-2:] == (4.74, 5.70)


def test_the_papers_numbers_stand_apart():
    p = some_predictions()
    lines = [Line("onset", p, paper.PHASES[("onset",)]), Line("whole", p)]
    real = table_of_errors(Heading("t", "phases", "Table II", "x", "c"), "Phases", lines, synthetic=False)
    assert [c.head for c in real.columns][-2:] == ["the paper: MAE", "the paper: SD"]
    assert [row[-2:] for row in real.groups[0].rows] == [(8.41, 8.95), (None, None)]
    made = table_of_errors(Heading("t", "phases", "Table II", "x", "c"), "Phases", lines, synthetic=True)
    assert not any("paper" in c.head for c in made.columns)  # never side by side with synthetic faces
    assert [g.paper for g in made.groups] == [False, True]
    assert "not synthetic faces" in made.groups[1].title and "may be compared" in made.groups[1].title
    assert made.groups[1].rows == (("onset", None, None, 8.41, 8.95, None, None),)
    for table in (real, made):
        assert "UvA-NEMO" in table.caption
        rows = list(csv.DictReader(io.StringIO(to_csv(table))))
        assert rows[0]["source"] == ("measured" if table is real else "measured on SYNTHETIC faces")
        assert [(row["name"], row["paper_mae"]) for row in rows] == [("onset", "8.41"), ("whole", "")]
        assert float(rows[0]["mae"]) == pytest.approx(p.error.mean())  # quotations have columns of their own
    assert rows[0]["paper_source"] == made.groups[1].title and rows[1]["paper_source"] == ""
    plain = breakdown("k", "t", "c", "Gender", ["f"] * 30 + [""] * 30, {"SIAM": p, "b": p}, synthetic=False)
    assert [row[0] for row in plain.groups[0].rows] == ["f", "unknown"]
    assert not any(group.paper for group in plain.groups) and "paper" not in plain.caption


def test_the_table_of_thresholds():
    ours, theirs = some_predictions(80, 12), some_predictions(80, 12)
    theirs = Predictions(ours.video, ours.subject, ours.fold, ours.age, theirs.predicted + 4)
    table = table_of_thresholds({"SIAM": ours, "other": theirs}, "c", synthetic=False)
    names = [c.name for c in table.columns]
    for row in table.groups[0].rows:
        got = dict(zip(names, row, strict=True))
        years = np.floor(ours.age).tolist()
        kept = [i for i, y in enumerate(years) if years.count(y) >= got["minimum"]]
        assert got["videos"] == len(kept) and got["ages"] == len({years[i] for i in kept})
        assert got["mae"] == pytest.approx(ours.error[kept].mean())
        assert got["mae_other"] == pytest.approx(theirs.error[kept].mean())
        reference = scipy.stats.ttest_rel(ours.error[kept], theirs.error[kept]).pvalue
        assert got["p_videos_other"] == pytest.approx(reference)


# ---- formats


def nasty_table() -> Table:
    columns = (Column("Name <b>", "name"), Column("MAE", "mae", "years"), Column("p", "p", "p"),
               Column("n", "n", "int"))  # fmt: skip
    rows = tuple((name, 1.25, 1e-9, 3) for name in NASTY)
    groups = (Group("", rows), Group("The paper $x$", ((None, float("nan"), 0.5, None),), paper=True))
    return Table("table-x", "accuracy", "Table X", "50 % of <b>", "caption & more_", columns, groups, False)


def test_csv_and_json_keep_every_value():
    rows = list(csv.DictReader(io.StringIO(to_csv(nasty_table()))))
    assert rows[0]["name"] == NASTY[0] and rows[2]["name"] == "'" + NASTY[2]
    assert not any(str(cell).startswith(("=", "+", "@")) for row in rows for cell in row.values())
    assert rows[0]["mae"] == "1.25" and rows[0]["p"] == "1e-09" and rows[-1]["mae"] == ""
    values = json.loads(to_json(nasty_table()))
    assert [row["name"] for row in values["rows"]][:5] == [*NASTY]
    quoted = {"paper_p": 0.5, "paper_source": "The paper $x$"}
    assert values["rows"][-1] == dict.fromkeys(("name", "mae", "p", "n", "source")) | quoted
    assert [column["name"] for column in values["columns"]] == list(values["rows"][0])
    for extension in ("csv", "json", "md", "tex"):
        write_as(nasty_table(), extension).encode("utf-8", "surrogateescape")


def test_markdown_and_latex_show_names_as_they_are():
    text = to_markdown(nasty_table())
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert cells == {5}  # no name adds a column
    assert r"\<img src=x onerror=alert\(1\)\>" in text and "<" not in text.replace(r"\<", "")
    tex = to_latex(nasty_table())
    assert r"\$a\textasciicircum{}\textasciicircum{}b\$" in tex
    body = tex.split(r"\begin{tabular}")[1]
    rows = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {3}
    assert not re.search(r"(?<!\\)[%#_]", re.sub(r"\\label\{.*?\}", "", tex))
    assert tex.count("{") - tex.count(r"\{") == tex.count("}") - tex.count(r"\}")
    assert latex("\x1b[31m\n") == r"\textbackslash{}x1b{[}31m\textbackslash{}x0a"
    assert "\n" not in markdown("a\nb")


def test_how_numbers_are_written():
    assert [format_value(v, "years") for v in (1.005, -0.5, 3, None, float("nan"))] == [
        "1.00",
        "−0.50",
        "3",
        "",
        "",
    ]
    assert [format_value(v, "p") for v in (1e-9, 0.0012, 0.5)] == ["< 0.0001", "0.0012", "0.50"]


# ---- the paper


def test_the_papers_table_three_adds_up():
    """All is the mean over videos, so the decades' errors, weighted by their videos, give it back."""
    assert sum(paper.SAMPLES) == paper.ALL_SAMPLES
    weights = np.array(paper.SAMPLES) / paper.ALL_SAMPLES
    for method in paper.METHODS:
        assert np.dot(weights, method.decades) == pytest.approx(method.all.mae, abs=0.06), method.name
    ours = paper.METHODS[-1].all
    assert ours == paper.MECHANISMS["indexed"] == paper.PHASES[("onset", "apex", "offset")]
    assert ours.mae == paper.MODULES["full"]
    assert paper.METHODS[8].all.mae == paper.MODULES["conv"]


TEXT = SHARED / "paper" / "siam.txt"


@pytest.mark.real
@pytest.mark.skipif(not TEXT.is_file(), reason="the paper's text is not here")
def test_every_number_stands_in_the_paper():
    text = TEXT.read_text(encoding="utf-8")
    for method in paper.METHODS:
        pattern = r"\t".join(re.escape(f"{v:g}") + "0*" for v in method.decades)
        assert re.search(pattern, text), method.name
    pairs = [*paper.MECHANISMS.values(), *paper.PHASES.values(), *(m.all for m in paper.METHODS)]
    pairs += [error for rows in paper.SUBSETS.values() for error in rows.values()]
    for error in pairs:
        assert re.search(rf"{error.mae:.2f}\W+\(\s*\$?\\?\D*{error.deviation:.2f}", text), error
    for value in paper.MODULES.values():
        assert f"{value:.2f}" in text
    assert "\t".join(map(str, (*paper.SAMPLES, paper.ALL_SAMPLES))) in text
