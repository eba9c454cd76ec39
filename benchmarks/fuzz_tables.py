"""Label tables for `benchmarks/fuzz.py`: the kinds that people, spreadsheets and other programs save."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from nemo_pipeline.batch.assemble import relabel
from nemo_pipeline.batch.label_table import LabelTable, read_labels
from nemo_pipeline.errors import NemoError
from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.store.text import escape_controls

#: Videos of the prepared file that is labelled, one of them with a decomposed accent, as macOS writes it.
FILES = ("001.mp4", "Zoe\u0308.mp4", "Jürgen Größ.mp4", "a, b.mp4", "folder/say x.mp4", "clip 6.mp4")
NAMES = ("001.mp4", "Zoë.mp4", "Jürgen Größ.mp4", "a, b.mp4", "folder/say x.mp4", "clip 6.mp4")
SUBJECTS = ("001", "Zoë", "Jürgen", "s 4", "005", "s6")
AGES = ("23", "24.5", "31", "47", "8", "66")
HEADER = ("video", "subject", "age", "gender")
PREAMBLE = "UvA-NEMO Smile Database\n\n\nFilename, subject code, gender, age, smile type\n\n"


def _table(
    delimiter: str = ",",
    header: tuple[str, ...] = HEADER,
    names: tuple[str, ...] = NAMES,
    subjects: tuple[str, ...] = SUBJECTS,
    ages: tuple[str, ...] = AGES,
    more: tuple[str, ...] = (),
    quoting: int = csv.QUOTE_MINIMAL,
    end: str = "\n",
) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
    rows = [
        (name, subject, age, "f", *more) for name, subject, age in zip(names, subjects, ages, strict=True)
    ]
    writer.writerows([header, *rows])
    return text.getvalue()


def _each(values: tuple[str, ...], change: Callable[[str], str]) -> tuple[str, ...]:
    return tuple(change(value) for value in values)


_COMMA = _each(AGES, lambda age: age.replace(".", ","))
#: name -> text, encoding
TABLES: dict[str, tuple[str, str]] = {
    "plain.csv": (_table(), "utf-8"),
    "bom.csv": (_table(), "utf-8-sig"),
    "utf16.csv": (_table("\t"), "utf-16"),
    "utf16be.csv": ("\ufeff" + _table(), "utf-16-be"),
    "utf16le_bare.csv": (_table(), "utf-16-le"),
    "utf16be_bare.csv": (_table(), "utf-16-be"),
    "utf32.csv": (_table(), "utf-32"),
    "cp1252.csv": (_table(";", ages=_COMMA), "cp1252"),
    "mac_roman.csv": (_table(";", ages=_COMMA, end="\r"), "mac_roman"),
    "cp1250.csv": (_table(";"), "cp1250"),
    "cp850.csv": (_table(), "cp850"),
    "semicolons.csv": (_table(";", ages=_COMMA, end="\r\n"), "utf-8"),
    "tabs.csv": (_table("\t"), "utf-8"),
    "cr.csv": (_table(end="\r"), "utf-8"),
    "crlf.csv": (_table(end="\r\n"), "utf-8"),
    "quoted.csv": (_table(quoting=csv.QUOTE_ALL), "utf-8"),
    "newlines.csv": (_table(more=("two\nlines",), header=(*HEADER, "note")), "utf-8"),
    "blanks.csv": (_table().replace(",", ", ").replace('"a,  b', '"a, b'), "utf-8"),
    "case.csv": (_table(header=_each(HEADER, str.upper)), "utf-8"),
    "synonyms.csv": (_table(header=("File Name", "Participant ID", "Age (years)", "Sex")), "utf-8"),
    "unused.csv": (_table(more=("3",), header=("clip", "person", "AGE", "sex", "Session")), "utf-8"),
    "not_understood.csv": (_table(header=("file", "subject", "Years", "Age (months)")), "utf-8"),
    "separator.csv": ("sep=;\n" + _table(";"), "utf-8"),
    "formulas.csv": (
        _table(names=_each(NAMES, '="{}"'.format), subjects=_each(SUBJECTS, '="{}"'.format)),
        "utf-8",
    ),
    "apostrophes.csv": (_table(subjects=_each(SUBJECTS, "'-{}".format)), "utf-8"),
    "comments.csv": ("# by hand\n" + _table().replace("\n", "\n# more\n", 1), "utf-8"),
    "hash.csv": ("#" + _table(), "utf-8"),
    "blank_lines.csv": ("\n\n" + _table().replace("\n", "\n\n"), "utf-8"),
    "missing.csv": (_table(ages=(".", "#N/A", "NA", "", "n.a.", "66")), "utf-8"),
    "decomposed.csv": (unicodedata.normalize("NFD", _table()), "utf-8"),
    "backslashes.csv": (_table(names=_each(NAMES, lambda n: "D:\\data\\" + n.replace("/", "\\"))), "utf-8"),
    "paths.csv": (_table(names=_each(NAMES, "/data/{}".format)), "utf-8"),
    "stems.csv": (_table(names=_each(NAMES, lambda n: n.rsplit("/")[-1].removesuffix(".mp4"))), "utf-8"),
    "trailing.csv": (_table().replace("\n", ",,\n"), "utf-8"),
    "more_columns.csv": (
        _table(more=("0", "smile", "posed"), header=(*HEADER, "fold", "expression", "condition")),
        "utf-8",
    ),
    "synthetic.csv": (_table(more=("no",), header=(*HEADER, "synthetic")), "utf-8"),
    "one_person.csv": (_table(subjects=("1", "1.0", "001", "S1", "s1", "s 1")), "utf-8"),
    "zeros_lost.csv": (_table(names=("1.mp4", *NAMES[1:]), subjects=("1", *SUBJECTS[1:])), "utf-8"),
    "twice.csv": (_table() + _table().split("\n", 1)[1], "utf-8"),
    "long.csv": (
        _table() + "".join(f"other{i}.mp4,o{i},{i % 90},m\n" for i in range(400)),
        "utf-8",
    ),
    "mixed.csv": (_table(), "mixed"),
    "details.txt": (
        PREAMBLE
        + "".join(f"{n}\t{s}\tf\t{a}\tposed\n" for n, s, a in zip(NAMES, SUBJECTS, AGES, strict=True)),
        "utf-8",
    ),
    "subject_details.txt": (
        PREAMBLE + "".join(f"{s}\tf\t{a}\n" for s, a in zip(SUBJECTS, AGES, strict=True)),
        "utf-8",
    ),
}
TARGETS = tuple(TABLES)


def _bytes(text: str, encoding: str) -> bytes:
    if encoding == "mixed":  # UTF-8, and one name of another program's
        return text.encode().replace("Jürgen,".encode(), "Jürgen,".encode("cp1252"))
    return text.encode(encoding)


def make(folder: Path) -> None:
    """A prepared file without labels, and the tables."""
    rng = np.random.default_rng(0)
    videos = [
        {
            "id": f"v{i}",
            "file": file,
            "frames": rng.integers(0, 256, (3, 16, 16), dtype=np.uint8),
        }
        for i, file in enumerate(FILES)
    ]
    write_dataset(folder / "out.h5", videos)
    for name, (text, encoding) in TABLES.items():
        (folder / name).write_bytes(_bytes(text, encoding))


def labels(path: Path, folder: Path) -> dict[str, tuple[str, float]]:
    """Subject and age of the videos that a table is about, as any program finds them in the file."""
    data = folder / "labelled.h5"
    shutil.copyfile(folder / "out.h5", data)
    shutil.copytree(folder / "out.shards", folder / "labelled.shards", dirs_exist_ok=True)
    table = read_labels(path, FILES)
    for note in table.notes:
        assert note == escape_controls(note) and len(note) < 1000, f"no sentence: {note[:200]!r}"
    by_hand = literal(path, table)
    if by_hand:
        raise AssertionError(by_hand)
    if table.by_subject:
        return {
            subject: (subject, found["age"]) for subject, found in table.by_subject.items() if "age" in found
        }
    relabel(data, table)
    with h5py.File(data) as file:
        codes = [code.decode() for code in file["videos/subject"][:]]  # UTF-8, or an error that is seen
        for column in ("gender", "expression", "condition"):
            assert all(value.decode() is not None for value in file[f"videos/{column}"][:])
        ages = [float(age) for age in file["videos/age"][:]]
        names = [name.decode() for name in file["videos/file"][:]]
    FaceDataset(data).close()
    return {
        name: (code, age) for name, code, age in zip(names, codes, ages, strict=True) if code or age == age
    }


# ---- read a second time, plainly: is each label in the cells that the table has for it?

#: What a byte that is not UTF-8 is in Windows-1252, or in Latin-1.
_WESTERN = [
    chr(b) if b in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else bytes([b]).decode("cp1252") for b in range(256)
]
_MOST_READ_TWICE = 500_000
_HEADS = {
    "video": "video file filename filepath path videofile clip recording id",
    "subject": "subject subjectcode participant participantid person personid pid",
    "age": "age ageyears ageinyears agetrue",
}


def literal(path: Path, table: LabelTable) -> str:
    """What a table says that its bytes do not, "" where there is nothing.

    The bytes are decoded as the table says that it did, split by Python's csv at each of the usual separators (as a
    whole, and line by line), and each video's subject and age are looked for in one record with its name: in columns
    whose header says so, where the header is one of those known here.
    """
    if path.stat().st_size > _MOST_READ_TWICE:
        return ""
    text = path.read_bytes().decode(table.encoding, "surrogateescape")
    records = [[_plain(cell) for cell in re.split(r"\t+", line.strip())] for line in text.splitlines()]
    for delimiter in ",;\t|":
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        while True:
            try:
                records.append([_plain(cell) for cell in next(reader)])
            except StopIteration:
                break
            except csv.Error:
                continue
        for line in text.splitlines():  # a quotation mark that nothing closes swallows what comes after it
            with contextlib.suppress(csv.Error):
                records += [
                    [_plain(c) for c in cells]
                    for cells in csv.reader([line], delimiter=delimiter, skipinitialspace=True)
                ]
    header: dict[str, set[int]] = {name: set() for name in _HEADS}
    for record in records:
        for at, cell in enumerate(record):
            for name, known in _HEADS.items():
                if re.sub(r"\(.*\)|[^a-z]", "", cell.casefold()) in known.split():
                    header[name].add(at)
    by_name: dict[str, list[list[str]]] = {}
    for record in records:
        for cell in record:
            by_name.setdefault(cell, []).append(record)
    for name, found in {**table.by_video, **table.by_subject}.items():
        mine = by_name.get(_plain(name), [])
        if not mine:
            return f"SILENT: {name!r} is not in the table"
        for column, same in (("subject", lambda a, b: a == b), ("age", lambda a, b: _number(a) == b)):
            if column not in found:
                continue
            places = {at for record in mine for at, cell in enumerate(record) if same(cell, found[column])}
            if not places:
                return f"SILENT: {column} {found[column]!r} is not in a line of {name!r}"
            csv_table = table.by_video and path.suffix == ".csv"
            if csv_table and header[column] and not places & header[column]:
                return f"SILENT: {column} {found[column]!r} of {name!r} is from another column"
    return ""


def _plain(cell: str) -> str:
    """A cell as a person reads it."""
    cell = cell.strip().strip("\u200b\ufeff").strip()
    if cell.startswith('="') and cell.endswith('"') and len(cell) > 2:
        cell = cell[2:-1].replace('""', '"')
    elif re.match(r"'[-=+@'\t\r]", cell):
        cell = cell[1:]
    characters = (c if not "\udc80" <= c <= "\udcff" else _WESTERN[ord(c) - 0xDC00] for c in cell)
    return unicodedata.normalize("NFC", "".join(characters))


def _number(cell: str) -> float | None:
    """A number of years as people write it."""
    if re.fullmatch(r"[+-]?[0-9]*[.,]?[0-9]*", cell) and any(c.isdigit() for c in cell):
        return float(cell.replace(",", "."))
    return None


_SOUND: dict[str, dict[str, tuple[str, float]]] = {}


def attempt(folder: Path, target: str) -> str:
    """Read it, match it, and put it into the prepared file."""
    if target not in _SOUND:
        sound = folder.with_name("base")
        shutil.rmtree(sound, ignore_errors=True)
        shutil.copytree(folder.with_name("sound"), sound)
        _SOUND[target] = labels(sound / target, sound)
    try:
        found = labels(folder / target, folder)
    except NemoError as error:
        text = str(error)
        if text != escape_controls(text) or not 10 < len(text) < 2000:
            return f"BARE: {text[:300]!r}"
        return "refused"
    except AssertionError as error:
        return str(error)
    return "same" if repr(found) == repr(_SOUND[target]) else "read"


# ---- damage that keeps a table a table

HOSTILE = (
    "2_3", "1e1", "0x17", "nan", "inf", "-1", "131", "1e400", "9" * 400, "23,5", "23.5.1", "٢٣", "１２", "²", "#REF!",
    "=1+1", '="7"', "'=7", "@x", "-", "?", ".", "", " ", "\u00a0", "\u200b", "\ufeff", "\u202e", "\x1b[31m", "\x00",
    '"', '""', "'", ",", ";", "\t", "\n", "\r", "\r\n", "\u2028", "\x85", "\x0b", "\x0c", "\x1c", "|", "\\", "001",
    "1", "1.0", "S1", "../x", "x" * 300, "x" * 140_000, "\ud800", "\udce9", "é", "e\u0301", "ß", "ﬁ", "NULL", "true",
)  # fmt: skip


def _edit(
    change: Callable[[list[str], np.random.Generator], None],
) -> Callable[[Path, np.random.Generator], None]:
    """A rewrite of the table's lines, in its own encoding."""

    def rewrite(path: Path, rng: np.random.Generator) -> None:
        text, encoding = TABLES[path.name]
        lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text)
        change(lines, rng)
        told = "utf-8" if encoding == "mixed" else encoding
        path.write_bytes("".join(lines).encode(told, "surrogatepass" if "utf" in told else "replace"))

    rewrite.__name__ = change.__name__
    return rewrite


