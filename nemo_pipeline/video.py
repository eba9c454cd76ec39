"""The whole flow of one video: decode -> track -> (per person: gaps, smooth, warp, measure) -> rows.

`process_video` is what `nemo prep` and `nemo predict` run in a child process; `prep_video`, `track_video` and
`landmarks_in_image` are for notebooks.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoInfo, VideoResult
from nemo_pipeline.errors import DataError
from nemo_pipeline.person import PersonRecorder
from nemo_pipeline.rows import make_rows, subject_first, with_damage
from nemo_pipeline.stages.decode import DecodeError, DecodeReport
from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.frame import Frame, as_picture
from nemo_pipeline.stages.given import GivenLandmarks
from nemo_pipeline.stages.landmarks import Engine, FaceMesh
from nemo_pipeline.stages.openface import LandmarksError, content_hash
from nemo_pipeline.stages.quality import FaceQuality
from nemo_pipeline.stages.stills import faces_in_picture
from nemo_pipeline.stages.streams import open_video
from nemo_pipeline.stages.track import Observation, Tracker, observe_all
from nemo_pipeline.stages.unseen import why_no_face
from nemo_pipeline.stages.warp import FaceWarp
from nemo_pipeline.status import Status
from nemo_pipeline.still import process_still
from nemo_pipeline.store.facetrack import FaceTrack
from nemo_pipeline.store.schema import FRAME_FIELDS, record_dtype
from nemo_pipeline.store.spool import read_records

#: So many frames are decoded before they are looked at, and all of them before what was seen is measured and recorded;
#: fewer if they are large: the decoder and the network leave nothing of the code and tables of the others in a core's
#: caches, and do so once for all of them.
_BLOCK = 32
_BLOCK_BYTES = 32 << 20


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
        spool_stem: path and beginning of the name of the record files, `<stem>.p<K>.records`: raw records of
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
    followed = _Followed()
    try:
        _follow(followed, path, config, spool_stem, (warp, quality), landmarks, progress)
    except (DecodeError, LandmarksError) as error:
        status = error.status if isinstance(error, DecodeError) else Status.LANDMARKS_ERROR
        failed = VideoResult.failed(status, str(error), followed.info, followed.report.n_frames)
        return dataclasses.replace(failed, landmarks_sha256=followed.landmarks_sha256)
    info, report, source = followed.info, followed.report, followed.source
    rows = make_rows(followed.trusted, config, report)
    if rows[0].status is Status.NO_FACE:
        if isinstance(source, GivenLandmarks):
            why = source.why_none(report.n_frames)
        else:
            why = why_no_face(path, info.stream, _engine(config.engine), report.n_frames)
        rows = [dataclasses.replace(rows[0], message=with_damage(why, report))]
    used = {row.spool for row in rows}
    _discard(person for person in followed.people.values() if person.spool.name not in used)
    seconds = {"total": time.perf_counter() - started}
    return VideoResult(info, report.n_frames, tuple(rows), seconds, report.notes, followed.landmarks_sha256)


@dataclasses.dataclass(slots=True)
class _Followed:
    """Everybody in a video, from its first frame to its last: what is known so far."""

    info: VideoInfo = VideoInfo()  # noqa: RUF009 (frozen)
    report: DecodeReport = dataclasses.field(default_factory=DecodeReport)
    source: Tracker | GivenLandmarks | None = None
    people: dict[int, PersonRecorder] = dataclasses.field(default_factory=dict)
    times: list[float] = dataclasses.field(default_factory=list)
    landmarks_sha256: str = ""

    @property
    def trusted(self) -> dict[int, PersonRecorder]:
        """Those who are believed to be a person."""
        return {n: person for n, person in self.people.items() if self.source and self.source.trusted(n)}


def _follow(
    followed: _Followed,
    path: str | Path,
    config: PrepConfig,
    spool_stem: Path,
    warp: tuple[FaceWarp, FaceQuality] | None,
    landmarks: str | Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Decode, follow everybody and record them; with `warp` None their points alone, and the time of every frame.

    Raises:
        DecodeError, LandmarksError: nothing is recorded then.
    """
    engine = _engine(config.engine) if landmarks is None else None
    people = followed.people
    try:
        with open_video(path, config.stream, engine) as reader:
            source: Tracker | GivenLandmarks
            if engine is not None:
                source = Tracker(engine, config.follow)
            else:
                followed.landmarks_sha256 = content_hash(Path(str(landmarks)))
                source = GivenLandmarks(Path(str(landmarks)), config.min_confidence, reader.info.fps)
            followed.source, followed.report = source, reader.report
            frames: list[Frame] = []
            for frame in reader:
                followed.info = reader.info
                frames.append(frame)
                if len(frames) >= _BLOCK or len(frames) * frame.planes[0].nbytes > _BLOCK_BYTES:
                    _record(_look(source, frames), people, spool_stem, config, warp)
                    frames = []
                if warp is None:
                    followed.times.extend([math.nan] * (frame.index - len(followed.times)))
                    followed.times.append(frame.time)
                if progress is not None and frame.index % 16 == 0:
                    progress(frame.index + 1)
            _record(_look(source, frames), people, spool_stem, config, warp)
            followed.info, followed.report = reader.info, reader.report
            if isinstance(source, GivenLandmarks) and reader.report.n_frames:
                source.finish(reader.report.n_frames)
    except BaseException:
        _discard(people.values())
        raise
    for person in people.values():
        person.finish()
    if progress is not None:
        progress(followed.report.n_frames)


