"""The search: validation subjects alone, the paper's sets, and a choice that no interruption changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store import write_dataset
from siam_model import load
from siam_model.config import preset
from siam_model.predictions import read_predictions
from siam_model.protocol import search
from siam_model.protocol.history import read_history
from siam_model.runs import fold_folder, is_finished
from siam_model.train import resume
from tests.siam_faces import drawn_file, drawn_videos
from tests.siam_runs import Listener, Stop, results
from tests.test_siam_training import TINY, quick

#: Without h, which TINY sets by hand: the search leaves that alone.
FREE = {name: value for name, value in TINY.items() if name != "model.hidden"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return drawn_file(tmp_path_factory.mktemp("drawn") / "out.h5", size=70, subjects=10, frames=6)


def searched(data: Path, out: Path, **options) -> Path:
    return quick(data, out, **{"folds": 2, "trials": 4, "epochs": 5, **options})


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    return searched(data, tmp_path_factory.mktemp("runs") / "whole")


def choice(folder: Path) -> dict:
    """choice.json without what a clock decides."""
    values = json.loads((folder / "choice.json").read_text())
    for trial in values["trials"]:
        trial.pop("seconds")
    return values


def test_the_papers_sets():
    model, _ = preset("paper")
    space = search.space_of(model, {})
    assert space["model.hidden"] == (128, 256, 512)
    assert np.prod([len(values) for values in space.values()]) == 336
    small = search.space_of(preset("small")[0], {"train.l2": "0"})
    assert small["model.hidden"] == (16, 32, 64) and "train.l2" not in small


def test_what_a_search_leaves_behind(whole):
    for fold in range(2):
        folder = fold_folder(whole, fold)
        values = json.loads((folder / "choice.json").read_text())
        assert [trial["number"] for trial in values["trials"]] == [0, 1, 2, 3] and values["budget"] == 4
        first = values["trials"][0]["parameters"]
        assert first == {"model.dropout_conv": 0.0, "model.dropout_recurrent": 0.0, "train.l2": 1e-4}
        tried = [tuple(sorted(trial["parameters"].items())) for trial in values["trials"]]
        assert len(set(tried)) == 4
        for trial in values["trials"]:
            assert all(value in values["space"][name] for name, value in trial["parameters"].items())
        finished = [t for t in values["trials"] if t["state"] == "finished"]
        best = min(finished, key=lambda t: (t["validation_mae"], t["number"]))
        assert values["trial"] == best["number"] and values["chosen"] == best["parameters"]
        # The weights are the best trial's own, stopped where it was best.
        card = load(folder).card
        assert search.values_of(card.model, card.train, values["chosen"]) == values["chosen"]
        history = read_history(folder / "history.csv")
        assert min(line.validation_mae for line in history) == values["validation_mae"]
        assert len(history) == best["epochs"]
        assert not (folder / "trials").exists()
        log = folder / "trials.log"
        assert log.stat().st_mode & 0o077 == 0
        study = optuna.load_study(
            study_name="search",
            storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(log))),
        )
        assert study.best_params == values["chosen"]  # Optuna's own tools can read it
    meta = json.loads((whole / "run.json").read_text())
    assert meta["trials"] == 4 and len(meta["choices"]) == 2


def test_a_search_gives_the_weights_of_a_run_with_its_choice(whole, data, tmp_path):
    """Nothing of the search is in the result but the choice: training with it by hand gives the same model."""
    chosen = choice(fold_folder(whole, 0))["chosen"]
    overrides = {name: str(value) for name, value in chosen.items()}
    alone = quick(data, tmp_path / "alone", folds=2, fold=0, epochs=5, overrides=overrides)
    ours, theirs = (fold_folder(run, 0) / "model" / "model.safetensors" for run in (whole, alone))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("stops", [(3,), (8, 1), (14, 2, 7)])
def test_cut_off_and_resumed_it_chooses_the_same(whole, data, tmp_path, stops):
    for n, stop_at in enumerate(stops):
        listener = Listener(stop_at=stop_at)
        with pytest.raises(Stop):
            if n == 0:
                searched(data, tmp_path / "run", reporter=listener)
            else:
                resume(tmp_path / "run", device="cpu", reporter=listener)
    finished = [
        t
        for t in trials_of(fold_folder(tmp_path / "run", 0))
        if t.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    listener = Listener()
    resume(tmp_path / "run", device="cpu", reporter=listener)
    again = {where.trial for where, _ in listener.epochs if where.fold == 0}
    assert again <= set(range(len(finished), 4)), "finished trials are not trained again"
    assert results(tmp_path / "run") == results(whole)
    for fold in range(2):
        assert choice(fold_folder(tmp_path / "run", fold)) == choice(fold_folder(whole, fold))


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    if not (folder / "trials.log").is_file():
        return []
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(folder / "trials.log"))
    )
    return optuna.load_study(study_name="search", storage=storage).get_trials()


def test_killed_between_an_epoch_and_its_news(whole, data, tmp_path):
    """The checkpoint is on disk before history.csv has the epoch, and before the search heard of it."""
    run = tmp_path / "run"
    with pytest.raises(Stop):
        searched(data, run, reporter=Listener(stop_at=18))
    (history,) = (fold_folder(run, 0) / "trials").glob("003/history.csv")
    history.write_text("\n".join(history.read_text().splitlines()[:-1]) + "\n")
    resume(run, device="cpu")
    assert results(run) == results(whole)
    assert [choice(fold_folder(run, k)) for k in range(2)] == [
        choice(fold_folder(whole, k)) for k in range(2)
    ]


@pytest.mark.slow
def test_killed_without_warning_it_chooses_the_same(whole, data, tmp_path):
    code = (
        "import sys; from pathlib import Path; from siam_model.train import resume\n"
        "from siam_model.protocol.work import CallbackReporter\n"
        "from tests.test_siam_search import searched\n"
        "run, tell = Path(sys.argv[1]), CallbackReporter(lambda line: print(line.epoch, flush=True), None)\n"
        "if (run / 'settings.json').is_file(): resume(run, device='cpu', reporter=tell)\n"
        "else: searched(Path(sys.argv[2]), run, reporter=tell)\n"
    )
    run, rng = tmp_path / "run", np.random.default_rng(3)
    for attempt in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(run), str(data)],
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert process.stdout is not None
        if attempt < 5:
            for _ in range(int(rng.integers(1, 9))):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        process.stdout.read()
        process.wait()
        if is_finished(run):
            break
    assert results(run) == results(whole)
    for fold in range(2):
        assert choice(fold_folder(run, fold)) == choice(fold_folder(whole, fold))


def test_the_test_fold_has_no_say(tmp_path):
    """Its ages and its pictures replaced by nonsense: the same choice, the same weights, the same predictions of the
    others; so nothing of it was looked at."""
    runs = []
    for name in ("as it is", "sabotaged"):
        videos = list(drawn_videos(10, 2, 6, size=70))
        for i, video in enumerate(videos):
            video["fold"] = (i // 2) % 2
            if name == "sabotaged" and video["fold"] == 0:
                video["age"] = 120.0 - video["age"]
                video["frames"] = 255 - video["frames"]
        path = write_dataset(tmp_path / f"{name}.h5", videos)
        runs.append(searched(path, tmp_path / name, fold=0))
    folders = [fold_folder(run, 0) for run in runs]
    assert choice(folders[0]) == choice(folders[1])
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]
    assert [repr(line)[:120] for line in read_history(folders[0] / "history.csv")] == [
        repr(line)[:120] for line in read_history(folders[1] / "history.csv")
    ]
    for name in ("median",):
        both = [read_predictions(folder / "baselines" / f"{name}.csv").predicted for folder in folders]
        np.testing.assert_array_equal(*both)
    ages = [read_predictions(folder / "predictions.csv").age for folder in folders]
    assert (ages[0] != ages[1]).any(), "the sabotage was none"


def test_proposals_follow_from_seed_and_history_alone():
    space = search.space_of(preset("paper")[0], {})
    first = search.values_of(*preset("paper"), space)

    def run(seed: tuple[int, ...], n: int) -> list[dict]:
        done: list[optuna.trial.FrozenTrial] = []
        for _ in range(n):
            values = search.propose(space, done, first, seed)
            error = (
                10 * values["model.dropout_conv"] + 1e3 * values["train.l2"] + values["model.hidden"] / 512
            )
            done.append(
                create_trial(
                    params=values,
                    distributions={k: CategoricalDistribution(v) for k, v in space.items()},
                    value=error,
                )
            )
        return [trial.params for trial in done]

    with search._quiet_optuna():
        a = run((0, 1), 25)
        assert a == run((0, 1), 25)
        assert a[1:] != run((0, 2), 25)[1:] and a[0] == run((0, 2), 1)[0] == first
        assert len({tuple(sorted(v.items())) for v in a}) == 25
        # The estimator learns: later proposals are far better than those by chance (3.8 on average).
        late = [
            10 * v["model.dropout_conv"] + 1e3 * v["train.l2"] + v["model.hidden"] / 512 for v in a[12:20]
        ]
        for seed in range(2, 5):
            late += [
                10 * v["model.dropout_conv"] + 1e3 * v["train.l2"] + v["model.hidden"] / 512
                for v in run((0, seed), 20)[12:]
            ]
        assert np.mean(late) < 0.85 * 3.8


def test_every_combination_once_and_no_more(data, tmp_path):
    fixed = {"model.dropout_conv": "0", "train.l2": "0"}  # four are left
    run = searched(data, tmp_path / "run", fold=0, trials=50, epochs=1, overrides=fixed)
    values = choice(fold_folder(run, 0))
    assert values["budget"] == 4
    assert {t["parameters"]["model.dropout_recurrent"] for t in values["trials"]} == {0, 0.1, 0.2, 0.4}


def test_a_hopeless_trial_is_ended_early(whole, data, tmp_path, monkeypatch):
    """Reports of trial 3 are spoilt: the median of the others ends it after the epochs that everybody gets."""
    good = optuna.trial.Trial.report

    def spoil(self, value, step):
        done = len(self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))
        good(self, value + 1000 * (done == 3), step)

    monkeypatch.setattr(optuna.trial.Trial, "report", spoil)
    listener = Listener()
    run = searched(data, tmp_path / "run", fold=0, reporter=listener)
    trial = choice(fold_folder(run, 0))["trials"][3]
    assert (trial["state"], trial["epochs"]) == ("ended early", 3)
    assert any(text.startswith("fold 0, trial 4/4: ended early") for text in listener.said)


def test_a_trial_that_does_not_train_is_no_reason_to_stop(data, tmp_path):
    overrides = {"train.learning_rate": "1e30"}
    with pytest.raises(
        NemoError, match=r"no trial of the search ended with a finite error.*train\.learning_rate=1e\+29"
    ):
        searched(data, tmp_path / "run", trials=2, overrides=overrides)


def test_an_error_that_only_sounds_like_one_ends_the_search(data, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise NemoError("infinite.h5 cannot be read: no finite number of bytes is left.")

    monkeypatch.setattr(search, "train_in", broken)
    with pytest.raises(NemoError, match=r"infinite\.h5 cannot be read"):
        searched(data, tmp_path / "run", fold=0)
    assert not (fold_folder(tmp_path / "run", 0) / "choice.json").exists()


def test_a_journal_cut_in_the_middle_of_a_line(whole, data, tmp_path):
    with pytest.raises(Stop):
        searched(data, tmp_path / "run", reporter=Listener(stop_at=9))
    log = fold_folder(tmp_path / "run", 0) / "trials.log"
    with log.open("ab") as file:
        file.write(b'{"op_code":6,"work')
    resume(tmp_path / "run", device="cpu")
    assert results(tmp_path / "run") == results(whole)


def test_a_search_without_folds(data, tmp_path):
    run = quick(data, tmp_path / "run", trials=2, epochs=1)
    assert json.loads((run / "choice.json").read_text())["budget"] == 2
    assert load(run).predict(np.zeros((4, 70, 70), np.uint8)).age > 0
    assert read_predictions(run / "predictions.csv").video


def test_the_model_of_all_subjects_takes_what_most_folds_chose(whole):
    chosen = [choice(fold_folder(whole, k))["chosen"] for k in range(2)]
    card = load(whole).card
    assert search.values_of(card.model, card.train, chosen[0]) in chosen


def test_h_is_searched_too(data, tmp_path, monkeypatch):
    """With h free, folders of trials hold networks of different sizes, and the chosen one's size is kept."""
    values = {"model.dropout_conv": "0", "model.dropout_recurrent": "0", "train.l2": "0"}
    with monkeypatch.context() as patch:
        patch.setattr("tests.test_siam_training.TINY", FREE)
        run = searched(data, tmp_path / "run", fold=1, trials=3, epochs=1, overrides=values)
    line = choice(fold_folder(run, 1))
    assert sorted(t["parameters"]["model.hidden"] for t in line["trials"]) == [16, 32, 64]
    assert load(fold_folder(run, 1)).config.hidden == line["chosen"]["model.hidden"]
