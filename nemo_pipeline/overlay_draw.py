"""One page of an annotated video: the frame with everything drawn on it, and a strip below that says what it is."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nemo_pipeline.drawing import RGB, canvas, chip, draw_text, fit_text, text_width
from nemo_pipeline.ibug68 import GROUPS
from nemo_pipeline.stages.frame import Frame, Region


class State(enum.IntEnum):
    """What a frame, or a person in it, came to; the best of several people counts."""

    DAMAGED = 0
    NOBODY = 1
    OTHER = 2
    TURNED = 3
    INTERPOLATED = 4
    OBSERVED = 5


_NAMES = {
    State.DAMAGED: "damaged",
    State.NOBODY: "no face",
    State.OTHER: "not kept",
    State.TURNED: "turned",
    State.INTERPOLATED: "interpolated",
    State.OBSERVED: "observed",
}
_COLOURS: dict[State, RGB] = {
    State.DAMAGED: (110, 30, 30),
    State.NOBODY: (239, 68, 68),
    State.OTHER: (160, 172, 189),
    State.TURNED: (192, 132, 252),
    State.INTERPOLATED: (251, 191, 36),
    State.OBSERVED: (52, 211, 153),
}
_TRACKED: RGB = (255, 138, 76)
_NIGHT: RGB = (17, 21, 28)
_WHITE: RGB = (245, 247, 250)
_DIM: RGB = (150, 160, 175)

# Neighbours along brows, nose, eyes and lips; True where the line is closed.
_LINES = [
    (np.array(GROUPS["jaw"]), False),
    (np.array(GROUPS["right_brow"]), False),
    (np.array(GROUPS["left_brow"]), False),
    (np.array(GROUPS["nose"])[:4], False),
    (np.array(GROUPS["nose"])[4:], False),
    *((np.array(GROUPS[name]), True) for name in ("right_eye", "left_eye", "outer_mouth", "inner_mouth")),
]
_SHIFT = 4  # fractional bits of cv2's coordinates
_STRIP, _LEAST_WIDTH, _BAR = 148, 560, 8
_SMALLEST, _LARGEST = 960, 1920


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One person in one frame.

    Attributes:
        number: of the person in its video.
        state: of this person.
        text: more about it.
        raw, smoothed: (68, 2) source pixels.
        region: the square in which the next frame is looked at.
        face: (size, size) uint8, the warped face.
        pose: yaw, pitch, roll, degrees. face_px: distance of the outer eye corners. score: presence.
    """

    number: int
    state: State
    text: str
    raw: NDArray[np.float64] | None = None
    smoothed: NDArray[np.float64] | None = None
    region: Region | None = None
    face: NDArray[np.uint8] | None = None
    pose: tuple[float, ...] = ()
    face_px: float = math.nan
    score: float = math.nan


