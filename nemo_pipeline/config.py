"""`PrepConfig`: every decision of `nemo prep` that changes the numbers in out.h5, one validated field each.

Free of NumPy and fast to import: the command line, the child process, the store and a trained model all use it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, Literal, get_args

from nemo_pipeline.fields import added, check_kinds, from_record, plain

Engine = Literal["litert", "mediapipe"]
Follow = Literal["largest", "central", "all"]
Segments = Literal["longest", "all"]
Shape = Literal["shipped", "from-data", "custom"]
LandmarksSource = Literal["track", "openface"]
Smooth = Literal["head", "4253h", "none"]
STREAMS = ("face", "largest", "default")

#: Raised by hand whenever the same video and settings would give other numbers than before. 2: the picture's true
#: shape and levels, segments and persons are decided again.
ALGORITHM_VERSION = 2


@dataclasses.dataclass(frozen=True, slots=True)
class PrepConfig:
    """Settings of the preparation that affect its result (labels and worker counts do not).

    Attributes:
        size: side of the square face crop, pixels.
        margin: space around jaw line and eyebrows in the crop, as a fraction of the crop's side, on each side.
        engine: which landmark engine runs the bundle's networks.
        follow: who is followed when there are several faces.
        segments: the longest segment of a video, or every one as a row of its own.
        max_gap_seconds: a stretch without a face of at most this duration is interpolated; a longer one splits.
            A pause between two frames that both show the face is not such a gap.
        max_yaw_degrees: a frame turned further than this counts as one without a face (a profile folds the warp).
        min_frames: shortest segment that is data. 7 is the shortest series for which 4253H is published.
        mesh: also keep the 478-point mesh (T,478,3).
        mean_shape: "shipped" (the bundle's canonical face), "from-data" (Procrustes mean of this data), or
            "custom" (given by file).
        mean_shape_sha256: identifies a shape that was not shipped; empty otherwise.
        landmarks_source: "track", or "openface" when landmarks come from OpenFace's CSV files.
        min_confidence: below this, a landmark row from elsewhere counts as no face (0..1).
        smooth: what is done to the points over time: "head" (4253H, twice, in the head's own frame and within the
            tracker's error: docs/smoothing.md), "4253h" (on raw coordinates, the paper's literal form), or "none".
        stream: which video stream of a file with several is used: "face" (the one in which faces are largest),
            "largest" (in pixels), "default" (as the file says), or its number, as ffprobe counts streams.
        blendshapes: keep MediaPipe's 52 scores of facial movements (T,52), computed from the mesh.
        stills: the inputs are pictures, each a row of one frame with `fps` 0, in place of videos.
        algorithm: version of the method that made the numbers. No option sets it: files record it, and this
            version of nemo only makes numbers of `ALGORITHM_VERSION`.

    A field that is new declares what files without it were made with: `nemo_pipeline.fields.added`.

    Examples:
        >>> from nemo_pipeline import PrepConfig
        >>> PrepConfig(size=64).size
        64
        >>> PrepConfig(size=3)
        Traceback (most recent call last):
            ...
        ValueError: ...
    """

    size: int = 114
    margin: float = 0.02
    engine: Engine = "litert"
    follow: Follow = "largest"
    segments: Segments = "longest"
    max_gap_seconds: float = 0.2
    max_yaw_degrees: float = 45.0
    min_frames: int = 7
    mesh: bool = True
    mean_shape: Shape = "shipped"
    mean_shape_sha256: str = ""
    landmarks_source: LandmarksSource = "track"
    min_confidence: float = 0.5
    smooth: Smooth = added("head", before="4253h")
    stream: str = added("face", before="default")
    blendshapes: bool = added(False, before=False)
    stills: bool = added(False)
    algorithm: int = ALGORITHM_VERSION

    def __post_init__(self) -> None:
        """Check every field. Raises ValueError with the field, the value and what is allowed."""

        check_kinds(self)

        def need(ok: bool, field: str, allowed: str) -> None:
            if not ok:
                raise ValueError(f"{field} is {getattr(self, field)!r}; it must be {allowed}.")

        need(16 <= self.size <= 1024, "size", "between 16 and 1024 pixels")
        need(0 <= self.margin < 0.5, "margin", "at least 0 and below 0.5 of the crop's side")
        for field, kind in (
            ("engine", Engine), ("follow", Follow), ("segments", Segments), ("mean_shape", Shape),
            ("landmarks_source", LandmarksSource), ("smooth", Smooth),
        ):  # fmt: skip
            need(getattr(self, field) in get_args(kind), field, "one of " + ", ".join(get_args(kind)))
        need(0 <= self.max_gap_seconds <= 10, "max_gap_seconds", "between 0 and 10 seconds")
        need(0 < self.max_yaw_degrees <= 90, "max_yaw_degrees", "above 0 and at most 90 degrees")
        need(self.min_frames >= 1, "min_frames", "at least 1 frame")
        need(0 <= self.min_confidence <= 1, "min_confidence", "between 0 and 1")
        named = self.stream in STREAMS or (self.stream.isascii() and self.stream.isdigit())
        need(named, "stream", "face, largest, default or the number of a stream, as 1")
        need(self.algorithm >= 1, "algorithm", "at least 1")
        need(self.mesh or not self.blendshapes, "blendshapes", "False without the mesh, which they come from")
        need(not self.stills or self.landmarks_source == "track", "stills", "false with landmark files")
        if self.landmarks_source != "track":
            need(not self.mesh, "mesh", "False, since landmarks from elsewhere have no mesh")

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON types (`nemo_pipeline.fields.plain`)."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, strict: bool = True) -> PrepConfig:
        """The inverse of `to_dict`.

        Args:
            strict: refuse unknown settings, as for making numbers; to read numbers they need not be known.

        Raises:
            ValueError: a value is of the wrong type or out of range, or a setting is unknown.
        """
        if isinstance(values, dict):  # files of the first version of the method do not name it
            values = {"algorithm": 1, **values}
        return from_record(cls, values, strict=strict)

    def fingerprint(self) -> str:
        """16 hex digits that change exactly when the same video would give other numbers."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]
