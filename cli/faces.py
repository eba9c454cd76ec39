"""Clips to faces for a trained model: the preparation that the model carries, by the child process that
`nemo prep` uses."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nemo_pipeline.batch.content import is_picture
from nemo_pipeline.batch.worker import Pool, VideoTask, prepare_video
from nemo_pipeline.config import ALGORITHM_VERSION, PrepConfig
from nemo_pipeline.datatypes import VideoFile, row_name
from nemo_pipeline.errors import NemoError
from nemo_pipeline.geometry import shipped_mean_shape, shipped_triangles
from nemo_pipeline.store.schema import frame_fields
from nemo_pipeline.store.spool import read_records

if TYPE_CHECKING:
    from nemo_pipeline.store import FaceDataset


class Preparation(Protocol):
    """What is asked of a model here: how its faces are made. A `LoadedModel` says so."""

    @property
    def prep_config(self) -> dict[str, Any]: ...
    @property
    def mean_shape(self) -> np.ndarray: ...
    @property
    def triangles(self) -> np.ndarray: ...


_OWN = ("frames", "frame_index", "timestamps")
#: What is looked at to doubt a track (`nemo_pipeline.view.quality_flags.track_of`).
_MEASURED = (
    "tracked",
    "pose",
    "eye_distance_px",
    "sharpness",
    "face_presence",
    "n_faces",
    "landmarks",
    "landmarks_raw",
)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ClipFaces:
    """One row of a prepared clip.

    Attributes:
        file: the clip. id: unique among the rows of all clips.
        person, segment: as in /videos.
        path: of the clip; None where the faces come from a prepared file.
        frames: (T,S,S) uint8; T is 0 where there is no usable face.
        frame_index: (T,) int32 in the clip. timestamps: (T,) float64, seconds.
        n_decoded: frames in the clip. n_interpolated: of the T, how many had no face of their own.
        stream: number of the video stream in the clip, -1 where it was not decoded.
        status, message: as in `nemo prep`.
        sha256: of the file; "" where it could not be read.
        subject, age_true: labels of a prepared file; "" and NaN where unknown.
        fields: the other frame datasets (T, ...) by name: landmarks, pose, score and so on.
    """

    file: str
    id: str
    person: int
    segment: int
    path: Path | None
    frames: np.ndarray
    frame_index: np.ndarray
    timestamps: np.ndarray
    n_decoded: int
    n_interpolated: int
    stream: int
    status: str
    message: str
    sha256: str
    fields: Mapping[str, np.ndarray]
    subject: str = ""
    age_true: float = math.nan

    @property
    def name(self) -> str:
        """The clip, and which person and segment of it: what the row is called in messages."""
        return row_name(self.file, self.person, self.segment)


def prep_for(model: Preparation, stream: str = "face") -> tuple[PrepConfig, bool]:
    """The settings with which a clip becomes what the model was trained on, and whether its shape is the shipped one.

    The mesh is left out: the model does not see it. Landmarks are tracked here, also where they came from files, and
    which video stream is used depends on these clips.

    Raises:
        NemoError: the model names a setting that this version does not know.
    """
    values = dict(model.prep_config)
    try:
        config = dataclasses.replace(
            PrepConfig.from_dict(values),
            mesh=False,
            blendshapes=False,
            landmarks_source="track",
            stream=stream,
            stills=False,  # each clip says itself whether it is one
            algorithm=ALGORITHM_VERSION,
        )
    except (TypeError, ValueError) as error:
        raise NemoError(
            f"The model's preparation settings do not fit this version of nemo: {error}"
        ) from None
    shape = np.asarray(model.mean_shape, dtype=np.float64)
    if np.array_equal(shape, shipped_mean_shape()) and np.array_equal(model.triangles, shipped_triangles()):
        return dataclasses.replace(config, mean_shape="shipped", mean_shape_sha256=""), True
    digest = hashlib.sha256(np.ascontiguousarray(shape, "<f8").tobytes()).hexdigest()
    return dataclasses.replace(config, mean_shape="custom", mean_shape_sha256=digest), False


def clip_faces(
    clips: Sequence[VideoFile],
    model: Preparation,
    *,
    timeout: float | None = None,
    stream: str = "face",
    on_frames: Callable[[VideoFile, int], None] | None = None,
) -> Generator[ClipFaces, None, None]:
    """Prepare clips one after the other in a child process; yields every row of each, in order.

    Args:
        timeout: seconds that one clip may take; None for no limit.
        stream: which video stream of a clip with several (`PrepConfig.stream`).
        on_frames: told now and then how many frames of a clip were decoded.

    Raises:
        NemoError: nothing can work (installation, disk full). A bad clip is a row with a status instead.
    """
    config, shipped = prep_for(model, stream)
    pool = Pool()
    with contextlib.ExitStack() as stack:
        stack.callback(pool.stop)  # also when the caller stops half-way
        for clip in clips:
            with tempfile.TemporaryDirectory(prefix="nemo-predict-") as folder:  # mode 0700: it holds faces
                own = dataclasses.replace(config, stills=is_picture(clip.path))
                task = VideoTask(
                    path=str(clip.path),
                    file=clip.file,
                    folder=folder,
                    config=own.to_dict(),
                    timeout=timeout,
                    mean_shape=None if shipped else np.asarray(model.mean_shape).tolist(),
                    triangles=None if shipped else np.asarray(model.triangles).tolist(),
                )
                watch = None if on_frames is None else lambda n, clip=clip: on_frames(clip, n)
                staged = prepare_video(task, pool=pool, on_frames=watch)
                result = staged.result
                for row in result.rows:
                    blocks = list(read_records(Path(folder) / row.spool, row.start, row.stop, config))
                    usable = bool(blocks) and row.status.usable
                    others = [name for name in frame_fields(config) if name not in _OWN]
                    yield ClipFaces(
                        file=clip.file,
                        id=row_name(clip.id, row.person, row.segment),
                        person=row.person,
                        segment=row.segment,
                        path=clip.path,
                        frames=_column(blocks, "frames", (config.size, config.size), usable),
                        frame_index=_column(blocks, "frame_index", (), usable),
                        timestamps=_column(blocks, "timestamps", (), usable),
                        n_decoded=result.n_decoded,
                        n_interpolated=row.n_interpolated,
                        stream=result.info.stream,
                        status=row.status,
                        message=result.message(row),
                        sha256=staged.sha256,
                        fields={name: _column(blocks, name, (), True) for name in others} if usable else {},
                    )


def prepared_faces(data: FaceDataset) -> Iterator[ClipFaces]:
    """Every row of a prepared file, in its order: no video is read again."""
    for video in data.values():
        usable = video.length > 0 and video.status.usable
        yield ClipFaces(
            file=video.file,
            id=video.id,
            person=video.person,
            segment=video.segment,
            path=None,
            frames=video.frames if usable else np.zeros((0, data.size, data.size), np.uint8),
            frame_index=video.read("frame_index") if usable else np.zeros(0, np.int32),
            timestamps=video.timestamps if usable else np.zeros(0),
            n_decoded=video.n_decoded,
            n_interpolated=video.n_interpolated,
            stream=video.stream,
            status=video.status,
            message=video.message,
            sha256=video.sha256,
            fields={name: video.read(name) for name in _MEASURED} if usable else {},
            subject=video.subject.strip(),
            age_true=video.age,
        )


def _column(blocks: list[np.ndarray], name: str, tail: tuple[int, ...], usable: bool) -> np.ndarray:
    """One field of all records, (T, ...); T = 0 where the row has no usable face."""
    if not usable:
        return np.zeros((0, *tail), np.uint8 if name == "frames" else np.float64)
    return np.ascontiguousarray(np.concatenate([block[name] for block in blocks]))
