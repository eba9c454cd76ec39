"""The protocol: folds that are shared, cut off, resumed and joined; and every way in which that has to be refused."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from nemo_pipeline.errors import Busy, DataError, NemoError, OutputError, RunError, SettingsError
from nemo_pipeline.store import FaceDataset
from siam_model import load
from siam_model.predictions import read_predictions
from siam_model.protocol.crossval import join_folds
from siam_model.protocol.history import read_history, write_history
from siam_model.protocol.jobs import slot_environments
from siam_model.protocol.reporter import TrainingScope
from siam_model.run_folder import RunFolder
from siam_model.runs import held, newest_unfinished
from siam_model.training.fit import EpochRecord
from tests.support.siam_runs import Listener, Stop, quick, results, resume


def test_layout_of_a_run_with_folds(whole, data):
    settings = json.loads((whole / "settings.json").read_text())
    assert settings["uuid"] == FaceDataset(data).uuid and settings["data"] == str(data.resolve())
    assert (settings["folds"], settings["seed"], settings["preset"], settings["trials"]) == (3, 0, "small", 0)
    for fold in range(3):
        folder = whole / "folds" / f"{fold:02d}"
        assert not (folder / "checkpoint.pt").exists()
        part, history = read_predictions(folder / "predictions.csv"), read_history(folder / "history.csv")
        assert set(part.fold) == {fold} == {line.fold for line in history}
        model = load(folder)
        assert not {*model.subjects["training"], *model.subjects["validation"]} & set(part.subject)
        for video, predicted in zip(part.video, part.predicted, strict=True):
            assert model.predict(FaceDataset(data)[video].frames).age == predicted
    assert json.loads((whole / "run.json").read_text())["data"] == str(data.resolve())
    joined = read_predictions(whole / "predictions.csv")
    for name in ("median", "ridge_mean_face", "ridge_phases"):
        assert read_predictions(whole / "baselines" / f"{name}.csv").video == joined.video
    for file in whole.rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, f"{file} can be read by others"
    assert not list(whole.rglob("*.tmp")) and not (whole / "final").exists()


@pytest.mark.parametrize("epochs", [1, 3, 5, 7])
def test_interrupted_anywhere_and_resumed_it_is_the_same_run(whole, data, tmp_path, epochs):
    """Three folds of two epochs and then all subjects: an interrupt in each of them, and once more right after."""
    with pytest.raises(Stop):
        quick(data, tmp_path / "run", folds=3, reporter=Listener(stop_at=epochs))
    assert not RunFolder(tmp_path / "run").is_finished()
    with contextlib.suppress(Stop):  # no epoch is left where the interrupt met the very last one
        resume(tmp_path / "run", device="cpu", reporter=Listener(stop_at=1))
    listener = Listener()
    if not RunFolder(tmp_path / "run").is_finished():
        resume(tmp_path / "run", device="cpu", reporter=listener)
    assert results(tmp_path / "run") == results(whole)
    assert RunFolder(tmp_path / "run").is_finished()
    done = (epochs - 1) // 2  # folds that were finished before
    assert {where.fold for where, _ in listener.epochs} <= {*range(done, 3), -1}


@pytest.mark.slow
def test_killed_without_warning_and_resumed(data, tmp_path):
    """kill -9 at any moment, again and again, costs at most what was not on disk."""
    whole = quick(data, tmp_path / "whole", folds=2, epochs=3)
    run, env = tmp_path / "run", {**os.environ, "OMP_NUM_THREADS": "1"}
    code = (
        "import sys; from pathlib import Path; from tests.support.siam_runs import TINY, resume, train\n"
        "run, data = Path(sys.argv[1]), sys.argv[2]\n"
        "def epoch(line): print(line.epoch, flush=True)\n"
        "if (run / 'settings.json').is_file():\n"
        "    from siam_model.protocol.reporter import CallbackReporter\n"
        "    resume(run, device='cpu', reporter=CallbackReporter(epoch, None))\n"
        "else:\n"
        "    train(data, run, preset='small', epochs=3, folds=2, device='cpu', overrides=TINY, on_epoch=epoch)\n"
    )
    rng = np.random.default_rng(5)
    for attempt in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(run), str(data)], env=env, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        if attempt < 3:
            process.stdout.readline()
            time.sleep(float(rng.uniform(0, 0.15)))
            process.send_signal(signal.SIGKILL)
        process.stdout.read()
        process.wait()
        if RunFolder(run).is_finished():
            break
    assert results(run) == results(whole)


def test_array_jobs_share_a_folder(whole, data, tmp_path):
    """Every fold in a process of its own, two at once from an empty folder; then joined, then the model of all."""
    run, code = tmp_path / "run", (
        "import sys; from tests.support.siam_runs import TINY, train\n"
        "train(sys.argv[2], sys.argv[1], preset='small', epochs=2, folds=3, fold=int(sys.argv[3]), device='cpu', "
        "overrides=TINY)\n"
    )  # fmt: skip
    call = [sys.executable, "-c", code, str(run), str(data)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen([*call, fold], env=env) for fold in ("2", "0")]
    assert [process.wait() for process in both] == [0, 0]
    assert RunFolder(run).missing_folds(3) == [1]
    with pytest.raises(RunError, match=r"lacks fold 1 of 3.*`resume\("):
        join_folds(RunFolder(run))
    with pytest.raises(SettingsError, match="begun with `seed=0`, not with `seed=1`"):
        quick(data, run, folds=3, fold=1, seed=1)
    with pytest.raises(SettingsError, match=r"begun with `model\..*, not with `model"):
        quick(data, run, folds=3, fold=1, overrides={"train.l2": "0"})
    quick(data, run, folds=3, fold=1)
    assert (run / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    assert not (run / "model").exists() and not RunFolder(run).is_finished() and (run / "run.json").is_file()
    listener = Listener()
    quick(data, run, folds=3, fold=1, reporter=listener)  # a task that is run twice trains nothing
    assert listener.epochs == [] and "fold 1: finished already" in listener.said
    resume(run, device="cpu")
    assert results(run) == results(whole)


def test_nothing_is_in_a_folder_before_its_settings(data, tmp_path, monkeypatch):
    """Another process that begins the same run at this moment would take it for a folder of somebody else's."""
    seen, link = [], os.link

    def looked(temporary, final):
        seen.extend(path.name for path in final.parent.iterdir())
        link(temporary, final)

    monkeypatch.setattr(os, "link", looked)
    quick(data, tmp_path / "run", folds=3, fold=0, epochs=1)
    assert seen and all(name.startswith(".settings.json.") for name in seen)


