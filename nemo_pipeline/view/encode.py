"""Copies of videos with something drawn on them, as an mp4 that every player shows: H.264, yuv420p, with the times of
the video that they were drawn from."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.errors import DataError, OutputError
from nemo_pipeline.stages.decode import DecodeError, VideoReader
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.store.files import replacing
from nemo_pipeline.view.annotated import ANNOTATED

#: Clock ticks per second: exact for the usual rates, and allowed by every codec.
_TICKS = 60000


def draw_copy(
    path: Path,
    target: Path,
    draw: Callable[[Frame], NDArray[np.uint8]],
    *,
    stream: int = -1,
    comment: str = ANNOTATED,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Decode a video and write what is drawn of each frame, with the frames' own times (from 0).

    Args:
        path: the video.
        target: `.mp4` to write, by rename, readable by its owner alone.
        draw: (H, W, 3) RGB of a frame, even sides, the same for all.
        stream: the video stream to read; below 0 the default one.
        comment: what the copy says of itself in its container.
        progress: called now and then with the number of frames drawn.

    Raises:
        NemoError: it cannot be read again or written, with the reason.
    """
    with saying(target), replacing(target) as temporary, VideoReader(path, stream) as reader:
        write_copy(reader, temporary, draw, comment=comment, from_zero=True, progress=progress)


def write_copy(
    reader: VideoReader,
    target: Path,
    draw: Callable[[Frame], NDArray[np.uint8]],
    *,
    comment: str = ANNOTATED,
    from_zero: bool = False,
    sound: bool = False,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write what is drawn of each frame, as `draw_copy`, to a file that is written over.

    Args:
        reader: a video of which nothing was read.
        target: an mp4, whatever it is called.
        draw: as for `draw_copy`.
        comment: as for `draw_copy`.
        from_zero: times are counted from the first frame on; else they are those of the video.
        sound: take over the sound that is to be played, as AAC.
        progress: as for `draw_copy`.

    Raises:
        DataError: the video gives no frame.
        DecodeError, OSError, av.error.FFmpegError: it cannot be read or written.
    """
    with av.open(str(target), "w", format="mp4") as container:
        container.metadata["comment"] = comment
        writer, first, heard = None, 0.0, None
        for frame in reader:
            picture = draw(frame)
            if writer is None:
                writer = PictureWriter(container, picture.shape[1], picture.shape[0], reader.info.fps)
                heard = Sound(reader.path, container) if sound else None
                first = frame.time if from_zero else 0.0
            writer.write(picture, frame.time - first)
            if heard is not None:
                heard.write(frame.time - first, reader.report.times.moved - first)
            if progress is not None and frame.index % 16 == 0:
                progress(frame.index + 1)
        if writer is None:
            raise DataError(f"{reader.path} gave no frame when it was decoded again", reader.path)
        writer.close()
        if heard is not None:
            heard.write(math.inf, reader.report.times.moved - first)
            heard.close()


@contextlib.contextmanager
def saying(target: Path) -> Iterator[None]:
    """Say what goes wrong with a copy in one sentence, as OutputError."""
    try:
        yield
    except (DecodeError, OSError, av.error.FFmpegError) as error:
        raise OutputError(f"{target} could not be drawn: {error}", target) from None


class Sound:
    """The sound of a video, as AAC in a copy of it, at its own times. Nothing where it has none.

    Args:
        path: the video.
        container: the copy, open for writing, before its first picture is written.
    """

    def __init__(self, path: Path, container: av.container.OutputContainer) -> None:
        self._container, self._source = container, av.open(str(path))
        self._stream: Any = None
        self._frames: Iterator[Any] = iter(())
        self._next: Any = None
        found: Any = self._source.streams.best("audio")
        if found is not None:
            self._stream = container.add_stream("aac", rate=found.codec_context.sample_rate)
            self._resampler = av.AudioResampler("fltp", found.codec_context.layout, self._stream.rate)
            self._stream.layout = found.codec_context.layout
            self._frames = self._source.decode(found)

    def write(self, until: float, shift: float) -> None:
        """Write what is heard before a time of the copy; `shift`: seconds from the video's times to the copy's."""
        while True:
            self._next = self._next or next(self._frames, None)
            if self._next is None or self._next.time + shift > until:
                return
            frame, self._next = self._next, None
            if frame.time + shift >= 0:
                frame.pts += round(shift / frame.time_base)
                for part in self._resampler.resample(frame):
                    self._container.mux(self._stream.encode(part))

    def close(self) -> None:
        """No more sound."""
        if self._stream is not None:
            for part in self._resampler.resample(None):
                self._container.mux(self._stream.encode(part))
            self._container.mux(self._stream.encode())
        self._source.close()


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
