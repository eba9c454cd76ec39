"""Decode: a file to its frames, upright, with the file's own times. The only importer of PyAV.

Only decoded frames count: headers claim frames that are not there, and a cut file can end without an error.
Pictures that a decoder had to guess, and those that lean on them, are counted but never given out.
Interlaced pictures are given as stored (two fields woven) and counted, not deinterlaced.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av

from nemo_pipeline.datatypes import VideoInfo
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.planes import degrees, display_turn, frame_of, tag_turn
from nemo_pipeline.stages.times import repair_times
from nemo_pipeline.stages.wholeness import missing_bytes

av.logging.set_level(av.logging.PANIC)

#: Text formats that only name other files: their pictures are not this file's.
_PLAYLISTS = {"concat", "hls", "dash", "imf"}
#: Demuxers of single pictures: png_pipe, jpeg_pipe and their like. (An animated GIF is a video.)
_PICTURE = "_pipe"
_INTRA, _BIDIRECTIONAL = 1, 3  # AV_PICTURE_TYPE_I, AV_PICTURE_TYPE_B
#: Pictures of type B that wait for the next of another type; no codec allows more.
_MOST_HELD = 16
_AGAIN = "copy it again from its source"
# What makes these decoders say so when a picture is damaged; most do by themselves, HEVC, VP9 and AV1 never can.
_STRICT = {"mjpeg": "explode"} | dict.fromkeys(("msmpeg4v2", "msmpeg4", "wmv1", "wmv2"), "bitstream+buffer")


class DecodeError(Exception):
    """A file that gives no frame at all. `status` is the video's status, str() the sentence for it."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclasses.dataclass
class DecodeReport:
    """What went wrong on the way, filled while the frames are read.

    Attributes:
        n_frames: frames decoded, the damaged ones too.
        n_damaged: frames that the decoder had to guess, or that lean on such; they are not given out.
        n_errors: packets that could not be decoded.
        n_repaired_times: presentation times that were missing, repeated, negative or ran backwards, and
            were replaced.
        n_interlaced: frames stored as two fields.
        missing_bytes: bytes that the file itself places beyond its end (a cut file).
        ended_early: the stream broke off with an error.
    """

    n_frames: int = 0
    n_damaged: int = 0
    n_errors: int = 0
    n_repaired_times: int = 0
    n_interlaced: int = 0
    missing_bytes: int = 0
    ended_early: bool = False

    @property
    def damage(self) -> str:
        """A clause that says what is damaged, or "" for a sound stream."""
        found = []
        if self.missing_bytes:
            found.append(f"the file is cut off ({_count(self.missing_bytes, 'byte')} missing)")
        elif self.ended_early:
            found.append("the stream breaks off with an error")
        if self.n_errors:
            found.append(f"{_count(self.n_errors, 'packet')} could not be decoded")
        if self.n_damaged:
            found.append(f"{_count(self.n_damaged, 'frame')} decoded to a damaged picture")
        return " and ".join(found)


