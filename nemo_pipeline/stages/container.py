"""Container: a file opened for decoding, or the sentence that says why it is not a video; and its video streams."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av

from nemo_pipeline.stages.truncation import missing_bytes
from nemo_pipeline.status import Status
from nemo_pipeline.store.text import pluralize

av.logging.set_level(av.logging.PANIC)

#: Text formats that only name other files: their pictures are not this file's.
_PLAYLISTS = {"concat", "hls", "dash", "imf"}
#: Demuxers of pictures: png_pipe, jpeg_pipe and their like. A few pictures end to end (a photo with its thumbnail)
#: are not a video yet; more are, as raw Motion JPEG. (An animated GIF has a demuxer of its own.)
PICTURE = "_pipe"
_PICTURES, _FEW_PICTURES = {"image2", "mjpeg"}, 2
#: Larger pictures are not decoded, pixels: 8K and its squares. A file of kilobytes may hold pictures of gigabytes.
LARGEST_PICTURE = 8192 * 8192
#: So many packets of the other streams are read before a stream that gave one packet is a single picture.
_PATIENCE = 300
#: So many of the streams that were not used are named.
_MOST_NAMED = 5
_AGAIN = "copy it again from its source"


class DecodeError(Exception):
    """A file that gives no frame at all. `status` is the video's status, str() the sentence for it."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(frozen=True, slots=True)
class VideoStream:
    """A video stream of a file, cover art left out.

    Attributes:
        index: number among all streams of the file, as ffprobe shows it.
        default: the file says that this is the one to play.
        still: it holds a single picture (a thumbnail).
        decodable: there is a decoder for it.
    """

    index: int
    width: int
    height: int
    codec: str
    default: bool
    still: bool
    decodable: bool

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {self.codec}" if self.decodable else "no decoder for it"


def open_container(path: Path) -> Any:
    """The opened file (av.container.InputContainer). Raises DecodeError."""
    try:
        if path.is_dir():
            raise DecodeError(Status.UNREADABLE, "This is a folder, not a video file.")
        if path.exists() and not path.is_file():
            raise DecodeError(Status.UNREADABLE, "This is a device or a pipe, not a video file.")
        with path.open("rb") as file:
            if not file.read(1):
                raise DecodeError(Status.UNREADABLE, f"The file is empty (0 bytes); {_AGAIN}.")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DecodeError(
            Status.UNREADABLE,
            f"The file cannot be read ({reason}); check that it exists and its permissions.",
        ) from None
    try:
        container = opened(path)
    except MemoryError:  # FFmpeg's word for a file with more streams than it takes, too
        raise DecodeError(
            Status.DECODE_ERROR,
            f"The file claims more streams, or larger ones, than a video has: it is damaged; {_AGAIN}.",
        ) from None
    except Exception as error:
        raise DecodeError(Status.DECODE_ERROR, not_opened(error, path)) from None
    if container.format.name in _PLAYLISTS:
        container.close()
        raise DecodeError(
            Status.NOT_A_VIDEO, "The file only names other files (a playlist); give the videos themselves."
        )
    if container.format.name.endswith(PICTURE) or container.format.name in _PICTURES:
        with contextlib.suppress(av.error.FFmpegError):
            packets = (packet for packet in read_packets(container, video=0) if packet.size)
            if sum(1 for _ in itertools.islice(packets, _FEW_PICTURES + 1)) > _FEW_PICTURES:
                container.seek(0)
                return container
        container.close()
        raise DecodeError(*_still(path))
    return container


def opened(path: Path) -> Any:
    """The opened file (av.container.InputContainer). Raises what FFmpeg does."""
    # A name may hold a colon, which would make it a protocol; and nothing but this file is opened.
    return av.open(f"file:{path}", metadata_errors="replace", options={"protocol_whitelist": "file"})


def read_packets(container: Any, *streams: Any, **kinds: int) -> Iterator[Any]:
    """The packets of some streams of an opened file, to its end, as PyAV's `demux` is told. Raises what FFmpeg does.

    Where a stream appears midway (sound that begins late in FLV or a transport stream), PyAV looks past the end of its
    list when all packets are read; they have been given out by then.
    """
    with contextlib.suppress(IndexError):
        yield from container.demux(*streams, **kinds)


def check_picture(width: int, height: int) -> None:
    """Raises DecodeError where pictures are larger than what is decoded."""
    if width * height > LARGEST_PICTURE:
        raise DecodeError(
            Status.DECODE_ERROR,
            f"The pictures are {width}x{height}, and more than {LARGEST_PICTURE / 1e6:.0f} million pixels are not "
            "decoded: make a smaller copy (ffmpeg -i FILE -vf scale=-2:2160 NEW.mp4).",
        )


