"""One person in a video: from observations to segments of finished records on disk, in bounded memory.

    observation -> gaps -> (delay line) -> smoothed landmarks -> warped face -> record

The delay line is as long as the smoother's support: a frame's patch of luma waits until no later frame can change its
landmarks.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.stages.blendshapes import blendshapes
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.gaps import SegmentBuilder, SegmentFrame
from nemo_pipeline.stages.headframe import METHODS
from nemo_pipeline.stages.quality import FaceQuality
from nemo_pipeline.stages.smooth import StreamSmoother
from nemo_pipeline.stages.track import Observation
from nemo_pipeline.stages.warp import FaceWarp, Patch
from nemo_pipeline.status import Status
from nemo_pipeline.store.schema import record_dtype

# Frames are smoothed and written this many at a time: the more, the fewer are smoothed again with the next ones; and
# fewer where faces are large, since a part of each picture waits so long.
_BLOCK, _LEAST_BLOCK = 96, 16
_BLOCK_PIXELS = 1 << 20


@dataclasses.dataclass(slots=True)
class Segment:
    """A stretch of one person, half-open in records of the spool and in frames of the source; `faults` counts the faces
    that are of no use."""

    start: int
    stop: int
    first_frame: int
    last_frame: int
    n_interpolated: int
    faults: Counter[Status] = dataclasses.field(default_factory=Counter)

    @property
    def length(self) -> int:
        """Frames."""
        return self.stop - self.start


@dataclasses.dataclass(slots=True)
class Tally:
    """What is counted of one person over the whole video."""

    n_seen: int = 0
    n_turned: int = 0
    longest: int = 0
    size_sum: float = 0.0
    off_centre_sum: float = 0.0
    sizes: list[float] = dataclasses.field(default_factory=list)

    def add(self, seen: Observation, frame: Frame, turned: bool) -> None:
        """One more frame with this person's face."""
        self.n_seen += 1
        self.n_turned += turned
        self.size_sum += seen.eye_distance_px
        x, y = (seen.landmarks.sum(axis=0) / len(seen.landmarks)).tolist()
        self.off_centre_sum += math.hypot(x - (frame.width - 1) / 2, y - (frame.height - 1) / 2) / frame.width
        if len(self.sizes) < 1000:  # a median needs no more, and memory must not grow with the video
            self.sizes.append(seen.eye_distance_px)

    @property
    def eye_distance_px(self) -> float:
        """Median distance of the outer eye corners, pixels."""
        return float(np.median(self.sizes)) if self.sizes else 0.0


