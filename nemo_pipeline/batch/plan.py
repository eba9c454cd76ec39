"""What a run has to do: which videos are finished in the shards or in the work folder, and which are not.

A finished video is recognised by its content (sha256) and the settings; names decide only the order.
"""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from nemo_pipeline.config import ALGORITHM_VERSION, PrepConfig
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.errors import DataError
from nemo_pipeline.status import Status
from nemo_pipeline.store.files import file_hash
from nemo_pipeline.store.shard import Shard, ShardRow
from nemo_pipeline.store.spool import StagedVideo
from nemo_pipeline.store.text import pluralize

#: A file that was changed less than this before it is looked at may be changed again within the same tick.
SETTLED_NS = 3_000_000_000
#: Videos per shard, planned from the sorted list before any work is done.
VIDEOS_PER_SHARD = 32
#: Stills per shard: a training reads them in any order, and opening a shard costs more than a hundred pictures.
STILLS_PER_SHARD = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """A video in a shard: its rows, more than one with several segments or persons."""

    shard: Shard
    rows: tuple[ShardRow, ...]


class Seen(NamedTuple):
    """A file as an earlier run saw it: its sha256, bytes, and when it was last changed (ns; 0: not known)."""

    sha256: str
    bytes: int
    modified: int


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """Every video of the run is in exactly one of the first three, keyed by `VideoFile.file`.

    `hashes`: sha256 of the inputs that have the size of a known video; any other is new content. `modified`: when each
    input was last changed, before it was looked at; 0 where that says nothing of its content.
    """

    finished: dict[str, Finished]
    staged_videos: dict[str, StagedVideo]
    todo: tuple[VideoFile, ...]
    hashes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    modified: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def n_done(self) -> int:
        """Videos that need no work."""
        return len(self.finished) + len(self.staged_videos)


def finished_videos(shards: Iterable[Shard]) -> dict[tuple[str, str], Finished]:
    """Videos in `shards` (old to new) by (sha256, file); the newest row for a video wins."""
    found: dict[tuple[str, str], Finished] = {}
    for shard in shards:
        groups: dict[tuple[str, str], list[ShardRow]] = defaultdict(list)
        for row in shard.rows:
            groups[row.sha256, row.file].append(row)
        for key, rows in groups.items():
            found[key] = Finished(shard, tuple(rows))
    return found


def make_plan(
    videos: Sequence[VideoFile],
    shards: Sequence[Shard],
    staged_videos: dict[str, StagedVideo],
    *,
    landmarks: Mapping[str, str] | None = None,
    seen: Mapping[str, Seen] | None = None,
    threads: int = 1,
    on_hashed: Callable[[int, int], None] | None = None,
) -> Plan:
    """Sort `videos` into finished, waiting for a shard, and to do. A file that has the name, the size and the time of
    its last change that an earlier run saw is what it was; of the others, those that may be finished are hashed.

    Args:
        shards, staged_videos: of these settings only.
        landmarks: sha256 of each video's landmark file, by `file`, where faces are not tracked. A video is
            finished only with the same one.
        seen: files of the index by `file`.
        on_hashed: called with (files hashed, files to hash).
    """
    known = finished_videos(shards)
    by_content: dict[str, Finished] = {}
    seen = seen or {}
    sizes = {item.bytes for item in seen.values()}
    for (digest, _), item in known.items():
        sizes.add(item.rows[0].bytes)
        if digest and all(row.status == Status.OK for row in item.rows):
            by_content[digest] = item
    sizes |= {staged.bytes for staged in staged_videos.values()}
    states = {video.file: _state(video) for video in videos}
    hashes = {
        file: seen[file].sha256
        for file, (size, modified) in states.items()
        if modified and file in seen and seen[file].sha256 and seen[file][1:] == (size, modified)
    }
    doubtful = [v for v in videos if v.file not in hashes and states[v.file][0] in sizes]
    hashes |= _hashes(doubtful, threads, on_hashed)
    finished: dict[str, Finished] = {}
    waiting: dict[str, StagedVideo] = {}
    todo: list[VideoFile] = []
    for video in videos:
        digest = hashes.get(video.file, "")
        staged = staged_videos.get(video.file)
        # A file that changed its name keeps its arrays; a failed one is tried under the new name.
        done = known.get((digest, video.file)) or by_content.get(digest)
        given = (landmarks or {}).get(video.file, "")
        if done is not None and (
            done.rows[0].landmarks_sha256 != given or any(row.status.retry for row in done.rows)
        ):
            done = None
        if staged is not None and (staged.sha256 != digest or staged.result.landmarks_sha256 != given):
            staged = None
        if not digest:
            todo.append(video)
        elif done is not None:
            finished[video.file] = done
        elif staged is not None and not any(status.retry for status in staged.statuses):
            waiting[video.file] = staged
        else:
            todo.append(video)
    modified = {file: changed for file, (_, changed) in states.items()}
    return Plan(finished, waiting, tuple(todo), hashes, modified)


