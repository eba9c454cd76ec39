"""Names, shapes, dtypes and meaning of everything in out.h5 and its shards: the one place that says so.

The format grows by datasets and columns. Files of earlier versions lack them: what is read then is `missing` of a
frame dataset, and the value in `ADDED_COLUMNS` of a column. Files of later versions have more: readers pass that over,
and writers that copy a file keep it.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from nemo_pipeline.config import PrepConfig

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
    """One dataset with a row per frame. `tail` is the shape of a row; `None` stands for the crop's side. `missing`
    fills it where a file was written before there was such a dataset; None: every file has it. `setting`: the field of
    `PrepConfig` that says whether a file has it; "": always."""

    tail: tuple[int | None, ...]
    dtype: str
    meaning: str
    missing: float | None = None
    setting: str = ""


class FieldType(NamedTuple):
    """A frame dataset as it is in one file: shape of a row, dtype, meaning, and what stands for it where it is missing
    (None: it cannot be)."""

    tail: tuple[int, ...]
    dtype: np.dtype
    meaning: str
    missing: float | None = None


FRAME_FIELDS: dict[str, FrameField] = {
    "frames": FrameField((None, None), "u1", "gray face, warped to the mean shape; 0 outside the hull"),
    "landmarks": FrameField((68, 2), "<f4", "smoothed iBUG points, source pixels, x then y"),
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
    "sharpness": FrameField((), "<f4", "variance of the Laplacian of the warped face"),
    "face_presence": FrameField((), "<f4", "presence, 0..1; NaN where the engine has none"),
    "n_faces": FrameField((), "u1", "number of faces seen"),
    "blendshapes": FrameField(
        (52,),
        "<f4",
        "scores 0..1 of MediaPipe's blendshapes; the attribute `names` has their names",
        missing=float("nan"),
        setting="blendshapes",
    ),
}
#: What the columns of some frame datasets are called: written beside them, as the attribute `names`.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {"blendshapes": BLENDSHAPES}

#: Columns of /videos. "str" is variable-length UTF-8 (surrogateescape bytes kept as bytes by the writer).
VIDEO_COLUMNS: dict[str, str] = {
    "id": "str",
    "file": "str",
    "subject": "str",
    "age": "<f4",
    "gender": "str",
    "expression": "str",
    "condition": "str",
    "fold": "<i4",
    "start": "<i8",
    "length": "<i8",
    "fps": "<f8",
    "width": "<i4",
    "height": "<i4",
    "n_decoded": "<i4",
    "n_interpolated": "<i4",
    "status": "str",
    "message": "str",
    "sha256": "str",
    "stored_width": "<i4",
    "stored_height": "<i4",
    "pixel_aspect": "str",
    "transfer": "str",
    "stream": "<i4",
    "person": "<i4",
    "segment": "<i4",
}
#: Columns of any table that files of the first version lack -> what they read as there.
ADDED_COLUMNS: dict[str, str | float | int] = {
    "stored_width": 0,
    "stored_height": 0,
    "pixel_aspect": "",
    "transfer": "",
    "stream": -1,
    "person": 0,
    "segment": 0,
    "landmarks_sha256": "",
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
