"""Label files of every kind as a table: the UvA-NEMO database's own details files, or CSV with a header."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_pipeline.batch.label_text import LabelText, read_label_text, without_bytes
from nemo_pipeline.errors import DataError
from nemo_pipeline.store.schema import LABEL_COLUMNS
from nemo_pipeline.store.text import csv_value, find_delimiter, listed
from nemo_pipeline.synth.mark import is_marked

#: Lines before the table in the database's details files.
_HEADER_LINES = 5
#: What spreadsheets put first where the separator is not theirs.
_SEPARATOR = re.compile(r'"?sep=([,;|\t ])"?\s*$', re.IGNORECASE)
#: A label file has a handful of columns.
_MOST_COLUMNS = 1000
#: Other names of the columns of a CSV file: lower case, letters and digits alone, without a unit in parentheses.
_SYNONYMS = {
    "video": "file filename filepath path videofile videofilename videoname videoid videopath clip clipid clipname "
             "clipfile recording id",
    "subject": "subjectcode subjectid subjectno subjectnumber subj participant participantcode participantid "
               "participantno participantnumber person personid pid",
    "age": "agetrue ageyears ageinyears ageyrs ageatrecording",
    "gender": "sex",
    "condition": "smiletype type",
    "expression": "emotion",
    "fold": "foldid foldnumber",
}  # fmt: skip
_COLUMN_OF = {other: name for name, others in _SYNONYMS.items() for other in others.split()}
_GENDERS = {"f": "female", "m": "male", "w": "female"}
_YES, _NO = {"1", "true", "yes", "y"}, {"", "0", "false", "no", "n", "nan", "na"}
_UNKNOWN = {
    "",
    "na",
    "n/a",
    "nan",
    "none",
    "null",
    "?",
    "-",
    ".",
    "#n/a",
    "#na",
    "n.a.",
    "unknown",
    "missing",
}


@dataclasses.dataclass(frozen=True, slots=True)
class LabelTable:
    """Labels as read from a file.

    Attributes:
        source: where they come from, for messages.
        by_video: name of a video as the file has it -> labels (keys of LABEL_COLUMNS, known ones only).
        by_subject: subject code -> labels, for files that describe people.
        synthetic: names in `by_video`, or codes in `by_subject`, whose faces are generated.
        encoding: of the file.
        notes: sentences on how it was read: its encoding, columns of other names, columns that were not used.
    """

    source: str
    by_video: Mapping[str, Mapping[str, Any]]
    by_subject: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    synthetic: frozenset[str] = frozenset()
    encoding: str = "utf-8"
    notes: tuple[str, ...] = ()


def read_labels(path: Path, files: Iterable[str] = ()) -> LabelTable:
    """Read a label file of either kind. Raises NemoError that names the line and what is wrong with it.

    Labels in a folder with the mark of `nemo synth` are of generated faces, even if the file's kind has no
    column for it.

    Args:
        files: names of the videos, which tell encodings apart where the file is not UTF-8.
    """
    read = read_label_text(path, files)
    table = _read_table(path, read)
    notes = (read.note, *table.notes) if read.note else table.notes
    table = dataclasses.replace(table, encoding=read.encoding, notes=notes)
    if is_marked(Path(os.path.realpath(path)).parent):
        return dataclasses.replace(table, synthetic=frozenset({*table.by_video, *table.by_subject}))
    return table


def _read_table(path: Path, read: LabelText) -> LabelTable:
    lines = read.text.splitlines()
    table = [line for line in lines[_HEADER_LINES:] if line.strip()]
    first = next((line for line in lines if line.strip() and not _is_preamble(line)), "")
    if table and all("\t" in line for line in table) and not _names_video(first):
        if "." not in table[0].split("\t")[0].strip():
            return _read_subject_details(path, lines)
        return _read_details(path, lines)
    return _read_csv(path, read.text)


def _is_preamble(line: str) -> bool:
    """A comment, or a spreadsheet's line on what separates cells."""
    return (line.startswith("#") and not _names_video(line)) or _SEPARATOR.match(line) is not None


