"""The pictures of docs/synthetic.md: people of the synthetic set, one of them over time, and a track against its truth.

python benchmarks/synthetic_pictures.py FOLDER [--seed N]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np

from nemo_pipeline.phases import amplitude, find_phases
from nemo_pipeline.synth.dynamics import Course
from nemo_pipeline.synth.encode import write_mp4
from nemo_pipeline.synth.plan import ClipPlan, SynthConfig, list_clips
from nemo_pipeline.synth.render import ClipRenderer, Subject
from nemo_pipeline.synth.take import Take, draw_take
from nemo_pipeline.video import track_video

SIDE = 180


def shown(subject: Subject, clip: ClipPlan, intensity: list[float]) -> list[np.ndarray]:
    """Square pictures (SIDE, SIDE, 3) of somebody at some intensities, filmed alike."""
    take = draw_take(subject.config, clip)
    pose = np.zeros((len(intensity), 3))
    eyes = 0.30 * subject.config.height
    camera = dataclasses.replace(take.camera, centre=(0.5, 0.5), gain=1.0, gamma=1.0, eye_px=eyes)
    course = Course(np.array(intensity), (0, 0), (0, 0), (0, 0))
    renderer = ClipRenderer(subject, clip, Take(camera, pose, course, take.rng))
    size = (SIDE, SIDE)
    return [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in renderer.frames()]


def people(seed: int, count: int = 8) -> np.ndarray:
    """A sheet: a column for each age; at rest, smiling, in disgust."""
    config = SynthConfig(
        subjects=count, clips=1, seed=seed, width=440, height=440, ages=(8, 76), face=(0.3, 0.3)
    )
    clips = sorted(list_clips(config), key=lambda clip: clip.person.age)
    columns = []
    for clip in clips:
        subject = Subject(config, clip.person)
        rest, smile = shown(subject, clip, [0.0, 1.0])
        (disgust,) = shown(subject, dataclasses.replace(clip, expression="disgust"), [1.0])
        column = np.vstack([rest, smile, disgust])
        cv2.rectangle(column, (0, 0), (46, 28), (255, 255, 255), -1)
        cv2.putText(
            column, str(clip.person.age), (6, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 1, cv2.LINE_AA
        )
        columns.append(column)
    return np.hstack(columns)


def ages_of_one(seed: int) -> np.ndarray:
    """The same face at five ages, at rest and smiling: what the appearance switch changes, and nothing else."""
    config = SynthConfig(subjects=8, clips=1, seed=seed, width=440, height=440, face=(0.3, 0.3))
    clip = list_clips(config)[1]
    columns = []
    for age in (10, 30, 45, 60, 75):
        older = dataclasses.replace(clip, person=dataclasses.replace(clip.person, age=age))
        column = np.vstack(shown(Subject(config, older.person), older, [0.0, 1.0]))
        cv2.rectangle(column, (0, 0), (46, 28), (255, 255, 255), -1)
        cv2.putText(column, str(age), (6, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 1, cv2.LINE_AA)
        columns.append(column)
    return np.hstack(columns)


def over_time(seed: int, steps: int = 8) -> np.ndarray:
    """Frames of one clip from before the onset to after the offset, head moving: a row each for a young and an old
    subject."""
    config = SynthConfig(subjects=12, clips=1, seed=seed, width=440, height=440, face=(0.3, 0.3))
    clips = sorted(list_clips(config), key=lambda clip: clip.person.age)
    rows = []
    for clip in (clips[0], clips[-1]):
        take = draw_take(config, clip)
        renderer = ClipRenderer(Subject(config, clip.person), clip, take)
        wanted = np.linspace(take.course.onset[0] - 2, take.course.offset[1], steps).round().astype(int)
        pictures = [
            cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            for frame, picture in enumerate(renderer.frames())
            if frame in wanted
        ]
        rows.append(np.hstack(pictures[:steps]))
    width = min(row.shape[1] for row in rows)
    return np.vstack([row[:, :width] for row in rows])


def track_against_truth(seed: int, path: Path) -> None:
    """One clip: true and tracked points on its frame at the height of the smile, and the amplitude over time."""
    from matplotlib.figure import Figure

    config = SynthConfig(subjects=6, clips=1, seed=seed, width=640, height=640, fps=50)
    clip = list_clips(config)[2]
    renderer = ClipRenderer(Subject(config, clip.person), clip)
    pictures: list[np.ndarray] = []

    def seen() -> Iterator[np.ndarray]:
        for picture in renderer.frames():
            pictures.append(picture)
            yield picture

    with tempfile.TemporaryDirectory(prefix="nemo-pictures-") as folder:
        video = Path(folder) / f"{clip.name}.mp4"
        write_mp4(video, seen(), renderer.noise(), config.fps, config.quality)
        track = track_video(video)
    true, course = renderer.truth.landmarks, renderer.course
    frame = course.apex[0]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    low, high = true[frame].min(0) - 30, true[frame].max(0) + 30
    left.imshow(cv2.cvtColor(pictures[frame], cv2.COLOR_BGR2RGB))
    left.scatter(*true[frame].T, s=22, facecolors="none", edgecolors="#00d0ff", linewidths=1, label="truth")
    left.scatter(*track.landmarks[frame].T, s=5, color="#ffdf00", label="nemo prep")
    left.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), xticks=[], yticks=[])
    left.legend(loc="lower left", fontsize=8)
    left.set_title(f"synthetic, {clip.person.age} years: frame {frame}", fontsize=10)
    times = track.timestamps
    right.plot(times, amplitude(true), color="#0090b0", lw=3, alpha=0.5, label="truth")
    right.plot(times, amplitude(track.landmarks_raw), color="#c0a000", lw=0.8, label="raw track")
    right.plot(times, amplitude(track.landmarks), color="#705000", lw=1.4, label="smoothed track")
    found = find_phases(track.landmarks, times)
    colours = {"onset": "#2a9d3a", "apex": "#888888", "offset": "#c8503c"}
    for name, colour in colours.items():
        start, stop = (times[min(edge, len(times) - 1)] for edge in getattr(found, name))
        right.axvspan(start, stop, alpha=0.12, color=colour)
        right.text((start + stop) / 2, right.get_ylim()[1], name, ha="center", va="top", fontsize=9)
    for start, stop in (course.onset, course.offset):
        for edge in (start, stop):
            right.axvline(times[min(edge, len(times) - 1)], color="#0090b0", ls=":", lw=1)
    right.set(xlabel="seconds", ylabel="amplitude, mouth widths")
    right.set_title("shaded: phases found; dotted: where the true onset and offset begin and end", fontsize=9)
    right.legend(loc="upper right", fontsize=8)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Write the four pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, sheet in (
        ("synthetic", people(options.seed)),
        ("synthetic-ages", ages_of_one(options.seed)),
        ("synthetic-time", over_time(options.seed)),
    ):
        cv2.imwrite(str(options.folder / f"{name}.jpg"), sheet, [cv2.IMWRITE_JPEG_QUALITY, 84])
    track_against_truth(options.seed, options.folder / "synthetic-track.png")


if __name__ == "__main__":
    main()
