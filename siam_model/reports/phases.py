"""Table II: the model of the whole expression on its phases alone, every video by the model that never saw its
subject."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nemo_pipeline.errors import DataError
from nemo_pipeline.store.text import csv_cell, csv_value, escape_controls
from siam_model.predictions import Predictions, read_table, write_table
from siam_model.reports import paper
from siam_model.reports.inference import by_model, predicted_video, video_phases
from siam_model.reports.source import Data, Run

COLUMNS = ("video", "subject", "fold", "age_true", "phases", "start", "stop", "age_predicted", "data")
#: What the row of the whole video is called in the file.
WHOLE = "whole"


class PhasePrediction(NamedTuple):
    """A stretch of a video, frames start to stop (half-open), and its predicted age in years."""

    start: int
    stop: int
    predicted: float


#: Video -> phases joined by "+", or "whole", -> its part. A video without three phases has the whole alone.
Parts = dict[str, dict[str, PhasePrediction]]


def phase_name(phases: tuple[paper.Phase, ...]) -> str:
    """ "onset+apex"."""
    return "+".join(phases)


def predict_phases(
    run: Run, data: Data, device: str, path: Path, progress: Callable[[int, int], None] | None = None
) -> Parts:
    """Predict every union of phases of every video, or take it from `path` (phases.csv) where that still holds.

    A kept number holds when it is of the same data, of the same frames, and of a model that said the same of the
    whole video. The file is written after every model, so that little is lost when the command is ended.

    Args:
        progress: called with videos done and videos to do.

    Raises:
        NemoError: a model or a video is missing.
    """
    uuid = data.dataset.uuid
    known = read_parts(path, uuid) if path.is_file() else {}
    found: Parts = {}
    ranges: dict[int, dict[str, tuple[int, int]]] = {}
    p = run.predictions
    for i, video in enumerate(p.video):
        ranges[i] = _ranges(data, run, i)
        old = known.get(video, {})
        same = {name: (part.start, part.stop) for name, part in old.items()} == ranges[i]
        if same and old[WHOLE].predicted == p.predicted[i]:
            found[video] = old
    todo = [i for i, video in enumerate(p.video) if video not in found]
    done = 0
    for model, rows in by_model(run, todo, device):
        for i in rows:
            frames = predicted_video(data, run, i).frames
            parts = {WHOLE: PhasePrediction(*ranges[i][WHOLE], float(p.predicted[i]))}
            for name, (start, stop) in ranges[i].items():
                if name != WHOLE:
                    parts[name] = PhasePrediction(start, stop, model.predict(frames[start:stop]).age)
            found[p.video[i]] = parts
            done += 1
            if progress is not None:
                progress(done, len(todo))
        _write(path, run.predictions, found, uuid)
    return found


def _ranges(data: Data, run: Run, row: int) -> dict[str, tuple[int, int]]:
    """Name -> frames of the whole video and of every union of its phases; the whole alone where one is not found."""
    video = predicted_video(data, run, row)
    ranges = {WHOLE: (0, len(video))}
    found = video_phases(video)
    if found is None or not all(found.mask(name).any() for name in ("onset", "apex", "offset")):
        return ranges
    for names in paper.PHASES:
        frames = np.flatnonzero(found.mask(*names))
        ranges[phase_name(names)] = (int(frames[0]), int(frames[-1]) + 1)
    return ranges


def _write(path: Path, predictions: Predictions, found: Parts, uuid: str) -> None:
    rows = []
    for i, video in enumerate(predictions.video):
        for name, part in found.get(video, {}).items():
            rows.append(
                (
                    csv_cell(video), csv_cell(predictions.subject[i]), int(predictions.fold[i]),
                    repr(float(predictions.age[i])), name, part.start, part.stop, repr(part.predicted), uuid,
                )
            )  # fmt: skip
    write_table(path, COLUMNS, rows)


def read_parts(path: Path, uuid: str | None = None) -> Parts:
    """phases.csv; with `uuid`, only what was predicted from these data.

    Raises:
        NemoError: it cannot be read.
    """
    found: Parts = {}
    try:
        for row in read_table(path):
            if uuid in (None, row["data"]):
                part = PhasePrediction(int(row["start"]), int(row["stop"]), float(row["age_predicted"]))
                found.setdefault(csv_value(row["video"]), {})[row["phases"]] = part
    except OSError as error:
        raise DataError(f"{escape_controls(str(path))} cannot be read: {error.strerror}.", path) from None
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{escape_controls(str(path))} is damaged; remove it, it is made again.", path
        ) from None
    return {video: parts for video, parts in found.items() if WHOLE in parts}


def kept_phases(run: Run, path: Path) -> Parts | None:
    """`path` (phases.csv) where it is of these very predictions, from the faces of the run's own data; None
    otherwise."""
    if not path.is_file():
        return None
    found, p = read_parts(path, str(run.dataset.get("uuid"))), run.predictions
    if any(v not in found or found[v][WHOLE].predicted != p.predicted[i] for i, v in enumerate(p.video)):
        return None
    return found


def phase_predictions(predictions: Predictions, parts: Parts, name: str) -> Predictions | None:
    """The predictions of one union of phases, or of the whole video, for the videos in which all three phases were
    found; None if the file is not such a table."""
    rows = [i for i, video in enumerate(predictions.video) if len(parts.get(video, {})) > 1]
    if not rows:
        return None
    return Predictions(
        tuple(predictions.video[i] for i in rows),
        tuple(predictions.subject[i] for i in rows),
        predictions.fold[rows],
        predictions.age[rows],
        np.array([parts[predictions.video[i]][name].predicted for i in rows]),
    )
