"""Signs of age on the skin, as layers of relative brightness over the portrait.

A line is dark in its valley and light on both shoulders: the difference of two blurs of a drawn curve, whose
mean is zero, so that the brightness of a face says nothing of its age. Depth grows with age from an onset of
its own kind; "resting" lines are always there, "moving" ones deepen with the expression.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from nemo_pipeline.synth.portrait import Portrait

#: A curve's point: a landmark (or the mean of two) and an offset in face axes, outer-eye distances.
CurvePoint = tuple[int | tuple[int, int], float, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One kind of line.

    Attributes:
        onset, full: years at which it begins and at which it has its whole depth.
        resting, smiling, disgusted: depth (relative darkening of the valley) at rest, and what a full
            expression adds.
        width: standard deviation of the valley, in portrait pixels.
    """

    onset: float
    full: float
    resting: float
    smiling: float
    disgusted: float
    width: float


KINDS: dict[str, Kind] = {
    "nasolabial": Kind(14, 72, 0.25, 0.15, 0.12, 1.3),
    "crow": Kind(18, 70, 0.12, 0.22, 0.10, 0.6),
    "under_eye": Kind(14, 68, 0.21, 0.09, 0.08, 0.8),
    "bag": Kind(28, 74, 0.18, 0.05, 0.04, 1.5),
    "glabella": Kind(26, 74, 0.22, 0.0, 0.26, 0.8),
    "forehead": Kind(22, 74, 0.18, 0.0, 0.05, 0.8),
    "radix": Kind(32, 76, 0.11, 0.08, 0.26, 0.7),
    "marionette": Kind(32, 74, 0.21, 0.05, 0.04, 1.2),
    "perioral": Kind(42, 76, 0.17, 0.0, 0.04, 0.5),
    "cheek": Kind(28, 74, 0.08, 0.10, 0.05, 1.0),
    "chin": Kind(34, 76, 0.15, -0.03, 0.06, 1.2),
}
#: Left-sided curves; the right side mirrors them. Kinds in `_MIDDLE` are drawn once.
_LEFT: dict[str, list[list[CurvePoint]]] = {
    "nasolabial": [
        [(31, -0.066, -0.118), (31, -0.16, -0.02), (48, -0.096, -0.07), (48, -0.085, 0.03), (48, -0.06, 0.1)]
    ],
    "crow": [
        [(36, -0.055, -0.03), (36, -0.12, -0.075), (36, -0.17, -0.13)],
        [(36, -0.06, -0.005), (36, -0.13, -0.02), (36, -0.20, -0.05)],
        [(36, -0.06, 0.02), (36, -0.13, 0.035), (36, -0.205, 0.035)],
        [(36, -0.05, 0.045), (36, -0.11, 0.085), (36, -0.18, 0.115)],
        [(36, -0.03, 0.075), (36, -0.08, 0.135), (36, -0.14, 0.19)],
    ],
    "under_eye": [
        [(39, -0.02, 0.045), ((40, 41), 0.0, 0.07), (36, 0.02, 0.06), (36, -0.02, 0.05)],
        [(39, 0.0, 0.07), ((40, 41), 0.01, 0.105), (41, -0.02, 0.10)],
    ],
    "bag": [[(39, 0.02, 0.09), ((40, 41), 0.0, 0.165), (36, 0.03, 0.14), (36, -0.03, 0.09)]],
    "glabella": [[(27, -0.06, -0.21), (27, -0.05, -0.13), (27, -0.062, -0.05)]],
    "marionette": [[(48, -0.02, 0.055), (48, -0.035, 0.13), (48, -0.02, 0.22)]],
    "cheek": [
        [(36, -0.10, 0.15), (36, -0.05, 0.27), (36, 0.0, 0.36)],
        [(36, -0.14, 0.24), (36, -0.10, 0.36), (36, -0.045, 0.47)],
    ],
}
_MIDDLE: dict[str, list[list[CurvePoint]]] = {
    "forehead": [
        [(18, 0.0, -0.035), (20, 0.0, -0.05), ((21, 22), 0.0, -0.085), (23, 0.0, -0.05), (25, 0.0, -0.035)],
        [
            (18, 0.01, -0.085),
            (20, 0.0, -0.10),
            ((21, 22), 0.0, -0.135),
            (23, 0.0, -0.10),
            (25, -0.01, -0.085),
        ],
    ],
    "radix": [
        [(27, -0.065, 0.015), (27, 0.0, 0.0), (27, 0.065, 0.015)],
        [(27, -0.07, 0.05), (27, 0.0, 0.04), (27, 0.07, 0.05)],
    ],
    "chin": [[(57, -0.14, 0.085), (57, 0.0, 0.06), (57, 0.14, 0.085)]],
    "perioral": [
        [(49, 0.02, -0.012), (49, 0.012, -0.055)],
        [(49, 0.07, -0.014), (49, 0.065, -0.06)],
        [(50, 0.0, -0.014), (50, -0.004, -0.06)],
        [(52, 0.0, -0.014), (52, 0.004, -0.06)],
        [(53, -0.07, -0.014), (53, -0.065, -0.06)],
        [(53, -0.02, -0.012), (53, -0.012, -0.055)],
        [(58, -0.03, 0.012), (58, -0.035, 0.05)],
        [(56, 0.03, 0.012), (56, 0.035, 0.05)],
    ],
}
#: Left landmark -> its mirror.
_MIRROR = {36: 45, 39: 42, 40: 47, 41: 46, 31: 35, 48: 54, 27: 27}


