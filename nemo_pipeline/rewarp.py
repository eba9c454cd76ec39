"""Warp a video again at the points that a prepared file holds: another size, margin, mean shape or smoothing,
or with blendshapes.

What comes out is, to the bit, what preparing the video with those settings gives: faces depend on the stored points and
the video's pictures alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoInfo, VideoResult, VideoRow
from nemo_pipeline.person import FaceWriter
from nemo_pipeline.stages.decode import DecodeError, VideoReader
from nemo_pipeline.stages.quality import FACE_FAULTS, FaceQuality, why_unusable
from nemo_pipeline.stages.warp import FaceWarp
from nemo_pipeline.status import Status
from nemo_pipeline.store.reader import FaceDataset, FaceVideo
from nemo_pipeline.store.schema import FRAME_FIELDS, record_dtype

#: The settings that may change without tracking again.
WARP_SETTINGS = ("size", "margin", "smooth", "mean_shape", "mean_shape_sha256", "blendshapes")
_BLOCK = 256


def same_points(a: PrepConfig, b: PrepConfig) -> bool:
    """Whether two settings give the same points, as tracked."""
    return dataclasses.replace(b, **{name: getattr(a, name) for name in WARP_SETTINGS}) == a


def tracked_rows(data: FaceDataset, file: str, sha256: str) -> list[FaceVideo]:
    """The rows of a video, known by its content, in a prepared file; none where one of them lacks points."""
    alike = [row for row in data.rows if sha256 and data.videos["sha256"][row] == sha256]
    names = [data.videos["file"][row] for row in alike]
    name = file if file in names else names[0] if names else ""
    rows = [data[row] for row in alike if data.videos["file"][row] == name]
    # A row whose faces were of no use has no points, though its video may have some.
    return [] if any(row.status.retry or row.status in FACE_FAULTS for row in rows) else rows


def rewarp_video(
    path: Path,
    config: PrepConfig,
    spool_stem: Path,
    rows: Sequence[FaceVideo],
    *,
    mean_shape: ArrayLike | None = None,
    triangles: ArrayLike | None = None,
    progress: Callable[[int], None] | None = None,
) -> VideoResult | None:
    """Decode a video again and warp the faces at the points of its rows in a prepared file.

    Args:
        path: the video.
        config: settings; they differ from the file's in `WARP_SETTINGS` alone.
        spool_stem: path and beginning of the name of the record files, `<stem>.r<K>.records`.
        rows: all rows of the video, from `tracked_rows`.
        mean_shape, triangles: as of `process_video`.
        progress: called now and then with the number of frames decoded so far.

    Returns:
        As `process_video`; None where the decoder gives other frames than those that the file is of.
    """
    started = time.perf_counter()
    warp = FaceWarp(mean_shape, config.size, config.margin, triangles)
    quality = FaceQuality(warp.template)
    writers = [
        FaceWriter(spool_stem.with_name(f"{spool_stem.name}.r{k}.records"), config, (warp, quality))
        for k in range(len(rows))
    ]
    done, failed = None, None
    try:
        done = _warp(path, config, rows, writers, progress)
    except DecodeError as error:
        failed = VideoResult.failed(error.status, str(error))
    if done is None:
        for writer in writers:
            writer.discard()
        return failed
    first = rows[0]
    facts = {f.name: getattr(first, f.name) for f in dataclasses.fields(VideoInfo) if hasattr(first, f.name)}
    return VideoResult(
        VideoInfo(**facts),
        first.n_decoded,
        tuple(done),
        {"total": time.perf_counter() - started},
        tuple(filter(None, [_message(first)[1]])),
        first.dataset.layout["landmarks_sha256"][first.row],
    )


def _warp(
    path: Path,
    config: PrepConfig,
    rows: Sequence[FaceVideo],
    writers: Sequence[FaceWriter],
    progress: Callable[[int], None] | None,
) -> list[VideoRow] | None:
    """The rows, made again; None where not all of their frames come again. Raises DecodeError."""
    records = [_records(row, config) for row in rows]
    following = [next(each, None) for each in records]
    if any(record is not None for record in following):
        with VideoReader(path, rows[0].stream) as reader:
            for frame in reader:
                for k, record in enumerate(following):
                    if record is not None and record["frame_index"] == frame.index:
                        if record["timestamps"] != frame.time:
                            return None
                        writers[k].push(frame, record)
                        following[k] = next(records[k], None)
                if progress is not None and frame.index % 16 == 0:
                    progress(frame.index + 1)
    if any(record is not None for record in following):
        return None
    return [
        _finish(row, writer) if row.length else _as_it_was(row)
        for row, writer in zip(rows, writers, strict=True)
    ]


def _records(row: FaceVideo, config: PrepConfig) -> Iterator[NDArray[np.void]]:
    """A row's records, without what is made again."""
    dtype = record_dtype(config)
    for start in range(0, row.length, _BLOCK):
        block = np.zeros(min(_BLOCK, row.length - start), dtype)
        for name in block.dtype.names or ():
            if FRAME_FIELDS[name].of == "tracking":
                block[name] = row.read(name, start, start + _BLOCK)
        yield from (block[i] for i in range(len(block)))


def _finish(row: FaceVideo, writer: FaceWriter) -> VideoRow:
    segment = writer.end()
    writer.finish()
    if (why := why_unusable(segment.faults, segment.length)) is not None:
        writer.discard()
        return VideoRow(row.person, row.segment, "", 0, 0, 0, *why)
    return dataclasses.replace(
        _as_it_was(row), spool=writer.spool.name, start=segment.start, stop=segment.stop
    )


def _as_it_was(row: FaceVideo) -> VideoRow:
    return VideoRow(row.person, row.segment, "", 0, 0, row.n_interpolated, row.status, _message(row)[0])


def _message(row: FaceVideo) -> tuple[str, str]:
    """A row's own message, and the warnings about its video: the inverse of `VideoResult.message`."""
    if row.status is Status.OK:
        return "", row.message
    own, _, warnings = row.message.partition(" Also: ")
    return own, warnings.removesuffix(".")
