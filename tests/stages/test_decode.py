"""Decode: every kind of video a researcher may have. What is broken: tests/stages/test_decode_broken.py."""

import gc
import os
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from nemo_pipeline.stages.decode import DecodeError, VideoReader
from nemo_pipeline.stages.frame import Frame
from tests.support.clips import MOTION_JPEG, smooth_pictures, timestamps_of, video_frame, write_clip, ycc
from tests.support.decoded import PICTURES, read

LUMA = np.stack([ycc(picture)[..., 0] for picture in PICTURES])


def luma(frames: list[Frame]) -> np.ndarray:
    return np.stack([frame.gray() for frame in frames]).astype(float)


# --- gray levels ---------------------------------------------------------------------------------------------------


EXACT = {
    "limited H.264": {"quality": "0"},
    "full-range H.264": {"quality": "0", "value_range": "full"},
    "full-range H.264, old name": {"quality": "0", "pixel_format": "yuvj420p", "value_range": "full"},
    "10 bit": {"codec": "ffv1", "pixel_format": "yuv420p10le"},
    "10 bit full": {"codec": "ffv1", "pixel_format": "yuv422p10le", "value_range": "full"},
    "16 bit": {"codec": "ffv1", "pixel_format": "yuv444p16le"},
    "FFV1": {"codec": "ffv1"},
    "RGB": {"codec": "ffv1", "pixel_format": "bgr0"},
    "16-bit RGB": {"codec": "ffv1", "pixel_format": "rgb48le"},
    "with alpha": {"codec": "ffv1", "pixel_format": "yuva420p"},
    "raw planes": {"codec": "rawvideo", "container": "avi"},
    "raw, packed": {"codec": "rawvideo", "pixel_format": "yuyv422", "container": "avi"},
    "raw BGR": {"codec": "rawvideo", "pixel_format": "bgr24", "container": "avi"},
    "gray levels alone": {"codec": "ffv1", "pixel_format": "gray", "value_range": "full"},
    "gray, limited": {"codec": "ffv1", "pixel_format": "gray", "value_range": "limited"},
    "gray, 10 bit": {"codec": "ffv1", "pixel_format": "gray10le", "value_range": "full"},
    "QuickTime animation": {"codec": "qtrle", "pixel_format": "rgb24", "container": "mov"},
}
LOSSY = {
    "H.264": {},
    "H.264 10 bit": {"pixel_format": "yuv420p10le", "quality": "8"},
    "H.264 4:4:4": {"pixel_format": "yuv444p", "quality": "8"},
    "HEVC": {"codec": "libx265", "quality": "8"},
    "HEVC 10 bit": {"codec": "libx265", "pixel_format": "yuv420p10le", "quality": "8"},
    "HEVC 10 bit full": {
        "codec": "libx265",
        "pixel_format": "yuv420p10le",
        "value_range": "full",
        "quality": "8",
    },
    "MJPEG": {**MOTION_JPEG, "container": "avi"},
    "MJPEG 4:2:2": {"codec": "mjpeg", "pixel_format": "yuvj422p", "value_range": "full", "container": "mov"},
    "VP8": {"codec": "libvpx", "container": "webm"},
    "VP9": {"codec": "libvpx-vp9", "container": "webm", "quality": "6"},
    "VP9 full": {"codec": "libvpx-vp9", "container": "webm", "quality": "6", "value_range": "full"},
    "AV1": {"codec": "libsvtav1", "quality": "8"},
    "MPEG-4": {"codec": "mpeg4", "container": "avi"},
    "MPEG-2": {"codec": "mpeg2video", "container": "mpeg"},
    "WMV": {"codec": "wmv2", "container": "asf"},
    "ProRes": {"codec": "prores", "pixel_format": "yuv422p10le", "container": "mov"},
}