def _names_video(line: str) -> bool:
    """Whether a line is the header of a CSV file."""
    cells = line.lstrip("#").split(find_delimiter(line))
    return len(cells) > 1 and "video" in {_column(cell) for cell in cells}


def _column(name: str) -> str:
    """What a column holds: one of LABEL_COLUMNS, "video", "synthetic", or the name as it is."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    unit = re.search(r"[(\[](.*?)[)\]]", plain)
    key = re.sub(r"[\W_]+", "", re.sub(r"[(\[].*?[)\]]", "", plain))
    key = _COLUMN_OF.get(key, key)
    if key == "age" and unit and not unit[1].strip().startswith("y"):
        return plain  # months, a group: no age in years
    return key


def _read_details(path: Path, lines: list[str]) -> LabelTable:
    """File name, subject code, gender, age, smile type; tab-separated after five lines."""
    by_video: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines[_HEADER_LINES:], _HEADER_LINES + 1):
        if not line.strip():
            continue
        cells = [_clean(cell) for cell in re.split(r"\t+", line.strip())]
        if len(cells) < 4:
            raise DataError(
                f"{path}, line {number}: {len(cells)} columns where file name, subject code, gender, age "
                "and smile type were expected.",
                path,
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
        cells = [_clean(cell) for cell in re.split(r"\t+", line.strip())]
        if len(cells) < 3:
            raise DataError(
                f"{path}, line {number}: {len(cells)} columns where subject code, gender and age were expected.",
                path,
            )
        values = _labels({"gender": cells[1], "age": cells[2]}, path, number)
        _add(by_subject, cells[0], values, path, number)
    return LabelTable(str(path), {}, by_subject)


def _read_csv(path: Path, text: str) -> LabelTable:
    """A header with at least `video`, comma, semicolon or tab between."""
    rows, header, before = _open_csv(path, text)
    names = [_column(name) for name in header]
    if "video" not in names or not set(names) & set(LABEL_COLUMNS):
        raise DataError(
            f"{path}: the header is {', '.join(header)[:200]!r}; it must name `video` and at least one of "
            f"{', '.join(LABEL_COLUMNS)} (or a usual name of theirs, such as file name, participant ID, age (years), "
            "sex).",
            path,
        )
    # Next to a column with the label's own name, another name of it (an id next to video) is some other column.
    plain = [name.casefold() for name in header]
    names = [own if name != own and name in plain else name for name, own in zip(names, plain, strict=True)]
    for name, count in Counter(names).items():
        if count > 1 and name in (*LABEL_COLUMNS, "video"):
            same = listed([given for given, column in zip(header, names, strict=True) if column == name])
            raise DataError(
                f"{path}: the header has two columns for {name} ({same}): rename all but one.", path
            )
    by_video: dict[str, dict[str, Any]] = {}
    synthetic = set()
    try:
        for cells in rows:
            if not any(cell.strip() for cell in cells):
                continue
            number = before + rows.line_num
            if cells[0].startswith("# ") or (cells[0].startswith("#") and len(cells) != len(names)):
                continue  # a comment
            if len(cells) > len(names) and not any(cell.strip() for cell in cells[len(names) :]):
                cells = cells[: len(names)]
            if len(cells) != len(names):
                raise DataError(
                    f"{path}, line {number}: {len(cells)} columns where the header has {len(names)}.", path
                )
            values = {name: _clean(cell) for name, cell in zip(names, cells, strict=True)}
            if values["video"].lower() in _UNKNOWN:
                raise DataError(f"{path}, line {number}: the column `video` is empty.", path)
            _add(by_video, values["video"], _labels(values, path, number), path, number)
            mark = values.get("synthetic", "").lower()
            if mark in _YES:
                synthetic.add(values["video"])
            elif mark not in _NO:
                raise DataError(
                    f"{path}, line {number}: synthetic is {mark!r}; it must be true or false.", path
                )
    except csv.Error as error:
        raise DataError(f"{path}, line {before + rows.line_num}: it is not CSV ({error}).", path) from None
    return LabelTable(str(path), by_video, synthetic=frozenset(synthetic), notes=_notes(path, header, names))


def _open_csv(path: Path, text: str) -> tuple[Any, list[str], int]:
    """A csv reader after its header, the header's cells, and the number of lines before it: blank ones, comments, and
    a line `sep=;` that says what separates cells."""
    source = io.StringIO(text, newline="")
    delimiter = None
    before = 0
    for line in source:
        plain = line.strip()
        if told := _SEPARATOR.match(line):
            delimiter = told[1]
        elif plain and not _is_preamble(plain):
            break
        before += 1
    else:
        raise DataError(f"{path} is empty; a label file has a header with video, subject, age.", path)
    rows = csv.reader(
        itertools.chain([line.lstrip("#")], source),
        delimiter=delimiter or find_delimiter(line),
        skipinitialspace=True,
    )
    try:
        header = [_clean(name) for name in next(rows)]
    except csv.Error as error:
        raise DataError(f"{path}, line {before + 1}: it is not CSV ({error}).", path) from None
    if len(header) > _MOST_COLUMNS:
        raise DataError(f"{path}: the header has {len(header)} columns; a label file has a few.", path)
    return rows, header, before


def _notes(path: Path, header: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """What was made of the columns, where that is not plain."""
    known = (*LABEL_COLUMNS, "video", "synthetic")
    pairs = list(zip(header, names, strict=True))
    taken = [f"{given} as {name}" for given, name in pairs if name in known and given.casefold() != name]
    unused = [given for given, name in pairs if name not in known and given]
    notes = []
    if taken:
        notes.append(f"{path}: columns taken: {listed(taken, 10)}.")
    if unused:
        notes.append(f"{path}: columns not used: {listed(unused, 10)}.")
        missing = [name for name in ("subject", "age") if name not in names]
        if missing:
            notes.append(
                f"{path}: no column is understood as {' or '.join(missing)}; name it so if there is one."
            )
    return tuple(notes)


def _clean(cell: str) -> str:
    """A cell's text: without blanks around it, without what keeps a spreadsheet from changing it, accents composed."""
    cell = cell.strip().strip("\u200b\ufeff").strip()
    formula = re.fullmatch(r'="(.*)"', cell, re.DOTALL)
    cell = formula[1].replace('""', '"') if formula else csv_value(cell)
    return unicodedata.normalize("NFC", cell)


