"""The exceptions that people see: what is wrong, as one sentence, and what a program needs to know of it.

    NemoError
      SettingsError      a setting that cannot be, or settings that contradict each other
      DataError          a file that was given (data, labels, a mean shape, predictions) cannot be used
        DamagedFile      a nemo file is not as it was written
      OutputError        something cannot be written where it should be
      RunError           a training run is unfinished, incomplete or contradicts itself
      Busy               another process is at it
      NotFinite          a training diverged

Sentences name settings and functions in backticks, as Python has them (`max_yaw_degrees`, `resume(RUN)`); the command
line shows its own options in their place.
"""

from __future__ import annotations

import os
from pathlib import Path


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


class _PathError(NemoError):
    def __init__(self, text: str, path: str | os.PathLike[str]) -> None:
        super().__init__(text)
        self.path = Path(path)


class DataError(_PathError):
    """A file or folder that was given cannot be used.

    Attributes:
        path: which.
    """


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


class OutputError(_PathError):
    """Something cannot be written where it should be: it is in the way of another file, or the place cannot be used.

    Attributes:
        path: where.
    """


class RunError(NemoError):
    """A run of a training is unfinished, incomplete, or contradicts itself.

    Attributes:
        run: its folder.
    """

    def __init__(self, text: str, run: str | os.PathLike[str]) -> None:
        super().__init__(text)
        self.run = Path(run)


class Busy(NemoError):
    """Another process is at it."""


class NotFinite(NemoError):
    """A training diverged: the loss, an activation or a gradient is no finite number any more.

    Attributes:
        where: the epoch and batch.
        origin: the first part of the network that is not finite.
        videos: ids of the videos in the batch (of those whose loss is not finite, where it is the loss).
    """

    def __init__(self, text: str, where: str = "", origin: str = "", videos: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.where, self.origin, self.videos = where, origin, videos
