"""What a shell, a scheduler or an administrator can do to a command: streams closed, no home, few files, a hang-up."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemo_cli.main import _explain
from nemo_pipeline.store.files import leftovers, replacing, temporary_name
from nemo_pipeline.store.verify import verify
from tests.support.commands import nemo
from tests.support.processes import PATIENCE, one_halted, start, wait_for_none

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a POSIX shell is needed")
NEMO = shlex.join([sys.executable, "-m", "nemo_cli.main"])


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of the shell in which `nemo` is the command."""
    return subprocess.run(
        ["bash", "-c", f"nemo() {{ {NEMO} \"$@\"; }}\n{line}"],
        cwd=folder, env=os.environ | environment, capture_output=True, check=False, timeout=PATIENCE,
    )  # fmt: skip


def open_to_others(folder: Path) -> list[str]:
    """Files and folders that others than their owner may read, write or enter."""
    return [
        f"{path.relative_to(folder)} {stat.filemode(path.lstat().st_mode)}"
        for path in folder.rglob("*")
        if path.lstat().st_mode & 0o077 and not path.is_symlink()
    ]


@pytest.fixture
def one(clips, tmp_path):
    """A folder with one clip."""
    (tmp_path / "in").mkdir(mode=0o700)
    os.link(clips / "clip0.mp4", tmp_path / "in" / "clip0.mp4")
    return tmp_path


def test_every_stream_closed(one):
    done = shell("nemo prep in out.h5 --size 48 --overlay drawn <&- >&- 2>&-", one)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert not [finding for finding in verify(one / "out.h5") if finding.level == "error"]
    assert (one / "drawn" / "clip0.mp4").stat().st_size


def test_streams_closed_where_they_are_needed(prepared, tmp_path):
    output, _ = prepared
    done = shell(f"nemo info {output} --json >&-; echo $?; nemo prep --list - out.h5 <&-; echo $?", tmp_path)
    assert done.stdout.split() == [b"0", b"1"]
    assert b"there is no video in the list" in done.stderr and b"fault of nemo" not in done.stderr


def test_a_reader_that_leaves(prepared, tmp_path):
    output, _ = prepared
    done = shell(f"nemo info {output} --json | head -n 1; nemo prep --help | head -n 1", tmp_path)
    assert done.stdout.startswith(b"{") and done.stderr == b""


def test_a_poor_environment(one):
    """No home, no folder for temporary files, no UTF-8, 64 open files, more workers than anything."""
    for i in range(1, 12):  # each is a child of its own while there are workers left
        (one / "in" / f"copy{i}.mp4").write_bytes((one / "in" / "clip0.mp4").read_bytes() + bytes(i))
    line = "ulimit -n 64; unset HOME; nemo prep in out.h5 --size 48 --workers 64 --json"
    done = shell(line, one, TMPDIR="/nowhere", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"] == {"ok": 12}
    assert b"4 at a time in place of 12: this process may open 64 files only (ulimit -n)" in done.stderr


def test_a_folder_of_somebody_else(prepared, tmp_path, capfd):
    """Not the temporary file's name, but the folder that may not be written to."""
    if os.geteuid():
        folder = tmp_path / "theirs"
        folder.mkdir(mode=0o500)
        _, said = nemo("pack", prepared[0], folder / "one.h5", code=1)
    else:  # whom nothing is denied
        folder = Path("/theirs")
        _explain(PermissionError(errno.EACCES, "Permission denied", "/theirs/.one.h5.0123456789ab.tmp"))
        said = capfd.readouterr().err.encode()
    assert said.decode() == f"Error: {folder} is read-only: nothing can be written there.\n"


def test_nothing_is_open_to_others_even_after_a_kill(clips, tmp_path):
    before = os.umask(0)
    try:
        process = start(clips, tmp_path / "out.h5", 2, "--report", str(tmp_path / "report.html"))
        with one_halted(process):
            while not list(tmp_path.glob("out.shards/.work/*")):
                assert process.poll() is None
                time.sleep(0.01)
            process.kill()
            process.communicate()
        assert list(tmp_path.glob("out.shards/.work/*")) and not wait_for_none(process.pid)
        assert open_to_others(tmp_path) == []
        process = start(clips, tmp_path / "out.h5", 2, "--report", str(tmp_path / "report.html"))
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0 and (tmp_path / "report.html").exists()
        assert open_to_others(tmp_path) == []
    finally:
        os.umask(before)


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed(clips, tmp_path, ignored):
    """Ends a run as Ctrl-C does, unless it was started under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        process = start(clips, tmp_path / "out.h5")
    finally:
        signal.signal(signal.SIGHUP, before)
    with one_halted(process):
        process.send_signal(signal.SIGHUP)
        if not ignored:
            process.wait(PATIENCE)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == (0 if ignored else 130), said
    assert (b"Rerun the same command to resume" in said) != ignored
    assert not wait_for_none(process.pid)


def test_names_as_long_as_a_file_system_takes(clips, tmp_path):
    for length in (230, 255):
        final = tmp_path / ("é" * (length // 2) + "x" * (length % 2))
        with replacing(final) as temporary:
            temporary.write_text("whole")
            assert leftovers(final) == [temporary]
        assert final.read_text() == "whole" and leftovers(final) == []
        temporary_name(final).touch()
        assert len(leftovers(final)) == 1 and not leftovers(tmp_path / final.name[:-1])
    _, said = nemo("prep", clips, tmp_path / f"{'x' * 252}.h5", "--size", "48", code=1)
    assert b"File name too long" in said and b"fault" not in said
    (tmp_path / "prepared").mkdir()
    nemo("prep", clips / "clip0.mp4", tmp_path / "prepared" / f"{'x' * 245}.h5", "--size", "48")
    assert len(list((tmp_path / "prepared").iterdir())) == 3  # with dataset_description.json
