"""The whole flow of one video: decode -> track -> (per person: gaps, smooth, warp, measure) -> rows.

`process_video` is what `nemo prep` and `nemo predict` run in a child process; `prep_video`, `track_video` and
`landmarks_in_image` are for notebooks.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoInfo, VideoResult
from nemo_pipeline.errors import DataError
from nemo_pipeline.person import PersonRecorder, Tally
from nemo_pipeline.rows import make_rows, subject_first, with_damage
from nemo_pipeline.stages.decode import DecodeError
from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.frame import as_picture
from nemo_pipeline.stages.gaps import SegmentBuilder, SegmentFrame
from nemo_pipeline.stages.given import GivenLandmarks
from nemo_pipeline.stages.headframe import METHODS
from nemo_pipeline.stages.landmarks import Engine
from nemo_pipeline.stages.openface import LandmarksError, content_hash
from nemo_pipeline.stages.quality import FaceQuality
from nemo_pipeline.stages.stills import faces_in_picture
from nemo_pipeline.stages.streams import open_video
from nemo_pipeline.stages.track import Observation, Tracker
from nemo_pipeline.stages.unseen import why_no_face
from nemo_pipeline.stages.warp import FaceWarp
from nemo_pipeline.status import Status
from nemo_pipeline.still import process_still
from nemo_pipeline.store.schema import record_dtype


def process_video(
    path: str | Path,
    config: PrepConfig,
    spool_stem: Path,
    *,
    mean_shape: ArrayLike | None = None,
    triangles: ArrayLike | None = None,
    landmarks: str | Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> VideoResult:
    """Prepare one video in this process, in memory that does not depend on its length.

    Args:
        path: the video.
        config: settings.
        spool_stem: record files are written beside it, named after it: `<stem>.p<K>.records`, raw records of
            `store.schema.record_dtype(config)`, on disk when this returns.
        mean_shape: (68, 2), where `config.mean_shape` is not "shipped".
        triangles: (K, 3) of that shape; by default its Delaunay triangles.
        landmarks: OpenFace's CSV, where `config.landmarks_source` is "openface".
        progress: called now and then with the number of frames decoded so far.

    Returns:
        The result, with at least one row. A bad video is a status with a sentence, never an exception.

    Raises:
        NemoError: the landmark engine cannot be loaded at all.
        OSError: the spool cannot be written (disk full, read-only).
    """
    started = time.perf_counter()
    if (config.landmarks_source == "track") != (landmarks is None):
        raise ValueError("landmarks must be given exactly when config.landmarks_source is not 'track'.")
    if (config.mean_shape == "shipped") != (mean_shape is None):
        raise ValueError("mean_shape must be given exactly when config.mean_shape is not 'shipped'.")
    shape = None if mean_shape is None else np.asarray(mean_shape, np.float64).tobytes()
    corners = None if triangles is None else np.asarray(triangles, np.int32).tobytes()
    warp, quality = _geometry(shape, config.size, config.margin, corners)
    engine = _engine(config.engine) if landmarks is None else None
    if config.stills and engine is not None:
        return process_still(Path(path), config, spool_stem, engine, warp, quality)
    digest = ""
    info, n_decoded = VideoInfo(), 0
    people: dict[int, PersonRecorder] = {}
    try:
        with open_video(path, config.stream, engine) as reader:
            source: Tracker | GivenLandmarks
            if engine is not None:
                source = Tracker(engine, config.follow)
            else:
                digest = content_hash(Path(str(landmarks)))
                source = GivenLandmarks(Path(str(landmarks)), config.min_confidence, reader.info.fps)
            for frame in reader:
                info, n_decoded = reader.info, reader.report.n_frames
                by_number = {one.person: one for one in source.step(frame)}
                for number in by_number.keys() - people.keys():
                    spool = spool_stem.with_name(f"{spool_stem.name}.p{number}.records")
                    people[number] = PersonRecorder(spool, config, warp, quality)
                for number, person in people.items():
                    person.push(frame, by_number.get(number), source.n_faces)
                if progress is not None and frame.index % 16 == 0:
                    progress(frame.index + 1)
            info, report = reader.info, reader.report
            if isinstance(source, GivenLandmarks) and report.n_frames:
                source.finish(report.n_frames)
    except (DecodeError, LandmarksError) as error:
        _discard(people.values())
        status = error.status if isinstance(error, DecodeError) else Status.LANDMARKS_ERROR
        failed = VideoResult.failed(status, str(error), info, n_decoded)
        return dataclasses.replace(failed, landmarks_sha256=digest)
    except BaseException:
        _discard(people.values())
        raise
    for person in people.values():
        person.finish()
    if progress is not None:
        progress(report.n_frames)
    trusted = {number: person for number, person in people.items() if source.trusted(number)}
    rows = make_rows(trusted, config, report)
    if rows[0].status == Status.NO_FACE:
        if isinstance(source, GivenLandmarks):
            why = source.why_none(report.n_frames)
        else:
            why = why_no_face(path, info.stream, _engine(config.engine), report.n_frames)
        rows = [dataclasses.replace(rows[0], message=with_damage(why, report))]
    used = {row.spool for row in rows}
    _discard(person for person in people.values() if person.spool.name not in used)
    seconds = {"total": time.perf_counter() - started}
    return VideoResult(info, report.n_frames, tuple(rows), seconds, report.notes, digest)


def _discard(people: Iterable[PersonRecorder]) -> None:
    for person in people:
        person.discard()


@functools.lru_cache(maxsize=1)
def _geometry(
    mean_shape: bytes | None, size: int, margin: float, triangles: bytes | None
) -> tuple[FaceWarp, FaceQuality]:
    """The warp of a process, made once: it costs as much as a look at a still picture."""
    shape = None if mean_shape is None else np.frombuffer(mean_shape).reshape(-1, 2)
    corners = None if triangles is None else np.frombuffer(triangles, np.int32).reshape(-1, 3)
    warp = FaceWarp(shape, size, margin, corners)
    return warp, FaceQuality(warp.template)


@functools.cache
def _engine(name: str) -> Engine:
    """One engine per process: loading the networks costs more than a short clip."""
    return load_engine(name)


@dataclasses.dataclass(frozen=True)
class PreparedVideo:
    """One prepared row of a video, in memory. `records` has one element per frame, with the fields of out.h5.

    Any field of a record is an attribute too: `.frames` (T, size, size) uint8, `.landmarks` (T, 68, 2)
    float32 smoothed, `.landmarks_raw`, `.timestamps` (T,) float64 seconds, `.tracked` (T,) bool, `.pose`
    (T, 3) degrees, ...
    """

    info: VideoInfo
    n_decoded: int
    status: str
    message: str
    person: int
    segment: int
    records: NDArray[np.void]

    def __getattr__(self, name: str) -> NDArray[np.generic]:
        names = self.__dict__["records"].dtype.names if "records" in self.__dict__ else ()
        if name in names:
            return self.records[name]
        raise AttributeError(name)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return (
            f"PreparedVideo({self.status}, {len(self.records)} of {self.n_decoded} frames, "
            f"{self.info.width}x{self.info.height} at {self.info.fps:.3g}/s)"
        )


def prep_video(
    path: str | Path,
    config: PrepConfig | None = None,
    *,
    mean_shape: ArrayLike | None = None,
    landmarks: str | Path | None = None,
) -> PreparedVideo:
    """Prepare one video in this process and return it in memory (the first row if there are several).

    Never raises for a bad video: look at `.status` and `.message`. `mean_shape` and `landmarks` as in
    `process_video`.

    Examples:
        >>> from nemo_pipeline import PrepConfig, prep_video
        >>> video = prep_video("clip.mp4", PrepConfig(size=64))
        >>> video.status, video.frames.shape
        ('ok', (10, 64, 64))
    """
    return prep_video_rows(path, config, mean_shape=mean_shape, landmarks=landmarks)[0]


def prep_video_rows(
    path: str | Path,
    config: PrepConfig | None = None,
    *,
    mean_shape: ArrayLike | None = None,
    landmarks: str | Path | None = None,
) -> list[PreparedVideo]:
    """As `prep_video`, with every row (`follow="all"`, `segments="all"`)."""
    config = config or PrepConfig()
    dtype = record_dtype(config)
    with tempfile.TemporaryDirectory(prefix="nemo-") as folder:
        stem = Path(folder) / "video"
        result = process_video(path, config, stem, mean_shape=mean_shape, landmarks=landmarks)
        out = []
        for row in result.rows:
            records = np.zeros(0, dtype)
            if row.spool:
                records = np.fromfile(
                    Path(folder) / row.spool,
                    dtype,
                    count=row.stop - row.start,
                    offset=row.start * dtype.itemsize,
                )
            out.append(
                PreparedVideo(
                    result.info,
                    result.n_decoded,
                    row.status,
                    result.message(row),
                    row.person,
                    row.segment,
                    records,
                )
            )
    return out


@dataclasses.dataclass(frozen=True)
class VideoTrack:
    """One subject's face in every decoded frame of a video.

    Attributes:
        landmarks: (T, 68, 2) float64, smoothed as `config.smooth` says within each segment, source pixels; NaN
            without a face.
        landmarks_raw: (T, 68, 2) float64, as tracked (interpolated where not tracked); NaN without a face.
        timestamps: (T,) float64, seconds; NaN where the frame is damaged.
        tracked: (T,) bool: a face was seen (False where interpolated or absent).
        pose: (T, 3) float64, yaw, pitch, roll in degrees; NaN without a face.
        mesh: (T, 478, 3) float32, source pixels; NaN without a face.
        face_presence: (T,) float32 presence; NaN where unknown.
        info: properties of the stream.
    """

    landmarks: NDArray[np.float64]
    landmarks_raw: NDArray[np.float64]
    timestamps: NDArray[np.float64]
    tracked: NDArray[np.bool_]
    pose: NDArray[np.float64]
    mesh: NDArray[np.float32]
    face_presence: NDArray[np.float32]
    info: VideoInfo

    def __len__(self) -> int:
        return len(self.timestamps)


def track_video(path: str | Path, config: PrepConfig | None = None) -> VideoTrack:
    """Track the subject of a video through every decoded frame.

    The subject is the one that `nemo prep` chooses. All segments of at least `config.min_frames` are in the arrays,
    whatever `config.segments` says.

    Examples:
        >>> from nemo_pipeline import track_video
        >>> track = track_video("clip.mp4")
        >>> track.landmarks.shape, bool(track.tracked.all())
        ((10, 68, 2), True)

    Raises:
        NemoError: the file cannot be read as a video (the sentence says why).
    """
    config = config or PrepConfig()
    people: dict[int, dict[int, Observation]] = {}
    tallies: dict[int, Tally] = {}
    times: dict[int, float] = {}
    try:
        engine = _engine(config.engine)
        with open_video(path, config.stream, engine) as reader:
            tracker = Tracker(engine, config.follow)
            for frame in reader:
                times[frame.index] = frame.time
                for seen in tracker.step(frame):
                    turned = abs(seen.pose[0]) > config.max_yaw_degrees
                    tallies.setdefault(seen.person, Tally()).add(seen, frame, turned)
                    frames = people.setdefault(seen.person, {})
                    if not turned:
                        frames[frame.index] = seen
            info, n_frames = reader.info, reader.report.n_frames
    except DecodeError as error:
        raise DataError(f"{path}: {error}", path) from None
    segments = {n: _segments(seen, times, config) for n, seen in people.items() if tracker.trusted(n)}
    chosen = subject_first({n: tallies[n] for n, found in segments.items() if found}, config.follow)
    timestamps = np.array([times.get(i, np.nan) for i in range(n_frames)])
    return _assemble(segments[chosen[0]] if chosen else [], timestamps, info, config)


def _segments(
    seen: dict[int, Observation], times: dict[int, float], config: PrepConfig
) -> list[list[SegmentFrame[None]]]:
    """One person's segments of at least `config.min_frames`, gaps filled."""
    builder: SegmentBuilder[None] = SegmentBuilder(config.max_gap_seconds)
    segments: list[list[SegmentFrame[None]]] = [[]]
    for i, when in times.items():
        for entry in builder.push(i, when, seen.get(i), 1, None):
            if entry is None:
                segments.append([])
            else:
                segments[-1].append(entry)
    return [segment for segment in segments if len(segment) >= config.min_frames]


