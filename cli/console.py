"""Output of the commands: messages for people on standard error, reports and JSON on standard output.

Text that comes from outside (file names, labels, messages of libraries) is data: it goes through `styled` or
`escape_controls` and is never taken for markup.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderResult
from rich.padding import Padding
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

from nemo_pipeline.store.text import escape_controls

from .options import in_options

__all__ = [
    "err",
    "escape_controls",
    "new_progress",
    "new_table",
    "out",
    "panel",
    "print_json",
    "say",
    "styled",
    "warn",
]

#: A column of sentences is at least this wide.
_SENTENCE = 30
#: Columns where there is no screen to fit: nothing is wrapped in a file or a pipe.
_NO_SCREEN = 1_000_000


class _Console(Console):
    """As wide as its longest line where it is not a terminal; on one, lines are wrapped between words."""

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        """As rich's. A line for people (`soft_wrap`) is broken between words; a path that is too long stays whole."""
        if soft_wrap and self.is_terminal and len(objects) == 1 and isinstance(objects[0], Text):
            objects = (Text("\n").join(_between_words(objects[0], self.width)),)
        super().print(*objects, soft_wrap=soft_wrap, **options)

    @property  # type: ignore[misc]  # nobody sets it
    def size(self) -> ConsoleDimensions:
        found = super().size
        return found if self.is_terminal else ConsoleDimensions(_NO_SCREEN, found.height)


def _between_words(text: Text, width: int) -> list[Text]:
    """`text` as lines of at most `width` columns, unless a single word is longer."""
    breaks, used = [], 0
    for word in re.finditer(r"\s*\S+\s*", text.plain):  # the first one with the indentation
        if used and used + cell_len(word[0].rstrip()) > width:
            breaks.append(word.start())
            used = 0
        _, newline, last = word[0].rpartition("\n")
        used = cell_len(last) if newline else used + cell_len(word[0])
    lines = list(text.divide(breaks)) if breaks else [text]
    for line in lines[:-1]:
        line.rstrip()
    return lines


#: Progress, notes, errors.
err = _Console(stderr=True, highlight=False, emoji=False)
#: Reports that are the result of a command (info, doctor, verify).
out = _Console(highlight=False, emoji=False)


def styled(text: object, style: str = "") -> Text:
    """Any text as rich text: control characters made visible, markup not interpreted."""
    return Text(escape_controls(str(text)), style=style)


def say(text: object, style: str = "") -> None:
    """One line for people, on standard error. `text` is not markup; settings that it names are shown as options."""
    err.print(styled(in_options(str(text)), style), soft_wrap=True)


def warn(text: object) -> None:
    """One line that begins with "Warning:", on standard error."""
    err.print(Text.assemble(("Warning: ", "yellow"), styled(in_options(str(text)))), soft_wrap=True)


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
    """A table on a terminal; elsewhere its cells in lines, aligned and as long as they are.

    On a terminal that is too narrow, sentences in the last column are wrapped between words or put below their row,
    and names in the first column get a line of their own.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        headed = any(map(str, (column.header for column in self.columns)))
        cells = [[*[column.header] * headed, *column.cells] for column in self.columns]
        widths = [max((cell_len(str(cell)) for cell in column), default=0) for column in cells]
        if not console.is_terminal:
            yield from self._lines(cells, widths)
            return
        words = [word for cell in cells[-1] for word in str(cell).split()] if cells else []
        longest = max(map(cell_len, words), default=0)
        if not self.box:  # a panel's names and values
            yield from self._facts(widths[0], options.max_width)
            return
        needed = sum(widths[:-1]) + 3 * len(widths)
        if widths and widths[-1] > max(longest, _SENTENCE) and needed + widths[-1] > options.max_width:
            if needed + max(longest, _SENTENCE) > options.max_width:
                yield from self._lines(cells[:-1], widths[:-1], cells[-1], options.max_width)
                return
            for column in self.columns[:-1]:
                column.no_wrap = True
        elif (
            len(widths) > 2 and needed + widths[-1] > options.max_width >= needed + widths[-1] - widths[0] + 4
        ):
            yield from self._lines(cells, widths, (), options.max_width)
            return
        elif (
            needed + widths[-1] - 3 > options.max_width >= sum(widths) + 2 * (len(widths) - 1)
        ):  # as in a file: two blanks between columns in place of three
            yield from self._lines(cells, widths)
            return
        yield from super().__rich_console__(console, options)

    def _facts(self, wide: int, width: int) -> RenderResult:
        """Each value next to its name, wrapped between words; below it where one word is too long for that."""
        room = width - wide - 2
        for name, value in zip(*(column.cells for column in self.columns), strict=True):
            if max(map(cell_len, str(value).split()), default=0) > room:
                yield Text(str(name), "bold")
                yield Padding(value, (0, 0, 0, 4))
                continue
            lines = [line for piece in value.split("\n") for line in _between_words(piece, room)]
            for number, line in enumerate(lines):
                first = str(name) if not number else ""
                yield Text.assemble((first + " " * (wide + 2 - cell_len(first)), "bold"), line)

    def _lines(
        self, cells: list[list[Any]], widths: list[int], sentences: Sequence[Any] = (), width: int = 0
    ) -> RenderResult:
        """Aligned lines; where there are `sentences`, each below its line, wrapped to `width`."""
        if isinstance(self.title, Text):
            yield self.title
        narrow = 0 < width < sum(widths) + 2 * len(widths)
        for number, line in enumerate(zip(*cells, strict=True)):
            text = Text()
            for n, (cell, column, wide) in enumerate(zip(line, self.columns, widths, strict=False)):
                space = Text(" " * (wide - cell_len(str(cell))))
                if narrow and not n:
                    space = Text("\n  ")
                text.append_text(space + cell if column.justify == "right" else cell + space).append("  ")
            text.rstrip()
            yield text
            if sentences and str(sentences[number]):
                yield Padding(sentences[number], (0, 0, 0, 4))


def new_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], right: str = "") -> Table:
    """A table whose title, headings and cells are data. `columns` that are named in `right` (comma-separated) align
    right."""
    table = _Table(
        title=styled(title) if title else None, box=SIMPLE_HEAD, title_justify="left", pad_edge=False
    )
    to_right = {name.strip() for name in right.split(",")} - {""}
    for name in columns:
        table.add_column(styled(name), justify="right" if name in to_right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else styled(cell) for cell in row))
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
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(styled(name), value if isinstance(value, Text) else styled(value))
    return _Panel(grid, title=styled(title), title_align="left", expand=False)


class _Field(ProgressColumn):
    """A field of the task, taken as data."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def render(self, task: Any) -> Text:
        return styled(task.fields.get(self.name, ""))


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
