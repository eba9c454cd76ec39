"""The files of a run: their names, the versions of their formats, and what is finished in it.

RUN/settings.json    what was asked for; written first
RUN/settings.toml    the same for people, and for nemo train --config
RUN/marks.csv        what marks left out of the data, where they did
RUN/split.json       subjects of every part, and the balance
RUN/folds/<k>/       one fold: trials.json and choice.json of its search, history.csv, baselines/, model/, and
                     predictions.csv: a fold that has one is finished
RUN/predictions.csv, baselines/, history.csv, curves.png    of all folds together
RUN/model/           of all subjects; without folds: the one that predicted the subjects held out
RUN/run.json         written last
STUDY/study.json     the variants of a study; each is a run in a folder of its own
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import DataError, NemoError
from nemo_pipeline.store.files import read_bounded
from nemo_pipeline.store.text import escape_controls
from siam_model.predictions import write_bytes

#: Longest JSON file that is read, bytes: a real one has some kilobytes plus its subject codes, and what it is parsed to
#: may take twenty times as much memory.
LONGEST_JSON = 32 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Format:
    """The mark that a file of a run begins with: its `format`, and a `format_version` that older readers refuse."""

    name: str
    version: int

    def mark(self, values: dict[str, Any]) -> dict[str, Any]:
        """`values`, marked."""
        return {"format": self.name, "format_version": self.version, **values}

    def is_newer(self, values: dict[str, Any]) -> bool:
        """Whether a newer version of nemo wrote `values`. Raises KeyError, TypeError or ValueError."""
        return int(values["format_version"]) > self.version


SETTINGS = Format("nemo-run-settings", 1)
STUDY = Format("nemo-study", 1)
RUN = Format("nemo-run", 1)
MODEL = Format("nemo-siam", 1)
CHECKPOINT = Format("nemo-checkpoint", 1)


class _File:
    """A name in a folder; read from an object of the folder's class, its path."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: _Folder, owner: type) -> Path:
        return folder.path / self.name


class _Folder:
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class ModelFolder(_Folder):
    """A model: its card and its weights."""

    card = _File("config.json")
    weights = _File("model.safetensors")


class RunFolder(_Folder):
    """The folder of a run, of one of its folds, of a trial of its search, or of a study: those share their names."""

    settings = _File("settings.json")
    #: The settings for people, and for `nemo train --config`.
    options = _File("settings.toml")
    marks = _File("marks.csv")
    split = _File("split.json")
    study = _File("study.json")
    history = _File("history.csv")
    predictions = _File("predictions.csv")
    baselines = _File("baselines")
    curves = _File("curves.png")
    run = _File("run.json")
    folds = _File("folds")
    evaluation = _File("evaluation")
    tensorboard = _File("tensorboard")
    # While it is trained, or searched:
    checkpoint = _File("checkpoint.pt")
    lock = _File(".lock")
    trials = _File("trials")
    tried = _File("trials.json")
    choice = _File("choice.json")

    @property
    def model(self) -> ModelFolder:
        """The model that was trained here."""
        return ModelFolder(self.path / "model")

    @property
    def has_model(self) -> bool:
        """Whether a model was trained here: its folder appears whole."""
        return self.model.card.is_file()

    def fold(self, number: int) -> RunFolder:
        """Where fold `number`, from 0, is trained."""
        return RunFolder(self.folds / f"{number:02d}")

    def trial(self, number: int) -> RunFolder:
        """Where trial `number`, from 0, of a search is trained."""
        return RunFolder(self.trials / f"{number:03d}")

    def method(self, name: str) -> RunFolder:
        """Where a compared method that is a network is trained."""
        return RunFolder(self.path / name)

    @property
    def everyone(self) -> RunFolder:
        """Where the model of all subjects is trained, before it is moved to `model`."""
        return RunFolder(self.path / "final")

    def variant(self, name: str) -> RunFolder:
        """The run of one variant of a study."""
        return RunFolder(self.path / name)

    def baseline(self, name: str) -> Path:
        """Predictions of one baseline."""
        return self.baselines / f"{name}.csv"

    @property
    def is_study(self) -> bool:
        """Whether it holds the runs of a study."""
        return self.study.is_file()

    @property
    def is_begun(self) -> bool:
        """Whether it is the folder of a run or of a study."""
        return self.settings.is_file()

    def is_finished(self) -> bool:
        """Whether nothing is left to do for the run or the study."""
        if self.is_study:
            try:
                names = [Path(str(v["folder"])).name for v in read_json(self.study)["variants"]]
            except (KeyError, TypeError):  # damaged: opening it says so
                return False
            return all(name and self.variant(name).is_finished() for name in names)
        if not self.has_model:
            return False
        try:
            return not read_json(self.run).get("provisional", False)
        except NemoError:  # missing, or damaged: it is written again
            return False

    def missing_folds(self, folds: int) -> list[int]:
        """Those of so many folds that are not finished."""
        return [k for k in range(folds) if not self.fold(k).predictions.is_file()]

    def summed(self) -> Sequence[Path]:
        """The files there are whose content is recorded in SHA256SUMS; of a model's folder, too."""
        files = [
            self.settings,
            self.marks,
            self.split,
            self.study,
            self.choice,
            self.history,
            self.predictions,
        ]
        model = ModelFolder(self.path)
        files += [*sorted(self.baselines.glob("*.csv")), self.run, model.card, model.weights]
        return [file for file in files if file.is_file()]


class EvaluationFolder(_Folder):
    """What `evaluate` writes."""

    report = _File("report.html")
    numbers = _File("evaluation.json")
    figures = _File("figures")
    tables = _File("tables")
    phases = _File("phases.csv")
    #: Of an external test set.
    predictions = _File("predictions.csv")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """A JSON file by rename, readable by its owner alone."""
    write_bytes(path, (json.dumps(values, indent=1) + "\n").encode("utf-8", "surrogateescape"))


def read_json(path: Path, **kinds: type) -> dict[str, Any]:
    """The inverse of `write_json`.

    Args:
        path: the file.
        kinds: what the values of some keys must be, where they are there and not null.

    Raises:
        DataError: the file is missing, unreadable or no JSON object, or a value is of another kind.
    """
    shown = escape_controls(str(path))
    try:
        values = json.loads(read_bounded(path, LONGEST_JSON).decode("utf-8", "surrogateescape"))
    except FileNotFoundError:
        raise DataError(f"{shown} does not exist; is this a finished run of `nemo train`?", path) from None
    except OSError as error:
        raise DataError(f"{shown} cannot be read: {error.strerror}.", path) from None
    except (json.JSONDecodeError, RecursionError):
        raise DataError(f"{shown} is damaged: it is not JSON.", path) from None
    except ValueError as error:
        raise DataError(f"{shown} is damaged: {escape_controls(str(error))}.", path) from None
    if not isinstance(values, dict):
        raise DataError(f"{shown} is damaged: it is not a JSON object.", path)
    for key, kind in kinds.items():
        if not isinstance(values.get(key), kind | None):
            value = escape_controls(repr(values[key])[:80])
            raise DataError(f"{shown} is damaged: {key} is {value}; copy the run again.", path)
    return values
