"""Matching the names in a label table with the videos of a run."""

from __future__ import annotations

import dataclasses
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_pipeline.batch.label_table import LabelTable
from nemo_pipeline.store.text import listed, natural_sorted


@dataclasses.dataclass(frozen=True, slots=True)
class LabelledVideo:
    """A video that labels may be about: its name and id in the run, and the ids of its rows."""

    file: str
    id: str
    row_ids: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Matched:
    """Labels found for videos.

    Attributes:
        labels: `file` of a video -> labels of all its rows.
        by_id: id of a row -> labels, where the file names a row itself (a second person: "clip#2").
        unlabelled: files of videos without a label.
        unused: names in the label file that match no video of this run.
        ambiguous: names in the label file that could be several videos; nobody got those labels.
        synthetic: whether a labelled video is marked as generated.
        source: the label file.
        similar: name in `unused` -> the one video that has it but for leading zeros, which spreadsheets drop.
        notes: how the label file was read.
    """

    labels: dict[str, dict[str, Any]]
    by_id: dict[str, dict[str, Any]]
    unlabelled: tuple[str, ...]
    unused: tuple[str, ...]
    ambiguous: tuple[str, ...]
    synthetic: bool
    source: str
    similar: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def for_row(self, file: str, row_id: str, person: int) -> dict[str, Any]:
        """Labels of one row. A second person is not the one that a clip's label is about."""
        if row_id in self.by_id:
            return self.by_id[row_id]
        return {} if person > 1 else self.labels.get(file, {})


def find_labels(folders: Iterable[Path]) -> Path | None:
    """A details file or labels.csv next to the videos; one about videos is preferred to one about subjects."""
    patterns = (r".*file_details\.txt", r"labels\.csv", r".*subject_details\.txt")
    for pattern in patterns:
        for folder in folders:
            for place in (folder, folder.parent):
                try:
                    names = natural_sorted(os.listdir(place))  # noqa: PTH208
                except OSError:
                    continue
                for name in names:
                    if re.fullmatch(pattern, name, re.IGNORECASE) and (place / name).is_file():
                        return place / name
                if pattern == r"labels\.csv":
                    break  # a labels.csv one folder up may belong to something else
    return None


def match_labels(table: LabelTable, videos: Sequence[LabelledVideo]) -> Matched:
    """Find whom the labels are about.

    A name in the file means a video by its relative path, its file name, its id, or its stem: in this
    order, and only where it is one video. Letter case does not matter where that leaves no choice, nor whether an
    accented letter is one character or two (as macOS writes it). A path may begin above or below the folder that was
    given, but must not name other folders than the video's. Of several names that mean one video the first kind in
    that order counts; where two of one kind differ, neither does.

    Args:
        videos: every video of the run.
    """
    keys: list[dict[str, set[str]]] = [defaultdict(set) for _ in range(5)]
    row_ids: dict[str, str] = {}
    for video in videos:
        file = video.file
        path = _in_table(file, table)
        name = path.rsplit("/", 1)[-1]
        stem = name.rsplit(".", 1)[0]
        own = _in_table(video.id, table)
        for level, key in enumerate((path, name, own, stem, name.casefold())):
            keys[level][key].add(file)
        keys[4][stem.casefold()].add(file)
        row_ids |= {
            _in_table(row_id, table): row_id
            for row_id in video.row_ids
            if row_id not in (file, name, stem, video.id)
        }
    labels: dict[str, dict[str, Any]] = {}
    by_id: dict[str, dict[str, Any]] = {}
    unused: list[str] = []
    ambiguous: list[str] = []
    synthetic = False
    claims: dict[str, list[tuple[int, str]]] = {}  # video -> (kind of name, name)
    for name, values in table.by_video.items():
        if name in row_ids:
            by_id[row_ids[name]] = dict(values)
            synthetic = synthetic or name in table.synthetic
            continue
        hits: set[str] = set()
        for level, key in enumerate((name.removeprefix("./"), name, name, name, name.casefold())):
            hits = keys[level].get(key, set())
            if hits:
                break
        if not hits:
            # A path that begins above or below the folder that was given.
            level, base = len(keys), name.replace("\\", "/").rsplit("/", 1)[-1]
            hits = keys[1].get(base, set()) or keys[3].get(base, set())
            hits = {file for file in hits if _same_place(name, _in_table(file, table))}
        if len(hits) == 1:
            claims.setdefault(next(iter(hits)), []).append((level, name))
        else:
            (ambiguous if hits else unused).append(name)
    for file, named in claims.items():
        best = min(level for level, _ in named)
        chosen = [name for level, name in named if level == best]
        unused += [
            name
            for level, name in named
            if level > best and table.by_video[name] != table.by_video[chosen[0]]
        ]
        if any(table.by_video[name] != table.by_video[chosen[0]] for name in chosen):
            ambiguous += chosen
            continue
        labels[file] = dict(table.by_video[chosen[0]])
        synthetic = synthetic or not table.synthetic.isdisjoint(chosen)
    if table.by_subject:
        used = _add_subjects(table, videos, labels, unused)
        synthetic = synthetic or not used.isdisjoint(table.synthetic)
    unlabelled = [v.file for v in videos if v.file not in labels and not any(i in by_id for i in v.row_ids)]
    return Matched(
        labels, by_id, tuple(unlabelled), tuple(unused), tuple(ambiguous), synthetic, table.source,
        _similar(unused, unlabelled), table.notes,
    )  # fmt: skip


