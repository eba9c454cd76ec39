"""Blendshapes of nemo, of MediaPipe's Face Landmarker in its two modes, and of the same pictures moved by a pixel.

    python benchmarks/blendshapes.py CLIP... [--frames 72] [--every 4]

Every fourth frame is compared, from the ninth on. VIDEO mode sees all frames, as nemo's tracker does; IMAGE mode sees
each as a picture of its own.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from itertools import islice
from pathlib import Path

import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

from nemo_pipeline import bundle
from nemo_pipeline.stages.blendshapes import blendshapes
from nemo_pipeline.stages.decode import VideoReader
from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.track import Tracker

_FIRST = 8


class Landmarker:
    """MediaPipe's Face Landmarker in one of its modes."""

    def __init__(self, mode: vision.RunningMode) -> None:
        self._video = mode is vision.RunningMode.VIDEO
        self._own = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_buffer=bundle.read_bundle()[0]),
                running_mode=mode,
                output_face_blendshapes=True,
            )
        )

    def scores(self, rgb: np.ndarray, seconds: float) -> np.ndarray | None:
        """(52,) of the face that it takes; None where it sees none."""
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(rgb))
        found = (
            self._own.detect_for_video(image, round(seconds * 1000))
            if self._video
            else self._own.detect(image)
        )
        shapes = found.face_blendshapes
        return np.array([shape.score for shape in shapes[0]]) if shapes else None


def compare(path: Path, frames: int, every: int) -> dict[str, list[np.ndarray]]:
    """Pair -> absolute differences (52,), a frame each."""
    video, image = Landmarker(vision.RunningMode.VIDEO), Landmarker(vision.RunningMode.IMAGE)
    tracker, found = Tracker(load_engine("litert")), defaultdict(list)
    with VideoReader(path) as reader:
        for frame in islice(reader, frames):
            rgb, seen = frame.rgb(), tracker.step(frame)
            theirs = {"VIDEO": video.scores(rgb, frame.time)}
            if frame.index < _FIRST or frame.index % every or not seen:
                continue
            theirs |= {
                "IMAGE": image.scores(rgb, frame.time),
                "IMAGE, moved by a pixel": image.scores(np.roll(rgb, 1, axis=1), frame.time),
            }
            if any(scores is None for scores in theirs.values()):
                continue
            own = blendshapes(seen[0].mesh)
            found["nemo - VIDEO"].append(np.abs(own - theirs["VIDEO"]))
            found["nemo - IMAGE"].append(np.abs(own - theirs["IMAGE"]))
            found["IMAGE - VIDEO"].append(np.abs(theirs["IMAGE"] - theirs["VIDEO"]))
            found["IMAGE - IMAGE, moved by a pixel"].append(
                np.abs(theirs["IMAGE"] - theirs["IMAGE, moved by a pixel"])
            )
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=72)
    parser.add_argument("--every", type=int, default=4)
    options = parser.parse_args()
    print("| clip | frames | difference | mean | median of a frame's largest | largest | within 0.01 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for clip in options.clips:
        for pair, values in compare(clip, options.frames, options.every).items():
            all_of_them = np.array(values)
            largest = all_of_them.max(axis=1)
            print(
                f"| {clip.name} | {len(values)} | {pair} | {all_of_them.mean():.4f} | {np.median(largest):.2f} | "
                f"{largest.max():.2f} | {(all_of_them <= 0.01).mean():.0%} |"
            )


if __name__ == "__main__":
    main()