class Page:
    """Draws the frames of one video, all to the same size.

    Args:
        width, height: of the video, pixels. Small ones are enlarged by a whole factor, large ones reduced.
        title: what to call it.
        timeline: (n,) `State` of every frame.
        n_frames: of the video.
    """

    def __init__(
        self, width: int, height: int, title: str, timeline: NDArray[np.uint8], n_frames: int
    ) -> None:
        longest = max(width, height)
        self._scale = math.ceil(_SMALLEST / longest) if longest < _SMALLEST else min(1.0, _LARGEST / longest)
        self._picture = (round(width * self._scale), round(height * self._scale))
        self.width = _even(max(self._picture[0], _LEAST_WIDTH))
        self.height = _even(self._picture[1] + _STRIP)
        self._left = (self.width - self._picture[0]) // 2
        self._n_frames = n_frames
        self._strip = self._empty_strip(title, timeline)
        self._empty = np.full((self.height, self.width, 3), _NIGHT, np.uint8)

    def draw(self, frame: Frame, people: Sequence[Shown]) -> NDArray[np.uint8]:
        """(height, width, 3) RGB."""
        enlarge = cv2.INTER_CUBIC if self._scale > 1 else cv2.INTER_AREA
        picture: Any = cv2.resize(frame.rgb(), self._picture, interpolation=enlarge)
        people = sorted(people, key=lambda one: (one.state, -one.number))
        for one in people:
            self._annotate(picture, one)
        page = self._empty.copy()
        page[: picture.shape[0], self._left : self._left + picture.shape[1]] = picture
        page[self.height - _STRIP :] = self._strip_of(frame, people)
        for one in people:
            self._tag(page, one)
        return page

    def _to_page(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        return (points + 0.5) * self._scale - 0.5

    def _annotate(self, picture: NDArray[np.uint8], one: Shown) -> None:
        """Region, raw points as rings, smoothed points as dots joined by lines."""
        colour = _COLOURS[one.state]
        if one.region is not None:
            _brackets(picture, self._to_page(_corners(one.region)), colour)
        best = one.smoothed if one.smoothed is not None else one.raw
        if best is None:
            return
        eyes = float(np.hypot(*(best[45] - best[36]))) * self._scale
        dot = float(np.clip(eyes / 75, 0.5, 3.0))
        if one.raw is not None:
            ring = round((1.5 * dot + min(1.2, eyes / 60)) * (1 << _SHIFT))
            for point in _fixed(self._to_page(one.raw)):
                cv2.circle(picture, point.tolist(), ring, _TRACKED, 1, cv2.LINE_AA, _SHIFT)
        if one.smoothed is not None:
            points = self._to_page(one.smoothed)
            for width, ink in ((2, _NIGHT), (1, colour)):
                for index, closed in _LINES:
                    cv2.polylines(picture, [_fixed(points[index])], closed, ink, width, cv2.LINE_AA, _SHIFT)
            _dots(picture, points, dot + 0.8, _NIGHT)
            _dots(picture, points, dot, colour)

    def _tag(self, page: NDArray[np.uint8], one: Shown) -> None:
        """The person's number above the face."""
        points = one.smoothed if one.smoothed is not None else one.raw
        if points is None:
            return
        text = str(one.number)
        low = (
            self._to_page(points.min(axis=0))
            if one.region is None
            else self._to_page(_corners(one.region)).min(0)
        )
        size = 13
        width = round(text_width(text, size, bold=True)) + 2 * round(size * 0.5)
        x = int(np.clip(low[0] + self._left, 2, max(2, self.width - width - 2)))
        y = int(np.clip(low[1] - 24, 2, max(2, self._picture[1] - 24)))
        part = Image.fromarray(page[y : y + 20, x : x + width + 1])
        chip(ImageDraw.Draw(part), (0, 14), text, size, _COLOURS[one.state], ink=_NIGHT)
        page[y : y + 20, x : x + width + 1] = np.asarray(part)

    def _empty_strip(self, title: str, timeline: NDArray[np.uint8]) -> Image.Image:
        """What is the same in every frame: title, legend, the line of all frames."""
        image, draw = canvas(self.width, _STRIP, _NIGHT)
        draw_text(draw, (16, 28), fit_text(title, self._text_width(1), 17, bold=True), 17, _WHITE, bold=True)
        x, y = 16.0, 123
        for text, symbol in (("smoothed", "dot"), ("as tracked", "ring"), ("region", "brackets")):
            box = (x + 2, y - 9, x + 10, y - 1)
            if symbol == "dot":
                draw.ellipse((x + 3, y - 8, x + 9, y - 2), fill=_COLOURS[State.OBSERVED])
            elif symbol == "ring":
                draw.ellipse(box, outline=_TRACKED)
            else:
                draw.line([(x + 2, y - 5), (x + 2, y - 9), (x + 6, y - 9)], fill=_COLOURS[State.OBSERVED])
                draw.line([(x + 10, y - 5), (x + 10, y - 1), (x + 6, y - 1)], fill=_COLOURS[State.OBSERVED])
            x += 16 + draw_text(draw, (x + 16, y), text, 11, _DIM) + 14
        self._bar = (0, _STRIP - _BAR, self.width, _STRIP)
        image.paste(_bar_image(timeline, self.width), (0, _STRIP - _BAR))
        return image

    def _text_width(self, n_faces: int) -> float:
        return self.width - 32 - 124 * n_faces

    def _strip_of(self, frame: Frame, people: Sequence[Shown]) -> NDArray[np.uint8]:
        image = self._strip.copy()
        draw = ImageDraw.Draw(image)
        faces = [one for one in people if one.face is not None][-max(1, (self.width - 440) // 124) :]
        width = self._text_width(max(1, len(faces)))
        best = people[-1] if people else Shown(0, State.NOBODY, "")
        x = 16 + chip(draw, (16, 56), _NAMES[best.state], 13, _COLOURS[best.state], ink=_NIGHT) + 10
        text = f"person {best.number}, {best.text}" if people else ""
        if len(people) > 1:
            text += f"; {len(people)} in all"
        draw_text(draw, (x, 56), fit_text(text, width + 16 - x, 13), 13, _WHITE)
        when = f"frame {frame.index}, counted from 0 to {self._n_frames - 1}"
        x = 16 + draw_text(draw, (16, 82), f"{frame.time:.3f} s", 14, _WHITE, bold=True) + 12
        draw_text(draw, (x, 82), when, 13, _DIM)
        draw_text(draw, (16, 103), fit_text(_measures(best), width, 12), 12, _DIM)
        for i, one in enumerate(reversed(faces)):
            assert one.face is not None
            tile = Image.fromarray(one.face).resize((112, 112), Image.Resampling.LANCZOS).convert("RGB")
            left = self.width - 124 * (i + 1)
            image.paste(tile, (left, 14))
            draw.rectangle((left - 1, 13, left + 112, 126), outline=_COLOURS[one.state])
        if not faces:
            left = self.width - 124
            draw.rectangle((left - 1, 13, left + 112, 126), outline=(52, 60, 74))
        cursor = (frame.index + 0.5) / max(1, self._n_frames) * self.width
        draw.polygon(
            [(cursor - 5, _STRIP - _BAR - 7), (cursor + 5, _STRIP - _BAR - 7), (cursor, _STRIP - _BAR - 1)],
            fill=_WHITE,
        )
        draw.line((cursor, _STRIP - _BAR, cursor, _STRIP), fill=_WHITE)
        return np.asarray(image)


def _measures(one: Shown) -> str:
    parts = []
    if one.pose and not math.isnan(one.pose[0]):
        parts.append("yaw {:+d}°  pitch {:+d}°  roll {:+d}°".format(*(round(angle) for angle in one.pose)))
    if not math.isnan(one.face_px):
        parts.append(f"eyes {one.face_px:.0f} px apart")
    if not math.isnan(one.score):
        parts.append(f"score {one.score:.2f}")
    return "   ".join(parts)


def _bar_image(timeline: NDArray[np.uint8], width: int) -> Image.Image:
    """The states of all frames as one coloured line; where several frames share a column, the worst shows."""
    n = max(1, len(timeline))
    starts = np.minimum(np.arange(width) * n // width, n - 1)
    stops = np.maximum(starts + 1, (np.arange(width) + 1) * n // width)
    states = [int(timeline[a:b].min()) if len(timeline) else 0 for a, b in zip(starts, stops, strict=True)]
    colours = np.array([_COLOURS[State(state)] for state in states], np.uint8)
    return Image.fromarray(np.repeat(colours[None], _BAR, axis=0))


def _corners(region: Region) -> NDArray[np.float64]:
    """(4, 2) of the region's square, clockwise from its upper left, source pixels."""
    to_source = region.to_source(2)
    return np.array([[-0.5, -0.5, 1], [1.5, -0.5, 1], [1.5, 1.5, 1], [-0.5, 1.5, 1]]) @ to_source.T


def _brackets(picture: NDArray[np.uint8], corners: NDArray[np.float64], colour: RGB) -> None:
    """The corners of a square."""
    for i in range(4):
        corner, before, after = corners[i], corners[i - 1], corners[(i + 1) % 4]
        line = np.stack([corner + 0.12 * (before - corner), corner, corner + 0.12 * (after - corner)])
        for width, ink in ((3, _NIGHT), (1, colour)):
            cv2.polylines(picture, [_fixed(line)], False, ink, width, cv2.LINE_AA, _SHIFT)


def _dots(picture: NDArray[np.uint8], points: NDArray[np.float64], radius: float, colour: RGB) -> None:
    for point in _fixed(points):
        cv2.circle(picture, point.tolist(), round(radius * (1 << _SHIFT)), colour, -1, cv2.LINE_AA, _SHIFT)


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Pixels as cv2's fixed-point numbers, kept within what it can draw."""
    return np.round(np.clip(points, -10_000, 20_000) * (1 << _SHIFT)).astype(np.int32)


def _even(length: int) -> int:
    return length + length % 2
