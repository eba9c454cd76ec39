"""From finished videos and labels to the index, out.h5."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.batch.label_table import LabelTable
from nemo_pipeline.batch.labels import LabelledVideo, Matched, match_labels, similar_names
from nemo_pipeline.batch.plan import Finished
from nemo_pipeline.datatypes import VideoFile, row_name
from nemo_pipeline.errors import DamagedFile, DataError, OutputError
from nemo_pipeline.store.files import disk_full_message, is_disk_full, replacing
from nemo_pipeline.store.index import IndexRow, video_columns, write_index
from nemo_pipeline.store.reader import FaceDataset
from nemo_pipeline.store.relabel import write_labels
from nemo_pipeline.store.schema import LABEL_COLUMNS, VIDEO_COLUMNS
from nemo_pipeline.store.tables import Provenance, column_kind
from nemo_pipeline.store.text import escape_controls
from nemo_pipeline.synth.mark import is_marked

Labels = dict[str, Any]


#: In the folder of shards: labels of videos that are not in the index now.
_ABSENT = "absent-labels.json"


@dataclasses.dataclass(frozen=True, slots=True)
class KnownLabels:
    """Labels that an earlier index holds: by (file, row of that file) and by (sha256, row of that file).

    `unknown` are columns that a later version wrote, name -> kind: their values are kept like labels.
    """

    by_file: Mapping[tuple[str, int], Labels] = dataclasses.field(default_factory=dict)
    by_content: Mapping[tuple[str, int], Labels] = dataclasses.field(default_factory=dict)
    synthetic: bool = False
    unknown: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def of(self, file: str, sha256: str, row: int) -> Labels:
        """Labels of row `row` of a video; none when it was not there before."""
        return self.by_file.get((file, row)) or self.by_content.get((sha256, row), {})


def known_labels(data: FaceDataset) -> KnownLabels:
    """The labels in an index."""
    by_file: dict[tuple[str, int], Labels] = {}
    by_content: dict[tuple[str, int], Labels] = {}
    counts: dict[str, int] = {}
    unknown = {name: column_kind(data.videos[name]) for name in data.videos if name not in VIDEO_COLUMNS}
    for i, file in enumerate(data.videos["file"]):
        row = counts.get(file, 0)
        counts[file] = row + 1
        labels = row_labels(data, i, (*LABEL_COLUMNS, *unknown))
        if labels:
            by_file[file, row] = labels
            if data.videos["sha256"][i]:
                by_content[data.videos["sha256"][i], row] = labels
    return KnownLabels(by_file, by_content, data.synthetic, unknown)


def recall_labels(folder: Path) -> KnownLabels:
    """What `remember_labels` left in the folder of shards; nothing where it left nothing.

    Raises:
        DamagedFile: the file is not as it was written.
    """
    file = folder / _ABSENT
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        lines = (
            values["labels"] if isinstance(values, dict) else values
        )  # the first version had the list alone
        if isinstance(values, dict) and values["digest"] != _digest(lines):
            raise ValueError("its digest is another")
        return KnownLabels({(str(name), int(row)): dict(labels) for name, row, labels in lines})
    except FileNotFoundError:
        return KnownLabels()
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        wrong = f"cannot be read ({error}); remove it to lose the labels of videos that are not in the index"
        raise DamagedFile(file, "", wrong) from None


def _digest(lines: list[Any]) -> str:
    return hashlib.sha256(json.dumps(lines, sort_keys=True).encode()).hexdigest()


def remember_labels(folder: Path, known: KnownLabels, files: Collection[str]) -> None:
    """Keep the labels of videos that are dropped (all but `files`) with their shards, for when they come back.

    Raises:
        NemoError: the disk is full.
    """
    lines = [[file, row, labels] for (file, row), labels in known.by_file.items() if file not in files]
    if not lines:
        (folder / _ABSENT).unlink(missing_ok=True)
        return
    with _full_disk_told(folder / _ABSENT), replacing(folder / _ABSENT) as temporary:
        temporary.write_text(json.dumps({"digest": _digest(lines), "labels": lines}), encoding="utf-8")


def row_labels(data: FaceDataset, row: int, names: Sequence[str] = LABEL_COLUMNS) -> Labels:
    """The labels of one row that are known."""
    labels = {}
    for name in names:
        value = data.videos[name][row]
        value = value.item() if isinstance(value, np.generic) else value
        if value not in ("", -1) and not (isinstance(value, float) and math.isnan(value)):
            labels[name] = value
    return labels


@dataclasses.dataclass(frozen=True, slots=True)
class Assembled:
    """The rows of an index in their final order, and how the label file matched (None: there was no file)."""

    rows: tuple[IndexRow, ...]
    matched: Matched | None
    synthetic: bool
    unknown: Mapping[str, str]

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The columns of /videos."""
        return video_columns(self.rows, self.unknown)


