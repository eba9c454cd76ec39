"""Dask runs one task per video, and one per planned shard. The only module that imports Dask.

Here or on the user's own cluster the tasks are the same; each thread that runs them drives a child process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import queue
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_pipeline.batch.output import OutputFolder
from nemo_pipeline.batch.parts import Part
from nemo_pipeline.batch.plan import Finished, Plan, finished_videos, shard_groups
from nemo_pipeline.batch.worker import (
    VideoTask,
    merge_videos,
    prepare_video,
    record_failure,
    run_pool,
    stop_pool,
)
from nemo_pipeline.bundle import SHA256 as MODEL_SHA256
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.errors import OutputError, ProcessError
from nemo_pipeline.platform import default_workers
from nemo_pipeline.status import Status
from nemo_pipeline.store.files import disk_full_message, is_disk_full
from nemo_pipeline.store.shard import read_shard
from nemo_pipeline.store.spool import StagedVideo, read_staged, remove_staged, staged_name

if TYPE_CHECKING:
    from distributed import Client, Future

_TOPIC = "nemo-frames"
#: Seconds between two looks at whether there are workers; seconds that a scheduler, which may be busy, has to answer.
_LOOK_EVERY, _CONNECT = 5.0, 30.0
#: A video this many times larger than the median is started before all others, so that no worker ends
#: alone with it.
_OUTLIER = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """News for the user during a run.

    `kind`: "stage" (`text`: what begins), "checking" (`n` of `total` files hashed), "planned" (`n` videos
    done before, `total` to do), "frames" (`n` frames of `file` decoded), "video" (`file` is finished; `n` of
    `total`), "drawn" (its annotated copy is done; `text`: why there is none), "note" (`text`).
    """

    kind: str
    n: int = 0
    total: int = 0
    file: str = ""
    text: str = ""
    staged: StagedVideo | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run; none of it changes the numbers.

    Attributes:
        workers: videos at a time on this machine; None for the cores it may use.
        scheduler: address ("tcp://host:port") or scheduler file of a Dask cluster; None to run here.
        video_timeout: seconds after which a video is given up; None for never.
        force: do everything again.
        prune: drop videos of the output that are not among the inputs.
        part: do this share alone and write no index.
    """

    workers: int | None = None
    scheduler: str | None = None
    video_timeout: float | None = 3600.0
    force: bool = False
    prune: bool = False
    part: Part | None = None