class _Looked(NamedTuple):
    """A frame, who was found in it, and how many faces were last counted."""

    frame: Frame
    found: Sequence[Observation | tuple[FaceMesh, int]]
    n_faces: int


def _look(source: Tracker | GivenLandmarks, frames: Sequence[Frame]) -> list[_Looked]:
    """The next frames, and who is in them."""
    if isinstance(source, Tracker):
        return [_Looked(frame, *seen) for frame, seen in zip(frames, source.look_all(frames), strict=True)]
    return [_Looked(frame, source.step(frame), source.n_faces) for frame in frames]


def _record(
    looked: Sequence[_Looked],
    people: dict[int, PersonRecorder],
    spool_stem: Path,
    config: PrepConfig,
    warp: tuple[FaceWarp, FaceQuality] | None,
) -> None:
    """Measure and record who was found in some frames."""
    tracked = [one for _, found, _ in looked for one in found if not isinstance(one, Observation)]
    observed = iter(observe_all(tracked))
    for frame, found, n_faces in looked:
        seen = [one if isinstance(one, Observation) else next(observed) for one in found]
        by_number = {one.person: one for one in seen}
        for number in by_number.keys() - people.keys():
            spool = spool_stem.with_name(f"{spool_stem.name}.p{number}.records")
            people[number] = PersonRecorder(spool, config, warp)
        for number, person in people.items():
            person.push(frame, by_number.get(number), n_faces)


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


def prep_video(
    path: str | Path,
    config: PrepConfig | None = None,
    *,
    mean_shape: ArrayLike | None = None,
    landmarks: str | Path | None = None,
) -> FaceTrack:
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
) -> list[FaceTrack]:
    """As `prep_video`, with every row (`follow="all"`, `segments="all"`)."""
    config = config or PrepConfig()
    with tempfile.TemporaryDirectory(prefix="nemo-") as folder:
        stem = Path(folder) / "video"
        result = process_video(path, config, stem, mean_shape=mean_shape, landmarks=landmarks)
        out = []
        for row in result.rows:
            blocks = list(read_records(Path(folder) / row.spool, row.start, row.stop, config))
            records = np.concatenate(blocks) if blocks else np.zeros(0, record_dtype(config))
            out.append(
                FaceTrack.from_records(
                    records, status=row.status, message=result.message(row), n_decoded=result.n_decoded,
                    info=result.info, person=row.person, segment=row.segment, file=Path(path).name, path=Path(path),
                )
            )  # fmt: skip
    return out


def track_video(path: str | Path, config: PrepConfig | None = None) -> FaceTrack:
    """Track the subject of a video through every decoded frame: what `nemo prep` does, without the warp.

    The subject is the one that `nemo prep` chooses. All segments of at least `config.min_frames` are in the arrays,
    whatever `config.segments` says; T is the number of decoded frames.

    Returns:
        Landmarks, mesh, pose and the other measurements as `nemo prep` stores them, without faces and their sharpness.
        Where the face is absent, `tracked` is False and numbers are NaN; so is the time of a damaged frame.

    Examples:
        >>> from nemo_pipeline import track_video
        >>> track = track_video("clip.mp4")
        >>> track.landmarks.shape, bool(track.tracked.all())
        ((10, 68, 2), True)

    Raises:
        NemoError: the file cannot be read as a video (the sentence says why).
    """
    config = config or PrepConfig()
    followed = _Followed()
    with tempfile.TemporaryDirectory(prefix="nemo-") as folder:
        try:
            _follow(followed, path, config, Path(folder) / "video", None)
        except DecodeError as error:
            raise DataError(f"{path}: {error}", path) from None
        n = followed.report.n_frames
        found = {number: p for number, p in followed.trusted.items() if p.segments}
        chosen = subject_first({number: p.tally for number, p in found.items()}, config.follow)[:1]
        arrays = _nowhere(n, config)
        for segment in (s for number in chosen for s in found[number].segments):
            for block in read_records(found[chosen[0]].spool, segment.start, segment.stop, config):
                for name, array in arrays.items():
                    array[block["frame_index"]] = block[name]
    times = np.full(n, math.nan)
    times[: len(followed.times)] = followed.times
    arrays |= {"timestamps": times, "frame_index": np.arange(n, dtype=np.int32)}
    return FaceTrack(
        arrays, n_decoded=n, info=followed.info, file=Path(path).name, path=Path(path),
    )  # fmt: skip


def _nowhere(n: int, config: PrepConfig) -> dict[str, NDArray[Any]]:
    """The arrays of `track_video` for n frames without a face."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, (dtype, *_) in (record_dtype(config).fields or {}).items():
        if FRAME_FIELDS[name].of != "face":
            empty = math.nan if dtype.base.kind == "f" else 0
            arrays[name] = np.full((n, *dtype.shape), empty, dtype.base)
    return arrays


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
