"""Compared methods in the report: measured and quoted numbers apart, paired tests with Holm's correction, and which
methods Figures 7 and 8 show."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import scipy

from nemo_pipeline.errors import SettingsError
from siam_model.evaluate import evaluate
from siam_model.predictions import Predictions, write_predictions
from siam_model.protocol.baselines import LABELS
from siam_model.reports import paper
from siam_model.reports.inputs import EvaluateRequest
from siam_model.reports.stats import holm
from siam_model.run_folder import write_json

#: Method -> deviation of its errors, years.
SPREAD = {"SIAM": 4, "vlbp": 15, "ief_dynamics": 5, "lbp_dynamics": 6, "cnn": 5, "median": 17}


@pytest.fixture
def make_run(tmp_path):
    """A finished run of 40 people with two videos each, without models."""

    def make(synthetic: bool):
        rng = np.random.default_rng(0)
        age = np.repeat(rng.uniform(8, 76, 40), 2)
        subject = tuple(f"s{i // 2:02d}" for i in range(80))
        (tmp_path / "baselines").mkdir(exist_ok=True)
        for name, spread in SPREAD.items():
            table = Predictions(
                tuple(f"v{i}" for i in range(80)), subject, np.arange(80) // 2 % 5, age,
                age + rng.normal(0, spread, 80),
            )  # fmt: skip
            file = "predictions.csv" if name == "SIAM" else f"baselines/{name}.csv"
            write_predictions(tmp_path / file, table)
        write_json(tmp_path / "run.json", {"synthetic": synthetic, "folds": 5, "dataset": {"file": "x.h5"}})
        return tmp_path

    return make


@pytest.mark.parametrize("synthetic", [False, True])
def test_all_rows_measured_and_the_papers_apart(make_run, synthetic):
    result = evaluate(make_run(synthetic), request=EvaluateRequest(quick=True, faces=False))
    tables = {table.key: table for table in result.report.tables}
    table = tables["table-3-methods"]
    measured = {row[0]: row for row in table.groups[0].rows}
    assert list(measured) == [LABELS[n] for n in ("vlbp", "cnn", "ief_dynamics", "lbp_dynamics")] + ["SIAM"]
    assert "re-implementations" in table.caption and "docs/methods.md" in table.caption
    names = [column.name for column in table.columns]
    row = measured["VLBP (re-implemented)"]
    assert row[names.index("mae")] == pytest.approx(result.methods["VLBP (re-implemented)"].error.mean())
    quoted = {method.name: method.all for method in paper.METHODS}
    if synthetic:  # side by side they would ask to be compared
        assert "paper_mae" not in names
        assert [line[0] for line in table.groups[1].rows] == [
            "VLBP [62]", "CNNs", "IEF + dynamics [10]", "LBP + dynamics [10]", "SIAM"
        ]  # fmt: skip
        assert table.groups[1].paper and table.groups[1].rows[0][names.index("mae")] == 15.70
    else:
        assert row[names.index("paper_mae")] == quoted["VLBP [62]"].mae == 15.70
        assert measured["SIAM"][names.index("paper_deviation")] == 5.70
    # Table III by decade has them too.
    assert {"VLBP (re-implemented)", "CNNs", "training median"} <= {
        r[0] for r in tables["table-3"].groups[0].rows
    }


def test_paired_tests_are_over_people_and_corrected(make_run):
    result = evaluate(make_run(True), request=EvaluateRequest(quick=True, faces=False))
    table = next(table for table in result.report.tables if table.key == "table-tests")
    names = [column.name for column in table.columns]
    ours = result.methods["SIAM"].error.reshape(40, 2).mean(axis=1)
    p = []
    for name, *row in table.groups[0].rows:
        theirs = result.methods[name].error.reshape(40, 2).mean(axis=1)
        expected = scipy.stats.ttest_rel(ours, theirs)
        assert row[names.index("t") - 1] == pytest.approx(expected.statistic)
        assert row[names.index("p") - 1] == pytest.approx(expected.pvalue)
        assert row[names.index("subjects") - 1] == 40
        p.append(expected.pvalue)
    assert len(p) == 5
    assert [row[names.index("p_holm")] for row in table.groups[0].rows] == pytest.approx(holm(p))


def test_holms_correction():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # textbook example
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert np.isnan(holm([float("nan"), 0.2])[0]) and holm([float("nan"), 0.2])[1] == 0.2
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = list(rng.random(6) ** 3)
        adjusted = holm(p)
        for level in (0.01, 0.05, 0.2):  # step down by hand
            rejected = set()
            for rank, i in enumerate(sorted(range(6), key=lambda k: p[k])):
                if p[i] > level / (6 - rank):
                    break
                rejected.add(i)
            assert rejected == {i for i in range(6) if adjusted[i] <= level}


def test_figures_show_the_papers_three_or_what_was_named(make_run):
    folder = make_run(True)

    def drawn(**options):
        result = evaluate(folder, request=EvaluateRequest(quick=True, faces=False, **options))
        figure = next(p for p in result.report.pictures if p.key == "figure-7-cumulative-error").figure
        return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]

    assert [text.split(" (")[0] for text in drawn()[:3]] == ["SIAM", "IEF + dynamics", "LBP + dynamics"]
    named = drawn(figures=["vlbp", "CNNs"])
    assert named[0].startswith("VLBP (re-implemented) (MAE") and named[1].startswith("CNNs")
    assert "VLBP (re-implemented): 95 % interval" in named and not any("SIAM" in text for text in named)
    with pytest.raises(SettingsError, match="no method nobody here; there are siam, vlbp"):
        drawn(figures=["nobody"])


def test_table_iv_has_the_compared_methods_of_each_subset(make_run, tmp_path):
    """Real faces: the paper's numbers in columns of their own, where its subset is the same."""
    base = make_run(False)
    study = tmp_path / "study"
    variants = []
    for name, subset in (("smile_posed", {"expression": "smile", "condition": "posed"}), ("all", {})):
        (study / name).mkdir(parents=True)
        for part in ("predictions.csv", "baselines", "run.json"):
            copy = shutil.copytree if part == "baselines" else shutil.copy
            copy(base / part, study / name / part)
        variants.append({"folder": name, "name": name, "label": name, "overrides": {}, "subset": subset})
    write_json(study / "study.json", {"study": "conditions", "variants": variants})
    result = evaluate([base, study], tmp_path / "out", EvaluateRequest(quick=True, faces=False))
    table = next(table for table in result.report.tables if table.key == "table-4")
    names = [column.name for column in table.columns]
    rows = {row[0]: row for row in table.groups[0].rows}
    assert [name for name in rows if name.endswith("smile_posed")] == [
        f"{label}, smile_posed" for label in
        ("VLBP (re-implemented)", "CNNs", "IEF + dynamics (re-implemented)", "LBP + dynamics (re-implemented)", "SIAM")
    ]  # fmt: skip
    quoted = names.index("paper_mae")
    assert rows["IEF + dynamics (re-implemented), smile_posed"][quoted] == 4.91
    assert rows["SIAM, smile_posed"][quoted] == 6.41
    assert rows["VLBP (re-implemented), smile_posed"][quoted] is None
    assert rows["LBP + dynamics (re-implemented), all"][quoted] is None
    assert "re-implementations" in table.caption
