"""Text and colours on pictures: the fonts that come with matplotlib, whatever letters a file name has.

PIL draws; matplotlib itself is not imported.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from nemo_pipeline.store.text import escape_controls

RGB = tuple[int, int, int]

INK: RGB = (17, 24, 39)
MUTED: RGB = (100, 110, 125)
FAINT: RGB = (203, 209, 217)
PAPER: RGB = (255, 255, 255)
#: What a frame or a video is, light enough for white paper and for dark pictures alike.
GREEN: RGB = (22, 163, 74)
AMBER: RGB = (217, 119, 6)
VIOLET: RGB = (147, 81, 230)
RED: RGB = (220, 38, 38)
GRAY: RGB = (120, 130, 145)

#: Where systems keep fonts with the letters that DejaVu lacks (Chinese, Japanese, Korean).
_SYSTEM_FONTS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
    "/System/Library/Fonts/PingFang.ttc",
    "/System/Library/Fonts/Supplemental/Arial Unicode.ttf",
    "C:/Windows/Fonts/msyh.ttc",
)


@functools.cache
def _font_files(bold: bool) -> tuple[Path, ...]:
    """Fonts in the order in which a letter is looked for; the last one has a sign for every letter."""
    spec = importlib.util.find_spec("matplotlib")
    found: list[Path] = []
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
        found.append(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"))
        found += [Path(name) for name in _SYSTEM_FONTS]
        found.append(folder / "LastResortHE-Regular.ttf")
    return tuple(path for path in found if path.is_file())


@functools.cache
def _fonts(size: int, bold: bool) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, ...]:
    fonts = tuple(ImageFont.truetype(str(path), size) for path in _font_files(bold))
    return fonts or (ImageFont.load_default(size),)


@functools.cache
def _lacks(number: int, bold: bool) -> bytes:
    """What a font draws for a letter that it lacks."""
    return bytes(_fonts(24, bold)[number].getmask("\U0010fffe"))


@functools.cache
def _font_for(char: str, bold: bool) -> int:
    """The first font that has this letter."""
    fonts = _fonts(24, bold)
    for number, font in enumerate(fonts[:-1]):
        if char.isspace() or bytes(font.getmask(char)) != _lacks(number, bold):
            return number
    return len(fonts) - 1


def _runs(text: str, bold: bool) -> list[tuple[int, str]]:
    """Stretches of text that one font draws."""
    runs: list[tuple[int, str]] = []
    for char in text:
        number = _font_for(char, bold)
        if runs and runs[-1][0] == number:
            runs[-1] = (number, runs[-1][1] + char)
        else:
            runs.append((number, char))
    return runs


def text_width(text: str, size: int, *, bold: bool = False) -> float:
    """Pixels that `draw_text` moves on by."""
    return sum(
        _fonts(size, bold)[number].getlength(run) for number, run in _runs(escape_controls(text), bold)
    )


def draw_text(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    fill: RGB,
    *,
    bold: bool = False,
) -> float:
    """Draw one line with its base line's left end at `place`; answers its width, pixels. Any text is data:
    control characters are made visible."""
    x = place[0]
    for number, run in _runs(escape_controls(text), bold):
        font = _fonts(size, bold)[number]
        draw.text((x, place[1]), run, fill=fill, font=font, anchor="ls")
        x += font.getlength(run)
    return x - place[0]


def fit_text(text: str, width: float, size: int, *, bold: bool = False) -> str:
    """`text`, or its two ends with an ellipsis between them, not wider than `width` pixels."""
    text = escape_controls(text)
    if text_width(text, size, bold=bold) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        keep = (low + high + 1) // 2
        if text_width(_shortened(text, keep), size, bold=bold) <= width:
            low = keep
        else:
            high = keep - 1
    return _shortened(text, low)


def _shortened(text: str, keep: int) -> str:
    end = keep // 2
    return text[: keep - end] + "…" + (text[-end:] if end else "")


def wrap_text(text: str, width: float, size: int, lines: int) -> list[str]:
    """`text` in at most `lines` lines of at most `width` pixels, broken at blanks; the last one ends in an ellipsis
    where it is too long."""
    words = escape_controls(text).split()
    found: list[str] = []
    while words and len(found) < lines:
        line = words.pop(0)
        while words and text_width(f"{line} {words[0]}", size) <= width:
            line += " " + words.pop(0)
        found.append(line)
    if words:
        line = found[-1] + " …"
        while len(line) > 2 and text_width(line, size) > width:
            line = line[:-3].rstrip() + " …"
        found[-1] = line
    return [fit_text(line, width, size) for line in found]


def chip(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    colour: RGB,
    *,
    ink: RGB = PAPER,
) -> float:
    """A filled, rounded label whose base line's left end is at `place`; answers its width, pixels."""
    pad = round(size * 0.5)
    width = text_width(text, size, bold=True) + 2 * pad
    x, y = place
    draw.rounded_rectangle(
        (x, y - size, x + width, y + round(size * 0.36)), radius=round(size * 0.36), fill=colour
    )
    draw_text(draw, (x + pad, y), text, size, ink, bold=True)
    return width


def canvas(width: int, height: int, colour: RGB = PAPER) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A new picture and what draws on it."""
    image = Image.new("RGB", (width, height), colour)
    return image, ImageDraw.Draw(image)
