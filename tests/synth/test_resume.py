"""A set that was broken off is completed, and nothing of anybody's is written over."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time

import psutil
import pytest

from nemo_pipeline.errors import Busy, OutputError
from nemo_pipeline.synth import render_faces, render_set
from nemo_pipeline.synth.direct import truth_beside
from nemo_pipeline.synth.place import held
from tests.support.processes import PATIENCE

#: Clips of some seconds' work, so that a signal falls into it.
LONG = {"subjects": 2, "clips": 2, "seed": 12, "width": 320, "height": 320, "seconds": (0.8, 4.0)}
TINY = {"subjects": 2, "clips": 1, "seed": 1, "width": 64, "height": 64, "seconds": (0.8, 0.8)}


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rendering(process):
    """The processes that it started, as far as they run our code."""
    return [
        child
        for child in psutil.Process(process.pid).children()
        if "nemo_pipeline.synth.worker" in child.cmdline()
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The files of a set that was never broken off."""
    folder = tmp_path_factory.mktemp("undisturbed") / "b"
    render_set(folder, **LONG, workers=1)
    return files(folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_set_is_completed_and_no_process_goes_on(undisturbed, tmp_path, number):
    words = ["--subjects", "2", "--clips", "2", "--seed", "12", "--size", "320x320", "--seconds", "0.8", "4"]
    command = [sys.executable, "-m", "nemo_cli.main", "synth", str(tmp_path / "a"), *words, "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (workers := rendering(process)):
        assert process.poll() is None
        time.sleep(0.01)
    (halted, *_) = workers
    halted.suspend()  # so that the set is not complete before the signal
    while not list(tmp_path.glob("a/*.mp4")):
        assert process.poll() is None
        time.sleep(0.02)
    workers = rendering(process)
    process.send_signal(number)
    with contextlib.suppress(psutil.NoSuchProcess):
        halted.resume()
    process.wait(PATIENCE)
    assert not psutil.wait_procs(workers, PATIENCE)[1]
    assert not (tmp_path / "a" / "truth.h5").exists()
    render_set(tmp_path / "a", **LONG, workers=2)
    assert files(tmp_path / "a") == undisturbed


def test_half_a_clip_is_rendered_again(tmp_path):
    render_set(tmp_path / "a", **TINY, workers=1)
    whole = files(tmp_path / "a")
    one, two = sorted((tmp_path / "a").glob("*.mp4"))
    one.write_bytes(b"")
    two.write_bytes(two.read_bytes()[:-2000])
    render_set(tmp_path / "a", **TINY, workers=1)
    assert files(tmp_path / "a") == whole


def test_labels_that_somebody_changed_stay(tmp_path):
    made = render_set(tmp_path / "a", **TINY, workers=1, nemo_layout=True)
    made.labels.write_text("video,age\nmine,30\n")
    with pytest.warns(UserWarning, match=r"labels\.csv was changed"):
        render_set(tmp_path / "a", **TINY, workers=1, nemo_layout=True)
    assert made.labels.read_text() == "video,age\nmine,30\n"


def test_two_at_once_do_not_meet(tmp_path):
    with (
        held(tmp_path, "synth.json", tmp_path),
        pytest.raises(Busy, match="another `nemo synth`"),
    ):
        render_set(tmp_path, **TINY, workers=1)
    render_set(tmp_path, **TINY, workers=1)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_faces_never_take_the_place_of_a_truth(tmp_path):
    precious = tmp_path / "set.truth.h5"
    precious.write_text("precious")
    with pytest.raises(OutputError, match=r"set\.truth\.h5 exists already"):
        render_faces(tmp_path / "set.h5", **TINY, workers=1)
    assert precious.read_text() == "precious" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(OutputError, match="Cannot write"):
        render_faces(precious / "set.h5", **TINY)
    names = {truth_beside(tmp_path / name).name for name in ("v1.2.h5", "v1.3.h5", "set.h5", "set.hdf5")}
    assert names == {"v1.2.truth.h5", "v1.3.truth.h5", "set.truth.h5", "set.hdf5.truth.h5"}


@pytest.mark.parametrize("clips", [1, 2, 4])
def test_both_expressions_are_there_however_few_the_clips(clips):
    from nemo_pipeline.synth.plan import SynthConfig, list_clips

    shown = [clip.expression for clip in list_clips(SynthConfig(subjects=4, clips=clips, expression="both"))]
    assert shown.count("smile") == shown.count("disgust") == 2 * clips


def test_a_module_in_the_users_folder_is_not_run(tmp_path, monkeypatch):
    for name in ("av", "tokenize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    assert render_set(tmp_path / "a", **TINY, workers=2).clips
