"""A clip with the heat map of a model's attention moving over the face, and the frames' weights below.

Takes plain arrays and knows no model. The map over the crop is laid back over the face by the inverse of the warp
(`unwarp`), so the picture is the source's own; frames of which the model saw nothing stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.geometry import Template
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.view.attention import COLOURS, OPAQUE, Attention
from nemo_pipeline.view.drawing import RGB, canvas, draw_text, fit_text, text_width, wrap_text
from nemo_pipeline.view.encode import draw_copy
from nemo_pipeline.view.unwarp import sample, unwarp

#: The picture is enlarged by a whole factor below this longer side, and reduced above the other.
_SMALLEST, _LARGEST = 640, 1280
_LEAST_WIDTH = 480
_NIGHT: RGB = (17, 21, 27)
_WHITE: RGB = (236, 239, 243)
_DIM: RGB = (150, 160, 172)
_BAR: RGB = (109, 182, 238)
_NOW: RGB = (255, 205, 84)
_MOST: RGB = (255, 110, 100)


def draw_heat_video(
    path: Path,
    target: Path,
    attention: Attention,
    template: Template,
    *,
    title: str,
    note: str = "",
    stream: int = -1,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write the clip with its heat map, with the source's own frame times (from 0), readable by its owner alone.

    Args:
        path: the clip.
        target: `.mp4` to write, by rename.
        attention: what the model saw.
        template: of the warp that made the model's faces.
        title: text below the picture: the clip and its age.
        note: a warning next to it, in red.
        stream: the video stream that the model saw, below 0 the clip's default one.
        progress: called now and then with the number of frames drawn.

    Raises:
        NemoError: it cannot be read again or written, with the reason.
    """
    page: _Page | None = None

    def draw(frame: Frame) -> NDArray[np.uint8]:
        nonlocal page
        page = page or _Page(frame.width, frame.height, attention, template, title, note)
        return page.draw(frame.rgb(), place.get(frame.index))

    place = {int(frame): t for t, frame in enumerate(attention.frame_index)}
    draw_copy(path, target, draw, stream=stream, progress=progress)