def shard_groups(
    videos: Sequence[VideoFile], plan: Plan, *, stills: bool = False
) -> list[tuple[VideoFile, ...]]:
    """The shards to be: the unfinished videos (or stills) in natural order, so many at a time."""
    rest, most = (
        [v for v in videos if v.file not in plan.finished],
        STILLS_PER_SHARD if stills else VIDEOS_PER_SHARD,
    )
    return [tuple(rest[i : i + most]) for i in range(0, len(rest), most)]


def settings_there(
    shards: Sequence[Shard], staged_videos: Iterable[StagedVideo], config: PrepConfig
) -> PrepConfig:
    """The settings that finished work counts under: `config`, or the same of the earlier version of the method that all
    of it was made with. What nobody chose then and nobody chooses now (a new setting at its default) is the same."""
    prints = {shard.fingerprint for shard in shards} | {staged.fingerprint for staged in staged_videos}
    unchosen = {
        field.name: field.metadata["before"]
        for field in dataclasses.fields(config)
        if "before" in field.metadata and getattr(config, field.name) == field.default
    }
    for earlier in range(1, ALGORITHM_VERSION):
        for changes in ({}, unchosen):
            same = dataclasses.replace(config, algorithm=earlier, **changes)
            if prints == {same.fingerprint()}:
                return same
    return config


def check_method(plan: Plan, config: PrepConfig, output: Path) -> None:
    """Refuse to mix. Raises NemoError where an output of an earlier version of the method is not complete."""
    open_ = [*(video.file for video in plan.todo), *plan.staged_videos]
    if config.algorithm == ALGORITHM_VERSION or not open_:
        return
    more = ", ..." if len(open_) > 1 else ""
    raise DataError(
        f"{output} was prepared by version {config.algorithm} of the method, and this nemo has version "
        f"{ALGORITHM_VERSION}: {pluralize(len(open_), 'video')} ({open_[0]}{more}) cannot be added, since a file holds "
        "faces of one version. It stays valid for everything else; to add videos, prepare all of them again with "
        "`force`, or into another output.",
        output,
    )


def check_settings(
    shards: Iterable[Shard],
    staged_videos: Iterable[StagedVideo],
    config: PrepConfig,
    model_sha256: str,
    output: Path,
    remedy: str = "Use the same settings, write to another output, or add `force` to redo everything.",
) -> None:
    """Refuse to mix. Raises NemoError that names the settings in which `output` differs from this run."""
    for shard in shards:
        if shard.fingerprint != config.fingerprint():
            raise DataError(
                f"{output} was made with other settings ({_difference(shard, config)}). {remedy}", output
            )
        if shard.model_sha256 != model_sha256:
            raise DataError(f"{output} was made with another landmark bundle. {remedy}", output)
    for staged in staged_videos:
        if staged.fingerprint != config.fingerprint():
            raise DataError(f"{output} was begun with other settings. {remedy}", output)


def _difference(shard: Shard, config: PrepConfig) -> str:
    """ "size 96 there, 114 here"."""
    old, new = dataclasses.asdict(shard.config), dataclasses.asdict(config)
    parts = [
        f"{'version of the method' if name == 'algorithm' else name} {old[name]} there, {new[name]} here"
        for name in new
        if old[name] != new[name]
    ]
    return "; ".join(parts) or "of a newer version of nemo"


def _state(video: VideoFile) -> tuple[int, int]:
    """Bytes of a file (-1: there is none), and when it was last changed, ns; 0 where it may change again unnoticed:
    file systems count time in steps, the largest of two seconds."""
    try:
        found = video.path.stat()
    except OSError:
        return -1, 0
    # The second of the two is the system's own: it moves with the content whatever time a program gives a file, and is
    # another one for another file of the same name, size and date. (On Windows it is when the file was made.)
    changed = max(found.st_mtime_ns, found.st_ctime_ns)
    return found.st_size, changed if changed < time.time_ns() - SETTLED_NS else 0


def _hashes(
    videos: Sequence[VideoFile], threads: int, on_hashed: Callable[[int, int], None] | None
) -> dict[str, str]:
    """sha256 by `file`; files that cannot be read are left out (the run will say why)."""
    hashes: dict[str, str] = {}

    def one(video: VideoFile) -> tuple[str, str]:
        try:
            return video.file, file_hash(video.path)[1]
        except OSError:
            return video.file, ""

    with ThreadPoolExecutor(max(1, threads)) as threads_pool:
        for n, (file, digest) in enumerate(threads_pool.map(one, videos), 1):
            if digest:
                hashes[file] = digest
            if on_hashed is not None:
                on_hashed(n, len(videos))
    return hashes
