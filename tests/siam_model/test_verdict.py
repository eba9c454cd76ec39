"""Whether a model beats guessing the training median: said by train, evaluate and predict, on unseen subjects."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from nemo_pipeline.errors import DataError
from siam_model.evaluate import evaluate
from siam_model.predictions import Predictions, write_predictions
from siam_model.reports.stats import summarize_errors
from siam_model.verdict import load_verdict, verdict_from


def held_out(people: int, error: float, spread: float = 2.0, seed: int = 0) -> Predictions:
    """Two videos each of people whose model is off by about `error` years."""
    rng = np.random.default_rng(seed)
    age = np.repeat(np.linspace(8, 76, people), 2)
    off = rng.normal(error, spread, 2 * people) * rng.choice((-1, 1), 2 * people)
    video = tuple(f"v{i}" for i in range(2 * people))
    return Predictions(
        video, tuple(f"s{i // 2}" for i in range(2 * people)), np.arange(2 * people) % 2, age, age + off
    )


def of_median(predictions: Predictions) -> Predictions:
    p = predictions
    return Predictions(p.video, p.subject, p.fold, p.age, np.full(len(p), np.median(p.age)))


def written(folder: Path, predictions: Predictions) -> Path:
    (folder / "baselines").mkdir(parents=True)
    write_predictions(folder / "predictions.csv", predictions)
    write_predictions(folder / "baselines" / "median.csv", of_median(predictions))
    meta = {"synthetic": False, "folds": 2, "dataset": {"file": "a.h5", "uuid": "u"}, "seed": 0}
    (folder / "run.json").write_text(json.dumps(meta))
    return folder


def test_a_good_model():
    p = held_out(40, 5)
    verdict = verdict_from(p, of_median(p))
    gain = np.abs(np.median(p.age) - p.age) - p.error
    assert verdict.gain == pytest.approx(gain.mean())
    assert 0 < verdict.low < verdict.gain < verdict.high and verdict.outcome == "better"
    of_people = gain.reshape(40, 2).mean(axis=1)  # the same number of videos of everybody
    assert verdict.high - verdict.low == pytest.approx(2 * 1.96 * of_people.std() / np.sqrt(40), rel=0.15)
    assert str(verdict).startswith(
        f"Better than always guessing the training median by {gain.mean():.2f} years (95 %"
    )
    assert str(verdict).endswith("on 80 videos of 40 unseen subjects.")


@pytest.mark.parametrize(
    ("people", "error", "spread", "outcome", "words"),
    [
        (40, 130, 5, "not better", "Its ages are of no use."),
        (4, 60, 5, "not better", "on 8 videos of 4 unseen subjects"),
        (4, 1, 1, "unclear", "too few to be sure, 10 are needed"),
        (12, 16.5, 12, "unclear", "Not clearly better"),
    ],
)
def test_a_poor_or_doubtful_one(people, error, spread, outcome, words):
    p = held_out(people, error, spread)
    verdict = verdict_from(p, of_median(p))
    assert verdict.outcome == outcome and words in str(verdict)
    assert math.isnan(verdict.low) == (people < 10)
    assert (verdict.as_json()["low"] is None) == (people < 10)


def test_it_is_found_beside_a_model(tmp_path):
    p = held_out(12, 5)
    run = written(tmp_path / "run", p)
    assert load_verdict(run) == verdict_from(p, of_median(p))
    (run / "baselines" / "median.csv").unlink()
    assert load_verdict(run) is None
    with pytest.raises(DataError, match="give a run folder"):
        load_verdict(tmp_path / "nothing")


@pytest.mark.parametrize(("error", "poor"), [(5, False), (130, True)])
def test_the_page_opens_with_it(tmp_path, capsys, error, poor):
    from nemo_cli.evaluate import _print

    result = evaluate(written(tmp_path / "run", held_out(12, error)))
    assert result.verdict is not None and (result.verdict.outcome == "not better") == poor
    page = result.files[0].read_text()
    opening = page[page.index("<h1>") : page.index("</header>")]
    assert str(result.verdict) in opening and ('class="verdict banner"' in opening) == poor
    assert opening.index(str(result.verdict)) < opening.index("mean absolute error<")
    assert "always the training median" in opening
    assert (
        json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())["verdict"]["subjects"]
        == 12
    )
    _print(result)
    assert capsys.readouterr().out.startswith(f"{result.verdict}\n")


def test_tables_give_no_interval_of_fewer_than_ten_people(tmp_path):
    for people in (9, 10):
        p = held_out(people, 5)
        errors = summarize_errors(p.error, p.subject)
        assert math.isnan(errors.low) == math.isnan(errors.high) == (people < 10)
        result = evaluate(written(tmp_path / str(people), p))
        full = next(t for t in result.report.tables if t.key == "table-3-details")
        names = [c.name for c in full.columns]
        for group in full.groups:
            for row in group.rows:
                line = dict(zip(names, row, strict=True))
                low = line["interval_low"]
                assert (low is None or math.isnan(low)) == (line["subjects"] < 10)
        assert ("fewer than 10 subjects" in result.files[0].read_text()) == (people < 10)
