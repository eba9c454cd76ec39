"""Display: pixels of any shape and pictures of any size in one geometry, against positions that are known."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nemo_pipeline import prep_video
from nemo_pipeline.stages.decode import DecodeReport, VideoReader
from nemo_pipeline.stages.display import fit
from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.stages.given import GivenLandmarks
from nemo_pipeline.stages.openface import FaceRow, write_rows
from tests.support.clips import acted, person, sway, write_clip

#: Middle of the spot in every picture, as a part of its width and height.
SPOT = (0.36, 0.62)


def spot(width: int, height: int, shape: float = 1.0) -> np.ndarray:
    """A stored picture of a round spot in a display `shape` times as wide as the stored picture (H, W) uint8."""
    x = (np.arange(width) + 0.5) * shape - SPOT[0] * width * shape
    y = (np.arange(height) + 0.5) - SPOT[1] * height
    far = (x[None] ** 2 + y[:, None] ** 2) / (0.16 * min(height, width * shape)) ** 2
    return np.round(30 + 200 * np.exp(-far)).astype(np.uint8)


def middle(gray: np.ndarray) -> tuple[float, float]:
    """Centre of the spot, (x, y), pixel centres at integers."""
    weight = np.clip(gray.astype(float) - 60, 0, None)
    y, x = np.mgrid[: gray.shape[0], : gray.shape[1]]
    return float((x * weight).sum() / weight.sum()), float((y * weight).sum() / weight.sum())


def spread(gray: np.ndarray) -> tuple[float, float]:
    """Standard deviation of the spot across and down."""
    weight = np.clip(gray.astype(float) - 60, 0, None)
    y, x = np.mgrid[: gray.shape[0], : gray.shape[1]]
    cx, cy = middle(gray)
    return tuple(float(np.sqrt(((v - c) ** 2 * weight).sum() / weight.sum())) for v, c in ((x, cx), (y, cy)))


def read(path: Path) -> tuple[list[Frame], DecodeReport, VideoReader]:
    with VideoReader(path) as reader:
        return list(reader), reader.report, reader


def check(frame: Frame, size: tuple[int, int]) -> None:
    """The spot is round and where it should be, in every way in which a frame can be looked at."""
    assert (frame.width, frame.height) == size
    gray = frame.gray()
    expected = (SPOT[0] * size[0] - 0.5, SPOT[1] * size[1] - 0.5)
    assert gray.shape == size[::-1] and frame.rgb().shape == (*size[::-1], 3)
    np.testing.assert_allclose(middle(gray), expected, atol=0.3)
    across, down = spread(gray)
    assert across == pytest.approx(down, rel=0.03)
    np.testing.assert_allclose(middle(frame.rgb()[..., 1]), expected, atol=0.3)
    x, y = round(expected[0]), round(expected[1])
    box = frame.luma(x - 20, y - 10, x + 20, y + 10).astype(int)
    assert np.abs(box - gray[y - 10 : y + 10, x - 20 : x + 20]).max() <= 1
    for angle in (0.0, 0.7):
        region = Region(expected[0] + 3, expected[1] - 2, size[1] * 0.8, angle)
        for view in (frame.gray_view(region, 96), frame.view(region, 96)[..., 1]):
            found = region.to_source(96) @ (*middle(view), 1)
            np.testing.assert_allclose(found, expected, atol=0.3)
            across, down = spread(view)
            assert across == pytest.approx(down, rel=0.03)


@pytest.mark.parametrize(
    ("stored", "aspect", "shown"),
    [
        ((180, 144), "64:45", (256, 144)),
        ((160, 128), "64:45", (227, 128)),  # FFmpeg cuts the fraction of 227.6 off
        ((144, 108), "4:3", (192, 108)),
        ((160, 180), "2:1", (320, 180)),
        ((256, 120), "15:16", (240, 120)),
        ((320, 120), "1:2", (160, 120)),
        ((176, 144), "128:117", (192, 144)),
    ],
)
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_pixels_that_are_not_square(
    stored: tuple[int, int], aspect: str, shown: tuple[int, int], name: str, tmp_path: Path
) -> None:
    ratio = Fraction(aspect.replace(":", "/"))
    pictures = [spot(*stored, shape=float(ratio))] * 2
    path = write_clip(tmp_path / name, pictures, quality="4", aspect=ratio)
    with VideoReader(path) as reader:  # known before a frame is read
        assert (reader.info.width, reader.info.height) == shown
    frames, report, reader = read(path)
    info = reader.info
    assert (info.width, info.height, info.stored_width, info.stored_height) == (*shown, *stored)
    assert info.pixel_aspect == aspect
    assert not report.picture_notes
    check(frames[1], shown)


def test_turned_pictures_have_turned_pixels(tmp_path: Path) -> None:
    """As FFmpeg shows them: turned first, then scaled to square pixels with the height kept."""
    upright = spot(108, 192, shape=45 / 64)
    stored = np.rot90(upright)  # 192 x 108, counter-clockwise
    path = write_clip(tmp_path / "clip.mp4", [stored] * 2, quality="4", rotation=-90, aspect=Fraction(64, 45))
    frames, _, reader = read(path)
    info = reader.info
    assert (info.width, info.height, info.rotation) == (75, 192, 90)
    assert (info.stored_width, info.stored_height, info.pixel_aspect) == (192, 108, "64:45")
    expected = (SPOT[0] * 75 - 0.5, SPOT[1] * 192 - 0.5)
    np.testing.assert_allclose(middle(frames[0].gray()), expected, atol=0.3)


def with_ratio(path: Path, across: int, down: int) -> Path:
    """An mp4 whose container says another ratio than its codec."""
    content = bytearray(path.read_bytes())
    at = content.index(b"pasp") + 4
    content[at : at + 8] = across.to_bytes(4, "big") + down.to_bytes(4, "big")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("container", "shown", "note"),
    [
        ((2, 1), (360, 144), ""),  # the container decides
        ((1, 1), (180, 144), ""),
        ((0, 1), (256, 144), ""),  # says nothing: the codec does
        ((100, 1), (256, 144), "100:1"),  # says nothing that could be
    ],
)
def test_the_container_decides_where_it_says_something_else_than_the_codec(
    container: tuple[int, int], shown: tuple[int, int], note: str, tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "clip.mp4", [spot(180, 144)] * 2, aspect=Fraction(64, 45))
    frames, report, _ = read(with_ratio(path, *container))
    assert (frames[0].width, frames[0].height) == shown
    assert (note in " ".join(report.picture_notes)) and bool(note) == bool(report.picture_notes)


def test_an_absurd_ratio_means_square_pixels_and_is_told(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", [spot(180, 144)] * 2, aspect=Fraction(9, 1))
    frames, report, reader = read(path)
    assert (frames[0].width, reader.info.pixel_aspect) == (180, "1:1")
    assert "9:1 is stated" in report.picture_notes[0]


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_a_size_that_changes_midway(tmp_path: Path) -> None:
    """As browsers record: every frame in the first one's geometry, whatever was stored."""
    sizes = [(160, 120), (120, 90), (320, 240), (160, 120)]
    parts = [
        write_clip(tmp_path / f"{k}.h264", [spot(*size)] * 4, quality="6") for k, size in enumerate(sizes)
    ]
    frames, report, reader = read(joined(tmp_path / "clip.h264", *parts))
    assert [frame.index for frame in frames] == list(range(16))
    assert not report.damage
    assert (np.diff([frame.time for frame in frames]) > 0).all()
    for frame in frames:
        check(frame, (160, 120))
    assert (reader.info.width, reader.info.stored_width) == (160, 160)
    (note,) = report.picture_notes
    assert "160x120 in 8 frames, then 120x90 in 4 frames, 320x240 in 4 frames" in note


