"""The protocol: folds that are shared, cut off, resumed and joined; and every way in which that has to be refused."""

from __future__ import annotations

import contextlib
import csv
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
import pytest

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.store.relabel import write_labels
from nemo_pipeline.store.schema import LABEL_COLUMNS
from siam_model import load
from siam_model.crossval import join_folds
from siam_model.fit import EpochRecord
from siam_model.jobs import slot_environments
from siam_model.onefold import read_history, write_history
from siam_model.predictions import read_predictions, write_predictions
from siam_model.runs import Busy, fold_folder, held, is_finished, missing_folds, newest_unfinished
from siam_model.train import resume, train
from siam_model.work import Reporter, Where
from tests.siam_faces import drawn_file, drawn_videos
from tests.test_siam_training import quick


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return drawn_file(tmp_path_factory.mktemp("drawn") / "out.h5", size=70, subjects=10, frames=8)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A run of three folds that nobody disturbed."""
    return quick(data, tmp_path_factory.mktemp("runs") / "whole", folds=3)


class Stop(Exception):
    """Ends a training from outside."""


class Listener(Reporter):
    """Keeps what it is told; raises `Stop` after `stop_at` epochs."""

    def __init__(self, stop_at: int = 0) -> None:
        self.said: list[str] = []
        self.epochs: list[tuple[Where, EpochRecord]] = []
        self.stop_at = stop_at

    def say(self, text: str, where: Where | None = None) -> None:
        self.said.append(f"{where}: {text}" if where is not None else text)

    def epoch(self, where: Where, record: EpochRecord) -> None:
        self.epochs.append((where, record))
        if len(self.epochs) == self.stop_at:
            raise Stop


def results(run: Path) -> dict[str, object]:
    """What must not depend on how a run came about."""
    found: dict[str, object] = {"predictions": (run / "predictions.csv").read_bytes()}
    for file in sorted((run / "baselines").glob("*.csv")):
        found[file.name] = file.read_bytes()
    found["curve"] = [
        repr((line.fold, line.epoch, line.loss, line.training_mae, line.validation_mae))
        for line in read_history(run / "history.csv")
    ]
    for model in [run / "model", *sorted((run / "folds").glob("*/model"))]:
        found[str(model.relative_to(run))] = (model / "model.safetensors").read_bytes()
    return found


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
    assert not is_finished(tmp_path / "run")
    with contextlib.suppress(Stop):  # no epoch is left where the interrupt met the very last one
        resume(tmp_path / "run", device="cpu", reporter=Listener(stop_at=1))
    listener = Listener()
    if not is_finished(tmp_path / "run"):
        resume(tmp_path / "run", device="cpu", reporter=listener)
    assert results(tmp_path / "run") == results(whole)
    assert is_finished(tmp_path / "run")
    done = (epochs - 1) // 2  # folds that were finished before
    assert {where.fold for where, _ in listener.epochs} <= {*range(done, 3), -1}


def test_killed_without_warning_and_resumed(data, tmp_path):
    """kill -9 at any moment, again and again, costs at most what was not on disk."""
    whole = quick(data, tmp_path / "whole", folds=2, epochs=3)
    run, env = tmp_path / "run", {**os.environ, "OMP_NUM_THREADS": "1"}
    code = (
        "import sys; from pathlib import Path; from siam_model.train import train, resume\n"
        "from tests.test_siam_training import TINY\n"
        "run, data = Path(sys.argv[1]), sys.argv[2]\n"
        "def epoch(line): print(line.epoch, flush=True)\n"
        "if (run / 'settings.json').is_file():\n"
        "    from siam_model.work import CallbackReporter\n"
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
        if process.wait() == 0:
            break
    assert process.returncode == 0
    assert results(run) == results(whole)


def test_array_jobs_share_a_folder(whole, data, tmp_path):
    """Every fold in a process of its own, two at once from an empty folder; then joined, then the model of all."""
    run, code = tmp_path / "run", (
        "import sys; from siam_model.train import train; from tests.test_siam_training import TINY\n"
        "train(sys.argv[2], sys.argv[1], preset='small', epochs=2, folds=3, fold=int(sys.argv[3]), device='cpu', "
        "overrides=TINY)\n"
    )  # fmt: skip
    call = [sys.executable, "-c", code, str(run), str(data)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen([*call, fold], env=env) for fold in ("2", "0")]
    assert [process.wait() for process in both] == [0, 0]
    assert missing_folds(run, 3) == [1]
    with pytest.raises(NemoError, match=r"lacks fold 1 of 3.*nemo train --resume --out"):
        join_folds(run)
    with pytest.raises(NemoError, match="begun with --seed 0, not with --seed 1"):
        quick(data, run, folds=3, fold=1, seed=1)
    with pytest.raises(NemoError, match=r"begun with --set .*, not with --set"):
        quick(data, run, folds=3, fold=1, overrides={"train.l2": "0"})
    quick(data, run, folds=3, fold=1)
    assert (run / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    assert not (run / "model").exists() and not is_finished(run) and (run / "run.json").is_file()
    listener = Listener()
    quick(data, run, folds=3, fold=1, reporter=listener)  # a task that is run twice trains nothing
    assert listener.epochs == [] and "fold 1: finished already" in listener.said
    resume(run, device="cpu")
    assert results(run) == results(whole)


def test_several_processes_give_the_same_run(whole, data, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    listener = Listener()
    run = quick(data, tmp_path / "run", folds=3, jobs=2, reporter=listener)
    assert results(run) == results(whole)
    assert {where.fold for where, _ in listener.epochs} == {0, 1, 2, -1}
    assert any(text.startswith("fold 2: mean absolute error") for text in listener.said)


def test_a_fold_that_fails_does_not_stop_the_others(data, tmp_path, monkeypatch):
    from siam_model import crossval

    good = crossval.train_split

    def bad(work, split, *rest):
        if split.fold == 1:
            raise NemoError("The loss is not a finite number any more.")
        good(work, split, *rest)

    monkeypatch.setattr(crossval, "train_split", bad)
    listener = Listener()
    with pytest.raises(NemoError, match=r"Fold 1 of 3 is not finished: The loss .*nemo train --resume --out"):
        quick(data, tmp_path / "run", folds=3, reporter=listener)
    assert missing_folds(tmp_path / "run", 3) == [1]
    assert "fold 1: failed: The loss is not a finite number any more." in listener.said


def test_a_process_that_dies_costs_its_fold_alone(data, tmp_path, monkeypatch):
    """One of two processes is killed from outside; what it was training is named, the other folds are finished."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    killed: list[int] = []

    class Killer(Listener):
        def epoch(self, where: Where, record: EpochRecord) -> None:
            super().epoch(where, record)
            if where.fold == 0 and not killed:
                tasks = Path(f"/proc/{os.getpid()}/task").iterdir()
                children = [pid for t in tasks for pid in (t / "children").read_text().split()]
                for pid in children:
                    locks = [
                        str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()
                    ]
                    if any("folds/00/.lock" in name for name in locks):
                        killed.append(int(pid))
                        os.kill(int(pid), signal.SIGKILL)

    with pytest.raises(NemoError, match=r"Fold 0 of 3 is not finished: its process was ended by SIGKILL"):
        quick(data, tmp_path / "run", folds=3, jobs=2, epochs=60, reporter=Killer())
    assert killed and missing_folds(tmp_path / "run", 3) == [0]


