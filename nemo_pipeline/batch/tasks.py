"""The task of one video, made from the settings of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from nemo_pipeline.batch.landmark_files import LandmarkFile
from nemo_pipeline.batch.worker import VideoTask
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.meanshape import MeanShape


@dataclasses.dataclass(frozen=True, slots=True)
class TaskMaker:
    """Makes the task of a video.

    Attributes:
        config: settings, the shape's sha256 included.
        folder: where the staged videos go.
        timeout: seconds, or None.
        shape: the mean shape; None for the shipped one.
        landmarks: landmark files by `VideoFile.file`, where faces are not tracked.
        tracked: a prepared file whose points are used in place of tracking, or None.
        contents: sha256 by `VideoFile.file`, of videos whose content must be that.
    """

    config: PrepConfig
    folder: Path
    timeout: float | None
    shape: MeanShape | None = None
    landmarks: Mapping[str, LandmarkFile] = dataclasses.field(default_factory=dict)
    tracked: Path | None = None
    contents: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __call__(self, video: VideoFile) -> VideoTask:
        """The task of one video."""
        given = self.landmarks.get(video.file)
        shipped = self.shape is None or self.config.mean_shape == "shipped"
        return VideoTask(
            path=str(video.path),
            file=video.file,
            folder=str(self.folder),
            config=self.config.to_dict(),
            timeout=self.timeout,
            mean_shape=None if shipped or self.shape is None else self.shape.points.tolist(),
            triangles=None if shipped or self.shape is None else self.shape.triangles.tolist(),
            landmarks="" if given is None else given.path,
            problem="" if given is None else given.problem,
            tracked="" if self.tracked is None else str(self.tracked),
            sha256=self.contents.get(video.file, ""),
        )
