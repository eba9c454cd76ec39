"""Errors by any label, against plain loops; labels found by id, file or subject."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from nemo_pipeline.errors import SettingsError
from siam_model.evaluate import evaluate
from siam_model.interval import interval_from
from siam_model.predictions import Predictions, write_predictions
from siam_model.reports.groups import covered, largest_gap
from siam_model.reports.inputs import EvaluateRequest
from tests.support.commands import invoke

SITES = ("Ulm", "Bern", "Graz")


def made(people: int = 36, extra: float = 6.0) -> tuple[Predictions, list[str]]:
    """Two videos of each person; errors at the first site are larger."""
    rng = np.random.default_rng(3)
    subject = np.repeat(np.arange(people), 2)
    site = [SITES[k % 3] for k in subject]
    age = rng.uniform(20, 60, people)[subject]
    error = rng.gamma(4, 1, len(subject)) + extra * (np.array(site) == "Ulm")
    names = tuple(f"v{i}" for i in range(len(subject)))
    p = Predictions(
        names,
        tuple(f"s{k}" for k in subject),
        subject % 3,
        age,
        age + error,
        tuple(f"d/{n}.mp4" for n in names),
    )
    return p, site


def test_the_largest_gap():
    p, site = made()
    gap = largest_gap(p, site)
    mae = {name: np.mean([e for e, s in zip(p.error, site, strict=True) if s == name]) for name in SITES}
    worse, better = max(mae, key=mae.get), min(mae, key=mae.get)
    assert (gap.worse, gap.better, gap.groups) == (worse, better, 3) == ("Ulm", better, 3)
    assert gap.years == pytest.approx(mae[worse] - mae[better])
    # the bootstrap in a plain loop, with another generator
    rng, drawn, subject = np.random.default_rng(9), [], np.array(p.subject)
    places = {person: np.flatnonzero(subject == person) for person in set(p.subject)}
    people = sorted(places)
    for _ in range(1500):
        rows = np.concatenate([places[people[k]] for k in rng.integers(0, len(people), len(people))])
        here = np.array(site)[rows]
        drawn.append(p.error[rows][here == worse].mean() - p.error[rows][here == better].mean())
    np.testing.assert_allclose([gap.low, gap.high], np.percentile(drawn, [2.5, 97.5]), atol=0.25)


def test_small_groups_are_not_compared():
    p, site = made(people=24)  # eight people each
    assert largest_gap(p, site) is None
    assert largest_gap(p, ["" for _ in site]) is None


def test_what_the_interval_of_the_others_holds():
    p, _ = made()
    inside = covered(p, 0.9)
    for person in ("s0", "s7"):
        mine = np.array(p.subject) == person
        rest = Predictions(
            tuple(np.array(p.video)[~mine]), tuple(np.array(p.subject)[~mine]), p.fold[~mine], p.age[~mine],
            p.predicted[~mine],
        )  # fmt: skip
        width = interval_from(rest, 0.9).half_width
        np.testing.assert_array_equal(inside[mine], p.error[mine] <= width)
    assert 0.8 < inside.mean() <= 1
    few, _ = made(people=6)
    assert np.isnan(covered(few, 0.9)).all()


@pytest.fixture
def run(tmp_path):
    p, site = made()
    folder = tmp_path / "run"
    folder.mkdir()
    write_predictions(folder / "predictions.csv", p)
    meta = {"synthetic": False, "folds": 3, "dataset": {"file": "a.h5", "uuid": "u"}, "seed": 0}
    (folder / "run.json").write_text(json.dumps(meta))
    keys = {
        "by-id.csv": ("video", p.video), "by-file.csv": ("video", [f"{v}.mp4" for v in p.video]),
        "by-subject.csv": ("subject", p.subject),
    }  # fmt: skip
    for name, (key, values) in keys.items():
        rows = dict(zip(values, site, strict=True))
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([(key, "site"), *rows.items()])
    return folder


@pytest.mark.parametrize("table", ["by-id.csv", "by-file.csv", "by-subject.csv"])
def test_labels_from_a_table(run, tmp_path, table):
    result = evaluate(
        run, tmp_path / "out", request=EvaluateRequest(by=["site"], labels=tmp_path / table, quick=True)
    )
    assert result.gaps[0][:2] == ("site", "Ulm")
    tables = {t.key: t for t in result.report.tables}
    assert [row[0] for row in tables["table-by-label-site"].groups[0].rows] == sorted(SITES)
    rows = {row[1]: row for row in tables["table-calibration"].groups[0].rows}
    assert rows["Ulm"][4] < rows["Bern"][4] and rows["Ulm"][2:4] == (24, 12)
    assert (tmp_path / "out" / "tables" / "table-calibration.csv").is_file()
    assert "The largest gap" in (tmp_path / "out" / "report.html").read_text()


def test_the_command_names_the_gap(run, tmp_path):
    done = invoke("evaluate", run, "--quick", "--by", "site", "--labels", tmp_path / "by-id.csv")
    assert "Largest gap by site: Ulm" in done.stdout


def test_what_cannot_be_found(run, tmp_path):
    with pytest.raises(SettingsError, match="there are site"):
        evaluate(run, tmp_path / "out", request=EvaluateRequest(by=["camera"], labels=tmp_path / "by-id.csv"))
    with pytest.raises(SettingsError, match="`labels="):
        evaluate(run, tmp_path / "out", request=EvaluateRequest(by=["camera"]))
    (tmp_path / "other.csv").write_text("video,site\nelse.mp4,Ulm\n")
    with pytest.raises(SettingsError, match="says nothing about any predicted video"):
        evaluate(run, tmp_path / "out", request=EvaluateRequest(by=["site"], labels=tmp_path / "other.csv"))