def test_two_processes_never_train_the_same_fold(data, whole, tmp_path):
    run = tmp_path / "run"
    quick(data, run, folds=3, fold=0)
    (fold_folder(run, 1)).mkdir()
    with held(fold_folder(run, 1), "fold 1"):
        with pytest.raises(NemoError, match=r"fold 1 of .* is being trained by another process"):
            in_thread(lambda: quick(data, run, folds=3, fold=1))
        listener = Listener()
        with pytest.raises(NemoError, match="Fold 1 of 3 is not finished"):
            in_thread(lambda: resume(run, device="cpu", reporter=listener))
    assert missing_folds(run, 3) == [1]  # the other one was trained
    assert any("fold 1: not trained: fold 1 of" in text for text in listener.said)
    with pytest.raises(Busy), held(run, "it"), held(run, "it"):
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


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_subject_in_two_folds_is_never_joined(copy):
    first, second = (read_predictions(fold_folder(copy, k) / "predictions.csv") for k in (0, 1))
    taken = type(first)(
        *((*a[:-1], b[0]) for a, b in ((first.video, second.video), (first.subject, second.subject))),
        first.fold,
        np.append(first.age[:-1], second.age[0]),
        first.predicted,
    )
    write_predictions(fold_folder(copy, 0) / "predictions.csv", taken)
    with pytest.raises(NemoError, match=f"Subject {second.subject[0]} is predicted by 2 folds"):
        join_folds(copy)


