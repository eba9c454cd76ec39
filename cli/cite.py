"""`nemo cite`: a methods section and its references, from the settings stored in a file or a run."""

from __future__ import annotations

import json
from pathlib import Path

import rich_click as click

from . import console
from .options import marks_path


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", type=click.Path(path_type=Path), metavar="OUT.h5|RUN")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DATA.h5",
    help="Of a RUN: its data, if they have moved.",
)
@click.option(
    "--marks",
    type=click.Path(path_type=Path),
    metavar="FILE.csv|none",
    help="Of OUT.h5: marks of nemo review. Default: OUT.marks.csv next to it, if there is one. A RUN has its own.",
)
@click.option(
    "--write",
    is_flag=True,
    help="Also write methods.md and references.bib, and dataset_description.json next to OUT.h5.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def command(path: Path, data: Path | None, marks: Path | None, write: bool, as_json: bool) -> None:
    """Print a paragraph for a paper's methods section, and BibTeX.

    Of a prepared file: how the faces were made, with every setting that was used, counts, exclusions and versions. Of a
    run: how the model was trained and tested, and its errors; with how its faces were made, where its data are at hand.
    """
    from nemo_pipeline.cite import description, prep_text
    from nemo_pipeline.errors import NemoError
    from nemo_pipeline.references import bibtex, cited
    from nemo_pipeline.store.marked import open_marked

    paragraphs, note, dataset = [], "", None
    if path.is_dir():
        from siam_model.cite import run_text
        from siam_model.reports.source import open_data, open_run
        from siam_model.run_folder import RunFolder

        try:
            dataset = open_data(open_run(RunFolder(path)), data).dataset
            paragraphs.append(prep_text(dataset)[0])
        except NemoError as error:
            if data is not None:
                raise
            note = f"How its faces were made is left out: {error}"
        paragraphs.append(run_text(path, alone=not paragraphs))
    else:
        dataset = open_marked(path, marks_path(marks))
        paragraphs.append(prep_text(dataset)[0])
    text = "\n\n".join(paragraphs)
    references = bibtex(cited(text))
    if as_json:
        console.print_json({"methods": text, "references": cited(text), "bibtex": references, "note": note})
    else:
        for line in f"{text}\n\n{references}".splitlines():
            console.out.print(console.styled(line), soft_wrap=True)
    if note:
        console.warn(note)
    if write:
        folder = path if path.is_dir() else path.absolute().parent
        files = {"methods.md": text + "\n", "references.bib": references}
        if not path.is_dir() and dataset is not None:
            files["dataset_description.json"] = json.dumps(description(dataset), indent=2) + "\n"
        for name, content in files.items():
            _write(folder / name, content)


def _write(path: Path, content: str) -> None:
    """By rename. A file of that name that is not of this command stays. Raises NemoError."""
    from nemo_pipeline.errors import OutputError
    from siam_model.predictions import write_bytes

    if path.exists():
        there = path.read_bytes()[: 1 << 16].decode("utf-8", "replace")
        if "[@nemo]" not in there and "@software{nemo" not in there:
            raise OutputError(
                f"{console.escape_controls(str(path))} is there already, and is not of `nemo cite`: move it.",
                path,
            )
    write_bytes(path, content.encode())
    console.say(f"wrote {path}")
