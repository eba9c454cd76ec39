"""The warp against scikit-image; on ramps that show where it samples; on gratings that show what it lets through."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from skimage.transform import PiecewiseAffineTransform
from skimage.transform import warp as skimage_warp

from nemo_pipeline import FaceWarp
from nemo_pipeline.geometry import shipped_mean_shape
from nemo_pipeline.stages.frame import Frame
from tests.reference import warp as reference

WARP = FaceWarp()
SIZE = 114


def face(scale: float, seed: int = 0, displaced: float = 0.1, at: float = 40.0) -> np.ndarray:
    """(68, 2) landmarks of a face `scale` times as large as in the crop, turned by 12 degrees and bent: every point
    is displaced smoothly, by at most `displaced` of the face's side."""
    rng = np.random.default_rng(seed)
    points = WARP.mean_shape * scale
    side = float(np.ptp(points, axis=0).max())
    unit = (points - points.mean(axis=0)) / side
    bend = np.zeros_like(points)
    for axis in (0, 1):
        for _ in range(3):
            direction = rng.normal(size=2) * 2.5
            bend[:, axis] += np.sin(unit @ direction + rng.uniform(0, 2 * np.pi))
    bend *= displaced * side / max(np.hypot(*bend.T).max(), 1e-9)
    c, s = np.cos(np.radians(12)), np.sin(np.radians(12))
    turned = (points + bend) @ np.array([[c, s], [-s, c]])
    return turned - turned.min(axis=0) + at


def smooth_image(height: int, width: int, period: float) -> np.ndarray:
    """(H, W) float, 17 to 237."""
    y, x = np.mgrid[:height, :width]
    waves = np.sin(2 * np.pi * (x + 0.4 * y) / period) + np.cos(2 * np.pi * (y - 0.3 * x) / period / 1.3)
    return 127 + 55 * waves


def picture_size(landmarks: np.ndarray) -> tuple[int, int]:
    width, height = np.ceil(landmarks.max(axis=0)).astype(int) + 40
    return int(height), int(width)


@pytest.mark.parametrize("scale", [0.3, 0.8, 1.0, 1.5, 2.0, 3.3, 5.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_smooth_picture_comes_out_as_scikit_image_has_it(scale: float, seed: int) -> None:
    landmarks = face(scale, seed)
    image = smooth_image(*picture_size(landmarks), period=160 * max(scale, 1.0))
    ours = WARP(image.round().astype(np.uint8), landmarks)
    theirs = reference.warp_face(image, landmarks, WARP.mean_shape, WARP.triangles, SIZE)
    inside = ~np.isnan(reference.sampling_positions(landmarks, WARP.mean_shape, WARP.triangles, SIZE)[..., 0])
    assert inside.mean() > 0.5
    assert np.abs(ours[inside] - theirs[inside]).max() < 1.0
    assert not ours[~inside].any()


def test_scikit_images_own_class_agrees_where_no_triangle_is_ambiguous() -> None:
    rng = np.random.default_rng(5)
    shape = shipped_mean_shape() + rng.normal(scale=0.01, size=(68, 2))  # breaks the symmetry and so the ties
    warp = FaceWarp(shape)
    landmarks = face(1.4, seed=3)
    transform = PiecewiseAffineTransform.from_estimate(warp.mean_shape, landmarks)
    image = smooth_image(*picture_size(landmarks), period=150)
    theirs = skimage_warp(image, transform, output_shape=(SIZE, SIZE), order=1, preserve_range=True)
    ours = warp(image.round().astype(np.uint8), landmarks)
    seen = (theirs > 0) & (ours > 0)
    assert seen.mean() > 0.5
    assert np.abs(ours[seen] - theirs[seen]).max() < 1.0
    assert ((theirs > 0) != (ours > 0)).sum() <= 5  # pixels on the hull itself


@pytest.mark.parametrize("scale", [0.4, 1.0, 1.8, 2.0, 3.7, 4.5, 9.0])
def test_every_pixel_is_looked_up_where_the_triangles_say(scale: float) -> None:
    """Two ramps, one along each axis, steep enough for 8 bits: each is swept over the face in pieces."""
    landmarks = face(scale, seed=7)
    height, width = picture_size(landmarks)
    expected = reference.sampling_positions(landmarks, WARP.mean_shape, WARP.triangles, SIZE)
    tolerance = 0.05 * max(1.0, scale / 2)  # of a pixel of the crop, where that is coarser than the source's
    slope = 10.0 / max(1.0, scale / 2)
    reach = 127.0 / slope
    clear = reach - 4.0 * max(1.0, scale)  # further in than the low-pass reaches
    for axis, length in ((0, width), (1, height)):
        found = np.full((SIZE, SIZE), np.nan)
        for middle in np.arange(0.0, length, clear):
            levels = np.clip(128 + slope * (np.arange(length) - middle), 0, 255).round().astype(np.uint8)
            ramp = np.tile(levels, (height, 1)) if axis == 0 else np.tile(levels[:, None], (1, width))
            here = np.abs(expected[..., axis] - middle) <= clear / 2 + 0.5
            found[here] = (WARP(ramp, landmarks)[here] - 128.0) / slope + middle
        inside = ~np.isnan(expected[..., 0])
        assert not np.isnan(found[inside]).any()
        error = found[inside] - expected[..., axis][inside]
        rounding = 1.0 / slope  # 8 bits, once in the ramp and once in the face
        assert abs(error.mean()) < tolerance
        assert np.abs(error).max() < tolerance + rounding


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0, 12.0])
def test_the_map_itself_is_exact(scale: float) -> None:
    landmarks = face(scale, seed=2)
    ours = WARP.template.sampling_positions(landmarks)
    theirs = reference.sampling_positions(landmarks, WARP.mean_shape, WARP.triangles, SIZE)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    assert np.nanmax(np.abs(ours - theirs)) < 0.002


