"""Clips that the tests write themselves, with PyAV, and the faces that appear in them.

Nothing here uses the code under test: colour conversion and placement are done again, plainly.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from skimage import data

os.environ.setdefault("SVT_LOG", "0")  # the AV1 encoder talks

#: What Motion JPEG needs of `write_clip`.
MOTION_JPEG: dict[str, Any] = {"codec": "mjpeg", "pixel_format": "yuvj420p", "value_range": "full"}
RANGES = {"limited": 1, "full": 2}
MATRICES = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}
#: Formats that hold the same samples as a planar one in another order.
_SHUFFLED = {"yuyv422": "yuv422p", "nv12": "yuv420p", "p010le": "yuv420p10le", "yuva420p": "yuv420p"}
TAGS = {"601": 6, "709": 1, "2020": 9}  # AVCOL_SPC_SMPTE170M, AVCOL_SPC_BT709, AVCOL_SPC_BT2020_NCL


def ycc(rgb: np.ndarray, matrix: str = "601") -> np.ndarray:
    """Full-range Y, Cb, Cr (H, W, 3) float64 of an RGB picture; gray (H, W) becomes colourless."""
    if rgb.ndim == 2:
        return np.stack([rgb, np.full(rgb.shape, 128), np.full(rgb.shape, 128)], -1).astype(np.float64)
    kr, kb = MATRICES[matrix]
    r, g, b = np.moveaxis(rgb.astype(np.float64), -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    return np.stack([y, (b - y) / 2 / (1 - kb) + 128, (r - y) / 2 / (1 - kr) + 128], -1)


def video_frame(
    rgb: np.ndarray, pixel_format: str, value_range: str = "limited", matrix: str = "601"
) -> av.VideoFrame:
    """One picture (H, W, 3) or (H, W) uint8 in a planar YUV, gray or packed RGB format, by the book."""
    height, width = rgb.shape[:2]
    frame = av.VideoFrame(width, height, pixel_format)
    if frame.format.is_rgb:
        rgb = np.repeat(rgb[..., None], 3, -1) if rgb.ndim == 2 else rgb
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24").reformat(
            format=pixel_format, threads=1
        )
    if pixel_format in _SHUFFLED:
        plain = video_frame(rgb, _SHUFFLED[pixel_format], value_range, matrix)
        tagged = RANGES[value_range]
        # One thread: swscale's slices overwrite each other's edges in packed formats now and then.
        return plain.reformat(format=pixel_format, src_color_range=tagged, dst_color_range=tagged, threads=1)
    frame.color_range = RANGES[value_range]
    frame.colorspace = TAGS[matrix]
    bits = frame.format.components[0].bits
    values = ycc(rgb, matrix)
    if value_range == "full":
        values = values * ((2**bits - 1) / 255)
        values[..., 1:] += 2 ** (bits - 1) - 128 * (2**bits - 1) / 255
    else:
        values = (values - (0, 128, 128)) * (219 / 255, 224 / 255, 224 / 255) + (16, 128, 128)
        values = values * 2 ** (bits - 8)
    values = np.clip(np.round(values), 0, 2**bits - 1)
    for k, plane in enumerate(frame.planes):
        samples = values[..., k]
        down_x, down_y = round(width / plane.width), round(height / plane.height)
        if k and (down_x > 1 or down_y > 1):
            extra = ((0, plane.height * down_y - height), (0, plane.width * down_x - width))
            samples = np.pad(samples, extra, mode="edge")
            samples = samples.reshape(plane.height, down_y, plane.width, down_x).mean(axis=(1, 3)).round()
        dtype = np.uint8 if bits == 8 else np.dtype("<u2")
        buffer = np.zeros(
            (plane.height, plane.line_size // dtype(0).itemsize if bits == 8 else plane.line_size // 2), dtype
        )
        buffer[:, : plane.width] = samples
        plane.update(buffer.tobytes())
    return frame


def write_clip(
    path: Path,
    pictures: Iterable[np.ndarray],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    value_range: str = "limited",
    matrix: str = "601",
    fps: Fraction | int = 30,
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    rotation: int = 0,
    display_matrix: Sequence[int] | None = None,
    tag: int | str | None = None,
    container: str | None = None,
    container_options: dict[str, str] | None = None,
    quality: str | None = "18",
    aspect: Fraction | None = None,
    transfer: int = 2,
    primaries: int = 2,
) -> Path:
    """Write a clip.

    Args:
        path: the extension decides the container unless `container` names one.
        pictures: (H, W, 3) RGB or (H, W) gray, uint8.
        times: presentation times in units of `time_base`; 0, 1, 2, ... / fps without.
        rotation: of the display matrix, counter-clockwise degrees, as FFmpeg's tools say it.
        display_matrix: its nine numbers instead.
        tag: value of the old `rotate` tag.
        aspect: width of a pixel over its height, in the codec and (where it has a place for it) the container.
        transfer, primaries: AVColorTransferCharacteristic and AVColorPrimaries.
    """
    base = time_base or 1 / Fraction(fps)
    with av.open(str(path), "w", format=container, options=container_options or {}) as out:
        stream = None
        for k, picture in enumerate(pictures):
            if stream is None:
                stream = out.add_stream(codec, rate=Fraction(fps))
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pixel_format
                stream.codec_context.time_base = base
                stream.codec_context.color_range = RANGES[value_range]
                stream.codec_context.colorspace = TAGS[matrix]
                stream.codec_context.color_trc, stream.codec_context.color_primaries = transfer, primaries
                if aspect is not None:
                    stream.codec_context.sample_aspect_ratio = aspect
                stream.options = _options(codec, quality, options)
                stream.codec_context.thread_count = 1
                if rotation:
                    stream.set_display_rotation(rotation)
                if display_matrix is not None:
                    stream.set_display_matrix(display_matrix)
                if tag is not None:
                    stream.metadata["rotate"] = str(tag)
            frame = video_frame(picture, pixel_format, value_range, matrix)
            frame.color_trc, frame.color_primaries = transfer, primaries
            frame.pts = k if times is None else times[k]
            frame.time_base = base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def _options(codec: str, quality: str | None, options: dict[str, str] | None) -> dict[str, str]:
    chosen = {
        "libx264": {"preset": "ultrafast"},
        "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    }
    chosen |= {
        "libvpx-vp9": {"cpu-used": "8", "deadline": "realtime", "b": "0"},
        "libsvtav1": {"preset": "12"},
    }
    result = dict(chosen.get(codec, {}))
    if quality is not None and codec in ("libx264", "libx265", "libvpx-vp9", "libsvtav1"):
        result["crf"] = quality
    elif codec in ("mjpeg", "mpeg4", "wmv2", "mpeg2video", "libvpx"):
        result |= {"qmin": "2", "qmax": "3"} if codec != "libvpx" else {"crf": "4", "b": "4000000"}
    return result | (options or {})


def smooth_pictures(n: int, width: int = 160, height: int = 120, *, gray: bool = False) -> list[np.ndarray]:
    """Soft moving blobs of light and colour that every codec can follow."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    pictures = []
    for k in range(n):
        t = k / 10
        channels = [
            0.5 + 0.38 * np.sin(5 * x + 3 * y + t + p) * np.cos(4 * y - 2 * x - t / 2 + 2 * p)
            for p in (0.0, 0.7, 1.4)
        ]
        picture = np.stack(channels[:1] * 3 if gray else channels, -1)
        pictures.append(np.clip(np.round(picture * 255), 0, 255).astype(np.uint8))
    return [p[..., 0] for p in pictures] if gray else pictures


