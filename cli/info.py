"""`nemo info`: one panel about whatever nemo reads or writes, and what comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click
from rich.filesize import decimal

from nemo_pipeline.errors import NemoError

from .console import out, panel, print_json, say
from .describe import INDEX, PACKED, describe, is_hdf5
from .outputs import TABLES, check_target
from .prep_inputs import check_report, write_page


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--contact-sheet",
    "sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="Of a prepared file: draw a picture with faces of every video.",
)
@click.option(
    "--csv",
    "table",
    type=click.Path(path_type=Path),
    metavar="FILE.csv|DIR",
    help="Of a prepared file: write its landmarks as OpenFace does; to a folder, a file for each video.",
)
@click.option("--video", metavar="ID", help="With --csv: of this video alone.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Of a prepared file: write one page in which every video can be checked. It shows faces.",
)
@click.option("--no-faces", is_flag=True, help="With --report: without pictures of faces.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(
    path: Path,
    sheet: Path | None,
    table: Path | None,
    video: str | None,
    report: Path | None,
    no_faces: bool,
    as_json: bool,
) -> None:
    """What is PATH, and what comes next? A prepared file (out.h5), a run, finished or not, a model, a clip, a table of
    labels or ages, or a folder."""
    check_report(report, no_faces)
    if video is not None and table is None:
        raise click.UsageError("--video goes with --csv.")
    check_target("--contact-sheet", sheet, (".png", ".jpg", ".jpeg"), "a picture")
    if table is not None and table.suffix and not table.is_dir():
        check_target("--csv", table, TABLES, "a table (or several, into a folder)")
    if is_hdf5(path):
        from nemo_pipeline.store.isolated import Isolated

        with Isolated() as process:
            process.open_first(path)
    facts = describe(path)
    written = _write(path, facts, sheet, table, video)
    if report is not None:
        written.append(write_page(_prepared(path, facts), report, no_faces, as_json))
    if as_json:
        print_json(facts | ({"written": written} if written else {}))
    elif not written:
        rows = [
            (name.replace("_", " "), _value(name, value)) for name, value in facts.items() if name != "path"
        ]
        out.print(panel(str(path), rows))
    if not as_json:
        named = [name for name in written if name != report]  # that one was announced
        for name in named[:5]:
            say(f"Wrote {name}")
        if len(named) > 5:
            say(f"and {len(named) - 5} more files.")
    if facts["kind"] == INDEX and facts["missing_shards"] != "none":
        _prepared(path, facts)  # says what is missing, and fails


def _write(
    path: Path, facts: dict[str, Any], sheet: Path | None, table: Path | None, video: str | None
) -> list[Path]:
    """The files asked for."""
    if sheet is None and table is None:
        return []
    from nemo_pipeline.batch.landmark_files import export_landmarks

    data = _prepared(path, facts)
    written = []
    if sheet is not None:
        from nemo_pipeline.view.preview import contact_sheet

        written += contact_sheet(data, sheet)
    if table is not None:
        if not table.suffix and not table.exists():  # a name without an ending is a folder's
            try:
                table.mkdir(mode=0o700, parents=True)
            except OSError as error:
                raise NemoError(f"{table} cannot be made for the tables: {error.strerror}.") from None
        written += export_landmarks(data, table, only=video)
    return written


def _prepared(path: Path, facts: dict[str, Any]) -> Any:
    """The prepared file at `path`. Raises NemoError when it is something else."""
    from nemo_pipeline.store import FaceDataset

    if facts["kind"] not in (INDEX, PACKED):
        raise NemoError(f"{path} is no prepared file such as out.h5, but: {facts['kind']}.")
    return FaceDataset(path)


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
        return ", ".join(f"{name}: {_cell(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "yes" if value is True else "no" if value is False else str(value)
