"""`nemo evaluate`: tables and figures of finished runs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from . import console
from .options import in_options, marks_path, values_of

if TYPE_CHECKING:
    from siam_model.evaluate import Evaluation

#: Most methods besides SIAM, and the two lines of counts, that fit a terminal's width as columns.
_MOST_ACROSS = 7


@click.command()
@click.argument("runs", type=click.Path(path_type=Path), metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to write. Default: evaluation/ in the first RUN.",
)
@click.option(
    "--with",
    "others",
    metavar="NAME=FILE.csv",
    multiple=True,
    help="Predictions of another method (video, subject, fold, age_true, age_predicted) to compare with. Can be "
    "repeated.",
)
@click.option(
    "--figures",
    default="",
    metavar="NAME,...",
    help="Methods of Figures 7 and 8; the first is compared with the others. siam, names of nemo train --methods and "
    "of --with. Default: siam,ief_dynamics,lbp_dynamics where they were trained.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DATA.h5",
    help="Location of the data, if they have moved since the training; or an external test set: another prepared file "
    "with labels, whose videos are predicted by the model of each RUN.",
)
@click.option(
    "--distinct-subjects",
    is_flag=True,
    help="Treat subjects of an external test set as different from the training subjects, even if they have the same "
    "codes. Without this option, such subjects are left out.",
)
@click.option(
    "--by", multiple=True, metavar="LABEL", help="Also break errors down by this label. Can be repeated."
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.csv",
    help="Where the labels of --by are: their columns, and video, file or subject. Default: the data.",
)
@click.option(
    "--still-age",
    "people",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    metavar="VIDEOS",
    help="Also compare with nemo predict --model still-age (an extra) on these recordings of the run. Can be repeated.",
)
@click.option(
    "--marks",
    type=click.Path(path_type=Path),
    metavar="FILE.csv|none",
    help="Marks of nemo review: clips marked since the training are left out. Default: DATA.marks.csv next to the "
    "data, if there is one; none: no marks.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--no-faces", is_flag=True, help="Omit all pictures that show a face.")
@click.option("--quick", is_flag=True, help="Omit Table II, which runs the models over every video.")
@click.option(
    "--stability",
    is_flag=True,
    help="Also measure how far the age wanders within a video, frame by frame and over sub-clips.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def command(runs: tuple[Path, ...], out: Path | None, as_json: bool, **options: Any) -> None:
    """The paper's tables and figures from runs and studies of nemo train, as one page and as files.

    Errors by age, with those of the baselines; by gender, condition and phase of the expression; cumulative error;
    where the models look, and when; with studies also the comparisons of mechanisms, positions, modules and
    subsets. Tables and figures that need other runs are listed with the commands that train them.

    Every number is of videos predicted by a model that never saw their subject.
    """
    from siam_model.evaluate import SYNTHETIC_NOTE, evaluate
    from siam_model.reports.inputs import EvaluateRequest

    options |= {
        "others": _named(options["others"]),
        "figures": [name for name in options["figures"].split(",") if name.strip()],
        "faces": not options["no_faces"],
        "marks": marks_path(options["marks"]),
    }
    with contextlib.ExitStack() as stack:
        if options["people"]:
            from .predict_still import baseline

            options["others"]["still-age"] = stack.enter_context(baseline(runs[0], options["people"]))
        status = None
        if console.err.is_terminal:
            status = stack.enter_context(console.err.status("reading the predictions"))

        def step(text: str) -> None:
            if status is not None:
                status.update(console.styled(text))

        result = evaluate(
            runs, out, EvaluateRequest(**values_of(EvaluateRequest, options)), device=options["device"], on_step=step
        )  # fmt: skip
    if as_json:
        console.print_json({**result.numbers, "files": [str(f) for f in (*result.files, *result.parts)]})
    else:
        _print(result)
    if result.synthetic:
        console.warn(SYNTHETIC_NOTE)
    pictures, tables = len(result.report.pictures), len(result.report.tables)
    console.say(f"wrote {result.files[0]} ({pictures} figures, {tables} tables; also as files next to it)")


def _named(others: tuple[str, ...]) -> dict[str, Path]:
    """NAME=FILE.csv -> name and path.

    Raises:
        NemoError: no name, no file, or a name twice.
    """
    from nemo_pipeline.errors import SettingsError

    found: dict[str, Path] = {}
    for text in others:
        name, equals, path = text.partition("=")
        if not equals or not name.strip() or not path:
            raise SettingsError(f"--with {console.escape_controls(text)} is not NAME=FILE.csv.", "others")
        if name in found:
            raise SettingsError(f"--with names {console.escape_controls(name)} twice.", "others")
        found[name.strip()] = Path(path)
    return found


def _print(result: Evaluation) -> None:
    """Table III and what is missing."""
    if result.verdict is not None:
        console.out.print(console.styled(result.verdict))
    siam, _, *others = result.rows  # without the interval: it is too wide for a decade's cell
    if len(others) > _MOST_ACROSS:
        columns, lines = ["", *result.header[1:]], [tuple(row) for row in (siam, *others)]
    else:
        # Table III lies on its side in a terminal: a decade a row, so that it fits 80 columns.
        header, *lines = zip(result.header, siam, *others, strict=True)
        columns = ["age", *header[1:]]
    title = "Mean absolute error (years) by age; SD: of all absolute errors"
    table = console.new_table(title, columns, lines)
    for column in table.columns[1:]:  # not by name: a method may be called anything, with a comma too
        column.justify = "right"
    console.out.print(table)
    console.out.print(
        console.styled(f"SIAM: {', '.join(f'{name} {value}' for name, value in result.headline)}")
    )
    for label, worse, better, years, low, high, _ in result.gaps:
        console.out.print(
            console.styled(
                f"Largest gap by {label}: {worse} {years:.2f} years worse than {better} (95 % interval {low:.2f} to "
                f"{high:.2f})"
            )
        )
    if result.report.missing:
        console.out.print()
        console.out.print(console.styled("Not made:"))
    for item in result.report.missing:
        head = f"{item.number}, {item.title}" if item.number else item.title
        console.out.print(console.styled(f"  {head}: {in_options(item.reason)}"), soft_wrap=True)
        if item.command:
            console.out.print(console.styled(f"      {item.command}", "dim"), soft_wrap=True)
