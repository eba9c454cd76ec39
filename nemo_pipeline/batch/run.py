"""`nemo prep` as a function: plan, have the cluster do what is missing, write the index.

State is on disk alone (staged videos, shards), so that a run may end at any moment.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nemo_pipeline.batch.assemble import (
    KnownLabels,
    assemble,
    known_labels,
    recall_labels,
    remember_labels,
    write_assembled,
)
from nemo_pipeline.batch.cluster import ClusterRun, Event, RunOptions
from nemo_pipeline.batch.earlier import (
    Earlier,
    absent_files,
    check_same_names,
    earlier_videos,
    find_kept,
    with_kept,
)
from nemo_pipeline.batch.label_table import LabelTable
from nemo_pipeline.batch.landmark_files import LandmarkFile
from nemo_pipeline.batch.mean_shape_pass import SHAPE_FILE, known_shape, mean_shape_from, with_shape
from nemo_pipeline.batch.output import OutputFolder
from nemo_pipeline.batch.parts import mark_done, unmark
from nemo_pipeline.batch.plan import Finished, check_method, check_settings, make_plan, settings_there
from nemo_pipeline.batch.summary import PrepSummary, summarize
from nemo_pipeline.batch.tasks import TaskMaker
from nemo_pipeline.bundle import SHA256 as MODEL_SHA256
from nemo_pipeline.bundle import read_bundle
from nemo_pipeline.config import ALGORITHM_VERSION, PrepConfig
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.errors import NemoError, OutputError, SettingsError
from nemo_pipeline.meanshape import MeanShape, save_shape
from nemo_pipeline.platform import children_at_once, default_workers, library_versions
from nemo_pipeline.store.reader import FaceDataset
from nemo_pipeline.store.shard import Shard, read_shards
from nemo_pipeline.store.spool import clear_leftovers, read_all_staged, remove_staged
from nemo_pipeline.store.tables import Provenance
from nemo_pipeline.store.text import listed, pluralize

#: In the folder of shards: a file with the shipped shape, while the mean shape is made from the data.
_TRACKED = Path(".tracked", "tracked.h5")


@dataclasses.dataclass(frozen=True, slots=True)
class PrepInputs:
    """The videos of a run, and the files that come with them.

    Attributes:
        videos: in natural order, as from `discover`.
        landmarks: each video's landmark file, by `VideoFile.file`, where `config.landmarks_source` is not "track".
        labels: given by the user; they win over those that the output has already.
        labels_beside: found next to the videos; they fill what is unknown.
        source: a prepared file of the same videos with settings that give the same points: those are warped again, and
            its labels are taken over.
    """

    videos: Sequence[VideoFile]
    landmarks: Mapping[str, LandmarkFile] = dataclasses.field(default_factory=dict)
    labels: LabelTable | None = None
    labels_beside: LabelTable | None = None
    source: FaceDataset | None = None


def prep(
    inputs: PrepInputs,
    output: Path,
    config: PrepConfig,
    options: RunOptions | None = None,
    *,
    mean_shape: MeanShape | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> PrepSummary:
    """Prepare videos into `output`; what an earlier run with the same settings finished is not done again.

    Videos of `output` that are not among the inputs stay, unless `options.prune`.

    Args:
        inputs: what to prepare.
        output: the index, out.h5; shards go to out.shards next to it.
        config: settings.
        options: how to run.
        mean_shape: where `config.mean_shape` is "custom", or a shape "from-data" is there already.
        on_event: called in this thread.

    Raises:
        NemoError: nothing can be done or written; finished videos are kept.
        KeyboardInterrupt: passed on after the children were stopped.
    """
    options, videos, source = options or RunOptions(), inputs.videos, inputs.source
    workers = children_at_once(max(1, min(options.workers or default_workers(), len(videos))))
    options = dataclasses.replace(options, workers=workers)
    config = dataclasses.replace(config, algorithm=ALGORITHM_VERSION)  # whatever the caller's came from
    started = time.monotonic()
    digests = {file: item.sha256 for file, item in inputs.landmarks.items()}
    read_bundle()
    out = OutputFolder(output, options.part)
    out.create()
    with out.locked():
        out.clear_temporaries()
        data = _index(out)
        known = _known(out, data, source)
        earlier = {} if options.part is not None else earlier_videos(data)
        shape = known_shape(out, config, mean_shape, options.force)
        if options.force and not options.prune:
            _check_forced(out, earlier, videos, config, shape)
        if shape is None:
            if not options.force:
                check_settings(read_shards(out.shards), [], config, MODEL_SHA256, out.index)
            tracked = source or _track(inputs, out, config, options, on_event)
            shape, text = mean_shape_from(tracked, config.smooth)
            on_event(Event("stage", text=f"{text} Second pass: warping."))
        config = with_shape(config, shape)
        in_all = len(videos)
        if options.part is not None:
            videos = [videos[i] for i in options.part.share(len(videos))]
        shards, obsolete = _shards(out, config, options.force)
        staged_videos = {} if options.force and obsolete is None else read_all_staged(out.work, config)
        obsolete = obsolete or set()
        config = settings_there(shards, staged_videos.values(), config)
        check_settings(shards, staged_videos.values(), config, MODEL_SHA256, out.index)
        plan = make_plan(
            videos,
            shards,
            staged_videos,
            landmarks=digests,
            seen={file: item.seen for file, item in earlier.items()},
            threads=workers,
            on_hashed=lambda n, total: on_event(Event("checking", n, total)),
        )
        check_method(plan, config, out.index)
        if config.algorithm != ALGORITHM_VERSION:
            text = f"was prepared by version {config.algorithm} of the method and stays so: no video is new."
            on_event(Event("note", len(videos), text=f"{out.index.name} {text}"))
        tell = on_event if source is None else lambda event: None  # `rewarp` says itself what stays
        kept = _kept(out, earlier, videos, plan.hashes, config, options, tell)
        # Finished work on videos that are not among the inputs this time is kept, too.
        names = {video.file for video in videos}
        absent = [staged for file, staged in staged_videos.items() if file not in names]
        clear_leftovers(out.work, [*plan.staged_videos.values(), *absent])
        if config.mean_shape != "shipped":
            save_shape(shape, out.shards / SHAPE_FILE, config.mean_shape)
        tracked_file = out.shards / _TRACKED if source is None else source.path
        make_task = TaskMaker(
            config,
            out.work,
            options.video_timeout,
            shape=shape,
            landmarks=inputs.landmarks,
            tracked=tracked_file if tracked_file.is_file() else None,
            contents={}
            if source is None
            else dict(zip(source.videos["file"], source.videos["sha256"], strict=True)),
        )
        on_event(Event("planned", plan.n_done, len(plan.todo)))
        work = ClusterRun(videos, plan, out, config, options, on_event, make_task)
        work.execute()
        videos = with_kept(videos, kept)
        assembled = assemble(
            videos,
            work.finished | kept,
            known=known,
            table=inputs.labels,
            found=inputs.labels_beside,
            modified={**{file: earlier[file].modified for file in kept}, **plan.modified},
        )
        if options.part is None:
            remember_labels(out.shards, known, {video.file for video in videos})
            write_assembled(
                out.index,
                assembled,
                Provenance(config, library_versions(), MODEL_SHA256),
                mean_shape=shape.points,
                triangles=shape.triangles,
            )
            out.end_forced(obsolete - {item.shard.name for item in kept.values()})
            shutil.rmtree((out.shards / _TRACKED).parent, ignore_errors=True)
            unmark(out.shards)
        else:
            mark_done(out.shards, options.part, in_all)
        clear_leftovers(out.work, absent)  # what workers that were killed in this run left
    seconds = time.monotonic() - started
    return dataclasses.replace(
        summarize(out.index, assembled, options.part),
        seconds=seconds,
        frames_per_second=work.n_frames / max(seconds, 1e-9),
        done_before=plan.n_done,
        done_now=len(plan.todo),
        kept=frozenset(kept),
    )


def _track(
    inputs: PrepInputs,
    out: OutputFolder,
    config: PrepConfig,
    options: RunOptions,
    on_event: Callable[[Event], None],
) -> FaceDataset:
    """Prepare the videos with the shipped shape, for the mean of their landmarks. Raises NemoError."""
    if options.part is not None:
        raise SettingsError(
            "a mean shape from the data needs all videos in one run: leave out `part`, or make the shape once and "
            "give it to every part (`mean_shape=FILE`; another out.h5 will do).",
            "mean_shape",
            "part",
        )
    on_event(Event("stage", text="First pass: tracking, for the mean shape."))
    index = out.shards / _TRACKED
    index.parent.mkdir(mode=0o700, exist_ok=True)
    index.unlink(missing_ok=True)  # of an interrupted run over other videos; what is done is in its shards
    shipped = dataclasses.replace(config, mean_shape="shipped", mean_shape_sha256="")
    prep(PrepInputs(inputs.videos, inputs.landmarks), index, shipped, options, on_event=on_event)
    return FaceDataset(index)


def _index(out: OutputFolder) -> FaceDataset | None:
    """The index that is there already. Refuses to overwrite what is not an index of ours."""
    if not out.index.exists():
        return None
    try:
        data = FaceDataset(out.index, check=False)
    except NemoError as error:
        raise OutputError(
            f"{error} Remove or rename it and run again"
            f"{': finished videos are in the shards, labels are not' if any(out.shards.glob('*.h5')) else ''}.",
            out.index,
        ) from None
    if data.packed:
        raise OutputError(f"{out.index} is one packed file; write to another name.", out.index)
    if data.shards_folder != out.shards:
        raise OutputError(
            f"{out.index} takes its shards from {data.shards_folder.name}, not from {out.shards.name}: "
            "rename both alike, or write to another output.",
            out.index,
        )
    return data


def _known(out: OutputFolder, data: FaceDataset | None, source: FaceDataset | None) -> KnownLabels:
    """Labels of the index that is there already, those of videos that were dropped from it, and those of `source`."""
    found = [recall_labels(out.shards), *(known_labels(each) for each in (source, data) if each is not None)]
    return KnownLabels(
        {key: labels for each in found for key, labels in each.by_file.items()},
        {key: labels for each in found for key, labels in each.by_content.items()},
        any(each.synthetic for each in found),
        {name: kind for each in found for name, kind in each.unknown.items()},
    )


def _shards(out: OutputFolder, config: PrepConfig, force: bool) -> tuple[list[Shard], set[str] | None]:
    """Shards that count, and those that a forced run replaces (None: no forced run was begun before)."""
    fingerprint = config.fingerprint()
    obsolete = out.obsolete(fingerprint)
    try:
        shards = read_shards(out.shards)
    except NemoError as error:
        raise OutputError(
            f"{error} Remove that file and run again: its videos are done again.", out.shards
        ) from None
    if force and obsolete is None:
        names = {shard.name for shard in shards}
        out.begin_forced(fingerprint, names)
        for staged in read_all_staged(out.work).values():
            remove_staged(out.work, staged)
        return [], names
    return [shard for shard in shards if not obsolete or shard.name not in obsolete], obsolete


def _kept(
    out: OutputFolder,
    earlier: Mapping[str, Earlier],
    videos: Sequence[VideoFile],
    hashes: Mapping[str, str],
    config: PrepConfig,
    options: RunOptions,
    on_event: Callable[[Event], None],
) -> dict[str, Finished]:
    """Videos of the index that are not among the inputs and stay; those that do not are named first."""
    if not options.force and not options.prune:
        check_same_names(earlier, videos, hashes, out.index)
    absent = absent_files(earlier, videos, hashes)
    if not absent:
        return {}
    be = "is" if len(absent) == 1 else "are"
    what = f"{pluralize(len(absent), 'video')} of {out.index.name} that {be} not among the inputs"
    if options.prune:
        text = f"`prune` drops {what}: {listed(absent, 20)}. Frames and labels stay in {out.shards.name}."
        on_event(Event("note", len(absent), text=text))
        return {}
    kept = find_kept(absent, earlier, read_shards(out.shards), config, MODEL_SHA256, out.index)
    on_event(Event("stage", len(absent), text=f"Keeping {what} (`prune` would drop them)."))
    return kept


def _check_forced(
    out: OutputFolder,
    earlier: Mapping[str, Earlier],
    videos: Sequence[VideoFile],
    config: PrepConfig,
    shape: MeanShape | None,
) -> None:
    """Before anything is thrown away: what is not done again must fit the new settings. Raises NemoError."""
    absent = absent_files(earlier, videos, {})
    if absent and shape is None:
        raise SettingsError(
            f"a new mean shape needs all videos, and {pluralize(len(absent), 'video')} of {out.index} "
            f"({listed(absent)}) would not be among them: name them too, or add `prune` to drop them.",
            "mean_shape",
            "prune",
        )
    if absent and shape is not None:
        settings = with_shape(config, shape)
        find_kept(absent, earlier, read_shards(out.shards), settings, MODEL_SHA256, out.index)


def preview(
    inputs: PrepInputs,
    output: Path,
    config: PrepConfig,
    *,
    force: bool = False,
    prune: bool = False,
    mean_shape: MeanShape | None = None,
) -> tuple[set[str], list[str]]:
    """Names (`file`) of the videos that a run would find done, and of those in `output` that are not among the inputs.

    Writes nothing. Arguments as for `prep`.

    Raises:
        NemoError: such a run would refuse to start.
    """
    config = dataclasses.replace(config, algorithm=ALGORITHM_VERSION)
    out, videos = OutputFolder(output), inputs.videos
    earlier = earlier_videos(_index(out))
    shape = known_shape(out, config, mean_shape, force) if out.shards.is_dir() else None
    if force and not prune:
        _check_forced(out, earlier, videos, config, shape)
    if force or shape is None:
        return set(), absent_files(earlier, videos, {})
    config = with_shape(config, shape)
    obsolete = out.obsolete(config.fingerprint()) or set()
    shards = [shard for shard in read_shards(out.shards) if shard.name not in obsolete]
    staged_videos = read_all_staged(out.work, config)
    config = settings_there(shards, staged_videos.values(), config)
    check_settings(shards, staged_videos.values(), config, MODEL_SHA256, out.index)
    digests = {file: item.sha256 for file, item in inputs.landmarks.items()}
    seen = {file: item.seen for file, item in earlier.items()}
    plan = make_plan(videos, shards, staged_videos, landmarks=digests, seen=seen, threads=default_workers())
    check_method(plan, config, out.index)
    if not prune:
        check_same_names(earlier, videos, plan.hashes, out.index)
    return set(plan.finished) | set(plan.staged_videos), absent_files(earlier, videos, plan.hashes)
