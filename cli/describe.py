"""What `nemo info` says of a path: kind, results, sizes, the next command, settings."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.errors import DataError, NemoError
from nemo_pipeline.store.files import H5_ENDINGS
from nemo_pipeline.store.text import find_delimiter, listed, pluralize
from siam_model.run_folder import ModelFolder, RunFolder

from .describe_runs import model_facts, run_facts, runs_facts, study_facts, typed
from .outputs import TABLES

#: Kinds of prepared files.
INDEX, PACKED = "prepared file (index and shards)", "prepared file, packed"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PICTURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF"}


def describe(path: Path) -> dict[str, Any]:
    """Facts about `path`: its `kind`, what is in it, and `next`, what one does with it.

    Raises:
        NemoError: it does not exist, cannot be read, or is of no known kind.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist.{_unfinished_index(path)}", path)
    if path.is_dir():
        return _folder(path)
    if path in (ModelFolder(path.parent).card, ModelFolder(path.parent).weights):
        return model_facts(path.parent)
    if not path.is_file():
        raise DataError(f"{path} is not an ordinary file.", path)
    if is_hdf5(path):
        return _hdf5(path)
    with path.open("rb") as handle:
        head = handle.read(4096)
    for magic, name in _PICTURES.items():
        if head.startswith(magic):
            return {
                "path": path,
                "kind": f"{name} picture",
                "bytes_on_disk": path.stat().st_size,
                "next": "look at it with a viewer; `nemo prep` takes videos",
            }
    return _text(path, head) or _clip(path)


def is_hdf5(path: Path) -> bool:
    """Whether a path is, or is called, an HDF5 file."""
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        return handle.read(8) == _HDF5 or path.suffix.lower() in H5_ENDINGS


def _folder(path: Path) -> dict[str, Any]:
    """Any folder: of a run, a study, a model, shards, or of videos."""
    folder = RunFolder(path)
    if folder.is_study:
        return study_facts(path)
    if folder.is_begun:
        return run_facts(path)
    if folder.has_model or ModelFolder(path).card.is_file():
        return model_facts(path)
    if path.suffix == ".shards" and ((path / ".work").is_dir() or any(path.glob("*.h5"))):
        return _shards(path)
    runs = sorted(entry for entry in path.iterdir() if RunFolder(entry).is_begun)
    return runs_facts(path, runs) if runs else _videos(path)


# ---- prepared files


def _hdf5(path: Path) -> dict[str, Any]:
    from nemo_pipeline.store.files import open_h5
    from nemo_pipeline.store.strict import reading
    from nemo_pipeline.store.tables import read_identity

    with open_h5(path) as file, reading(path):
        kind = read_identity(file).get("kind")
    return _shard(path) if kind == "shard" else _dataset(path)


def _dataset(path: Path) -> dict[str, Any]:
    from nemo_pipeline.store import FaceDataset

    data = FaceDataset(path, check=False)
    usable = np.array(data.usable, dtype=int)
    ages = data.videos["age"][usable]
    ages = ages[np.isfinite(ages)]
    missing = (
        []
        if data.packed
        else [
            data.shards["name"][i]
            for i in range(len(data.shards["name"]))
            if not data.shard_path(i).is_file()
        ]
    )
    sizes = [data.path.stat().st_size]
    sizes += [
        data.shard_path(i).stat().st_size
        for i in range(len(data.shards["name"]))
        if data.shard_path(i).is_file()
    ]
    subjects = {data.videos["subject"][i] for i in usable} - {""}
    return {
        "path": data.path,
        "kind": PACKED if data.packed else INDEX,
        "videos": len(data.rows),
        "usable": len(usable),
        "status": dict(Counter(data.videos["status"]).most_common()),
        "frames": int(data.videos["length"].sum()),
        "pictures": dict(Counter(data[i].picture for i in usable).most_common()),
        "transfer": dict(Counter(data.videos["transfer"][i] or "not stated" for i in usable).most_common()),
        "face_size": data.size,
        "landmarks_in_crop": data.landmarks_in_crop.round(3).tolist(),
        "seconds_of_video": float(
            sum(data.videos["length"][i] / data.videos["fps"][i] for i in usable if data.videos["fps"][i] > 0)
        ),
        "subjects": len(subjects),
        "ages": {"known": len(ages), "lowest": float(ages.min()), "highest": float(ages.max())}
        if len(ages)
        else "none",
        "marks": _marks(data),
        "synthetic": data.synthetic,
        "mesh": data.config.mesh,
        "video_streams": _streams(data),
        "shards": "none (packed)" if data.packed else len(data.shards["name"]),
        "missing_shards": missing or "none",
        "bytes_on_disk": sum(sizes),
        "next": _after_dataset(data, len(ages), bool(missing)),
        "settings": dataclasses.asdict(data.config),
        "made_with": data.versions,
        "model_sha256": data.attributes.get("model_sha256", ""),
        "format_version": data.attributes["format_version"],
        "uuid": data.uuid,
    }