class VideoReader:
    """Iterates over the sound `Frame`s of one video in presentation order; `info` and `report` beside them.

    Use as a context manager, and iterate once. `Frame.index` counts all decoded frames, so it jumps where
    damaged ones were left out. One decoding thread: videos run side by side instead.

    Raises:
        DecodeError: the file cannot be read, is no video, or holds no video stream.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.report = DecodeReport()
        self._container = _open(self.path)
        try:
            self._stream = _video_stream(self._container)
            context = self._stream.codec_context
            if context is None:
                raise DecodeError(
                    "decode_error", "No decoder for this video format is at hand; convert it to H.264 in mp4."
                )
            context.thread_count = 1
            if context.name in _STRICT:
                context.options = {"err_detect": _STRICT[context.name]}
            rate = self._stream.average_rate or self._stream.guessed_rate
            self._tag_turn = tag_turn(self._stream.metadata)
            self.info = VideoInfo(
                width=context.width,
                height=context.height,
                fps=float(rate) if rate else 0.0,
                codec=context.name,
                pixel_format=context.pix_fmt or "",
            )
            index = self._stream.index_entries
            self.report.missing_bytes = missing_bytes(
                self.path, max((entry.pos + entry.size for entry in index), default=0)
            )
        except DecodeError:
            self._container.close()
            raise
        except Exception as error:
            # Whatever a demuxer makes of a file that is not what it seems.
            self._container.close()
            raise DecodeError("decode_error", _not_opened(error, self.path)) from None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        report = self.report
        first = last = 0.0
        for time, repaired, (picture, sound) in repair_times(self._judged(), 1.0 / (self.info.fps or 25.0)):
            index = report.n_frames
            report.n_frames += 1
            report.n_repaired_times += repaired
            report.n_interlaced += bool(picture.interlaced_frame)
            first, last = (time if index == 0 else first), time
            frame = self._frame(picture, index, time) if sound else None
            if frame is None:
                report.n_damaged += 1
                continue
            yield frame
        if report.n_frames > 1 and not (report.n_errors and self.info.fps):
            self.info = dataclasses.replace(
                self.info, fps=_rate(self.info.fps, (report.n_frames - 1) / (last - first))
            )

    def _frame(self, picture: Any, index: int, time: float) -> Frame | None:
        """The frame of a picture; None where the picture cannot be read."""
        try:
            turn = display_turn(picture, self._tag_turn)
            frame = frame_of(picture, index, time, turn)
        except (av.error.FFmpegError, ValueError, OverflowError):
            return None
        if self.report.n_frames - self.report.n_damaged == 1:
            self.info = dataclasses.replace(
                self.info, width=frame.width, height=frame.height, rotation=degrees(turn)
            )
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
        # AVI has no presentation times, only those of the packets: the pictures get them in order.
        own_times = self._container.format.name != "avi"
        stamps: collections.deque[int | None] = collections.deque(maxlen=_MOST_HELD + 1)
        lost_at: float | None = None
        for packet in self._packets():
            try:
                if packet is not None and packet.is_corrupt:  # cut short, or so marked by its carrier
                    raise av.error.InvalidDataError(0, "damaged packet")
                pictures = self._stream.codec_context.decode(packet)
            except av.error.EOFError:
                return
            except (av.error.FFmpegError, ValueError):
                # The decoder goes on with the next packet.
                if packet is not None:
                    self.report.n_errors += 1
                    at = packet.pts if own_times else packet.dts
                    lost_at = min(-math.inf if at is None else at, math.inf if lost_at is None else lost_at)
                continue
            if packet is not None:
                stamps.append(packet.dts)
            for picture in pictures:
                stamp = picture.pts
                if not own_times:
                    stamp = stamps.popleft() if stamps else None
                lost = lost_at is not None and (stamp is None or stamp >= lost_at)
                if lost:
                    lost_at = None
                yield picture, stamp, lost

    def _packets(self) -> Iterator[Any]:
        """Packets of the stream, then None, which makes the decoder give out what it still holds."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.error.FFmpegError, OSError, ValueError):
                self.report.ended_early = True
                break
            if packet.size:
                yield packet
        yield None


def _rate(stated: float, measured: float) -> float:
    """Frames per second: as stated, unless the frames' own times say otherwise by more than 5 %."""
    return stated if abs(stated - measured) <= 0.05 * measured else measured


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _open(path: Path) -> Any:
    try:
        if path.is_dir():
            raise DecodeError("unreadable", "This is a folder, not a video file.")
        if path.exists() and not path.is_file():
            raise DecodeError("unreadable", "This is a device or a pipe, not a video file.")
        with path.open("rb") as file:
            if not file.read(1):
                raise DecodeError("unreadable", f"The file is empty (0 bytes); {_AGAIN}.")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DecodeError(
            "unreadable", f"The file cannot be read ({reason}); check that it exists and its permissions."
        ) from None
    try:
        # A name may hold a colon, which would make it a protocol; and nothing but this file is opened.
        container = av.open(f"file:{path}", metadata_errors="replace", options={"protocol_whitelist": "file"})
    except Exception as error:
        raise DecodeError("decode_error", _not_opened(error, path)) from None
    if container.format.name in _PLAYLISTS:
        container.close()
        raise DecodeError(
            "no_video", "The file only names other files (a playlist); give the videos themselves."
        )
    if container.format.name.endswith(_PICTURE) or container.format.name == "image2":
        container.close()
        raise DecodeError("no_video", "The file is a single picture; give the video itself.")
    return container


def _not_opened(error: Exception, path: Path) -> str:
    missing = 0
    try:
        missing = missing_bytes(path)
    except OSError:
        pass
    if missing:
        return f"The file is cut off ({_count(missing, 'byte')} missing) and cannot be opened; {_AGAIN}."
    with contextlib.suppress(OSError), path.open("rb") as file:
        if file.read(8) == b"\x89HDF\r\n\x1a\n":
            return "The file is HDF5, as `nemo prep` writes it, and no video; give the recordings themselves."
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return (
        f"The file cannot be opened as a video ({reason}); it may be cut off, damaged or no video at all: "
        f"play it, or {_AGAIN}."
    )


def _video_stream(container: Any) -> Any:
    """The default video stream that is not cover art."""
    streams = [s for s in container.streams.video if "attached_pic" not in _disposition(s)]
    if not streams:
        what = "only cover art" if container.streams.video else "no picture, only sound or data"
        raise DecodeError("no_video", f"The file holds {what}; give the video file itself.")
    default = [s for s in streams if "default" in _disposition(s)]
    return (default or streams)[0]


def _disposition(stream: Any) -> str:
    return str(getattr(stream.disposition, "name", None) or stream.disposition).lower()
