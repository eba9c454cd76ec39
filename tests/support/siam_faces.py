"""Small data sets for the tests of `siam_model`: drawn faces, written by the store's own writer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.geometry import shipped_mean_shape
from nemo_pipeline.store import write_dataset


def drawn_videos(
    subjects: int = 12, clips: int = 2, frames: int = 12, size: int = 114, seed: int = 0, **labels: Any
) -> Iterator[dict[str, Any]]:
    """Videos of an oval with stripes: their contrast grows with age, and comes and goes like a smile.

    Brightness and the oval's blobs are the subject's own and say nothing about age. Lengths differ by a few
    frames.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    oval = (x / 0.42) ** 2 + (y / 0.48) ** 2 < 1
    stripes = np.sin(2 * np.pi * 16 * y) * (np.abs(y - 0.15) < 0.2)
    ages = rng.permutation(np.linspace(10, 75, subjects).round())
    for subject in range(subjects):
        gray, contrast = rng.uniform(90, 150), rng.uniform(0.8, 1.2)
        centres = rng.uniform(-0.4, 0.4, (6, 2))
        blobs = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.01) for a, b in centres)
        for clip in range(clips):
            length = frames - int(rng.integers(0, max(1, frames // 6)))
            smile = np.sin(np.linspace(0, np.pi, length)) ** 2
            wave = 0.5 + 0.5 * smile[:, None, None]
            face = gray + contrast * 12 * blobs + 0.5 * ages[subject] * wave * stripes
            noisy = np.where(oval, face + rng.normal(0, 4, (length, size, size)), 0)
            video = {
                "id": f"{subject:03d}_{clip}",
                "frames": np.clip(noisy, 0, 255).astype(np.uint8),
                "subject": f"s{subject:03d}",
                "age": float(ages[subject]),
                "gender": "female" if subject % 2 else "male",
            }
            yield {**video, **labels}


def drawn_file(path: Path, synthetic: bool = False, **options: Any) -> Path:
    """An out.h5 of `drawn_videos`."""
    return write_dataset(path, drawn_videos(**options), synthetic=synthetic)


def smiling(length: int, rng: np.random.Generator) -> np.ndarray:
    """(T,68,2) points of a face that smiles once and moves, turns and grows meanwhile."""
    course = np.sin(np.linspace(0, np.pi, length)) ** 2
    points = np.repeat(shipped_mean_shape()[None], length, axis=0) + rng.normal(0, 2e-3, (1, 68, 2))
    width = np.ptp(points[0, [48, 54], 0])
    points[:, [48, 54], 0] += 0.15 * width * np.outer(course, [-1, 1])
    turn = np.linspace(0, rng.uniform(-0.2, 0.2), length)
    rotation = np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], -1).reshape(-1, 2, 2)
    scale = 100 * np.linspace(1, rng.uniform(0.8, 1.2), length)[:, None, None]
    return scale * np.einsum("tij,tkj->tki", rotation, points) + rng.uniform(50, 150, 2)


def smiling_file(path: Path, changed: tuple[int, ...] = (), landmarks: bool = True, **options) -> Path:
    """Twelve drawn subjects, two clips each; the points of the videos `changed` are others."""

    def videos():
        for i, video in enumerate(drawn_videos(12, 2, 8, 62)):
            rng = np.random.default_rng([i, i in changed])
            points = smiling(len(video["frames"]), rng)
            if i in changed:  # another smile, at another time
                points = np.roll(points, 3, axis=0)
            yield video | ({"landmarks": points.astype(np.float32)} if landmarks else {}) | options

    return write_dataset(path, videos())
