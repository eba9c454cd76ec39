"""The course of an expression over time, and how age and condition shape it."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True)
class Course:
    """Intensity of one expression over a clip, with its phases.

    Attributes:
        intensity: (T,) float64.
        onset, apex, offset: first frame and the frame after the last, of the rise, the plateau and the fall.
    """

    intensity: np.ndarray
    onset: tuple[int, int]
    apex: tuple[int, int]
    offset: tuple[int, int]


def ease(x: np.ndarray) -> np.ndarray:
    """Minimum-jerk rise from 0 to 1 (Flash and Hogan 1985); flat outside."""
    x = np.clip(x, 0, 1)
    return x**3 * (10 - 15 * x + 6 * x**2)


def natural_course(
    rng: np.random.Generator, age: float, condition: str, dynamics: float, frames: int, fps: float
) -> Course:
    """An expression whose speed, duration and size depend on age: older faces rise and fall more slowly and
    less far.

    Posed expressions are quicker and larger than spontaneous ones, at every age. How long the clip is never depends on
    age; when the expression begins and how long it is held are chance within what the slower courses of the old leave
    of the clip.

    Args:
        rng: the clip's generator.
        age: years.
        condition: "posed" or "spontaneous".
        dynamics: factor on age's influence; 0 gives everyone the course of middle age.
        frames, fps: the clip.
    """
    ageing = float(np.clip((age - 8) / 68, 0, 1))
    ageing = 0.5 + dynamics * (ageing - 0.5)
    posed = condition == "posed"
    rise = (
        (0.26 if posed else 0.40) * (1 + 1.2 * ageing) * np.exp(0.12 * np.clip(rng.standard_normal(), -2, 2))
    )
    fall = (
        (0.34 if posed else 0.50) * (1 + 1.1 * ageing) * np.exp(0.12 * np.clip(rng.standard_normal(), -2, 2))
    )
    hold = rng.uniform(0.24, 0.5)
    size = (1.05 if posed else 0.95) - 0.32 * ageing + 0.05 * np.clip(rng.standard_normal(), -2, 2)
    base = rng.uniform(0.0, 0.05)

    counts = np.maximum(np.round(np.array([rise, hold, fall]) * fps).astype(int), 2)
    spare = frames - int(counts.sum())
    if spare < 4:  # a clip too short for all of it is sped up as a whole
        counts = np.maximum((counts * (frames - 4) / counts.sum()).astype(int), 1)
        spare = frames - int(counts.sum())
    before = int(rng.integers(2, spare - 1)) if spare > 4 else 2
    starts = before + np.concatenate([[0], np.cumsum(counts)])
    up, top, down, end = (int(start) for start in starts)
    at = np.arange(frames)
    intensity = ease((at - up) / (top - up)) * (1 - ease((at - down + 1) / (end - down)))
    return Course(base + (size - base) * intensity, (up, top), (top, down), (down, end))


def balanced_course(
    rng: np.random.Generator, age: float, dynamics: float, frames: int, size: float = 1.0
) -> Course:
    """An expression that shows the same set of intensities at every age, in another order and tempo.

    The intensities are the quantiles of one fixed smile, whatever the age. Each goes either into the rise or into the
    fall: a young face rises in few, large steps and falls in many, an old face the other way round. Frames taken
    singly therefore carry no age; their order does. Which intensities the shorter of the two movements takes is chance,
    one of every stretch, so that hardly two clips share a course.

    Args:
        rng: the clip's generator.
        age: years.
        dynamics: factor on age's influence on the tempo; 0 gives everyone equal rise and fall.
        frames: length of the clip; the set of intensities depends on it alone.
        size: the largest intensity.
    """
    still, held = round(0.2 * frames), round(0.2 * frames)
    moving = frames - still - held
    levels = ease((np.arange(moving) + 0.5) / moving)
    ageing = float(np.clip((age - 8) / 68, 0, 1))
    share = 0.5 + dynamics * (0.2 + 0.6 * ageing - 0.5) + 0.04 * np.clip(rng.standard_normal(), -2, 2)
    count = int(np.clip(round(share * moving), 3, moving - 3))
    # The shorter movement takes one intensity of every stretch, by chance; the rest are the other's.
    fewer = min(count, moving - count)
    edges = np.round(np.arange(fewer + 1) * moving / fewer).astype(int)
    picked = np.zeros(moving, bool)
    picked[rng.integers(edges[:-1], edges[1:])] = True
    if fewer < count:
        picked = ~picked
    rise, fall = levels[picked], levels[~picked][::-1]
    before = int(rng.integers(1, still)) if still > 1 else still
    intensity = np.concatenate([np.zeros(before), rise, np.ones(held), fall, np.zeros(still - before)])
    up, top = before, before + len(rise)
    down, end = top + held, top + held + len(fall)
    return Course(size * intensity, (up, top), (top, down), (down, end))


def head_motion(rng: np.random.Generator, frames: int, fps: float, motion: float) -> np.ndarray:
    """(T, 3) yaw, pitch, roll in degrees: a constant pose and slow sways about it; none of it depends on
    age."""
    seconds = np.arange(frames)[:, None] / fps
    pose = rng.uniform(-1, 1, 3) * (5.0, 4.0, 3.0)
    sway = np.zeros((frames, 3))
    for _ in range(3):
        rate = rng.uniform(0.15, 0.9, 3)
        sway += rng.uniform(0, 1, 3) * np.sin(2 * np.pi * (rate * seconds + rng.uniform(0, 1, 3)))
    return motion * (pose + sway * (1.6, 1.2, 0.9))
