"""Decode: a file to its frames, upright, with the file's own times.

Only decoded frames count: headers claim frames that are not there, and a cut file can end without an error.
Pictures that a decoder had to guess, and those that depend on them, are counted but not returned.
Interlaced pictures are given as stored (two fields woven) and counted, not deinterlaced.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av

from nemo_pipeline.datatypes import VideoInfo
from nemo_pipeline.stages.container import (
    LARGEST_PICTURE,
    PICTURE,
    DecodeError,
    check_picture,
    default_stream,
    not_opened,
    numbered_stream,
    open_container,
    read_packets,
    streams_note,
    video_streams,
)
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.framing import Framer
from nemo_pipeline.stages.times import TimeRepairs, repair_times
from nemo_pipeline.stages.truncation import missing_bytes
from nemo_pipeline.status import Status
from nemo_pipeline.store.text import pluralize

__all__ = ["DecodeError", "DecodeReport", "VideoReader"]

#: Raw streams have no presentation times: AVFMT_NOTIMESTAMPS.
_NO_TIMES = 0x80
#: Frames per second that FFmpeg takes where a raw stream states no rate.
_ASSUMED_RATE = 25.0
#: Carriers that mark a packet wherever their own count of pieces jumps, which is also so where two whole recordings
#: were joined; and the decoders that notice if a piece is missing.
_MARKING = {"mpegts"}
_NOTICING = {"h264", "mpeg1video", "mpeg2video"}
_INTRA, _BIDIRECTIONAL = 1, 3  # AV_PICTURE_TYPE_I, AV_PICTURE_TYPE_B
#: Pictures of type B that wait for the next of another type; no codec allows more.
_MOST_HELD = 16
# What makes these decoders say so when a picture is damaged; most do by themselves, HEVC, VP9 and AV1 never can.
_STRICT = {"mjpeg": "explode"} | dict.fromkeys(("msmpeg4v2", "msmpeg4", "wmv1", "wmv2"), "bitstream+buffer")


@dataclasses.dataclass
class DecodeReport:
    """What went wrong on the way, filled while the frames are read.

    Attributes:
        n_frames: frames decoded, the damaged ones too.
        n_damaged: frames that the decoder had to guess, or that lean on such; they are not given out.
        n_errors: packets that could not be decoded.
        times: what was done to the presentation times.
        streams: which of several video streams is read, as a clause; "" where there is one alone.
        even_rate: frames per second by which frames are spaced where the file holds no times; else 0.
        n_interlaced: frames stored as two fields.
        missing_bytes: bytes that the file itself places beyond its end (a cut file).
        ended_early: the stream broke off with an error.
        picture_notes: what is unusual in how the pictures are shown, a clause each.
    """

    n_frames: int = 0
    n_damaged: int = 0
    n_errors: int = 0
    times: TimeRepairs = dataclasses.field(default_factory=TimeRepairs)
    streams: str = ""
    even_rate: float = 0.0
    n_interlaced: int = 0
    missing_bytes: int = 0
    ended_early: bool = False
    picture_notes: tuple[str, ...] = ()

    @property
    def n_repaired_times(self) -> int:
        """Presentation times that were missing, repeated or out of order, and were replaced."""
        return self.times.n_replaced

    @property
    def damage(self) -> str:
        """A clause that says what is damaged, or "" for a sound stream."""
        found = []
        if self.missing_bytes:
            found.append(f"the file is cut off ({pluralize(self.missing_bytes, 'byte')} missing)")
        elif self.ended_early:
            found.append("the stream breaks off with an error")
        if self.n_errors:
            found.append(f"{pluralize(self.n_errors, 'packet')} could not be decoded")
        if self.n_damaged:
            found.append(f"{pluralize(self.n_damaged, 'frame')} decoded to a damaged picture")
        return " and ".join(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """Clauses that say what else is unusual, though nothing is damaged."""
        found = [self.streams] if self.streams else []
        if self.even_rate:
            assumed = (
                ", which is assumed where a file does not say" if self.even_rate == _ASSUMED_RATE else ""
            )
            found.append(
                f"all {self.n_frames} presentation times are missing from the file; frames are spaced evenly at "
                f"{self.even_rate:.4g} per second{assumed}"
            )
        elif self.times.n_replaced:
            found.append(
                f"{self.times.n_replaced} presentation times were missing or out of order and were repaired"
            )
        if self.times.moved:
            found.append(f"times began {self.times.moved:.3g} s before zero and were moved to begin at zero")
        if self.times.n_set_back:
            found.append(
                f"the clock is set back {pluralize(self.times.n_set_back, 'time')}, as where recordings are joined; "
                "times continue from there"
            )
        if self.n_interlaced:
            be = "is" if self.n_interlaced == 1 else "are"
            found.append(f"{pluralize(self.n_interlaced, 'frame')} {be} interlaced")
        return (*found, *self.picture_notes)


class VideoReader:
    """Iterates over the undamaged `Frame`s of one video in presentation order; `info` and `report` describe it.

    Args:
        path: the video.
        stream: number of the video stream among all streams of the file; below 0 the one that the file says is to
            be played (`stages.streams.open_video` knows other rules).

    Use as a context manager, and iterate once. `Frame.index` counts all decoded frames, so it jumps where
    damaged ones were left out. One decoding thread: videos run side by side instead.

    Raises:
        DecodeError: the file cannot be read, is not a video, or holds no such video stream.
    """

    def __init__(self, path: str | Path, stream: int = -1) -> None:
        self.path = Path(path)
        self.report = DecodeReport()
        self._n_packets = 0
        self._container = open_container(self.path)
        try:
            self.streams = video_streams(self._container, self.path)
            chosen = default_stream(self.streams) if stream < 0 else numbered_stream(self.streams, stream)
            self.report.streams = streams_note(self.streams, chosen.index)
            self._stream = self._container.streams[chosen.index]
            context = self._stream.codec_context
            if context is None:
                raise DecodeError(
                    Status.DECODE_ERROR,
                    "No decoder for this video format is at hand; convert it to H.264 in mp4.",
                )
            context.thread_count = 1
            context.copy_opaque = True
            strict = {"err_detect": _STRICT[context.name]} if context.name in _STRICT else {}
            context.options = {"max_pixels": str(LARGEST_PICTURE), **strict}
            # The average rate of a raw stream is the demuxer's own assumption; the guess is what the pictures say.
            carrier = self._container.format
            untimed = bool(carrier.flags & _NO_TIMES) or carrier.name.endswith(PICTURE)
            rates = (self._stream.average_rate, self._stream.guessed_rate)
            rate = (rates[1] or rates[0]) if untimed else (rates[0] or rates[1])
            self.report.even_rate = float(rate or _ASSUMED_RATE) if untimed else 0.0
            self._framer = Framer(self.path, self._stream)
            self.info = VideoInfo(
                **self._framer.facts,
                fps=float(rate) if rate else 0.0,
                codec=context.name,
                pixel_format=context.pix_fmt or "",
                stream=chosen.index,
            )
            index = self._stream.index_entries
            self.report.missing_bytes = missing_bytes(
                self.path, max((entry.pos + entry.size for entry in index), default=0)
            )
        except (DecodeError, MemoryError):
            self._container.close()
            raise
        except Exception as error:
            # Whatever a demuxer makes of a file that is not what it seems.
            self._container.close()
            raise DecodeError(Status.DECODE_ERROR, not_opened(error, self.path)) from None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        report = self.report
        first = last = 0.0
        for time, _, (picture, sound) in repair_times(
            self._judged(), 1.0 / (self.info.fps or _ASSUMED_RATE), report.times
        ):
            index = report.n_frames
            report.n_frames += 1
            report.n_interlaced += bool(picture.interlaced_frame)
            first, last = (time if index == 0 else first), time
            frame = self._frame(picture, index, time) if sound else None
            if frame is None:
                report.n_damaged += 1
                continue
            yield frame
        if not report.n_frames:
            check_picture(self.info.stored_width, self.info.stored_height)
        if self._all_came():
            report.missing_bytes = 0
        report.picture_notes = self._framer.notes
        if report.n_frames > 1 and not (report.n_errors and self.info.fps):
            self.info = dataclasses.replace(
                self.info, fps=_rate(self.info.fps, (report.n_frames - 1) / (last - first))
            )

    def sample(self, n: int) -> Iterator[Frame]:
        """At most `n` sound frames spread over the video, for a look at it instead of iterating.

        Key frames where they lie far enough apart; one frame after the other where the length is unknown.
        """
        stream, duration = self._stream, self._container.duration
        base = float(stream.time_base or 0)
        if stream.duration and base:
            start, length = (stream.start_time or 0) * base, stream.duration * base
        else:
            start, length = 0.0, (duration or 0) / av.time_base
        last = -math.inf
        for k in range(n):
            target = start + length * (k + 0.5) / n
            try:
                if length and base:
                    self._container.seek(int(target / base), stream=stream)
                for time, (picture, sound) in self._judged():
                    if sound and not time <= last + length / (2 * n):
                        last = time
                        frame = self._frame(picture, k, time)
                        if frame is not None:
                            yield frame
                        break
            except (av.error.FFmpegError, OverflowError):  # a time that is not a position in the file
                continue

    def _all_came(self) -> bool:
        """Whether as many whole packets were read as the header counts, so that none of them is missing."""
        stated = self._stream.frames
        return 0 < stated <= self._n_packets and not self.report.n_errors

    def _frame(self, picture: Any, index: int, time: float) -> Frame | None:
        """The frame of a picture; None where the picture cannot be read."""
        try:
            frame = self._framer.frame(picture, index, time)
        except MemoryError:
            raise
        except (av.error.FFmpegError, ValueError, OverflowError):
            return None
        if self.report.n_frames - self.report.n_damaged == 1:
            self.info = dataclasses.replace(self.info, **self._framer.facts)
        return frame

    def _judged(self) -> Iterator[tuple[float, tuple[Any, bool]]]:
        """Decoded pictures: seconds (NaN where unknown), the picture, and whether it is sound.

        From the first damaged picture (or the place of a lost one) to the next intra-coded one, every
        picture may lean on damage. One of type B leans on the picture after it too, so it waits for that.
        """
        base = self._stream.time_base or math.nan
        broken = False
        held: list[tuple[float, Any]] = []
        for picture, stamp, lost in self._pictures():
            intra = picture.key_frame or int(picture.pict_type) == _INTRA
            broken = picture.is_corrupt or ((broken or lost) and not intra)
            time = math.nan if stamp is None else float(stamp * base)
            held.append((time, picture))
            if int(picture.pict_type) == _BIDIRECTIONAL and not broken and len(held) <= _MOST_HELD:
                continue
            for time, picture in held:
                yield time, (picture, not broken)
            held = []
        for time, picture in held:
            yield time, (picture, True)

    def _pictures(self) -> Iterator[tuple[Any, int | None, bool]]:
        """Decoded pictures: with each its time stamp, and whether a packet was lost before it."""
        context = self._stream.codec_context
        # AVI has no presentation times, only those of the packets: the pictures get them in order.
        own_times = self._container.format.name != "avi"
        marking = self._container.format.name in _MARKING
        stamps: collections.deque[int | None] = collections.deque(maxlen=_MOST_HELD + 1)
        lost: list[int] = []  # numbers of packets: what comes after one of them may lean on it
        for number, packet in enumerate(self._packets()):
            try:
                whole = packet is None or not packet.is_corrupt
                if not whole and not marking:
                    raise av.error.InvalidDataError(0, "damaged packet")
                if packet is not None:
                    # In an object of its own, since PyAV finds it by its address.
                    packet.opaque = [number]
                pictures = context.decode(packet)
            except av.error.EOFError:
                return
            except MemoryError:
                raise
            except (av.error.FFmpegError, ValueError):
                # The decoder continues with the next packet.
                if packet is not None:
                    self.report.n_errors += 1
                    lost.append(number)
                continue
            if packet is not None:
                stamps.append(packet.dts)
                if not pictures and len(stamps) > self._most_held():
                    # A packet that says "as before" instead of holding a picture. One of type B would have been shown
                    # now, before the picture that is held back; any other after that.
                    stamps.rotate(-1 if _holds_type_b(packet) else 0)
                    stamps.pop()
            if not whole:  # the parser puts the mark on the packet before the one that misses a piece
                lost.append(number + (context.name in _NOTICING))
            for picture in pictures:
                stamp = picture.pts
                if not own_times:
                    stamp = stamps.popleft() if stamps else None
                at = picture.opaque[0] if picture.opaque else math.inf
                before = [one for one in lost if one < at]
                lost = [one for one in lost if one >= at]
                self._framer.look(picture)
                yield picture, stamp, bool(before)

    def _most_held(self) -> int:
        """Pictures that the decoder may hold back after it was given a packet."""
        if not self._stream.codec_context.has_b_frames:
            return 0
        return 1 if self._stream.codec_context.name == "mpeg4" else _MOST_HELD

    def _packets(self) -> Iterator[Any]:
        """Packets of the stream, then None, which makes the decoder give out what it still holds."""
        packets = read_packets(self._container, self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except MemoryError:
                raise
            except (av.error.FFmpegError, OSError, ValueError):
                self.report.ended_early = True
                break
            # Empty packets stand for repeated pictures; the last one, without a time, only ends the stream.
            self._n_packets += bool(packet.size) or packet.dts is not None
            if packet.size:
                yield packet
        yield None


def _holds_type_b(packet: Any) -> bool:
    """Whether an MPEG-4 packet's picture (VOP) is of type B."""
    _, start, picture = bytes(packet).partition(b"\x00\x00\x01\xb6")
    return bool(start) and picture[:1] >= b"\x80"


def _rate(stated: float, measured: float) -> float:
    """Frames per second: as stated, unless the frames' own times say otherwise by more than 5 %."""
    return stated if abs(stated - measured) <= 0.05 * measured else measured