def test_another_shape_is_shown_whole_in_the_middle(tmp_path: Path) -> None:
    parts = [
        write_clip(tmp_path / f"{w}.h264", [spot(w, h)] * 4, quality="6") for w, h in ((160, 120), (120, 160))
    ]
    frames, _, _ = read(joined(tmp_path / "clip.h264", *parts))
    gray = frames[-1].gray()
    assert gray.shape == (120, 160)
    # 120 x 160 becomes 90 x 120, from column 35 on.
    np.testing.assert_allclose(middle(gray), (35 + SPOT[0] * 90 - 0.5, SPOT[1] * 120 - 0.5), atol=0.3)
    assert not gray[:, :35].any() and not gray[:, 125:].any() and (gray[:, 35:125] > 20).all()
    np.testing.assert_array_equal(frames[-1].luma(0, 5, 30, 25), np.zeros((20, 30)))


def test_another_shape_that_needs_no_other_scale(tmp_path: Path) -> None:
    """It has the display's own pixels, but begins elsewhere in it: 160 x 80 in the middle of 160 x 120."""
    parts = [write_clip(tmp_path / f"{h}.h264", [spot(160, h)] * 4, quality="6") for h in (120, 80)]
    frames, _, _ = read(joined(tmp_path / "clip.h264", *parts))
    alone, _, _ = read(parts[1])
    gray = frames[-1].gray()
    np.testing.assert_array_equal(gray[20:100], alone[-1].gray())
    assert not gray[:20].any() and not gray[100:].any()
    np.testing.assert_array_equal(frames[-1].luma(3, 15, 30, 35), gray[15:35, 3:30])


