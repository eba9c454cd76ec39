"""Where the portrait's 68 points lie at a given smile or disgust, and the lips' line.

The portrait itself smiles: intensity `PORTRAIT_SMILE`. Intensity 0 is a closed, neutral mouth; 1 a broad
smile. The lip corners move along a straight line from -0.12 to +0.06 outer-eye distances about the portrait's
own. Everything here lives in the portrait's picture; a subject's own shape is put on top of it (`identity`).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from nemo_pipeline.synth.portrait import Portrait

PORTRAIT_SMILE = 2 / 3
#: Lip corners against the portrait's, outer-eye distances, at intensities 0 and 1.
CORNER_RANGE = (-0.12, 0.06)
#: How much of the corners' way is upwards (the rest is outwards), degrees.
CORNER_ANGLE = 50.0

#: A closed neutral mouth, points 48 to 67: x in half mouth widths, y (down) in outer-eye distances, corners
#: at 0.
_NEUTRAL_LIPS = np.array(
    [
        *[(-1, 0), (-0.56, -0.048), (-0.2, -0.078), (0, -0.068), (0.2, -0.078), (0.56, -0.048), (1, 0)],
        *[(0.6, 0.062), (0.27, 0.098), (0, 0.106), (-0.27, 0.098), (-0.6, 0.062)],
        *[(-0.88, 0.0), (-0.33, -0.002), (0, 0.006), (0.33, -0.002), (0.88, 0.0)],
        *[(0.33, -0.002), (0, 0.006), (-0.33, -0.002)],
    ]
)
#: Inner points of the upper lip (left corner to right) and of the lower lip, as indices into the 20 mouth
#: points.
UPPER_INNER = (12, 13, 14, 15, 16)
LOWER_INNER = (12, 19, 18, 17, 16)

#: Per unit of smile, in face axes (across, down) and outer-eye distances: what else moves. "o" is outwards.
_SMILE_MOVES: dict[int, tuple[float, float]] = {
    **{31: (-0.022, -0.012), 35: (0.022, -0.012), 32: (-0.008, -0.004), 34: (0.008, -0.004)},
    **{40: (0, -0.016), 41: (0, -0.02), 46: (0, -0.02), 47: (0, -0.016)},
    **{3: (-0.008, -0.006), 4: (-0.012, -0.008), 5: (-0.01, -0.006), 11: (0.01, -0.006), 12: (0.012, -0.008)},
    **{13: (0.008, -0.006), 7: (0, 0.006), 8: (0, 0.01), 9: (0, 0.006)},
}
#: Per unit of disgust: nose wrinkled, upper lip raised, brows lowered and drawn together, lower lids raised.
_DISGUST_MOVES: dict[int, tuple[float, float]] = {
    **{30: (0, -0.02), 31: (-0.015, -0.04), 32: (-0.008, -0.03), 33: (0, -0.022), 34: (0.008, -0.03)},
    **{35: (0.015, -0.04), 49: (-0.006, -0.03), 50: (0, -0.05), 51: (0, -0.045), 52: (0, -0.05)},
    **{53: (0.006, -0.03), 61: (0, -0.032), 62: (0, -0.03), 63: (0, -0.032)},
    **{48: (-0.005, 0.008), 54: (0.005, 0.008), 57: (0, -0.01), 58: (0, -0.01), 56: (0, -0.01)},
    **{17: (0.004, 0.02), 18: (0.008, 0.035), 19: (0.012, 0.045), 20: (0.016, 0.05), 21: (0.018, 0.05)},
    **{22: (-0.018, 0.05), 23: (-0.016, 0.05), 24: (-0.012, 0.045), 25: (-0.008, 0.035), 26: (-0.004, 0.02)},
    **{37: (0, 0.015), 38: (0, 0.015), 43: (0, 0.015), 44: (0, 0.015)},
    **{40: (0, -0.018), 41: (0, -0.018), 46: (0, -0.018), 47: (0, -0.018)},
}
#: Skin that carries no landmark but moves: origin (landmark and offset) and move per unit of smile and of
#: disgust.
_SKIN: tuple[tuple[int, tuple[float, float], tuple[float, float], tuple[float, float]], ...] = (
    (41, (-0.03, 0.27), (-0.012, -0.06), (0.0, -0.03)),
    (46, (0.03, 0.27), (0.012, -0.06), (0.0, -0.03)),
    (36, (-0.09, 0.30), (-0.01, -0.035), (0.0, -0.015)),
    (45, (0.09, 0.30), (0.01, -0.035), (0.0, -0.015)),
    (31, (-0.12, 0.04), (-0.02, -0.035), (-0.012, -0.035)),
    (35, (0.12, 0.04), (0.02, -0.035), (0.012, -0.035)),
)
#: Points about the face that no expression moves, in the portrait's pixels: hair, ears, neck.
_STILL = np.array(
    [
        *[
            (183, 88),
            (205, 76),
            (225, 74),
            (245, 80),
            (265, 88),
            (174, 98),
            (278, 102),
            (168, 125),
            (280, 130),
        ],
        *[(180, 152), (268, 158), (186, 172), (262, 178), (195, 186), (220, 192), (245, 190)],
        *[(225, 60), (160, 70), (290, 80), (150, 150), (300, 160), (165, 195), (225, 215), (285, 205)],
    ],
    dtype=np.float64,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Style:
    """How one person smiles (part of the identity, not of the age).

    Attributes:
        parting: intensity at which the lips begin to part.
        gap: how far they part at the portrait's intensity, against the portrait.
        skew: difference between the two corners' ways, as a fraction of their mean.
        lift: how much of cheeks, lids and nose goes along, against the portrait.
    """

    parting: float = 0.2
    gap: float = 1.0
    skew: float = 0.0
    lift: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Pose68:
    """Points of one expression, in the portrait's picture: `landmarks` (68, 2) and `skin` (6, 2)."""

    landmarks: np.ndarray
    skin: np.ndarray


