"""Smoothing in the head's own frame, in plain loops over Python's complex numbers: nothing shared with the tool but the
mean shape and the plain-loop 4253H."""

from statistics import median

from nemo_pipeline.geometry import shipped_mean_shape
from tests.reference.smoother import smooth_4253h_twice

LIMIT, REACH, ALONE, ROUNDS, ARM = 0.01, 3, 2.0, 5, 0.6
Point = complex
Similarity = tuple[complex, complex]  # z -> turn * z + shift


def _smoothed(series: list[Point]) -> list[Point]:
    xs = smooth_4253h_twice([z.real for z in series])
    ys = smooth_4253h_twice([z.imag for z in series])
    return [complex(x, y) for x, y in zip(xs, ys, strict=True)]


def _fit(source: list[Point], target: list[Point], weights: list[float]) -> Similarity:
    """Weighted least squares."""
    total = sum(weights)
    middle = sum(w * s for w, s in zip(weights, source, strict=True)) / total
    goal = sum(w * t for w, t in zip(weights, target, strict=True)) / total
    square = sum(w * abs(s - middle) ** 2 for w, s in zip(weights, source, strict=True))
    product = sum(
        w * (s - middle).conjugate() * (t - goal)
        for w, s, t in zip(weights, source, target, strict=True)
    )  # fmt: skip
    turn = product / square
    return turn, goal - turn * middle


def _own(points: list[Point], head: Similarity) -> list[Point]:
    return [(z - head[1]) / head[0] for z in points]


def heads(frames: list[list[Point]]) -> list[Similarity]:
    """Where the head is in each frame."""
    mean = [complex(x, y) for x, y in shipped_mean_shape()]
    centre = sum(mean) / 68
    mean = [z - centre for z in mean]
    found = [_fit(mean, points, [1.0] * 68) for points in frames]
    shapes = [_own(points, head) for points, head in zip(frames, found, strict=True)]
    n = len(frames)
    for t in range(n):
        reach = min(2, t, n - 1 - t)
        window = shapes[t - reach : t + reach + 1]
        usual = [
            complex(median(s[k].real for s in window), median(s[k].imag for s in window)) for k in range(68)
        ]
        for _ in range(ROUNDS):
            off = [abs(a - b) for a, b in zip(_own(frames[t], found[t]), usual, strict=True)]
            found[t] = _fit(usual, frames[t], [(LIMIT / max(r, LIMIT)) ** 2 for r in off])
    return found


def steady(series: list[Point], unit: list[float]) -> list[Point]:
    """One point over time: 4253H, twice, where it takes away noise alone."""
    n = len(series)
    clean = list(series)
    for t in range(2, n - 2):
        a, b, c, d, e = series[t - 2 : t + 3]
        before, across, after = b - a, (d - b) / 2, e - d
        away = abs(c - (b + d) / 2)
        if away > LIMIT * unit[t] and away > ALONE * max(abs(across - before), abs(after - across)):
            clean[t] = (4 * b + 4 * d - a - e) / 6
    correction = [s - z for s, z in zip(_smoothed(clean), clean, strict=True)]
    out = []
    for t in range(n):
        most = max(abs(correction[s]) / unit[s] for s in range(max(0, t - REACH), min(n, t + REACH + 1)))
        out.append(clean[t] + min(1.0, max(0.0, 2.0 - most / LIMIT)) * correction[t])
    return out


def smooth_in_head_frame(landmarks: list[list[list[float]]]) -> list[list[list[float]]]:
    """The whole smoother on T frames of 68 points."""
    frames = [[complex(x, y) for x, y in points] for points in landmarks]
    n = len(frames)
    if n < 3:
        return [[[z.real, z.imag] for z in points] for points in frames]
    found = heads(frames)
    shapes = [_own(points, head) for points, head in zip(frames, found, strict=True)]
    sides = [
        steady([shift + side * ARM * turn for turn, shift in found], [abs(turn) for turn, _ in found])
        for side in (1, -1)
    ]
    series = [steady([shape[k] for shape in shapes], [1.0] * n) for k in range(68)]
    out = []
    for t in range(n):
        right, left = sides[0][t], sides[1][t]
        turn, shift = (right - left) / (2 * ARM), (right + left) / 2
        out.append([[(turn * one[t] + shift).real, (turn * one[t] + shift).imag] for one in series])
    return out
