"""The search: validation subjects alone, the paper's sets, and a choice that no interruption changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nemo_pipeline.errors import NemoError, RunError
from nemo_pipeline.store import write_dataset
from siam_model import load
from siam_model.config import preset
from siam_model.predictions import read_predictions
from siam_model.protocol import search
from siam_model.protocol.history import read_history
from siam_model.run_folder import RunFolder
from tests.support.siam_faces import drawn_file, drawn_videos
from tests.support.siam_runs import TINY, Listener, Stop, quick, results, resume

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
    space = search.search_space(model, {})
    assert space["model.hidden"] == (128, 256, 512)
    assert np.prod([len(values) for values in space.values()]) == 336
    small = search.search_space(preset("small")[0], {"train.l2": "0"})
    assert small["model.hidden"] == (16, 32, 64) and "train.l2" not in small


def test_what_a_search_leaves_behind(whole):
    for fold in range(2):
        folder = RunFolder(whole).fold(fold).path
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
        assert search.read_values(card.model, card.train, values["chosen"]) == values["chosen"]
        history = read_history(folder / "history.csv")
        assert min(line.validation_mae for line in history) == values["validation_mae"]
        assert len(history) == best["epochs"]
        assert not (folder / "trials").exists()
        log = folder / "trials.json"
        assert log.stat().st_mode & 0o077 == 0
        kept = json.loads(log.read_text())["trials"]
        assert [trial["parameters"] for trial in kept] == [t["parameters"] for t in values["trials"]]
    meta = json.loads((whole / "run.json").read_text())
    assert meta["trials"] == 4 and len(meta["choices"]) == 2


def test_a_search_gives_the_weights_of_a_run_with_its_choice(whole, data, tmp_path):
    """Nothing of the search is in the result but the choice: training with it by hand gives the same model."""
    chosen = choice(RunFolder(whole).fold(0).path)["chosen"]
    overrides = {name: str(value) for name, value in chosen.items()}
    alone = quick(data, tmp_path / "alone", folds=2, fold=0, epochs=5, overrides=overrides)
    ours, theirs = (RunFolder(run).fold(0).model.weights for run in (whole, alone))
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
    finished = finished_trials(RunFolder(tmp_path / "run").fold(0).path)
    listener = Listener()
    resume(tmp_path / "run", device="cpu", reporter=listener)
    again = {where.trial for where, _ in listener.epochs if where.fold == 0}
    assert again <= set(range(len(finished), 4)), "finished trials are not trained again"
    assert results(tmp_path / "run") == results(whole)
    for fold in range(2):
        assert choice(RunFolder(tmp_path / "run").fold(fold).path) == choice(RunFolder(whole).fold(fold).path)


def finished_trials(folder: Path) -> list[dict]:
    file = folder / "trials.json"
    return json.loads(file.read_text())["trials"] if file.is_file() else []


def test_killed_between_an_epoch_and_its_news(whole, data, tmp_path):
    """The checkpoint is on disk before history.csv has the epoch, and before the search heard of it."""
    run = tmp_path / "run"
    with pytest.raises(Stop):
        searched(data, run, reporter=Listener(stop_at=18))
    (history,) = (RunFolder(run).fold(0).trials).glob("003/history.csv")
    history.write_text("\n".join(history.read_text().splitlines()[:-1]) + "\n")
    resume(run, device="cpu")
    assert results(run) == results(whole)
    assert [choice(RunFolder(run).fold(k).path) for k in range(2)] == [
        choice(RunFolder(whole).fold(k).path) for k in range(2)
    ]


@pytest.mark.slow
def test_killed_without_warning_it_chooses_the_same(whole, data, tmp_path):
    code = (
        "import sys; from pathlib import Path; from tests.support.siam_runs import resume\n"
        "from siam_model.protocol.reporter import CallbackReporter\n"
        "from tests.siam_model.protocol.test_search import searched\n"
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
        if RunFolder(run).is_finished():
            break
    assert results(run) == results(whole)
    for fold in range(2):
        assert choice(RunFolder(run).fold(fold).path) == choice(RunFolder(whole).fold(fold).path)


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
    folders = [RunFolder(run).fold(0).path for run in runs]
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


def test_proposals_are_all_combinations_once_in_an_order_of_the_seed():
    space = search.search_space(preset("paper")[0], {})
    first = search.read_values(*preset("paper"), space)
    a = search.proposals(space, first, (0, 1))
    assert a == search.proposals(space, first, (0, 1)) and a[0] == first
    assert len(a) == len({tuple(sorted(v.items())) for v in a}) == 336
    other = search.proposals(space, first, (0, 2))
    assert other != a and other[0] == first
    # A preset whose own value is not in the set is tried as well.
    odd = search.proposals(space, {**first, "train.l2": 0.5}, (0, 1))
    assert len(odd) == 337 and odd[0]["train.l2"] == 0.5


def test_the_median_rule():
    def trial(*errors: float) -> search.Trial:
        return search.Trial({}, list(errors), 1.0, False)

    earlier = [trial(9, 8, 7, 2), trial(9, 5, 6, 6), trial(4, 6, 6, 1)]  # by epoch 3: 7, 5, 4; median 5
    assert search.is_hopeless([9, 5.1, 6], earlier, epochs=10)
    assert not search.is_hopeless([9, 5.0, 6], earlier, epochs=10)
    assert not search.is_hopeless([9, 9], earlier, epochs=10)  # everybody gets three epochs
    assert not search.is_hopeless([9, 9, 9], earlier, epochs=40)  # or a tenth of all
    assert not search.is_hopeless([9, 9, 9], earlier[:2], epochs=10)
    # By epoch 4: 2, 5, 1; one that stopped sooner counts with what it reached.
    assert search.is_hopeless([9, 9, 9, 2.5], earlier, epochs=10)
    assert not search.is_hopeless([9, 9, 9, 2.5], [*earlier, trial(3)], epochs=10)


def test_every_combination_once_and_no_more(data, tmp_path):
    fixed = {"model.dropout_conv": "0", "train.l2": "0"}  # four are left
    run = searched(data, tmp_path / "run", fold=0, trials=50, epochs=1, overrides=fixed)
    values = choice(RunFolder(run).fold(0).path)
    assert values["budget"] == 4
    assert {t["parameters"]["model.dropout_recurrent"] for t in values["trials"]} == {0, 0.1, 0.2, 0.4}


def test_a_hopeless_trial_is_ended_early(whole, data, tmp_path, monkeypatch):
    """With another three trials that were far better, the fourth is ended after the epochs that everybody gets."""
    searched(data, tmp_path / "run", fold=0, trials=3)
    folder = RunFolder(tmp_path / "run").fold(0).path
    better = json.loads((folder / "trials.json").read_text())
    del better["sha256"]
    for trial in better["trials"]:
        trial["errors"] = [0.001 * error for error in trial["errors"]]
    with pytest.raises(Stop):
        searched(data, tmp_path / "again", fold=0, reporter=Listener(stop_at=1))
    again = RunFolder(tmp_path / "again").fold(0).path
    (again / "trials.json").write_text(json.dumps(better))
    (folder / "choice.json").unlink()
    best = min(range(3), key=lambda number: min(better["trials"][number]["errors"]))
    own = again / "trials" / f"{best:03d}"
    own.mkdir(parents=True, exist_ok=True)
    (folder / "model").rename(own / "model")
    (folder / "history.csv").rename(own / "history.csv")
    listener = Listener()
    resume(tmp_path / "again", device="cpu", reporter=listener)
    trial = choice(again)["trials"][3]
    assert (trial["state"], trial["epochs"]) == ("ended early", 3)
    assert any(text.startswith("fold 0, trial 4/4: ended early") for text in listener.said)


def test_a_trial_that_does_not_train_is_no_reason_to_stop(data, tmp_path):
    overrides = {"train.learning_rate": "1e30"}
    with pytest.raises(
        RunError, match=r"no trial of the search ended with a finite error.*train\.learning_rate=1e\+29"
    ):
        searched(data, tmp_path / "run", trials=2, overrides=overrides)


def test_an_error_that_only_sounds_like_one_ends_the_search(data, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise NemoError("infinite.h5 cannot be read: no finite number of bytes is left.")

    monkeypatch.setattr(search, "train_in", broken)
    with pytest.raises(RunError, match=r"infinite\.h5 cannot be read"):
        searched(data, tmp_path / "run", fold=0)
    assert not (RunFolder(tmp_path / "run").fold(0).choice).exists()


def test_a_record_of_trials_that_is_damaged_or_of_another_search_is_named(data, tmp_path):
    with pytest.raises(Stop):
        searched(data, tmp_path / "run", fold=0, reporter=Listener(stop_at=9))
    record = RunFolder(tmp_path / "run").fold(0).tried
    values = json.loads(record.read_text())
    values["trials"][0]["parameters"]["train.l2"] = 0.5
    for text in (json.dumps(values), '{"trials": [{"parameters": 3}]}'):
        record.write_text(text)
        with pytest.raises(RunError, match=r"trials\.json is damaged or of another search"):
            resume(tmp_path / "run", device="cpu")


def test_a_search_without_folds(data, tmp_path):
    run = quick(data, tmp_path / "run", trials=2, epochs=1)
    assert json.loads((run / "choice.json").read_text())["budget"] == 2
    assert load(run).predict(np.eye(70, dtype=np.uint8)[None]).age > 0
    assert read_predictions(run / "predictions.csv").video


def test_the_model_of_all_subjects_takes_what_most_folds_chose(whole):
    chosen = [choice(RunFolder(whole).fold(k).path)["chosen"] for k in range(2)]
    card = load(whole).card
    assert search.read_values(card.model, card.train, chosen[0]) in chosen


def test_h_is_searched_too(data, tmp_path, monkeypatch):
    """With h free, folders of trials hold networks of different sizes, and the chosen one's size is kept."""
    values = {"model.dropout_conv": "0", "model.dropout_recurrent": "0", "train.l2": "0"}
    with monkeypatch.context() as patch:
        patch.setattr("tests.support.siam_runs.TINY", FREE)
        run = searched(data, tmp_path / "run", fold=1, trials=3, epochs=1, overrides=values)
    line = choice(RunFolder(run).fold(1).path)
    assert sorted(t["parameters"]["model.hidden"] for t in line["trials"]) == [16, 32, 64]
    assert load(RunFolder(run).fold(1).path).config.hidden == line["chosen"]["model.hidden"]
