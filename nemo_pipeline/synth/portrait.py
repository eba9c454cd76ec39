"""The one picture that every synthetic face is made from, and what was measured on it once."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from importlib import resources

import numpy as np

from nemo_pipeline.errors import InstallationError


@dataclasses.dataclass(frozen=True, slots=True)
class Portrait:
    """`skimage.data.astronaut()` (NASA, public domain) with its measured geometry.

    Attributes:
        image: (512, 512, 3) uint8, RGB.
        landmarks: (68, 2) float64, iBUG order, pixels, 0-based pixel centres.
        mesh: (478, 3) float64, face mesh; z in the same scale, negative towards the camera.
        person, skin, hair: (512, 512) float32 in 0..1, soft masks.
        unit: distance of the outer eye corners, pixels: the length in which shapes are described here.
        across, down: unit vectors of the face's own axes in the picture (the head is tilted by about 3
            degrees).
    """

    image: np.ndarray
    landmarks: np.ndarray
    mesh: np.ndarray
    person: np.ndarray
    skin: np.ndarray
    hair: np.ndarray
    unit: float
    across: np.ndarray
    down: np.ndarray

    def to_face(self, points: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Picture coordinates (..., 2) -> face axes about `origin`, in units of the outer-eye distance."""
        offset = (points - origin) / self.unit
        return np.stack([offset @ self.across, offset @ self.down], axis=-1)

    def to_picture(self, points: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """The inverse of `to_face`."""
        return origin + self.unit * (points[..., :1] * self.across + points[..., 1:] * self.down)


@functools.cache
def portrait() -> Portrait:
    """Load the picture and its constants.

    Raises:
        NemoError: scikit-image ships another picture than the one that was measured.
    """
    import cv2
    from skimage import data

    folder = resources.files("nemo_pipeline.data")
    constants = json.loads(folder.joinpath("portrait.json").read_text(encoding="utf-8"))
    image = np.ascontiguousarray(data.astronaut())
    if hashlib.sha256(image.tobytes()).hexdigest() != constants["sha256"]:
        raise InstallationError(
            "The portrait in this version of scikit-image (skimage.data.astronaut) is not the picture "
            "that nemo's synthetic faces were measured on; install the version of scikit-image that "
            "constraints.txt names.",
            "scikit-image",
        )
    packed = np.frombuffer(folder.joinpath("portrait_masks.png").read_bytes(), np.uint8)
    masks = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.float32) / 255
    hair, skin, person = np.moveaxis(masks, -1, 0)
    landmarks = np.array(constants["landmarks"])
    axis = landmarks[45] - landmarks[36]
    unit = float(np.hypot(*axis))
    across = axis / unit
    return Portrait(
        image=image,
        landmarks=landmarks,
        mesh=np.array(constants["mesh"]),
        person=person,
        skin=skin,
        hair=hair,
        unit=unit,
        across=across,
        down=np.array([-across[1], across[0]]),
    )
