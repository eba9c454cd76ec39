"""HDR: pictures put into HLG and PQ by the standards' formulas come back as the SDR pictures that they were."""

import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from nemo_pipeline import prep_video
from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.stages.planes import to_frame
from tests.support.clips import acted, person, smooth_pictures, sway, video_frame, write_clip, ycc
from tests.support.decoded import read
from tests.support.hdr import BT709, BT2020, HLG, PQ, SIGNAL, TO_2020, graded, pq, write_hdr


def hdr_frame(rgb: np.ndarray, transfer: int, pixel_format: str = "yuv420p10le") -> av.VideoFrame:
    """A picture as an HDR camera stores it. `rgb`: SDR, uint8."""
    # In 16ths of a level, for the clip's writer counts in levels of 8 bits.
    frame = video_frame(graded(rgb, transfer) * 255, pixel_format, "limited", "2020")
    frame.color_trc, frame.color_primaries = transfer, BT2020
    return frame


def muted(n: int, width: int = 160, height: int = 120) -> list[np.ndarray]:
    """Pictures whose colours are about as strong as skin's."""
    colourful = smooth_pictures(n, width, height)
    return [
        np.round(0.45 * p + 0.45 * p.mean(axis=-1, keepdims=True) + 10).astype(np.uint8) for p in colourful
    ]


@pytest.mark.parametrize("transfer", [HLG, PQ])
@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv422p12le", "yuv444p10le", "p010le", "gbrp10le"])
def test_hdr_has_the_levels_of_sdr(transfer: int, pixel_format: str) -> None:
    rgb = muted(1)[0]
    if pixel_format == "gbrp10le":
        levels = np.round(graded(rgb, transfer) * 65535).astype(np.uint16)
        picture = av.VideoFrame.from_ndarray(levels, "rgb48le").reformat(format=pixel_format, threads=1)
        picture.color_trc, picture.color_primaries = transfer, BT2020
    else:
        picture = hdr_frame(rgb, transfer, pixel_format)
    frame = to_frame(picture, 0, 0.0, (False, False, False))
    luma = ycc(rgb, "709")[..., 0]
    gray = frame.gray()
    assert gray.dtype == np.uint8 and gray.shape == luma.shape
    assert np.abs(gray - luma).max() < 3 and np.abs(gray - luma).mean() < 1
    assert np.abs((gray - luma).mean()) < 0.5
    assert np.abs(frame.rgb().astype(float) - rgb).mean() < 1.5
    np.testing.assert_array_equal(frame.luma(20, 30, 60, 50), gray[30:50, 20:60])
    plain = Frame.from_rgb(rgb, matrix="709")
    for region in (Region(80, 60, 90, 0.4), Region(70, 50, 300)):
        assert np.abs(frame.view(region, 64).astype(float) - plain.view(region, 64)).mean() < 2
        assert np.abs(frame.gray_view(region, 64).astype(float) - plain.gray_view(region, 64)).mean() < 2


def test_light_beyond_white_keeps_its_hue() -> None:
    """Cut off where the brightest colour reaches SDR's white."""
    rgb = np.full((16, 16, 3), (230, 180, 150), np.uint8)
    light = (rgb / 255.0) ** 2.4 * 203 * 1.8
    picture = video_frame(pq(light @ TO_2020.T) * 255, "yuv444p12le", "limited", "2020")
    picture.color_trc, picture.color_primaries = PQ, BT2020
    shown = to_frame(picture, 0, 0.0, (False, False, False)).rgb()[8, 8]
    np.testing.assert_allclose(shown, np.array([230, 180, 150]) * 255 / 230, atol=2)


@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_a_clip_in_hdr(transfer: int, tmp_path: Path) -> None:
    pictures = muted(3)
    frames, report, reader = read(write_hdr(tmp_path / "clip.mkv", pictures, transfer))
    luma = np.stack([ycc(p, "709")[..., 0] for p in pictures])
    assert np.abs(np.stack([f.gray() for f in frames]) - luma).mean() < 1
    named = {HLG: "arib-std-b67", PQ: "smpte2084"}[transfer]
    assert reader.info.transfer == f"{named} to bt709 (203 nits)"
    assert not report.picture_notes


