"""Videos for `benchmarks/fuzz.py`: tiny clips of a face in the containers and codecs that people have."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from skimage import data

from nemo_pipeline.batch.child import probe
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import NemoError
from nemo_pipeline.platform import is_out_of_memory
from nemo_pipeline.stages.decode import DecodeError, VideoReader
from nemo_pipeline.status import Status
from nemo_pipeline.store.text import escape_controls
from nemo_pipeline.video import process_video

os.environ.setdefault("SVT_LOG", "0")  # the AV1 encoder talks

SIDE, FRAMES = 96, 8
#: name -> codec, pixel format, options of the codec, options of the container.
_CLIPS: dict[str, tuple[str, str, dict[str, str], dict[str, str]]] = {
    "h264.mp4": ("libx264", "yuv420p", {"g": "4"}, {}),
    "first.mp4": ("libx264", "yuv420p", {"g": "4"}, {"movflags": "faststart"}),
    "fragments.mp4": ("libx264", "yuv420p", {"g": "4"}, {"movflags": "frag_keyframe+empty_moov"}),
    "hevc.mp4": ("libx265", "yuv420p", {"x265-params": "log-level=none"}, {"movflags": "faststart"}),
    "av1.mp4": ("libsvtav1", "yuv420p", {"preset": "12"}, {"movflags": "faststart"}),
    "mjpeg.mov": ("mjpeg", "yuvj420p", {}, {"movflags": "faststart"}),
    "png.mov": ("png", "rgb24", {}, {"movflags": "faststart"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"g": "4"}, {}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}, {}),
    "h264.mkv": ("libx264", "yuv420p", {"g": "4"}, {}),
    "ffv1.mkv": ("ffv1", "yuv420p", {}, {}),
    "vp8.webm": ("libvpx", "yuv420p", {"g": "4"}, {}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"g": "4"}, {}),
    "h264.ts": ("libx264", "yuv420p", {"g": "4"}, {}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {"g": "4"}, {}),
    "wmv2.wmv": ("wmv2", "yuv420p", {"g": "4"}, {}),
    "flv1.flv": ("flv1", "yuv420p", {"g": "4"}, {}),
    "vp8.ogv": ("libvpx", "yuv420p", {"g": "4"}, {}),
    "moving.gif": ("gif", "rgb8", {}, {}),
    "raw.mjpeg": ("mjpeg", "yuvj420p", {}, {}),
    "two.mp4": ("mpeg4", "yuv420p", {"g": "4"}, {"movflags": "faststart"}),
    "two.mkv": ("libvpx", "yuv420p", {"g": "4"}, {}),
    "sound.mov": ("libx264", "yuv420p", {"g": "4"}, {"movflags": "faststart"}),
    "turned.mp4": ("libx264", "yuv420p", {"g": "4"}, {"movflags": "faststart"}),
    "wide.mpg": ("mpeg2video", "yuv420p", {"g": "4"}, {}),
    "hdr.mp4": ("libx265", "yuv420p10le", {"x265-params": "log-level=none"}, {"movflags": "faststart"}),
}
TARGETS = tuple(_CLIPS)
#: Carriers that say how much of them there should be: of these, a part is never taken for the whole.
_STATES_LENGTH = (".mov", ".avi", "first.mp4", "hevc.mp4", "av1.mp4", "two.mp4", "turned.mp4", "hdr.mp4")
#: Of so many tries one goes through all stages, the networks too; the others end with the decoded pictures.
_TRACKED = 8
#: Larger pictures are decoded, not searched for a face: that alone takes minutes.
_MOST_PIXELS = 1 << 20
#: So much of the decoded pictures is looked at, pixels: what comes then is as bounded as what came.
_LOOKED_AT = 1 << 28
CONFIG = PrepConfig(size=48, min_frames=4)


def make(folder: Path) -> None:
    """One clip of each kind."""
    picture = data.astronaut()[30:222, 130:322]
    for name, (codec, pixel_format, options, container) in _CLIPS.items():
        with av.open(str(folder / name), "w", options=container) as out:
            streams: list[Any] = [
                out.add_stream(codec, rate=25, options=options) for _ in range(1 + name.startswith("two."))
            ]
            for stream in streams:
                stream.width = stream.height = SIDE
                stream.pix_fmt = pixel_format
                stream.thread_count = 1
            if name == "turned.mp4":
                streams[0].set_display_rotation(90)
            if name == "wide.mpg":
                streams[0].codec_context.sample_aspect_ratio = Fraction(64, 45)
            if name == "hdr.mp4":  # PQ and BT.2020
                streams[0].codec_context.color_trc, streams[0].codec_context.color_primaries = 16, 9
            sound: Any = out.add_stream("aac", rate=8000, layout="mono") if name == "sound.mov" else None
            for i in range(FRAMES):
                moved = np.roll(picture, i, axis=1)[::2, ::2]
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(moved), "rgb24")
                if name == "hdr.mp4":
                    frame = frame.reformat(format=pixel_format)
                    frame.color_trc, frame.color_primaries = 16, 9
                frame.pts = i
                for stream in streams:
                    out.mux(stream.encode(frame))
                if sound is not None:
                    noise = av.AudioFrame.from_ndarray(np.zeros((1, 320), np.float32), "fltp", "mono")
                    noise.sample_rate = 8000
                    out.mux(sound.encode(noise))
            for stream in [*streams, *([sound] if sound is not None else [])]:
                out.mux(stream.encode())


def pictures(path: Path) -> tuple[list[str], list[float], VideoReader]:
    """Hashes and times of all decoded frames, and the reader."""
    hashes, times, looked = [], [], 0
    with VideoReader(path) as reader:
        for frame in reader:
            size = (frame.height, frame.width)
            looked += size[0] * size[1]
            if looked < _LOOKED_AT:
                gray = frame.gray()
                assert gray.shape == size and gray.dtype == np.uint8, "a frame is not what it says"
                if size[0] * size[1] < _MOST_PIXELS:
                    assert frame.rgb().shape == (*size, 3), "a frame is not what it says"
                hashes.append(hashlib.sha256(gray.tobytes()).hexdigest())
            times.append(frame.time)
    return hashes, times, reader


_SOUND: dict[str, list[str]] = {}


def attempt(folder: Path, target: str) -> str:
    """Describe and decode it as the commands do; of one in eight, find the face, too."""
    path, sound = folder / target, folder.with_name("sound") / target
    if target not in _SOUND:
        _SOUND[target] = pictures(sound)[0]
    content = path.read_bytes()
    try:
        probe({"path": str(path)})
    except NemoError as error:
        _sentence(str(error))
    try:
        hashes, times, reader = pictures(path)
    except DecodeError as error:
        _sentence(str(error))
        assert error.status in list(Status), error.status
        outcome = "refused"
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        outcome = "refused"  # as the child answers
    else:
        if not all(np.isfinite(times)) or any(np.diff(times) <= 0):
            return f"SILENT: times {times[:9]}"
        report = reader.report
        said = "; ".join(filter(None, (report.damage, *report.notes)))
        if said:
            _sentence(said)
        if hashes == _SOUND[target]:
            outcome = "same"
        elif not hashes:
            outcome = "refused"
        else:
            outcome = "read"
            part = len(content) < sound.stat().st_size and sound.read_bytes().startswith(content)
            if part and not report.damage and target.endswith(_STATES_LENGTH):
                return f"SILENT: {len(hashes)} of {FRAMES} frames of a part of the file, and no word of it"
        if reader.info.width * reader.info.height > _MOST_PIXELS:
            return outcome
    if zlib.crc32(content) % _TRACKED == 0:
        _through_all_stages(path, folder)
    return outcome


def _through_all_stages(path: Path, folder: Path) -> None:
    """As `nemo prep` does it."""
    try:
        result = process_video(path, CONFIG, folder / "spool")
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return
    assert result.rows, "no row"
    for row in result.rows:
        assert row.status in list(Status), row.status
        assert row.status.usable == bool(row.spool), f"{row.status} with {row.spool!r}"
        assert row.status == "ok" or row.message, f"{row.status} without a word"
        if row.message:
            _sentence(result.message(row))


def _sentence(text: str) -> None:
    """What is said is one line that a terminal and HDF5 can hold."""
    assert text == escape_controls(text), f"not escape_controls: {text!r}"
    assert 10 < len(text) < 1000 and "Error" not in text, f"no sentence: {text[:200]!r}"


# ---- damage that keeps the file what it is

_SIZES = (0, 1, 2, 15, 97, 1000, 8192, 16_384, 40_000, 65_535)


def size(path: Path, rng: np.random.Generator) -> None:
    """The width, the height or both, wherever the file says them, by others."""
    content = bytearray(path.read_bytes())
    new = int(_SIZES[int(rng.integers(len(_SIZES)))])
    for form in (">H", "<H", ">I", "<I"):
        if struct.calcsize(form) == 2 and rng.random() < 0.5:
            continue
        at = -1
        while (at := content.find(struct.pack(form, SIDE), at + 1)) >= 0:
            if rng.random() < 0.5:
                struct.pack_into(form, content, at, new)
    path.write_bytes(content)


def big_endian(path: Path, rng: np.random.Generator) -> None:
    """One to three fields of 2, 4 or 8 bytes near the start or the end, where headers are, by numbers that break."""
    content = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, 4))):
        width = int(rng.choice([2, 4, 8]))
        near = min(len(content) - width, 1200)
        at = int(rng.integers(0, near))
        at = at if rng.random() < 0.6 else len(content) - width - at
        top = 1 << (8 * width)
        value = (0, 1, 2, 0xFF, top // 2 - 1, top // 2, top - 1, int(rng.integers(1 << 16)))[
            int(rng.integers(8))
        ]
        content[at : at + width] = value.to_bytes(width, "big")
    path.write_bytes(content)


def header(path: Path, rng: np.random.Generator) -> None:
    """A few bytes among the first 600."""
    content = bytearray(path.read_bytes())
    for at in rng.integers(0, min(600, len(content)), int(rng.integers(1, 9))):
        content[at] = int(rng.integers(256))
    path.write_bytes(content)


def _boxes(content: bytes, start: int, stop: int, little: bool) -> Iterator[tuple[int, int, int]]:
    """Start, end and depth of all boxes of MP4 and QuickTime, or chunks of AVI."""
    waiting = [(start, stop, 0)]
    while waiting:
        at, end, depth = waiting.pop()
        while at + 8 <= end:
            length = struct.unpack_from("<I" if little else ">I", content, at + 4 if little else at)[0]
            kind = content[at : at + 4] if little else content[at + 4 : at + 8]
            last = at + (8 + length + length % 2 if little else length)
            if last <= at + 7 or last > end:
                break
            yield at, last, depth
            if kind in (b"RIFF", b"LIST"):
                waiting.append((at + 12, last, depth + 1))
            elif kind in (
                b"moov",
                b"trak",
                b"mdia",
                b"minf",
                b"stbl",
                b"moof",
                b"traf",
                b"dinf",
                b"edts",
                b"mvex",
            ):
                waiting.append((at + 8, last, depth + 1))
            at = last


def box(path: Path, rng: np.random.Generator) -> None:
    """A box is gone, there twice, in place of another, empty, or of another length; elsewhere a stretch."""
    content = bytearray(path.read_bytes())
    little = path.suffix == ".avi"
    found = list(_boxes(bytes(content), 0, len(content), little))
    if not found:
        at = sorted(int(i) for i in rng.integers(0, len(content), 4))
        content[at[0] : at[3]] = content[at[2] : at[3]] + content[at[1] : at[2]] + content[at[0] : at[1]]
        path.write_bytes(content)
        return
    (one, end, _), (other, its_end, _) = (found[int(rng.integers(len(found)))] for _ in range(2))
    kind = int(rng.integers(5))
    if kind == 0:
        del content[one:end]
    elif kind == 1:
        content[other:other] = content[one:end]
    elif kind == 2:
        content[other:its_end] = content[one:end]
    elif kind == 3:
        content[one + 8 : end] = bytes(end - one - 8)
    else:
        value = (0, 1, 7, 8, 1 << 31, (1 << 32) - 1, end - one + 1, end - one - 1)[int(rng.integers(8))]
        struct.pack_into("<I" if little else ">I", content, one + 4 if little else one, value)
    path.write_bytes(content)


def joined(path: Path, rng: np.random.Generator) -> None:
    """The start of one file and the end of another, or two whole ones, end to end."""
    others = sorted(path.parent.iterdir())
    other = others[int(rng.integers(len(others)))].read_bytes()
    content = path.read_bytes()
    if rng.random() < 0.5:
        path.write_bytes(content + other)
    else:
        path.write_bytes(content[: int(rng.integers(len(content)))] + other[int(rng.integers(len(other))) :])


REWRITES = {change.__name__: change for change in (size, big_endian, header, box, joined)}
