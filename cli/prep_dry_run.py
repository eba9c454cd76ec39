"""`nemo prep --dry-run`: what a run would do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.store.text import listed, pluralize

from .console import err, new_table, print_json, say
from .prep_inputs import landmark_files

#: So many paths of one folder and reason are listed one by one.
_MOST_PATHS = 5


def show_plan(found: Any, output: Path, config: PrepConfig, shape: Any, options: dict[str, Any]) -> None:
    """Print which videos a run would find done and which it would do; nothing is written."""
    from nemo_pipeline.batch.run import PrepInputs, preview

    done, absent = preview(
        PrepInputs(found.videos, landmark_files(found, options)),
        output,
        config,
        force=options["force"],
        prune=options["prune"],
        mean_shape=shape,
    )
    fate = "dropped" if options["prune"] else "kept"
    if options["as_json"]:
        print_json(
            {
                "output": output,
                "videos": [
                    {"id": v.id, "file": v.file, "path": v.path, "done": v.file in done} for v in found.videos
                ],
                fate: absent,
                "left_out": [{"path": item.path, "reason": item.reason} for item in found.skipped],
            }
        )
        return
    if not options["quiet"]:
        rows = [(v.file, v.id, "done" if v.file in done else "to do") for v in found.videos]
        err.print(new_table("", ["video", "id", "state"], rows))
        if found.skipped:
            err.print(new_table("Left out", ["path", "why"], _left_out(found.skipped)))
    left_out = pluralize(len(found.skipped), "path")
    say(f"{len(done)} done, {len(found.videos) - len(done)} to do, {left_out} left out.")
    if absent:
        say(
            f"{pluralize(len(absent), 'video')} of {output} not among the inputs would be {fate}: {listed(absent)}."
        )


def _left_out(skipped: Sequence[Any]) -> list[tuple[str, str]]:
    """Paths and reasons; where a folder has many of one reason, the folder and their number."""
    groups: dict[tuple[str, str], list[str]] = {}
    for item in skipped:
        groups.setdefault((os.path.dirname(item.path), item.reason), []).append(item.path)  # noqa: PTH120
    lines = []
    for (folder, reason), paths in groups.items():
        few = len(paths) <= _MOST_PATHS
        lines += (
            [(_here(p), reason) for p in paths]
            if few
            else [(f"{_here(folder)}/ ({len(paths)} files)", reason)]
        )
    return lines


def _here(path: str) -> str:
    """A path as seen from the current folder, where it lies below."""
    return path.removeprefix(os.fspath(Path.cwd()) + "/")