class Actor:
    """A person who can be put anywhere in a picture. The astronaut of scikit-image: public domain, NASA.

    Args:
        picture: (H, W, 3) uint8.
        right_eye, left_eye: the subject's outer eye corners in it, x and y.
    """

    def __init__(
        self, picture: np.ndarray, right_eye: tuple[float, float], left_eye: tuple[float, float]
    ) -> None:
        self.picture = picture
        self.right, self.left = np.array(right_eye), np.array(left_eye)

    def placed(self, x: float, y: float, eye_px: float, roll: float = 0.0) -> np.ndarray:
        """(2, 3) map from the person's picture into a scene: middle of the eyes, their distance (pixels), and
        the roll of the head (degrees, clockwise as seen)."""
        axis = self.left - self.right
        angle = np.radians(roll) - np.arctan2(axis[1], axis[0])
        scale = eye_px / np.hypot(*axis)
        c, s = scale * np.cos(angle), scale * np.sin(angle)
        turn = np.array([[c, -s], [s, c]])
        shift = np.array([x, y]) - turn @ (self.right + self.left) / 2
        return np.column_stack([turn, shift])


@functools.cache
def person() -> Actor:
    """The astronaut."""
    return Actor(data.astronaut()[:400, 30:430], (165.8, 100.9), (224.4, 104.0))