def test_a_mark_on_each_landmark_lands_on_the_template() -> None:
    landmarks = face(2.4, seed=4)
    height, width = picture_size(landmarks)
    y, x = np.mgrid[:height, :width]
    for k in (30, 36, 45, 48, 54, 62):
        spot = 250 * np.exp(-((x - landmarks[k, 0]) ** 2 + (y - landmarks[k, 1]) ** 2) / (2 * 5.0**2))
        crop = WARP(spot.round().astype(np.uint8), landmarks).astype(float)
        rows, columns = np.mgrid[:SIZE, :SIZE]
        crop[crop < 125] = 0
        centre = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
        assert np.hypot(*(centre - WARP.mean_shape[k])) < 0.5


@pytest.mark.parametrize("scale", [0.5, 1.3, 2.6, 5.2])
def test_outside_the_picture_is_black(scale: float) -> None:
    landmarks = face(scale, displaced=0.0) - 40.0
    landmarks -= 0.4 * np.ptp(landmarks, axis=0)  # the face hangs over the left and upper edges
    image = np.full((700, 700), 200, np.uint8)
    crop = WARP(image, landmarks)
    where = reference.sampling_positions(landmarks, WARP.mean_shape, WARP.triangles, SIZE)
    edge = max(1.0, scale)  # one sample of the low-passed picture
    off = (where < -edge).any(axis=-1)
    on = (where >= 0).all(axis=-1)
    assert off.sum() > 1000 < on.sum()
    assert not crop[off].any()
    assert (crop[on] == 200).all()


def test_a_face_wholly_outside_is_black() -> None:
    image = np.full((50, 60), 90, np.uint8)
    for shift in ((-900, 0), (900, 0), (0, 900), (0, -900), (1e7, -1e7)):
        assert not WARP(image, face(1.0) + shift).any()


