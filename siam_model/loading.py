"""`load`: a trained model from its folder, or the models of a run's folds as one."""

from __future__ import annotations

import os
from pathlib import Path

from siam_model.checkpoint import load_model
from siam_model.devices import resolve_device
from siam_model.ensemble import load_ensemble
from siam_model.package import is_package, unpacked
from siam_model.predict import LoadedModel


def load(path: str | os.PathLike[str], device: str = "cpu", *, ensemble: bool = False) -> LoadedModel:
    """The model of a run folder, of its `model/`, or of a file of `nemo pack-model`, on `auto`, `cpu`, `cuda`, `cuda:N`
    or `mps`.

    Args:
        ensemble: the mean of the models of a run's folds (`siam_model.ensemble`) in place of the run's own.

    Examples:
        >>> import siam_model
        >>> model = siam_model.load("RUN")
        >>> model.card.synthetic
        True

    Raises:
        NemoError: the model is missing or damaged, or this machine lacks the device; for an ensemble: no folds.
    """
    if is_package(Path(path)) and not ensemble:
        with unpacked(Path(path)) as folder:
            return load(folder, device)
    if ensemble:
        return load_ensemble(Path(path), resolve_device(device))
    return LoadedModel(*load_model(Path(path), resolve_device(device)))