@functools.cache
def other_person() -> Actor:
    """Somebody else: mirrored, broader, darker, and lit from the other side."""
    picture = data.astronaut()[:400, 30:430][:, ::-1].astype(np.float64)
    width = picture.shape[1]
    light = np.linspace(1.15, 0.45, width)[None, :, None] * (0.9, 0.8, 0.75)
    picture = np.clip(picture * light, 0, 255).astype(np.uint8)
    picture = cv2.resize(picture, (round(width * 1.12), picture.shape[0]), interpolation=cv2.INTER_CUBIC)
    return Actor(picture, ((width - 1 - 224.4) * 1.12, 104.0), ((width - 1 - 165.8) * 1.12, 100.9))


def scene(
    size: tuple[int, int], *people: tuple[Actor, np.ndarray], background: np.ndarray | None = None
) -> np.ndarray:
    """(H, W, 3) uint8: people at their places (`Actor.placed`) before a calm background. `size` is (width, height)."""
    width, height = size
    if background is None:
        background = smooth_pictures(1, width, height)[0] // 2 + 40
    picture = background.copy()
    for actor, place in people:
        scale = float(np.sqrt(np.linalg.det(place[:, :2])))
        source = actor.picture
        if scale < 0.7:
            source = cv2.GaussianBlur(source, (0, 0), 0.45 / scale)
        mask = _soft_mask(source.shape[0], source.shape[1])
        flags = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR
        drawn = cv2.warpAffine(source, place, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        weight = cv2.warpAffine(mask, place, (width, height), flags=cv2.INTER_LINEAR)[..., None]
        picture = np.round(weight * drawn + (1 - weight) * picture).astype(np.uint8)
    return picture


def masked(picture: np.ndarray, landmarks: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """A copy of a picture whose face, known by its 68 points, wears a folded cloth from nose to chin."""
    eyes = landmarks[45] - landmarks[36]
    down = np.array([-eyes[1], eyes[0]])
    outline = np.concatenate(
        [landmarks[1:4], landmarks[4:13] + 0.08 * down, landmarks[13:16], landmarks[28:29]]
    )
    worn = np.zeros(picture.shape[:2], np.float32)
    cv2.fillPoly(worn, [np.round(outline * 16).astype(np.int32)], 1.0, lineType=cv2.LINE_AA, shift=4)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    height = ((x - landmarks[27, 0]) * down[0] + (y - landmarks[27, 1]) * down[1]) / (eyes @ eyes)
    cloth = np.clip((1 + 0.1 * np.sin(14 * height))[..., None] * colour, 0, 255)
    return np.round(worn[..., None] * cloth + (1 - worn[..., None]) * picture).astype(np.uint8)


@functools.cache
def _soft_mask(height: int, width: int) -> np.ndarray:
    """(H, W) float32: 1 around the head and shoulders, 0 at the picture's edge."""
    x = np.minimum(np.arange(width), np.arange(width)[::-1]) / (0.08 * width)
    y = np.minimum(np.arange(height) + 20, np.arange(height)[::-1]) / (0.08 * height)
    return np.clip(np.minimum(x[None], y[:, None]), 0, 1).astype(np.float32)


def acted(
    n: int,
    size: tuple[int, int],
    play: Callable[[int], Sequence[tuple[Actor, np.ndarray]]],
    background: np.ndarray | None = None,
) -> list[np.ndarray]:
    """`n` pictures; `play(k)` says who is where in picture k."""
    return [scene(size, *play(k), background=background) for k in range(n)]


def sway(k: int, amount: float = 2.0) -> tuple[float, float]:
    """A slow small movement, so that no two pictures are the same."""
    return amount * float(np.sin(k / 5)), amount * float(np.cos(k / 7))


def timestamps_of(path: Path) -> list[float]:
    """Presentation times that the container holds, in order: read from its packets, not from decoded pictures."""
    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0]
        stamps = [p.pts for p in container.demux(stream) if p.size and p.pts is not None]
        return sorted(float(stamp * stream.time_base) for stamp in stamps)
