"""The same networks through MediaPipe's Face Landmarker (Tasks API). The only importer of mediapipe."""

from __future__ import annotations

import atexit
import math
import os
import signal
import threading

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline import bundle
from nemo_pipeline.errors import InstallationError
from nemo_pipeline.stages.landmarks import Detection, face_region

GL_ADVICE = (
    "MediaPipe needs the libraries libEGL and libGLESv2, which this machine lacks; on Debian or Ubuntu: "
    "apt-get install -y libegl1 libgles2 libgl1 (or use `engine=litert`, which needs neither)."
)

#: Detector score of a face beyond doubt (the same as the search asks of the other engine).
CERTAIN = 0.78


def _ignore_profiling_timer() -> None:
    """MediaPipe's library runs a profiling timer (SIGPROF) for itself and handles it outside Python's knowledge.

    Whoever saves and restores Python's signal handlers afterwards puts the default one back, and the
    next tick ends the process. Nobody here reads that profile: ignore the signal.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGPROF, signal.SIG_IGN)


class MediapipeEngine:
    """MediaPipe's Face Landmarker in IMAGE mode: no filter over time, so no lag; it gives no presence score (NaN)."""

    name = "mediapipe"

    def __init__(self) -> None:
        os.environ.setdefault("GLOG_minloglevel", "3")
        try:
            import mediapipe as mp
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            if "libEGL" in str(error) or "libGLES" in str(error) or "libGL" in str(error):
                raise InstallationError(GL_ADVICE, "mediapipe") from None
            raise InstallationError(
                f"mediapipe cannot be imported ({error}); reinstall nemo-faces.", "mediapipe"
            ) from None
        self._mp = mp
        data, _ = bundle.read_bundle()
        try:
            # MediaPipe withholds its detector's score, so certainty is asked for by the threshold.
            self._one, self._many, self._certain = (
                vision.FaceLandmarker.create_from_options(
                    vision.FaceLandmarkerOptions(
                        base_options=BaseOptions(model_asset_buffer=data),
                        running_mode=vision.RunningMode.IMAGE,
                        num_faces=n,
                        min_face_detection_confidence=score,
                    )
                )
                for n, score in ((1, 0.5), (10, 0.5), (10, CERTAIN))
            )
        except OSError as error:
            raise InstallationError(f"{GL_ADVICE} ({error})", "mediapipe") from None
        _ignore_profiling_timer()
        # At the end of the process its own clean-up comes too late (its threads are gone) and prints a traceback;
        # the system takes everything back anyway.
        for landmarker in (self._one, self._many, self._certain):
            atexit.register(setattr, landmarker, "close", lambda: None)

    def _detect(self, landmarker: object, view: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        image = self._mp.Image(image_format=self._mp.ImageFormat.SRGB, data=np.ascontiguousarray(view))
        side = view.shape[0]
        faces = landmarker.detect(image).face_landmarks  # type: ignore[attr-defined]
        return [
            np.array([(p.x, p.y, p.z) for p in face], dtype=np.float32) * side - (0.5, 0.5, 0.0)
            for face in faces
        ]

    def detect(self, view: NDArray[np.uint8]) -> list[Detection]:
        """Faces in a view, largest first; every score is 1."""
        return self._faces(self._many, view)

    def confirm(self, view: NDArray[np.uint8]) -> list[Detection]:
        """Faces in a view that the detector gives at least `CERTAIN`; every score is 1."""
        return self._faces(self._certain, view)

    def _faces(self, landmarker: object, view: NDArray[np.uint8]) -> list[Detection]:
        regions = [face_region(points) for points in self._detect(landmarker, view)]
        return [
            Detection(r.cx, r.cy, r.size / 1.5, r.angle, 1.0) for r in sorted(regions, key=lambda r: -r.size)
        ]

    def mesh(self, view: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float] | None:
        """(478, 3) points in view pixels; the face nearest the view's middle."""
        faces = self._detect(self._one, view)
        if not faces:
            return None
        middle = (view.shape[0] - 1) / 2
        face = min(faces, key=lambda f: float(np.hypot(*(f[:, :2].mean(axis=0) - middle))))
        return face.astype(np.float32), math.nan
