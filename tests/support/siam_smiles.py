"""A prepared file whose faces smile, with landmarks, labels and names that break naive code, and runs on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.geometry import shipped_mean_shape
from nemo_pipeline.store import write_dataset
from tests.support.siam_faces import drawn_videos
from tests.support.siam_runs import TINY, train

#: Ids of the first videos: markup, HTML, mathematics, a formula, a byte that is not UTF-8, a template.
HOSTILE = (
    "clip[/b]<img src=x onerror=alert(1)>.mp4",
    "$a^^b$.mp4",
    "=HYPERLINK(1)",
    "caf\udce9.mp4",
    "</script><script>alert(2)</script>",
    "{{7*7}} & \"'\u202e",
)
#: A method and a gender that are named so.
METHOD = "<b>$x^^$</b>|[red]"
OPTIONS: dict[str, Any] = {"preset": "small", "epochs": 1, "folds": 2, "device": "cpu", "overrides": TINY}


def smile_course(length: int) -> np.ndarray:
    """(T,) 0 at rest, 1 at its height: rise from 20 to 40 %, fall from 60 to 80 %."""
    return np.interp(np.arange(length) / (length - 1), [0, 0.2, 0.4, 0.6, 0.8, 1], [0, 0, 1, 1, 0, 0])


def smiling_videos(subjects: int = 8, frames: int = 24) -> Iterator[dict[str, Any]]:
    """Two clips of each person, one posed and one spontaneous. The last clip does not smile."""
    for number, video in enumerate(drawn_videos(subjects=subjects, frames=frames, size=70)):
        length = len(video["frames"])
        course = smile_course(length) * (number < 2 * subjects - 1)
        points = np.repeat((shipped_mean_shape() * 80 + 160)[None], length, axis=0)
        points[:, 48, 0] -= 6 * course
        points[:, 54, 0] += 6 * course
        yield {
            **video,
            "id": HOSTILE[number] if number < len(HOSTILE) else video["id"],
            "subject": f"<i>{video['subject']}" if number < 4 else video["subject"],
            "gender": "<u>other</u>" if number < 2 else video["gender"],
            "landmarks": points,
            "landmarks_raw": points,
            "expression": "smile",
            "condition": ("posed", "spontaneous")[number % 2],
        }


def smiling_file(path: Path, synthetic: bool = True, **options: Any) -> Path:
    """An out.h5 of `smiling_videos`."""
    return write_dataset(path, smiling_videos(**options), synthetic=synthetic)


def trained(data: Path, out: Path, **options: Any) -> Path:
    """A run of two folds, trained for a moment."""
    return train(data, out, **{**OPTIONS, **options})


def studied(data: Path, out: Path, study: Any, **options: Any) -> Path:
    """A study of two folds, trained for a moment."""
    return train(data, out, study=study, **{**OPTIONS, **options})
