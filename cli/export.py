"""`nemo export`: a prepared file in the formats of other programs, and its recordings with covered faces."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from . import console
from .console import print_json, say
from .options import in_options, marks_path
from .outputs import TABLES, check_target

#: Format -> endings of the file that it writes; none: it writes into a folder.
_FILES = {
    "openface": TABLES, "table": (*TABLES, ".parquet"), "npz": (), "webdataset": (".tar",), "faces": (), "video": ()
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
    "landmarks as OpenFace writes them, a file per video in a folder. npz: all arrays of each video, for NumPy. "
    "webdataset: the same in .tar archives. faces: "
    "a PNG per frame. video: the faces of each video as lossless FFV1; with --anonymise the recordings themselves.",
)
@click.option("--video", metavar="ID", help="Only this video.")
@click.option(
    "--marks",
    type=click.Path(path_type=Path),
    metavar="FILE.csv|none",
    help="Marks of nemo review: what they leave out is not written. Default: FILE.marks.csv next to FILE.h5, if there "
    "is one; none: no marks.",
)
@click.option(
    "--anonymise",
    is_flag=True,
    help="With --format video: a copy of each recording in which every face is covered, searched again after it was "
    "written; without sound and without data of the recording (place, names, title).",
)
@click.option(
    "--cover",
    type=click.Choice(["blur", "wireframe"]),
    help="How faces are covered, in both cases below diagonal bands: a weak blur, or the mean shape as a wire frame. "
    "Default: blur.",
)
@click.option(
    "--keep-sound", is_flag=True, help="Keep the sound of the recordings. A voice identifies a person."
)
@click.option(
    "--recordings",
    multiple=True,
    metavar="PATH",
    help="File or folder with the recordings. Can be repeated. Default: next to FILE.h5 and in the current folder.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Recordings at a time. Default: a core each.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(
    path: Path, target: Path, kind: str, video: str | None, marks: Path | None, as_json: bool, **options: Any
) -> None:
    """Write the contents of a prepared file in a format that other programs read.

    DIR is made where it does not exist. Every format has the ids of the videos, the numbers of the frames in them and
    their times.

    \b
    Examples:
      nemo export smiles.h5 frames.csv
      nemo export smiles.h5 faces/ --format faces --video clip1
      nemo export smiles.h5 shared/ --format video --anonymise
    """
    from nemo_pipeline.export import export
    from nemo_pipeline.store import FaceDataset
    from nemo_pipeline.store.marked import open_marked, record_of_marks

    given = [name for name in ("cover", "keep_sound", "recordings", "workers") if options[name]]
    if options["anonymise"] and kind != "video":
        raise click.UsageError(
            "--anonymise needs --format video: other formats hold faces or points of them."
        )
    if given and not options["anonymise"]:
        raise click.UsageError(f"--{given[0].replace('_', '-')} needs --format video --anonymise.")
    if target.suffix and not target.is_dir():
        endings = _FILES[kind]
        if not endings:
            raise click.UsageError(
                f"--format {kind} writes into a folder, and {target} is the name of a file."
            )
        check_target("DIR|FILE", target, endings, "one file (or several, into a folder)")
    if options["anonymise"]:
        if marks is not None:
            raise click.UsageError(
                "--anonymise copies whole recordings, whatever is marked: leave --marks out."
            )
        _anonymise(FaceDataset(path), target, video, as_json, options)
    data = open_marked(path, marks_path(marks))
    if data.exclusions.file:
        say(data.exclusions)
    written = export(data, target, kind, only=video)  # type: ignore[arg-type]  # a choice of these
    if as_json:
        print_json({"path": path, "format": kind, "written": written, "left_out": record_of_marks(data)})
        return
    for name in written[:5]:
        say(f"Wrote {name}")
    if len(written) > 5:
        say(f"and {len(written) - 5} more.")


def _anonymise(data: Any, folder: Path, only: str | None, as_json: bool, options: dict[str, Any]) -> None:
    """Copies with covered faces. Exits: 0 when at least one is there, 1 when none is."""
    from nemo_pipeline.batch.anonymise import INDEX, anonymise
    from nemo_pipeline.store.text import pluralize

    from .progress import stop_on_signals

    def show(n: int, total: int, copy: Any) -> None:
        if as_json:
            return
        if not copy.copy:
            console.warn(f"[{n}/{total}] {copy.video}: no copy. {in_options(copy.message)}")
            return
        done = f"{pluralize(copy.faces, 'face')} covered in {pluralize(copy.frames, 'frame')}"
        written = f"written {copy.rounds} times, " if copy.rounds > 1 else ""
        say(
            f"[{n}/{total}] {copy.video}: {done}; {written}searched again: none found in {copy.frames_searched}"
        )

    with stop_on_signals(lambda: say(f"Stopped: finished copies are kept in {folder}.")):
        copies = anonymise(
            data,
            folder,
            look=options["cover"] or "blur",
            sound=options["keep_sound"],
            recordings=options["recordings"],
            only=only,
            workers=options["workers"],
            on_copy=show,
        )
    made = [copy for copy in copies if copy.copy]
    if as_json:
        print_json({"path": data.path, "format": "video", "copies": [dataclasses.asdict(c) for c in copies]})
    elif made:
        sound = "with their sound" if options["keep_sound"] else "without sound (a voice identifies)"
        many = f"{len(made)} of {pluralize(len(copies), 'recording')}"
        say(
            f"Copies of {many}, {sound}, and {INDEX} are in {folder}. Look at them before you share them: a face that "
            "no detector finds is not covered, and files are named after the videos' ids."
        )
    sys.exit(0 if made else 1)