def _still(path: Path) -> tuple[Status, str]:
    """Status and sentence of a file of pictures that is not a video."""
    with path.open("rb") as file:
        head = file.read(32)
    if head[12:16] == b"VP8X" and head[20] & 2:
        return (
            Status.DECODE_ERROR,
            "The file is an animated WebP, which FFmpeg does not decode; convert it, for instance to GIF or mp4.",
        )
    return Status.NOT_A_VIDEO, "The file is a single picture; give the video itself."


def not_opened(error: Exception, path: Path) -> str:
    """The sentence for a file that cannot be opened."""
    missing = 0
    with contextlib.suppress(OSError):
        missing = missing_bytes(path)
    if missing:
        return f"The file is cut off ({pluralize(missing, 'byte')} missing) and cannot be opened; {_AGAIN}."
    with contextlib.suppress(OSError), path.open("rb") as file:
        if file.read(8) == b"\x89HDF\r\n\x1a\n":
            return "The file is HDF5, as `nemo prep` writes it, and no video; give the recordings themselves."
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return (
        f"The file cannot be opened as a video ({reason}); it may be cut off, damaged or no video at all: "
        f"play it, or {_AGAIN}."
    )


def video_streams(container: Any, path: Path) -> tuple[VideoStream, ...]:
    """The video streams of an opened file, without cover art. Raises DecodeError if it has none."""
    streams = [s for s in container.streams.video if "attached_pic" not in _disposition(s)]
    if not streams:
        what = "only cover art" if container.streams.video else "no picture, only sound or data"
        raise DecodeError(Status.NOT_A_VIDEO, f"The file holds {what}; give the video file itself.")
    stills = _stills(streams, path) if len(streams) > 1 else set()
    if len(stills) == len(streams):
        raise DecodeError(Status.NOT_A_VIDEO, "The file holds single pictures; give the video itself.")
    found = []
    for stream in streams:
        context = stream.codec_context
        found.append(
            VideoStream(
                index=stream.index,
                width=context.width if context else 0,
                height=context.height if context else 0,
                codec=context.name if context else "",
                default="default" in _disposition(stream),
                still=stream.index in stills,
                decodable=context is not None,
            )
        )
    return tuple(found)


def _stills(streams: Sequence[Any], path: Path) -> set[int]:
    """Indices of the streams that hold a single picture: by the file's own count, or by reading on."""
    counts = {stream.index: stream.frames for stream in streams}
    unknown = {index for index, count in counts.items() if not count}
    if unknown:
        with contextlib.suppress(av.error.FFmpegError, OSError, ValueError), opened(path) as again:
            here = [again.streams[index] for index in counts]
            for n, packet in enumerate(read_packets(again, here)):
                if packet.size and packet.stream_index in unknown:
                    counts[packet.stream_index] += 1
                if n > _PATIENCE * len(here) or all(counts[index] > 1 for index in unknown):
                    break
    return {index for index, count in counts.items() if count == 1}


def default_stream(streams: Sequence[VideoStream]) -> VideoStream:
    """The one that the file says is to be played, else the first; single pictures only where nothing moves."""
    moving = [s for s in streams if not s.still and s.decodable] or list(streams)
    return next((s for s in moving if s.default), moving[0])


def numbered_stream(streams: Sequence[VideoStream], index: int) -> VideoStream:
    """The stream with this index. Raises DecodeError if there is no such video stream."""
    for stream in streams:
        if stream.index == index:
            return stream
    there = ", ".join(f"{s.index} ({s})" for s in streams)
    raise DecodeError(
        Status.NOT_A_VIDEO,
        f"The file has no video stream of number {index}; it has {there}: name one with `stream`.",
    )


def streams_note(streams: Sequence[VideoStream], used: int, seen: dict[int, str] | None = None) -> str:
    """A clause that says which of several streams was used and which were not; "" where there is one alone.

    Args:
        used: index of the stream that was used.
        seen: index -> what was seen in it.
    """
    if len(streams) < 2:
        return ""

    def described(stream: VideoStream) -> str:
        what = "a single picture" if stream.still else (seen or {}).get(stream.index, "")
        return ", ".join(filter(None, (str(stream), what)))

    (chosen,) = (stream for stream in streams if stream.index == used)
    others = [f"{s.index} ({described(s)})" for s in streams if s.index != used]
    if len(others) > _MOST_NAMED:
        others[_MOST_NAMED:] = [f"{len(others) - _MOST_NAMED} more"]
    return f"video stream {used} was used ({described(chosen)}), not {' or '.join(others)}"


def _disposition(stream: Any) -> str:
    return str(getattr(stream.disposition, "name", None) or stream.disposition).lower()