def test_a_fold_of_other_people_is_never_joined(copy):
    text = (fold_folder(copy, 0) / "predictions.csv").read_text()
    subject = read_predictions(fold_folder(copy, 0) / "predictions.csv").subject[0]
    (fold_folder(copy, 0) / "predictions.csv").write_text(text.replace(f",{subject},", ",somebody,"))
    with pytest.raises(
        NemoError, match=r"Fold 0 of .* (predicts subject somebody|does not predict).*split\.json"
    ):
        join_folds(copy)


def test_a_model_that_knows_whom_it_predicts_is_never_joined(copy):
    card = fold_folder(copy, 2) / "model" / "config.json"
    values = json.loads(card.read_text())
    leaked = read_predictions(fold_folder(copy, 2) / "predictions.csv").subject[0]
    values["subjects"]["training"].append(leaked)
    card.write_text(json.dumps(values))
    with pytest.raises(NemoError, match=f"was trained on subject {leaked}, whom it predicts"):
        join_folds(copy)


def test_leaking_splits_are_refused_before_training(data, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(Stop):
        quick(data, run, folds=3, reporter=Listener(stop_at=1))
    values = json.loads((run / "split.json").read_text())
    values["folds"][1]["training"].append(values["folds"][1]["test"][0])
    (run / "split.json").write_text(json.dumps(values))
    with pytest.raises(NemoError, match="is in more than one of training, validation and test of fold 1"):
        resume(run, device="cpu")
    values["folds"][1]["training"].pop()
    values["folds"][1]["test"].append(values["folds"][1]["validation"].pop())
    (run / "split.json").write_text(json.dumps(values))
    with pytest.raises(NemoError, match="is in the test part of 2 folds"):
        resume(run, device="cpu")


def test_joining_needs_no_data_and_changes_nothing(copy, whole):
    values = json.loads((copy / "settings.json").read_text())
    (copy / "settings.json").write_text(json.dumps({**values, "data": "/nowhere.h5"}))
    (copy / "predictions.csv").unlink()
    join_folds(copy)
    assert results(copy) == results(whole)


def test_data_may_move_and_may_not_change(data, tmp_path):
    moved, run = tmp_path / "before" / "out.h5", tmp_path / "run"
    moved.parent.mkdir()
    shutil.copytree(data.with_suffix(".shards"), moved.with_suffix(".shards"))
    shutil.copy(data, moved)
    with pytest.raises(Stop):
        quick(moved, run, folds=2, reporter=Listener(stop_at=1))
    moved.parent.rename(tmp_path / "after")
    with pytest.raises(
        NemoError, match=r"which is not there any more; say where.*nemo train DATA\.h5 --resume --out"
    ):
        resume(run, device="cpu")
    other = drawn_file(tmp_path / "other.h5", size=70, subjects=10, frames=8)
    with pytest.raises(NemoError, match=r"other\.h5 is another data set, or the same with other labels"):
        resume(run, other, device="cpu")
    assert is_finished(resume(run, tmp_path / "after" / "out.h5", device="cpu"))
    assert json.loads((run / "run.json").read_text())["data"] == str(tmp_path / "after" / "out.h5")


def test_what_cannot_be_resumed_is_answered(whole, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NemoError, match="no unfinished run in runs"):
        newest_unfinished()
    with pytest.raises(NemoError, match="is no folder"):
        resume(tmp_path / "nowhere")
    with pytest.raises(NemoError, match=r"holds no settings\.json, so there is nothing to go on with"):
        resume(tmp_path)
    with pytest.raises(NemoError, match="is finished, and nothing is left to do"):
        resume(whole)
    for given, sentence in (
        ({"seed": 3}, "begun with --seed 0, not with --seed 3"),
        ({"folds": 10}, "begun with --folds 3, not with --folds 10"),
        ({"study": "modules"}, "begun with no --study, not with --study modules"),
    ):
        with pytest.raises(NemoError, match=sentence):
            resume(whole, given=given)
    with pytest.raises(NemoError, match="no fold 7: --folds 3 has the folds 0 to 2"):
        resume(whole, fold=7)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(NemoError, match="is damaged: it is no JSON"):
        resume(tmp_path)
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(NemoError, match="does not hold the settings of a run"):
        resume(tmp_path)


def test_folds_that_cannot_be_are_answered(data, tmp_path):
    for options, sentence in (
        ({"folds": 10, "fold": 12}, "no fold 12: --folds 10 has the folds 0 to 9"),
        ({"fold": 1}, "one of several folds; say how many with --folds"),
        ({"folds": 9}, r"10 subjects, and 9 folds need at least 11"),
        ({"trials": -1}, "--trials is -1"),
    ):
        with pytest.raises(NemoError, match=sentence):
            quick(data, tmp_path / "run", **options)
    with pytest.raises(NemoError, match="--fold needs --out RUN"):
        train(data, folds=3, fold=1)
    assert not (tmp_path / "run").exists()


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
    with pytest.raises(NemoError, match="or go on with it: nemo train --resume --out"):
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
    with pytest.raises(NemoError, match="is damaged"):
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


def test_precision_is_the_runs_and_devices_are_not(data, tmp_path):
    run = quick(data, tmp_path / "run", folds=2, fold=0, epochs=1, precision="bf16-mixed")
    assert json.loads((run / "settings.json").read_text())["precision"] == "bf16-mixed"
    with pytest.raises(NemoError, match="begun with --precision bf16-mixed, not with --precision 32"):
        resume(run, given={"precision": "32"})
    with pytest.raises(NemoError, match="--precision takes 32, bf16-mixed, 16-mixed; '8' is none of them"):
        quick(data, tmp_path / "other", precision="8")
    with pytest.raises(NemoError, match="--jobs gives every fold a GPU of its own"):
        resume(run, device="cpu", jobs=2, fit_options={"devices": 2})
    assert not (tmp_path / "other").exists()


def test_event_files_stay_with_their_model(data, tmp_path):
    run = quick(data, tmp_path / "run", folds=2, trials=2, epochs=1, fit_options={"tensorboard": True})
    for folder in (run, fold_folder(run, 0), fold_folder(run, 1)):
        assert list((folder / "tensorboard").glob("events.*")), folder
    assert (run / "curves.png").is_file()


def test_hostile_names_survive_the_protocol(tmp_path):
    names = ["=1+1", "[/b]", "$a^^b$", "caf\udce9", "'; --", "微笑", "\x1b[31mx", 'a,b"c']
    videos = [
        {
            **video,
            "subject": names[i // 2],
            "id": f"{names[i // 2]}_{i % 2}",
            "gender": "<b>" if i % 4 else "[/]",
        }
        for i, video in enumerate(drawn_videos(8, 2, 6, size=70))
    ]
    run = quick(write_dataset(tmp_path / "out.h5", videos), tmp_path / "run", folds=2, epochs=1)
    joined = read_predictions(run / "predictions.csv")
    assert sorted(set(joined.subject)) == sorted(names)
    with (run / "predictions.csv").open(newline="", errors="surrogateescape") as file:
        assert all(row["subject"][0] not in "=-+@" for row in csv.DictReader(file))


def test_labels_that_change_are_other_data(data, tmp_path):
    labelled = drawn_file(tmp_path / "out.h5", size=70, subjects=8, frames=6)
    with pytest.raises(Stop):
        quick(labelled, tmp_path / "run", reporter=Listener(stop_at=1))
    columns = FaceDataset(labelled).videos
    rows = [{name: columns[name][i] for name in LABEL_COLUMNS} for i in range(len(columns["id"]))]
    rows[0]["age"] = 33.0  # as `nemo label` corrects one
    write_labels(labelled, rows, False)
    with pytest.raises(NemoError, match="other labels"):
        resume(tmp_path / "run", device="cpu")
