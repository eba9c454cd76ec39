"""Head rotation in 3-D: the portrait's depth, and where a turned head's points lie."""

from __future__ import annotations

import functools

import numpy as np

from nemo_pipeline.synth.identity import PLATE, Head
from nemo_pipeline.synth.portrait import Portrait, portrait
from nemo_pipeline.synth.tps import ThinPlate, bilinear

#: The neck's joint, portrait pixels: rotations leave it where it is.
PIVOT = np.array([224.0, 160.0])
#: The neck follows the head less and less between these rows of the portrait; the shoulders do not move.
_NECK = (172.0, 205.0)
#: Outline of hair and ears, which lies in the pivot's plane or behind.
_OUTLINE = np.array(
    [
        (157, 80),
        (163, 50),
        (187, 28),
        (225, 18),
        (262, 28),
        (287, 50),
        (298, 85),
        (290, 115),
        (272, 132),
        (175, 128),
    ],
    dtype=np.float64,
)


@functools.cache
def _depth() -> np.ndarray:
    """(rows, columns, 1) float64 at PLATE's nodes: distance in front of the neck's joint, portrait pixels; 0
    where nothing turns with the head (the shoulders)."""
    face = portrait()
    mesh = face.mesh[:468]
    # The outline of the mesh lies about a third of a head in front of the joint; hair closes the head around
    # it.
    depth = -mesh[:, 2] + 45.0
    keep = np.arange(0, 468, 3)
    points = np.vstack([mesh[keep, :2], _OUTLINE, _FRINGE])
    values = np.concatenate([depth[keep], np.full(len(_OUTLINE), 0.0), np.full(len(_FRINGE), 50.0)])
    nodes = PLATE.nodes()
    field = ThinPlate.fit(points, values[:, None], smoothing=0.02)(nodes.reshape(-1, 2)).reshape(
        *nodes.shape[:2], 1
    )
    return np.clip(field, -20, 80)


#: Hair over the forehead: as far in front as the forehead itself.
_FRINGE = np.array([(190, 62), (225, 48), (260, 62), (225, 62)], dtype=np.float64)


def _follows(points: np.ndarray) -> np.ndarray:
    """Share (..., 1) of the head's rotation that each portrait position takes."""
    x = np.clip((_NECK[1] - points[..., 1:2]) / (_NECK[1] - _NECK[0]), 0, 1)
    return x * x * (3 - 2 * x)


class Turn:
    """Rotation of one person's head.

    Angles in degrees: yaw > 0 turns the face towards the picture's right, pitch > 0 looks up, roll > 0 tilts
    the head clockwise as seen in the picture. Parallel projection.
    """

    def __init__(self, face: Portrait, head: Head) -> None:
        nodes = PLATE.nodes()
        flat = nodes.reshape(-1, 2)
        at_portrait = head.to_portrait(flat)
        offset = np.concatenate([flat - PIVOT, bilinear(PLATE, _depth(), at_portrait)], axis=1)
        self._turning = (offset * _follows(at_portrait)).astype(np.float32)

    @staticmethod
    def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
        """(2, 3): picture x, y of a point (x right, y down, z towards the camera) after the rotation."""
        a, b, c = np.radians([yaw, pitch, roll])
        turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
        nod = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        tilt = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
        return (tilt @ nod @ turn)[:2]

    def field(self, yaw: float, pitch: float, roll: float) -> np.ndarray:
        """Offsets (turned position - position) at PLATE's nodes, (rows, columns, 2) float32."""
        change = (self._rotation(yaw, pitch, roll) - np.eye(2, 3)).astype(np.float32)
        return (self._turning @ change.T).reshape(PLATE.rows, PLATE.columns, 2)

    def forward(self, points: np.ndarray, field: np.ndarray) -> np.ndarray:
        """(N, 2) positions in the unturned head -> where they lie after the turn of `field`."""
        return points + bilinear(PLATE, field, points)
