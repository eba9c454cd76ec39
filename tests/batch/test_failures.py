"""Crashes, hangs and kills: one video's status, never the run's end; and nothing lost.

Children are really killed by signals; nothing in the code is told that it is being tested.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from nemo_pipeline.batch.child import prepare
from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.process import StartFailed, VideoChild
from nemo_pipeline.batch.run import PrepInputs, RunOptions, prep
from nemo_pipeline.batch.tasks import TaskMaker
from nemo_pipeline.batch.worker import MOST_STARTS
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.errors import OutputError
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.spool import read_all_staged
from nemo_pipeline.supervise import ChildDied
from tests.support.processes import PATIENCE, one_halted, start, wait_for_children, wait_for_none
from tests.support.runs import write_clip

CONFIG = PrepConfig(size=48)


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> Path:
    """Long enough to be caught at work."""
    return write_clip(tmp_path_factory.mktemp("long") / "victim.mp4", frames=150, seed=5)


@pytest.fixture
def folder(clips, long_clip, tmp_path) -> Path:
    target = tmp_path / "in"
    target.mkdir()
    for name in ("clip0.mp4", "clip1.mp4"):
        shutil.copy(clips / name, target)
    shutil.copy(long_clip, target)
    return target


def run(folder, output, on_event=lambda event: None, **options):
    found = discover([folder])
    return prep(PrepInputs(found.videos), output, CONFIG, RunOptions(workers=1, **options), on_event=on_event)


@pytest.fixture
def signal_while_at(monkeypatch):
    """Has a signal sent to every child that reports frames of a file, by the thread that hears it: the pids it hit."""
    ask = VideoChild.ask

    def signal_at(file, number, most=100):
        hit = []

        def hearing(child, job, timeout, on_frames=None):
            def heard(n):
                if job.get("file") == file and child.pid not in hit and len(hit) < most:
                    hit.append(child.pid)
                    os.kill(child.pid, number)

            return ask(child, job, timeout, heard)

        monkeypatch.setattr(VideoChild, "ask", hearing)
        return hit

    return signal_at


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGSEGV, "SIGSEGV"),
        pytest.param(signal.SIGKILL, "memory ran out", marks=pytest.mark.slow),
        pytest.param(signal.SIGABRT, "SIGABRT", marks=pytest.mark.slow),
    ],
)
def test_a_child_that_dies_costs_one_video(folder, tmp_path, signal_while_at, number, words):
    hit = signal_while_at("victim.mp4", number, most=2)
    run(folder, tmp_path / "out.h5")
    data = FaceDataset(tmp_path / "out.h5")
    assert len(hit) == 2  # one more chance, in a fresh child
    assert data["victim"].status == "crashed" and words in data["victim"].message
    assert data["clip0"].status == data["clip1"].status == "ok"
    # The next run tries it again, and only it.
    done = []
    run(folder, tmp_path / "out.h5", lambda e: done.append(e.file) if e.kind == "video" else None)
    assert done == ["victim.mp4"]
    assert FaceDataset(tmp_path / "out.h5")["victim"].length == 150


def test_a_child_that_dies_once_is_forgiven(folder, tmp_path, signal_while_at):
    hit = signal_while_at("victim.mp4", signal.SIGSEGV, most=1)
    run(folder, tmp_path / "out.h5")
    assert hit and FaceDataset(tmp_path / "out.h5")["victim"].status == "ok"


@pytest.fixture
def killed_while_starting(monkeypatch):
    """Has the first so many children killed before they say that they are ready: the pids it hit."""
    go_on = VideoChild._expect_ready

    def kill(count):
        hit = []

        def expect(child):
            if len(hit) < count and child._inbox.empty():
                hit.append(child.pid)
                os.kill(child.pid, signal.SIGKILL)
            go_on(child)

        monkeypatch.setattr(VideoChild, "_expect_ready", expect)
        return hit

    return kill


def test_children_killed_while_starting_are_replaced(folder, tmp_path, killed_while_starting):
    hit = killed_while_starting(1)
    run(folder, tmp_path / "out.h5")
    assert len(hit) == 1
    assert {video.status for video in FaceDataset(tmp_path / "out.h5").values()} == {"ok"}


def test_no_child_that_starts_ends_the_run(folder, tmp_path, killed_while_starting):
    hit = killed_while_starting(MOST_STARTS)
    with pytest.raises(StartFailed, match=r"SIGKILL.*while starting"):
        run(folder, tmp_path / "out.h5")
    assert len(hit) == MOST_STARTS


def test_a_hang_is_a_timeout(folder, tmp_path, signal_while_at):
    victim = folder / "victim.mp4"
    later = victim.rename(tmp_path / "victim.mp4")
    run(folder, tmp_path / "out.h5")  # with all the time that they need
    later.rename(victim)
    hit = signal_while_at("victim.mp4", signal.SIGSTOP)
    run(folder, tmp_path / "out.h5", video_timeout=3.0)
    data = FaceDataset(tmp_path / "out.h5")
    assert len(hit) <= 1  # on a very slow machine it takes longer even so
    assert data["victim"].status == "timeout" and "`video_timeout`" in data["victim"].message
    assert data["clip0"].status == data["clip1"].status == "ok"


def test_the_child_says_how_it_died(tmp_path):
    child = VideoChild()
    try:
        child._expect_ready()
        os.kill(child.pid, signal.SIGBUS)
        with pytest.raises(ChildDied, match="SIGBUS"):
            child.ask({"do": "probe", "path": str(tmp_path)}, PATIENCE)
    finally:
        child.close()


def test_disk_full_in_mid_run(folder, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(small)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs the right to mount a small file system")
    filler = small / "filler"
    try:

        def fill(event):
            if event.kind == "video" and not filler.exists():
                with filler.open("wb", buffering=0) as handle:
                    while True:
                        try:
                            handle.write(bytes(1 << 16))
                            handle.flush()
                        except OSError:
                            break

        with pytest.raises(OutputError, match="is full"):
            run(folder, small / "out.h5", fill)
        kept = read_all_staged(small / "out.shards" / ".work")
        assert kept and not (small / "out.h5").exists()
        filler.unlink()
        summary = run(folder, small / "out.h5")
        assert summary.done_before == len(kept) and summary.counts == {"ok": 3}
        assert not [path for path in (small / "out.shards").iterdir() if path.name.startswith(".work")]
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def test_a_file_that_is_replaced_while_it_is_read(tmp_path):
    """By another one of the same size and time: what was hashed is not what was decoded."""
    clip = write_clip(tmp_path / "clip.mp4", frames=40)
    other = tmp_path / "other.mp4"
    shutil.copy2(clip, other)
    video = VideoFile(clip, "clip", "clip.mp4")
    job = TaskMaker(PrepConfig(size=48), tmp_path, None)(video).job | {"stem": "s"}

    def replace(n: int) -> None:
        if other.exists():
            other.replace(clip)

    prepare(job, replace)
    (staged,) = read_all_staged(tmp_path).values()
    assert staged.statuses == {"unreadable"} and "changed while it was read" in staged.result.rows[0].message


# ---- the command, stopped from outside


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_waits_for_no_video_and_says_how_to_go_on(folder, tmp_path, number):
    process = start(folder, tmp_path / "out.h5")
    with one_halted(process):
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert b"Rerun the same command to resume" in said and b"Traceback" not in said
    assert not wait_for_none(process.pid)
    if number == signal.SIGTERM:
        return
    process = start(folder, tmp_path / "out.h5")
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said


@pytest.mark.parametrize("after", [0.0, 0.5])
def test_children_end_with_their_parent(folder, tmp_path, after):
    process = start(folder, tmp_path / "out.h5")
    wait_for_children(process)
    time.sleep(after)
    process.kill()
    process.communicate()
    assert not wait_for_none(process.pid)