def assemble(
    videos: Sequence[VideoFile],
    finished: Mapping[str, Finished],
    *,
    known: KnownLabels | None = None,
    table: LabelTable | None = None,
    found: LabelTable | None = None,
    modified: Mapping[str, int] | None = None,
) -> Assembled:
    """Order the rows, name them, label them.

    Args:
        videos: in natural order; each must be in `finished`.
        known: labels of an earlier index.
        table: labels that the user gave: they win over `known`, name by name.
        found: labels found next to the videos: they fill what `known` lacks.
        modified: by `file`, when the video file was last changed, ns.
    """
    known = known or KnownLabels()
    entries = [(video, row) for video in videos for row in finished[video.file].rows]
    ids = _row_ids([(video.id, video.file, row.person, row.segment) for video, row in entries])
    by_video: dict[str, list[str]] = {video.file: [] for video in videos}
    for (video, _), row_id in zip(entries, ids, strict=True):
        by_video[video.file].append(row_id)
    labelled = [LabelledVideo(v.file, v.id, tuple(by_video[v.file])) for v in videos]
    given = match_labels(table, labelled) if table else None
    beside = match_labels(found, labelled) if found else None
    rows = []
    for (video, row), row_id in zip(entries, ids, strict=True):
        position = by_video[video.file].index(row_id)
        labels: Labels = {}
        if beside is not None:
            labels |= beside.for_row(video.file, row_id, row.person)
        labels |= known.of(video.file, row.sha256, position)
        if given is not None:
            labels |= given.for_row(video.file, row_id, row.person)
        changed = (modified or {}).get(video.file, 0)
        rows.append(IndexRow(row, finished[video.file].shard, row_id, video.file, labels, changed))
    # The mark of `nemo synth` is next to its clips, and counts whatever the labels say. (Parts that are
    # joined know no folders; their labels, or the index before, carry it.)
    folders = {video.path.parent for video in videos if video.path.is_absolute()}
    synthetic = known.synthetic or any(match.synthetic for match in (given, beside) if match)
    synthetic = synthetic or any(is_marked(folder) for folder in folders)
    return Assembled(tuple(rows), given or beside, synthetic, known.unknown)


def write_assembled(
    path: Path,
    assembled: Assembled,
    made: Provenance,
    *,
    mean_shape: np.ndarray,
    triangles: np.ndarray,
) -> None:
    """Write the index. Raises NemoError when the disk is full."""
    with _full_disk_told(path):
        write_index(
            path,
            assembled.rows,
            made,
            mean_shape=mean_shape,
            triangles=triangles,
            synthetic=assembled.synthetic,
            unknown=assembled.unknown,
        )


@contextlib.contextmanager
def _full_disk_told(path: Path) -> Iterator[None]:
    """A disk that fills while `path` is written is a sentence. Raises NemoError."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise OutputError(disk_full_message(path), path) from None
        raise


def _row_ids(rows: Sequence[tuple[str, str, int, int]]) -> list[str]:
    """Unique ids for (video id, file, person, segment), told apart by the file where the usual one is taken."""
    taken: set[str] = set()
    ids = []
    for video_id, file, person, segment in rows:
        row_id, other = row_name(video_id, person, segment), row_name(file, person, segment)
        n = 2
        while row_id in taken:
            row_id = other if n == 2 else f"{other}~{n}"
            n += 1
        taken.add(row_id)
        ids.append(row_id)
    return ids


def relabel(path: Path, table: LabelTable, *, replace: bool = False, force: bool = False) -> Matched:
    """Put labels into a finished file. Labels that `table` does not speak of stay, unless `replace`.

    Raises:
        NemoError: `path` is not a file of ours, cannot be written, or has no video that `table` speaks of; or, unless
            `force`, every age of the file would be gone.
    """
    data = FaceDataset(path, check=False)
    by_video: dict[str, list[int]] = {}
    for row, file in enumerate(data.videos["file"]):
        by_video.setdefault(file, []).append(row)
    videos = []
    for file, rows in by_video.items():
        ids = tuple(data.videos["id"][row] for row in rows)
        videos.append(LabelledVideo(file, data[rows[0]].video_id, ids))
    matched = match_labels(table, videos)
    if not matched.labels and not matched.by_id:
        unknown = (matched.unused or matched.ambiguous or ("it has no rows",))[0]
        hint = f" {similar_names(matched)}" if matched.similar else ""
        raise DataError(
            f"{table.source} has no label for any video of {data.path} (its first: {escape_controls(unknown)}); "
            f"nothing was changed.{hint}",
            table.source,
        )
    labels = []
    for row in data.rows:
        old = {} if replace else row_labels(data, row)
        new = matched.for_row(data.videos["file"][row], data.videos["id"][row], data.videos["person"][row])
        labels.append(old | new)
    aged = sum("age" in row_labels(data, row) for row in data.rows)
    if replace and not force and aged and not any("age" in new for new in labels):
        raise DataError(
            f"{table.source} has no ages, and `replace` would remove all {aged} of {data.path}; nothing was changed. "
            f"Leave out `replace` to keep them, or add `force`. {' '.join(table.notes)}".rstrip(),
            table.source,
        )
    try:
        with _full_disk_told(data.path):
            write_labels(data.path, labels, data.synthetic or matched.synthetic)
    except PermissionError:
        raise OutputError(
            f"{data.path.parent} is read-only: the labels cannot be written there.", data.path.parent
        ) from None
    return matched
