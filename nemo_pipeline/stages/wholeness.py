"""Wholeness: how many bytes a video file says it has beyond those that are there (an interrupted copy)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

#: Objects and segments of unknown length have all these bits set.
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def missing_bytes(path: Path, indexed_end: int = 0) -> int:
    """Bytes that the container places beyond the end of its file; 0 where it does not say.

    Reads a few headers: the chunk sizes of mp4, mov and AVI, the segment size of Matroska and WebM, the
    file size in ASF (wmv).

    Args:
        path: the file.
        indexed_end: where the last frame of the container's own index ends, bytes; 0 without an index.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(16)
        if start[:4] == b"RIFF":
            end = _riff_end(file, size)
        elif start[:4] == b"\x1aE\xdf\xa3":
            end = _matroska_end(file)
        elif start == _ASF_HEADER:
            end = _asf_end(file)
        elif start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            end = _boxes_end(file, size)
        else:
            end = 0
    return max(0, end - size, indexed_end - size)


def _number(data: bytes, order: str = "big") -> int:
    return int.from_bytes(data, "little" if order == "little" else "big")


def _riff_end(file: BinaryIO, size: int) -> int:
    """AVI: one or several RIFF chunks, each with its size."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(8)
        length = _number(head[4:], "little")
        if head[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):  # something appended; a size never filled in
            return 0
        at += 8 + length
    return at


def _matroska_end(file: BinaryIO) -> int:
    """Matroska, WebM: the EBML header, then one segment."""
    file.seek(4)
    header = _ebml_length(file)
    if header is None:
        return 0
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    length = _ebml_length(file)
    return 0 if length is None else file.tell() + length


def _ebml_length(file: BinaryIO) -> int | None:
    """A variable-length number; None when it means "unknown"."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    extra = 8 - first[0].bit_length()
    value = _number(bytes([first[0] & (0xFF >> (extra + 1))]) + file.read(extra))
    return None if value == (1 << 7 * (extra + 1)) - 1 else value


def _asf_end(file: BinaryIO) -> int:
    """ASF: the file properties object, within the header object, holds the file's size."""
    file.seek(16)
    length = _number(file.read(8), "little")
    file.seek(0)
    header = file.read(min(length, 1 << 20))
    at = header.find(_ASF_FILE_PROPERTIES)
    return _number(header[at + 40 : at + 48], "little") if at >= 0 else 0


def _boxes_end(file: BinaryIO, size: int) -> int:
    """mp4, mov: top-level boxes, each with its size."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = _number(head[:4])
        if length == 1:
            length = _number(head[8:16])
        if length < 8 or not all(32 <= byte < 127 or byte == 0xA9 for byte in head[4:8]):
            return 0  # to the end of the file, or no box at all
        at += length
    return at