class _Page:
    """Draws the frames of one clip, all to the same size: the picture, and the strip below it."""

    def __init__(
        self,
        width: int,
        height: int,
        attention: Attention,
        template: Template,
        title: str,
        note: str,
    ) -> None:
        longest = max(width, height)
        self._scale = math.ceil(_SMALLEST / longest) if longest < _SMALLEST else min(1.0, _LARGEST / longest)
        self._size = (round(width * self._scale), round(height * self._scale))
        self._attention, self._template, self._largest = attention, template, max(attention.largest, 1e-12)
        self.width = _even(max(self._size[0], _LEAST_WIDTH))
        self._u = max(1.0, self.width / 640)  # so that text is as large on every screen
        self._strip = self._make_strip(title, note)
        self.height = _even(self._size[1] + self._strip.shape[0])
        self._left = (self.width - self._size[0]) // 2
        self._empty = np.full((self.height, self.width, 3), _NIGHT, np.uint8)
        self._empty[self._size[1] : self._size[1] + self._strip.shape[0]] = self._strip

    def draw(self, rgb: NDArray[np.uint8], t: int | None) -> NDArray[np.uint8]:
        """(height, width, 3) RGB. `t`: place among the kept frames, None where the model saw nothing."""
        enlarge = cv2.INTER_CUBIC if self._scale > 1 else cv2.INTER_AREA
        picture: Any = cv2.resize(rgb, self._size, interpolation=enlarge)
        if t is not None and self._attention.maps is not None:
            self._heat(picture, t)
        page = self._empty.copy()
        page[: self._size[1], self._left : self._left + self._size[0]] = picture
        if t is not None:
            x, top, bottom = self._column(t)
            half = max(1, round(1.5 * self._u), self._bar // 2)
            page[self._plot[1] : bottom, x - half : x + half] = (np.array(_NOW) * 0.35).astype(np.uint8)
            page[top:bottom, x - half : x + half] = _NOW
        return page

    def _heat(self, picture: NDArray[np.uint8], t: int) -> None:
        """Lay the heat map over the face, in place."""
        landmarks = (self._attention.landmarks[t].astype(np.float64) + 0.5) * self._scale - 0.5
        if not np.isfinite(landmarks).all():
            return
        face = unwarp(self._template, landmarks, *self._size)
        value = np.clip(sample(self._attention.heat(t), face.crop) / self._largest, 0, 1)
        colour = _colours()[np.round(value * 255).astype(int)]
        old = picture[face.y, face.x]
        picture[face.y, face.x] = np.round(old * (1 - OPAQUE) + colour * OPAQUE).astype(np.uint8)

    def _column(self, t: int) -> tuple[int, int, int]:
        """Position of the bar of frame t's weight in the page: x, top, bottom."""
        left, top, right, bottom = self._plot
        frames = self._attention.frame_index
        span = max(1, int(frames[-1]) - int(frames[0]))
        x = round(left + (int(frames[t]) - int(frames[0])) / span * (right - left))
        share = float(self._attention.weights[t]) / max(float(self._attention.weights.max()), 1e-12)
        return x, round(bottom - share * (bottom - top)), bottom

    def _make_strip(self, title: str, note: str) -> NDArray[np.uint8]:
        """What stays the same: title, the weights of all frames, the scale. Sets `_plot` (left, top, right, bottom)."""
        u = self._u
        px = lambda value: round(value * u)  # noqa: E731
        notes = wrap_text(note, self.width - px(20), px(11), 3)
        height = px(118 + 17 * len(notes))
        image, draw = canvas(self.width, height, _NIGHT)
        wide = self.width - px(20)
        draw_text(draw, (px(10), px(20)), fit_text(title, wide, px(14), bold=True), px(14), _WHITE, bold=True)
        for i, text in enumerate(notes):
            draw_text(draw, (px(10), px(37 + 17 * i)), text, px(11), _MOST)
        top = px(28 + 17 * len(notes))
        plot = (px(12), top + px(14), self.width - px(12), height - px(26))
        self._plot = (plot[0], plot[1] + self._size[1], plot[2], plot[3] + self._size[1])
        weights = self._attention.weights
        text = f"temporal weight of each frame (largest {weights.max():.3g})"
        draw_text(draw, (px(10), top + px(8)), fit_text(text, wide, px(10)), px(10), _DIM)
        draw.line((plot[0], plot[1], plot[2], plot[1]), fill=_MOST)
        frames = self._attention.frame_index
        step = (plot[2] - plot[0]) / max(1, int(frames[-1]) - int(frames[0]))
        self._bar = max(1, min(int(0.8 * step), px(12)))
        for t in range(len(weights)):
            x, high, low = self._column(t)
            draw.line((x, high - self._size[1], x, low - self._size[1]), fill=_BAR, width=self._bar)
        if self._attention.maps is not None:
            self._legend(image, draw, height - px(8), px)
        return np.asarray(image)

    def _legend(self, image: Any, draw: Any, base: int, px: Callable[[float], int]) -> None:
        x = px(10) + draw_text(draw, (px(10), base), "spatial attention: 0 ", px(10), _DIM)
        ramp = np.repeat(_colours()[np.linspace(0, 255, px(90)).round().astype(int)][None], px(9), axis=0)
        image.paste(_image(ramp), (round(x), base - px(9)))
        text = f" {self._largest:.2g}, the largest of the clip"
        if x + px(90) + text_width(text, px(10)) < self.width:
            draw_text(draw, (x + px(90), base), text, px(10), _DIM)


def _image(values: NDArray[np.uint8]) -> Any:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(values))


def _colours() -> NDArray[np.uint8]:
    """(256, 3) RGB."""
    line: Any = cv2.applyColorMap(
        np.arange(256, dtype=np.uint8)[None], getattr(cv2, f"COLORMAP_{COLOURS.upper()}")
    )
    return np.ascontiguousarray(line[0, :, ::-1])


def _even(value: int) -> int:
    return value + value % 2
