"""Where the commands print: people read standard error (or a report on standard output), programs read JSON.

Text that comes from outside (file names, labels, messages of libraries) is data: it goes through `shown` or
`printable` and is never taken for markup.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderResult
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from nemo_pipeline.store.text import printable

__all__ = [
    "err",
    "new_progress",
    "new_table",
    "out",
    "panel",
    "print_json",
    "printable",
    "say",
    "shown",
    "warn",
]

#: Columns where there is no screen to fit: nothing is wrapped in a file or a pipe.
_NO_SCREEN = 1_000_000


class _Console(Console):
    """As wide as its longest line where it is no terminal."""

    @property  # type: ignore[misc]  # nobody sets it
    def size(self) -> ConsoleDimensions:
        found = super().size
        return found if self.is_terminal else ConsoleDimensions(_NO_SCREEN, found.height)


#: Progress, notes, errors.
err = _Console(stderr=True, highlight=False, emoji=False)
#: Reports that are the result of a command (info, doctor, verify).
out = _Console(highlight=False, emoji=False)


def shown(text: object, style: str = "") -> Text:
    """Any text as rich text: control characters made visible, markup not interpreted."""
    return Text(printable(str(text)), style=style)


def say(text: object, style: str = "") -> None:
    """One line for people, on standard error. `text` is data, not markup."""
    err.print(shown(text, style), soft_wrap=True)


def warn(text: object) -> None:
    """One line that begins with "Warning:", on standard error."""
    err.print(Text.assemble(("Warning: ", "yellow"), shown(text)), soft_wrap=True)


def print_json(value: Any) -> None:
    """The one JSON object of `--json`, on standard output: ASCII, NaN as null, NumPy values as plain ones."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=True, allow_nan=False, indent=2) + "\n")
    sys.stdout.flush()


def plain(value: Any) -> Any:
    """`value` in JSON's types: NaN and infinities become None, NumPy values Python's, all else text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


class _Table(Table):
    """A table on a terminal; elsewhere its cells in lines, aligned and as long as they are."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if console.is_terminal:
            yield from super().__rich_console__(console, options)
            return
        if isinstance(self.title, Text):
            yield self.title
        headed = any(map(str, (column.header for column in self.columns)))
        columns = [
            [str(cell) for cell in (*[column.header] * headed, *column.cells)] for column in self.columns
        ]
        widths = [max(map(cell_len, cells)) for cells in columns]
        for line in zip(*columns, strict=True):
            cells = []
            for text, column, width in zip(line, self.columns, widths, strict=True):
                space = " " * (width - cell_len(text))
                cells.append(space + text if column.justify == "right" else text + space)
            yield Text("  ".join(cells).rstrip())


def new_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], right: str = "") -> Table:
    """A table whose title, headings and cells are data. `columns` that are named in `right` (comma-separated) align
    right."""
    table = _Table(
        title=shown(title) if title else None, box=SIMPLE_HEAD, title_justify="left", pad_edge=False
    )
    to_right = {name.strip() for name in right.split(",")} - {""}
    for name in columns:
        table.add_column(shown(name), justify="right" if name in to_right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else shown(cell) for cell in row))
    return table


class _Panel(Panel):
    """A panel on a terminal; elsewhere its title and what is in it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if console.is_terminal:
            yield from super().__rich_console__(console, options)
        else:
            yield self.title or ""
            yield self.renderable


def panel(title: str, rows: Iterable[tuple[str, object]]) -> Panel:
    """One panel of names and values, for `nemo info` and its like."""
    grid = _Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(shown(name), value if isinstance(value, Text) else shown(value))
    return _Panel(grid, title=shown(title), title_align="left", expand=False)


class _Field(ProgressColumn):
    """A field of the task, taken as data."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def render(self, task: Any) -> Text:
        return shown(task.fields.get(self.name, ""))


def new_progress(unit: str = "") -> Progress:
    """A progress bar on standard error: description, bar, n/total, a free field `note`, time left.

    Show it only where `err.is_terminal`; print plain lines elsewhere.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12),
        TextColumn(f"{{task.completed:.0f}}/{{task.total:.0f}} {unit}", markup=False),
        _Field("note"),
        TimeRemainingColumn(),
        TextColumn("left", markup=False),
        console=err,
        transient=True,
    )
