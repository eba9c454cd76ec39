"""One model, trained into a folder from which the same call continues after a kill: `checkpoint.pt` while
it trains, then `model/` with its `history.csv`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from nemo_pipeline.errors import DataError, NemoError
from nemo_pipeline.fields import from_record
from siam_model.checkpoint import ModelCard, save_model
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.data import measure_normalisation
from siam_model.protocol.history import read_history, write_history
from siam_model.protocol.open_run import OpenRun
from siam_model.protocol.reporter import Reporter, TrainingScope
from siam_model.run_folder import RunFolder
from siam_model.training.records import EpochRecord
from siam_model.training.stages import stages_of

#: A first step that took longer, seconds, is told at once; of a shorter one, what comes once counts for too much.
_LONG_STEP = 5.0
#: A step forward alone, as in validation, takes this part of one forward and back.
_FORWARD = 1 / 3


@dataclasses.dataclass(frozen=True, slots=True)
class FitSubjects:
    """Who trains and who validates (nobody, for the model of all subjects), and the `fold` of their records."""

    fold: int
    training: tuple[str, ...]
    validation: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """What a training left in its folder."""

    history: tuple[EpochRecord, ...]

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights are kept, from 1."""
        return self._kept.epoch

    @property
    def error(self) -> float:
        """Validation error of the weights that are kept, years; NaN where nobody validates."""
        return self._kept.validation_mae

    @property
    def _kept(self) -> EpochRecord:
        for line in reversed(self.history):
            if line.best:
                return line
        raise DataError(
            "history.csv of a finished training is empty or missing: copy it again; or remove the folder of its fold "
            "(of a run without folds, start over with another `out`), and resume with `resume()`."
        )


def train_in(
    run: OpenRun,
    people: FitSubjects,
    folder: RunFolder,
    where: TrainingScope,
    model: SIAMConfig,
    config: TrainConfig,
    *,
    on_record: Callable[[EpochRecord], None] | None = None,
) -> Trained:
    """Train one model into `folder` (model/, history.csv), going on where a killed process was.

    Args:
        on_record: told of every epoch too, after history.csv; what it raises ends the training and comes out here.
    """
    if has_trained(folder):
        return Trained(tuple(read_history(folder.history)))
    from siam_model.training.fit import Machine, fit  # and torch with it, which joining folds can do without
    from siam_model.training.inputs import FitInputs

    training, validation = run.table.rows_of(people.training), run.table.rows_of(people.validation)
    normalisation = measure_normalisation(run.dataset, run.index(training))
    lines = history_so_far(folder)
    first_stage = stages_of(config)[0]
    first = first_stage.start + 1

    def record(line: EpochRecord) -> None:
        lines[:] = [old for old in lines if old.epoch < line.epoch] + [line]
        write_history(folder.history, lines)
        run.reporter.epoch(where, line)
        if on_record is not None:
            on_record(line)

    frames = run.table.length
    pace = _Pace(
        run.reporter,
        where,
        int(frames[training].sum()),
        int(frames[validation].sum()),
        first_stage.kind != "all",
    )

    def batch(done: int, total: int) -> None:
        pace.step(done, total)
        run.reporter.batch(where, first + len(lines), done, total)

    # Every fold has its own start and order; the trials of a fold share them, so that only parameters differ.
    seed = (run.settings.seed, 0 if where.fold in (None, -1) else 1 + people.fold)
    inputs = FitInputs(
        run.clips,
        training,
        validation,
        model,
        config,
        normalisation,
        seed,
        people.fold,
        run.settings.precision,
        run.start,
    )
    fitted = fit(
        inputs,
        Machine(run.runtime.device, run.runtime.devices, run.runtime.workers, run.runtime.eager),
        checkpoint=folder.checkpoint,
        on_epoch=record,
        on_batch=batch,
        tensorboard=run.runtime.tensorboard,
        say=lambda text: run.reporter.say(text, where),
    )
    write_history(folder.history, fitted.history)
    seen = np.concatenate([training, validation])
    learnt = run.table.age[seen]
    card = ModelCard(
        model=model,
        train=config,
        normalisation=normalisation,
        prep=run.dataset.config.to_dict(),
        mean_shape=run.dataset.mean_shape,
        triangles=run.dataset.triangles,
        ages={"min": float(learnt.min()), "median": float(np.median(learnt)), "max": float(learnt.max())},
        subjects={"training": list(people.training), "validation": list(people.validation)},
        dataset=run.settings.dataset,
        synthetic=run.dataset.synthetic or (run.start is not None and run.start.card.synthetic),
        videos=sorted(
            {
                *(str(run.dataset.videos["sha256"][i]) for i in run.index(seen)),
                *(run.start.card.videos if run.start is not None else ()),
            }
            - {""}
        ),
        start_subjects=run.start.people if run.start is not None else [],
        preset=run.settings.preset,
        seed=run.settings.seed,
    )
    save_model(folder.model.path, fitted.model, card)
    folder.checkpoint.unlink(missing_ok=True)
    return Trained(fitted.history)


class _Pace:
    """Times the first step of a training, and tells the reporter."""

    def __init__(
        self, reporter: Reporter, where: TrainingScope, training: int, validation: int, prepares: bool = False
    ) -> None:
        """`training`, `validation`: frames of each part. `prepares`: before its first step, a training computes what it
        learns from (targets of pretraining, frozen features), so that step says nothing."""
        self._prepares = prepares
        self._reporter, self._where = reporter, where
        self._epoch = 1 + _FORWARD * validation / training  # of the time that its steps take
        self._last, self._told = time.monotonic(), False

    def step(self, done: int, total: int) -> None:
        """So many steps of an epoch are done."""
        if self._told:
            return
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        if (seconds > _LONG_STEP and not self._prepares) or done > 1 or total == 1:
            self._told = True
            self._reporter.timed(self._where, seconds, total, seconds * total * self._epoch)


def has_trained(folder: RunFolder) -> bool:
    """Whether its training is finished."""
    return folder.has_model and folder.history.is_file()


def history_so_far(folder: RunFolder) -> list[EpochRecord]:
    """The epochs that a training in this folder has finished, as its checkpoint has them: an epoch is in there before
    anybody is told of it. Of a training that is finished, all of history.csv."""
    if has_trained(folder):
        return read_history(folder.history)
    from siam_model.training.resume import read_checkpoint  # and torch with it

    try:
        return [from_record(EpochRecord, line) for line in read_checkpoint(folder.checkpoint)["history"]]
    except (
        FileNotFoundError,
        NemoError,
        KeyError,
        TypeError,
        ValueError,
    ):  # `fit` says what is wrong with it
        return []
