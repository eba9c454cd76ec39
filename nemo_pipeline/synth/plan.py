"""What is rendered: the settings of a set, its subjects and its clips, all drawn from one seed.

Every subject and clip has a generator of its own, keyed by its index (numpy's SeedSequence), so that the
result does not depend on how many processes share the work or in which order they do it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nemo_pipeline.errors import SettingsError
from nemo_pipeline.synth import profile

EXPRESSIONS = ("smile", "disgust")
CONDITIONS = ("posed", "spontaneous")
PROFILES = ("even", "nemo")
_GOLDEN = (5**0.5 - 1) / 2
#: Outer-eye distance against the frame's shorter side: smallest and largest.
EYE_SHARE = (0.21, 0.29)


@dataclasses.dataclass(frozen=True, slots=True)
class SynthConfig:
    """Settings of a synthetic set.

    Attributes:
        subjects, clips: how many people, and clips of each (the profile "nemo" has its own numbers of clips).
        seed: decides everything by chance.
        width, height: of the video, even numbers of pixels.
        fps: frames per second.
        seconds: shortest and longest clip; a clip has at least 20 frames.
        ages: youngest and oldest subject, years (the profile "nemo": 8 and 76, beyond which age shows no further).
        appearance, dynamics: how strongly age acts on the skin and on the expression's course; 1 as intended,
            0 not at all.
        balanced: give every clip the same set of intensities, in an order that depends on age (see
            `dynamics.balanced_course`); all clips then have the same length, and posed and spontaneous are names alone.
        expression: "smile", "disgust", or "both": in turn, two clips of each; with fewer than three clips, half of the
            subjects have one, half the other.
        motion: factor on the head's movement. A head that is turned far hides its far jaw line, where ground truth is
            no longer exact: in single frames at 2, in more above.
        noise: factor on the camera's noise.
        quality: x264's constant rate factor (lower is better, 0 lossless).
        face: outer-eye distance against the frame's shorter side, smallest and largest.
        profile: "even" spreads ages evenly, with `clips` of each subject; "nemo" follows the UvA-NEMO smile
            database (`profile`; 400 subjects give its own 1240 clips).
        nemo_layout: name the clips as that database does, and write its two details files.
    """

    subjects: int = 32
    clips: int = 4
    seed: int = 0
    width: int = 320
    height: int = 320
    fps: float = 25.0
    seconds: tuple[float, float] = (2.0, 2.6)
    ages: tuple[int, int] = (8, 76)
    appearance: float = 1.0
    dynamics: float = 1.0
    balanced: bool = False
    expression: str = "smile"
    motion: float = 1.0
    noise: float = 1.0
    quality: int = 20
    face: tuple[float, float] = EYE_SHARE
    profile: str = "even"
    nemo_layout: bool = False

    def __post_init__(self) -> None:
        """Check every field. Raises NemoError that names the field and what it may be."""

        def need(ok: bool, what: str) -> None:
            if not ok:
                raise SettingsError(f"Cannot make a synthetic set: {what}.")

        need(1 <= self.subjects <= 10000, f"subjects is {self.subjects}, it must be between 1 and 10000")
        need(1 <= self.clips <= 1000, f"clips is {self.clips}, it must be between 1 and 1000")
        need(self.seed >= 0, f"the seed is {self.seed}, it must not be negative")
        for side, value in (("width", self.width), ("height", self.height)):
            need(
                64 <= value <= 4096 and value % 2 == 0,
                f"{side} is {value}, it must be even and within 64 to 4096",
            )
        need(5 <= self.fps <= 240, f"fps is {self.fps:g}, it must be between 5 and 240")
        low, high = self.seconds
        need(
            0.8 <= low <= high <= 60,
            f"clips of {low:g} to {high:g} s; 0.8 to 60 s are possible, shortest first",
        )
        young, old = self.ages
        need(0 <= young <= old <= 100, f"ages of {young} to {old}; 0 to 100 are possible, youngest first")
        need(0 <= self.appearance <= 3, f"appearance is {self.appearance:g}, it must be between 0 and 3")
        need(0 <= self.dynamics <= 1.5, f"dynamics is {self.dynamics:g}, it must be between 0 and 1.5")
        need(
            self.expression in (*EXPRESSIONS, "both"),
            f"expression is {self.expression!r}, it must be smile, disgust or both",
        )
        need(0 <= self.motion <= 4, f"motion is {self.motion:g}, it must be between 0 and 4")
        need(0 <= self.noise <= 10, f"noise is {self.noise:g}, it must be between 0 and 10")
        need(0 <= self.quality <= 51, f"quality is {self.quality}, it must be between 0 and 51")
        small, large = self.face
        need(
            0.08 <= small <= large <= 0.35,
            f"faces of {small:g} to {large:g} of the frame; 0.08 to 0.35 are possible, smallest first",
        )
        need(self.profile in PROFILES, f"profile is {self.profile!r}, it must be {' or '.join(PROFILES)}")
        need(
            not self.nemo_layout or self.expression == "smile",
            "the layout of the smile database has no place for other expressions than smiles",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True)
class Person:
    """One subject: code, age in whole years, gender, and `tone` (0..1, how light the skin is). All else of
    face and skin comes from the subject's own generator."""

    index: int
    code: str
    age: int
    gender: str
    tone: float


