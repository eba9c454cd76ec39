"""A prepared file for the tests of reports: drawn faces that smile, with known phases and gaps, and hostile names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.geometry import shipped_mean_shape
from nemo_pipeline.store import write_dataset

SIZE = 48
#: Names that break naive code: markup, HTML, mathematics, a byte that is not UTF-8, a script's end, a formula.
HOSTILE = (
    "clip[/b]<img src=x onerror=alert(1)>",
    "$a^^b$",
    "caf\udce9",
    "</script><script>alert(2)</script>",
    "=HYPERLINK(1)",
    "{{7*7}} & \"'\u202e",
)


def smile(length: int) -> np.ndarray:
    """(T,) 0 at rest, 1 at its height: rest, rise from 20 to 40 %, height, fall from 60 to 80 %, rest."""
    return np.interp(np.arange(length) / (length - 1), [0, 0.2, 0.4, 0.6, 0.8, 1], [0, 0, 1, 1, 0, 0])


def smiling(name: str, length: int = 60, **changes: Any) -> dict[str, Any]:
    """One video: eyes 80 pixels apart, lip corners that move outwards, everything tracked and well seen."""
    rng = np.random.default_rng(len(name))
    points = np.repeat((shipped_mean_shape() * 80 + 160)[None], length, axis=0)
    points[:, 48, 0] -= 6 * smile(length)
    points[:, 54, 0] += 6 * smile(length)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE - 0.5
    oval = (x / 0.42) ** 2 + (y / 0.48) ** 2 < 1
    face = np.where(oval, 130 + 40 * np.sin(9 * x) * smile(length)[:, None, None], 0)
    return {
        "id": name,
        "file": f"{name}.mp4",
        "frames": face.astype(np.uint8),
        "landmarks": points,
        "landmarks_raw": points + rng.normal(0, 0.1, points.shape),
        "pose": np.tile([4.0, -2.0, 1.0], (length, 1)),
        "eye_distance_px": np.full(length, 80.0),
        "sharpness": np.full(length, 100.0),
        "face_presence": np.full(length, 0.99),
        "fps": 25.0,
        "width": 320,
        "height": 320,
        "subject": "s1",
        "age": 30.0,
        "n_decoded": length,
        **changes,
    }


def videos() -> Iterator[dict[str, Any]]:
    """Sound ones with hostile names, one for each kind of doubt, and two that failed."""
    for number, name in enumerate(HOSTILE):
        yield smiling(name, age=20.0 + number, subject=name)
    tracked = np.ones(60, bool)
    tracked[10:20] = tracked[30:33] = False
    yield smiling("gaps", tracked=tracked)
    yield smiling("turned", pose=np.tile([-38.0, 0, 0], (60, 1)))
    yield smiling("small", eye_distance_px=np.full(60, 9.0))
    yield smiling("many", n_faces=np.full(60, 3), face_presence=np.full(60, 0.3), sharpness=np.full(60, 5.0))
    yield smiling("cut", status="damaged", message="The file is cut off (9 bytes missing).", n_decoded=400)
    yield smiling("without landmarks") | {"landmarks": np.full((60, 68, 2), np.nan),
                                          "landmarks_raw": np.full((60, 68, 2), np.nan)}  # fmt: skip
    nothing = {"frames": np.zeros((0, SIZE, SIZE), np.uint8), "fps": 0.0, "width": 0, "height": 0}
    yield {
        "id": "nobody",
        **nothing,
        "status": "no_face",
        "message": "No face in <90> frames.",
        "n_decoded": 90,
    }
    yield {"id": "broken", **nothing, "status": "decode_error", "message": "It cannot be opened."}


def smiling_file(folder: Path) -> Path:
    """All of `videos` as a prepared file."""
    return write_dataset(folder / "smiles.h5", videos())
