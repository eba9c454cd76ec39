"""A person: a smooth deformation of the portrait's head, and the way back from any point of it to the
portrait."""

from __future__ import annotations

import dataclasses

import numpy as np

from nemo_pipeline.synth.expression import Style, expression_points, skin_points
from nemo_pipeline.synth.portrait import Portrait
from nemo_pipeline.synth.tps import Grid, ThinPlate, bilinear

#: The whole picture, in portrait pixels, one node every 4.
PLATE = Grid.over(-16, -16, 527, 527, 4)
#: Outline of the head (hair) and shoulders: moves with the head's own size, or not at all.
_HEAD_OUTLINE = np.array(
    [(155, 75), (163, 45), (187, 25), (225, 15), (262, 25), (288, 45), (301, 82), (292, 115), (160, 120)],
    dtype=np.float64,
)
_BODY = np.array(
    [
        *[
            (125, 190),
            (150, 240),
            (200, 275),
            (250, 280),
            (300, 240),
            (325, 270),
            (110, 260),
            (60, 320),
            (370, 330),
        ],
        *[(-16, -16), (120, -16), (256, -16), (400, -16), (527, -16), (-16, 130), (527, 130), (-16, 300)],
        *[(527, 300), (-16, 527), (256, 527), (527, 527), (160, 400), (300, 400)],
    ],
    dtype=np.float64,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Shape of one person's face, in outer-eye distances or as factors about 1, and how that person smiles.

    `wobble` (68, 2) is what the named measures leave out: a smooth random field, asymmetries included.
    """

    face_width: float
    face_height: float
    jaw_width: float
    chin: float
    eye_spacing: float
    eye_size: float
    brow_height: float
    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_height: float
    lip_thickness: float
    wobble: np.ndarray
    style: Style


def draw_identity(rng: np.random.Generator, gender: str, spread: float = 1.0) -> Identity:
    """One person, by chance.

    Args:
        rng: the subject's own generator.
        gender: "female" or "male": shifts jaw, brows and nose a little; nothing else depends on it.
        spread: factor on every deviation; 0 gives the portrait's own shape.
    """
    male = 1.0 if gender == "male" else 0.0

    def factor(sigma: float, shift: float = 0.0) -> float:
        return float(np.exp(spread * (shift + sigma * np.clip(rng.standard_normal(), -2, 2))))

    def offset(sigma: float, shift: float = 0.0) -> float:
        return float(spread * (shift + sigma * np.clip(rng.standard_normal(), -2, 2)))

    return Identity(
        face_width=factor(0.05, 0.02 * male),
        face_height=factor(0.05),
        jaw_width=factor(0.05, 0.06 * male - 0.02),
        chin=offset(0.04, 0.04 * male),
        eye_spacing=offset(0.022),
        eye_size=factor(0.10, -0.04 * male),
        brow_height=offset(0.022, -0.02 * male),
        nose_length=offset(0.03, 0.01 * male),
        nose_width=factor(0.09, 0.05 * male),
        mouth_width=factor(0.06),
        mouth_height=offset(0.02),
        lip_thickness=factor(0.14, -0.05 * male),
        wobble=spread * _smooth_field(rng),
        style=Style(
            parting=float(rng.uniform(0.1, 0.4)),
            gap=float(rng.uniform(0.75, 1.1)),
            skew=float(0.15 * np.clip(rng.standard_normal(), -1.5, 1.5)),
            lift=float(rng.uniform(0.8, 1.25)),
        ),
    )


def _smooth_field(rng: np.random.Generator) -> np.ndarray:
    """(68, 2) offsets, outer-eye distances: a Gaussian process with a length of 0.35, deviation 0.012."""
    from nemo_pipeline.synth.portrait import portrait

    face = portrait()
    points = face.landmarks / face.unit
    squared = ((points[:, None] - points[None]) ** 2).sum(-1)
    covariance = np.exp(-squared / (2 * 0.35**2)) + 1e-6 * np.eye(68)
    return 0.012 * np.linalg.cholesky(covariance) @ rng.standard_normal((68, 2))


def shaped_points(face: Portrait, who: Identity) -> np.ndarray:
    """(68, 2): where the neutral portrait's points lie in this person's head, portrait pixels."""
    neutral = expression_points(face, 0.0, 0.0, who.style).landmarks
    origin = face.landmarks[27]
    p = face.to_face(neutral, origin)
    q = p.copy()
    left, right = slice(36, 42), slice(42, 48)
    for eye, side in ((left, -1), (right, 1)):
        middle = p[eye].mean(0)
        q[eye] = (
            middle
            + (p[eye] - middle) * (1 + 0.5 * (who.eye_size - 1), who.eye_size)
            + (side * who.eye_spacing, 0)
        )
    q[17:22, 0] -= 0.7 * who.eye_spacing
    q[22:27, 0] += 0.7 * who.eye_spacing
    q[17:27, 1] -= who.brow_height
    q[28:31, 1] += who.nose_length * np.array([1 / 3, 2 / 3, 1])
    q[31:36, 1] += who.nose_length
    q[31:36, 0] = p[33, 0] + (p[31:36, 0] - p[33, 0]) * who.nose_width
    mouth = p[48:68].mean(0)
    q[48:68] = mouth + (p[48:68] - mouth) * (who.mouth_width, who.lip_thickness)
    q[48:68, 1] += 0.6 * who.nose_length + who.mouth_height
    low = np.clip((p[:17, 1] - p[0, 1]) / (p[8, 1] - p[0, 1]), 0, 1)
    q[:17, 0] = p[8, 0] + (p[:17, 0] - p[8, 0]) * (1 + (who.jaw_width - 1) * np.sin(np.pi * low) ** 0.5)
    q[:17, 1] += who.chin * low**2
    q = q * (who.face_width, who.face_height) + who.wobble
    return face.to_picture(q, origin)


class Head:
    """The smooth map from a person's head back to the portrait, and forth.

    `backward` holds, at the nodes of `PLATE`, the offset (portrait position - position in this head),
    float32.
    """

    def __init__(self, face: Portrait, who: Identity) -> None:
        self.face = face
        self.who = who
        target = expression_points(face, 0.0, 0.0, who.style).landmarks
        origin = face.landmarks[27]
        anchors = np.vstack([_HEAD_OUTLINE, skin_points(face)])
        shaped_anchors = face.to_picture(
            face.to_face(anchors, origin) * (who.face_width, who.face_height), origin
        )
        moved = shaped_points(face, who)
        # Closed lips share their inner points: one of each pair is enough, two would make the system
        # singular.
        use = [i for i in range(68) if i not in (65, 66, 67)]
        nodes = PLATE.nodes()
        # A chance shape that folds is drawn back towards the portrait's until it does not.
        for share in (1.0, 0.85, 0.7, 0.55, 0.4, 0.0):
            shaped = target + share * (moved - target)
            points = np.vstack([shaped[use], anchors + share * (shaped_anchors - anchors), _BODY])
            values = np.vstack([target[use], anchors, _BODY]) - points
            offsets = ThinPlate.fit(points, values)(nodes.reshape(-1, 2)).reshape(nodes.shape)
            if _least_stretch(nodes + offsets) > 0.35:
                break
        self.backward = offsets.astype(np.float32)

    def to_portrait(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) in this head -> (N, 2) in the portrait; exact on the grid's bilinear surface."""
        return points + bilinear(PLATE, self.backward, points)

    def from_portrait(self, points: np.ndarray) -> np.ndarray:
        """The inverse of `to_portrait`, by fixed-point steps to under 0.001 px."""
        here = points.copy()
        for _ in range(60):
            error = points - self.to_portrait(here)
            here += error
            if np.abs(error).max() < 1e-3:
                break
        return here


def _least_stretch(positions: np.ndarray) -> float:
    """Smallest determinant of the map's derivative over the cells, as a fraction of the identity's."""
    across = np.diff(positions, axis=1)[:-1] / PLATE.step
    down = np.diff(positions, axis=0)[:, :-1] / PLATE.step
    return float((across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]).min())