@dataclasses.dataclass(frozen=True, slots=True)
class ClipPlan:
    """One clip to be made."""

    person: Person
    index: int
    name: str
    expression: str
    condition: str


@dataclasses.dataclass(frozen=True, slots=True)
class Camera:
    """What differs from clip to clip and says nothing of the person.

    Attributes:
        centre: where the nose comes to lie, fractions of the frame.
        eye_px: outer-eye distance, pixels, of a face as large as the portrait's.
        gain, gamma: exposure.
        noise: standard deviation of the noise, gray levels.
        backdrop_seed: seeds the background.
    """

    centre: tuple[float, float]
    eye_px: float
    gain: float
    gamma: float
    noise: float
    backdrop_seed: int


def generator(config: SynthConfig, *key: int) -> np.random.Generator:
    """The generator of one thing: (0,) the set, (1, subject), (2, subject, clip), (3,) who
    has how many clips."""
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))


def draw_people(config: SynthConfig) -> list[Person]:
    """The subjects, with ages spread evenly over the range (one per equal part, in random order).

    Brightness of skin is what a small set could most easily take for age by accident. So it is not left to
    chance
    alone: along the ages it follows steps of the golden ratio, which gives every stretch of ages all tones.
    """
    rng = generator(config, 0)
    count = config.subjects
    if config.profile == "nemo":
        exact = profile.draw_ages(rng, count)[rng.permutation(count)]
        ages = np.floor(exact).astype(int)
        order = exact
    else:
        young, old = config.ages
        order = rng.permutation(count) + rng.uniform(0, 1, count)
        ages = np.minimum(np.floor(young + (old - young + 1) * order / count).astype(int), old)
    tones = (rng.uniform() + _GOLDEN * np.argsort(np.argsort(order))) % 1.0
    digits = max(3, len(str(count)))
    if config.profile == "nemo":
        female = profile.draw_genders(rng, count)
    else:
        female = rng.permutation(np.arange(count) % 2).astype(bool)
    return [
        Person(
            i,
            f"{i + 1:0{digits}d}",
            int(ages[i]),
            "female" if female[i] else "male",
            float(tones[i]),
        )
        for i in range(count)
    ]


def _conditions(config: SynthConfig, people: list[Person]) -> list[list[str]]:
    """The condition of every clip of every subject: posed and spontaneous in turn."""
    if config.profile == "even":
        return [[CONDITIONS[k % 2] for k in range(config.clips)] for _ in people]
    numbers = profile.draw_clip_numbers(generator(config, 3), np.array([person.age for person in people]))
    # Turn by turn: the first of each condition, then the second of those that have one.
    return [
        [name for turn in range(max(own)) for name, n in zip(CONDITIONS, own, strict=True) if turn < n]
        for own in numbers.tolist()
    ]


def list_clips(config: SynthConfig) -> list[ClipPlan]:
    """Every clip of the set, in order of subject and clip."""
    clips = []
    people = draw_people(config)
    for person, conditions in zip(people, _conditions(config, people), strict=True):
        for k, condition in enumerate(conditions):
            expression = config.expression
            if expression == "both":
                expression = EXPRESSIONS[(k // 2 + (person.index if config.clips < 3 else 0)) % 2]
            if config.nemo_layout:
                kind = "deliberate" if condition == "posed" else condition
                name = f"{person.code}_{kind}_{expression}_{conditions[: k + 1].count(condition)}"
            else:
                name = f"{person.code}_{condition}_{expression}_{k + 1}"
            clips.append(ClipPlan(person, k, name, expression, condition))
    return clips


def draw_camera(rng: np.random.Generator, config: SynthConfig) -> Camera:
    """One clip's camera, by chance."""
    side = min(config.width, config.height)
    return Camera(
        centre=(0.5 + rng.uniform(-0.06, 0.06), 0.52 + rng.uniform(-0.05, 0.05)),
        eye_px=float(side * rng.uniform(*config.face)),
        gain=float(np.exp(rng.uniform(-0.15, 0.15))),
        gamma=float(np.exp(rng.uniform(-0.12, 0.12))),
        noise=float(config.noise * rng.uniform(0.8, 3.0)),
        backdrop_seed=int(rng.integers(2**31)),
    )


def draw_frames(rng: np.random.Generator, config: SynthConfig) -> int:
    """Length of one clip in frames: chance, never age."""
    low, high = config.seconds
    seconds = high if config.balanced else rng.uniform(low, high)
    return max(20, round(seconds * config.fps))