@pytest.mark.parametrize("kind", EXACT)
def test_every_lossless_copy_has_the_same_full_range_luma(kind: str, tmp_path: Path) -> None:
    options = {"container": "matroska", **EXACT[kind]}
    frames, report, _ = read(write_clip(tmp_path / "clip", PICTURES, **options))
    assert len(frames) == 12
    assert not report.damage
    assert np.abs(luma(frames) - LUMA).max() <= 1.5  # so that any two agree within 2 levels or so
    two = luma(frames).round()
    assert np.abs(two - LUMA.round()).max() <= 2


@pytest.mark.parametrize("kind", LOSSY)
def test_every_lossy_copy_has_the_same_full_range_luma(kind: str, tmp_path: Path) -> None:
    options = {"container": "matroska", **LOSSY[kind]}
    frames, report, _ = read(write_clip(tmp_path / "clip", PICTURES, **options))
    assert len(frames) == 12
    assert not report.damage
    error = luma(frames) - LUMA
    assert np.abs(error.mean(axis=(1, 2))).max() < 0.5
    # The codec's own noise is local; a wrong range or rounding is not.
    blocks = error[:, :112, :160].reshape(12, 14, 8, 20, 8).mean(axis=(2, 4))
    assert np.abs(blocks).max() < 2.0
    assert np.abs(error).mean() < 1.0


@pytest.mark.parametrize("size", [(161, 121), (163, 120), (64, 35), (17, 33)])
@pytest.mark.parametrize("codec", ["ffv1", "mpeg4", "libvpx-vp9"])
def test_odd_sizes(size: tuple[int, int], codec: str, tmp_path: Path) -> None:
    pictures = smooth_pictures(3, *size)
    frames, _, reader = read(write_clip(tmp_path / "clip.mkv", pictures, codec=codec))
    assert (reader.info.width, reader.info.height) == size == (frames[0].width, frames[0].height)
    assert np.abs(luma(frames) - np.stack([ycc(p)[..., 0] for p in pictures])).mean() < 2.5
    assert frames[0].rgb().shape == (size[1], size[0], 3)


# --- presentation times --------------------------------------------------------------------------------------------


def test_variable_rate_times_are_kept(tmp_path: Path) -> None:
    times = [0, 33, 67, 100, 233, 367, 500, 567, 900, 901, 950, 2000]
    path = write_clip(tmp_path / "clip.mkv", PICTURES, times=times, time_base=Fraction(1, 1000))
    frames, report, _ = read(path)
    assert [frame.time for frame in frames] == [t / 1000 for t in times]
    assert [frame.index for frame in frames] == list(range(12))
    assert report.n_repaired_times == 0


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mp4", "clip.mov", "clip.ts"])
def test_a_start_offset_is_kept(name: str, tmp_path: Path) -> None:
    times = [5 * 600 + 20 * k for k in range(12)]
    path = write_clip(tmp_path / name, PICTURES, times=times, time_base=Fraction(1, 600), options={"bf": "2"})
    frames, report, _ = read(path)
    known = timestamps_of(path)
    assert known[0] >= 4.9
    np.testing.assert_allclose([frame.time for frame in frames], known, atol=1e-9)
    assert report.n_repaired_times == 0


