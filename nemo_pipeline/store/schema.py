"""Names, shapes, dtypes and meaning of everything in out.h5 and its shards: the one place that says so.

The format grows by datasets and columns. Files of earlier versions lack them: what is read then is `missing` of a
frame dataset, and the value in `ADDED_COLUMNS` of a column. Files of later versions have more: readers pass that over,
and writers that copy a file keep it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import numpy as np

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.status import Status

FORMAT = "nemo-faces"
FORMAT_VERSION = 1


#: MediaPipe's names of the scores that the bundle's network gives, in its order.
BLENDSHAPES: tuple[str, ...] = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft",
    "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft",
    "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft",
    "jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft",
    "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class FrameField:
    """One dataset with a row per frame.

    Attributes:
        tail: shape of a row; None is the face's side.
        dtype, meaning: as the file says.
        missing: fills it where a file was written before there was such a dataset; None: every file has it.
        setting: the field of `PrepConfig` that says whether a file has it; "": always.
        of: what it is computed from. "tracking": the tracked face, so `nemo rewarp` copies it; "points": the points
            of neighbouring frames, or the mesh; "face": the warped face, so `track_video` does not give it.
    """

    tail: tuple[int | None, ...]
    dtype: str
    meaning: str
    missing: float | None = None
    setting: str = ""
    of: Literal["tracking", "points", "face"] = "tracking"


class FieldType(NamedTuple):
    """A frame dataset as it is in one file: shape of a row, dtype, meaning, and the value that fills it where it is
    missing (None: it cannot be missing)."""

    tail: tuple[int, ...]
    dtype: np.dtype
    meaning: str
    missing: float | None = None


FRAME_FIELDS: dict[str, FrameField] = {
    "frames": FrameField(
        (None, None), "u1", "gray face, warped to the mean shape; 0 outside the hull", of="face"
    ),
    "landmarks": FrameField((68, 2), "<f4", "smoothed iBUG points, source pixels, x then y", of="points"),
    "landmarks_raw": FrameField((68, 2), "<f4", "points as tracked (interpolated where not tracked)"),
    "mesh": FrameField(
        (478, 3),
        "<f4",
        "face mesh, source pixels (z: same scale, towards the camera negative)",
        setting="mesh",
    ),
    "timestamps": FrameField((), "<f8", "presentation time, seconds"),
    "tracked": FrameField((), "?", "False where the frame was interpolated"),
    "pose": FrameField((3,), "<f4", "yaw, pitch, roll in degrees"),
    "frame_index": FrameField((), "<i4", "index of the decoded frame in the source"),
    "eye_distance_px": FrameField((), "<f4", "distance of the outer eye corners, source pixels"),
    "sharpness": FrameField((), "<f4", "variance of the Laplacian of the warped face", of="face"),
    "face_presence": FrameField((), "<f4", "presence, 0..1; NaN where the engine has none"),
    "n_faces": FrameField((), "u1", "number of faces seen"),
    "blendshapes": FrameField(
        (52,),
        "<f4",
        "scores 0..1 of MediaPipe's blendshapes; the attribute `names` has their names",
        missing=float("nan"),
        setting="blendshapes",
        of="points",
    ),
}
#: Names of the columns of some frame datasets, written as their attribute `names`.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {"blendshapes": BLENDSHAPES}


def _column(kind: str, missing: str | int | None = None) -> Any:
    """A column of /videos: its dtype in a file ("str" is variable-length UTF-8; surrogateescape bytes are kept), and
    what it reads as in files of the first version, which lack it; None: every file has it."""
    default = dataclasses.MISSING if missing is None else missing
    return dataclasses.field(default=default, metadata={"kind": kind})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoredRow:
    """What out.h5 and its shards both say of a row of /videos. A value that is known of the video file or its stream
    (`StagedVideo`, `VideoResult`, `VideoInfo`) or of the row (`VideoRow`) is taken from there, by its name."""

    file: str = _column("str")
    start: int = _column("<i8")
    length: int = _column("<i8")
    fps: float = _column("<f8")
    width: int = _column("<i4")
    height: int = _column("<i4")
    n_decoded: int = _column("<i4")
    n_interpolated: int = _column("<i4")
    status: Status = _column("str")  # noqa: RUF009 (Status is immutable)
    message: str = _column("str")
    sha256: str = _column("str")
    stored_width: int = _column("<i4", 0)
    stored_height: int = _column("<i4", 0)
    pixel_aspect: str = _column("str", "")
    transfer: str = _column("str", "")
    stream: int = _column("<i4", -1)
    person: int = _column("<i4", 0)
    segment: int = _column("<i4", 0)


#: Columns of every table of rows -> dtype.
ROW_COLUMNS: dict[str, str] = {f.name: f.metadata["kind"] for f in dataclasses.fields(StoredRow)}
#: Columns of any table that files of the first version lack -> what they read as there.
ADDED_COLUMNS: dict[str, str | float | int] = {
    **{f.name: f.default for f in dataclasses.fields(StoredRow) if f.default is not dataclasses.MISSING},
    "landmarks_sha256": "",
    "modified": 0,
}
#: Columns of /videos in out.h5 -> dtype.
VIDEO_COLUMNS: dict[str, str] = {
    "id": "str",
    "file": "str",
    "subject": "str",
    "age": "<f4",
    "gender": "str",
    "expression": "str",
    "condition": "str",
    "fold": "<i4",
    **ROW_COLUMNS,
}
#: Those that come from a label file: kept in the index alone.
LABEL_COLUMNS: tuple[str, ...] = ("subject", "age", "gender", "expression", "condition", "fold")
#: What an unknown label reads as.
MISSING_LABEL: dict[str, str | float | int] = {
    "subject": "",
    "age": float("nan"),
    "gender": "",
    "expression": "",
    "condition": "",
    "fold": -1,
}


def frame_fields(config: PrepConfig) -> list[str]:
    """Names of the frame datasets that a new file of these settings has, in the schema's order."""
    return [name for name, f in FRAME_FIELDS.items() if not f.setting or getattr(config, f.setting)]


def record_dtype(config: PrepConfig) -> np.dtype:
    """Structured dtype of one frame: what a spool file holds, field for field what a shard holds."""
    fields = []
    for name in frame_fields(config):
        tail = tuple(config.size if n is None else n for n in FRAME_FIELDS[name].tail)
        fields.append((name, FRAME_FIELDS[name].dtype, tail))
    return np.dtype(fields)
