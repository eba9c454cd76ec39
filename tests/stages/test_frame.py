"""Frames: colours and gray against the standards' formulas and PyAV, and regions against plain resampling."""

import dataclasses

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates, uniform_filter

from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.stages.planes import to_frame
from tests.support.clips import RANGES, smooth_pictures, video_frame, ycc

AS_STORED = (False, False, False)
FORMATS = [
    "yuv420p",
    "yuv422p",
    "yuv444p",
    "yuv440p",
    "yuv420p10le",
    "yuv444p12le",
    "nv12",
    "yuyv422",
    "p010le",
]


def frame(rgb: np.ndarray, pixel_format: str, value_range: str, matrix: str) -> tuple[Frame, av.VideoFrame]:
    picture = video_frame(rgb, pixel_format, value_range, matrix)
    picture.color_range = RANGES[value_range]
    picture.colorspace = {"601": 6, "709": 1}[matrix]
    return to_frame(picture, 0, 0.0, AS_STORED), picture


@pytest.mark.parametrize("matrix", ["601", "709"])
@pytest.mark.parametrize("value_range", ["limited", "full"])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_colours(pixel_format: str, value_range: str, matrix: str) -> None:
    rgb = smooth_pictures(1, 322, 242)[0]
    ours, picture = frame(rgb, pixel_format, value_range, matrix)
    assert ours.full_range == (value_range == "full")
    assert ours.matrix == matrix
    assert np.abs(ours.gray() - ycc(rgb, matrix)[..., 0]).max() < 1.6
    error = ours.rgb().astype(int) - rgb
    assert np.abs(error).max() <= 5
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.6
    theirs = picture.to_ndarray(
        format="rgb24", src_color_range=RANGES[value_range], dst_color_range=RANGES["full"]
    )
    # swscale is 1 to 2 levels too dark for subsampled limited-range pictures; a wrong matrix is 15 off.
    assert np.abs(ours.rgb().astype(int) - theirs).max() <= 7
    assert np.abs(ours.rgb().astype(int) - theirs).mean() < 2.5


@pytest.mark.parametrize("pixel_format", ["rgb24", "bgr24", "gbrp", "bgra", "rgb48le", "gbrp10le"])
def test_rgb_pictures(pixel_format: str) -> None:
    rgb = smooth_pictures(1, 163, 121)[0]
    ours = to_frame(video_frame(rgb, pixel_format), 0, 0.0, AS_STORED)
    assert np.abs(ours.rgb().astype(int) - rgb).max() <= 2
    assert np.abs(ours.gray() - ycc(rgb)[..., 0]).max() <= 1


@pytest.mark.parametrize("pixel_format", ["gray", "gray10le", "gray16le"])
def test_gray_pictures(pixel_format: str) -> None:
    gray = smooth_pictures(1, 90, 70, gray=True)[0]
    for value_range in ("full", "limited"):
        ours, _ = frame(gray, pixel_format, value_range, "601")
        assert np.abs(ours.gray().astype(int) - gray).max() <= 1
        np.testing.assert_array_equal(ours.rgb(), np.repeat(ours.gray()[..., None], 3, -1))
    # Without a tag gray is taken as it is.
    untagged = video_frame(gray, "gray", "full")
    untagged.color_range = 0
    np.testing.assert_array_equal(to_frame(untagged, 0, 0.0, AS_STORED).gray(), gray)


