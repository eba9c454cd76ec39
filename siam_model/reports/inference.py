"""A run's models on its own held-out videos: every video goes to the model that never saw its subject."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from nemo_pipeline.errors import LeakageError
from nemo_pipeline.store import FaceVideo
from nemo_pipeline.store.text import escape_controls
from siam_model.loading import load
from siam_model.predict import LoadedModel
from siam_model.reports.source import Data, Run

if TYPE_CHECKING:
    from nemo_pipeline.phases import Phases


def by_model(run: Run, rows: Iterable[int], device: str) -> Iterator[tuple[LoadedModel, list[int]]]:
    """The models behind some rows of the predictions, one at a time, each with the rows that it predicted.

    Raises:
        NemoError: a model is missing, or knows a subject that it predicted.
    """
    wanted = list(rows)
    for fold in sorted({int(run.predictions.fold[i]) for i in wanted}):
        mine = [i for i in wanted if run.predictions.fold[i] == fold]
        folder = run.model_folder(fold)
        model = load(folder, device)
        seen = {*model.subjects["training"], *model.subjects["validation"]}
        for i in mine:
            if run.predictions.subject[i] in seen and not run.external:
                raise LeakageError(
                    f"The model in {escape_controls(str(folder))} was trained on subject "
                    f"{escape_controls(run.predictions.subject[i])}, whom it should be tested on.",
                    run.predictions.subject[i],
                )
        yield model, mine


def predicted_video(data: Data, run: Run, row: int) -> FaceVideo:
    """The video behind a row of the predictions."""
    return data.dataset[data.row[run.predictions.video[row]]]


def expressive_frame(video: FaceVideo) -> int:
    """The frame in the middle of the apex; where no phases are found, the middle of the video."""
    found = video_phases(video)
    if found is not None and found.apex[1] > found.apex[0]:
        return (found.apex[0] + found.apex[1] - 1) // 2
    return (len(video) - 1) // 2


def video_phases(video: FaceVideo) -> Phases | None:
    """Phases of a video, by the measure of its expression; None where it came without landmarks."""
    from nemo_pipeline.phases import find_phases

    landmarks = video.landmarks
    if not np.isfinite(landmarks).all():
        return None
    return find_phases(landmarks, video.timestamps, "disgust" if video.expression == "disgust" else "smile")