def _parted(smile: float, style: Style) -> float:
    """Opening of the lips against the portrait's: 0 up to `style.parting`, 1 at the portrait's smile, slowly
    on."""
    x = float(np.clip((smile - style.parting) / (PORTRAIT_SMILE - style.parting), 0, 1))
    return x * x * (3 - 2 * x) + 0.8 * max(smile - PORTRAIT_SMILE, 0.0)


def _lips(face: Portrait, smile: float, style: Style) -> np.ndarray:
    """The 20 mouth points, (20, 2), face axes about the middle of the portrait's lip corners."""
    middle = (face.landmarks[48] + face.landmarks[54]) / 2
    portrait_lips = face.to_face(face.landmarks[48:68], middle)
    half = (portrait_lips[6, 0] - portrait_lips[0, 0]) / 2
    angle = np.radians(CORNER_ANGLE)
    outwards, upwards = np.cos(angle), np.sin(angle)

    neutral = _NEUTRAL_LIPS.copy()
    neutral[:, 0] *= half + CORNER_RANGE[0] * outwards
    neutral[:, 1] -= CORNER_RANGE[0] * upwards
    # The lips' own shape goes straight from neutral to the portrait's, and on; parting is taken out and put
    # back in.
    seam_neutral, seam_portrait = neutral.copy(), portrait_lips.copy()
    opening = np.zeros_like(portrait_lips)
    for upper, lower in zip(UPPER_INNER[1:4], LOWER_INNER[1:4], strict=True):
        gap = portrait_lips[lower] - portrait_lips[upper]
        # The upper lip takes a third of the way, the lower lip (with the jaw) the rest.
        opening[upper], opening[lower] = -gap / 3, gap * 2 / 3
    for outer, inner in ((2, 13), (3, 14), (4, 15), (8, 17), (9, 18), (10, 19)):
        opening[outer] = opening[inner]
    for outer, inner, share in ((1, 13, 0.6), (5, 15, 0.6), (7, 17, 0.6), (11, 19, 0.6)):
        opening[outer] = opening[inner] * share
    seam_portrait -= opening
    way = min(smile / PORTRAIT_SMILE, 1.0)
    lips = seam_neutral + way * (seam_portrait - seam_neutral)
    # Beyond the portrait's smile the mouth widens and bends, but the lips become no thinner.
    beyond = max(smile / PORTRAIT_SMILE - 1, 0.0)
    corner_move = -CORNER_RANGE[0] * beyond
    bend = (lips[:, 0] / half) ** 2
    lips += np.stack([lips[:, 0] / half * corner_move * outwards, -bend * corner_move * upwards], -1)
    lips += opening * _parted(smile, style) * style.gap
    # The corners keep exactly the stated way; the skew turns a little of it from one to the other.
    corner = CORNER_RANGE[0] + (CORNER_RANGE[1] - CORNER_RANGE[0]) * smile
    moved = corner - CORNER_RANGE[0]
    for points, side in (((0, 12), -1), ((6, 16), 1)):
        push = moved * style.skew * side / 2
        lips[list(points)] += (side * push * outwards, -push * upwards)
    for points, side, share in (((1, 11), -1, 0.5), ((5, 7), 1, 0.5)):
        push = moved * style.skew * side / 2 * share
        lips[list(points)] += (side * push * outwards, -push * upwards)
    return lips


def expression_points(face: Portrait, smile: float, disgust: float, style: Style) -> Pose68:
    """All points at one expression.

    Args:
        face: the portrait.
        smile: 0 closed and neutral .. 1 broad smile; up to about 1.2.
        disgust: 0 .. 1.
        style: how this person smiles.
    """
    landmarks = face.landmarks.copy()
    middle = (landmarks[48] + landmarks[54]) / 2
    landmarks[48:68] = face.to_picture(_lips(face, smile, style), middle)
    axes = face.unit * np.stack([face.across, face.down])
    for index, move in _SMILE_MOVES.items():
        landmarks[index] += (smile - PORTRAIT_SMILE) * style.lift * np.array(move) @ axes
    for index, move in _DISGUST_MOVES.items():
        landmarks[index] += disgust * np.array(move) @ axes
    skin = skin_points(face)
    for row, (_, _, by_smile, by_disgust) in enumerate(_SKIN):
        way = (smile - PORTRAIT_SMILE) * style.lift * np.array(by_smile) + disgust * np.array(by_disgust)
        skin[row] += way @ axes
    return Pose68(landmarks, skin)


def skin_points(face: Portrait) -> np.ndarray:
    """(6, 2): the moving skin points where the portrait has them."""
    axes = face.unit * np.stack([face.across, face.down])
    return np.array([face.landmarks[index] + np.array(offset) @ axes for index, offset, _, _ in _SKIN])


def still_points() -> np.ndarray:
    """(K, 2): points around the face that no expression moves, portrait pixels."""
    return _STILL.copy()


def lip_curves(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inner edges of the upper and lower lip, each (5, 2), left corner to right, from (68, 2) points."""
    mouth = landmarks[48:68]
    return mouth[list(UPPER_INNER)], mouth[list(LOWER_INNER)]
