"""Decoding a label file: its largest size, and its encoding."""

from __future__ import annotations

import codecs
import dataclasses
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from nemo_pipeline.errors import DataError
from nemo_pipeline.store.text import pluralize

#: Larger files are refused unread: a line per video makes some 50 bytes.
MOST_BYTES = 64 << 20
#: What spreadsheets save tables in where it is not UTF-8, the likely ones first. People call some by other names.
_ENCODINGS = (
    "cp1252", "mac_roman", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp850", "cp437",
    "mac_latin2", "mac_cyrillic", "cp932", "gb18030", "big5", "cp949",
)  # fmt: skip
_NAMES = {"cp1252": "Windows-1252", "mac_roman": "Mac Roman", "utf_8": "UTF-8"}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class LabelText:
    """A label file's text, its encoding, and a sentence about that where it had to be found out ("" where not).

    Bytes that could not be decoded are lone surrogates in the text, as in file names.
    """

    text: str
    encoding: str = "utf-8"
    note: str = ""


def read_label_text(path: Path, files: Iterable[str] = ()) -> LabelText:
    """Read and decode `path`: UTF-8, UTF-16 or UTF-32 by their marks, else what a spreadsheet may have saved.

    Args:
        files: names of the videos; those with letters outside ASCII tell encodings apart.

    Raises:
        NemoError: it cannot be read, is too large, or is not text.
    """
    try:
        with path.open("rb") as handle:
            data = handle.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise DataError(f"The label file {path} does not exist.", path) from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, not a label file.", path) from None
    except OSError as error:
        raise DataError(f"The label file {path} cannot be read: {error.strerror}.", path) from None
    if len(data) > MOST_BYTES:
        raise DataError(
            f"{path} has more than {MOST_BYTES >> 20} MiB and cannot be a label file, which has a short line "
            "per video.",
            path,
        )
    return _decode(data, path, files)


def _decode(data: bytes, path: Path, files: Iterable[str]) -> LabelText:
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data[:4096]:  # UTF-16 without its mark
        encoding = next(
            (e for e, high in (("utf_16_le", 1), ("utf_16_be", 0)) if not any(data[high:80:2])), None
        )
    if encoding is not None:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            raise DataError(
                f"{path} begins as {encoding.upper()} and is damaged: save it again.", path
            ) from None
        _refuse_nul(text, path)
        return LabelText(text, encoding)
    _refuse_nul(data.decode("latin-1"), path)
    try:
        return LabelText(data.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    text = data.decode("utf-8", "surrogateescape")
    lost = sum("\udc80" <= char <= "\udcff" for char in text)
    if 2 * lost < sum(char > "\x7f" for char in text):  # names keep their bytes, by which a file may be known
        note = f"{path} is UTF-8 but for {pluralize(lost, 'byte')}, read as Windows-1252: save it as UTF-8."
        return LabelText(text, "utf-8", note)
    encoding = _by_names(data, files) or _by_statistics(data)
    shown = _NAMES.get(encoding, encoding.replace("_", "-"))
    note = f"{path} is read as {shown}. If accented letters come out wrong, save it as UTF-8."
    return LabelText(data.decode(encoding, "surrogateescape"), encoding, note)


def without_bytes(text: str) -> str:
    """`text` with each byte that could not be decoded (a lone surrogate) as the character that it is in Windows-1252,
    or else in Latin-1: two codes that differ in such a byte alone stay two codes."""

    def character(found: re.Match[str]) -> str:
        byte = bytes([ord(found[0]) - 0xDC00])
        try:
            return byte.decode("cp1252")
        except UnicodeDecodeError:
            return byte.decode("latin-1")

    return re.sub("[\udc80-\udcff]", character, text)


def _refuse_nul(text: str, path: Path) -> None:
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(
            f"{path} is not a text file: line {line} holds a NUL byte. Labels are read from CSV or the database's "
            "details files; save the table again as CSV.",
            path,
        )


def _by_names(data: bytes, files: Iterable[str]) -> str | None:
    """The encoding in which most of the videos with accented names are found in the table; None without such videos."""
    names = set()
    for file in files:
        stem = file.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        if not stem.isascii() and not any("\udc80" <= char <= "\udcff" for char in stem):
            names.add(unicodedata.normalize("NFC", stem))
    best, most = None, 0
    for encoding in _ENCODINGS if names else ():
        try:
            text = unicodedata.normalize("NFC", data.decode(encoding))
        except UnicodeDecodeError:
            continue
        hits = sum(name in text for name in names)
        if hits > most:
            best, most = encoding, hits
    return best


def _by_statistics(data: bytes) -> str:
    """What charset-normalizer takes it for: of the two that Western spreadsheets write, or else of all it knows.

    Where it knows none, the usual one: names that are not found are said.
    """
    from charset_normalizer import from_bytes

    for isolation in (["cp1252", "mac_roman"], None):
        best = from_bytes(data, cp_isolation=isolation).best()
        if best is not None:
            return best.encoding
    return _ENCODINGS[0]
