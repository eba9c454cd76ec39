"""`nemo report`: a prepared file as a page or a picture to look at."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from .console import print_json, say
from .options import marks_path
from .outputs import check_target
from .prep_inputs import write_page

_PICTURES = (".png", ".jpg", ".jpeg")
_PAGES = (".html", ".htm")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE.h5")
@click.argument("target", type=click.Path(path_type=Path), metavar="OUT.html|OUT.png", required=False)
@click.option("--no-faces", is_flag=True, help="A page without pictures of faces.")
@click.option(
    "--marks",
    type=click.Path(path_type=Path),
    metavar="FILE.csv|none",
    help="Marks of nemo review, which the page shows. Default: FILE.marks.csv next to FILE.h5, if there is one.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(path: Path, target: Path | None, no_faces: bool, marks: Path | None, as_json: bool) -> None:
    """Write one page in which every video of a prepared file can be checked, or a contact sheet.

    OUT.html is the page (FILE.html by default); OUT.png a contact sheet: faces of every video in one picture, or in
    several if they are many. Both show faces unless --no-faces is given.

    \b
    Examples:
      nemo report smiles.h5
      nemo report smiles.h5 sheet.png
    """
    from nemo_pipeline.store import FaceDataset

    target = target or path.with_suffix(".html")
    picture = target.suffix.lower() in _PICTURES
    check_target("nemo report", target, (*_PAGES, *_PICTURES), "a page or a picture")
    if picture and no_faces:
        raise click.UsageError("--no-faces is for a page: a contact sheet shows faces.")
    data = FaceDataset(path)
    if picture:
        from nemo_pipeline.view.preview import contact_sheet

        written = contact_sheet(data, target)
        if not as_json:
            for page in written:
                say(f"Wrote {page}")
    else:
        written = [write_page(data, target, no_faces, as_json, marks_path(marks))]
    if as_json:
        print_json({"path": path, "written": written})
