"""The contents of a prepared file in formats that other programs read.

A table with a row per frame (CSV or Parquet), arrays (NumPy, or in the archives of WebDataset), face images (PNG) and
lossless videos (FFV1); OpenFace's tables of landmarks are those of `nemo_pipeline.batch.landmark_files`. Every format
names the video, the number of the frame in it and its time.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from nemo_pipeline.errors import DataError, InstallationError, OutputError
from nemo_pipeline.frame_table import frame_columns
from nemo_pipeline.store.files import replacing
from nemo_pipeline.store.reader import FaceDataset, FaceVideo
from nemo_pipeline.store.text import CsvWriter, csv_cell, safe_name

Format = Literal["openface", "table", "npz", "webdataset", "faces", "video"]
#: In a folder of face images or videos: which frame each of them is.
INDEX = "frames.csv"
#: A table's name where a folder is given.
TABLE = "table.csv"
_ENDINGS = {"npz": ".npz", "faces": "", "video": ".mkv"}
#: An archive of a folder of them is ended when it has as many bytes.
ARCHIVE_BYTES = 1_000_000_000
#: Matroska's times are whole milliseconds.
_TICKS = 1000


def export(data: FaceDataset, target: Path, kind: Format, *, only: str | None = None) -> list[Path]:
    """Write the videos of a prepared file in another format.

    Args:
        data: the prepared file.
        target: "openface": a folder, or one file. "table": FILE.csv, FILE.parquet, or a folder for table.csv.
            "webdataset": FILE.tar, or a folder for archives of at most a gigabyte. Else a folder; in "faces" every
            video has a folder of its own there.
        kind: the format.
        only: id of the one video to write.

    Returns:
        The files, or folders of face images.

    Raises:
        OutputError: something cannot be written, or is there already.
        NemoError: no such video has frames, or a library is missing.
    """
    if kind == "openface":
        from nemo_pipeline.batch.landmark_files import export_landmarks

        _make_folder(target)
        return export_landmarks(data, target, only=only)
    videos = _chosen(data, only)
    _make_folder(target)
    try:
        if kind == "table":
            path = target / TABLE if target.is_dir() else target
            _write_table(videos, path)
            return [path]
        if kind == "webdataset":
            return _write_archives(videos, target)
        write = {"npz": _write_arrays, "faces": _write_faces, "video": _write_video}[kind]
        paths = [target / f"{safe_name(video.id)}{_ENDINGS[kind]}" for video in videos]
        for path in (*paths, target / INDEX):
            if path.exists():
                raise OutputError(f"{path} exists already: name another folder, or remove it.", path)
        for video, path in zip(videos, paths, strict=True):
            write(video, path)
        return paths if kind == "npz" else [*paths, _write_index(videos, paths, target / INDEX)]
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}.", target) from None


def _chosen(data: FaceDataset, only: str | None) -> list[FaceVideo]:
    """The videos with frames, or those of one id (all persons and segments of it)."""
    videos = [video for video in data.values() if only is None or only in (video.id, video.video_id)]
    if not videos:
        which = "no video with frames" if only is None else f"no video {only!r} with frames"
        raise DataError(f"{data.path} holds {which}.", data.path)
    return videos


def _make_folder(target: Path) -> None:
    """A target without an ending is a folder, and made."""
    if target.suffix and not target.is_dir():
        return
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target} cannot be made: {error.strerror}.", target) from None


def _write_table(videos: Sequence[FaceVideo], path: Path) -> None:
    with replacing(path) as temporary:
        if path.suffix.lower() == ".parquet":
            _write_parquet(videos, temporary)
        else:
            with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                _write_csv(videos, file)


def _write_csv(videos: Iterable[FaceVideo], file: IO[str]) -> None:
    writer = CsvWriter(file)
    head: list[str] = []
    for video in videos:
        columns = frame_columns(video)
        if not head:
            head = list(columns)
            writer.writerow(head)
        writer.writerows(zip(*(_cells(columns[name]) for name in head), strict=True))


def _cells(values: Any) -> Iterable[object]:
    """Values as text that reads back as they are: shortest digits, nothing for NaN, 0 and 1 for no and yes."""
    if isinstance(values, list):
        return [csv_cell(value) if isinstance(value, str) else _number(value) for value in values]
    if values.dtype.kind != "f":
        return [int(value) for value in values]
    return ["" if text == "nan" else text for text in values.astype(str)]


def _number(value: float) -> object:
    return "" if value != value else value


def _write_parquet(videos: Iterable[FaceVideo], path: Path) -> None:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise InstallationError(
            "Parquet needs pyarrow: install it with `pip install pyarrow`, or write a table named .csv.",
            "pyarrow",
        ) from None
    writer = None
    try:
        for video in videos:
            table = arrow.table(frame_columns(video))
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _write_arrays(video: FaceVideo, path: Path) -> None:
    """Every frame dataset, and every column of /videos as an array without dimensions; no pickled objects."""
    columns = video.dataset.videos
    arrays: dict[str, Any] = {f"video_{name}": np.asarray(columns[name][video.row]) for name in columns}
    arrays |= {name: video.read(name) for name in video.dataset.fields}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _write_archives(videos: Sequence[FaceVideo], target: Path) -> list[Path]:
    """Archives as WebDataset reads them: the arrays of a video as KEY.NAME.npy, one after the other, then its labels as
    KEY.json. Read in order; into a folder several, each begun when the one before has `ARCHIVE_BYTES`."""
    written: list[Path] = []
    waiting = list(videos)
    while waiting:
        path = target / f"videos-{len(written):06d}.tar" if target.is_dir() else target
        if path.exists():
            raise OutputError(f"{path} exists already: name another place, or remove it.", path)
        with replacing(path) as temporary, tarfile.open(temporary, "w") as archive:
            while waiting and (not target.is_dir() or archive.offset < ARCHIVE_BYTES):
                _add_video(archive, waiting.pop(0))
        written.append(path)
    return written


def _add_video(archive: tarfile.TarFile, video: FaceVideo) -> None:
    key = safe_name(video.id).replace(".", "_")  # what follows the first point is the name of an array
    columns = video.dataset.videos
    for name in video.dataset.fields:
        content = io.BytesIO()
        np.save(content, video.read(name), allow_pickle=False)
        _add(archive, f"{key}.{name}.npy", content.getvalue())
    labels = {name: np.asarray(columns[name][video.row]).item() for name in columns}
    known = {name: None if value != value else value for name, value in labels.items()}
    _add(archive, f"{key}.json", json.dumps(known).encode())


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    archive.addfile(entry, io.BytesIO(content))


def _blocks(video: FaceVideo, size: int = 256) -> Iterator[np.ndarray]:
    for start in range(0, len(video), size):
        yield from video.read("frames", start, start + size)


def _write_faces(video: FaceVideo, path: Path) -> None:
    """A PNG per frame, named by its number in the source."""
    from PIL import Image

    path.mkdir(mode=0o700)
    for number, face in zip(video.frame_index, _blocks(video), strict=True):
        with os.fdopen(os.open(path / _face_name(number), os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            Image.fromarray(face).save(file, "png")


def _face_name(number: int) -> str:
    return f"{number:06d}.png"


def _write_video(video: FaceVideo, path: Path) -> None:
    """FFV1 in Matroska: gray levels without loss, every frame at its time from the first one on (to a millisecond)."""
    import av

    with replacing(path) as temporary, av.open(str(temporary), "w", format="matroska") as container:
        stream: Any = container.add_stream("ffv1", rate=Fraction(video.fps or 25.0).limit_denominator(1001))
        stream.width = stream.height = video.dataset.size
        stream.pix_fmt = "gray"
        stream.codec_context.time_base = Fraction(1, _TICKS)
        container.metadata["title"] = video.id
        first, last = float(video.timestamps[0]), -1
        for time, face in zip(video.timestamps, _blocks(video), strict=True):
            frame = av.VideoFrame.from_ndarray(face, format="gray")
            last = max(last + 1, round((float(time) - first) * _TICKS))
            frame.pts, frame.time_base = last, Fraction(1, _TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_index(videos: Sequence[FaceVideo], paths: Sequence[Path], index: Path) -> Path:
    """Of every exported frame: its file, its place in it, its video, its number there and its time, seconds."""
    with (
        replacing(index) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = CsvWriter(file)
        writer.writerow(("file", "position", "video", "frame_index", "timestamp", "tracked"))
        for video, path in zip(videos, paths, strict=True):
            rows = zip(video.frame_index, video.timestamps, video.tracked, strict=True)
            for position, (number, time, tracked) in enumerate(rows):
                name = f"{path.name}/{_face_name(number)}" if path.is_dir() else path.name
                writer.writerow(
                    (
                        csv_cell(name),
                        position,
                        csv_cell(video.id),
                        int(number),
                        repr(float(time)),
                        int(tracked),
                    )
                )
    return index
