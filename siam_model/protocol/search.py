"""The parameters of one fold, chosen on its validation subjects from the paper's sets. Never sees the test fold.

Section IV-C: h from {128, 256, 512}; a dropout for the recurrent and one for the convolutional part, each from
{0, 0.1, 0.2, 0.4}; lambda from {0, 1e-4, 3e-4, 5e-4, 1e-3, 3e-3, 5e-3}: 336 combinations. h is searched at half, once
and twice the preset's, which for the paper's preset is its set. What is set by hand (`--set model.hidden=200`) stays.

The first trial has the preset's own values; the others follow Optuna's tree-structured Parzen estimator, and one that
after some epochs is worse than the median of the earlier ones is ended. Each proposal depends on the seed, its number
and the trials finished before it, and nothing else: a search that was cut off goes on, inside its trial, to the same
choice. A trial trains on the training subjects and stops early on the validation subjects, just as a run without a
search, so the best trial's weights are the fold's: nothing is trained again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store.files import sweep
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.protocol.history import read_history
from siam_model.protocol.onemodel import Subjects, history_so_far, train_in
from siam_model.protocol.work import Reporter, Runtime, Where, Work
from siam_model.runs import make_private, write_json
from siam_model.training.diagnose import NotFinite
from siam_model.training.records import EpochRecord

DROPOUTS = (0.0, 0.1, 0.2, 0.4)
LAMBDAS = (0.0, 1e-4, 3e-4, 5e-4, 1e-3, 3e-3, 5e-3)
#: Trials before the estimator takes over from chance, and before one may be ended early.
STARTUP_TRIALS = 5
PRUNER_TRIALS = 3
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def space_of(model: SIAMConfig, overrides: Mapping[str, str]) -> dict[str, tuple[Any, ...]]:
    """Parameter -> the values that are tried. What `overrides` sets is not searched."""
    whole = {
        "model.hidden": (max(1, model.hidden // 2), model.hidden, 2 * model.hidden),
        "model.dropout_conv": DROPOUTS,
        "model.dropout_recurrent": DROPOUTS,
        "train.l2": LAMBDAS,
    }
    return {name: values for name, values in whole.items() if name not in overrides}


def values_of(model: SIAMConfig, config: TrainConfig, names: Mapping[str, Any]) -> dict[str, Any]:
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


def search(
    work: Work, people: Subjects, folder: Path, where: Where, runtime: Runtime, reporter: Reporter
) -> None:
    """Choose the parameters of a fold; leaves model/, history.csv and choice.json in its folder.

    Hold the folder's lock. Everything is kept as it comes: trials.log (Optuna's journal), and the weights of the best
    trial so far and of the one that is running.

    Raises:
        NemoError: no trial ended with a finite error.
    """
    space = space_of(work.model, work.settings.overrides)
    budget = min(work.settings.trials, int(np.prod([len(v) for v in space.values()], dtype=np.int64)))
    with _quiet_optuna():
        study = _open_study(folder / "trials.log", budget, work.config.epochs)
        for cut in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(cut.number, state=TrialState.FAIL)  # of a killed process; its files are gone on with
        while len(done := study.get_trials(deepcopy=False, states=_FINISHED)) < budget:
            values = propose(space, done, values_of(work.model, work.config, space), _seed(work, people))
            here = dataclasses.replace(where, trial=len(done), trials=budget)
            if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                study.enqueue_trial(values)
            trial = study.ask({name: CategoricalDistribution(line) for name, line in space.items()})
            _run_trial(study, trial, len(done), work, people, folder, here, runtime, reporter)
        done = study.get_trials(deepcopy=False, states=_FINISHED)
        best = _best(done)
        if best is None:
            raise NemoError(
                "no trial of the search ended with a finite error; try a smaller step, for instance --set "
                f"train.learning_rate={work.config.learning_rate / 10:g}"
            )
    kept = _trial_folder(folder, best)
    lines = [_line(number, trial) for number, trial in enumerate(done)]
    write_json(
        folder / "choice.json",
        {
            "chosen": lines[best]["parameters"],
            "trial": best,
            "validation_mae": lines[best]["validation_mae"],
            "budget": budget,
            "space": {name: list(values) for name, values in space.items()},
            "trials": lines,
        },
    )
    if (kept / "history.csv").is_file():
        (kept / "history.csv").replace(folder / "history.csv")
    if (kept / "tensorboard").is_dir():
        (kept / "tensorboard").rename(folder / "tensorboard")
    (kept / "model").rename(folder / "model")
    shown = ", ".join(f"{name} {value:g}" for name, value in lines[best]["parameters"].items())
    reporter.say(f"chose trial {best + 1} of {budget}: {shown}", where)


def propose(
    space: Mapping[str, tuple[Any, ...]],
    done: list[FrozenTrial],
    first: Mapping[str, Any],
    seed: tuple[int, ...],
) -> dict[str, Any]:
    """The values of the next trial, one that was not tried before; the first one has the values `first`.

    Follows from its arguments alone: Optuna's estimator is asked in a fresh study of the finished trials.
    """
    if not done:
        return dict(first)
    tried = {_key(trial.params) for trial in done}
    distributions = {name: CategoricalDistribution(values) for name, values in space.items()}
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.trial.create_trial(
                state=trial.state,
                value=trial.value if trial.state == TrialState.COMPLETE else None,
                params=trial.params,
                distributions=dict(distributions),
                intermediate_values=trial.intermediate_values,
            )
            for trial in done
        ]
    )
    state = np.random.SeedSequence([*seed, len(done), 0x7E5]).generate_state(21)
    for attempt in range(20):
        study.sampler = optuna.samplers.TPESampler(
            seed=int(state[attempt]), n_startup_trials=STARTUP_TRIALS, multivariate=True
        )
        asked = study.ask(dict(distributions))
        study.tell(asked, state=TrialState.FAIL)
        if _key(asked.params) not in tried:
            return {name: asked.params[name] for name in space}
    left = [
        dict(zip(space, values, strict=True))
        for values in itertools.product(*space.values())
        if _key(dict(zip(space, values, strict=True))) not in tried
    ]
    return left[int(np.random.default_rng(int(state[20])).integers(len(left)))]


def _run_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    number: int,
    work: Work,
    people: Subjects,
    folder: Path,
    where: Where,
    runtime: Runtime,
    reporter: Reporter,
) -> None:
    """Train with the trial's values; the result goes into the study, and worse weights than the best are removed."""
    own = _trial_folder(folder, number)
    make_private(own)
    sweep(own)
    model, config = apply(work.model, work.config, trial.params)
    reported: set[int] = set()

    def report(line: EpochRecord) -> None:
        if line.epoch in reported:  # repeated, since its process was killed before it was kept
            return
        reported.add(line.epoch)
        trial.report(line.validation_mae, line.epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    state, value = TrialState.COMPLETE, None
    try:
        for line in history_so_far(own):  # of a process that was killed in this trial
            report(line)
        train_in(work, people, own, where, runtime, reporter, model, config, on_record=report)
        # As the file has it, so that a search gone on with decides by the same digits.
        value = min(line.validation_mae for line in read_history(own / "history.csv"))
    except optuna.TrialPruned:
        state = TrialState.PRUNED
        reporter.say("ended early: worse than the median of the trials before", where)
    except NotFinite as error:
        state = TrialState.PRUNED  # a combination that does not train is a bad one, and no reason to stop
        reporter.say(f"ended: {error}", where)
    history = history_so_far(own)
    trial.set_user_attr("epochs", len(history))
    trial.set_user_attr("seconds", round(sum(line.seconds for line in history), 1))
    study.tell(trial, values=value, state=state)
    done = study.get_trials(deepcopy=False, states=_FINISHED)
    best = _best(done)
    for other in range(len(done)):
        if other != best:
            shutil.rmtree(_trial_folder(folder, other), ignore_errors=True)


def _best(done: list[FrozenTrial]) -> int | None:
    """Number of the trial with the least validation error; the first of equals."""
    values = [t.value if t.state == TrialState.COMPLETE and t.value is not None else np.inf for t in done]
    return int(np.argmin(values)) if values and np.isfinite(min(values)) else None


def _line(number: int, trial: FrozenTrial) -> dict[str, Any]:
    reported = [v for v in trial.intermediate_values.values() if np.isfinite(v)]
    return {
        "number": number,
        "state": "finished" if trial.state == TrialState.COMPLETE else "ended early",
        "validation_mae": trial.value if trial.state == TrialState.COMPLETE else min(reported, default=None),
        "epochs": trial.user_attrs["epochs"],
        "seconds": trial.user_attrs["seconds"],
        "parameters": dict(trial.params),
    }


def _trial_folder(folder: Path, number: int) -> Path:
    return folder / "trials" / f"{number:03d}"


def _key(values: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(values.items()))


def _seed(work: Work, people: Subjects) -> tuple[int, ...]:
    return (work.settings.seed, people.fold)


class _Ours(JournalFileOpenLock):
    """No lock of Optuna's: the fold's own is held, and one left behind by a killed process would have to be broken."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _open_study(file: Path, budget: int, epochs: int) -> optuna.Study:
    """The study in `file`. A last line that a killed process wrote in part is cut off first."""
    handle = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
    with os.fdopen(handle, "r+b") as opened:
        data = opened.read()
        if not data.endswith(b"\n"):
            opened.truncate(data.rfind(b"\n") + 1)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(file), lock_obj=_Ours(str(file))))
    return optuna.create_study(
        study_name="search",
        storage=storage,
        direction="minimize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(
            n_startup_trials=PRUNER_TRIALS, n_warmup_steps=max(3, epochs // 10)
        ),
    )


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna's lines about trials say what ours say."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
