"""OpenFace's landmark files: one CSV per video, a row per frame and face. Read row by row, and written.

Columns (OpenFace writes a blank before every name but the first): `frame` from 1, `face_id`, `timestamp` in seconds
from the first frame, `confidence` 0..1, `success` 0 or 1, `x_0`..`x_67`, `y_0`..`y_67` in pixels of the upright
picture; all others are passed over (`X_0` is another column than `x_0`). `timestamp` and `face_id` may be absent.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.store.text import escape_controls

_POINTS = tuple(f"{axis}_{i}" for axis in "xy" for i in range(68))
_NEEDED = ("frame", "confidence", "success", *_POINTS)
#: What `write_faces` writes, in OpenFace's order.
COLUMNS = ("frame", "face_id", "timestamp", "confidence", "success", *_POINTS)


class LandmarksError(Exception):
    """A landmark file that is missing, not a landmark file, or not of its video. str() is one sentence for people."""


@dataclasses.dataclass(frozen=True, slots=True)
class FaceRow:
    """One row of a landmark file.

    Attributes:
        line: of the file, from 1.
        frame: number of the frame, from 1.
        face: `face_id`, 0 where there is no such column.
        timestamp: seconds, NaN where the file says nothing.
        confidence: 0..1.
        success: whether the tracker believed in this face.
        landmarks: (68, 2) float64, pixels, x then y; may be NaN where `success` is False.
    """

    line: int
    frame: int
    face: int
    timestamp: float
    confidence: float
    success: bool
    landmarks: NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Survey:
    """What a landmark file holds as a whole: how many frames, the last frame's number, the faces."""

    n_frames: int
    last_frame: int
    faces: frozenset[int]


def content_hash(path: Path) -> str:
    """sha256 of a file, "" when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


def survey(path: Path) -> Survey:
    """Read `path` once from beginning to end, in memory that does not depend on its length.

    Raises:
        LandmarksError: it cannot be read, or is not of this format.
    """
    n_frames, last = 0, 0
    faces: set[int] = set()
    for row in read_rows(path, points=False):
        n_frames += row.frame != last
        last = row.frame
        faces.add(row.face)
    return Survey(n_frames, last, frozenset(faces))


def read_rows(path: Path, *, points: bool = True) -> Iterator[FaceRow]:
    """The rows of a landmark file, in its order, which must be that of the frames.

    Args:
        path: the CSV.
        points: read the landmarks; without, they are all NaN.

    Raises:
        LandmarksError: it cannot be read, columns are missing, or a row makes no sense (the sentence names the
            line).
    """
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as handle:
            yield from _rows(handle, path, points)
    except OSError as error:
        raise LandmarksError(f"{_name(path)} cannot be read ({error.strerror}).") from None
    except csv.Error as error:
        raise LandmarksError(f"{_name(path)} is not a CSV file ({error}).") from None


def _rows(handle: TextIO, path: Path, points: bool) -> Iterator[FaceRow]:
    reader = csv.reader(handle, skipinitialspace=True)
    header = [name.strip() for name in next(reader, [])]
    where = {name: i for i, name in reversed(list(enumerate(header)))}
    missing = [name for name in _NEEDED if name not in where]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise LandmarksError(
            f"{_name(path)} has no column {', '.join(missing[:3])}{more}: OpenFace's FeatureExtraction writes them "
            "with -2Dfp; columns are separated by commas."
        )
    if "video" in where:
        raise LandmarksError(
            f"{_name(path)} holds several videos: give each one's rows in a file of its own."
        )
    at = [where[name] for name in _POINTS]
    nothing = np.full((68, 2), np.nan)
    last, seen = 0, set[int]()
    for cells in reader:
        line = reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < len(header):
            raise LandmarksError(
                f"{_name(path)} has {len(cells)} columns in line {line} and {len(header)} in its header: it is cut off."
            )

        def number(name: str, cells: list[str] = cells, line: int = line) -> float:
            try:
                return float(cells[where[name]])
            except ValueError:
                text = escape_controls(cells[where[name]])[:40]
                raise LandmarksError(f"{_name(path)} says {text!r} for {name} in line {line}.") from None

        frame, face = number("frame"), number("face_id") if "face_id" in where else 0.0
        if not (frame.is_integer() and frame >= 1 and face.is_integer() and face >= 0):
            raise LandmarksError(
                f"{_name(path)} gives frame {frame:g} and face {face:g} in line {line}; frames are counted from 1, "
                "faces from 0."
            )
        if frame < last or (frame == last and face in seen):
            raise LandmarksError(
                f"{_name(path)} gives frame {frame:.0f} in line {line} after frame {last}: rows must be in the order "
                "of the frames, with one row for each face."
            )
        seen = {int(face)} if frame > last else seen | {int(face)}
        last = int(frame)
        time = cells[where["timestamp"]].strip() if "timestamp" in where else ""
        success = number("success") >= 0.5
        landmarks = nothing
        if points:
            try:
                values = np.array([cells[i] for i in at], dtype=np.float64)
            except ValueError:
                values = np.array([number(name) for name in _POINTS])
            landmarks = values.reshape(2, 68).T
            if success and not np.isfinite(landmarks).all():
                raise LandmarksError(
                    f"{_name(path)} has coordinates that are not numbers in line {line}, where success is 1."
                )
        yield FaceRow(
            line=line,
            frame=last,
            face=int(face),
            timestamp=number("timestamp") if time else float("nan"),
            confidence=number("confidence"),
            success=success,
            landmarks=landmarks,
        )


def _name(path: Path) -> str:
    """How a landmark file is called in a sentence: its name alone (the sentence is kept with the faces)."""
    return escape_controls(path.name)


def header_line(extra: Sequence[str] = ()) -> str:
    """The first line of a landmark file, with `extra` columns before the others; no line end."""
    return ",".join([*extra, *COLUMNS])


def format_row(row: FaceRow) -> str:
    """One line of a landmark file, no line end. float32 values survive the way to the file and back."""
    time = f"{row.timestamp:.9g}" if np.isfinite(row.timestamp) else ""
    cells = [str(row.frame), str(row.face), time, f"{row.confidence:.6g}", str(int(row.success))]
    points = np.nan_to_num(row.landmarks).T.ravel()
    return ",".join([*cells, *(f"{value:.9g}" for value in points)])


def write_rows(handle: TextIO, rows: Iterable[FaceRow]) -> int:
    """Write a landmark file in OpenFace's columns (without its blank after a comma); answers the number of rows."""
    count = 0
    handle.write(header_line() + "\n")
    for row in rows:
        handle.write(format_row(row) + "\n")
        count += 1
    return count
