"""Truncation: how many bytes a video file claims beyond those that are there (an interrupted copy).

Recorders write sizes before they know them, never correct them, or count wrongly. So only a size that something else in
the file confirms is believed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

#: Objects and segments of unknown length have all these bits set.
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
#: What recorders leave where they mean to fill in a size.
_PLACEHOLDERS = (0x7FFFFFFF, 0xFFFFFFFF)
#: No recording is larger, bytes: a size beyond this is a placeholder.
_LARGEST = 1 << 40
#: Where an AVI's main header counts its frames.
_AVI_TOTAL_FRAMES = 48


def missing_bytes(path: Path, indexed_end: int = 0) -> int:
    """Bytes that the container places beyond the end of its file; 0 where it does not say.

    Reads a few headers: the box sizes of mp4 and mov, the chunks of AVI, the segment of Matroska and WebM and
    the elements in it, the data object of ASF (wmv).

    Args:
        path: the file.
        indexed_end: where the last frame of the container's own index ends, bytes; 0 without an index.
    """
    size = path.stat().st_size
    if indexed_end > size:
        return indexed_end - size
    with path.open("rb") as file:
        start = file.read(16)
        if start[:4] == b"RIFF":
            end = _riff_end(file, size)
        elif start[:4] == b"\x1aE\xdf\xa3":
            end = _matroska_end(file, size)
        elif start == _ASF_HEADER:
            end = _asf_end(file, size)
        elif start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            end = _boxes_end(file, size)
        else:
            end = 0
    return end - size if size < end < _LARGEST else 0


def _number(data: bytes, order: str = "big") -> int:
    return int.from_bytes(data, "little" if order == "little" else "big")


def _riff_end(file: BinaryIO, size: int) -> int:
    """AVI: where the chunk that reaches beyond the end of the file ends; 0 where none is known to.

    One or several RIFF chunks, in each a list of headers, one of frames (movi) and an index. The size of a RIFF
    is often wrong while all that is in it is there, so the chunks in it decide; a placeholder (zero, or more
    than what it lies in) is not a size.
    """
    file.seek(_AVI_TOTAL_FRAMES)
    if not _number(file.read(4), "little"):  # a recorder that never came back to its headers
        return 0
    at = 0
    while at + 12 <= size:
        file.seek(at)
        head = file.read(12)
        length = _number(head[4:8], "little")
        if head[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):  # something appended; a size never filled in
            return 0
        riff_end = at + 8 + length
        at += 12
        while at + 8 <= min(size, riff_end):
            file.seek(at)
            at += 8 + _number(file.read(8)[4:], "little")
            if at > riff_end:
                return 0
            if at > size:
                return at
            at += at % 2
        at = riff_end + riff_end % 2
    return 0


def _matroska_end(file: BinaryIO, size: int) -> int:
    """Matroska, WebM: the EBML header, then one segment; its end, if one of its elements reaches beyond the file."""
    file.seek(4)
    header = _ebml_length(file)
    if header is None:
        return 0
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    length = _ebml_length(file)
    if length is None or file.tell() + length <= size:
        return 0
    end = file.tell() + length
    while file.tell() < size:
        file.seek(_ebml_id_bytes(file), os.SEEK_CUR)
        inner = _ebml_length(file)
        if inner is None:  # a cluster that was never closed
            return 0
        file.seek(inner, os.SEEK_CUR)
    return end if file.tell() > size else 0


def _ebml_id_bytes(file: BinaryIO) -> int:
    """Length of the element identifier that comes next, bytes; the position stays."""
    first = file.read(1)
    file.seek(-len(first), os.SEEK_CUR)
    return 9 - first[0].bit_length() if first and first[0] else 1


def _ebml_length(file: BinaryIO) -> int | None:
    """A variable-length number; None when it means "unknown"."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    extra = 8 - first[0].bit_length()
    value = _number(bytes([first[0] & (0xFF >> (extra + 1))]) + file.read(extra))
    return None if value == (1 << 7 * (extra + 1)) - 1 else value


def _asf_end(file: BinaryIO, size: int) -> int:
    """ASF: the end of the data object, which follows the header object; the file properties object in the header
    says whether sizes were filled in at all."""
    file.seek(16)
    length = _number(file.read(8), "little")
    if length > size:  # no position in a file may be so large
        return 0
    file.seek(0)
    header = file.read(min(length, 1 << 20))
    at = header.find(_ASF_FILE_PROPERTIES)
    broadcast = at >= 0 and _number(header[at + 88 : at + 92], "little") & 1
    file.seek(length)
    if at < 0 or broadcast or file.read(16) != _ASF_DATA:
        return 0
    return length + _number(file.read(8), "little")


def _boxes_end(file: BinaryIO, size: int) -> int:
    """mp4, mov: top-level boxes, each with its size."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = _number(head[:4])
        if length == 1:
            length = _number(head[8:16])
        if (
            length < 8
            or length in _PLACEHOLDERS
            or not all(32 <= byte < 127 or byte == 0xA9 for byte in head[4:8])
        ):
            return 0  # to the end of the file, never filled in, or no box at all
        at += length
    return at