@pytest.mark.parametrize(
    ("name", "codec", "fps"),
    [
        ("clip.mp4", "libx264", Fraction(30000, 1001)),
        ("clip.mkv", "libx264", Fraction(24000, 1001)),
        ("clip.mov", "mpeg4", Fraction(50)),
        ("clip.mpg", "mpeg2video", Fraction(25)),
        ("clip.wmv", "wmv2", Fraction(15)),
        ("clip.flv", "libx264", Fraction(30)),
        ("clip.webm", "libvpx-vp9", Fraction(60)),
        ("clip.avi", "mjpeg", Fraction(25)),
    ],
)
def test_times_are_the_containers_own(name: str, codec: str, fps: Fraction, tmp_path: Path) -> None:
    options = MOTION_JPEG if codec == "mjpeg" else {"codec": codec}
    path = write_clip(tmp_path / name, PICTURES, fps=fps, **options)
    frames, report, reader = read(path)
    times = [frame.time for frame in frames]
    np.testing.assert_allclose(times, timestamps_of(path), atol=1e-9)
    np.testing.assert_allclose(np.diff(times), 1 / float(fps), atol=0.0011)
    assert report.n_repaired_times == 0
    assert reader.info.fps == pytest.approx(float(fps), rel=0.05)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_reordered_frames_in_avi_which_has_decoding_times_alone(codec: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", PICTURES, codec=codec, fps=25, options={"bf": "2"})
    frames, report, _ = read(path)
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(12) / 25, atol=1e-9)
    assert report.n_repaired_times == 0
    assert np.abs(luma(frames) - LUMA).mean() < 1.5  # in presentation order


def test_a_stream_without_times_gets_even_ones(tmp_path: Path) -> None:
    frames, report, _ = read(write_clip(tmp_path / "clip.h264", PICTURES))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(12) / 30, atol=1e-9)
    assert report.n_repaired_times == 12


