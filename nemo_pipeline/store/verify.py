"""`nemo verify`: is this file as it was written, and is it consistent?"""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal

import h5py
import numpy as np

from nemo_pipeline.errors import NemoError
from nemo_pipeline.status import Status
from nemo_pipeline.store.files import open_h5
from nemo_pipeline.store.index import windows
from nemo_pipeline.store.reader import FaceDataset
from nemo_pipeline.store.schema import FRAME_FIELDS
from nemo_pipeline.store.sealed import CHANGED
from nemo_pipeline.store.shard import read_shard
from nemo_pipeline.store.strict import member, reading
from nemo_pipeline.store.tables import array_hash, data_hash
from nemo_pipeline.store.text import equal_codes, listed, pluralize

#: Bytes that are read at a time.
_BLOCK = 16 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """Something that `verify` has to say. `level`: "error" (do not use it), "warning", or "note"."""

    level: Literal["error", "warning", "note"]
    where: str
    text: str


def verify(path: str | os.PathLike[str], on_video: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Check structure, shards, uuids, hashes, ranges and labels of an index or a packed file.

    Raises:
        NemoError: it cannot even be opened.
    """
    data = FaceDataset(path, check=False, changed=True)
    findings = [] if data.unchanged else [Finding("error", data.path.name, f"it {CHANGED}.")]
    findings += [*_tables(data), *_geometry(data), *_frames(data)]
    broken = set()
    for number, finding in _shards(data):
        findings.append(finding)
        if finding.level == "error":
            broken.add(number)
    for row in data.rows:
        if data.packed or int(data.layout["shard"][row]) not in broken:
            findings += _row(data, row)
        if on_video is not None:
            on_video(row + 1, len(data.rows))
    data.close()
    return [*findings, *label_findings(data)]


def _tables(data: FaceDataset) -> Iterator[Finding]:
    """The columns of /videos agree with each other."""
    videos = data.videos
    for name, count in Counter(videos["id"]).items():
        if count > 1:
            yield Finding("error", name, f"{count} rows have this id.")
    length = videos["length"]
    if not data.in_order:
        yield Finding("error", "/videos", "start and length do not lie end to end.")
    for i, name in enumerate(videos["id"]):
        status = Status.read(videos["status"][i])
        if status not in list(Status):
            yield Finding("error", name, f"its status {status!r} is unknown.")
        elif status.usable != (length[i] > 0):
            yield Finding("error", name, f"its status is {status}, with {length[i]} frames.")


def _geometry(data: FaceDataset) -> Iterator[Finding]:
    if data.mean_shape.shape != (68, 2) or not np.isfinite(data.mean_shape).all():
        yield Finding("error", "/mean_shape", "it is not 68 finite points.")
    triangles = data.triangles
    if triangles.ndim != 2 or triangles.shape[1] != 3 or not ((triangles >= 0) & (triangles < 68)).all():
        yield Finding("error", "/triangles", "they do not join the 68 points.")


def _frames(data: FaceDataset) -> Iterator[Finding]:
    """What other programs see: the frame datasets have the right shape and lead into the shards folder."""
    total = int(data.videos["length"].sum())
    try:
        with open_h5(data.path) as file:
            for name, field in data.fields.items():
                with reading(data.path, f"/{name}"):
                    yield from _frame_dataset(
                        data, member(file, name), name, (total, *field.tail), field.dtype
                    )
    except NemoError as error:
        yield Finding("error", "frames", str(error))


def _frame_dataset(
    data: FaceDataset, dataset: Any, name: str, shape: tuple[int, ...], dtype: np.dtype
) -> Iterator[Finding]:
    if not isinstance(dataset, h5py.Dataset):
        yield Finding("error", f"/{name}", "it is missing.")
        return
    made = dataset.id.get_create_plist()
    shown: list[tuple[str, int, int]] = []
    if made.get_layout() == h5py.h5d.VIRTUAL and not data.packed:
        for i in range(made.get_virtual_count()):
            (first, *_), (last, *_) = made.get_virtual_srcspace(i).get_select_bounds()
            shown.append((made.get_virtual_filename(i), int(first), int(last - first + 1)))
        strange = {source for source, _, _ in shown} - data.sources
        if strange:
            text = f"other programs would look for its frames in {min(strange)!r}"
            yield Finding("warning", f"/{name}", f"{text}; is the folder renamed?")
    if dataset.shape != shape or dataset.dtype != dtype:
        yield Finding("error", f"/{name}", f"it is {dataset.dtype} {dataset.shape}, not {shape}.")
    elif not data.packed:
        names = [n.replace("%", "%%") for n in data.shards["name"]]
        columns = (data.layout["shard"], data.layout["shard_start"], data.videos["length"])
        rows = ((names[k], int(start), int(n)) for k, start, n in zip(*columns, strict=True))
        missing = set(windows(rows)) - {(source.rsplit("/", 1)[-1], start, n) for source, start, n in shown}
        if missing and name in FRAME_FIELDS and FRAME_FIELDS[name].missing is None:
            yield Finding(
                "error", f"/{name}", "it shows other programs other frames than those of its videos."
            )


def _shards(data: FaceDataset) -> Iterator[tuple[int, Finding]]:
    """Every shard is there, is the one, and holds the rows at the places that the index says."""
    if data.packed:
        return
    for number, name in enumerate(data.shards["name"]):
        path = data.shard_path(number)
        try:
            shard = read_shard(path)
        except NemoError as error:
            yield number, Finding("error", name, str(error))
            continue
        if shard.uuid != data.shards["uuid"][number]:
            yield (
                number,
                Finding("error", name, "it is another file than the one that the index was made with."),
            )
            continue
        if shard.fingerprint != data.attributes.get("fingerprint"):
            yield number, Finding("error", name, "it was made with other settings than the index says.")
        at = {row.start: row for row in shard.rows if row.length}
        for i in np.flatnonzero((data.layout["shard"] == number) & (data.videos["length"] > 0)):
            row = at.get(int(data.layout["shard_start"][i]))
            same = row is not None and (row.length, row.sha256, row.data_sha256) == (
                int(data.videos["length"][i]),
                data.videos["sha256"][i],
                data.layout["data_sha256"][i],
            )
            if not same:
                yield (
                    number,
                    Finding("error", data.videos["id"][i], f"{name} holds another video at its place."),
                )


def _row(data: FaceDataset, row: int) -> Iterator[Finding]:
    """The arrays of one video: hash, and ranges."""
    name, length = data.videos["id"][row], int(data.videos["length"][row])
    if length <= 0:
        return

    def blocks(field: str) -> Iterator[np.ndarray]:
        row_bytes = data.fields[field].dtype.itemsize * math.prod(data.fields[field].tail)
        step = max(1, _BLOCK // max(1, row_bytes))
        for start in range(0, length, step):
            yield data.read(row, field, start, start + step)

    try:
        names = data.written_fields(row)
        digest = data_hash({name: array_hash(blocks(name)) for name in names}, names)
        if digest != data.layout["data_sha256"][row]:
            yield Finding("error", name, "its arrays are not those that were written: the file is damaged.")
            return
        times, index = data.read(row, "timestamps"), data.read(row, "frame_index")
        tracked, score = data.read(row, "tracked"), data.read(row, "face_presence")
        pose, eyes = data.read(row, "pose"), data.read(row, "eye_distance_px")
        finite = all(np.isfinite(block).all() for block in blocks("landmarks"))
        flat = all((block.max() == block.min()) for block in blocks("frames"))
    except NemoError as error:
        yield Finding("error", name, str(error))
        return
    if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        yield Finding("error", name, "its timestamps do not increase.")
    if (index < 0).any() or (np.diff(index) <= 0).any():
        yield Finding("error", name, "its frame numbers do not increase.")
    if int((~tracked).sum()) != int(data.videos["n_interpolated"][row]):
        yield Finding("error", name, "n_interpolated does not count the frames that were not tracked.")
    if ((score < 0) | (score > 1)).any():
        yield Finding("error", name, "face_presence lies outside 0..1.")
    if (np.abs(pose) > 180).any():
        yield Finding("error", name, "an angle lies outside -180..180 degrees.")
    if (eyes <= 0).any():
        yield Finding("error", name, "a face has no size.")
    if flat:
        yield Finding("error", name, "its faces are of one gray level.")
    if not finite:
        yield Finding("warning", name, "it has no landmarks, or not on every frame.")


def label_findings(data: FaceDataset) -> Iterator[Finding]:
    """What the labels lack, and what cannot be right in them."""
    usable = np.array(data.usable, dtype=int)
    ages = data.videos["age"][usable]
    n_aged = int(np.isfinite(ages).sum())
    if n_aged < len(usable):
        some = ", ".join(data.videos["id"][i] for i in usable[~np.isfinite(ages)][:5])
        yield Finding(
            "note",
            "labels",
            f"{len(usable) - n_aged} of {pluralize(len(usable), 'usable video')} without an age: {some}",
        )
    if n_aged and ((ages < 0) | (ages > 130)).any():
        yield Finding("error", "labels", "an age lies outside 0..130 years.")
    no_subject = [data.videos["id"][i] for i in usable if not data.videos["subject"][i]]
    if n_aged and no_subject:
        text = f"{pluralize(len(no_subject), 'usable video')} without a subject cannot be split by person: "
        yield Finding("warning", "labels", text + ", ".join(no_subject[:5]))
    for group in equal_codes({data.videos["subject"][i] for i in usable} - {""}):
        text = f"{listed([repr(code) for code in group])} may be one person under several codes"
        yield Finding("warning", "labels", text)
    by_subject: dict[str, set[float]] = {}
    for i in usable:
        if data.videos["subject"][i] and np.isfinite(data.videos["age"][i]):
            by_subject.setdefault(data.videos["subject"][i], set()).add(float(data.videos["age"][i]))
    several = sorted(subject for subject, known in by_subject.items() if max(known) - min(known) > 5)
    if several:
        text = "these subjects have ages more than 5 years apart: "
        yield Finding("warning", "labels", text + ", ".join(several[:5]))
