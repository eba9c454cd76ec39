"""`nemo pack`: one file of a prepared file and its shards."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from .console import err, new_progress, print_json, say


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("data", type=click.Path(path_type=Path), metavar="OUT.h5")
@click.argument("target", type=click.Path(path_type=Path), metavar="ONE.h5")
@click.option(
    "--compression",
    type=click.IntRange(1, 9),
    metavar="1..9",
    help="gzip level: about half the size, slower to read  [default: none]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(data: Path, target: Path, compression: int | None, as_json: bool) -> None:
    """Copy OUT.h5 and its shards into the single file ONE.h5, which every command takes as well."""
    from nemo_pipeline.marks import copy_marks
    from nemo_pipeline.store.pack import pack

    if err.is_terminal:
        with new_progress("videos") as bar:
            task = bar.add_task("packing", total=1, note="")
            path = pack(
                data,
                target,
                compression=compression,
                on_video=lambda n, total: bar.update(task, completed=n, total=total),
            )
    else:
        path = pack(data, target, compression=compression)
    size, marks = path.stat().st_size, copy_marks(data, path)
    if as_json:
        print_json({"file": path, "bytes": size, "marks": marks})
    else:
        say(f"{path}: {size / 1e6:.1f} MB. It holds faces: only you may read it, until you change that.")
        if marks is not None:
            say(f"Its marks: {marks}.")
