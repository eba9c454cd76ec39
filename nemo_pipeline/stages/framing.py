"""Framing: a stream's decoded pictures as `Frame`s of one display size, and notes about them."""

from __future__ import annotations

import contextlib
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from nemo_pipeline.stages.container import opened
from nemo_pipeline.stages.display import PixelAspect, fit
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.planes import SIXTEEN, deep_levels, degrees, display_turn, tag_turn, to_frame
from nemo_pipeline.stages.transfer import described, doubt
from nemo_pipeline.store.text import pluralize

#: 16-bit levels of which no more than this many bits are used are stretched; a picture that is only dark uses more.
_MOST_STRETCHED = 14
#: Part of the pixels that may be brighter than what counts as used (glints, dead pixels of a sensor).
_BRIGHTER = 1e-3


class Framer:
    """Makes the frames of one stream. The first picture decides the size; all others are brought to it.

    Args:
        path: the file. It is read once more, from the start, where 16-bit levels have to be measured first.
        stream: its video stream (av.VideoStream), before its first packet was decoded.

    Attributes:
        facts: fields of `VideoInfo`; as the stream states them until the first picture is there.
    """

    def __init__(self, path: Path, stream: Any) -> None:
        self._path, self._stream = path, stream
        self._aspect = PixelAspect(stream)
        self._tag = tag_turn(stream.metadata)
        self._turn, self._rotation = self._tag, 0
        self._display: tuple[int, int] | None = None
        self._used_bits = 16
        # Pictures by (width, height) and pixel aspect, the first one's first.
        self._stored_as: Counter[tuple[tuple[int, int], Fraction]] = Counter()
        self._doubt = ""
        context, aspect = stream.codec_context, self._aspect.now
        stored = (context.width, context.height)
        shown = fit(stored, aspect) if all(stored) else None  # no size is known before a picture was decoded
        self.facts = _facts(stored, shown.size if shown else stored, aspect, int(context.color_trc))

    def look(self, picture: Any) -> None:
        """Note on a picture (av.VideoFrame) that the decoder has just given what the decoder now knows of it."""
        self._aspect.look(bool(picture.key_frame))
        picture.opaque = [self._aspect.now]  # an object of its own: PyAV finds it by its address

    def frame(self, picture: Any, index: int, time: float) -> Frame:
        """The frame of a picture that was looked at. Raises what FFmpeg does, and ValueError."""
        first, aspect = self._display is None, picture.opaque[0]
        # Not of every picture: PyAV ties one whose side data was asked for into a cycle, so that its memory is only
        # free again at the next garbage collection.
        if first or picture.key_frame or picture.rotation != self._rotation:
            self._turn, self._rotation = display_turn(picture, self._tag), picture.rotation
        turn = self._turn
        if first and picture.format.name.startswith(SIXTEEN):
            self._used_bits = used_bits(self._path, self._stream.index, picture)
        frame = to_frame(
            picture, index, time, turn, aspect=aspect, display=self._display, used_bits=self._used_bits
        )
        stored = (picture.width, picture.height)
        transfer, primaries = int(picture.color_trc), int(picture.color_primaries)
        if first:
            self._display = (frame.width, frame.height)
            self.facts = _facts(stored, self._display, aspect, transfer) | {"rotation": degrees(turn)}
        self._doubt = self._doubt or doubt(transfer, primaries, int(picture.colorspace))
        self._stored_as[stored, aspect] += 1
        return frame

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of how the pictures are shown, a clause each."""
        found = []
        if len(self._stored_as) > 1:
            shapes = len({aspect for _, aspect in self._stored_as}) > 1
            own, *others = (
                f"{size[0]}x{size[1]}"
                + (f" with pixels of {_ratio(aspect)}" if shapes else "")
                + f" in {pluralize(n, 'frame')}"
                for (size, aspect), n in self._stored_as.items()
            )
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            found.append(
                f"the picture's size changes: {own}, then {', '.join(others[:3])}{more}; all were brought to the first "
                "one's"
            )
        if self._aspect.absurd:
            found.append(f"a pixel aspect ratio of {self._aspect.absurd} is stated and was not believed")
        if self._doubt:
            found.append(self._doubt)
        if self._used_bits < 16:
            found.append(f"{self._used_bits} of 16 bits are used: gray levels were stretched to them")
        return tuple(found)


def _facts(
    stored: tuple[int, int], shown: tuple[int, int], aspect: Fraction, transfer: int
) -> dict[str, Any]:
    return {
        "width": shown[0],
        "height": shown[1],
        "stored_width": stored[0],
        "stored_height": stored[1],
        "pixel_aspect": _ratio(aspect),
        "transfer": described(transfer),
    }


def _ratio(aspect: Fraction) -> str:
    return f"{aspect.numerator}:{aspect.denominator}"


def used_bits(path: Path, stream: int, first: Any) -> int:
    """How many of 16 bits hold something, from below, over all pictures of a stream; 16 where nearly all do.

    Cameras of 10 to 14 bits leave the upper ones empty. One decision holds for the whole stream, so that the levels
    do not jump: where the first picture is dark, the others are looked at.

    Args:
        path: the file.
        stream: number of the stream in it.
        first: its first picture (av.VideoFrame), of a format in `SIXTEEN`.
    """
    counts = np.bincount(deep_levels(first).ravel(), minlength=1 << 16)
    if _bits(counts) > _MOST_STRETCHED:
        return 16
    with contextlib.suppress(av.error.FFmpegError, ValueError), opened(path) as container:
        for picture in container.decode(container.streams[stream]):
            counts += np.bincount(deep_levels(picture).ravel(), minlength=1 << 16)
    bits = _bits(counts)
    return bits if bits <= _MOST_STRETCHED else 16


def _bits(counts: np.ndarray) -> int:
    """Bits of the level that all but `_BRIGHTER` of the pixels keep to, from 8."""
    above = counts[::-1].cumsum()[::-1] > _BRIGHTER * counts.sum()
    return max(8, int(np.flatnonzero(above).max()).bit_length())
