"""Warp a video anew from landmarks that were tracked before: the second pass of a mean shape made from the data.

What comes out is, to the bit, what one pass with that shape gives: the faces depend on the stored landmarks alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoResult, VideoRow
from nemo_pipeline.rows import blank_row, mostly_blank
from nemo_pipeline.stages.decode import DecodeError, VideoReader
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.quality import FaceQuality
from nemo_pipeline.stages.warp import FaceWarp
from nemo_pipeline.store.spool import read_records


def rewarp_video(
    path: Path,
    config: PrepConfig,
    spool_stem: Path,
    tracked: VideoResult,
    folder: Path,
    *,
    mean_shape: ArrayLike,
    triangles: ArrayLike | None = None,
    progress: Callable[[int], None] | None = None,
) -> VideoResult:
    """Decode a video again and warp the faces at the landmarks of an earlier result.

    Args:
        path: the same video.
        config: settings; they differ from the earlier ones in the mean shape alone.
        spool_stem: record files are written beside it, as `<stem>.r<K>.records`.
        tracked: the earlier result, whose record files lie in `folder`.
        mean_shape, triangles: (68, 2) and (K, 3) of the new shape.
        progress: called now and then with the number of frames decoded so far.

    Returns:
        As `process_video`.
    """
    started = time.perf_counter()
    warp = FaceWarp(mean_shape, config.size, config.margin, triangles)
    quality = FaceQuality(warp.template)
    todo = [
        _Row(spool_stem.with_name(f"{spool_stem.name}.r{k}.records"), row, folder, config, warp, quality)
        for k, row in enumerate(tracked.rows)
        if row.spool
    ]
    try:
        with VideoReader(path, tracked.info.stream) as reader:
            for frame in reader:
                for one in todo:
                    one.push(frame)
                if progress is not None and frame.index % 16 == 0:
                    progress(frame.index + 1)
    except DecodeError as error:
        return VideoResult.failed(error.status, str(error))
    done = {id(one.row): one.finish() for one in todo}
    rows = tuple(done.get(id(row), row) for row in tracked.rows)
    seconds = {"total": time.perf_counter() - started}
    return VideoResult(
        tracked.info, tracked.n_decoded, rows, seconds, tracked.warnings, tracked.landmarks_sha256
    )


class _Row:
    """One row's records, with their faces made anew."""

    def __init__(
        self,
        spool: Path,
        row: VideoRow,
        folder: Path,
        config: PrepConfig,
        warp: FaceWarp,
        quality: FaceQuality,
    ) -> None:
        self.row = row
        self._spool, self._warp, self._quality = spool, warp, quality
        blocks = read_records(folder / row.spool, row.start, row.stop, config)
        self._records: Iterator[NDArray[np.void]] = (block[i] for block in blocks for i in range(len(block)))
        self._next = next(self._records, None)
        self._n = self._n_blank = 0
        self._file = spool.open("wb")

    def push(self, frame: Frame) -> None:
        """The next frame of the video."""
        record = self._next
        if record is None or record["frame_index"] != frame.index:
            return
        patch = self._warp.cut_patch(frame, record["landmarks_raw"])
        face = self._warp.warp_patch(patch, record["landmarks"])
        record["frames"] = face
        record["sharpness"] = self._quality.sharpness(face)
        self._n += 1
        self._n_blank += self._quality.blank(face)
        self._file.write(record.tobytes())
        self._next = next(self._records, None)

    def finish(self) -> VideoRow:
        """The video has ended."""
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        row = self.row
        if self._next is not None:
            raise RuntimeError(f"{row.n_kept - self._n} frames of a second pass were not decoded again")
        if mostly_blank(self._n_blank, self._n):
            self._spool.unlink()
            return blank_row(row.suffix, self._n_blank, self._n)
        return VideoRow(
            row.suffix, self._spool.name, 0, self._n, row.n_kept, row.n_interpolated, row.status, row.message
        )
