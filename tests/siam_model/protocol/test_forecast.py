"""What a training says of the time it will take: trainings and epochs left, times the time of a step."""

from __future__ import annotations

import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest

from nemo_cli.train_progress import TrainProgress, duration
from siam_model.protocol.fit_folder import _Pace
from siam_model.protocol.forecast import forecast
from siam_model.protocol.reporter import Reporter, TrainingScope
from siam_model.protocol.request import Runtime
from siam_model.run_folder import RunFolder
from tests.support.siam_faces import drawn_file
from tests.support.siam_runs import quick

#: Of the preset `small`.
PATIENCE = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return drawn_file(tmp_path_factory.mktemp("drawn") / "out.h5", size=70, subjects=8, frames=5, clips=1)


@pytest.fixture(scope="module")
def folded(data, tmp_path_factory) -> Path:
    """A run of 4 folds, of which one is finished; 100 epochs at most, 10 trials."""
    run = tmp_path_factory.mktemp("runs") / "run"
    quick(data, run, folds=4, fold=1, epochs=1)
    settings = (run / "settings.json").read_text()
    for old, new in (('"epochs": 1', '"epochs": 100'), ('"trials": 0', '"trials": 10')):
        settings = settings.replace(old, new)
    (run / "settings.json").write_text(settings)
    return run


def test_what_is_left_of_folds_and_trials(folded):
    left = forecast(folded, 2.0, Runtime())
    assert (left.trainings, left.epochs) == (3 * 10 + 1, 100)
    assert left.most == 2.0 * (3 * 10 * 100 + 100)
    # Three trials stop for want of a better error, seven are ended as early as they may be; one epoch on all subjects.
    assert left.least == 2.0 * (3 * (3 * (PATIENCE + 1) + 7 * 10) + 1)
    assert forecast(folded, 2.0, Runtime(jobs=3)).most == 2.0 * (10 * 100 + 100)
    one = forecast(folded, 2.0, Runtime(fold=2))
    assert (one.trainings, one.most) == (10, 2.0 * 10 * 100)
    assert forecast(folded, 2.0, Runtime(fold=1)).most == 0


def test_pretraining_counts_and_frozen_epochs_hardly_do(folded, tmp_path):
    run = shutil.copytree(folded, tmp_path / "run")
    values = json.loads((run / "settings.json").read_text())
    values["trials"] = 0
    values["train"] |= {"pretrain": "expression", "pretrain_epochs": 7, "freeze_appearance": 90}
    (run / "settings.json").write_text(json.dumps(values))
    assert forecast(run, 2.0, Runtime(fold=2)).most == 2.0 * (7 + 1 + 10)
    values["train"]["freeze_appearance"] = 100
    (run / "settings.json").write_text(json.dumps(values))
    assert forecast(run, 2.0, Runtime(fold=2)).most == 2.0 * (7 + 1)


def test_the_convolutional_part_is_one_more_network_a_fold(folded, tmp_path):
    run = shutil.copytree(folded, tmp_path / "run")
    text = (run / "settings.json").read_text()
    assert '"methods": []' in text
    (run / "settings.json").write_text(text.replace('"methods": []', '"methods": ["vlbp", "cnn"]'))
    left, alone = forecast(run, 2.0, Runtime()), forecast(folded, 2.0, Runtime())
    assert left.trainings == 2 * 3 * 10 + 1
    assert left.most == 2 * alone.most - 2.0 * 100


def test_what_is_left_of_a_study(data, tmp_path):
    study = quick(data, tmp_path / "s", study="modules", epochs=1, folds=2)
    assert (
        forecast(study, 1.0, Runtime()).trainings == 4
    )  # the models of all subjects, which a resumed run would see
    shutil.rmtree(RunFolder(study / "full").fold(0).path)
    assert forecast(study, 1.0, Runtime()).trainings == 5


class Timed(Reporter):
    def __init__(self) -> None:
        self.steps: list[tuple[float, int, float]] = []

    def timed(self, where: TrainingScope, step: float, steps: int, epoch: float) -> None:
        self.steps.append((step, steps, epoch))


@pytest.mark.parametrize(("times", "steps", "step"), [((80, 81), 5, 80), ((3, 4, 9), 5, 1), ((2,), 1, 2)])
def test_a_step_is_timed_once(monkeypatch, times, steps, step):
    """At once where it is long; otherwise the second one, since the first one has things to do that come once."""
    clock = iter([0.0, *times])
    own = types.SimpleNamespace(monotonic=lambda: next(clock))  # other threads have the real one
    monkeypatch.setattr("siam_model.protocol.fit_folder.time", own)
    told = Timed()
    pace = _Pace(told, TrainingScope(), training=300, validation=90)
    for done in range(1, len(times) + 1):
        pace.step(done, steps)
    assert told.steps == [(step, steps, pytest.approx(step * steps * 1.1))]


def test_it_is_said_once_and_bars_move_within_an_epoch(folded, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with TrainProgress(False, Runtime()) as progress:
        progress.begun(folded)
        for fold in (0, 2):
            progress.timed(TrainingScope(fold=fold), 69.0, 6, 440.0)
        progress.batch(TrainingScope(fold=0), 3, 2, 6)
        assert progress._bar is not None
        (bar,) = progress._bar.tasks
        assert (bar.description, bar.completed, bar.total) == ("fold 0, epoch 3 of 100", 2, 6)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("A step takes 69 s, an epoch of 6 steps about 7.3 min.") == 1
    assert "31 trainings of at most 100 epochs, 3.0 days to 16 days in all." in said
    assert "Shorter: a GPU" in said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.4 s"),
        (75, "75 s"),
        (600, "10 min"),
        (8000, "2.2 hours"),
        (86400, "24 hours"),
        (1e6, "12 days"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_trainings_tell_how_long_they_take(data, tmp_path):
    """From the process itself and from those that it started."""
    for jobs in (1, 2):
        told = Timed()
        quick(data, tmp_path / str(jobs), folds=2, jobs=jobs, epochs=1, reporter=told)
        assert len(told.steps) == 3 and all(np.isfinite(step).all() for step in told.steps)
