"""Text that comes from outside (file names, label values) on its way into HDF5, a terminal or a spreadsheet.

A POSIX file name is bytes. Python carries those that are not UTF-8 as lone surrogates ("surrogateescape");
HDF5 gets the original bytes back, so that every name survives a round trip through out.h5.
"""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import IO

#: A spreadsheet runs a cell that starts with one of these.
_FORMULA_START = ("=", "+", "-", "@", "\t", "\r")
#: What Windows or POSIX do not allow in a file name.
_FORBIDDEN = '/\\:*?"<>|'
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def to_bytes(text: str) -> bytes:
    """UTF-8, with undecodable file-name bytes restored. HDF5 strings end at NUL, so none may be inside.

    A lone surrogate that encodes no byte (from a label file, not from a file name) becomes "?".
    """
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode("utf-8", "replace")
    return data.replace(b"\0", b"")


def to_text(data: bytes) -> str:
    """The inverse of `to_bytes`."""
    return data.decode("utf-8", "surrogateescape")


def escape_controls(text: str) -> str:
    """`text` with everything that could steer a terminal made visible.

    Control and format characters (escape sequences, line breaks, right-to-left overrides) and undecodable
    bytes become `\\xNN` or `\\uNNNN`; letters, signs and blanks of every script stay.
    """
    parts = []
    for char in text:
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:
            parts.append(f"\\x{code - 0xDC00:02x}")
        elif unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            parts.append(
                f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
            )
        else:
            parts.append(char)
    return "".join(parts)


def safe_name(text: str, longest: int = 120) -> str:
    """A file name for something called `text` (an id, a title): never a path, never hidden, valid everywhere.

    What no file system forbids stays; where anything was changed, eight digits of a hash keep different texts
    apart. Without an extension; at most `longest` bytes of UTF-8.
    """
    kept = "".join(
        "_" if c in _FORBIDDEN or (unicodedata.category(c)[0] in "CZ" and c != " ") else c for c in text
    )
    kept = kept.strip(" .-_") if kept.startswith((".", "-", " ")) or kept.endswith((".", " ")) else kept
    data = kept.encode("utf-8")
    if len(data) > longest - 9:
        kept = data[: longest - 9].decode("utf-8", "ignore").rstrip(" .")
    reserved = kept.split(".")[0].upper() in ("CON", "PRN", "AUX", "NUL") or not kept
    if kept == text and not reserved:
        return kept
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{kept or 'video'}-{digest}"


def csv_cell(value: object) -> str:
    """`value` as a CSV cell that no spreadsheet takes for a formula: a leading apostrophe where it would.

    Numbers, negative ones too, stay as they are. Undo with `csv_value`.
    """
    text = str(value)
    if isinstance(value, str) and text.startswith((*_FORMULA_START, "'")) and not _NUMBER.fullmatch(text):
        return "'" + text
    return text


def csv_value(cell: str) -> str:
    """The inverse of `csv_cell`."""
    if cell.startswith("'") and cell[1:].startswith((*_FORMULA_START, "'")):
        return cell[1:]
    return cell


class CsvWriter:
    """As `csv.writer` with a line feed after each row, but rows with a carriage return (of a file name) are quoted:
    left bare, every reader would take it for the end of the row."""

    def __init__(self, file: IO[str]) -> None:
        self._plain = csv.writer(file, lineterminator="\n")
        self._quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def writerow(self, row: Iterable[object]) -> None:
        """One row."""
        cells = list(row)
        bare = any(isinstance(cell, str) and "\r" in cell for cell in cells)
        (self._quoted if bare else self._plain).writerow(cells)

    def writerows(self, rows: Iterable[Iterable[object]]) -> None:
        """Several."""
        for row in rows:
            self.writerow(row)


def find_delimiter(header: str) -> str:
    """What separates the cells of a table's first line: comma, semicolon (spreadsheets where the comma is the decimal
    point) or tab."""
    return max(",;\t", key=header.count)


def equal_codes(codes: Iterable[str]) -> list[list[str]]:
    """Groups of codes that are probably one: equal as numbers, or but for case, blanks or leading zeros.

    1, 1.0 and 001; S01 and s1. Such groups come of tables that went through a spreadsheet.
    """
    groups: dict[str, list[str]] = {}
    for code in natural_sorted(set(codes)):
        key = "".join(unicodedata.normalize("NFKC", code).casefold().split())
        if re.fullmatch(r"[0-9]+\.0+", key):
            key = key.split(".")[0]
        groups.setdefault(re.sub(r"(?<![0-9.])0+(?=[0-9])", "", key), []).append(code)
    return [group for group in groups.values() if len(group) > 1]


def pluralize(number: int, noun: str) -> str:
    """ "1 video", "2 videos"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Sequence[str], most: int = 5) -> str:
    """ "a.mp4, b.mp4 and 12 more"; names are made printable."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(escape_controls(name) for name in names[:most]) + more


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which clip 9 comes before clip 10. Total: different texts have different keys' order."""
    parts: list[tuple[int, int, str]] = []
    for part in re.split(r"(\d+)", text):
        if part.isdecimal():
            parts.append((0, int(part), part))
        elif part:
            parts.append((1, 0, part))
    return tuple(parts)


def natural_sorted(texts: Iterable[str]) -> list[str]:
    """`texts` in natural order."""
    return sorted(texts, key=natural_key)