def test_palette_and_bitmap_pictures() -> None:
    rgb = smooth_pictures(1, 64, 48)[0] // 64 * 64
    for pixel_format in ("monow", "pal8"):
        picture = av.VideoFrame.from_ndarray(rgb, "rgb24")
        if pixel_format == "monow":
            picture = picture.reformat(format="monow")
            expected = picture.reformat(format="gray").to_ndarray()
            assert np.abs(to_frame(picture, 0, 0.0, AS_STORED).gray().astype(int) - expected).max() <= 1
    table = np.zeros((256, 4), np.uint8)
    table[:, 0] = 255  # alpha
    table[:, 1:] = np.arange(256)[:, None]
    indices = smooth_pictures(1, 64, 48, gray=True)[0]
    picture = av.VideoFrame.from_ndarray((indices, table), "pal8")
    assert np.abs(to_frame(picture, 0, 0.0, AS_STORED).gray().astype(int) - indices).max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-500, 2000), st.floats(-500, 2000), st.floats(1, 3000), st.floats(-7, 7), st.integers(2, 300)
)
def test_a_regions_corners(cx: float, cy: float, size: float, angle: float, side: int) -> None:
    to_source = Region(cx, cy, size, angle).to_source(side)
    # Pixel k covers k - 0.5 to k + 0.5, so the view's outer edges are at -0.5 and side - 0.5.
    edges = np.array(
        [[-0.5, side - 0.5, side - 0.5, -0.5], [-0.5, -0.5, side - 0.5, side - 0.5], [1, 1, 1, 1]]
    )
    corners = (to_source @ edges).T
    np.testing.assert_allclose(corners.mean(axis=0), (cx, cy), atol=1e-6)
    np.testing.assert_allclose(np.hypot(*(corners[1] - corners[0])), size, rtol=1e-9)
    across, down = corners[1] - corners[0], corners[3] - corners[0]
    np.testing.assert_allclose(across / size, (np.cos(angle), np.sin(angle)), atol=1e-9)
    np.testing.assert_allclose(down / size, (-np.sin(angle), np.cos(angle)), atol=1e-9)


def resampled(rgb: np.ndarray, region: Region, side: int) -> np.ndarray:
    """The region by its definition, on the whole RGB picture."""
    y, x = np.mgrid[:side, :side]
    where = region.to_source(side) @ np.stack([x.ravel(), y.ravel(), np.ones(side * side)])
    shrink = max(1.0, region.size / side)
    out = [
        map_coordinates(
            uniform_filter(rgb[..., c].astype(float), shrink, mode="nearest"),
            where[::-1],
            order=1,
            mode="nearest",
        )
        for c in range(3)
    ]
    return np.stack(out, -1).reshape(side, side, 3)


REGIONS = [
    Region(100, 80, 64),
    Region(100.3, 79.6, 90, 0.5),
    Region(150, 100, 256, -2.0),
    Region(160, 120, 430, 1.0),
    Region(310, 20, 120, 3.0),  # over the corner
    Region(160, 120, 900, 0.2),  # beyond the picture on all sides
    Region(60, 60, 20, -0.7),
]


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("value_range", ["limited", "full"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "gray"])
def test_a_region_shows_what_is_there(region: Region, value_range: str, pixel_format: str) -> None:
    rgb = smooth_pictures(1, 321, 241)[0]
    ours, _ = frame(rgb, pixel_format, value_range, "709")
    view = ours.view(region, 128)
    assert view.shape == (128, 128, 3)
    expected = resampled(rgb if pixel_format != "gray" else ours.rgb(), region, 128)
    inside = (
        resampled(np.pad(np.ones((221, 301, 3)), ((10, 10), (10, 10), (0, 0))), region, 128)[..., 0] > 0.99
    )
    error = np.abs(view - expected)[inside]
    assert error.mean() < 2.0
    assert np.quantile(error, 0.99) < 6
    gray = ours.gray_view(region, 128)
    levels = gray if value_range == "full" else np.clip((gray.astype(float) - 16) * 255 / 219, 0, 255)
    assert np.abs(levels - ycc(expected, "709")[..., 0])[inside].mean() < 2.0


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.floats(-200, 300),
    st.floats(-200, 300),
    st.floats(0.5, 4000),
    st.floats(-4, 4),
    st.sampled_from(["yuv420p", "yuv444p", "gray"]),
)
def test_any_region_of_any_picture_can_be_shown(
    width: int, height: int, cx: float, cy: float, size: float, angle: float, pixel_format: str
) -> None:
    picture = np.full((height, width, 3), 90, np.uint8)
    ours, _ = frame(picture, pixel_format, "limited", "601")
    for side in (24, 128):
        view = ours.view(Region(cx, cy, size, angle), side)
        assert view.shape == (side, side, 3)
        assert np.abs(view.astype(int) - 90).max() <= 2  # the edge goes on outside


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0, 400),
    st.floats(0, 300),
    st.floats(40, 1500),
    st.floats(-1, 1),
    st.floats(0.3, 1.2),
    st.sampled_from(["yuv420p", "yuv444p", "gray"]),
)
def test_a_look_does_not_depend_on_earlier_looks(
    cx: float, cy: float, size: float, angle: float, closer: float, pixel_format: str
) -> None:
    rgb = smooth_pictures(1, 405, 309)[0]
    region = Region(cx, cy, size, angle)
    inner = Region(cx, cy, closer * size, angle)
    fresh = [frame(rgb, pixel_format, "limited", "601")[0] for _ in range(3)]
    views = [fresh[0].view(region, 128), fresh[1].gray_view(inner, 36), fresh[2].gray_view(region, 36)]
    again = frame(rgb, pixel_format, "limited", "601")[0]
    for _ in range(2):
        np.testing.assert_array_equal(again.view(region, 128), views[0])
        np.testing.assert_array_equal(again.gray_view(inner, 36), views[1])
        np.testing.assert_array_equal(again.gray_view(region, 36), views[2])


