"""Mean shapes other than the shipped one: from a file, or from the data; and how a shape is kept with its triangles."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nemo_pipeline.errors import DataError
from nemo_pipeline.geometry import normalised_shape, shipped_mean_shape, shipped_triangles
from nemo_pipeline.store.files import replacing

#: What a shape file may be.
_KINDS = "68 points x y in .npz, .npy, .csv, .txt or .pts, or a prepared file (.h5)"
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclasses.dataclass(frozen=True, eq=False)
class MeanShape:
    """A mean shape and the triangles of its map, which are computed once and then kept.

    Attributes:
        points: (68, 2) float64, x then y (down), outer eye corners level and at unit distance, their middle at 0.
        triangles: (K, 3) int32.
    """

    points: NDArray[np.float64]
    triangles: NDArray[np.int32]

    @property
    def sha256(self) -> str:
        """Identifies the points."""
        return hashlib.sha256(np.ascontiguousarray(self.points, "<f8").tobytes()).hexdigest()


def shipped_shape() -> MeanShape:
    """The shape of the landmark bundle's canonical face."""
    return MeanShape(shipped_mean_shape(), shipped_triangles())


def new_shape(points: ArrayLike) -> MeanShape:
    """Any 68 points, brought to the size and place of a mean shape, with their Delaunay triangles.

    Raises:
        ValueError: they are no face: wrong number, not finite, not frontal, upside down.
    """
    raw = np.asarray(points, dtype=np.float64)
    if raw.shape != (68, 2):
        raise ValueError(f"a mean shape has 68 points (x, y), and this has the shape {raw.shape}")
    if not np.isfinite(raw).all():
        raise ValueError("a coordinate is not a number")
    # Rounded, so that a shape that went through a text file is the same shape.
    shape = np.round(normalised_shape(raw), 9) + 0.0
    if not (shape[8, 1] > shape[33, 1] > shape[27, 1] and shape[8, 1] > shape[57, 1]):
        raise ValueError(
            "eyes, nose and chin do not lie below each other: the points must be in iBUG's order, with y downwards"
        )
    if not shape[0, 0] < shape[36, 0] < shape[45, 0] < shape[16, 0]:
        raise ValueError(
            "the eyes do not lie between the ends of the jaw line: the points must be in iBUG's order"
        )
    from nemo_pipeline.stages.warp import delaunay

    triangles = delaunay(shape)
    if len(np.unique(triangles)) < 68:
        raise ValueError("points fall together")
    return MeanShape(shape, triangles)


def read_mean_shape(path: Path) -> MeanShape:
    """The mean shape in a file.

    `.npz` and `.npy`: an array (68, 2), called `mean_shape` if there are several. `.csv`, `.txt`: two columns, with
    or without a line of names. `.pts`: as 300-W writes them. `.h5`: a prepared file's own, triangles included. Size,
    place and tilt do not matter.

    Raises:
        NemoError: it cannot be read, or holds no such points.
    """
    kind = path.suffix.lower()
    try:
        if kind == ".h5":
            from nemo_pipeline.store.reader import FaceDataset

            data = FaceDataset(path, check=False)
            return MeanShape(data.mean_shape, data.triangles)
        if kind in (".npz", ".npy"):
            return new_shape(_from_numpy(path))
        if kind in (".csv", ".txt", ".pts"):
            return new_shape(_from_text(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read as a mean shape ({error.strerror or error}).", path) from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a mean shape: {error}.", path) from None
    raise DataError(f"{path} is not a mean shape: give {_KINDS}.", path)


def _from_numpy(path: Path) -> NDArray[np.float64]:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return np.asarray(loaded, dtype=np.float64)
    with loaded:
        name = "mean_shape" if "mean_shape" in loaded.files else loaded.files[0] if loaded.files else ""
        if not name or (name != "mean_shape" and len(loaded.files) > 1):
            raise ValueError(f"it holds {', '.join(loaded.files) or 'nothing'}, and no array mean_shape")
        return np.asarray(loaded[name], dtype=np.float64)


def _from_text(path: Path) -> NDArray[np.float64]:
    """The lines with two numbers; a `.pts` file's points lie between braces."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if "{" in text:
        text = text.split("{", 1)[1].split("}", 1)[0]
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell for cell in re.split(r"[,;\s]+", line.strip()) if cell]
        if not cells:
            continue
        if len(cells) == 2 and all(_NUMBER.fullmatch(cell) for cell in cells):
            rows.append([float(cell) for cell in cells])
        elif rows or number > 1:
            raise ValueError(f"line {number} is not two numbers")
    return np.array(rows).reshape(-1, 2)


def save_shape(shape: MeanShape, path: Path, kind: str) -> None:
    """Write a shape as JSON next to the shards that were made with it.

    `kind`: "from-data" or "custom", as in the settings.
    """
    values = {
        "kind": kind,
        "mean_shape": shape.points.tolist(),
        "triangles": shape.triangles.tolist(),
        "sha256": shape.sha256,
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values))


def load_shape(path: Path, kind: str | None = None) -> MeanShape | None:
    """The shape that `save_shape` wrote; None if the file is missing or of another kind.

    Raises:
        NemoError: the file is damaged.
    """
    try:
        values = json.loads(path.read_text())
        shape = MeanShape(
            np.array(values["mean_shape"], dtype=np.float64).reshape(68, 2),
            np.array(values["triangles"], dtype=np.int32).reshape(-1, 3),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): restore it, or start over with `force`.", path
        ) from None
    if shape.sha256 != values.get("sha256"):
        raise DataError(f"{path} was changed: restore it, or start over with `force`.", path)
    return shape if kind in (None, values.get("kind")) else None
