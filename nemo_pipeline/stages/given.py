"""Landmarks from a file in place of tracking: its rows are matched with the frames of the video.

Nothing is guessed: a file that has more or fewer frames than the video, or other times, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.openface import FaceRow, LandmarksError, Survey, read_rows, survey
from nemo_pipeline.stages.pose import head_pose_68
from nemo_pipeline.stages.track import Observation
from nemo_pipeline.store.text import escape_controls, pluralize

_NO_MESH = np.zeros((0, 3), dtype=np.float32)


class GivenLandmarks:
    """Answers like a `Tracker` from one video's landmark file: feed it the frames in order, then `finish`.

    Args:
        path: the file, in OpenFace's format.
        min_confidence: a row below this, or without success, counts as no face.
        fps: the video's average rate, frames per second; 0 where unknown. Times may differ by half a frame.

    Raises:
        LandmarksError: it cannot be read, or makes no sense.
    """

    def __init__(self, path: Path, min_confidence: float, fps: float = 0.0) -> None:
        self.path = path
        self.survey: Survey = survey(path)
        self.n_faces = 0
        self._least = min_confidence
        self._tolerance = 0.5 / fps if fps > 0 else 0.02
        self._rows: Iterator[FaceRow] = read_rows(path)
        self._next = next(self._rows, None)
        self._offset: float | None = None

    def trusted(self, person: int) -> bool:
        """Whose landmarks were given is believed to be a person."""
        return True

    def step(self, frame: Frame) -> list[Observation]:
        """The faces in the next frame.

        Raises:
            LandmarksError: the file does not fit the video.
        """
        rows = self._face_rows(frame.index + 1)
        if not rows and len(self.survey.faces) < 2 and frame.index < self.survey.last_frame:
            raise LandmarksError(
                f"{self._name} has no row for frame {frame.index + 1}, though one for frame "
                f"{self.survey.last_frame}: every frame needs one, with success 0 where there is no face."
            )
        seen = []
        for row in rows:
            self._check_time(row, frame)
            if row.success and row.confidence >= self._least:
                # OpenFace looks at the stored picture, whatever the shape of its pixels.
                points = frame.fit.from_stored(row.landmarks) if frame.fit else row.landmarks
                pose, eye_distance_px = head_pose_68(points)
                seen.append(
                    Observation(row.face + 1, _NO_MESH, points, pose, eye_distance_px, row.confidence)
                )
        self.n_faces = len(seen)
        return seen

    def finish(self, n_frames: int) -> None:
        """The video has ended after `n_frames` decoded frames.

        Raises:
            LandmarksError: the file has another number of frames.
        """
        found = self.survey.last_frame if len(self.survey.faces) > 1 else self.survey.n_frames
        # With several faces a frame without any has no row, so that the last frames may be absent.
        if found > n_frames or (found < n_frames and len(self.survey.faces) < 2):
            raise LandmarksError(
                f"{self._name} has landmarks for {pluralize(found, 'frame')}, and {n_frames} were decoded from the "
                "video: it belongs to another version of the clip, or was cut off; make it again from this one."
            )

    def why_none(self, n_frames: int) -> str:
        """The sentence for a video in none of whose frames there is a face."""
        return (
            f"{self._name} has success 1 and a confidence of at least {self._least:g} in none of {n_frames} "
            "frames; look at the clip, or lower `min_confidence`."
        )

    @property
    def _name(self) -> str:
        return escape_controls(self.path.name)

    def _face_rows(self, number: int) -> list[FaceRow]:
        """The rows of frame `number`; those of frames that the decoder did not give out are passed over."""
        found = []
        while self._next is not None and self._next.frame <= number:
            if self._next.frame == number:
                found.append(self._next)
            self._next = next(self._rows, None)
        return found

    def _check_time(self, row: FaceRow, frame: Frame) -> None:
        """Both count from the first frame that has both: OpenFace starts at 0, whatever the video does."""
        if not (math.isfinite(row.timestamp) and math.isfinite(frame.time)):
            return
        if self._offset is None:
            self._offset = frame.time - row.timestamp
        expected = frame.time - self._offset
        if abs(row.timestamp - expected) > self._tolerance + 1e-3:
            raise LandmarksError(
                f"{self._name} gives {row.timestamp:.3f} s for frame {row.frame} (line {row.line}), which the video "
                f"shows at {expected:.3f} s: it belongs to another version of the clip, or its times were computed "
                "from a constant rate that the clip does not have; make it again, or remove its column timestamp if "
                "you know that its frames are this clip's."
            )
