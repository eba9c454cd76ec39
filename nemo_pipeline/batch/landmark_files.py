"""Which landmark file belongs to which video, and landmark files of a prepared file."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.errors import DataError, OutputError
from nemo_pipeline.stages.openface import FaceRow, content_hash, format_row, header_line, write_rows
from nemo_pipeline.store.files import replacing
from nemo_pipeline.store.text import csv_cell, escape_controls

if TYPE_CHECKING:
    from nemo_pipeline.store.reader import FaceDataset

_BLOCK = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class LandmarkFile:
    """The landmark file of one video: `path`, or "" and the `problem` in a sentence. `sha256` of its content."""

    path: str
    sha256: str
    problem: str = ""


def find_landmarks(folder: Path, videos: Sequence[VideoFile]) -> dict[str, LandmarkFile]:
    """The landmark file of each video, by `VideoFile.file`.

    For sub/clip.mp4 the first that is there of sub/clip.mp4.csv, sub/clip.csv, clip.mp4.csv, clip.csv in
    `folder`. A file that two videos would take belongs to neither.

    Raises:
        NemoError: `folder` is not a folder.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder; give the one that holds a landmark file for each video.", folder
        )
    chosen = {v.file: next((p for p in _names(v.file) if (folder / p).is_file()), None) for v in videos}
    takers: dict[PurePosixPath, list[str]] = defaultdict(list)
    for file, name in chosen.items():
        if name is not None:
            takers[name].append(file)
    found = {}
    for file, name in chosen.items():
        if name is None:
            wanted = _names(file)[-1]
            found[file] = LandmarkFile(
                "",
                "",
                f"There is no landmark file for it: {escape_controls(str(wanted))} was expected in `landmarks`.",
            )
        elif len(takers[name]) > 1:
            other = next(taker for taker in takers[name] if taker != file)
            better = _names(file)[0]
            found[file] = LandmarkFile(
                "",
                "",
                f"{escape_controls(str(name))} could hold its landmarks or those of {escape_controls(other)}: "
                f"call the one that does {escape_controls(str(better))}.",
            )
        else:
            path = folder / name
            found[file] = LandmarkFile(str(path), content_hash(path))
    return found


def file_names(files: Sequence[str]) -> dict[str, PurePosixPath]:
    """A name for each video's landmark file, relative to their folder: the shortest that no other video's could have,
    so that `find_landmarks` finds it again."""
    counts = Counter(name for file in files for name in _names(file))
    return {
        file: next((n for n in reversed(_names(file)) if counts[n] == 1), _names(file)[0]) for file in files
    }


def _names(file: str) -> list[PurePosixPath]:
    """What the landmark file of a video may be called, the most definite first; always inside the folder."""
    path = PurePosixPath(file.replace(os.sep, "/"))
    names = [path.with_name(path.name + ".csv"), path.with_suffix(".csv")]
    flat = [PurePosixPath(name.name) for name in names]
    inside = not path.is_absolute() and ".." not in path.parts and len(path.parts) > 1
    return list(dict.fromkeys([*names, *flat] if inside else flat))


def face_rows(data: FaceDataset, rows: Sequence[int], faces: Sequence[int]) -> Iterator[FaceRow]:
    """One video's rows of an out.h5 as rows of a landmark file: every decoded frame of every face, in order.

    The landmarks are the raw ones, as tracked, in pixels of the stored picture (the first one's), as OpenFace sees it:
    where those are not square, it is narrower or wider than the displayed one. `success` is 0 where the frame was
    interpolated, and where it is not part of the prepared stretch: there the points are 0 and the time is unknown.

    Args:
        rows: rows of /videos that come from one video file.
        faces: their `face_id`.
    """
    streams = [_frames(data, row, face) for row, face in zip(rows, faces, strict=True)]
    heads = [next(stream, None) for stream in streams]
    empty = np.zeros((68, 2))
    for frame in range(1, int(data.videos["n_decoded"][rows[0]]) + 1):
        time = next((h.timestamp for h in heads if h is not None and h.frame == frame), float("nan"))
        for i, face in enumerate(faces):
            head = heads[i]
            if head is not None and head.frame == frame:
                yield head
                heads[i] = next(streams[i], None)
            else:
                yield FaceRow(0, frame, face, time, 0.0, False, empty)


