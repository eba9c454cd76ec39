"""`nemo info`: one panel about any file or folder that nemo reads or writes, and the next command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click
from rich.filesize import decimal

from .console import out, panel, print_json
from .describe import INDEX, describe, is_hdf5


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(path: Path, as_json: bool) -> None:
    """What is PATH, and what comes next? A prepared file (out.h5), a run, finished or not, a model, a clip, a table of
    labels or ages, or a folder."""
    if is_hdf5(path):
        from nemo_pipeline.store.isolated import Isolated

        with Isolated() as process:
            process.open_first(path)
    facts = describe(path)
    if as_json:
        print_json(facts)
    else:
        rows = [
            (name.replace("_", " "), _value(name, value)) for name, value in facts.items() if name != "path"
        ]
        out.print(panel(str(path), rows))
    if facts["kind"] == INDEX and facts["missing_shards"] != "none":
        from nemo_pipeline.store import FaceDataset

        FaceDataset(path)  # says what is missing, and fails


def _value(name: str, value: Any) -> str:
    if "bytes" in name and isinstance(value, int):
        return decimal(value)
    if name != "landmarks_in_crop":
        return _cell(value)
    points = ", ".join(
        f"{what} ({value[i][0]:.1f}, {value[i][1]:.1f})"
        for what, i in (("outer eye corners", 36), ("and", 45), ("lip corners", 48), ("and", 54), ("chin", 8))
    ).replace(", and", " and")
    return f"{points}; x, y in pixels, all 68 with --json"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_cell(item)}" for name, item in value.items() if item != "") or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "yes" if value is True else "no" if value is False else str(value) or "not stated"
