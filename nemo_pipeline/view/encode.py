"""Pictures to an mp4 that every player shows: H.264, yuv420p, with the times of the video that they were drawn from."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

#: Clock ticks per second: exact for the usual rates, and allowed by every codec.
_TICKS = 60000


class PictureWriter:
    """H.264 (MPEG-4 where that is missing), one thread, variable rate.

    Args:
        container: open for writing.
        width, height: of the pictures, even.
        fps: average rate, for players that ask; the pictures' own times count.
    """

    def __init__(self, container: av.container.OutputContainer, width: int, height: int, fps: float) -> None:
        name = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        rate = Fraction(fps).limit_denominator(1001) if 1 <= fps <= 1000 else Fraction(25)
        self._container = container
        stream: Any = container.add_stream(name, rate=rate)
        self._stream = stream
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.time_base = Fraction(1, _TICKS)
        if name == "libx264":
            stream.options = {"preset": "veryfast", "crf": "20"}
        else:
            stream.bit_rate = width * height * 4
        self._last = -1

    def write(self, picture: NDArray[np.uint8], seconds: float) -> None:
        """One more picture (H, W, 3) RGB, shown from `seconds` on."""
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        self._last = max(self._last + 1, round(seconds * _TICKS))
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """No more pictures."""
        self._container.mux(self._stream.encode())
