"""`nemo evaluate`: tables and figures of a run."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from . import console


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to write. Default: RUN/evaluation.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def command(run: Path, out: Path | None, as_json: bool) -> None:
    """Mean absolute error and its deviation, overall and by decade, beside the training median; the
    cumulative error curve and a scatter plot.

    Reads only the run's predictions: every video predicted once, by a model that never saw its subject.
    """
    from siam_model.evaluate import SYNTHETIC_NOTE, evaluate

    result = evaluate(run, out)
    if as_json:
        console.print_json({**result.numbers, "files": [str(f) for f in result.files]})
    else:
        # Table III lies on its side in a terminal: a decade a row, so that it fits 80 columns.
        header, *rows = zip(result.header, *result.rows, strict=True)
        columns = ["age", *header[1:]]
        title = "Mean absolute error (years) by age; SD: of all absolute errors"
        console.out.print(console.new_table(title, columns, rows, right=",".join(columns[1:])))
    if result.synthetic:
        console.warn(SYNTHETIC_NOTE)
    for file in result.files:
        console.say(f"wrote {file}")
