"""How figures look, and how they are written. Text from outside is drawn as it is: never as mathematics."""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from textwrap import fill
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from nemo_pipeline.store.text import escape_controls
from siam_model.figures import plain as figures

INK, OURS, PAPER, MARK = "#222222", "#0b62a4", "#b3541e", "#c0392b"
#: Colours and dashes of the other methods: distinct without colour too.
OTHERS = (
    ("#7a7a7a", (0, (5, 1.5))),
    ("#b3541e", (0, (1, 1))),
    ("#2c8a57", (0, (6, 1.5, 1, 1.5))),
    ("#8e4fa8", (0, (3, 1, 1, 1, 1, 1))),
    ("#b08900", (0, (2, 2))),
)
#: Pixels per inch of PNG files.
DPI = 160
#: Widest figure, inches: at the page's width its letters are as large as the page's own.
WIDTH = 7.2


#: The page's own settings, on top of what all figures share.
_STYLE = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "axes.edgecolor": "#666666",
    "svg.hashsalt": "nemo",
}


def plain_text() -> AbstractContextManager[None]:
    """`siam_model.figures.plain.plain_text` in the page's style; SVG files are the same every time."""
    return figures.plain_text(_STYLE)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches, that keeps its parts from overlapping."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def stamp(figure: Figure, text: str) -> None:
    """Say on which data a figure was made in the figure itself: files are passed on without their captions."""
    lowest = figure.subfigs[-1] if figure.subfigs else figure
    wide = int(figure.get_figwidth() * 17)  # letters of this size that fit one line
    lowest.supxlabel(
        fill(escape_controls(text), wide), x=0.01, ha="left", fontsize=7.5, color="#666666", parse_math=False
    )


def line_style(i: int) -> dict[str, Any]:
    """Colour and dashes of method i: 0 is ours."""
    if not i:
        return {"color": OURS, "lw": 2.2, "ls": "-", "zorder": 4}
    colour, dashes = OTHERS[(i - 1) % len(OTHERS)]
    return {"color": colour, "lw": 1.6, "ls": dashes, "zorder": 3}


def to_png(figure: Figure) -> bytes:
    """As a PNG file."""
    return figures.to_png(figure, _STYLE)


def to_svg(figure: Figure) -> bytes:
    """As an SVG file: letters as outlines, no date, the same bytes every time."""
    buffer = io.BytesIO()
    with plain_text():
        FigureCanvasSVG(figure).print_svg(
            buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    # The type's definition lies on a server, and a reader might fetch it.
    return re.sub(rb"<!DOCTYPE.*?>\n", b"", buffer.getvalue(), count=1, flags=re.DOTALL)