def similar_names(matched: Matched) -> str:
    """A sentence on names that fit a video but for leading zeros."""
    pairs = [f"{name} may mean {file}" for name, file in matched.similar.items()]
    return (
        f"Did a spreadsheet drop leading zeros? {listed(pairs, 3)}: write the names as the files have them."
    )


def _in_table(name: str, table: LabelTable) -> str:
    """A video's name as `table` would write it: accents composed, bytes that are not UTF-8 in the table's encoding."""
    if any("\udc80" <= char <= "\udcff" for char in name) and table.encoding != "utf-8":
        name = os.fsencode(name).decode(table.encoding, "replace")
    return unicodedata.normalize("NFC", name)


def _similar(unused: Iterable[str], unlabelled: Iterable[str]) -> dict[str, str]:
    """Names and videos without a partner that are the same but for leading zeros: 1.mp4, 001.mp4."""

    def plain(name: str) -> str:
        base = name.replace("\\", "/").rsplit("/", 1)[-1].casefold()
        return re.sub(r"(?<![0-9])0+(?=[0-9])", "", re.sub(r"\.[a-z][a-z0-9]{1,4}$", "", base))

    files: dict[str, list[str]] = defaultdict(list)
    for file in unlabelled:
        files[plain(file)].append(file)
    return {name: files[plain(name)][0] for name in unused if len(files.get(plain(name), ())) == 1}


def _same_place(name: str, file: str) -> bool:
    """Whether two paths of one file name could be the same file seen from different folders."""
    one, other = (path.replace("\\", "/").split("/")[-2::-1] for path in (name, file))
    return all(a == b for a, b in zip(one, other, strict=False))


def _add_subjects(
    table: LabelTable,
    videos: Sequence[LabelledVideo],
    labels: dict[str, dict[str, Any]],
    unused: list[str],
) -> set[str]:
    """Labels by subject: from the subject that is known, or the code that begins the file's name
    (001_posed_2.mp4). Answers the codes that are somebody's.
    """
    used: set[str] = set()
    for file in (video.file for video in videos):
        subject = labels.get(file, {}).get("subject")
        if subject is None:
            match = re.match(r"[A-Za-z]*\d+", file.rsplit("/", 1)[-1])
            subject = match[0] if match else ""
        code = _same_code(subject, table.by_subject)
        if code is not None:
            used.add(code)
            labels[file] = {"subject": code, **table.by_subject[code], **labels.get(file, {})}
    unused.extend(f"subject {code}" for code in table.by_subject if code not in used)
    return used


def _same_code(code: str, known: Mapping[str, Any]) -> str | None:
    """`code` among `known`; 001 and 1 are the same."""
    if code in known:
        return code
    plain = code.lstrip("0")
    hits = [other for other in known if other.lstrip("0") == plain and plain]
    return hits[0] if len(hits) == 1 else None