def _frames(data: FaceDataset, row: int, face: int) -> Iterator[FaceRow]:
    names = ("frame_index", "timestamps", "tracked", "face_presence", "landmarks_raw")
    shown, high = int(data.videos["width"][row]), int(data.videos["height"][row])
    stored = int(data.videos["stored_width"][row]), int(data.videos["stored_height"][row])
    wide = stored[0] if stored[1] == high else stored[1]  # upright: the height is the displayed one
    scale = np.array([wide / shown if wide and shown else 1.0, 1.0])
    for start in range(0, int(data.videos["length"][row]), _BLOCK):
        block = {name: data.read(row, name, start, start + _BLOCK) for name in names}
        for i in range(len(block["tracked"])):
            tracked, score = bool(block["tracked"][i]), float(block["face_presence"][i])
            # An engine without a presence score (NaN) was certain enough to give the frame.
            confidence = (score if np.isfinite(score) else 1.0) if tracked else 0.0
            yield FaceRow(
                line=0,
                frame=int(block["frame_index"][i]) + 1,
                face=face,
                timestamp=float(block["timestamps"][i]),
                confidence=confidence,
                success=tracked,
                landmarks=(block["landmarks_raw"][i].astype(np.float64) + 0.5) * scale - 0.5,
            )


def face_ids(people: Sequence[int]) -> list[int]:
    """`face_id` for the rows of one video, from the person of each; a row each where nobody says who is who (0)."""
    numbers = list(dict.fromkeys(people))
    return [numbers.index(person) for person in people] if any(people) else list(range(len(people)))


def export_landmarks(data: FaceDataset, target: Path, *, only: str | None = None) -> list[Path]:
    """Write the landmarks of an out.h5 as OpenFace writes them; answers the files.

    Args:
        target: a folder (one file for each video in it, as `find_landmarks` finds them), or a file name: then one
            video's rows, or those of all with a column `video` before the others.
        only: id of the one row to write, or of a video with several.

    Raises:
        NemoError: there is no such id, nothing to write, or no way to write it.
    """
    videos = _by_file(data, only)
    if not videos:
        raise DataError(f"{data.path} holds no face whose landmarks could be written.", data.path)
    try:
        if target.is_dir():
            names = file_names(list(videos))
            paths = [target / names[file] for file in videos]
            for path, (rows, faces) in zip(paths, videos.values(), strict=True):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with replacing(path) as temporary, temporary.open("w", encoding="ascii") as handle:
                    write_rows(handle, face_rows(data, rows, faces))
            return paths
        with replacing(target) as temporary, _open_text(temporary) as handle:
            if len(videos) == 1:
                write_rows(handle, face_rows(data, *next(iter(videos.values()))))
            else:
                handle.write(header_line(["video"]) + "\n")
                for rows, faces in videos.values():
                    for row, face in zip(rows, faces, strict=True):
                        name = _quoted(csv_cell(data.videos["id"][row]))
                        for one in face_rows(data, [row], [face]):
                            handle.write(f"{name},{format_row(one)}\n")
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}.", target) from None
    return [target]


def _open_text(path: Path):  # type: ignore[no-untyped-def]
    return path.open("w", encoding="utf-8", errors="surrogateescape")


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"\r\n') else cell


def _by_file(data: FaceDataset, only: str | None) -> Mapping[str, tuple[list[int], list[int]]]:
    """Rows with frames and their faces, by video file, in the order of the file."""
    people = data.videos["person"]
    groups: dict[str, list[int]] = defaultdict(list)
    for row in data.rows:
        groups[data.videos["file"][row]].append(row)
    # Rows without frames count only where a video has no others: all of its frames are then without a face.
    for file, rows in groups.items():
        groups[file] = [row for row in rows if data.videos["length"][row]] or rows[:1]
    found = {
        file: (rows, face_ids([int(people[row]) for row in rows]))
        for file, rows in groups.items()
        if data.videos["n_decoded"][rows[0]]
    }
    if only is None:
        return found
    if only in data.videos["id"]:
        row = data.videos["id"].index(only)
        if not data.videos["length"][row]:
            raise DataError(
                f"{only!r} has no frames: {data.videos['message'][row] or data.videos['status'][row]}",
                data.path,
            )
        return {data.videos["file"][row]: ([row], [0])}
    for file, (rows, faces) in found.items():
        if data[rows[0]].video_id == only:
            return {file: (rows, faces)}
    raise DataError(f"no video has the id {only!r} in {data.path}.{_some(data.videos['id'])}", data.path)


def _some(ids: Iterable[str]) -> str:
    some = list(ids)[:5]
    return f" It has {', '.join(escape_controls(name) for name in some)}, ..." if some else ""
