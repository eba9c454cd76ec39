"""The compared methods in one split: each learns from the training and validation subjects and predicts the test part.

What they choose for themselves they choose inside those subjects. The convolutional part alone is a network like SIAM:
it learns from the training subjects, and is searched and stopped on the validation subjects.
"""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np

from nemo_pipeline.geometry import Template
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.text import pluralize
from siam_model.checkpoint import load_model
from siam_model.data import VideoTable
from siam_model.devices import resolve_device
from siam_model.methods import METHODS, make_method
from siam_model.methods.base import Describe, Method
from siam_model.methods.inputs import FileVideo, Video
from siam_model.predict import estimate
from siam_model.predictions import write_predictions
from siam_model.protocol.baselines import to_predictions
from siam_model.protocol.fit_folder import FitSubjects, has_trained, train_in
from siam_model.protocol.open_run import OpenRun
from siam_model.protocol.reporter import TrainingScope
from siam_model.protocol.splits import Split
from siam_model.run_folder import RunFolder
from siam_model.runs import make_private

#: Methods that look at all frames alike.
_WITHOUT_PHASES = {"vlbp", "vlbp_regression", "lbp_top", "cnn"}


def train_methods(
    run: OpenRun, split: Split, folder: RunFolder, where: TrainingScope, describe: Describe
) -> None:
    """Write baselines/NAME.csv of every method that the run compares and that this folder lacks."""
    if split.fold == 0 and set(run.settings.methods) - _WITHOUT_PHASES:
        _say_without_onset(run, where, describe)
    for name in run.settings.methods:
        file = folder.baseline(name)
        if file.is_file():
            continue
        here = dataclasses.replace(where, method=METHODS[name].label)
        rows = run.table.rows_of(split.test)
        if name == "cnn":
            ages = _convolutions(run, split, folder.method("cnn"), here, rows)
        else:
            method = fit_method(name, run.dataset, run.table, split, describe)
            ages = method.predict(chosen_videos(run.dataset, run.table, rows))
        predictions = to_predictions(run.table, rows, split.fold, ages)
        run.reporter.say(f"mean absolute error {predictions.error.mean():.2f} years", here)
        write_predictions(file, predictions)


def _say_without_onset(run: OpenRun, where: TrainingScope, describe: Describe) -> None:
    """In how many videos no expression was found, and what the methods take in its place."""
    found = describe("displacement", chosen_videos(run.dataset, run.table, np.arange(len(run.table))))
    count = int((~found.reshape(len(found), -1).any(axis=1)).sum())
    if count:
        videos, verb = pluralize(len(found), "video"), "shows" if count == 1 else "show"
        run.reporter.say(
            f"{count} of {videos} {verb} no onset of an expression: the first frame counts as neutral, that of the "
            "largest amplitude as expressive, and dynamic features are 0.",
            where,
        )


def fit_method(
    name: str, dataset: FaceDataset, table: VideoTable, split: Split, describe: Describe | None = None
) -> Method:
    """A method that has learnt from everybody in the split but the test subjects, whose videos are not read."""
    known = table.rows_of((*split.training, *split.validation))
    videos = chosen_videos(dataset, table, known)
    return make_method(name, describe).fit(videos, table.age[known], [table.subject[r] for r in known])


def chosen_videos(dataset: FaceDataset, table: VideoTable, rows: np.ndarray) -> list[Video]:
    """Rows of the table as the methods take them."""
    template = Template(dataset.mean_shape, dataset.triangles, dataset.size, dataset.config.margin)
    return [FileVideo(dataset[int(i)], template) for i in table.index[rows]]


def _convolutions(
    run: OpenRun, split: Split, folder: RunFolder, where: TrainingScope, rows: np.ndarray
) -> np.ndarray:
    """(V,) ages by SIAM's convolutional part, trained in a folder of its own as SIAM is."""
    from siam_model.protocol.overrides import configure
    from siam_model.study import STUDIES

    overrides = {**run.settings.overrides, **STUDIES["modules"][0].overrides}
    model, config = configure(
        run.settings.preset, overrides, train__epochs=run.settings.epochs, model__face_size=run.dataset.size
    )
    alone = dataclasses.replace(run, model=model, config=config)
    make_private(folder.path)
    people = FitSubjects(split.fold, split.training, split.validation)
    if not has_trained(folder):
        if run.settings.trials:
            from siam_model.protocol.search import search

            search(alone, people, folder, where)
        else:
            train_in(alone, people, folder, where, model, config)
    shutil.rmtree(folder.trials, ignore_errors=True)
    network, card = load_model(folder.path, resolve_device(run.runtime.device))
    return np.array(
        [
            estimate(network, run.dataset[int(i)].frames, card.normalisation, card.train).age
            for i in run.index(rows)
        ]
    )
