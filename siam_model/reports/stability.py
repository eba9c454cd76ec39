"""Stability, as the video protocol of CCMiniVID-A measures it: how much a model's answer varies over one video."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.errors import DataError, NemoError
from siam_model.predict import LoadedModel
from siam_model.reports.content import Column, Group, Missing, Report, Table, Value
from siam_model.reports.inference import by_model, predicted_video
from siam_model.reports.inputs import EvaluationInputs
from siam_model.reports.source import Data, Run
from siam_model.reports.stats import LEAST_SUBJECTS, interval

#: Equal parts, one after the other, that a video is cut into.
SUB_CLIPS = 4

_KEY, _TITLE = "table-stability", "Stability: how far the age wanders within a video (years)"


@dataclasses.dataclass(frozen=True, slots=True)
class Wandering:
    """Ages that a model gives within one video, of one kind.

    Attributes:
        deviation: their standard deviation (n - 1), years; that of their errors too, since a person has one age.
        error: mean of their absolute errors, years.
    """

    deviation: float
    error: float


def wandering(ages: NDArray[np.float64], age: float) -> Wandering:
    """Of at least two ages, years, of a person of `age` years."""
    return Wandering(float(ages.std(ddof=1)), float(np.abs(ages - age).mean()))


def sub_clip_ages(model: LoadedModel, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(SUB_CLIPS,) years: each of the equal parts of a video's frames (T,S,S), T at least SUB_CLIPS, as a video of its
    own."""
    edges = np.linspace(0, len(frames), SUB_CLIPS + 1).round().astype(int)
    return np.array([model.predict(frames[a:b]).age for a, b in itertools.pairwise(edges)])


def measure(
    run: Run, data: Data, device: str, progress: Callable[[int, int], None] = lambda done, all: None
) -> dict[int, tuple[Wandering, Wandering]]:
    """Row of the predictions -> how its frames' ages wander, and its sub-clips' ages. Videos of fewer than SUB_CLIPS
    frames are left out.

    Raises:
        NemoError: a model or a video is missing.
    """
    found = {}
    for model, rows in by_model(run, range(len(run.predictions)), device):
        for row in rows:
            frames, age = predicted_video(data, run, row).frames, float(run.predictions.age[row])
            if len(frames) >= SUB_CLIPS:
                by_frame = model.predict(frames).frame_ages
                assert by_frame is not None  # a single model gives them
                found[row] = wandering(by_frame, age), wandering(sub_clip_ages(model, frames), age)
            progress(len(found), len(run.predictions))
    return found


def add_stability(given: EvaluationInputs, report: Report) -> None:
    """The table, where it was asked for."""
    if not given.request.stability:
        return
    run = given.main
    try:
        if given.data is None:
            raise DataError(given.no_data)
        found = measure(
            run, given.data, given.device, lambda i, n: given.on_step(f"stability of video {i} of {n}")
        )
    except NemoError as error:
        report.add(Missing("", _TITLE, str(error), given.again("--stability", "--data", "DATA.h5")))
        return
    if not found:
        report.add(Missing("", _TITLE, f"No video has {SUB_CLIPS} frames", ""))
        return
    people = [run.predictions.subject[row] for row in found]
    rows: list[tuple[Value, ...]] = []
    for name, place in (("frame by frame", 0), (f"{SUB_CLIPS} sub-clips", 1)):
        deviation = np.array([each[place].deviation for each in found.values()])
        low = high = np.nan
        if len(set(people)) >= LEAST_SUBJECTS:
            low, high = (float(v) for v in interval(deviation, people))
        mae = float(np.mean([each[place].error for each in found.values()]))
        tenth = float(np.percentile(deviation, 90))
        rows.append(
            (name, len(found), float(deviation.mean()), low, high, float(np.median(deviation)), tenth, mae)
        )
    whole = float(run.predictions.error[list(found)].mean())
    rows.append(("whole video", len(found), None, None, None, None, None, whole))
    report.add(Table(
        _KEY, "phases", "", _TITLE,
        f"{run.described()}. Standard deviation of the ages within a video, which is that of their errors, mean over "
        f"videos of at least {SUB_CLIPS} frames, with its 95 % interval by bootstrap over subjects. Frame by frame: "
        "the regression of each frame's state, whose mean by temporal weights is the age. Sub-clips: equal parts of "
        "the video, each predicted as a video of its own. A model that always says the same is perfectly stable: read "
        "it with the error.",
        (Column("ages", "ages"), Column("videos", "videos", "int"), Column("SD over time", "deviation", "years"),
         Column("95 % from", "interval_low", "years"), Column("to", "interval_high", "years"),
         Column("median SD", "median", "years"), Column("90th percentile", "percentile_90", "years"),
         Column("mean absolute error", "mae", "years")),
        (Group("", tuple(rows)),), run.synthetic,
    ))  # fmt: skip
