"""Labels from files (the UvA-NEMO database's own details files, or CSV), and the videos they are about."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store.schema import LABEL_COLUMNS
from nemo_pipeline.store.text import csv_value, delimiter_of, natural_sorted
from nemo_pipeline.synth.mark import is_marked

#: Lines before the table in the database's details files.
_HEADER_LINES = 5
#: Other spellings of the columns of a CSV file, in lower case.
_SYNONYMS = {
    "file": "video",
    "filename": "video",
    "file name": "video",
    "file_name": "video",
    "video_name": "video",
    "clip": "video",
    "id": "video",
    "subject code": "subject",
    "subject_code": "subject",
    "subject_id": "subject",
    "subjectid": "subject",
    "person": "subject",
    "sex": "gender",
    "smile type": "condition",
    "smile_type": "condition",
    "type": "condition",
    "emotion": "expression",
}
_GENDERS = {"f": "female", "m": "male", "w": "female"}
_YES, _NO = {"1", "true", "yes", "y"}, {"", "0", "false", "no", "n", "nan", "na"}
_UNKNOWN = {"", "na", "n/a", "nan", "none", "null", "?", "-"}


@dataclasses.dataclass(frozen=True, slots=True)
class LabelTable:
    """Labels as read from a file.

    Attributes:
        source: where they come from, for messages.
        by_video: name of a video as the file has it -> labels (keys of LABEL_COLUMNS, known ones only).
        by_subject: subject code -> labels, for files that describe people.
        synthetic: names in `by_video`, or codes in `by_subject`, whose faces are generated.
    """

    source: str
    by_video: Mapping[str, Mapping[str, Any]]
    by_subject: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    synthetic: frozenset[str] = frozenset()


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
        unused: names in the label file that are no video of this run.
        ambiguous: names in the label file that could be several videos; nobody got those labels.
        synthetic: whether a labelled video is marked as generated.
        source: the label file.
    """

    labels: dict[str, dict[str, Any]]
    by_id: dict[str, dict[str, Any]]
    unlabelled: tuple[str, ...]
    unused: tuple[str, ...]
    ambiguous: tuple[str, ...]
    synthetic: bool
    source: str

    def for_row(self, file: str, row_id: str, suffix: str) -> dict[str, Any]:
        """Labels of one row. A second person ("#2") is not the one that a clip's label is about."""
        if row_id in self.by_id:
            return self.by_id[row_id]
        return {} if suffix.startswith("#") and not suffix.startswith("#1") else self.labels.get(file, {})


def read_labels(path: Path) -> LabelTable:
    """Read a label file of either kind. Raises NemoError that names the line and what is wrong with it.

    Whatever lies beside the mark of `nemo synth` is about generated faces, also where the file's kind has no
    column for it.
    """
    table = _read_table(path)
    if is_marked(Path(os.path.realpath(path)).parent):
        return dataclasses.replace(table, synthetic=frozenset({*table.by_video, *table.by_subject}))
    return table


def _read_table(path: Path) -> LabelTable:
    text = _read_text(path)
    lines = text.splitlines()
    table = [line for line in lines[_HEADER_LINES:] if line.strip()]
    head = [cell.strip().strip('"').lower() for cell in re.split(r"[,;\t]", lines[0])] if lines else []
    if (
        "video" not in {_SYNONYMS.get(cell, cell) for cell in head}
        and table
        and all("\t" in line for line in table)
    ):
        if "." not in table[0].split("\t")[0].strip():
            return _read_subject_details(path, lines)
        return _read_details(path, lines)
    return _read_csv(path, text)