def test_pixels_that_are_not_square_in_hdr() -> None:
    from fractions import Fraction

    rgb = muted(1)[0]
    frame = to_frame(hdr_frame(rgb, HLG), 0, 0.0, (False, False, False), aspect=Fraction(2))
    plain = to_frame(
        video_frame(rgb, "yuv444p", "full", "709"), 0, 0.0, (False, False, False), aspect=Fraction(2)
    )
    assert frame.gray().shape == (120, 320)
    assert np.abs(frame.gray().astype(float) - plain.gray()).mean() < 1.5
    assert np.abs(frame.rgb().astype(float) - plain.rgb()).mean() < 2


@pytest.mark.parametrize(
    ("transfer", "primaries", "said"),
    [
        (2, BT709, ""), (1, BT709, ""), (13, BT709, ""), (14, BT2020, ""), (2, 2, ""),
        (8, BT709, "linear"), (9, BT709, "log100"), (17, 2, "smpte428"), (2, BT2020, "BT.2020"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_told(transfer: int, primaries: int, said: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", muted(2), codec="ffv1", transfer=transfer, primaries=primaries)
    frames, report, _ = read(path)
    assert said in " ".join(report.picture_notes) and bool(said) == bool(report.picture_notes)
    luma = ycc(muted(2)[0])[..., 0]
    assert np.abs(frames[0].gray() - luma).max() < 2  # as they are


def test_faces_of_a_clip_in_hdr_are_those_of_its_sdr_original(tmp_path: Path) -> None:
    pictures = acted(8, (240, 200), lambda k: [(person(), person().placed(120 + sway(k)[0], 85, 60))])
    plain = prep_video(write_clip(tmp_path / "sdr.mkv", pictures, codec="ffv1", matrix="709"))
    high = prep_video(write_hdr(tmp_path / "hlg.mkv", pictures, HLG))
    assert high.status == plain.status == "ok" and len(high) == len(plain) == 8
    inside = plain.frames > 0
    assert np.abs(high.frames.astype(float) - plain.frames)[inside].mean() < 2
    eyes = np.hypot(*(plain.landmarks[:, 45] - plain.landmarks[:, 36]).T)
    apart = np.hypot(*np.moveaxis(high.landmarks - plain.landmarks, -1, 0))
    assert (apart.mean(axis=1) / eyes).max() < 0.01


def _ffmpeg_maps() -> bool:
    if shutil.which("ffmpeg") is None:
        return False
    listed = subprocess.run(["ffmpeg", "-hide_banner", "-filters"], capture_output=True, text=True).stdout
    return " zscale " in listed and " tonemap " in listed


@pytest.mark.skipif(not _ffmpeg_maps(), reason="needs ffmpeg with zscale")
@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_the_mapping_is_ffmpegs(transfer: int, tmp_path: Path) -> None:
    """Also where light is brighter than SDR's white."""
    bright = [np.clip(p * 1.3 + 20, 0, 255).astype(np.uint8) for p in muted(2)]
    light = [SIGNAL[transfer]((p / 255.0) ** 2.4 * 400 @ TO_2020.T) * 255 for p in bright]
    path = write_clip(
        tmp_path / "clip.mkv", light,
        codec="ffv1", pixel_format="yuv420p10le", matrix="2020", transfer=transfer, primaries=BT2020,
    )  # fmt: skip
    route = (
        "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709:npl=203,tonemap=clip,"
        "zscale=t=bt709:m=bt709:r=pc:npl=203,format=yuv444p"
    )
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", path, "-vf", route, "-f", "rawvideo", "-"],
        capture_output=True,
        check=True,
    )
    theirs = np.frombuffer(done.stdout, np.uint8).reshape(2, 3, 120, 160)[:, 0].astype(float)
    ours = np.stack([frame.gray() for frame in read(path)[0]])
    assert np.abs(ours - theirs).mean() < 0.7
    assert np.quantile(np.abs(ours - theirs), 0.99) <= 2


def test_what_is_not_known_is_told_where_no_face_is_found_too(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", muted(3), codec="ffv1", transfer=9)
    video = prep_video(path)
    assert video.status == "no_face" and "log100" in video.message
