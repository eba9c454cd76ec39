"""One video prepared by a child process, with a second try, a time limit and a status for every failure.

A `Pool` gives each of the threads that work at the same time a child of its own. Nothing here knows Dask.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nemo_pipeline.batch.process import JobFailed, StartFailed, VideoChild
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoResult
from nemo_pipeline.errors import DataError, NemoError, OutputError
from nemo_pipeline.platform import allowed_cores
from nemo_pipeline.status import Status
from nemo_pipeline.store.files import file_hash
from nemo_pipeline.store.spool import StagedVideo, read_staged, staged_name, write_staged
from nemo_pipeline.supervise import ChildDied, ChildTimeout

#: A child is replaced after this many videos (stills: 40 times as many): native memory is known not to come back.
RECYCLE_AFTER = 50
#: ... or when its peak memory passed this many bytes.
RECYCLE_ABOVE = 2_000_000_000
#: So many children in a row that were killed before they could start end the run: no video is to blame.
MOST_STARTS = 4


class Stopped(Exception):
    """The run is being stopped; what this thread was doing is void."""


@dataclasses.dataclass(frozen=True, slots=True)
class VideoTask:
    """Everything that the preparation of one video needs, wherever it runs. Plain types: it travels.

    Attributes:
        path, file: where the video is, and its name in the run.
        folder: the work folder, on the shared file system if there are several machines.
        config: `PrepConfig.to_dict()`.
        timeout: seconds, or None.
        mean_shape, triangles: 68 pairs and the triples of their map, or None for the shipped ones.
        landmarks: the video's landmark file, where faces are not tracked; "" if it is missing, for the reason
            in `problem`.
        tracked: a prepared file; if it holds the video, its points are warped again; "" for none.
        sha256: of the video's content, where no other will do; else "".
    """

    path: str
    file: str
    folder: str
    config: dict[str, Any]
    timeout: float | None
    mean_shape: list[list[float]] | None = None
    triangles: list[list[int]] | None = None
    landmarks: str = ""
    problem: str = ""
    tracked: str = ""
    sha256: str = ""

    @property
    def job(self) -> dict[str, Any]:
        """What the child is told, but for the name of its files."""
        values = dataclasses.asdict(self)
        del values["timeout"]
        return {"do": "prep", **values}


class Pool:
    """Children for the threads of this process: at most one per working thread, kept between videos."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[int, VideoChild]] = []
        self._busy: dict[int, VideoChild | None] = {}
        self._stopping = False
        self._failed_starts = 0

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    @property
    def pids(self) -> list[int]:
        """Process ids of the children that are alive."""
        with self._lock:
            children = [child for _, child in self._idle] + [c for c in self._busy.values() if c]
        return [child.pid for child in children]

    def acquire(self, first_core: int = 0) -> tuple[int, VideoChild]:
        """An idle child, or a new one on a core that no other child of this pool uses. Raises Stopped."""
        with self._lock:
            if self._stopping:
                raise Stopped
            if self._idle:
                slot, child = self._idle.pop()
                self._busy[slot] = child
                return slot, child
            slot = next(n for n in range(len(self._busy) + 1) if n not in self._busy)
            self._busy[slot] = None
        try:
            child = VideoChild(_core(first_core + slot))
        except BaseException:
            with self._lock:
                del self._busy[slot]
            raise
        with self._lock:
            self._busy[slot] = child
            if self._stopping:
                child.kill()
        return slot, child

    def release(self, slot: int, child: VideoChild, keep: bool) -> None:
        """Give a child back; without `keep` it ends."""
        keep = keep and child.jobs_done < RECYCLE_AFTER and child.peak_memory < RECYCLE_ABOVE
        with self._lock:
            if child.ready:
                self._failed_starts = 0
            del self._busy[slot]
            keep = keep and not self._stopping
            if keep:
                self._idle.append((slot, child))
        if not keep:
            child.close()

    def start_again(self) -> bool:
        """Wait a moment after a child that did not start (memory may be short); False when too many did not, one after
        the other. Raises Stopped."""
        with self._lock:
            self._failed_starts += 1
            failed = self._failed_starts
        if failed >= MOST_STARTS:
            return False
        end = time.monotonic() + 0.5 * 2**failed
        while time.monotonic() < end:
            if self._stopping:
                raise Stopped
            time.sleep(0.05)
        return True

    def stop(self) -> None:
        """Kill every child, at once; a thread that waits for one gets Stopped. From any thread."""
        with self._lock:
            self._stopping = True
            children = [child for child in self._busy.values() if child]
            idle, self._idle = self._idle, []
        for child in children:
            child.kill()
        for _, child in idle:
            child.close()


#: The pools of this process, one for each run: on a shared cluster, one run's end must not kill another's children.
_POOLS: dict[str, Pool] = {}
_POOLS_LOCK = threading.Lock()


def run_pool(run: str) -> Pool:
    """The children that work for `run` in this process."""
    with _POOLS_LOCK:
        return _POOLS.setdefault(run, Pool())


def stop_pool(run: str) -> None:
    """Kill the children of `run` in this process, and start no more for it."""
    run_pool(run).stop()


def running_children() -> list[int]:
    """Process ids of all children of this process."""
    with _POOLS_LOCK:
        pools = list(_POOLS.values())
    return [pid for pool in pools for pid in pool.pids]