def _mirrored(curve: list[CurvePoint]) -> list[CurvePoint]:
    def other(index: int | tuple[int, int]) -> int | tuple[int, int]:
        return _MIRROR[index] if isinstance(index, int) else (_MIRROR[index[0]], _MIRROR[index[1]])

    return [(other(index), -dx, dy) for index, dx, dy in curve]


def curves() -> dict[str, list[list[CurvePoint]]]:
    """Every kind's curves, both sides."""
    both = {kind: lines + [_mirrored(line) for line in lines] for kind, lines in _LEFT.items()}
    return {**both, **_MIDDLE}


@dataclasses.dataclass(frozen=True, slots=True)
class Lines:
    """One person's lines: their course and relative depth, not their age.

    Attributes:
        courses: per kind, smooth polylines (K, 2) in portrait pixels.
        depths: per kind, one factor about 1 for each polyline.
    """

    courses: dict[str, list[np.ndarray]]
    depths: dict[str, np.ndarray]


def draw_lines(rng: np.random.Generator, face: Portrait) -> Lines:
    """A person's lines, by chance: independent of age, which only sets how deep they are."""
    from scipy.interpolate import make_interp_spline

    axes = face.unit * np.stack([face.across, face.down])
    courses: dict[str, list[np.ndarray]] = {}
    depths: dict[str, np.ndarray] = {}
    for kind, lines in curves().items():
        personal = float(np.exp(0.15 * np.clip(rng.standard_normal(), -2, 2)))
        courses[kind] = []
        depths[kind] = personal * np.exp(0.2 * np.clip(rng.standard_normal(len(lines)), -2, 2))
        for line in lines:
            points = np.array(
                [
                    face.landmarks[list(i) if isinstance(i, tuple) else [i]].mean(0) + np.array(o) @ axes
                    for i, *o in line
                ]
            )
            points += 0.012 * face.unit * rng.standard_normal(2)
            points += 0.006 * face.unit * rng.standard_normal(points.shape)
            spline = make_interp_spline(np.linspace(0, 1, len(points)), points, k=min(2, len(points) - 1))
            courses[kind].append(spline(np.linspace(0, 1, 24)))
    return Lines(courses, depths)


def age_depth(kind: Kind, age: float) -> float:
    """0 at the onset, 1 at `full` years and beyond, in between a straight rise."""
    return float(np.clip((age - kind.onset) / (kind.full - kind.onset), 0, 1))


def line_layers(
    lines: Lines, age: float, expression: str, box: tuple[int, int, int, int], scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Resting and moving layers over a box of the portrait.

    Args:
        lines: the person's lines.
        age: years.
        expression: "smile" or "disgust": what the moving layer answers to.
        box: left, top, right, bottom in portrait pixels.
        scale: texture pixels per portrait pixel.

    Returns:
        Two (height, width) float32 arrays, natural logarithm of brightness: the first always applies, the
        second times the expression's intensity.
    """

    left, top, right, bottom = box
    height, width = round((bottom - top) * scale), round((right - left) * scale)
    layers = np.zeros((2, height, width), np.float32)
    for sigma in sorted({kind.width for kind in KINDS.values()}):
        for layer in range(2):
            canvas = np.zeros((height, width), np.uint8)
            drawn = False
            for name, kind in KINDS.items():
                moving = kind.smiling if expression == "smile" else kind.disgusted
                depth = age_depth(kind, age) * (kind.resting if layer == 0 else moving)
                if kind.width != sigma or depth <= 0:
                    continue
                for course, factor in zip(lines.courses[name], lines.depths[name], strict=True):
                    _draw(canvas, ((course - (left, top) + 0.5) * scale - 0.5), depth * factor)
                    drawn = True
            if drawn:
                layers[layer] -= _valley(canvas, sigma * scale)
    return layers[0], layers[1]


def _draw(canvas: np.ndarray, points: np.ndarray, depth: float) -> None:
    """A curve one pixel wide, fading out at both ends; 255 is a depth of 1."""
    import cv2

    fixed = np.round(points * 16).astype(int)
    count = len(points) - 1
    for k in range(count):
        fade = min(1.0, 4 * (k + 0.5) / count, 3 * (count - k - 0.5) / count)
        value = round(255 * min(depth * fade, 1.0))
        cv2.line(canvas, fixed[k].tolist(), fixed[k + 1].tolist(), value, 1, cv2.LINE_AA, 4)


def _valley(canvas: np.ndarray, sigma: float) -> np.ndarray:
    """Depth profile of drawn curves: narrow blur minus wide blur, of equal sums, 1 at the bottom of a
    valley."""
    import cv2

    line = canvas.astype(np.float32) / 255
    peak = np.sqrt(2 * np.pi) * max(sigma, 0.4)
    narrow = cv2.GaussianBlur(line, (0, 0), max(sigma, 0.4))
    wide = cv2.GaussianBlur(line, (0, 0), 4 * max(sigma, 0.4))
    return (peak / (1 - 1 / 4)) * (narrow - wide)