def _assemble(
    segments: list[list[SegmentFrame[None]]], times: NDArray[np.float64], info: VideoInfo, config: PrepConfig
) -> VideoTrack:
    """Arrays over all frames from one person's segments, each smoothed by itself."""
    n = len(times)
    nan = float("nan")
    track = VideoTrack(
        landmarks=np.full((n, 68, 2), nan),
        landmarks_raw=np.full((n, 68, 2), nan),
        timestamps=times,
        tracked=np.zeros(n, dtype=bool),
        pose=np.full((n, 3), nan),
        mesh=np.full((n, 478, 3), nan, dtype=np.float32),
        face_presence=np.full(n, nan, dtype=np.float32),
        info=info,
    )
    for segment in segments:
        where = [e.index for e in segment]
        raw = np.stack([e.seen.landmarks for e in segment])
        track.landmarks_raw[where] = raw
        # From the points as a file would store them, so that both give the same.
        track.landmarks[where] = METHODS[config.smooth][0](raw.astype(np.float32))
        track.tracked[where] = [e.tracked for e in segment]
        track.pose[where] = [e.seen.pose for e in segment]
        track.mesh[where] = np.stack([e.seen.mesh for e in segment])
        track.face_presence[where] = [e.seen.face_presence for e in segment]
    return track


def landmarks_in_image(rgb: ArrayLike, *, engine: str = "litert") -> NDArray[np.float64]:
    """The 68 iBUG points of every face in a picture, largest face first.

    A single picture has no neighbouring frames to average over, so the network sees each face six times. Faces smaller
    than about a fiftieth of the picture are not found (docs/landmarks.md).

    Args:
        rgb: (H, W, 3) uint8, or (H, W) gray.
        engine: "litert" or "mediapipe".

    Returns:
        (F, 68, 2) float64, pixels (centres at integers), x then y; F is 0 where there is no face.

    Examples:
        >>> from nemo_pipeline import landmarks_in_image
        >>> from skimage.data import astronaut
        >>> landmarks_in_image(astronaut()).shape
        (1, 68, 2)

    Raises:
        ValueError: not an (H, W, 3) or (H, W) uint8 picture.
    """
    picture = np.asarray(rgb)
    if not picture.size:
        raise ValueError(
            f"the picture is empty: its shape is {picture.shape}; (H,W,3) with pixels is needed."
        )
    faces = [points for _, points in faces_in_picture(_engine(engine), as_picture(picture))]
    return np.stack(faces) if faces else np.zeros((0, 68, 2))