def _marks(data: Any) -> Any:
    """What the marks next to a prepared file leave out."""
    from nemo_pipeline.errors import NemoError
    from nemo_pipeline.marks import found_beside
    from nemo_pipeline.store.marked import open_marked

    if found_beside(data.path) is None:
        return "none"
    try:
        found = open_marked(data.path).exclusions
    except NemoError as error:  # a shard is missing, or the marks cannot be read: the rest can be said
        return str(error)
    return {"file": found.file, "left_out": found.counts(), "reasons": found.reasons}


def _streams(data: Any) -> dict[str, int]:
    """Number of the video stream that was used -> how many rows."""
    counts = Counter(data.videos["stream"].tolist())
    return {"not known" if number < 0 else str(number): n for number, n in sorted(counts.items())}


def _after_dataset(data: Any, n_aged: int, broken: bool) -> str:
    if broken:
        return typed("nemo", "verify", data.path)
    return typed("nemo", "train", data.path) if n_aged else typed("nemo", "label", data.path, "FILE")


def _shard(path: Path) -> dict[str, Any]:
    from nemo_pipeline.store.shard import read_shard

    shard = read_shard(path)
    return {
        "path": path,
        "kind": "shard: a part of a prepared file",
        "videos": len(shard.rows),
        "status": dict(Counter(row.status for row in shard.rows).most_common()),
        "frames": sum(row.length for row in shard.rows),
        "files": [row.file for row in shard.rows],
        "bytes_on_disk": path.stat().st_size,
        "next": typed("nemo", "info", path.absolute().parent.with_suffix(".h5")),
        "settings": dataclasses.asdict(shard.config),
        "made_with": shard.versions,
        "uuid": shard.uuid,
    }


def _shards(path: Path) -> dict[str, Any]:
    """The folder of an index, or what a preparation left that is not finished."""
    indices = [path.with_suffix(".h5"), path.with_suffix("")]
    index = next((file for file in indices if file.is_file()), None)
    waiting = sum(1 for _ in path.glob(".work*/*.json"))
    return {
        "path": path,
        "kind": f"shards of {index.name}"
        if index
        else "unfinished preparation: its index is not written yet",
        "shards": sum(1 for _ in path.glob("*.h5")),
        "finished_videos_in_no_shard": waiting,
        "next": typed("nemo", "info", index) if index else "rerun the same `nemo prep` command to resume",
    }


def _unfinished_index(path: Path) -> str:
    """What to say of an out.h5 that a stopped run has not written yet; else ""."""
    from nemo_pipeline.store.shard import shards_folder

    folder = shards_folder(path)
    if not folder.is_dir():
        return ""
    return f" {folder.name} is there: its preparation is not finished; rerun the same `nemo prep` command to resume."


# ---- text


def _text(path: Path, head: bytes) -> dict[str, Any] | None:
    """A page, JSON or a table; None where it is not text, or called like a video."""
    from nemo_pipeline.batch.content import VIDEO_EXTENSIONS

    utf16 = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    if path.suffix.lower() in VIDEO_EXTENSIONS or not head.strip() or (b"\0" in head and not utf16):
        return None
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return _other(path, "web page", "open it in a browser")
    if path.suffix.lower() == ".json":
        return _other(path, "JSON file", typed("nemo", "info", path.absolute().parent))
    if any(byte < 32 and byte not in b"\t\n\r\f" for byte in head) and not utf16:
        return None
    return _table(path)


def _other(path: Path, kind: str, follows: str) -> dict[str, Any]:
    return {"path": path, "kind": kind, "bytes_on_disk": path.stat().st_size, "next": follows}