def grating(shape: tuple[int, int], frequency: float, angle: float, amplitude: float = 100.0) -> np.ndarray:
    """Cycles per pixel along `angle`; float."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return 128 + amplitude * np.cos(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)))


def well_inside() -> np.ndarray:
    import cv2

    mask = np.zeros(SIZE * SIZE, np.uint8)
    mask[WARP.template.inside] = 1
    return cv2.erode(mask.reshape(SIZE, SIZE), np.ones((9, 9), np.uint8)).astype(bool)


@pytest.mark.parametrize("scale", [1.6, 2.0, 2.5, 3.0, 3.9, 5.0, 8.0])
def test_a_fine_grating_leaves_no_moire(scale: float) -> None:
    """Finer than the crop can show, ideally low-passed it is a flat gray: what is left would be moiré."""
    landmarks = face(scale, displaced=0.03, seed=6)
    shape, inside = picture_size(landmarks), well_inside()
    where = reference.sampling_positions(landmarks, WARP.mean_shape, WARP.triangles, SIZE)[inside].T[::-1]
    worst, naive = 0.0, 0.0
    for in_crop in (0.8, 0.9, 1.0, 1.25, 1.7):
        if in_crop / scale > 0.5:
            continue
        for angle in (0.0, 0.4, np.pi / 2):
            image = grating(shape, in_crop / scale, angle).round().astype(np.uint8)
            worst = max(worst, WARP(image, landmarks)[inside].std())
            naive = max(naive, map_coordinates(image, where, order=1).std())
    assert worst < 0.1 * 100 / np.sqrt(2)
    assert worst < 0.25 * naive


@pytest.mark.parametrize("scale", [1.0, 1.6, 2.0, 2.5, 3.9, 5.0, 8.0])
def test_what_the_crop_can_show_is_kept(scale: float) -> None:
    landmarks = face(scale, displaced=0.0, seed=6)
    shape, inside = picture_size(landmarks), well_inside()
    where = reference.sampling_positions(landmarks, WARP.mean_shape, WARP.triangles, SIZE)[inside]
    for in_crop, least in ((0.05, 0.97), (0.1, 0.9), (0.2, 0.66), (0.25, 0.5)):
        for angle in (0.0, 0.4):
            image = grating(shape, in_crop / scale, angle).round().astype(np.uint8)
            crop = WARP(image, landmarks)[inside] - 128.0
            phase = where @ (np.cos(angle), np.sin(angle))
            ideal = 100 * np.cos(2 * np.pi * in_crop / scale * phase)
            kept = (crop @ ideal) / (ideal @ ideal)
            assert least < kept < 1.01
            assert np.corrcoef(crop, ideal)[0, 1] > 0.99


@pytest.mark.parametrize("scale", [0.15, 0.3, 0.6])
def test_a_small_face_is_enlarged_without_beats(scale: float) -> None:
    """Bilinear: never further from the truth than its bound at half a pixel, and no slow pattern of its own."""
    landmarks = face(scale, displaced=0.0, seed=6)
    shape, inside = picture_size(landmarks), well_inside()
    where = reference.sampling_positions(landmarks, WARP.mean_shape, WARP.triangles, SIZE)[inside]
    for frequency in (0.05, 0.12, 0.2):
        for angle in (0.0, 0.4):
            image = grating(shape, frequency, angle, amplitude=100.0)
            crop = WARP(image.round().astype(np.uint8), landmarks)[inside]
            phase = where @ (np.cos(angle), np.sin(angle))
            truth = 128 + 100 * np.cos(2 * np.pi * frequency * phase)
            bound = 100 * (1 - np.cos(np.pi * frequency)) * (1 if angle == 0.0 else 1.3) + 2
            assert np.abs(crop - truth).max() < bound
            assert abs((crop - truth).mean()) < 1.5


@pytest.mark.parametrize(("size", "margin"), [(64, 0.0), (227, 0.1), (33, 0.3)])
def test_size_and_margin(size: int, margin: float) -> None:
    warp = FaceWarp(size=size, margin=margin)
    landmarks = face(1.5)
    image = smooth_image(*picture_size(landmarks), period=900)
    crop = warp(image.round().astype(np.uint8), landmarks)
    assert crop.shape == (size, size)
    theirs = reference.warp_face(image, landmarks, warp.mean_shape, warp.triangles, size)
    inside = np.zeros(size * size, bool)
    inside[warp.template.inside] = True
    assert np.abs(crop.ravel()[inside] - theirs.ravel()[inside]).max() < 1.0
    span = np.ptp(warp.mean_shape, axis=0).max()
    assert span == pytest.approx(size * (1 - 2 * margin))


def test_only_the_surroundings_matter() -> None:
    landmarks = face(2.3, at=300.0)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (900, 900), dtype=np.uint8)
    crop = WARP(image, landmarks)
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    far = np.ones(image.shape, bool)
    reach = 0.2 * (high - low).max()
    far[int(low[1] - reach) : int(high[1] + reach), int(low[0] - reach) : int(high[0] + reach)] = False
    image[far] = 0
    np.testing.assert_array_equal(WARP(image, landmarks), crop)


def test_a_shift_by_whole_pixels_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (600, 600), dtype=np.uint8)
    landmarks = face(2.3, at=100.0)
    np.testing.assert_array_equal(
        WARP(image, landmarks), WARP(np.roll(image, (32, 64), (0, 1)), landmarks + np.array([64, 32]))
    )


def test_the_gray_levels_can_be_expanded_on_the_way() -> None:
    landmarks = face(1.7)
    image = smooth_image(*picture_size(landmarks), period=90).astype(np.uint8)
    table = np.clip(np.round((np.arange(256) - 16.0) * 255 / 219), 0, 255).astype(np.uint8)
    patch = WARP.cut_patch(Frame(0, 0.0, (image,)), landmarks)
    np.testing.assert_array_equal(WARP.warp_patch(patch, landmarks), WARP(table[image], landmarks))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 60), st.floats(-3000, 3000), st.floats(-3000, 3000))
def test_any_finite_landmarks_give_a_crop(seed: int, scale: float, x: float, y: float) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 256, (int(rng.integers(1, 90)), int(rng.integers(1, 90))), dtype=np.uint8)
    crop = WARP(image, face(scale, seed) + np.array([x, y]))
    assert crop.shape == (SIZE, SIZE)
    assert crop.dtype == np.uint8
    outside = np.ones(SIZE * SIZE, bool)
    outside[WARP.template.inside] = False
    assert not crop.ravel()[outside].any()


def test_wrong_input_is_refused_in_words() -> None:
    good = face(1.0)
    image = np.zeros((200, 200), np.uint8)
    with pytest.raises(ValueError, match=r"gray must be \(H, W\) uint8"):
        WARP(np.zeros((200, 200, 3), np.uint8), good)
    with pytest.raises(ValueError, match=r"gray must be \(H, W\) uint8"):
        WARP(image.astype(float), good)
    with pytest.raises(ValueError, match=r"landmarks must be \(68, 2\)"):
        WARP(image, good[:60])
    with pytest.raises(ValueError, match="finite"):
        WARP(image, np.full((68, 2), np.nan))
    with pytest.raises(ValueError, match="one line"):
        FaceWarp(np.stack([np.arange(68.0), np.arange(68.0)], -1), triangles=WARP.triangles)
    along = np.linspace(0, 1, 68)
    rounding = 1e-10 * np.random.default_rng(0).standard_normal(68)
    for shape in (np.zeros((68, 2)), np.stack([along, np.ones(68)], -1), np.stack([along, rounding], -1)):
        with pytest.raises(ValueError, match="one line"):
            FaceWarp(shape)
        with pytest.raises(ValueError, match="one line"):
            FaceWarp(shape, triangles=WARP.triangles)
    with pytest.raises(ValueError, match="values that are not finite"):
        FaceWarp(np.full((68, 2), np.nan))
    for size in (0, -3, 64.5):
        with pytest.raises(ValueError, match="whole number of pixels"):
            FaceWarp(size=size)
    for margin in (0.5, 2.0, -0.1, np.nan, "wide", None):
        with pytest.raises(ValueError, match=r"below 0\.5"):
            FaceWarp(margin=margin)
