"""Decode: a file to its frames, upright, with the file's own times. The only importer of PyAV.

Only decoded frames count: headers claim frames that are not there, and a cut file can end without an error.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from nemo_pipeline.datatypes import VideoInfo
from nemo_pipeline.stages.frame import Frame, Plane

av.logging.set_level(av.logging.PANIC)

# Formats whose planes are used as they are: (bits, planes).
_PLANAR = (
    "yuv420p",
    "yuv422p",
    "yuv444p",
    "yuv411p",
    "yuv440p",
    "yuvj420p",
    "yuvj422p",
    "yuvj444p",
    "yuvj440p",
)
_GRAY = ("gray", "gray8")
_HIGH_BITS = {f"{name}{bits}le": bits for name in _PLANAR[:5] for bits in (9, 10, 12, 14, 16)}
_HIGH_BITS |= {f"gray{bits}le": bits for bits in (9, 10, 12, 14, 16)}
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_BT709 = 1  # AVCOL_SPC_BT709


class DecodeError(Exception):
    """A file that gives no frame at all. `status` is the video's status, str() the sentence for it."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclasses.dataclass
class DecodeReport:
    """What went wrong on the way, filled while the frames are read.

    Attributes:
        n_frames: frames decoded.
        n_errors: packets that could not be decoded.
        n_corrupt: frames that the decoder itself marked as damaged.
        n_repaired_times: presentation times that were missing, repeated or ran backwards, and were replaced.
        n_interlaced: frames stored as two fields.
        missing_bytes: bytes that the file's own index places beyond its end (a cut file).
        ended_early: the stream broke off with an error.
    """

    n_frames: int = 0
    n_errors: int = 0
    n_corrupt: int = 0
    n_repaired_times: int = 0
    n_interlaced: int = 0
    missing_bytes: int = 0
    ended_early: bool = False

    @property
    def damage(self) -> str:
        """A clause that says what is damaged, or "" for a sound stream."""
        if self.missing_bytes:
            return f"the file is cut off ({self.missing_bytes} bytes of its index lie beyond its end)"
        if self.ended_early or self.n_errors:
            return f"the stream is damaged ({self.n_errors or 1} undecodable packets)"
        if self.n_corrupt:
            return f"the stream is damaged ({self.n_corrupt} frames that the decoder marked as corrupt)"
        return ""


class VideoReader:
    """Iterates over the `Frame`s of one video in presentation order; `info` and `report` beside them.

    Use as a context manager. One decoding thread: videos run side by side instead.

    Raises:
        DecodeError: the file cannot be read, is no video, or holds no video stream.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.report = DecodeReport()
        self._container = _open(self.path)
        try:
            self._stream = _video_stream(self._container, self.path)
            context = self._stream.codec_context
            context.thread_count = 1
            rate = self._stream.average_rate or self._stream.guessed_rate
            self._tag_rotation = _tag_rotation(self._stream.metadata)
            self.info = VideoInfo(
                width=context.width,
                height=context.height,
                fps=float(rate) if rate else 0.0,
                codec=context.name,
                pixel_format=context.pix_fmt or "",
            )
            self.report.missing_bytes = _missing_bytes(self._stream, self.path)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        clock = _Clock(self._stream.time_base, self.info.fps, self.report)
        for picture in self._pictures():
            report = self.report
            report.n_corrupt += bool(picture.is_corrupt)
            report.n_interlaced += bool(picture.interlaced_frame)
            planes, full_range = _planes(picture)
            transform = _display_transform(picture, self._tag_rotation)
            planes = tuple(_upright(p, *transform) for p in planes)
            frame = Frame(
                index=report.n_frames,
                time=clock.time(picture),
                planes=planes,
                full_range=full_range,
                matrix="709" if picture.colorspace == _BT709 else "601",
            )
            if report.n_frames == 0:
                self.info = dataclasses.replace(
                    self.info, width=frame.width, height=frame.height, rotation=_degrees(*transform)
                )
            report.n_frames += 1
            yield frame

    def _pictures(self) -> Iterator[Any]:
        """Decoded pictures; a packet that cannot be decoded is counted and passed over."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError):
                self.report.ended_early = True
                return
            try:
                pictures = packet.decode()
            except av.error.EOFError:
                return
            except (av.error.FFmpegError, ValueError):
                # A damaged packet: the decoder goes on at the next key frame.
                if packet.size:
                    self.report.n_errors += 1
                continue
            yield from pictures


class _Clock:
    """Presentation times in seconds; missing, repeated and backward ones are replaced by the last plus one interval."""

    def __init__(self, time_base: Any, fps: float, report: DecodeReport) -> None:
        self._base = float(time_base) if time_base else 0.0
        self._interval = 1.0 / fps if fps > 0 else 0.04
        self._last: float | None = None
        self._report = report

    def time(self, picture: Any) -> float:
        """Seconds."""
        time = math.nan if picture.pts is None else float(picture.pts * (picture.time_base or self._base))
        if self._last is None:
            if not math.isfinite(time):
                self._report.n_repaired_times += 1
                time = 0.0
        elif not time > self._last:
            self._report.n_repaired_times += 1
            time = self._last + self._interval
        self._last = time
        return time


