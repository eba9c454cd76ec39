"""One person's skin, hair and clothes: the portrait's picture, recoloured, with that person's signs of
age."""

from __future__ import annotations

import dataclasses

import numpy as np

from nemo_pipeline.synth.expression import PORTRAIT_SMILE
from nemo_pipeline.synth.portrait import Portrait
from nemo_pipeline.synth.wrinkles import Lines, draw_lines, line_layers

#: Box of the portrait that carries signs of age: left, top, right, bottom.
FACE_BOX = (146, 56, 306, 216)
#: The moving layer travels in 8 bits: this many steps for a natural logarithm of 1, about 128.
MOVING_STEPS = 160.0
#: A fold darkens blue more than red (blood and melanin): exponents on blue, green, red; about 1 for the gray
#: level.
FOLD_TINT = np.array([1.25, 1.06, 0.78], np.float32)


@dataclasses.dataclass(frozen=True, slots=True)
class Complexion:
    """Colours and surface of one person; nothing here depends on age.

    Attributes:
        skin_gain: factor on the skin's brightness.
        skin_tint: factors on red, green, blue.
        contrast: exponent on the skin's brightness about its mean.
        light: slope of brightness across the face (left to right, top to bottom) per outer-eye distance.
        hair_gain, hair_tint, suit_turn: hair's brightness and colour; turn of the suit's hue, degrees.
        pores: deviation of the fine noise on the skin, natural logarithm.
        lines: course and relative depth of lines.
        grain_seed: seeds the skin's own noise.
    """

    skin_gain: float
    skin_tint: np.ndarray
    contrast: float
    light: np.ndarray
    hair_gain: float
    hair_tint: np.ndarray
    suit_turn: float
    pores: float
    lines: Lines
    grain_seed: int


def draw_complexion(rng: np.random.Generator, face: Portrait, tone: float) -> Complexion:
    """One person's colours: how light the skin is by `tone` (0..1), all else by chance."""
    return Complexion(
        skin_gain=float(np.exp(np.log(0.6) + tone * np.log(1.05 / 0.6))),
        skin_tint=np.exp(0.025 * np.clip(rng.standard_normal(3), -2, 2)),
        contrast=float(np.exp(0.12 * np.clip(rng.standard_normal(), -2, 2))),
        light=0.07 * np.clip(rng.standard_normal(2), -2, 2),
        hair_gain=float(np.exp(rng.uniform(np.log(0.3), np.log(1.15)))),
        hair_tint=np.exp(0.05 * np.clip(rng.standard_normal(3), -2, 2)),
        suit_turn=float(rng.uniform(0, 360)),
        pores=float(rng.uniform(0.005, 0.018)),
        lines=draw_lines(rng, face),
        grain_seed=int(rng.integers(2**31)),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Texture:
    """What the renderer samples.

    Attributes:
        layers: (H, W, 4) uint8: blue, green, red, and the moving layer (128 + MOVING_STEPS * logarithm).
        person: (H, W) uint8, 255 where there is a person.
        scale: pixels per portrait pixel; portrait (x, y) lies at ((x + 0.5) * scale - 0.5, ...).
    """

    layers: np.ndarray
    person: np.ndarray
    scale: float


def make_texture(
    face: Portrait, look: Complexion, age: float, appearance: float, expression: str, scale: float
) -> Texture:
    """Recolour the portrait and lay the signs of age on it.

    Args:
        face: the portrait.
        look: the person's colours and lines.
        age: years.
        appearance: factor on all signs of age; 0 leaves them out.
        expression: "smile" or "disgust".
        scale: texture pixels per portrait pixel.
    """
    import cv2

    side = round(face.image.shape[0] * scale)

    def grown(array: np.ndarray) -> np.ndarray:
        return cv2.resize(array, (side, side), interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)

    picture = grown(face.image[:, :, ::-1].astype(np.float32) / 255)
    skin, hair, person = (np.clip(grown(mask), 0, 1) for mask in (face.skin, face.hair, face.person))
    picture = np.clip(picture, 1 / 255, 1)

    suit = (1 - np.clip(skin + hair, 0, 1))[..., None]
    hsv = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)
    hsv[..., 0] = (hsv[..., 0] + look.suit_turn) % 360
    hsv[..., 1] *= 0.6
    picture += suit * (cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR) - picture)

    logarithm = np.log(np.clip(picture, 1 / 255, 1))
    middle = float(np.log(0.55))
    toned = middle + look.contrast * (logarithm - middle) + np.log(look.skin_gain)
    # Darker skin is also warmer: less of the light that is lost is red.
    warmth = -np.log(look.skin_gain) * np.array([-0.22, -0.02, 0.12])
    toned += (np.log(look.skin_tint[::-1]) + warmth).astype(np.float32)
    toned += _light(face, look, side, scale)[..., None]
    logarithm += skin[..., None] * (toned - logarithm)
    logarithm += hair[..., None] * (np.log(look.hair_gain) + np.log(look.hair_tint[::-1])).astype(np.float32)

    left, top, right, bottom = (round(edge * scale) for edge in FACE_BOX)
    box = (slice(top, bottom), slice(left, right))
    resting, moving = _age_layers(face, look, age, appearance, expression, scale, logarithm[box], skin[box])
    logarithm[box] += resting

    layers = np.full((side, side, 4), 128, np.uint8)
    layers[..., :3] = np.clip(np.exp(logarithm) * 255 + 0.5, 0, 255)
    layers[box][..., 3] = np.clip(128.5 + MOVING_STEPS * moving, 0, 255)
    return Texture(layers, np.clip(person * 255 + 0.5, 0, 255).astype(np.uint8), scale)


