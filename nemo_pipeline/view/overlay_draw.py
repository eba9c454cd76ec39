"""One page of an annotated video: the frame with everything drawn on it, and the strip below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nemo_pipeline.ibug68 import GROUPS
from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.view.drawing import RGB, chip, text_width
from nemo_pipeline.view.overlay_strip import COLOURS, NIGHT, TRACKED, PersonInFrame, Strip

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
_LEAST_WIDTH = 560
_SMALLEST, _LARGEST = 960, 1920


class Page:
    """Draws the frames of one video, all to the same size.

    Args:
        width, height: of the video, pixels. Small ones are enlarged by a whole factor, large ones reduced.
        title: what to call it.
        timeline: (n,) `FrameState` of every frame of the video.
        nobody: what is said of frames that no row holds.
    """

    def __init__(
        self, width: int, height: int, title: str, timeline: NDArray[np.uint8], nobody: str = ""
    ) -> None:
        longest = max(width, height)
        self._scale = math.ceil(_SMALLEST / longest) if longest < _SMALLEST else min(1.0, _LARGEST / longest)
        self._picture = (round(width * self._scale), round(height * self._scale))
        self.width = _even(max(self._picture[0], _LEAST_WIDTH))
        self._strip = Strip(self.width, title, timeline, nobody)
        self.height = _even(self._picture[1] + self._strip.height)
        self._left = (self.width - self._picture[0]) // 2
        self._empty = np.full((self.height, self.width, 3), NIGHT, np.uint8)

    def draw(self, frame: Frame, people: Sequence[PersonInFrame]) -> NDArray[np.uint8]:
        """(height, width, 3) RGB."""
        enlarge = cv2.INTER_CUBIC if self._scale > 1 else cv2.INTER_AREA
        picture: Any = cv2.resize(frame.rgb(), self._picture, interpolation=enlarge)
        people = sorted(people, key=lambda one: (one.state, -one.number))
        for one in people:
            self._annotate(picture, one)
        page = self._empty.copy()
        page[: picture.shape[0], self._left : self._left + picture.shape[1]] = picture
        page[self.height - self._strip.height :] = self._strip.draw(frame, people)
        for one in people:
            self._tag(page, one)
        return page

    def _to_page(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        return (points + 0.5) * self._scale - 0.5

    def _annotate(self, picture: NDArray[np.uint8], one: PersonInFrame) -> None:
        """Region, raw points as rings, smoothed points as dots joined by lines."""
        colour = COLOURS[one.state]
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
                cv2.circle(picture, point.tolist(), ring, TRACKED, 1, cv2.LINE_AA, _SHIFT)
        if one.smoothed is not None:
            points = self._to_page(one.smoothed)
            for width, ink in ((2, NIGHT), (1, colour)):
                for index, closed in _LINES:
                    cv2.polylines(picture, [_fixed(points[index])], closed, ink, width, cv2.LINE_AA, _SHIFT)
            _dots(picture, points, dot + 0.8, NIGHT)
            _dots(picture, points, dot, colour)

    def _tag(self, page: NDArray[np.uint8], one: PersonInFrame) -> None:
        """The row's name above the face."""
        points = one.smoothed if one.smoothed is not None else one.raw
        text = one.name
        if points is None or not text:
            return
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
        chip(ImageDraw.Draw(part), (0, 14), text, size, COLOURS[one.state], ink=NIGHT)
        page[y : y + 20, x : x + width + 1] = np.asarray(part)


def _corners(region: Region) -> NDArray[np.float64]:
    """(4, 2) of the region's square, clockwise from its upper left, source pixels."""
    to_source = region.to_source(2)
    return np.array([[-0.5, -0.5, 1], [1.5, -0.5, 1], [1.5, 1.5, 1], [-0.5, 1.5, 1]]) @ to_source.T


def _brackets(picture: NDArray[np.uint8], corners: NDArray[np.float64], colour: RGB) -> None:
    """The corners of a square."""
    for i in range(4):
        corner, before, after = corners[i], corners[i - 1], corners[(i + 1) % 4]
        line = np.stack([corner + 0.12 * (before - corner), corner, corner + 0.12 * (after - corner)])
        for width, ink in ((3, NIGHT), (1, colour)):
            cv2.polylines(picture, [_fixed(line)], False, ink, width, cv2.LINE_AA, _SHIFT)


def _dots(picture: NDArray[np.uint8], points: NDArray[np.float64], radius: float, colour: RGB) -> None:
    for point in _fixed(points):
        cv2.circle(picture, point.tolist(), round(radius * (1 << _SHIFT)), colour, -1, cv2.LINE_AA, _SHIFT)


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Pixels as cv2's fixed-point numbers, kept within what it can draw."""
    return np.round(np.clip(points, -10_000, 20_000) * (1 << _SHIFT)).astype(np.int32)


def _even(length: int) -> int:
    return length + length % 2