def test_several_processes_give_the_same_run(whole, data, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    listener = Listener()
    run = quick(data, tmp_path / "run", folds=3, jobs=2, reporter=listener)
    assert results(run) == results(whole)
    assert {where.fold for where, _ in listener.epochs} == {0, 1, 2, -1}
    assert any(text.startswith("fold 2: mean absolute error") for text in listener.said)


def test_a_fold_that_fails_does_not_stop_the_others(data, tmp_path, monkeypatch):
    from siam_model.protocol import crossval

    good = crossval.train_split

    def bad(work, split, *rest):
        if split.fold == 1:
            raise NemoError("The loss is not a finite number any more.")
        good(work, split, *rest)

    monkeypatch.setattr(crossval, "train_split", bad)
    listener = Listener()
    with pytest.raises(RunError, match=r"Fold 1 of 3 is not finished: The loss .*`resume\("):
        quick(data, tmp_path / "run", folds=3, reporter=listener)
    assert RunFolder(tmp_path / "run").missing_folds(3) == [1]
    assert "fold 1: failed: The loss is not a finite number any more." in listener.said


def test_a_process_that_dies_costs_its_fold_alone(data, tmp_path, monkeypatch):
    """One of two processes is killed from outside; what it was training is named, the other folds are finished."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    killed: list[int] = []

    class Killer(Listener):
        def epoch(self, where: TrainingScope, record: EpochRecord) -> None:
            super().epoch(where, record)
            for child in psutil.Process().children():
                if not killed and "siam_model.protocol.jobchild" in child.cmdline():
                    child.suspend()  # so that it trains what it is seen to train
                    locks = (Path(file.path) for file in child.open_files())
                    folds = [lock.parent for lock in locks if lock.match("folds/*/.lock")]
                    if folds and not RunFolder(folds[0]).predictions.is_file():
                        killed.append(int(folds[0].name))
                        child.kill()
                    else:
                        child.resume()

    with pytest.raises(RunError) as caught:
        quick(data, tmp_path / "run", folds=3, jobs=2, epochs=9, reporter=Killer())
    (fold,) = killed
    assert f"Fold {fold} of 3 is not finished: its process was killed (SIGKILL)" in str(caught.value)
    assert RunFolder(tmp_path / "run").missing_folds(3) == [fold]


def test_two_processes_never_train_the_same_fold(data, whole, tmp_path):
    run = tmp_path / "run"
    quick(data, run, folds=3, fold=0)
    (RunFolder(run).fold(1).path).mkdir()
    with held(RunFolder(run).fold(1), "fold 1"):
        with pytest.raises(RunError, match=r"fold 1 of .* is being trained by another process"):
            in_thread(lambda: quick(data, run, folds=3, fold=1))
        listener = Listener()
        with pytest.raises(RunError, match="Fold 1 of 3 is not finished"):
            in_thread(lambda: resume(run, device="cpu", reporter=listener))
    assert RunFolder(run).missing_folds(3) == [1]  # the other one was trained
    assert any("fold 1: not trained: fold 1 of" in text for text in listener.said)
    with pytest.raises(Busy), held(RunFolder(run), "it"), held(RunFolder(run), "it"):
        pass


def in_thread(call):
    """A lock is its thread's own: what another process would see."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if caught:
        raise caught[0]


def test_a_run_killed_as_it_began_goes_on(whole, data, tmp_path):
    quick(data, tmp_path / "run", folds=3, fold=0)
    shutil.rmtree(tmp_path / "run" / "folds")
    (tmp_path / "run" / "split.json").unlink()
    assert newest_unfinished(tmp_path) == tmp_path / "run"
    resume(tmp_path / "run", device="cpu")
    assert results(tmp_path / "run") == results(whole)


def test_without_folds_it_is_resumed_too(data, tmp_path):
    whole = quick(data, tmp_path / "whole", epochs=3)
    with pytest.raises(Stop):
        quick(data, tmp_path / "run", epochs=3, reporter=Listener(stop_at=2))
    with pytest.raises(OutputError, match=r"or resume it: `resume\("):
        quick(data, tmp_path / "run")
    resume(tmp_path / "run", device="cpu")
    assert results(tmp_path / "run") == results(whole)


def test_history_survives_its_file(tmp_path):
    lines = [
        EpochRecord(0, 1, 1 / 3, 2 / 3, float("nan"), True, 0.125),
        EpochRecord(-1, 2, 1e-9, 7.0, 1.0, False, 2),
    ]
    write_history(tmp_path / "history.csv", lines)
    assert repr(read_history(tmp_path / "history.csv")) == repr(
        [lines[0], EpochRecord(-1, 2, 1e-9, 7.0, 1.0, False, 2.0)]
    )
    (tmp_path / "history.csv").write_text("fold,epoch\n0,x\n")
    with pytest.raises(DataError, match="is damaged"):
        read_history(tmp_path / "history.csv")


def test_a_gpu_or_its_share_of_the_cores_for_every_process(monkeypatch):
    import torch

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert slot_environments(3, "cpu") == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    names = [e["CUDA_VISIBLE_DEVICES"] for e in slot_environments(3, "auto")]
    assert names == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    assert [e["CUDA_VISIBLE_DEVICES"] for e in slot_environments(2, "cuda")] == ["5", "3"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert slot_environments(2, "cpu") == [{}, {}]


def test_event_files_stay_with_their_model(data, tmp_path):
    pytest.importorskip("tensorboard")
    run = quick(data, tmp_path / "run", folds=2, trials=2, epochs=1, fit_options={"tensorboard": True})
    for folder in (run, RunFolder(run).fold(0).path, RunFolder(run).fold(1).path):
        assert list((folder / "tensorboard").glob("events.*")), folder
    assert (run / "curves.png").is_file()