def mux_with_stamps(path: Path, stamps: list[int], base: Fraction = Fraction(1, 1000)) -> Path:
    """Intra-only packets with whatever stamps, also those that no encoder would give."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25, options={"g": "1"})
        stream.height, stream.width = PICTURES[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = base
        for k, stamp in enumerate(stamps):
            frame = video_frame(PICTURES[k], "yuv420p")
            frame.pts, frame.time_base = k * 40, base
            for packet in stream.encode(frame):
                packet.pts, packet.dts, packet.time_base = stamp, k, base
                out.mux(packet)
    return path


@pytest.mark.parametrize(
    ("stamps", "expected", "n"),
    [
        ([0, 40, 40, 120, 160], [0, 0.04, 0.08, 0.12, 0.16], 1),
        ([40, 80, 80, 80, 200, 240], [0.04, 0.08, 0.12, 0.16, 0.2, 0.24], 2),
        ([0, 40, 80, 60, 160, 200], [0, 0.04, 0.08, 0.12, 0.16, 0.2], 1),
    ],
)
def test_repeated_and_backward_times_are_repaired_and_counted(
    stamps: list[int], expected: list[float], n: int, tmp_path: Path
) -> None:
    path = mux_with_stamps(tmp_path / "clip.mkv", stamps)
    frames, report, _ = read(path)
    np.testing.assert_allclose([frame.time for frame in frames], expected, atol=1e-9)
    assert report.n_repaired_times == n


# --- orientation ---------------------------------------------------------------------------------------------------


def asymmetric(width: int = 64, height: int = 40) -> np.ndarray:
    """Four quarters of different gray and one corner: no turn or mirror image of it equals it."""
    picture = np.zeros((height, width), np.uint8)
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = 40, 90
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = 150, 220
    picture[:8, :8] = 250
    return picture


def shown(stored: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """A stored picture as a display matrix (a b; c d) shows it, pixel by pixel: (p, q) goes to (ap + cq, bp + dq)."""
    height, width = stored.shape
    places = {}
    for q in range(height):
        for p in range(width):
            places[a * p + c * q, b * p + d * q] = stored[q, p]
    xs, ys = sorted({x for x, _ in places}), sorted({y for _, y in places})
    return np.array([[places[x, y] for x in xs] for y in ys], np.uint8)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov"])
@pytest.mark.parametrize(
    "matrix",
    [
        (1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0),
        (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0),
    ],
)  # fmt: skip
def test_display_matrix(matrix: tuple[int, int, int, int], name: str, tmp_path: Path) -> None:
    a, b, c, d = matrix
    stored = asymmetric()
    fixed = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    path = write_clip(tmp_path / name, [stored] * 2, quality="0", display_matrix=fixed)
    frames, _, reader = read(path)
    expected = shown(stored, a, b, c, d)
    assert frames[0].gray().shape == expected.shape
    assert np.abs(frames[0].gray().astype(int) - expected).max() <= 2
    assert (reader.info.height, reader.info.width) == expected.shape
    if (a * d - b * c) > 0:
        assert reader.info.rotation == {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[a, b]


def test_pictures_that_nobody_holds_are_freed_at_once(tmp_path: Path) -> None:
    """Not when garbage is collected next: by then hundreds of megabytes may wait."""
    path = write_clip(tmp_path / "clip.mp4", [PICTURES[0]] * 30)
    gc.collect()
    gc.disable()
    try:
        with VideoReader(path) as reader:
            alive = [sum(isinstance(one, av.VideoFrame) for one in gc.get_objects()) for _ in reader]
    finally:
        gc.enable()
    assert len(alive) == 30
    assert max(alive) <= 8


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_in_the_side_data_and_in_the_old_tag_agree(degrees: int, tmp_path: Path) -> None:
    """The tag counts clockwise, the tools' side data counter-clockwise."""
    stored = [asymmetric()] * 2
    side, _, _ = read(write_clip(tmp_path / "side.mp4", stored, quality="0", rotation=-degrees))
    tag, _, reader = read(write_clip(tmp_path / "tag.mkv", stored, quality="0", tag=degrees))
    np.testing.assert_array_equal(side[0].gray(), tag[0].gray())
    assert reader.info.rotation == degrees
    expected = np.rot90(asymmetric(), -degrees // 90)
    assert np.abs(tag[0].gray().astype(int) - expected).max() <= 2


def test_a_senseless_rotate_tag_is_ignored(tmp_path: Path) -> None:
    frames, _, _ = read(write_clip(tmp_path / "clip.mkv", [asymmetric()] * 2, tag="sideways"))
    assert frames[0].gray().shape == (40, 64)


# --- what a file may hold ------------------------------------------------------------------------------------------


def write_streams(path: Path, *, cover: bool = False, second: bool = False, sound: bool = False) -> Path:
    """A file with more than one stream. The first video stream is dark; the second, the default one, is bright."""
    with av.open(str(path), "w") as out:
        videos = []
        levels = [60, 200] if second else [60]
        for k, level in enumerate(levels):
            stream = out.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            stream.disposition = av.stream.Disposition.default if k == len(levels) - 1 else 0
            videos.append((stream, level))
        if cover:
            picture = out.add_stream("mjpeg", rate=1)
            picture.height, picture.width, picture.pix_fmt = 32, 32, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
        if sound:
            voice = out.add_stream("aac", rate=16000)
        for k in range(5):
            for stream, level in videos:
                frame = video_frame(np.full((48, 64), level, np.uint8), "yuv420p")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream, _ in videos:
            out.mux(stream.encode())
        if cover:
            frame = video_frame(np.full((32, 32), 128, np.uint8), "yuvj420p", "full")
            frame.pts, frame.time_base = 0, Fraction(1, 1)
            out.mux([*picture.encode(frame), *picture.encode()])
        if sound:
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            samples.rate, samples.pts = 16000, 0
            out.mux([*voice.encode(samples), *voice.encode()])
    return path


def test_the_default_video_stream_is_read(tmp_path: Path) -> None:
    frames, _, _ = read(write_streams(tmp_path / "two.mkv", second=True))
    assert len(frames) == 5
    assert frames[0].gray().mean() == pytest.approx(200, abs=2)


def test_sound_and_cover_art_beside_the_video_are_passed_over(tmp_path: Path) -> None:
    frames, _, _ = read(write_streams(tmp_path / "all.mp4", cover=True, sound=True))
    assert len(frames) == 5
    assert frames[0].gray().mean() == pytest.approx(60, abs=2)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=16000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        samples.rate = 16000
        out.mux([*stream.encode(samples), *stream.encode()])
    with pytest.raises(DecodeError, match="only sound") as caught:
        VideoReader(path)
    assert caught.value.status == "not_a_video"


def test_interlaced_frames_are_given_as_stored_and_counted(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mpg", PICTURES, codec="mpeg2video", options={"flags": "+ilme+ildct"})
    frames, report, _ = read(path)
    assert len(frames) == 12
    assert report.n_interlaced == 12
    assert read(write_clip(tmp_path / "p.mpg", PICTURES, codec="mpeg2video"))[1].n_interlaced == 0


def test_a_single_frame_and_a_very_long_gop(tmp_path: Path) -> None:
    frames, report, _ = read(write_clip(tmp_path / "one.mp4", PICTURES[:1]))
    assert len(frames) == 1 and not report.damage
    many = [PICTURES[k % 12][:48, :64] for k in range(400)]
    path = write_clip(tmp_path / "long.mp4", many, options={"g": "1000", "bf": "0", "sc_threshold": "0"})
    frames, report, _ = read(path)
    assert [frame.index for frame in frames] == list(range(400))
    assert not report.damage


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "CLIP.MP4",
        "with blanks (and brackets) [1].mp4",
        "Ünïcode – 微笑.mp4",
        "50%d off %03d.mp4",
        "pipe:0.mp4",
        "a|b;c'd\"e.mp4",
        "-i.mp4",
        b"caf\xe9 \xff\xfe.mp4",
    ],
)
def test_any_name(name: str | bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_clip(tmp_path / "source.mp4", PICTURES[:2])
    text = os.fsdecode(name)
    try:
        shutil.copy(source, tmp_path / text)
    except OSError:
        pytest.skip("this file system has no such names")
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / text, Path(text)):  # absolute and relative
        frames, _, _ = read(path)
        assert len(frames) == 2