def _light(face: Portrait, look: Complexion, side: int, scale: float) -> np.ndarray:
    """Logarithm of an even slope of light across the head, bounded beyond it; (side, side) float32."""
    at = (np.arange(side) + 0.5) / scale - 0.5
    x = np.clip((at - face.landmarks[30, 0]) / face.unit, -1.2, 1.2)
    y = np.clip((at - face.landmarks[30, 1]) / face.unit, -1.2, 1.2)
    return (look.light[0] * x[None, :] + look.light[1] * y[:, None]).astype(np.float32)


def _age_layers(
    face: Portrait,
    look: Complexion,
    age: float,
    appearance: float,
    expression: str,
    scale: float,
    logarithm: np.ndarray,
    skin: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of brightness over FACE_BOX: resting (h, w, 3) and moving (h, w), float32."""
    import cv2

    rng = np.random.default_rng(look.grain_seed)
    height, width = skin.shape

    def noise(sigma: float) -> np.ndarray:
        grain = cv2.GaussianBlur(
            rng.standard_normal((height, width)).astype(np.float32), (0, 0), sigma * scale
        )
        return grain / grain.std()

    fine, blotches = noise(0.5), noise(1.6) - 0.6 * noise(4.0)
    spots = _spots(rng, age, appearance, height, width, scale)
    lines_still, lines_moving = line_layers(look.lines, age, expression, FACE_BOX, scale)
    ageing = float(np.clip((age - 8) / 68, 0, 1))
    resting = look.pores * fine + appearance * (0.008 + 0.045 * ageing**1.3) * blotches + spots
    resting = resting + appearance * lines_still
    moving = appearance * lines_moving

    resting = resting[..., None] * FOLD_TINT

    # The portrait's own smile folds belong to its smile, whatever the age: off at rest, back with the
    # expression.
    detail = logarithm - cv2.GaussianBlur(logarithm, (0, 0), 5 * scale)
    folds = _fold_mask(face, height, width, scale)
    resting -= folds[..., None] * detail
    if expression == "smile":
        moving += folds * detail.mean(-1) / PORTRAIT_SMILE
    calm = _calm_mask(face, height, width, scale) * skin
    return resting * calm[..., None], moving * calm


def _spots(
    rng: np.random.Generator, age: float, appearance: float, height: int, width: int, scale: float
) -> np.ndarray:
    """Age spots, each with a light ring that keeps the mean. The chance places do not depend on the age; how
    many of them show, does."""
    import cv2

    count = 40
    places = rng.uniform(0, 1, (count, 2)) * (width, height)
    sizes, depths = rng.uniform(0.7, 1.5, count), rng.uniform(0.08, 0.2, count)
    shown = np.clip((age - 35) / 40, 0, 1) * count
    canvas = np.zeros((height, width), np.float32)
    for (x, y), size, depth in list(zip(places, sizes, depths, strict=True))[: round(float(shown))]:
        dot = np.zeros((height, width), np.uint8)
        cv2.circle(dot, (round(16 * x), round(16 * y)), round(16 * size * scale), 255, -1, cv2.LINE_AA, 4)
        canvas += depth * dot.astype(np.float32) / 255
    soft = cv2.GaussianBlur(canvas, (0, 0), 0.6 * scale)
    return -appearance * (soft - cv2.GaussianBlur(soft, (0, 0), 3 * scale))


def _fold_mask(face: Portrait, height: int, width: int, scale: float) -> np.ndarray:
    """1 along the portrait's own nasolabial folds, 0 from about 4 px off."""
    import cv2

    from nemo_pipeline.synth.wrinkles import curves

    axes = face.unit * np.stack([face.across, face.down])
    canvas = np.zeros((height, width), np.uint8)
    for line in curves()["nasolabial"]:
        points = np.array(
            [face.landmarks[[i]].mean(0) + np.array(o) @ axes for i, *o in line if isinstance(i, int)]
        )
        fixed = np.round(((points - FACE_BOX[:2] + 0.5) * scale - 0.5) * 16).astype(np.int32)
        cv2.polylines(canvas, [fixed[:4]], False, 255, max(1, round(4 * scale)), cv2.LINE_AA, 4)
    return cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), 1.5 * scale)


def _calm_mask(face: Portrait, height: int, width: int, scale: float) -> np.ndarray:
    """1 on the skin, 0 on eyes, lips and nostrils, where no line of age is drawn."""
    import cv2

    canvas = np.full((height, width), 255, np.uint8)
    for group in (range(36, 42), range(42, 48), range(48, 60)):
        points = face.landmarks[list(group)]
        fixed = np.round(((points - FACE_BOX[:2] + 0.5) * scale - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(canvas, [fixed], 0, cv2.LINE_AA, 4)
        cv2.polylines(canvas, [fixed], True, 0, max(1, round(1.6 * scale)), cv2.LINE_AA, 4)
    return cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), 0.5 * scale)
