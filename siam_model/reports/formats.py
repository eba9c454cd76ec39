"""Tables as CSV, JSON, Markdown and LaTeX. What is in them is data: nothing in a name becomes a formula, a link, a
command or markup."""

from __future__ import annotations

import io
import json
import math
import re
from typing import Any

from nemo_pipeline.store.text import CsvWriter, csv_cell, escape_controls
from siam_model.reports.content import Column, Kind, Table, Value

#: Format -> the file's extension, in the order in which they are named on the page.
EXTENSIONS = {"CSV": "csv", "JSON": "json", "Markdown": "md", "LaTeX": "tex"}


def format_value(value: Value, kind: Kind) -> str:
    """As people read it; "" for what is not known."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, str):
        return escape_controls(value)
    if isinstance(value, int):  # counts, in a row of a column of years too
        return str(value)
    if kind == "years":
        return f"{value:.2f}".replace("-", "−") if value < 0 else f"{value:.2f}"
    if kind == "percent":
        return f"{value:.0f}"
    if kind == "p":
        return "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"
    return f"{value:g}"


def plain(value: Value) -> Value:
    """As programs read it: None for NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def records(table: Table) -> tuple[list[Column], list[dict[str, Value]]]:
    """A table of numbers for programs: its columns, and a row for everything that was measured or quoted.

    Numbers of the paper have columns of their own, `paper_...`, also where they are rows of their own on the page; a
    method that was measured and is in the paper, too, is one row. `source` says what was measured, `paper_source` where
    a quotation is from. Rows that only readers need are left out.
    """
    first, *rest = table.columns
    quoted: dict[str, Column] = {}
    rows: list[dict[str, Value]] = []
    for group in table.groups:
        for i, row in enumerate(group.rows):
            if i in group.notes:
                continue
            if not group.paper:
                values = dict(zip((c.name for c in table.columns), map(plain, row), strict=True))
                rows.append({**values, "source": escape_controls(table.source(group))})
                continue
            mine = next((line for line in rows if line[first.name] == row[0]), None)
            if mine is None:
                rows.append(mine := {first.name: row[0]})
            mine["paper_source"] = escape_controls(group.title)
            for column, value in zip(rest, map(plain, row[1:]), strict=True):
                if value is not None:
                    name = f"paper_{column.name}"
                    quoted[name] = Column(f"the paper: {column.head}", name, column.kind)
                    mine[name] = value
    columns = [*table.columns, Column("source", "source"), *quoted.values()]
    if quoted:
        columns.append(Column("source of the paper's numbers", "paper_source"))
    return columns, [{c.name: row.get(c.name) for c in columns} for row in rows]


def to_csv(table: Table) -> str:
    """`records` in full precision."""
    out = io.StringIO()
    columns, rows = records(table)
    writer = CsvWriter(out)
    writer.writerow([csv_cell(c.name) for c in columns])
    for row in rows:
        writer.writerow(["" if value is None else csv_cell(value) for value in row.values()])
    return out.getvalue()


def as_json(table: Table) -> dict[str, Any]:
    """`records` as JSON types."""
    columns, rows = records(table)
    return {
        "key": table.key,
        "number": table.number,
        "title": table.title,
        "caption": table.caption,
        "synthetic": table.synthetic,
        "columns": [{"name": c.name, "head": c.head, "kind": c.kind} for c in columns],
        "rows": rows,
    }


def to_json(table: Table) -> str:
    """One object; names that are not UTF-8 keep their bytes as escapes."""
    return json.dumps(as_json(table), indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def heading(table: Table) -> str:
    """ "Table III. Mean absolute error (years) by age"."""
    return f"{table.number}. {table.title}" if table.number else table.title


_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&])")


def markdown(text: str) -> str:
    """`text` as Markdown that shows it as it is, in one line."""
    return _MARKDOWN.sub(r"\\\1", escape_controls(text))


def to_markdown(table: Table) -> str:
    """A pipe table with its heading and caption."""
    lines = [f"**{markdown(heading(table))}**", ""]
    lines.append("| " + " | ".join(markdown(c.head) for c in table.columns) + " |")
    lines.append("|" + "|".join(" :-- " if c.kind == "text" else " --: " for c in table.columns) + "|")
    for group in table.groups:
        if group.title:
            lines.append(f"| *{markdown(group.title)}* |" + " |" * (len(table.columns) - 1))
        for row in group.rows:
            lines.append(
                "| " + " | ".join(_md_cell(v, c) for v, c in zip(row, table.columns, strict=True)) + " |"
            )
    return "\n".join([*lines, "", markdown(table.caption), ""])


def _md_cell(value: Value, column: Column) -> str:
    return markdown(format_value(value, column.kind))


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_",
    "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "−": "$-$", "±": r"$\pm$", '"': r"\textquotedbl{}", "[": "{[}", "]": "{]}",
}  # fmt: skip


def latex(text: str) -> str:
    """`text` as LaTeX that shows it as it is (UTF-8 source, T1 fonts); brackets are not optional arguments."""
    return "".join(_LATEX.get(char, char) for char in escape_controls(text))


def to_latex(table: Table) -> str:
    """A `table` with a `tabular` that needs no package; wide ones fit a `table*`."""
    width = len(table.columns)
    star = "*" if width > 7 else ""
    align = "".join("l" if c.kind == "text" else "r" for c in table.columns)
    lines = [
        rf"\begin{{table{star}}}[t]",
        r"\centering",
        rf"\caption{{{latex(table.title)}. {latex(table.caption)}}}",
        rf"\label{{tab:{table.key}}}",
        r"\footnotesize",
        rf"\begin{{tabular}}{{{align}}}",
        r"\hline",
        " & ".join(latex(c.head) for c in table.columns) + r" \\",
    ]
    for group in table.groups:
        lines.append(r"\hline")
        if group.title:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{latex(group.title)}}}}} \\")
        for row in group.rows:
            text = (latex(format_value(v, c.kind)) for v, c in zip(row, table.columns, strict=True))
            lines.append(" & ".join(text) + r" \\")
    lines += [r"\hline", r"\end{tabular}", rf"\end{{table{star}}}", ""]
    return "\n".join(lines)


def write_as(table: Table, extension: str) -> str:
    """The text of the file with this extension."""
    return {"csv": to_csv, "json": to_json, "md": to_markdown, "tex": to_latex}[extension](table)