# --- levels of few bits in 16 --------------------------------------------------------------------------------------


def write_deep(path: Path, pictures: list[np.ndarray], pixel_format: str = "gray16le") -> Path:
    """(H, W) or (H, W, 3) uint16 levels as they are, in FFV1."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixel_format
        for k, levels in enumerate(pictures):
            source = "gray16le" if levels.ndim == 2 else "rgb48le"
            frame = av.VideoFrame.from_ndarray(levels, source).reformat(format=pixel_format, threads=1)
            frame.pts = k
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("pixel_format", ["gray16le", "rgb48le", "gbrp16le"])
def test_cameras_that_leave_the_upper_bits_empty(bits: int, pixel_format: str, tmp_path: Path) -> None:
    """Stretched by one factor for the whole clip, also where it begins in the dark; a few dead pixels do not count."""
    gray = pixel_format.startswith("gray")
    pictures = smooth_pictures(4, 96, 64, gray=gray)
    levels = [np.round(p / 255.0 * (2**bits - 1)).astype(np.uint16) for p in pictures]
    levels[0] //= 8
    levels[2][5, 7] = 65535
    frames, report, _ = read(write_deep(tmp_path / "clip.mkv", levels, pixel_format))
    assert f"{bits} of 16 bits are used" in report.picture_notes[0]
    for k, (frame, picture) in enumerate(zip(frames, pictures, strict=True)):
        expected = ycc(picture // 8 if k == 0 else picture)[..., 0]
        error = np.abs(frame.gray() - expected)
        error[3:8, 5:10] = 0
        assert error.max() <= 1.5


def test_a_dark_clip_of_16_bits_is_left_dark(tmp_path: Path) -> None:
    dark = [(p.astype(np.uint16) * 257 // 3) for p in smooth_pictures(3, 96, 64, gray=True)]
    frames, report, _ = read(write_deep(tmp_path / "clip.mkv", dark))
    assert not report.picture_notes
    assert np.abs(frames[0].gray() - dark[0] / 257.0).max() <= 1
