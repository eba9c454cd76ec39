"""Clips to faces for a trained model: with the model's preparation settings, in the child process that
`nemo prep` uses."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nemo_pipeline.batch.content import is_picture
from nemo_pipeline.batch.worker import Pool, VideoTask, prepare_video
from nemo_pipeline.config import ALGORITHM_VERSION, PrepConfig
from nemo_pipeline.datatypes import VideoFile, row_name
from nemo_pipeline.errors import DataError
from nemo_pipeline.geometry import shipped_mean_shape, shipped_triangles
from nemo_pipeline.store.facetrack import FaceTrack
from nemo_pipeline.store.schema import record_dtype
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


#: What of a prepared file is looked at to predict, and to doubt a track (`nemo_pipeline.view.quality_flags`).
_USED = (
    "frames", "frame_index", "timestamps", "tracked", "pose", "eye_distance_px", "sharpness", "face_presence",
    "n_faces", "landmarks", "landmarks_raw",
)  # fmt: skip


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
        raise DataError(
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
) -> Generator[FaceTrack, None, None]:
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
                    yield FaceTrack.from_records(
                        np.concatenate(blocks) if blocks else np.zeros(0, record_dtype(config)),
                        status=row.status, message=result.message(row), n_decoded=result.n_decoded,
                        info=result.info, person=row.person, segment=row.segment, file=clip.file,
                        id=row_name(clip.id, row.person, row.segment), path=clip.path, sha256=staged.sha256,
                    )  # fmt: skip


def prepared_faces(data: FaceDataset) -> Iterator[FaceTrack]:
    """Every row of a prepared file, in its order: no video is read again."""
    for video in data.values():
        yield video.track(*_USED)
