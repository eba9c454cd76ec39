"""Display: every picture of a video in square pixels and one size, as a player shows it.

The stored planes are not resized: a `Fit` says where each stored picture lies in the display, and what is looked at
is sampled through it.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: A pixel that is said to be more than this many times as wide as high, or as high as wide, is not believed. (The
#: tables of H.264 and HEVC end at 32:11; one field alone, stored as a picture, has 8:15 or so.)
MOST_ASPECT = 4
#: Pictures whose shapes agree this well differ by an encoder's rounding: they fill the display.
SAME_SHAPE = 0.02


@dataclasses.dataclass(frozen=True, slots=True)
class Fit:
    """Where a stored, upright picture lies in the display, in pixels of the display.

    Attributes:
        size: (width, height) of the display.
        stored: (width, height) of the stored picture.
        left, top: corner of the picture.
        across, down: its size.
    """

    size: tuple[int, int]
    stored: tuple[int, int]
    left: int
    top: int
    across: int
    down: int

    @property
    def scale(self) -> NDArray[np.float64]:
        """(2,) stored pixels per display pixel, across and down."""
        return np.array([self.stored[0] / self.across, self.stored[1] / self.down])

    def to_stored(self, affine: NDArray[np.float64]) -> NDArray[np.float64]:
        """A (2, 3) affine map to display pixels (centres at integers) as one to stored pixels."""
        scale = self.scale[:, None]
        out = affine * scale
        out[:, 2:] += scale * (0.5 - np.array([[self.left], [self.top]])) - 0.5
        return out

    def from_stored(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """(..., 2) points in stored, upright pixels (centres at integers), in pixels of the display."""
        return (np.asarray(points, np.float64) + 0.5) / self.scale - 0.5 + (self.left, self.top)


def fit(stored: tuple[int, int], aspect: Fraction, display: tuple[int, int] | None = None) -> Fit | None:
    """How a stored picture is shown; None where the display has its pixels as they are.

    Args:
        stored: (width, height), upright.
        aspect: width of a stored, upright pixel over its height.
        display: (width, height) of the video, from its first picture; None for that one. A later picture of
            another size is brought to it: filled where its shape is the same, else as large as it can be whole,
            in the middle.
    """
    width, height = stored
    # As FFmpeg computes scale=iw*sar:ih, which keeps the height and cuts the fraction off.
    own = max(1, int(width * (aspect.numerator / aspect.denominator))), height
    size = display or own
    if size == stored:
        return None
    ratio = own[0] * size[1] / (own[1] * size[0])
    if abs(ratio - 1) <= SAME_SHAPE:
        return Fit(size, stored, 0, 0, *size)
    across = size[0] if ratio > 1 else max(1, round(size[0] * ratio))
    down = size[1] if ratio < 1 else max(1, round(size[1] / ratio))
    return Fit(size, stored, (size[0] - across) // 2, (size[1] - down) // 2, across, down)


class PixelAspect:
    """The shape of a stream's pixels: what the container says, else what the codec says, else square.

    That is FFmpeg's rule. What the codec says may change at a key frame, and holds until it says something else. An
    absurd ratio counts as none.

    Args:
        stream: av.VideoStream, before its first packet was decoded.

    Attributes:
        now: width over height of a pixel as stored (not turned).
        absurd: a ratio that was not believed, "" without one.
    """

    def __init__(self, stream: Any) -> None:
        self.absurd = ""
        self._context = stream.codec_context
        stated, codec = stream.sample_aspect_ratio, self._context.sample_aspect_ratio
        # PyAV tells the two apart only where they differ: where they agree the codec's is followed.
        own = self._believed(stated) if stated != codec else None
        self._container_decides = own is not None
        self.now = own or self._believed(codec) or Fraction(1)

    def look(self, key_frame: bool) -> None:
        """The next picture in the order of display. The decoder is ahead of it, and sees a new ratio before."""
        if key_frame and not self._container_decides:
            self.now = self._believed(self._context.sample_aspect_ratio) or self.now

    def _believed(self, ratio: Fraction | None) -> Fraction | None:
        if not ratio or 1 / MOST_ASPECT <= ratio <= MOST_ASPECT:
            return ratio or None
        self.absurd = f"{ratio.numerator}:{ratio.denominator}"
        return None