def _add(table: dict[str, dict[str, Any]], name: str, values: dict[str, Any], path: Path, line: int) -> None:
    if name in table and table[name] != values:
        raise DataError(f"{path}, line {line}: {name!r} is there a second time with other labels.", path)
    table[name] = values


def _labels(values: Mapping[str, str], path: Path, line: int) -> dict[str, Any]:
    """Checked labels; unknown ones are left out."""
    labels: dict[str, Any] = {}
    for name in LABEL_COLUMNS:
        cell = without_bytes(values.get(name, ""))  # what is stored is UTF-8
        if cell.lower() in _UNKNOWN:
            continue
        if re.fullmatch(r"#(REF!|VALUE!|DIV/0!|NAME\?|NULL!|NUM!)", cell, re.IGNORECASE):
            raise DataError(
                f"{path}, line {line}: {name} is {cell}, an error of the spreadsheet: correct it there.", path
            )
        if name == "age":
            labels[name] = _age(cell, path, line)
        elif name == "fold":
            if not re.fullmatch(r"[0-9]{1,6}(\.0+)?", cell):
                raise DataError(
                    f"{path}, line {line}: fold is {cell!r}; it must be a whole number from 0.", path
                )
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
    # Python's own float() would take 2_3 for 23, and digits of other scripts.
    if not re.fullmatch(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)", cell):
        raise DataError(f"{path}, line {line}: age is {cell!r}; it must be a number of years.", path)
    age = float(cell.replace(",", "."))
    if not (math.isfinite(age) and 0 <= age <= 130):
        raise DataError(f"{path}, line {line}: age is {cell}; it must lie between 0 and 130 years.", path)
    return age