def test_large_regions_do_not_alias() -> None:
    """A fine pattern seen from afar is its mean, not a coarse pattern."""
    x = np.tile(np.arange(800), (800, 1))
    stripes = (128 + 100 * np.cos(2 * np.pi * x / 3.0)).round().astype(np.uint8)
    view = Frame.from_rgb(stripes).view(Region(400, 400, 780), 128)
    assert view[..., 0].std() < 6


def test_from_rgb() -> None:
    rgb = smooth_pictures(1, 80, 61)[0]
    ours = Frame.from_rgb(rgb, index=3, time=1.5)
    assert (ours.index, ours.time, ours.width, ours.height) == (3, 1.5, 80, 61)
    assert np.abs(ours.rgb().astype(int) - rgb).max() <= 2
    np.testing.assert_array_equal(Frame.from_rgb(rgb[..., 0]).gray(), rgb[..., 0])
    for bad in (rgb.astype(float), rgb[..., :2], rgb[0, 0]):
        with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
            Frame.from_rgb(bad)


def test_luma_in_limited_range_is_expanded() -> None:
    luma = np.arange(256, dtype=np.uint8).reshape(16, 16)
    ours = Frame(0, 0.0, (luma,), full_range=False)
    expected = np.clip(np.round((luma.astype(float) - 16) * 255 / 219), 0, 255)
    np.testing.assert_array_equal(ours.gray(), expected)
    np.testing.assert_array_equal(Frame(0, 0.0, (luma,), full_range=True).gray(), luma)


@pytest.mark.parametrize(
    ("primaries", "matrix"), [(1, "709"), (9, "2020"), (2, "601"), (6, "601"), (5, "601")]
)
@pytest.mark.parametrize("pixel_format", ["rgb24", "gbrp"])
def test_the_luma_of_rgb_is_that_of_the_primaries_it_states(
    pixel_format: str, primaries: int, matrix: str
) -> None:
    """So that an RGB copy of a clip in BT.709 has its levels. Without a word it is BT.601, as in YUV."""
    rgb = smooth_pictures(1, 80, 60)[0]
    picture = video_frame(rgb, pixel_format)
    picture.colorspace, picture.color_primaries = 0, primaries
    ours = to_frame(picture, 0, 0.0, AS_STORED)
    assert ours.matrix == matrix
    assert np.abs(ours.gray() - ycc(rgb, matrix)[..., 0]).max() <= 1
    assert np.abs(ours.rgb().astype(int) - rgb).max() <= 2


@pytest.mark.parametrize("side", [128, 256])
def test_a_picture_is_seen_the_same_in_one_piece_and_plane_by_plane(side: int) -> None:
    frame = Frame.from_rgb(smooth_pictures(1, 400, 300)[0])
    planes = dataclasses.replace(frame, together=None)
    for region in (Region(200, 150, 90, 0.3), Region(20, 280, 300, -2.0), Region(200, 150, 1500)):
        seen, expected = frame.view(region, side), planes.view(region, side)
        assert seen.shape == expected.shape == (side, side, 3)
        assert np.abs(seen.astype(int) - expected).max() <= 2
