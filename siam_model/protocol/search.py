"""The parameters of one fold, chosen on its validation subjects from the paper's sets. Never sees the test fold.

Section IV-C: h from {128, 256, 512}; a dropout for the recurrent and one for the convolutional part, each from
{0, 0.1, 0.2, 0.4}; lambda from {0, 1e-4, 3e-4, 5e-4, 1e-3, 3e-3, 5e-3}: 336 combinations. The paper does not say how it
searched them. Here the first trial has the preset's own values and the others are drawn at random, without
replacement, from (seed, fold): so an interrupted search makes the same choice after it was resumed. h is searched at
half, once and twice the preset's, which for the paper's preset is its set. What is set by hand
(`model.hidden=200`) is not searched.

A trial that after some epochs is worse than the median of the earlier ones is ended. A trial trains on the training
subjects and stops early on the validation subjects, just as a run without a search, so the best trial's weights are the
fold's: nothing is trained again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.errors import DataError, NotFinite, RunError
from nemo_pipeline.fields import from_record
from nemo_pipeline.store.files import sweep
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.protocol.fit_folder import FitSubjects, history_so_far, train_in
from siam_model.protocol.history import read_history
from siam_model.protocol.open_run import OpenRun
from siam_model.protocol.reporter import TrainingScope
from siam_model.run_folder import RunFolder, read_json, write_json
from siam_model.runs import make_private
from siam_model.training.records import EpochRecord

DROPOUTS = (0.0, 0.1, 0.2, 0.4)
LAMBDAS = (0.0, 1e-4, 3e-4, 5e-4, 1e-3, 3e-3, 5e-3)
#: Trials that are finished before a further one may be ended early.
FIRST_TRIALS = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """One combination that was tried.

    Attributes:
        parameters: name -> value.
        errors: validation error after each epoch, years.
        seconds: how long it trained.
        ended_early: it was worse than the median of the earlier ones, or did not train.
    """

    parameters: dict[str, Any]
    errors: list[float]
    seconds: float
    ended_early: bool

    @property
    def error(self) -> float:
        """Its least validation error, years; infinity where it has none that counts."""
        return math.inf if self.ended_early else min(self.errors, default=math.inf)


class _EndEarly(Exception):
    """The running trial is hopeless."""


def search_space(model: SIAMConfig, overrides: Mapping[str, str]) -> dict[str, tuple[Any, ...]]:
    """Parameter -> the values that are tried. What `overrides` sets is not searched."""
    whole = {
        "model.hidden": (max(1, model.hidden // 2), model.hidden, 2 * model.hidden),
        "model.dropout_conv": DROPOUTS,
        "model.dropout_recurrent": DROPOUTS,
        "train.l2": LAMBDAS,
    }
    return {name: values for name, values in whole.items() if name not in overrides}


def read_values(model: SIAMConfig, config: TrainConfig, names: Mapping[str, Any]) -> dict[str, Any]:
    """Parameter -> its value in these configurations."""
    parts = {"model": model, "train": config}
    return {name: getattr(parts[name.partition(".")[0]], name.partition(".")[2]) for name in names}


def apply(
    model: SIAMConfig, config: TrainConfig, chosen: Mapping[str, Any]
) -> tuple[SIAMConfig, TrainConfig]:
    """The configurations with these values in them."""
    changes: dict[str, dict[str, Any]] = {"model": {}, "train": {}}
    for name, value in chosen.items():
        section, _, field = name.partition(".")
        changes[section][field] = value
    return dataclasses.replace(model, **changes["model"]), dataclasses.replace(config, **changes["train"])


def search(run: OpenRun, people: FitSubjects, folder: RunFolder, where: TrainingScope) -> None:
    """Choose the parameters of a fold; leaves model/, history.csv and choice.json in its folder.

    Hold the folder's lock. Everything is kept as it comes: trials.json, and the weights of the best trial so far and of
    the one that is running.

    Raises:
        NemoError: no trial ended with a finite error.
    """
    space = search_space(run.model, run.settings.overrides)
    order = proposals(space, read_values(run.model, run.config, space), (run.settings.seed, people.fold))
    budget = min(run.settings.trials, len(order))
    done = _read_trials(folder.tried, order)
    while len(done) < budget:
        here = dataclasses.replace(where, trial=len(done), trials=budget)
        done.append(_run_trial(order[len(done)], done, run, people, folder, here))
        _write_trials(folder.tried, done)
        _keep_best(folder, done)
    best = _best(done)
    if best is None:
        raise RunError(
            "no trial of the search ended with a finite error; try a smaller step, for instance "
            f"`train.learning_rate={run.config.learning_rate / 10:g}`",
            folder,
        )
    kept = folder.trial(best)
    if not kept.model.path.is_dir():
        raise RunError(f"The weights of {kept} are gone; remove {folder}, and the fold starts over.", folder)
    lines = [_line(number, trial) for number, trial in enumerate(done)]
    write_json(
        folder.choice,
        {
            "chosen": lines[best]["parameters"],
            "trial": best,
            "validation_mae": lines[best]["validation_mae"],
            "budget": budget,
            "space": {name: list(values) for name, values in space.items()},
            "trials": lines,
        },
    )
    if kept.history.is_file():
        kept.history.replace(folder.history)
    if kept.tensorboard.is_dir():
        kept.tensorboard.rename(folder.tensorboard)
    kept.model.path.rename(folder.model.path)
    shown = ", ".join(f"{name} {value:g}" for name, value in lines[best]["parameters"].items())
    run.reporter.say(f"chose trial {best + 1} of {budget}: {shown}", where)


def proposals(
    space: Mapping[str, Sequence[Any]], first: Mapping[str, Any], seed: Sequence[int]
) -> list[dict[str, Any]]:
    """All combinations, each once, in the order in which they are tried: `first`, then at random from `seed`."""
    combinations = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    drawn = np.random.default_rng(np.random.SeedSequence([*seed, 0x7E5])).permutation(len(combinations))
    return [dict(first), *(combinations[i] for i in drawn if combinations[i] != first)]


def epochs_for_all(epochs: int) -> int:
    """How many epochs every trial gets before it may be ended: a tenth of `epochs`, at least 3."""
    return max(3, epochs // 10)


def is_hopeless(errors: Sequence[float], earlier: Sequence[Trial], epochs: int) -> bool:
    """Whether a trial may be ended: enough others are finished, it had its first epochs, and its least error is above
    the median of what the others had reached by then."""
    if len(earlier) < FIRST_TRIALS or len(errors) < epochs_for_all(epochs):
        return False
    reached = [min(trial.errors[: len(errors)]) for trial in earlier if trial.errors]
    return bool(reached) and min(errors) > statistics.median(reached)


def _run_trial(
    parameters: dict[str, Any],
    earlier: Sequence[Trial],
    run: OpenRun,
    people: FitSubjects,
    folder: RunFolder,
    where: TrainingScope,
) -> Trial:
    """Train with these parameters, or resume a trial that was interrupted."""
    own = folder.trial(len(earlier))
    make_private(own.path)
    sweep(own.path)
    model, config = apply(run.model, run.config, parameters)
    errors: dict[int, float] = {}

    def judge(line: EpochRecord) -> None:
        if line.epoch < 1:  # pretraining has no errors
            return
        errors[line.epoch] = line.validation_mae
        if is_hopeless(list(errors.values()), earlier, run.config.epochs):
            raise _EndEarly

    ended_early = False
    try:
        for line in history_so_far(own):  # of a process that was killed in this trial
            judge(line)
        train_in(run, people, own, where, model, config, on_record=judge)
        # As the file has it, so that a resumed search decides by the same digits.
        lines = read_history(own.history)
        errors = {line.epoch: line.validation_mae for line in lines if line.epoch > 0}
    except _EndEarly:
        ended_early = True
        run.reporter.say("ended early: worse than the median of the trials before", where)
    except NotFinite as error:
        ended_early = True  # a combination that does not train is a bad one, and no reason to stop
        run.reporter.say(f"ended: {error}", where)
    seconds = sum(line.seconds for line in history_so_far(own))
    return Trial(parameters, list(errors.values()), round(seconds, 1), ended_early)


def _read_trials(path: Path, order: Sequence[Mapping[str, Any]]) -> list[Trial]:
    """The finished trials of an interrupted search; none where there is no file.

    Raises:
        NemoError: the file is damaged, or of other settings.
    """
    if not path.is_file():
        return []
    try:
        values = read_json(path)
        done = [from_record(Trial, line) for line in values["trials"]]
        if values.get("sha256", _digest(values["trials"])) != _digest(values["trials"]):
            raise ValueError("not as it was written")
    except (KeyError, TypeError, ValueError):
        done = None
    if done is None or [trial.parameters for trial in done] != list(order[: len(done)]):
        raise DataError(
            f"{path} is damaged or of another search; remove its folder, and the fold starts over.", path
        )
    return done


def _write_trials(path: Path, done: Sequence[Trial]) -> None:
    trials = [dataclasses.asdict(trial) for trial in done]
    write_json(path, {"trials": trials, "sha256": _digest(trials)})


def _digest(trials: list[Any]) -> str:
    """Tells a trial whose error is another than was measured: it would choose other parameters."""
    return hashlib.sha256(json.dumps(trials, sort_keys=True).encode()).hexdigest()


def _keep_best(folder: RunFolder, done: Sequence[Trial]) -> None:
    """Remove the weights of all trials but the best."""
    for number in range(len(done)):
        if number != _best(done):
            shutil.rmtree(folder.trial(number).path, ignore_errors=True)


def _best(done: Sequence[Trial]) -> int | None:
    """Number of the trial with the least validation error; the first of equals."""
    best = min(range(len(done)), key=lambda number: done[number].error, default=None)
    return best if best is not None and math.isfinite(done[best].error) else None


def _line(number: int, trial: Trial) -> dict[str, Any]:
    return {
        "number": number,
        "state": "ended early" if trial.ended_early else "finished",
        "validation_mae": min((e for e in trial.errors if math.isfinite(e)), default=None),
        "epochs": len(trial.errors),
        "seconds": trial.seconds,
        "parameters": trial.parameters,
    }
