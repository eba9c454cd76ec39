"""Contact sheet: what is in a prepared file at a glance, a row of faces for every video."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from nemo_pipeline.errors import OutputError
from nemo_pipeline.status import Severity, Status
from nemo_pipeline.store.files import replacing
from nemo_pipeline.store.reader import FaceDataset, FaceVideo
from nemo_pipeline.store.text import pluralize
from nemo_pipeline.view.drawing import (
    AMBER,
    FAINT,
    GRAY,
    GREEN,
    INK,
    MUTED,
    RED,
    RGB,
    canvas,
    chip,
    draw_text,
    fit_text,
    wrap_text,
)

#: Videos on one page: about as much as one looks at before scrolling on.
ROWS_PER_PAGE = 24
#: Faces of a video, evenly spaced in time.
COLUMNS = 10
#: Green for good, amber for usable with a reservation, gray for nothing to see, red for a fault.
STATUS_COLOURS: dict[Severity, RGB] = {"good": GREEN, "warn": AMBER, "none": GRAY, "bad": RED}
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}

_EDGE, _LABELS, _GAP, _HEADER, _CAPTION, _REASON = 28, 320, 6, 78, 20, 58


def contact_sheet(
    data: FaceDataset, path: Path, *, columns: int = COLUMNS, rows_per_page: int = ROWS_PER_PAGE
) -> list[Path]:
    """Draw every video of a prepared file: its id, status and labels, and faces evenly spaced in time.

    Args:
        data: the prepared file.
        path: `.png` or `.jpg`. With more than one page, FILE-01.png, FILE-02.png and so on. Readable by the owner
            alone, since it shows faces.
        columns: faces of one video.
        rows_per_page: videos on one page.

    Returns:
        The files written.

    Raises:
        NemoError: the name's extension is another one, or the file cannot be written.
    """
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise OutputError(f"{path}: a contact sheet is a picture, .png or .jpg.", path)
    pages = max(1, math.ceil(len(data.rows) / rows_per_page))
    digits = max(2, len(str(pages)))
    written = []
    for page in range(pages):
        image = _page(
            data,
            range(page * rows_per_page, min(len(data.rows), (page + 1) * rows_per_page)),
            columns,
            page,
            pages,
        )
        target = path if pages == 1 else path.with_name(f"{path.stem}-{page + 1:0{digits}d}{path.suffix}")
        try:
            with replacing(target) as temporary:
                image.save(temporary, kind, **({"quality": 90} if kind == "JPEG" else {"optimize": True}))
        except OSError as error:
            raise OutputError(f"{target} cannot be written: {error.strerror or error}.", target) from None
        written.append(target)
    return written


def _page(data: FaceDataset, rows: Sequence[int], columns: int, page: int, pages: int) -> Image.Image:
    side = min(max(data.size, 64), 128)
    width = 2 * _EDGE + _LABELS + columns * (side + _GAP) - _GAP
    heights = [side + _CAPTION if data.videos["length"][row] else _REASON for row in rows]
    image, draw = canvas(width, _HEADER + sum(heights) + 18 * max(1, len(rows)) + _EDGE)
    _header(draw, data, width, page, pages)
    top = _HEADER
    for row, height in zip(rows, heights, strict=True):
        draw.line((_EDGE, top, width - _EDGE, top), fill=FAINT)
        video = data[row]
        _labels(draw, video, top + 10, height)
        if video.length:
            _faces(image, draw, video, top + 10, side, columns)
        else:
            _reason(draw, video, top + 10, width)
        top += height + 18
    if not len(rows):
        draw_text(draw, (_EDGE, _HEADER + 30), "No videos.", 15, MUTED)
    return image


def _header(draw: ImageDraw.ImageDraw, data: FaceDataset, width: int, page: int, pages: int) -> None:
    name = fit_text(data.path.name, width * 0.6, 22, bold=True)
    x = _EDGE + draw_text(draw, (_EDGE, 38), name, 22, INK, bold=True) + 14
    if data.synthetic:
        chip(draw, (x, 37), "synthetic faces", 13, GRAY)
    counts = Counter(map(Status.read, data.videos["status"]))
    usable = sum(n for status, n in counts.items() if status.usable)
    others = ", ".join(f"{n} {status}" for status, n in counts.most_common() if not status.usable)
    text = f"{usable} of {pluralize(len(data.rows), 'video')} usable" + (f" ({others})" if others else "")
    shape = {"shipped": "shipped mean shape", "from-data": "mean shape from the data"}.get(
        data.config.mean_shape, "own mean shape"
    )
    text += f"  ·  {int(data.videos['length'].sum())} faces of {data.size} × {data.size} pixels  ·  {shape}"
    draw_text(draw, (_EDGE, 61), fit_text(text, width - 2 * _EDGE - 90, 13), 13, MUTED)
    if pages > 1:
        draw_text(draw, (width - _EDGE - 80, 61), f"page {page + 1} of {pages}", 13, MUTED)


def _labels(draw: ImageDraw.ImageDraw, video: FaceVideo, top: int, height: int) -> None:
    """The left column: which video, what became of it, and what is known; not more than `height` pixels."""
    width = _LABELS - 20
    draw_text(draw, (_EDGE, top + 15), fit_text(video.id, width, 15, bold=True), 15, INK, bold=True)
    x = _EDGE + chip(draw, (_EDGE, top + 39), video.status, 12, STATUS_COLOURS[video.status.severity]) + 10
    if video.length:
        draw_text(draw, (x, top + 39), f"{video.length} of {pluralize(video.n_decoded, 'frame')}", 13, INK)
        lines = [_technical(video), _known(video), video.message]
    else:
        draw_text(draw, (x, top + 39), pluralize(video.n_decoded, "frame") + " decoded", 13, MUTED)
        lines = [_known(video)]
    y = top + 60
    for line in filter(None, lines):
        most = max(0, int((top + height - y) // 17) + 1) if line == video.message else 1
        for part in wrap_text(line, width, 12, min(3, most)):
            draw_text(draw, (_EDGE, y), part, 12, MUTED)
            y += 17


def _technical(video: FaceVideo) -> str:
    parts = [f"{video.width} × {video.height}"] if video.width else []
    if video.fps > 0:
        parts.append(f"{video.fps:.4g} frames/s")
    if video.n_interpolated:
        parts.append(f"{video.n_interpolated} interpolated")
    return "  ·  ".join(parts)


def _known(video: FaceVideo) -> str:
    """The labels."""
    parts = [f"subject {video.subject}"] if video.subject else []
    if math.isfinite(video.age):
        parts.append(f"{video.age:g} years")
    parts += [text for text in (video.gender, video.condition, video.expression) if text]
    return "  ·  ".join(parts)


def _faces(
    image: Image.Image, draw: ImageDraw.ImageDraw, video: FaceVideo, top: int, side: int, columns: int
) -> None:
    chosen = np.unique(np.linspace(0, video.length - 1, min(columns, video.length)).round().astype(int))
    times, tracked = video.timestamps, video.tracked
    for i, index in enumerate(chosen):
        face = Image.fromarray(video.read("frames", int(index), int(index) + 1)[0])
        if face.size != (side, side):
            face = face.resize((side, side), Image.Resampling.LANCZOS)
        x = _EDGE + _LABELS + i * (side + _GAP)
        image.paste(face, (x, top))
        colour: RGB = MUTED if tracked[index] else AMBER
        if not tracked[index]:
            draw.rectangle((x, top, x + side - 1, top + side - 1), outline=AMBER, width=2)
        text = f"{times[index]:.2f} s" + ("" if tracked[index] else "  interpolated")
        draw_text(draw, (x + 1, top + side + 14), fit_text(text, side, 11), 11, colour)


def _reason(draw: ImageDraw.ImageDraw, video: FaceVideo, top: int, width: int) -> None:
    """The reason why a video has no faces, in their place."""
    x, right = _EDGE + _LABELS, width - _EDGE
    draw.rounded_rectangle((x, top, right, top + _REASON - 2), radius=8, fill=(248, 248, 250), outline=FAINT)
    lines = wrap_text(video.message or "No faces.", right - x - 36, 14, 2)
    y = top + (_REASON - 21 * (len(lines) - 1)) / 2 + 4
    for line in lines:
        draw_text(draw, (x + 18, y), line, 14, MUTED)
        y += 21
