"""truth.h5: what is exactly known of every clip of a synthetic set. numpy and h5py only."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.store.files import create_h5, replacing
from nemo_pipeline.synth.place import open_as_folder

FORMAT = "nemo-synth-truth"
FORMAT_VERSION = 1
#: Arrays of a clip, with a row per frame (`phases`: per phase).
ARRAYS = ("landmarks", "pose", "intensity", "phases")


@dataclasses.dataclass(frozen=True, slots=True)
class ClipTruth:
    """Truth of one clip.

    Attributes:
        video: file name of the clip.
        landmarks: (T, 68, 2) float32, pixels of the frame, iBUG order, before noise and compression.
        pose: (T, 3) float32, yaw, pitch, roll in degrees (see `nemo_pipeline.synth.motion.Turn`).
        intensity: (T,) float32, the expression: 0 neutral, 1 broad.
        phases: (3, 2) int32, first frame and the frame after the last of onset, apex, offset.
        values: everything else: subject, age, gender, expression, condition, fps, camera, identity,
            complexion.
    """

    video: str
    landmarks: np.ndarray
    pose: np.ndarray
    intensity: np.ndarray
    phases: np.ndarray
    values: dict[str, Any]


def save_part(path: Path, truth: ClipTruth, frames: np.ndarray | None = None) -> None:
    """One clip's truth, and its warped faces if there are any, to an .npz: from a worker to its parent."""
    arrays = {name: getattr(truth, name) for name in ARRAYS}
    if frames is not None:
        arrays["frames"] = frames
    with path.open("wb") as file:
        np.savez(file, meta=np.array(json.dumps({"video": truth.video, "values": truth.values})), **arrays)


def load_part(path: Path) -> tuple[ClipTruth, np.ndarray | None]:
    """The inverse of `save_part`."""
    with np.load(path, allow_pickle=False) as stored:
        meta = json.loads(str(stored["meta"]))
        truth = ClipTruth(meta["video"], values=meta["values"], **{name: stored[name] for name in ARRAYS})
        return truth, (stored["frames"] if "frames" in stored.files else None)


def write_truth(path: Path, config: dict[str, Any], clips: Iterable[ClipTruth]) -> None:
    """All clips into one file: a group per clip, named as the video without its ending. Appears complete or
    not."""

    with replacing(path) as part, create_h5(part) as file:
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["synthetic"] = True
        file.attrs["config"] = json.dumps(config, sort_keys=True)
        for clip in clips:
            group = file.create_group(Path(clip.video).stem)
            group.attrs["video"] = clip.video
            group.attrs["values"] = json.dumps(clip.values, sort_keys=True)
            for name in ("subject", "age", "gender", "expression", "condition", "fps"):
                group.attrs[name] = clip.values[name]
            for name in ARRAYS:
                group.create_dataset(name, data=getattr(clip, name))
        open_as_folder(part)


def read_truth(path: Path | str) -> dict[str, ClipTruth]:
    """Every clip of a truth.h5, by the video's name without its ending.

    Raises:
        NemoError: the file is damaged, or no truth file.
    """
    import h5py

    from nemo_pipeline.errors import DamagedFile, DataError
    from nemo_pipeline.store.strict import dataset_in, member, reading

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: not a readable truth file of nemo synth ({error}).", path) from error
    clips = {}
    with file, reading(path):
        if file.attrs.get("format") != FORMAT:
            raise DataError(f"{path}: not a truth file of nemo synth.", path)
        for name in file.keys():  # noqa: SIM118
            group = member(file, name)
            found = {array: dataset_in(group, array) for array in ARRAYS}
            arrays = {array: dataset[()] for array, dataset in found.items() if dataset is not None}
            if len(arrays) < len(ARRAYS):
                raise DamagedFile(path, f"/{name}", "lacks an array")
            values = json.loads(group.attrs["values"])
            clips[name] = ClipTruth(group.attrs["video"], values=values, **arrays)
    return clips