class ClusterRun:
    """The part of a run that Dask does: videos into staged videos, staged videos into shards.

    Args:
        make_task: what a video's task is to know.
    """

    def __init__(
        self,
        videos: Sequence[VideoFile],
        plan: Plan,
        out: OutputFolder,
        config: PrepConfig,
        options: RunOptions,
        on_event: Callable[[Event], None],
        make_task: Callable[[VideoFile], VideoTask],
    ) -> None:
        self._make_task = make_task
        self.plan, self.out, self.config, self.options, self.on_event = plan, out, config, options, on_event
        #: Every video of the run, once `execute` returned.
        self.finished: dict[str, Finished] = dict(plan.finished)
        #: Frames decoded by this run.
        self.n_frames = 0
        self._groups = shard_groups(videos, plan, stills=config.stills)
        self._group_of = {video.file: i for i, group in enumerate(self._groups) for video in group}
        self._missing = [sum(v.file not in plan.staged_videos for v in group) for group in self._groups]
        self._n_done = 0
        self._next_look = 0.0
        self._said_waiting = False
        self._name = uuid.uuid4().hex[:8]
        self._results: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()

    def execute(self) -> None:
        """Run all tasks. Raises NemoError if the run cannot continue; always stops the children."""
        if not self._groups:
            return
        with _client(self.options, self._name, min(len(self.plan.todo), 10_000)) as client:
            self._submit_all(client)
            left = len(self._groups)
            while left:
                try:
                    kind, subject, value = self._results.get(timeout=0.25)
                except queue.Empty:
                    self._check_alive(client)
                    continue
                if kind == "frames":
                    self.on_event(Event("frames", value, file=subject))
                elif kind == "video":
                    self._video_done(client, subject, value)
                else:
                    self._group_done(subject, value)
                    left -= 1

    def _check_alive(self, client: Client) -> None:
        """Raise NemoError when nobody is left to work; on a cluster of the user's, say so and wait."""
        if client.status not in ("running", "connecting"):
            raise ProcessError(
                "the Dask scheduler went away: start one and run the same command; what is done is kept."
            )
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_EVERY
        if client.nthreads():
            self._said_waiting = False
        elif self.options.scheduler is None:
            raise ProcessError(
                "the cluster inside this process stopped: run the same command; what is done is kept."
            )
        elif not self._said_waiting:
            self._said_waiting = True
            self.on_event(
                Event("note", text="no worker is connected to the Dask scheduler; waiting for one.")
            )

    def _submit_all(self, client: Client) -> None:
        """Videos in natural order, but outsized ones first; groups that have all their staged videos at once."""
        client.subscribe_topic(_TOPIC, self._heard)
        self._cores = _first_cores(client)
        for i, missing in enumerate(self._missing):
            if not missing:
                self._merge(client, i)
        sizes = {video.file: _size(video.path) for video in self.plan.todo}
        limit = _OUTLIER * sorted(sizes.values())[len(sizes) // 2] if sizes else 0
        ordered = sorted(self.plan.todo, key=lambda v: -sizes[v.file] if sizes[v.file] > limit else 0)
        for n, video in enumerate(ordered):
            task = self._make_task(video)
            key = f"video-{self._name}-{n}"
            future = client.submit(_video_task, self._name, task, self._cores, key=key, pure=False)
            future.add_done_callback(lambda f, task=task: self._results.put(("video", task, f)))

    def _heard(self, event: tuple[float, Any]) -> None:
        """A progress message of a worker; in a thread of the client."""
        message = event[1]
        if isinstance(message, dict) and message.get("run") == self._name:
            self._results.put(("frames", message["file"], message["n"]))

    def _video_done(self, client: Client, task: VideoTask, future: Future) -> None:
        staged = self._finished(task, future)
        self._n_done += 1
        self.n_frames += staged.result.n_decoded
        self.on_event(Event("video", self._n_done, len(self.plan.todo), task.file, staged=staged))
        group = self._group_of[task.file]
        self._missing[group] -= 1
        if not self._missing[group]:
            self._merge(client, group)

    def _finished(self, task: VideoTask, future: Future) -> StagedVideo:
        """What a task gave. A worker that dies again and again under one video makes it `crashed`."""
        from distributed.scheduler import KilledWorker

        try:
            staged: StagedVideo = future.result()
        except KilledWorker:
            return record_failure(
                task, Status.CRASHED, "The machines that worked on it died or were taken away, several times."
            )
        except OSError as error:
            if is_disk_full(error):
                raise OutputError(disk_full_message(self.out.work), self.out.work) from None
            raise OutputError(
                f"{task.file} cannot be worked on in {self.out.work}: {error}.", self.out.work
            ) from None
        return staged

    def _merge(self, client: Client, group: int) -> None:
        future = client.submit(
            _merge_task,
            self._name,
            [video.file for video in self._groups[group]],
            str(self.out.work),
            str(self.out.shards),
            self.config.to_dict(),
            MODEL_SHA256,
            self._cores,
            key=f"merge-{self._name}-{group}",
            pure=False,
            priority=10,
        )
        future.add_done_callback(lambda f: self._results.put(("merged", group, f)))

    def _group_done(self, group: int, future: Future) -> None:
        """The group's shards are on disk: note where its videos are, and remove its staged videos."""
        for name in future.result():
            for (_, file), item in finished_videos([read_shard(self.out.shards / name)]).items():
                self.finished[file] = item
        for video in self._groups[group]:
            path = self.out.work / f"{staged_name(video.file)}.json"
            staged = read_staged(path)
            if staged is not None:
                remove_staged(self.out.work, staged)


def _video_task(run: str, task: VideoTask, first_cores: dict[str, int]) -> StagedVideo:
    """Runs on a Dask worker's thread: one video, done by a child of this process."""
    from distributed import get_worker

    worker = get_worker()

    def say(n: int) -> None:
        with contextlib.suppress(Exception):
            worker.log_event(_TOPIC, {"run": run, "file": task.file, "n": n})

    return prepare_video(task, run_pool(run), first_core=first_cores.get(worker.address, 0), on_frames=say)


def _merge_task(
    run: str,
    files: list[str],
    work: str,
    shards: str,
    config: dict[str, Any],
    model_sha256: str,
    first_cores: dict[str, int],
) -> list[str]:
    """Runs on a Dask worker's thread: one planned shard, written by a child of this process."""
    from distributed import get_worker

    first_core = first_cores.get(get_worker().address, 0)
    return merge_videos(files, work, shards, config, model_sha256, run_pool(run), first_core=first_core)


def _first_cores(client: Client) -> dict[str, int]:
    """Worker address -> number of its first core: workers on one machine must not share cores."""
    taken: dict[str, int] = {}
    first: dict[str, int] = {}
    for address, worker in sorted(client.scheduler_info(n_workers=-1)["workers"].items()):
        host = str(worker.get("host", ""))
        first[address] = taken.get(host, 0)
        taken[host] = first[address] + int(worker.get("nthreads", 1))
    return first


@contextlib.contextmanager
def _client(options: RunOptions, run: str, n_videos: int) -> Iterator[Client]:
    """A Dask client: of the user's cluster, or of one inside this process with a thread per worker.

    However it is left, the children end.
    """
    import dask
    from distributed import Client, LocalCluster

    if options.scheduler is not None:
        with _remote_client(options.scheduler, run) as client:
            yield client
        return
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    workers = max(1, min(options.workers or default_workers(), n_videos))
    # Dask's web servers would listen on every interface, and show the names of files: none of them stays.
    nowhere = "127.0.0.1:0"
    settings: dict[str, Any] = {
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        # The worker lives in this process. A clock that jumps (a laptop that slept) must not declare it dead.
        "distributed.scheduler.worker-ttl": None,
        "distributed.scheduler.idle-timeout": None,
        "distributed.scheduler.no-workers-timeout": None,
        "distributed.worker.lifetime.duration": None,
        # It would look at waiting threads a hundred times a second.
        "distributed.worker.profile.enabled": False,
    }
    with dask.config.set(settings):
        cluster = LocalCluster(
            n_workers=1,
            threads_per_worker=workers,
            processes=False,
            dashboard_address=nowhere,
            worker_dashboard_address=nowhere,
            # What is large lives in the children, unseen by Dask; it must not pause for what it does see.
            memory_limit=0,
        )
    if cluster.scheduler is not None:
        cluster.scheduler.http_server.stop()
    for worker in cluster.workers.values():
        worker.http_server.stop()
    client = Client(cluster, set_as_default=False)
    _quiet_end(client)
    try:
        yield client
    finally:
        stop_pool(run)
        with contextlib.suppress(Exception):
            client.close(timeout=1)
        with contextlib.suppress(Exception):
            cluster.close(timeout=1)


def _quiet_end(client: Client) -> None:
    """Let asyncio say nothing of Dask's own waiting, which times out unheard when its loop is stopped meanwhile.

    A sender that waits for more to send is dropped with the loop; its time-out must not be shown, and
    would be printed as "Future exception was never retrieved" after a run that went well.
    """
    from tornado.util import TimeoutError as TornadoTimeout

    def handle(loop: Any, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), (TimeoutError, TornadoTimeout)):
            loop.default_exception_handler(context)

    loop: Any = client.loop
    loop.asyncio_loop.set_exception_handler(handle)


@contextlib.contextmanager
def _remote_client(scheduler: str, run: str) -> Iterator[Client]:
    from distributed import Client

    try:
        if "://" in scheduler:
            client = Client(scheduler, set_as_default=False, timeout=_CONNECT)
        elif not Path(scheduler).is_file():
            raise FileNotFoundError("there is no such scheduler file")
        else:
            client = Client(scheduler_file=scheduler, set_as_default=False, timeout=_CONNECT)
    except (OSError, ValueError, TimeoutError) as error:
        raise ProcessError(f"no Dask scheduler answers at {scheduler}: {error}.") from None
    _quiet_end(client)
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):
            client.run(stop_pool, run, wait=False)
            time.sleep(0.3)
        with contextlib.suppress(Exception):
            client.close(timeout=1)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
