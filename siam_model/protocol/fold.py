"""One split: a model of its training subjects, searched for where asked, that predicts the subjects it never saw.

`predictions.csv` is written last: a fold that has one is finished.
"""

from __future__ import annotations

import shutil

import numpy as np

from nemo_pipeline.errors import LeakageError
from nemo_pipeline.store.files import sweep
from nemo_pipeline.store.text import escape_controls, pluralize
from siam_model.checkpoint import load_model
from siam_model.devices import resolve_device
from siam_model.predict import estimate
from siam_model.predictions import Predictions, write_predictions
from siam_model.protocol.baselines import Features, fit_baselines, to_predictions
from siam_model.protocol.compared import train_methods
from siam_model.protocol.fit_folder import FitSubjects, has_trained, train_in
from siam_model.protocol.open_run import OpenRun
from siam_model.protocol.reporter import TrainingScope
from siam_model.protocol.splits import Split
from siam_model.run_folder import RunFolder
from siam_model.runs import held, make_private
from siam_model.sums import write_sums


def train_split(
    run: OpenRun,
    split: Split,
    folder: RunFolder,
    where: TrainingScope,
    features: Features,
) -> None:
    """Search (where asked for), train, keep the model, predict the test part; nothing when that is done already.

    Args:
        folder: of the fold, or of the run itself when it has no folds.
        features: of the baselines, measured once for all folds of this process.

    Raises:
        Busy: another process is training it.
        NemoError: the loss is not finite, or data cannot be read.
    """
    make_private(folder.path)
    what = "the run" if where.fold is None else f"fold {split.fold}"
    with held(folder, f"{what} of {escape_controls(str(run.folder))}"):
        if folder.predictions.is_file():
            return
        sweep(folder.path)
        people = FitSubjects(split.fold, split.training, split.validation)
        if not has_trained(folder):
            if run.settings.trials:
                from siam_model.protocol.search import search  # torch, loaded where it is needed

                search(run, people, folder, where)
            else:
                train_in(run, people, folder, where, run.model, run.config)
        shutil.rmtree(folder.trials, ignore_errors=True)
        folder.checkpoint.unlink(missing_ok=True)
        folder.baselines.mkdir(mode=0o700, exist_ok=True)
        for name, line in fit_baselines(split, run.table, features).items():
            write_predictions(folder.baseline(name), line)
        train_methods(run, split, folder, where, features.descriptors)
        predictions = predict_split(run, split, folder)
        run.reporter.say(
            f"mean absolute error {predictions.error.mean():.2f} years on {pluralize(len(predictions), 'video')} of "
            f"{pluralize(len(split.test), 'subject')} that it never saw",
            where,
        )
        write_predictions(folder.predictions, predictions)
        write_sums(folder.path)


def predict_split(run: OpenRun, split: Split, folder: RunFolder) -> Predictions:
    """The ages of the split's test part by the model in `folder`, with the very function that `nemo predict` uses.

    Raises:
        NemoError: the model knows one of these subjects.
    """
    network, card = load_model(folder.path, resolve_device(run.runtime.device))
    seen = {*card.subjects["training"], *card.subjects["validation"]} & set(split.test)
    if seen:
        raise LeakageError(
            f"{escape_controls(str(folder.model))} was trained on subject {escape_controls(min(seen))}, whom it "
            "should be tested on; remove that folder and resume with `resume()`.",
            *sorted(seen),
        )
    rows = run.table.rows_of(split.test)
    ages = [
        estimate(network, run.dataset[int(i)].frames, card.normalisation, card.train).age
        for i in run.index(rows)
    ]
    return to_predictions(run.table, rows, split.fold, np.array(ages))