def test_a_ratio_that_changes_midway(tmp_path: Path) -> None:
    """As broadcasts do between programmes; also where pictures are reordered."""
    ratios = [Fraction(16, 15), Fraction(64, 45)]
    parts = [
        write_clip(tmp_path / f"{k}.h264", [spot(180, 144, float(r))] * 6, aspect=r, options={"bf": "2"})
        for k, r in enumerate(ratios)
    ]
    frames, report, _ = read(joined(tmp_path / "clip.h264", *parts))
    assert len(frames) == 12
    for k, frame in enumerate(frames):
        assert (frame.width, frame.height) == (192, 144)
        across, down = spread(frame.gray())
        assert across == pytest.approx(down, rel=0.04), k
    assert "180x144 with pixels of 64:45 in 6 frames" in report.picture_notes[0]


def test_a_fit_and_its_inverse() -> None:
    found = fit((160, 90), Fraction(1), (320, 240))
    assert found is not None
    assert (found.left, found.top, found.across, found.down) == (0, 30, 320, 180)
    points = np.array([[-0.5, -0.5], [159.5, 89.5], [3.25, 7.75]])
    shown = found.from_stored(points)
    np.testing.assert_allclose(shown[:2], [[-0.5, 29.5], [319.5, 209.5]])
    identity = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    back = found.to_stored(identity) @ np.vstack([shown.T, np.ones(3)])
    np.testing.assert_allclose(back.T, points)
    assert fit((160, 90), Fraction(1)) is None and fit((160, 90), Fraction(1), (160, 90)) is None
    # 426 x 240 is an encoder's 640 x 360: it fills the display.
    filled = fit((426, 240), Fraction(1), (640, 360))
    assert filled is not None and (filled.across, filled.down) == (640, 360)


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    """A person who sways, in square pixels."""
    return acted(9, (320, 240), lambda k: [(person(), person().placed(160 + sway(k)[0], 100, 70))])


def test_a_squeezed_clip_gives_what_its_square_copy_gives(faces: list[np.ndarray], tmp_path: Path) -> None:
    halves = [np.round(f.reshape(240, 160, 2, 3).mean(axis=2)).astype(np.uint8) for f in faces]
    squeezed = prep_video(write_clip(tmp_path / "half.mp4", halves, quality="4", aspect=Fraction(2)))
    # The copy has the detail of the squeezed one, in square pixels.
    wide = [np.repeat(h, 2, axis=1) for h in halves]
    square = prep_video(write_clip(tmp_path / "square.mp4", wide, quality="4"))
    assert squeezed.status == square.status == "ok" and len(squeezed) == len(square) == 9
    eyes = np.hypot(*(square.landmarks[:, 45] - square.landmarks[:, 36]).T)
    apart = np.hypot(*np.moveaxis(squeezed.landmarks - square.landmarks, -1, 0))
    assert (apart.mean(axis=1) / eyes).max() < 0.01
    inside = square.frames > 0
    assert np.abs(squeezed.frames.astype(float) - square.frames)[inside].mean() < 2
    assert np.abs(squeezed.pose - square.pose).max() < 1


def test_landmarks_from_elsewhere_lie_in_the_stored_picture(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [spot(160, 180)] * 2, aspect=Fraction(2))
    points = np.random.default_rng(0).uniform(20, 140, (68, 2))
    table = tmp_path / "clip.csv"
    with table.open("w") as handle:
        write_rows(handle, [FaceRow(0, k + 1, 0, k / 30, 1.0, True, points) for k in range(2)])
    given = GivenLandmarks(table, 0.5)
    with VideoReader(path) as reader:
        seen = [given.step(frame)[0].landmarks for frame in reader]
    np.testing.assert_allclose(seen[0][:, 0], (points[:, 0] + 0.5) * 2 - 0.5, atol=1e-6)
    np.testing.assert_allclose(seen[0][:, 1], points[:, 1], atol=1e-6)
