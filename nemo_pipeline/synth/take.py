"""What happens in one clip, independent of the subject: the camera, the head's movement, the expression's course."""

from __future__ import annotations

import dataclasses

import numpy as np

from nemo_pipeline.synth.dynamics import Course, balanced_course, head_motion, natural_course
from nemo_pipeline.synth.plan import Camera, ClipPlan, SynthConfig, draw_camera, draw_frames, generator


@dataclasses.dataclass(frozen=True, slots=True)
class Take:
    """One clip of T frames.

    Attributes:
        camera: position, size, exposure, noise.
        pose: (T, 3) float64, yaw, pitch, roll in degrees (`motion.Turn`).
        course: intensity (T,) and the phases.
        rng: what is left of the clip's own generator: the camera's noise comes from it.
    """

    camera: Camera
    pose: np.ndarray
    course: Course
    rng: np.random.Generator


def draw_take(config: SynthConfig, clip: ClipPlan) -> Take:
    """A clip's course of events, from the clip's own generator. Renders nothing."""
    rng = generator(config, 2, clip.person.index, clip.index)
    count = draw_frames(rng, config)
    camera = draw_camera(rng, config)
    pose = head_motion(rng, count, config.fps, config.motion)
    age = clip.person.age
    if config.balanced:
        course = balanced_course(rng, age, config.dynamics, count)
    else:
        course = natural_course(rng, age, clip.condition, config.dynamics, count, config.fps)
    return Take(camera, pose, course, rng)


def still_take(config: SynthConfig, clip: ClipPlan) -> Take:
    """The same clip of a face at rest that does not move: what then moves in its track is the tracker's own."""
    take = draw_take(config, clip)
    empty = (0, 0)
    course = Course(np.zeros_like(take.course.intensity), empty, empty, empty)
    return dataclasses.replace(take, pose=np.repeat(take.pose[:1], len(take.pose), 0), course=course)