def find_labels(folders: Iterable[Path]) -> Path | None:
    """A details file or labels.csv beside the videos; one about videos goes before one about subjects."""
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
    order, and only where it is one video. Letter case does not matter where that leaves no choice. A path may
    begin above or below the folder that was given, but must not name other folders than the video's. Of several
    names that mean one video the first kind in that order counts; where two of one kind differ, neither does.

    Args:
        videos: every video of the run.
    """
    keys: list[dict[str, set[str]]] = [defaultdict(set) for _ in range(5)]
    row_ids: dict[str, str] = {}
    for video in videos:
        file = video.file
        name = file.rsplit("/", 1)[-1]
        stem = name.rsplit(".", 1)[0]
        for level, key in enumerate((file, name, video.id, stem, name.lower())):
            keys[level][key].add(file)
        keys[4][stem.lower()].add(file)
        row_ids |= {row_id: file for row_id in video.row_ids if row_id not in (file, name, stem, video.id)}
    labels: dict[str, dict[str, Any]] = {}
    by_id: dict[str, dict[str, Any]] = {}
    unused: list[str] = []
    ambiguous: list[str] = []
    synthetic = False
    claims: dict[str, list[tuple[int, str]]] = {}  # video -> (kind of name, name)
    for name, values in table.by_video.items():
        if name in row_ids:
            by_id[name] = dict(values)
            synthetic = synthetic or name in table.synthetic
            continue
        hits: set[str] = set()
        for level, key in enumerate((name.removeprefix("./"), name, name, name, name.lower())):
            hits = keys[level].get(key, set())
            if hits:
                break
        if not hits:
            # A path that begins above or below the folder that was given.
            level, base = len(keys), name.replace("\\", "/").rsplit("/", 1)[-1]
            hits = keys[1].get(base, set()) or keys[3].get(base, set())
            hits = {file for file in hits if _same_place(name, file)}
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
    return Matched(labels, by_id, tuple(unlabelled), tuple(unused), tuple(ambiguous), synthetic, table.source)


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


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NemoError(f"The label file {path} does not exist.") from None
    except OSError as error:
        raise NemoError(f"The label file {path} cannot be read: {error.strerror}.") from None
    if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise NemoError(f"{path} is no text file; labels are read from CSV or the database's details files.")
    for encoding in ("utf-16",) if data.startswith((b"\xff\xfe", b"\xfe\xff")) else ("utf-8-sig",):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            pass
    return data.decode("utf-8", "surrogateescape")


def _read_details(path: Path, lines: list[str]) -> LabelTable:
    """File name, subject code, gender, age, smile type; tab-separated after five lines."""
    by_video: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines[_HEADER_LINES:], _HEADER_LINES + 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in re.split(r"\t+", line.strip())]
        if len(cells) < 4:
            raise NemoError(
                f"{path}, line {number}: {len(cells)} columns where file name, subject code, gender, age "
                "and smile "
                "type were expected."
            )
        values = {"video": cells[0], "subject": cells[1], "gender": cells[2], "age": cells[3]}
        if len(cells) > 4:
            values["condition"] = cells[4]
        values["expression"] = "smile"
        _add(by_video, cells[0], _labels(values, path, number), path, number)
    return LabelTable(str(path), by_video)


def _read_subject_details(path: Path, lines: list[str]) -> LabelTable:
    """Subject code, gender, age; tab-separated after five lines."""
    by_subject: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines[_HEADER_LINES:], _HEADER_LINES + 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in re.split(r"\t+", line.strip())]
        if len(cells) < 3:
            raise NemoError(
                f"{path}, line {number}: {len(cells)} columns where subject code, gender and age were "
                "expected."
            )
        values = _labels({"gender": cells[1], "age": cells[2]}, path, number)
        _add(by_subject, cells[0], values, path, number)
    return LabelTable(str(path), {}, by_subject)


def _read_csv(path: Path, text: str) -> LabelTable:
    """A header with at least `video`, comma, semicolon or tab between."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text.split("\n", 1)[0]))
    try:
        header = [name.strip().lower() for name in next(rows)]
    except (StopIteration, csv.Error):
        raise NemoError(f"{path} is empty; a label file has a header with video, subject, age.") from None
    # Beside a column of the label's own name, another spelling of it (an id beside video) is some other column.
    names = [name if _SYNONYMS.get(name) in header else _SYNONYMS.get(name, name) for name in header]
    if "video" not in names or not set(names) & set(LABEL_COLUMNS):
        shown = ", ".join(header)[:200]
        raise NemoError(
            f"{path}: the header is {shown!r}; it must name `video` and at least one of "
            f"{', '.join(LABEL_COLUMNS)}."
        )
    doubled = sorted({name for name in names if names.count(name) > 1 and name in (*LABEL_COLUMNS, "video")})
    if doubled:
        raise NemoError(f"{path}: the header has two columns for {', '.join(doubled)}.")
    by_video: dict[str, dict[str, Any]] = {}
    synthetic = set()
    try:
        for cells in rows:
            if not any(cell.strip() for cell in cells):
                continue
            number = rows.line_num
            if len(cells) != len(names):
                raise NemoError(
                    f"{path}, line {number}: {len(cells)} columns where the header has {len(names)}."
                )
            values = {name: csv_value(cell.strip()) for name, cell in zip(names, cells, strict=True)}
            if not values["video"]:
                raise NemoError(f"{path}, line {number}: the column `video` is empty.")
            _add(by_video, values["video"], _labels(values, path, number), path, number)
            mark = values.get("synthetic", "").lower()
            if mark in _YES:
                synthetic.add(values["video"])
            elif mark not in _NO:
                raise NemoError(f"{path}, line {number}: synthetic is {mark!r}; it must be true or false.")
    except csv.Error as error:
        raise NemoError(f"{path}, line {rows.line_num}: it is no CSV ({error}).") from None
    return LabelTable(str(path), by_video, synthetic=frozenset(synthetic))


def _add(table: dict[str, dict[str, Any]], name: str, values: dict[str, Any], path: Path, line: int) -> None:
    if name in table and table[name] != values:
        raise NemoError(f"{path}, line {line}: {name!r} stands there a second time with other labels.")
    table[name] = values


def _labels(values: Mapping[str, str], path: Path, line: int) -> dict[str, Any]:
    """Checked labels; unknown ones are left out."""
    labels: dict[str, Any] = {}
    for name in LABEL_COLUMNS:
        cell = values.get(name, "").strip().replace("\0", "")
        if cell.lower() in _UNKNOWN:
            continue
        if name == "age":
            labels[name] = _age(cell, path, line)
        elif name == "fold":
            if not re.fullmatch(r"\d{1,6}(\.0+)?", cell):
                raise NemoError(f"{path}, line {line}: fold is {cell!r}; it must be a whole number from 0.")
            labels[name] = int(float(cell))
        elif name == "gender":
            labels[name] = _GENDERS.get(cell.lower(), cell.lower())
        elif name == "condition":
            lower = cell.lower()
            labels[name] = "posed" if lower == "deliberate" else lower
        else:
            labels[name] = cell
    return labels


def _age(cell: str, path: Path, line: int) -> float:
    try:
        age = float(cell.replace(",", "."))
    except ValueError:
        raise NemoError(f"{path}, line {line}: age is {cell!r}; it must be a number of years.") from None
    if not (math.isfinite(age) and 0 <= age <= 130):
        raise NemoError(f"{path}, line {line}: age is {cell}; it must lie between 0 and 130 years.")
    return age
