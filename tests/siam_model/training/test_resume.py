"""A training that is cut off and goes on: in this process, by a killed process, and what it refuses."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_pipeline.errors import DataError
from siam_model.training.fit import Fitted
from siam_model.training.records import EpochRecord
from tests.support.fits import EPOCHS, go, same
from tests.support.paths import ROOT
from tests.support.siam_faces import drawn_file


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return drawn_file(tmp_path_factory.mktemp("drawn") / "out.h5", size=62, subjects=12, frames=8, clips=2)


@pytest.fixture(scope="module")
def whole(data) -> Fitted:
    """Never cut off, and without a checkpoint."""
    return go(data)


@pytest.mark.parametrize("after", [1, 2, EPOCHS])
@pytest.mark.parametrize("reason", [KeyboardInterrupt, RuntimeError])
def test_cut_off_by_an_exception_and_resumed(data, whole, tmp_path, after, reason):
    path = tmp_path / "checkpoint.pt"

    def stop(line: EpochRecord) -> None:
        if line.epoch == after:
            raise reason("stop")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(reason):
        go(data, path, on_epoch=stop)
    assert signal.getsignal(signal.SIGINT) is before, "Ctrl+C works as it did"
    assert path.stat().st_mode & 0o077 == 0
    # Whoever draws in between changes nothing.
    torch.rand(3), np.random.default_rng().random(), random.random()
    told: list[EpochRecord] = []
    resumed = go(data, path, on_epoch=told.append)
    assert [line.epoch for line in told] == list(range(after + 1, EPOCHS + 1))
    assert same(whole, resumed)
    assert not list(tmp_path.glob(".*")), "no temporary file stays"


def test_cut_off_in_the_middle_of_an_epoch(data, whole, tmp_path):
    path, steps = tmp_path / "checkpoint.pt", []

    def stop(done: int, total: int) -> None:
        steps.append((done, total))
        if len(steps) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(data, path, on_batch=stop)
    assert steps[:5] == [(1, 4), (2, 4), (3, 4), (4, 4), (1, 4)]
    assert same(whole, go(data, path))


def test_cut_off_by_a_kill(data, whole, tmp_path):
    """SIGKILL at a moment of its own choosing, twice; the file is always whole."""
    path = tmp_path / "checkpoint.pt"
    code = (
        "import sys; from pathlib import Path; from tests.support.fits import go\n"
        "def tell(line): print(line.epoch, flush=True); sys.stdin.readline()\n"
        "go(Path(sys.argv[1]), Path(sys.argv[2]), on_epoch=tell)"
    )
    for epoch in (1, 2):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(data), str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."},
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline().strip() == str(epoch)
        process.stdin.write("\n")  # it goes on to the end of the next epoch, and no further
        process.stdin.flush()
        time.sleep(0.01 * epoch)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        done = torch.load(path, weights_only=True)["epoch"]
        assert done >= epoch
        if done > epoch:  # it was faster than the signal
            break
    assert same(whole, go(data, path))


def test_a_finished_training_is_not_trained_again(data, whole, tmp_path):
    path, told = tmp_path / "checkpoint.pt", []
    assert same(whole, go(data, path))
    assert same(whole, go(data, path, on_epoch=told.append))
    assert not told


def test_patience_that_ran_out_stays_run_out(data, tmp_path):
    path = tmp_path / "checkpoint.pt"
    still = {"patience": 1, "learning_rate": 1e-12, "epochs": 9}
    first = go(data, path, train=still)
    assert len(first.history) == first.best_epoch + 1 < 9
    told: list[EpochRecord] = []
    assert same(first, go(data, path, train=still, on_epoch=told.append))
    assert not told


def test_without_validation(data, tmp_path):
    path = tmp_path / "checkpoint.pt"
    whole = go(data, rows=(24, 24))
    with pytest.raises(InterruptedError):
        go(data, path, rows=(24, 24), on_epoch=_stop_at_two)
    resumed = go(data, path, rows=(24, 24))
    assert same(whole, resumed)
    assert resumed.best_epoch == EPOCHS


def _stop_at_two(line: EpochRecord) -> None:
    if line.epoch == 2:
        raise InterruptedError


def test_another_trainings_checkpoint_is_refused(data, tmp_path):
    path = tmp_path / "checkpoint.pt"
    go(data, path, train={"epochs": 1})
    one = {"epochs": 1}
    cases = {
        "seed is not": {"seed": 6, "train": one},
        "training settings are not": {"train": {**one, "l2": 1e-3}},
        "network are not": {"train": one, "model": {"hidden": 9}},
        "training videos": {"train": one, "rows": (15, 24)},
        "validation videos are not": {"train": one, "rows": (16, 23)},
        "precision are not": {"train": one, "precision": "bf16-mixed"},
    }
    for sentence, options in cases.items():
        with pytest.raises(DataError, match=f"belongs to another training: .*{sentence}"):
            go(data, path, **options)
    go(data, path, train={**one, "max_frames_per_pass": 7})  # decides on memory alone


def test_a_damaged_checkpoint_is_said_and_nothing_is_executed(data, tmp_path):
    path = tmp_path / "checkpoint.pt"
    go(data, path, train={"epochs": 1})
    content = path.read_bytes()
    torch.save({"format": "other"}, tmp_path / "other.pt")
    torch.save(Evil(tmp_path / "was_here"), tmp_path / "evil.pt")
    cases = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "text": b"hello",
        "other": (tmp_path / "other.pt").read_bytes(),
        "evil": (tmp_path / "evil.pt").read_bytes(),
    }
    for name, damaged in cases.items():
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"checkpoint.pt is (damaged|not a checkpoint).*remove it"):
            go(data, path, train={"epochs": 1})
        assert not (tmp_path / "was_here").exists(), name


class Evil:
    """Would make a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_every_random_state_comes_back():
    from siam_model.training.resume import random_states, restore_random_states

    device = torch.device("cpu")

    def draw() -> list[float]:
        return [float(torch.rand(())), float(np.random.rand()), random.random(), random.gauss(0, 1)]  # noqa: NPY002

    outside = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        random.gauss(0, 1), np.random.randn()  # noqa: NPY002 (each now holds a second number back)
        states = random_states(device)
        first = draw()
        draw()
        restore_random_states(states, device)
        assert draw() == first
    finally:
        random.setstate(outside[0])
        np.random.set_state(outside[1])  # noqa: NPY002
        torch.set_rng_state(outside[2])
