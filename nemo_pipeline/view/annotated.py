"""Tells a video that nemo drew from a recording, by its bytes; nothing is decoded."""

from __future__ import annotations

import os
import re
from pathlib import Path

#: What a video that nemo drew says of itself, in its container's comment, begins so.
ANNOTATED = "annotated by nemo"
_COMMENT = re.compile(rb"annotated by nemo(?: [0-9a-f]{16})?")
#: The comment ends the box `moov`, which ends the file.
_TAIL = 4096


def annotation(path: Path) -> str:
    """What a video that nemo drew says of itself; "" for any other, also one that another program wrote again."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            found = _COMMENT.search(file.read())
    except OSError:
        return ""
    return found[0].decode() if found else ""


def is_annotated(path: Path) -> bool:
    """Whether nemo drew a video: it may be drawn again, and is not a recording."""
    return bool(annotation(path))
