"""Where the time of one video goes: CPU milliseconds a frame by stage, of nemo and of the obvious script.

Used by `prep.py`. nemo's public functions are wrapped by a clock while `process_video` runs as it is; the script is
written out with a clock around each of its four steps.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from common import USUAL_TABLE


class Clock:
    """Sums CPU seconds by name; what a wrapped call spends inside another wrapped one counts there alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        """Replace `owner.name` by itself with a clock."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.process_time() - start
                self.seconds[stage] += spent - self._inner.pop()
                self._inner[-1] += spent

        setattr(owner, name, timed)


def our_stages(clip: str) -> dict[str, float]:
    """CPU ms a frame of every stage of `process_video`, "the rest" included: they add up to the whole."""
    from nemo_pipeline import person, video
    from nemo_pipeline.config import PrepConfig
    from nemo_pipeline.stages import cuts, decode, engine_litert, frame, quality, smooth, warp

    clock, folder = Clock(), tempfile.TemporaryDirectory()
    stem = Path(folder.name) / "clip"
    video.process_video(clip, PrepConfig(), stem)  # the engine is loaded, caches are warm
    iterate = decode.VideoReader.__iter__

    def pictures(reader: Any) -> Any:
        frames = iterate(reader)
        step = type("Step", (), {"next": staticmethod(lambda: next(frames, None))})
        clock.wrap(step, "next", "decode")
        while (one := step.next()) is not None:  # type: ignore[attr-defined]
            yield one

    decode.VideoReader.__iter__ = pictures  # type: ignore[method-assign]
    clock.wrap(frame.Frame, "view", "the face's region in RGB")
    clock.wrap(cuts.Glimpse, "of_all", "cuts (same person?)")
    clock.wrap(cuts.Shot, "end_before", "cuts (same person?)")
    clock.wrap(engine_litert.LitertEngine, "mesh", "landmark network")
    clock.wrap(engine_litert.LitertEngine, "detect", "detector (census, checks)")
    clock.wrap(video, "observe_all", "68 points and pose")
    clock.wrap(warp.FaceWarp, "cut_patch", "low-pass")
    clock.wrap(warp.FaceWarp, "warp_patch", "warp")
    clock.wrap(smooth.StreamSmoother, "push", "smoothing")
    clock.wrap(quality.FaceQuality, "measures", "quality")
    clock.wrap(quality.FaceQuality, "fault", "quality")
    clock.wrap(person.PersonRecorder, "_record", "records")
    clock.wrap(person.FaceWriter, "_write", "records")
    start = time.process_time()
    result = video.process_video(clip, PrepConfig(), stem)
    whole = time.process_time() - start
    stages = dict(clock.seconds)
    stages["the rest"] = whole - sum(stages.values())
    return {name: seconds / result.n_decoded * 1e3 for name, seconds in stages.items()}


def script_stages(clip: str, frames: int) -> dict[str, float]:
    """CPU ms a frame of the obvious script's steps."""
    import cv2
    import mediapipe as mp
    import numpy as np
    from mediapipe.tasks.python import BaseOptions, vision
    from skimage.transform import PiecewiseAffineTransform, warp

    from nemo_pipeline.bundle import shipped_path
    from nemo_pipeline.geometry import shipped_template

    cv2.setNumThreads(1)
    target = shipped_template().landmarks
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(shipped_path())), running_mode=vision.RunningMode.VIDEO
    )
    seconds: dict[str, float] = defaultdict(float)
    done, warm = 0, 5
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        capture = cv2.VideoCapture(clip)
        while done < frames + warm:
            marks = [time.process_time()]
            ok, bgr = capture.read()
            if not ok:
                break
            rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            marks.append(time.process_time())
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=rgb)
            found = landmarker.detect_for_video(image, done * 20)
            marks.append(time.process_time())
            if found.face_landmarks:
                size = rgb.shape[1], rgb.shape[0]
                face = np.array([(p.x * size[0], p.y * size[1]) for p in found.face_landmarks[0]])
                transform = PiecewiseAffineTransform()
                transform.estimate(target, face[USUAL_TABLE])
                marks.append(time.process_time())
                gray = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
                warp(gray, transform, output_shape=(114, 114), order=1, preserve_range=True)
                marks.append(time.process_time())
            done += 1
            if done > warm:
                names = (
                    "VideoCapture, BGR to RGB",
                    "FaceLandmarker",
                    "estimate (scikit-image)",
                    "warp (scikit-image)",
                )
                for name, a, b in zip(names, marks[:-1], marks[1:], strict=False):
                    seconds[name] += b - a
        capture.release()
    return {name: s / max(done - warm, 1) * 1e3 for name, s in seconds.items()}
