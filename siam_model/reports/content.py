"""What a report is made of: tables of plain values, figures, and what could not be made. No formatting here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from matplotlib.figure import Figure

from siam_model.reports.style import stamp

Value = str | int | float | None
#: How a column's values are written: text, whole numbers, years with two places, probabilities, percent without places.
Kind = Literal["text", "int", "years", "p", "percent"]
#: Parts of the page, in its order, with their headings.
SECTIONS = {
    "accuracy": "Estimation error",
    "breakdowns": "By subject and recording",
    "phases": "Phases of the expression",
    "videos": "Where the model looks, and when",
    "mechanisms": "How the spatial attention shares weights",
    "positions": "Where the spatial attention sits",
    "modules": "What each module adds",
    "subsets": "Separate models of parts of the data",
    "data": "The subjects",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, its name in CSV and JSON, and how its values are written."""

    head: str
    name: str
    kind: Kind = "text"


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Rows under one heading ("" for none).

    Attributes:
        paper: whether they are the paper's own numbers.
        notes: which rows are for readers alone (intervals as text, counts) and no row of a table of numbers.
    """

    title: str
    rows: tuple[tuple[Value, ...], ...]
    paper: bool = False
    notes: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        key: its name in file names and anchors: "table-3".
        section: one of SECTIONS.
        number: "Table III", where the paper has it; else "".
        title: what it shows, a phrase without a full stop.
        caption: on which data, and what has to be known.
        columns, groups: what is in it; the first column names a row.
        synthetic: whether what was measured was measured on generated faces.
        detail: more than people read at first: folded away on the page.
    """

    key: str
    section: str
    number: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    synthetic: bool
    detail: bool = False

    def __post_init__(self) -> None:
        for group in self.groups:
            for row in group.rows:
                if len(row) != len(self.columns):
                    raise ValueError(
                        f"{self.key}: a row has {len(row)} values for {len(self.columns)} columns"
                    )

    def source(self, group: Group) -> str:
        """Whose the numbers of a group are, for files that have no caption."""
        if group.paper:
            return group.title
        return "measured on SYNTHETIC faces" if self.synthetic else "measured"


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """A figure.

    Attributes:
        key, section, number, title, caption: as in `Table`; keys begin with "figure-".
        alt: what it shows, for those who cannot see it.
        figure: of matplotlib.
        data: on which it was made, drawn into it.
        faces: whether it shows people.
    """

    key: str
    section: str
    number: str
    title: str
    caption: str
    alt: str
    figure: Figure
    data: str
    faces: bool = False

    def __post_init__(self) -> None:
        stamp(self.figure, self.data)


@dataclasses.dataclass(frozen=True, slots=True)
class Missing:
    """What was not made: why, and the command that would make it possible ("" where none can)."""

    number: str
    title: str
    reason: str
    command: str = ""


@dataclasses.dataclass(slots=True)
class Report:
    """All parts, as they are made."""

    tables: list[Table] = dataclasses.field(default_factory=list)
    pictures: list[Picture] = dataclasses.field(default_factory=list)
    missing: list[Missing] = dataclasses.field(default_factory=list)

    def add(self, *parts: Table | Picture | Missing) -> None:
        """File each part where it belongs."""
        for part in parts:
            if isinstance(part, Table):
                self.tables.append(part)
            elif isinstance(part, Picture):
                self.pictures.append(part)
            else:
                self.missing.append(part)

    def of(self, section: str) -> Sequence[Table | Picture]:
        """Tables, then pictures of a section; tables of details last."""
        tables = [table for table in self.tables if table.section == section]
        return [
            *(table for table in tables if not table.detail),
            *(picture for picture in self.pictures if picture.section == section),
            *(table for table in tables if table.detail),
        ]
