"""`nemo prep` as a process, and the children and Dask workers that belong to it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

#: Seconds that anything may take for which a test waits: against one that hangs, on the slowest of machines.
PATIENCE = 600.0


def start(folder, output, workers=2, *more):
    command = [sys.executable, "-m", "nemo_cli.main", "prep", str(folder), str(output), "--size", "48"]
    return subprocess.Popen(
        [*command, "--workers", str(workers), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"COLUMNS": "200"},
    )


def children_of(pid):
    """Process ids whose parent is `pid`, or that were given it as their driver."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"nemo_pipeline.batch.child" in words and str(pid).encode() in words:
                found.append(int(entry.name))
    return found


def wait_for_children(process):
    """Process ids of its children, when there is one."""
    while not (found := children_of(process.pid)):
        assert process.poll() is None, "it ended without a child"
        time.sleep(0.01)
    return found


def wait_for_none(pid):
    end = time.monotonic() + PATIENCE
    while children_of(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return children_of(pid)


@contextlib.contextmanager
def one_halted(process) -> Iterator[None]:
    """One of its children does not go on, so that a run that needs it does not end, however fast the machine is."""
    (pid, *_) = wait_for_children(process)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


class DaskCluster:
    """A scheduler and worker processes of one thread each, on this machine."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder, self.file = folder, folder / "scheduler.json"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.workers: list[subprocess.Popen[bytes]] = []
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0")
        while not self.file.exists():
            assert self.processes[0].poll() is None, "no scheduler"
            time.sleep(0.1)
        for _ in range(workers):
            self.add_worker()

    def _start(self, what: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--scheduler-file", str(self.file)]
        with (self.folder / f"{what}{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen([*command, *words, "--no-dashboard"], stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def add_worker(self) -> None:
        words = ["--local-directory", str(self.folder), "--nthreads", "1", "--no-nanny"]
        self.workers.append(self._start("worker", "--name", f"w{len(self.processes)}", *words))

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