def _table(path: Path) -> dict[str, Any]:
    """A table by its columns: of landmarks, of predictions, of ages, or of labels."""
    from nemo_pipeline.batch.label_table import read_labels
    from nemo_pipeline.batch.label_text import read_label_text
    from siam_model.predictions import has_predictions, read_predictions
    from siam_model.protocol.history import HISTORY_COLUMNS

    text = read_label_text(path).text
    first = next((line for line in text.splitlines() if line.strip()), "")
    header = [cell.strip() for cell in next(csv.reader([first], delimiter=find_delimiter(first)), [])]
    rows = max(0, sum(1 for line in text.splitlines() if line.strip()) - 1)
    if {"frame", "x_0", "y_67"} <= set(header):
        return _other(path, f"landmarks in OpenFace's columns, {pluralize(rows, 'row')}",
                      typed("nemo", "prep", "videos/", "out.h5", "--landmarks", path.absolute().parent))  # fmt: skip
    if has_predictions(header):
        predictions = read_predictions(path)
        return {
            "path": path,
            "kind": "predictions of a run",
            "mean_absolute_error_years": float(predictions.error.mean()),
            "videos": len(predictions.video),
            "subjects": len(set(predictions.subject)),
            "next": typed("nemo", "evaluate", path.absolute().parent),
        }
    if {"age_predicted", "frames_used"} <= set(header):
        return _other(path, f"ages from `nemo predict`, {pluralize(rows, 'row')}", "open it in a spreadsheet")
    if set(HISTORY_COLUMNS) <= set(header):
        return _other(
            path,
            f"epochs of a training, {pluralize(rows, 'row')}",
            typed("nemo", "info", path.absolute().parent),
        )
    try:
        table = read_labels(path)
    except NemoError as error:
        if path.suffix.lower() not in TABLES or len(header) < 2:
            return _other(
                path, "text file", "nothing: nemo reads labels from CSV files and from details files"
            )
        return _other(
            path, f"table of another kind, {pluralize(rows, 'row')}", "correct it to use it for labels"
        ) | {
            "columns": listed(header, 10),
            "why_no_labels": str(error).removeprefix(f"{path}: "),
        }
    labels = [*table.by_video.values(), *table.by_subject.values()]
    ages = [line["age"] for line in labels if "age" in line]
    return {
        "path": path,
        "kind": "label table, of subjects" if table.by_subject else "label table",
        "rows": len(labels),
        "ages": {"known": len(ages), "lowest": min(ages), "highest": max(ages)} if ages else "none",
        "subjects": len({line["subject"] for line in labels if "subject" in line} | set(table.by_subject)),
        "notes": " ".join(note.removeprefix(f"{path}: ") for note in table.notes) or "none",
        "next": typed("nemo", "label", "out.h5", path),
    }


# ---- videos


def _clip(path: Path) -> dict[str, Any]:
    from nemo_pipeline.batch.worker import probe_video

    answer = probe_video(path)
    several = len(answer["streams"]) > 1
    return {
        "path": path,
        "kind": "video",
        **answer["info"],
        **({"video_streams": answer["streams"]} if several else {}),
        "bytes_on_disk": answer["bytes"],
        "note": "as stated in the file; the number of frames is known only after decoding"
        + ("; of several streams, nemo prep uses the one that --stream selects" if several else ""),
        "next": typed("nemo", "prep", path, "out.h5"),
    }


def _videos(path: Path) -> dict[str, Any]:
    from nemo_pipeline.batch.discover import discover
    from nemo_pipeline.batch.drawings import DRAWN_MARK
    from nemo_pipeline.batch.labels import find_labels

    found = discover([path])
    beside = find_labels(found.folders)
    drawn = (path / DRAWN_MARK).exists()
    follows = typed("nemo", "prep", path, "out.h5")
    if drawn:
        follows = "look at them; they are not recordings to prepare"
    elif not found.videos:
        follows = f"{typed('nemo', 'prep', path, 'out.h5', '--dry-run')} says why each file is left out"
    return {
        "path": path,
        "kind": "folder of clips that nemo drew"
        if drawn
        else "folder"
        if found.videos
        else "folder without videos",
        "videos": len(found.videos),
        "left_out": len(found.skipped),
        "labels_beside": str(beside) if beside else "none",
        "next": follows,
    }
