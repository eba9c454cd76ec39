"""How long a training will take: the time of one step times the steps that are left, as a range."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from siam_model.config import TrainConfig
from siam_model.protocol.open_run import read_splits
from siam_model.protocol.request import Runtime
from siam_model.protocol.search import FIRST_TRIALS, epochs_for_all, search_space
from siam_model.protocol.settings import read_settings
from siam_model.run_folder import RunFolder
from siam_model.study import variants_in
from siam_model.training.stages import stages_of


@dataclasses.dataclass(frozen=True, slots=True)
class Forecast:
    """What is left to train.

    Attributes:
        trainings: how many networks, at most.
        epochs: most epochs of each.
        least, most: seconds of all of them together: where every training ends as early as it may, and where none does.
    """

    trainings: int
    epochs: int
    least: float
    most: float


def forecast(folder: Path, epoch: float, runtime: Runtime) -> Forecast:
    """What is left of a run or a study whose epochs take `epoch` seconds each.

    Raises:
        NemoError: the folder is damaged.
    """
    folders = [RunFolder(folder)]
    if folders[0].is_study:
        runs = [folders[0].variant(variant.name) for variant in variants_in(folders[0])]
        folders = [run for run in runs if run.split.is_file()]
    found = [_of_run(path, epoch, runtime) for path in folders]
    return Forecast(
        sum(one.trainings for one in found),
        max((one.epochs for one in found), default=0),
        sum(one.least for one in found),
        sum(one.most for one in found),
    )


def _of_run(folder: RunFolder, epoch: float, runtime: Runtime) -> Forecast:
    settings, model, config = read_settings(folder.path)
    combinations = np.prod(
        [len(values) for values in search_space(model, settings.overrides).values()], dtype=int
    )
    trials = min(settings.trials, int(combinations))
    least, most = _of_model(trials, config)
    count, final = 1, 0
    if settings.folds is not None:
        todo = folder.missing_folds(len(read_splits(folder)))
        count = len(todo) if runtime.fold is None else int(runtime.fold in todo)
        final = int(runtime.fold is None)
    in_parallel = max(1, min(runtime.jobs, count))
    networks = 2 if "cnn" in settings.methods else 1  # the convolutional part alone is trained as SIAM is
    least, most = networks * least, networks * most
    return Forecast(
        networks * count * max(trials, 1) + final,
        config.epochs,
        epoch * (least * count / in_parallel + final),
        epoch * (most * count / in_parallel + final * _of_model(0, config)[1]),
    )


def _of_model(trials: int, config: TrainConfig) -> tuple[int, int]:
    """Fewest and most epochs of one fold: of its trials, or of its only training.

    Frozen epochs are passed over (they take next to no time), but for one that computes the features.
    """
    frozen = min(config.freeze_appearance, config.epochs)
    before = -stages_of(config)[0].start + bool(frozen)  # pretraining, and those features

    def cost(epochs: int) -> int:
        return before + max(0, epochs - frozen)

    stopped = min(config.epochs, frozen + config.patience + 1)
    if not trials:
        return cost(stopped), cost(config.epochs)
    first = min(trials, FIRST_TRIALS)
    ended = min(stopped, epochs_for_all(config.epochs))
    return first * cost(stopped) + (trials - first) * cost(ended), trials * cost(config.epochs)
