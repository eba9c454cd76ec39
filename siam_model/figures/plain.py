"""What all figures share: text from outside is drawn as it is, never as mathematics, and files are their owner's."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from siam_model.predictions import write_bytes

_PLAIN = {"text.parse_math": False, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


@contextmanager
def plain_text(style: dict[str, Any] | None = None) -> Iterator[None]:
    """A `$` in a name starts no formula (matplotlib would refuse `$a^^b$`). `style`: more of matplotlib's settings."""
    with rc_context(_PLAIN | (style or {})), warnings.catch_warnings():
        # A name in a script that the font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def to_png(figure: Figure, style: dict[str, Any] | None = None) -> bytes:
    """As a PNG file; `style` as it was drawn with."""
    buffer = io.BytesIO()
    with plain_text(style):
        FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """As PNG, by rename, readable by its owner alone: faces and ages are personal."""
    write_bytes(path, to_png(figure))
