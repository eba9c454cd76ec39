"""The exceptions that people see: what is wrong, as one sentence, and what a program needs to know of it.

    NemoError
      SettingsError      a setting that cannot be, or settings that contradict each other
      DataError          what was given (videos, labels, a mean shape, predictions) cannot be used
        DamagedFile      a nemo file is not as it was written
        LeakageError     a subject or a video would be both trained on and tested
      OutputError        something cannot be written where it should be
      RunError           a training run is unfinished, incomplete or contradicts itself
      InstallationError  a package is missing, damaged or of another version
      ProcessError       a process that does a part of the work died, or cannot be reached
      Busy               another process is using the file or folder
      NotFinite          a training diverged

Sentences name settings and functions in backticks, as Python has them (`max_yaw_degrees`, `resume(RUN)`); the command
line shows its own options in their place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class NemoError(Exception):
    """Something the user can act on. Its text is one clear sentence: what is wrong, in which file, what to do."""


class SettingsError(NemoError):
    """A setting that cannot be, or settings that contradict each other.

    Attributes:
        settings: their names, as fields or arguments.
    """

    def __init__(self, text: str, *settings: str) -> None:
        super().__init__(text)
        self.settings = settings


class DataError(NemoError):
    """A file or folder that was given cannot be used, or what is in it.

    Attributes:
        path: which; None where the data are in memory, or of several files.
    """

    def __init__(self, text: str, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(text)
        self.path = None if path is None else Path(path)


class DamagedFile(DataError):
    """A nemo file that is not as it was written.

    Attributes:
        path: the file.
        dataset: which part of it, as /videos/age; "" for its structure as a whole.
        wrong: what is wrong with that part; follows its name in the message.
    """

    def __init__(self, path: Path | str, dataset: str, wrong: str) -> None:
        super().__init__(f"{path} is damaged: {dataset or 'it'} {wrong}. Take another copy of it.", path)
        self.dataset, self.wrong = dataset, wrong


class LeakageError(DataError):
    """A subject or a video would be both trained on and tested, so an error on it would say nothing.

    Attributes:
        shared: subjects or videos; empty where all are.
    """

    def __init__(self, text: str, *shared: str) -> None:
        super().__init__(text)
        self.shared = shared


class OutputError(NemoError):
    """Something cannot be written where it should be: another file has the name, or the place cannot be used.

    Attributes:
        path: where.
    """

    def __init__(self, text: str, path: str | os.PathLike[str]) -> None:
        super().__init__(text)
        self.path = Path(path)


class RunError(NemoError):
    """A run of a training is unfinished, incomplete, or contradicts itself.

    Attributes:
        run: its folder.
    """

    def __init__(self, text: str, run: str | os.PathLike[str]) -> None:
        super().__init__(text)
        self.run = Path(run)


class InstallationError(NemoError):
    """A package that is needed is missing, damaged or of another version.

    Attributes:
        package: its name, as pip has it.
    """

    def __init__(self, text: str, package: str) -> None:
        super().__init__(text)
        self.package = package


class ProcessError(NemoError):
    """A process that does a part of the work died, or cannot be reached."""


class Busy(NemoError):
    """Another process is using the file or folder."""


class NotFinite(NemoError):
    """A training diverged: the loss, an activation or a gradient is not a finite number any more.

    Attributes:
        where: the epoch and batch.
        origin: the first part of the network that is not finite.
        videos: ids of the videos in the batch (of those whose loss is not finite, where it is the loss).
    """

    def __init__(self, text: str, where: str = "", origin: str = "", videos: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.where, self.origin, self.videos = where, origin, videos


def to_message(error: NemoError) -> dict[str, Any]:
    """An error with its type and fields as JSON types, to be sent to another process."""
    fields = {name: str(v) if isinstance(v, Path) else v for name, v in vars(error).items()}
    return {"type": type(error).__name__, "text": str(error), "fields": fields}


def from_message(message: Mapping[str, Any]) -> NemoError:
    """The inverse of `to_message`. A type that this process does not know becomes NemoError."""
    kind = next((kind for kind in _kinds(NemoError) if kind.__name__ == message["type"]), NemoError)
    error = kind.__new__(kind)
    error.args = (message["text"],)
    for name, value in message["fields"].items():
        path = name in ("path", "run") and value is not None
        setattr(error, name, Path(value) if path else tuple(value) if isinstance(value, list) else value)
    return error


def _kinds(kind: type[NemoError]) -> Iterator[type[NemoError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)
