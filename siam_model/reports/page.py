"""report.html: one page with everything in it. It loads nothing, runs no script, and shows names as text."""

from __future__ import annotations

import base64
import dataclasses
import datetime
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nemo_pipeline.store.text import escape_controls
from siam_model.reports.content import SECTIONS, Picture, Report, Table
from siam_model.reports.formats import EXTENSIONS, format_value, write_as
from siam_model.reports.style import DPI, WIDTH

#: CSS pixels that the widest figure takes on a wide screen.
_PAGE = 880
_TYPES = {"csv": "text/csv", "json": "application/json", "md": "text/markdown", "tex": "application/x-tex"}


@dataclasses.dataclass(frozen=True, slots=True)
class PageHead:
    """The head of the page, above the parts.

    Attributes:
        title: of the page.
        about: on which data.
        synthetic: a sentence where faces were generated; "" otherwise.
        faces: a sentence where people are shown; "" otherwise.
        verdict: a sentence, the first thing to see: whether the model is better than guessing; "" where unknown.
        poor: whether that is not so, or not clear.
        numbers: (name, value), the next things to see.
        settings: (name, value) of how it was made.
        command: that made the page.
        notes: further sentences.
    """

    title: str
    about: str
    synthetic: str
    faces: str
    verdict: str
    poor: bool
    numbers: Sequence[tuple[str, str]]
    settings: Sequence[tuple[str, str]]
    command: str
    notes: Sequence[str] = ()


def render(
    head: PageHead, report: Report, images: Mapping[str, bytes], folders: Collection[Path] = frozenset()
) -> str:
    """The page.

    Args:
        images: key of each figure -> PNG file.
        folders: what is in them is shown without them: where somebody's files are is nobody else's business.
    """
    # The longest first; nothing is lost of the root itself.
    private = sorted((f"{folder}/" for folder in folders if len(folder.parts) > 1), key=len, reverse=True)

    def text(value: object) -> str:
        found = str(value)
        for folder in private:
            found = found.replace(folder, "")
        return escape_controls(found)

    environment = Environment(
        loader=PackageLoader("siam_model.reports", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["text"] = text
    environment.filters["data_uri"] = _png
    sections = [
        (name, title, [_part(part, images) for part in report.of(name)])
        for name, title in SECTIONS.items()
        if report.of(name)
    ]
    return environment.get_template("report.html").render(
        head=head,
        sections=sections,
        missing=report.missing,
        now=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def _part(part: Table | Picture, images: Mapping[str, bytes]) -> dict[str, Any]:
    """A part as the template takes it."""
    if isinstance(part, Picture):
        data = images[part.key]
        return {"picture": part, "image": data, "table": None, "size": _size(data)}
    rows = [
        (
            group,
            [[format_value(v, c.kind) for v, c in zip(row, part.columns, strict=True)] for row in group.rows],
        )
        for group in part.groups
    ]
    files = [
        (name, f"{part.key}.{extension}", _uri(_TYPES[extension], write_as(part, extension)))
        for name, extension in EXTENSIONS.items()
    ]
    return {"table": part, "rows": rows, "files": files, "picture": None}


def _uri(kind: str, text: str) -> Markup:
    data = base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()
    return Markup(f"data:{kind};charset=utf-8;base64,{data}")  # base64 holds no markup


def _png(data: bytes) -> Markup:
    return Markup(f"data:image/png;base64,{base64.b64encode(data).decode()}")


def _size(data: bytes) -> tuple[int, int]:
    """Width and height to show a PNG file at, CSS pixels: letters of one size in all figures."""
    pixels = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")  # in its first chunk
    return round(pixels[0] * _PAGE / (WIDTH * DPI)), round(pixels[1] * _PAGE / (WIDTH * DPI))
