"""Displacement: how lips, eyelids and cheeks move over onset, apex and offset.

Dibeklioglu, Salah, Gevers and Valenti, ACM Multimedia 2012, of which the abstract was found. That its features are the
25 of the authors' later work on genuine smiles is assumed. Without a face mesh there are no cheeks: their features are
0 then.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from siam_model.methods.base import Dynamics
from siam_model.methods.inputs import Video
from siam_model.methods.signal_features import FEATURES, PHASES, phase_features
from siam_model.methods.signals import Signal, eyelid, face_points, lip, smoothed

SIGNALS = ("lip", "eyelid", "cheek")


def displacement_features(video: Video) -> NDArray[np.float64]:
    """(3, 3, 25): lip, eyelid and cheek in onset, apex and offset. All 0 where the landmarks are of no use."""
    try:
        points = face_points(video.landmarks, video.mesh)
        signals: list[Signal | None] = [
            smoothed(lip(points.lip_right, points.lip_left)),
            smoothed(eyelid(points.right_eye, points.left_eye, points.right_lid, points.left_lid)),
            smoothed(lip(*points.cheeks)) if points.cheeks is not None else None,
        ]
    except ValueError:
        return np.zeros((len(SIGNALS), len(PHASES), len(FEATURES)))
    return phase_features(video, signals)


class Displacement(Dynamics):
    """Ages from selected displacement features."""

    descriptor = "displacement"
