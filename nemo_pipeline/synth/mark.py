"""synth.json: the mark that a folder's clips are synthetic, whatever its label files say. json only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MARK = "synth.json"
FORMAT = "nemo-synth"
#: Raised whenever the same settings give other pictures than before.
GENERATOR_VERSION = 3


def mark_text(settings: dict[str, Any]) -> str:
    """What synth.json holds: the settings of the set, as JSON."""
    about = {"format": FORMAT, "synthetic": True, "generator_version": GENERATOR_VERSION, **settings}
    return json.dumps(about, indent=1, sort_keys=True) + "\n"


def is_marked(folder: Path) -> bool:
    """Whether `nemo synth` made the clips in `folder`: a synth.json of ours lies there."""
    try:
        data = (folder / MARK).read_bytes()
        about = json.loads(data) if len(data) < 1_000_000 else None
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("format") == FORMAT
