"""The exceptions that people see."""

from __future__ import annotations

from pathlib import Path


class NemoError(Exception):
    """Something the user can act on. Its text is one clear sentence: what is wrong, in which file, what to do."""


class DamagedFile(NemoError):
    """A nemo file that is not as it was written.

    Attributes:
        path: the file.
        dataset: which part of it, as /videos/age; "" for its structure as a whole.
        wrong: what is wrong with that part; follows its name in the message.
    """

    def __init__(self, path: Path | str, dataset: str, wrong: str) -> None:
        self.path, self.dataset, self.wrong = Path(path), dataset, wrong
        super().__init__(f"{path} is damaged: {dataset or 'it'} {wrong}. Take another copy of it.")
