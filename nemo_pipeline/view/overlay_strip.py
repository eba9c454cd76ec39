"""The strip below each frame of an annotated video: the frame's result in words and colours."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nemo_pipeline.geometry import points_off
from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.view.drawing import RGB, canvas, chip, draw_text, fit_text
from nemo_pipeline.view.quality_flags import MOST_OFF


class FrameState(enum.IntEnum):
    """What the file holds of a frame; the best of several rows counts."""

    NOT_KEPT = 0
    INTERPOLATED = 1
    TRACKED = 2


NAMES = {
    FrameState.NOT_KEPT: "not kept",
    FrameState.INTERPOLATED: "interpolated",
    FrameState.TRACKED: "tracked",
}
COLOURS: dict[FrameState, RGB] = {
    FrameState.NOT_KEPT: (160, 172, 189),
    FrameState.INTERPOLATED: (251, 191, 36),
    FrameState.TRACKED: (52, 211, 153),
}
TRACKED: RGB = (255, 138, 76)
NIGHT: RGB = (17, 21, 28)
_WHITE: RGB = (245, 247, 250)
_DIM: RGB = (150, 160, 175)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PersonInFrame:
    """One row of the file in one frame.

    Attributes:
        number: of the row among those of its video, from 1.
        state: of this row.
        name: which person and segment it is, where the video has several rows.
        raw, smoothed: (68, 2) source pixels.
        region: the square in which the next frame is looked at; None where the file has no mesh.
        face: (size, size) uint8, the warped face.
        pose: yaw, pitch, roll, degrees. eye_distance_px: distance of the outer eye corners. face_presence: presence.
        n_faces: faces seen.
    """

    number: int
    state: FrameState
    name: str = ""
    raw: NDArray[np.float64] | None = None
    smoothed: NDArray[np.float64] | None = None
    region: Region | None = None
    face: NDArray[np.uint8] | None = None
    pose: tuple[float, ...] = ()
    eye_distance_px: float = math.nan
    face_presence: float = math.nan
    n_faces: int = 0


class Strip:
    """Draws the strip of each frame of one video.

    Args:
        width: of the page, pixels; letters grow with it.
        title: what to call the video.
        timeline: (n,) `FrameState` of every frame of the video.
        nobody: what is said of frames that no row holds.
    """

    def __init__(self, width: int, title: str, timeline: NDArray[np.uint8], nobody: str = "") -> None:
        self._width, self._n_frames, self._nobody = width, max(1, len(timeline)), nobody
        self._unit = float(np.clip(width / 900, 1.0, 1.8))
        self._bar = self._px(8)
        self.height = self._px(148)
        self._blank = self._unchanging(title, timeline)

    def draw(self, frame: Frame, people: Sequence[PersonInFrame]) -> NDArray[np.uint8]:
        """(height, width, 3) RGB. `people` in ascending order of their state: the last one is spoken of."""
        px = self._px
        image = self._blank.copy()
        draw = ImageDraw.Draw(image)
        faces = [one for one in people if one.face is not None][-max(1, (self._width - px(440)) // px(124)) :]
        width = self._text_width(max(1, len(faces)))
        best = people[-1] if people else PersonInFrame(0, FrameState.NOT_KEPT)
        x = px(26) + chip(draw, (px(16), px(56)), NAMES[best.state], px(13), COLOURS[best.state], ink=NIGHT)
        text = f"row {best.name}" if best.name else "" if people else self._nobody
        draw_text(draw, (x, px(56)), fit_text(text, width + px(16) - x, px(13)), px(13), _WHITE)
        x = px(28) + draw_text(draw, (px(16), px(82)), f"{frame.time:.3f} s", px(14), _WHITE, bold=True)
        when = f"frame {frame.index}, counted from 0 to {self._n_frames - 1}"
        draw_text(draw, (x, px(82)), fit_text(when, width + px(16) - x, px(13)), px(13), _DIM)
        draw_text(draw, (px(16), px(103)), fit_text(_measures(best), width, px(12)), px(12), _DIM)
        for i, one in enumerate(reversed(faces)):
            assert one.face is not None
            side = px(112)
            tile = Image.fromarray(one.face).resize((side, side), Image.Resampling.LANCZOS).convert("RGB")
            self._frame(draw, i, COLOURS[one.state])
            image.paste(tile, (self._width - px(124) * (i + 1), px(14)))
        if not faces:
            self._frame(draw, 0, (52, 60, 74))
        cursor = (frame.index + 0.5) / self._n_frames * self._width
        top = self.height - self._bar
        draw.polygon(
            [(cursor - px(5), top - px(7)), (cursor + px(5), top - px(7)), (cursor, top - 1)], fill=_WHITE
        )
        draw.line((cursor, top, cursor, self.height), fill=_WHITE)
        return np.asarray(image)

    def _px(self, length: float) -> int:
        return round(length * self._unit)

    def _text_width(self, n_faces: int) -> int:
        return self._width - self._px(32) - self._px(124) * n_faces

    def _frame(self, draw: ImageDraw.ImageDraw, place: int, colour: RGB) -> None:
        """Around the warped face at `place`, counted from the right."""
        left, top, side = self._width - self._px(124) * (place + 1), self._px(14), self._px(112)
        draw.rectangle((left - 1, top - 1, left + side, top + side), outline=colour)

    def _unchanging(self, title: str, timeline: NDArray[np.uint8]) -> Image.Image:
        """What is the same in every frame: title, legend, the line of all frames."""
        px = self._px
        image, draw = canvas(self._width, self.height, NIGHT)
        name = fit_text(title, self._text_width(1), px(17), bold=True)
        draw_text(draw, (px(16), px(28)), name, px(17), _WHITE, bold=True)
        x, y, green = float(px(16)), px(118), COLOURS[FrameState.TRACKED]
        for text in ("smoothed", "as tracked", "region"):
            a, b = px(5), px(3)  # half a symbol
            cx, cy = x + a, y
            if text == "smoothed":
                draw.ellipse((cx - b, cy - b, cx + b, cy + b), fill=green)
            elif text == "as tracked":
                draw.ellipse((cx - a, cy - a, cx + a, cy + a), outline=TRACKED)
            else:
                draw.line([(cx - a, cy), (cx - a, cy - a), (cx, cy - a)], fill=green)
                draw.line([(cx + a, cy), (cx + a, cy + a), (cx, cy + a)], fill=green)
            x += px(30) + draw_text(draw, (x + px(16), y + px(4)), text, px(11), _DIM)
        image.paste(_bar_image(timeline, self._width, self._bar), (0, self.height - self._bar))
        return image


def _measures(one: PersonInFrame) -> str:
    parts = []
    if one.pose and not math.isnan(one.pose[0]):
        parts.append("yaw {:+d}°  pitch {:+d}°  roll {:+d}°".format(*(round(angle) for angle in one.pose)))
    if not math.isnan(one.eye_distance_px):
        parts.append(f"eyes {one.eye_distance_px:.0f} px apart")
    if not math.isnan(one.face_presence):
        parts.append(f"presence {one.face_presence:.2f}")
    if one.n_faces > 1:
        parts.append(f"{one.n_faces} faces seen")
    if one.raw is not None and one.smoothed is not None:
        off = float(points_off(one.smoothed[None], one.raw[None])[0])
        if off > MOST_OFF:
            parts.append(f"smoothed points {off:.0%} off")
    return "   ".join(parts)


def _bar_image(timeline: NDArray[np.uint8], width: int, height: int) -> Image.Image:
    """The states of all frames as one coloured line; where several frames share a column, the worst shows."""
    n = max(1, len(timeline))
    starts = np.minimum(np.arange(width) * n // width, n - 1)
    stops = np.maximum(starts + 1, (np.arange(width) + 1) * n // width)
    states = [int(timeline[a:b].min()) if len(timeline) else 0 for a, b in zip(starts, stops, strict=True)]
    colours = np.array([COLOURS[FrameState(state)] for state in states], np.uint8)
    return Image.fromarray(np.repeat(colours[None], height, axis=0))