def prepare_video(
    task: VideoTask,
    pool: Pool,
    *,
    first_core: int = 0,
    on_frames: Callable[[int], None] | None = None,
) -> StagedVideo:
    """Have one video done by a child; answers what is staged, which is on disk by then.

    A child that dies is replaced once; then, or on time-out, the video's status says so. A staged video of the
    same run that exists already (this task was started a second time elsewhere) is taken as it is.

    Raises:
        Stopped: the run is being stopped.
        NemoError: nothing can work (installation, disk full).
    """
    config = PrepConfig.from_dict(task.config)
    folder = Path(task.folder)
    where = folder / f"{staged_name(task.file)}.json"
    existing = read_staged(where, config)
    if existing is not None and existing.fingerprint == config.fingerprint():
        return existing
    deaths: list[ChildDied] = []
    while True:
        # A stem of its own for every attempt: another machine may be at the same video, believing us dead.
        stem = f"{staged_name(task.file)}-{secrets.token_hex(4)}"
        job = task.job | {"stem": stem}
        slot, child = pool.acquire(first_core)
        keep = False
        try:
            child.ask(job, task.timeout, on_frames)
            keep = True
            break
        except StartFailed:
            if pool.stopping:
                raise Stopped from None
            if not pool.start_again():
                raise
        except NemoError:
            if pool.stopping:
                raise Stopped from None
            raise
        except ChildDied as death:
            if pool.stopping:
                raise Stopped from None
            deaths.append(death)
            if len(deaths) == 2:
                return record_failure(task, Status.CRASHED, _crash_message(deaths))
        except ChildTimeout:
            text = (
                f"It took longer than {task.timeout:g} s and was given up: "
                "if it is only long, raise `video_timeout`."
            )
            return record_failure(task, Status.TIMEOUT, text)
        except JobFailed as fault:
            keep = True
            return record_failure(task, Status.CRASHED, f"A fault of nemo, please report it: {fault}.")
        finally:
            pool.release(slot, child, keep)
            _remove_attempt(folder, stem, child.pid, unless_in=where)
    staged = read_staged(where, config)
    if staged is None:
        raise DataError(
            f"{where} is not there although it was just written: is {folder} being cleaned by someone?", where
        )
    return staged


def merge_videos(
    files: Sequence[str],
    work: str,
    shards: str,
    config: dict[str, Any],
    model_sha256: str,
    pool: Pool,
    *,
    first_core: int = 0,
) -> list[str]:
    """Have finished videos written to shards by a child (HDF5 may crash where the disk fills); answers their names.

    Raises:
        Stopped: the run is being stopped.
        NemoError: the disk is full, or writing failed twice.
    """
    job = {
        "do": "merge",
        "files": list(files),
        "folder": work,
        "shards": shards,
        "config": config,
        "model_sha256": model_sha256,
    }
    attempts = 0
    while True:
        slot, child = pool.acquire(first_core)
        keep = False
        try:
            names: list[str] = child.ask(job, None)["names"]
            keep = True
            return names
        except StartFailed:
            if pool.stopping:
                raise Stopped from None
            if not pool.start_again():
                raise
        except (NemoError, ChildDied, JobFailed) as error:
            if pool.stopping:
                raise Stopped from None
            if isinstance(error, NemoError):
                raise
            attempts += 1
            if attempts == 2:
                raise OutputError(
                    f"{shards} could not be written ({error}): is its disk full or failing? "
                    "Finished videos are kept.",
                    shards,
                ) from None
        finally:
            pool.release(slot, child, keep)


def probe_video(path: Path, timeout: float = 60.0) -> dict[str, Any]:
    """What a clip's stream says of itself, asked for in a child. Raises NemoError."""
    pool = Pool()
    slot, child = pool.acquire()
    try:
        return child.ask({"do": "probe", "path": str(path)}, timeout)
    except ChildDied as death:
        raise DataError(f"{path}: the process that opened it {death.reason}.", path) from None
    except ChildTimeout:
        raise DataError(f"{path}: it could not be opened within {timeout:g} s.", path) from None
    except JobFailed as fault:
        raise DataError(f"{path}: {fault}", path) from None
    finally:
        pool.release(slot, child, keep=False)


def _core(number: int) -> int | None:
    """The core for child `number`: none when there is a child for every core already."""
    cores = allowed_cores()
    return cores[number] if number < len(cores) else None


def record_failure(task: VideoTask, status: Status, message: str) -> StagedVideo:
    """Make a failure durable, as a staged video without frames."""
    try:
        size, digest = file_hash(Path(task.path))
    except OSError:
        size, digest = 0, ""
    config = PrepConfig.from_dict(task.config)
    staged = StagedVideo(task.file, size, digest, config.fingerprint(), VideoResult.failed(status, message))
    write_staged(Path(task.folder), staged)
    return staged


def _crash_message(deaths: list[ChildDied]) -> str:
    words = f" It said last: {deaths[-1].stderr_tail}" if deaths[-1].stderr_tail else ""
    return (
        f"The process that worked on it {deaths[-1].reason}, twice. Convert the file (ffmpeg -i FILE "
        f"-c:v libx264 NEW.mp4), or use fewer `workers` if memory is short.{words}"
    )


def _remove_attempt(folder: Path, stem: str, pid: int, unless_in: Path) -> None:
    """Remove the files of an attempt that did not become a staged video, made by the child `pid`."""
    staged = read_staged(unless_in)
    wanted = staged.spools if staged is not None else set()
    for path in [*folder.glob(f"{stem}*"), folder / f"{unless_in.name}.{pid}.tmp"]:
        if path.name not in wanted:
            path.unlink(missing_ok=True)