def _open(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise DecodeError("unreadable", "The file is empty (0 bytes); copy it again from its source.")
    except IsADirectoryError:
        raise DecodeError("unreadable", "This is a folder, not a video file.") from None
    except OSError as error:
        raise DecodeError(
            "unreadable",
            f"The file cannot be read ({error.strerror}); check that it exists and its permissions.",
        ) from None
    try:
        return av.open(str(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DecodeError(
            "decode_error",
            f"The file cannot be opened as a video ({reason}); it may be cut off, damaged or no video at all: "
            "play it, or copy it again from its source.",
        ) from None


def _video_stream(container: Any, path: Path) -> Any:
    """The default video stream that is not cover art."""
    streams = [s for s in container.streams.video if "attached_pic" not in _disposition(s)]
    if not streams:
        what = "only cover art" if container.streams.video else "no picture, only sound or data"
        raise DecodeError("no_video", f"The file holds {what}; give the video file itself.")
    default = [s for s in streams if "default" in _disposition(s)]
    return (default or streams)[0]


def _disposition(stream: Any) -> str:
    return str(getattr(stream.disposition, "name", None) or stream.disposition).lower()


def _missing_bytes(stream: Any, path: Path) -> int:
    """How far beyond the end of the file its own index reaches (mp4, mov)."""
    size = path.stat().st_size
    end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    return max(0, end - size)


def _tag_rotation(metadata: dict[str, str]) -> int:
    """Degrees clockwise from the old `rotate` tag; 0 without one."""
    for key, value in metadata.items():
        if key.lower() == "rotate":
            try:
                return round(float(value) / 90) * 90 % 360
            except ValueError:
                return 0
    return 0


def _display_transform(picture: Any, tag_rotation: int) -> tuple[bool, bool, bool]:
    """How stored pixels become upright: (transpose, then flip left-right, then flip up-down).

    A display matrix (a b u; c d v; x y w) sends a stored pixel (p, q) to (a p + c q, b p + d q).
    """
    for data in picture.side_data:
        if getattr(data.type, "name", "") == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data), dtype="<i4")[:5]
            if abs(int(b)) > abs(int(a)):
                return True, bool(c < 0), bool(b < 0)
            return False, bool(a < 0), bool(d < 0)
    return {
        0: (False, False, False),
        90: (True, True, False),
        180: (False, True, True),
        270: (True, False, True),
    }[tag_rotation]


def _degrees(transpose: bool, flip_x: bool, flip_y: bool) -> int:
    """Clockwise degrees of a display transform (a mirror image counts as its rotation part)."""
    return (90 if flip_x else 270) if transpose else (180 if flip_y else 0)


def _upright(plane: Plane, transpose: bool, flip_x: bool, flip_y: bool) -> Plane:
    if transpose:
        plane = cv2.transpose(plane)
    if flip_x or flip_y:
        plane = cv2.flip(plane, -1 if flip_x and flip_y else (1 if flip_x else 0))
    return plane


def _planes(picture: Any) -> tuple[tuple[Plane, ...], bool]:
    """8-bit planes of a picture, and whether its luma is full-range."""
    name = picture.format.name
    full = picture.color_range == _FULL_RANGE or name.startswith("yuvj")
    if name in _GRAY:
        # Gray without a stated range is full-range; with one, as stated.
        return (_plane(picture.planes[0], 1),), full or picture.color_range != 1
    if name in _PLANAR:
        return tuple(_plane(p, 1) for p in picture.planes), full
    if name in _HIGH_BITS:
        bits = _HIGH_BITS[name]
        scale = 255.0 / (2**bits - 1) if full else 0.5 ** (bits - 8)
        planes = tuple(cv2.convertScaleAbs(_plane(p, 2), alpha=scale) for p in picture.planes)
        return planes, full or (name.startswith("gray") and picture.color_range != 1)
    if picture.format.is_rgb or name.startswith(("pal", "mono", "ya")):
        rgb = picture.reformat(format="rgb24").to_ndarray()
        return Frame.from_rgb(rgb).planes, True
    converted = picture.reformat(format="yuv444p", dst_color_range=picture.color_range or None)
    return tuple(_plane(p, 1) for p in converted.planes), full


def _plane(plane: Any, bytes_per_sample: int) -> Any:
    """A plane as (h, w), without a copy. uint8, or uint16 for 2 bytes per sample."""
    dtype = np.uint8 if bytes_per_sample == 1 else np.dtype("<u2")
    rows = np.frombuffer(plane, dtype=dtype).reshape(plane.height, plane.line_size // bytes_per_sample)
    return rows[:, : plane.width]
