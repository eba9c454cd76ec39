"""`nemo export`: a prepared file in the formats of other programs."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from .console import print_json, say
from .outputs import TABLES, check_target

#: Format -> endings of the file that it writes; none: it writes into a folder.
_FILES = {
    "openface": TABLES, "table": (*TABLES, ".parquet"), "npz": (), "faces": (), "video": ()
}  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE.h5")
@click.argument("target", type=click.Path(path_type=Path), metavar="DIR|FILE")
@click.option(
    "--format",
    "kind",
    type=click.Choice(list(_FILES)),
    default="table",
    show_default=True,
    help="table: a row per frame (landmarks, aligned landmarks, pose, times, phases), as .csv or .parquet. openface: "
    "landmarks as OpenFace writes them, a file per video in a folder. npz: all arrays of each video, for NumPy. faces: "
    "a PNG per frame. video: the faces of each video as lossless FFV1.",
)
@click.option("--video", metavar="ID", help="Only this video.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(path: Path, target: Path, kind: str, video: str | None, as_json: bool) -> None:
    """Write the contents of a prepared file in a format that other programs read.

    DIR is made where it does not exist. Every format has the ids of the videos, the numbers of the frames in them and
    their times.

    \b
    Examples:
      nemo export smiles.h5 frames.csv
      nemo export smiles.h5 faces/ --format faces --video clip1
    """
    from nemo_pipeline.export import export
    from nemo_pipeline.store import FaceDataset

    if target.suffix and not target.is_dir():
        endings = _FILES[kind]
        if not endings:
            raise click.UsageError(
                f"--format {kind} writes into a folder, and {target} is the name of a file."
            )
        check_target("DIR|FILE", target, endings, "a table (or several, into a folder)")
    written = export(FaceDataset(path), target, kind, only=video)  # type: ignore[arg-type]  # a choice of these
    if as_json:
        print_json({"path": path, "format": kind, "written": written})
        return
    for name in written[:5]:
        say(f"Wrote {name}")
    if len(written) > 5:
        say(f"and {len(written) - 5} more.")
