"""A run in parts, for array jobs: which videos belong to a part, and which parts are done."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from nemo_pipeline.store.files import replacing
from nemo_pipeline.store.text import pluralize


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Part `number` (from 1) of `of`: a contiguous share of the sorted videos."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """From "3/8". Raises ValueError."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"{text!r} is not a part; give K/N with K from 1 to N, such as 3/8.")
        return cls(int(match[1]), int(match[2]))

    def share(self, count: int) -> range:
        """Indices of this part among `count` videos: the parts cover all, none twice."""
        return range(count * (self.number - 1) // self.of, count * self.number // self.of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def mark_done(folder: Path, part: Part, count: int) -> None:
    """Leave in a shards folder that `part` of `count` videos is done, so that a join knows which parts are not."""
    with replacing(folder / f".done-{part.number}-of-{part.of}.json") as path:
        path.write_text(json.dumps({"videos": count}))


def unmark(folder: Path) -> None:
    """A whole run covers every part: forget them."""
    for path in folder.glob(".done-*-of-*.json"):
        path.unlink(missing_ok=True)


def marks(folders: Iterable[Path]) -> dict[Part, int]:
    """The parts that were done, and the number of videos that each was a part of."""
    found = {}
    for path in sorted(path for folder in folders for path in folder.glob(".done-*-of-*.json")):
        _, number, _, of = path.stem.split("-")
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found[Part(int(number), int(of))] = int(json.loads(path.read_text())["videos"])
    return found


def what_is_missing(done: dict[Part, int]) -> str:
    """A sentence on the parts that were never done, or saw other videos; "" where the parts are whole.

    Where a set of videos was done in 8 parts and in 20, one complete division is enough.
    """
    divisions: dict[int, dict[Part, int]] = defaultdict(dict)
    for part, count in done.items():
        divisions[part.of][part] = count
    sentences = []
    for of, parts in sorted(divisions.items()):
        missing = [str(Part(k, of)) for k in range(1, of + 1) if Part(k, of) not in parts]
        counts = sorted(set(parts.values()))
        if not missing and len(counts) == 1:
            return ""
        if missing:
            named = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
            what = "part was" if len(missing) == 1 else "parts were"
            sentences.append(f"{len(missing)} {what} not done ({named}): do them and join again.")
        else:
            sentences.append(
                f"The {of} parts were made of {' and '.join(map(str, counts[:-1]))} and "
                f"{pluralize(counts[-1], 'video')}, so that some may be in none: run once without `part`, which does "
                "what is missing."
            )
    return " ".join(sentences)