class FaceWriter:
    """Completes records and writes them: (delay line) -> smoothed landmarks -> warped face -> spool.

    Args:
        spool: the record file to write.
        config: settings of the preparation.
        warp: the warp to the mean shape and the measures on warped faces, shared between people; None: points alone,
            faces are left black.
    """

    def __init__(self, spool: Path, config: PrepConfig, warp: tuple[FaceWarp, FaceQuality] | None) -> None:
        self.spool = spool
        self._config, self._warp = config, warp
        self._dtype = record_dtype(config)
        self._at_once = min(_BLOCK, max(_LEAST_BLOCK, _BLOCK_PIXELS // config.size**2))
        self._file: BinaryIO | None = None
        self._n_records = 0
        self._begin()

    def _begin(self) -> None:
        """A new segment."""
        self._smoother = StreamSmoother(*METHODS[self._config.smooth])
        self._fresh: list[NDArray[np.float64]] = []
        self._waiting: list[tuple[NDArray[np.void], Patch | None]] = []
        self._segment = Segment(self._n_records, self._n_records, -1, -1, 0)

    def push(self, frame: Frame, record: NDArray[np.void]) -> None:
        """The next frame of the segment, and its record without smoothed landmarks, face and sharpness."""
        # From the points as they are stored, here and below: out.h5's faces are those of out.h5's landmarks.
        patch = None if self._warp is None else self._warp[0].cut_patch(frame, record["landmarks_raw"])
        self._waiting.append((record, patch))
        self._fresh.append(record["landmarks_raw"].astype(np.float64))
        segment = self._segment
        segment.first_frame = frame.index if segment.first_frame < 0 else segment.first_frame
        segment.last_frame = frame.index
        segment.n_interpolated += not record["tracked"]
        if len(self._fresh) >= self._at_once:
            self._write(self._smoother.push(np.stack(self._fresh)))
            self._fresh = []

    def end(self) -> Segment:
        """The segment is complete: write what waits. One with fewer than `min_frames` frames is taken back."""
        if self._fresh:
            self._write(self._smoother.push(np.stack(self._fresh)))
        if self._waiting:
            self._write(self._smoother.finish())
        segment = self._segment
        segment.stop = self._n_records
        if segment.length < self._config.min_frames and self._file is not None:
            self._n_records = segment.start
            self._file.seek(segment.start * self._dtype.itemsize)
            self._file.truncate()
        self._begin()
        return segment

    def finish(self) -> None:
        """No more segments: everything is forced to disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def discard(self) -> None:
        """Close and delete the spool."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self.spool.unlink(missing_ok=True)

    def _write(self, smoothed: NDArray[np.float64]) -> None:
        """Warp and write the oldest waiting frames, whose landmarks are now final."""
        if len(smoothed) == 0:
            return
        done, self._waiting = self._waiting[: len(smoothed)], self._waiting[len(smoothed) :]
        block = np.zeros(len(done), self._dtype)
        for i, ((record, patch), landmarks) in enumerate(zip(done, smoothed, strict=True)):
            record["landmarks"] = landmarks
            if self._config.blendshapes:  # from the mesh as it is stored
                record["blendshapes"] = blendshapes(record["mesh"])
            if self._warp is not None and patch is not None:
                warp, quality = self._warp
                face = warp.warp_patch(patch, record["landmarks"])
                record["frames"] = face
                for name, value in quality.measures(face).items():
                    record[name] = value
                if (fault := quality.fault(face)) is not None:
                    self._segment.faults[fault] += 1
            block[i] = record
        if self._file is None:
            self._file = self.spool.open("wb")
        self._file.write(block.tobytes())
        self._n_records += len(block)


class PersonRecorder:
    """Turns one person's observations into records in a spool file. Arguments as of `FaceWriter`."""

    def __init__(self, spool: Path, config: PrepConfig, warp: tuple[FaceWarp, FaceQuality] | None) -> None:
        self.spool = spool
        self.segments: list[Segment] = []
        self.tally = Tally()
        self._config = config
        self._builder: SegmentBuilder[Frame] = SegmentBuilder(config.max_gap_seconds)
        self._writer = FaceWriter(spool, config, warp)
        self._dtype = record_dtype(config)

    def push(self, frame: Frame, seen: Observation | None, n_faces: int) -> None:
        """The next frame of the video, with this person's observation or None."""
        if seen is not None:
            turned = abs(seen.pose[0]) > self._config.max_yaw_degrees
            self.tally.add(seen, frame, turned)
            if turned:
                seen = None
        for entry in self._builder.push(frame.index, frame.time, seen, n_faces, frame):
            self._take(entry)

    def finish(self) -> None:
        """End of the video: the rest is written and forced to disk."""
        for entry in self._builder.finish():
            self._take(entry)
        self._writer.finish()

    def discard(self) -> None:
        """Close and delete the spool."""
        self._writer.discard()

    def _take(self, entry: SegmentFrame[Frame] | None) -> None:
        if entry is not None:
            self._writer.push(entry.payload, self._record(entry))
            return
        segment = self._writer.end()
        self.tally.longest = max(self.tally.longest, segment.length)
        if segment.length >= self._config.min_frames:
            self.segments.append(segment)

    def _record(self, entry: SegmentFrame[Frame]) -> NDArray[np.void]:
        """All of a record but the smoothed landmarks, the face and its sharpness."""
        seen = entry.seen
        record = np.zeros((), self._dtype)
        record["landmarks_raw"] = seen.landmarks
        if self._config.mesh:
            record["mesh"] = seen.mesh
        record["timestamps"] = entry.time
        record["tracked"] = entry.tracked
        record["pose"] = seen.pose
        record["frame_index"] = entry.index
        record["eye_distance_px"] = seen.eye_distance_px
        record["face_presence"] = seen.face_presence
        record["n_faces"] = min(entry.n_faces, 255)
        return record