def _one(lines: list[str], rng: np.random.Generator) -> int:
    return int(rng.integers(len(lines)))


def _cells(line: str) -> list[str]:
    return re.split(r"([,;\t])", line)


def cell(lines: list[str], rng: np.random.Generator) -> None:
    """One to three cells by others."""
    for _ in range(int(rng.integers(1, 4))):
        at = _one(lines, rng)
        cells = _cells(lines[at])
        cells[2 * int(rng.integers(len(cells) + 1) // 2) % len(cells)] = HOSTILE[
            int(rng.integers(len(HOSTILE)))
        ]
        lines[at] = "".join(cells)


def put(lines: list[str], rng: np.random.Generator) -> None:
    """Something put in, anywhere."""
    at = _one(lines, rng)
    where = int(rng.integers(len(lines[at]) + 1))
    lines[at] = lines[at][:where] + HOSTILE[int(rng.integers(len(HOSTILE)))] + lines[at][where:]


def swap(lines: list[str], rng: np.random.Generator) -> None:
    """Two cells of a line, or two lines, change places."""
    if rng.random() < 0.5:
        one, other = _one(lines, rng), _one(lines, rng)
        lines[one], lines[other] = lines[other], lines[one]
        return
    at = _one(lines, rng)
    cells = _cells(lines[at])
    one, other = (2 * (int(i) // 2) for i in rng.integers(len(cells), size=2))
    cells[one], cells[other] = cells[other], cells[one]
    lines[at] = "".join(cells)


def gone(lines: list[str], rng: np.random.Generator) -> None:
    """A line, a cell or a separator is missing."""
    at = _one(lines, rng)
    if rng.random() < 0.4:
        del lines[at]
        return
    cells = _cells(lines[at])
    del cells[int(rng.integers(len(cells)))]
    lines[at] = "".join(cells)


def again(lines: list[str], rng: np.random.Generator) -> None:
    """A line twice, with another age or code in the second."""
    at = _one(lines, rng)
    lines.insert(_one(lines, rng), re.sub(r"[0-9]+(?=\D*$)", str(int(rng.integers(200))), lines[at]))


def separators(lines: list[str], rng: np.random.Generator) -> None:
    """Another separator, in one line or in all."""
    one, other = (",;\t|"[int(i)] for i in rng.integers(4, size=2))
    here = range(len(lines)) if rng.random() < 0.5 else [_one(lines, rng)]
    for at in here:
        lines[at] = lines[at].replace(one, other)


def columns(lines: list[str], rng: np.random.Generator) -> None:
    """The header by another one."""
    known = [
        "video",
        "subject",
        "age",
        "Age",
        "age (months)",
        "id",
        "Participant",
        "sex",
        "fold",
        "synthetic",
        "x",
        "",
    ]
    names = [known[int(i)] for i in rng.integers(len(known), size=int(rng.integers(1, 6)))]
    lines[0] = ",;\t"[int(rng.integers(3))].join(names) + "\n"


def absurd(lines: list[str], rng: np.random.Generator) -> None:
    """Very long lines, very many columns, lines or quotes."""
    lines.insert(
        _one(lines, rng),
        [
            "x" * 5_000_000,
            "," * 1_000_000,
            "\n" * 1_000_000,
            '"' * 300_001,
            "a,b,3\n" * 50_000,
            "#" * 300_000,
        ][int(rng.integers(6))],
    )


def other_encoding(path: Path, rng: np.random.Generator) -> None:
    """The same text in another encoding, or with another one's mark."""
    text = TABLES[path.name][0]
    names = [
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "utf-32-le",
        "utf-7",
        "cp1252",
        "mac_roman",
        "cp437",
        "cp1140",
        "utf-8",
    ]
    content = text.encode(names[int(rng.integers(len(names)))], "replace")
    mark = [b"", b"", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xff\xfe\x00\x00"][int(rng.integers(6))]
    path.write_bytes(mark + content)


REWRITES = {
    **{f.__name__: _edit(f) for f in (cell, put, swap, gone, again, separators, columns, absurd)},
    "cell_again": _edit(cell),
    "put_again": _edit(put),
    "other_encoding": other_encoding,
}
