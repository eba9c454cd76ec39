"""Run folders: where a training writes, what is finished in it, and which of them may be picked unasked.

RUN/settings.json    what was asked for; written first
RUN/split.json       subjects of every part, and the balance
RUN/folds/<k>/       one fold: trials.json and choice.json of its search, history.csv, baselines/, model/, and
                     predictions.csv: a fold that has one is finished
RUN/predictions.csv, baselines/, history.csv, curves.png    of all folds together
RUN/model/           of all subjects; without folds: the one that predicted the subjects held out
RUN/run.json         written last
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store.files import read_bounded
from nemo_pipeline.store.locks import hold
from nemo_pipeline.store.text import escape_controls
from siam_model.predictions import write_bytes

#: Where runs are written and looked for by default.
RUNS = Path("runs")
#: Said where there is no model to use.
_STILL_AGE = (
    "Without one, --model still-age estimates ages from the frames as still pictures, with a network that others "
    "trained (pip install 'nemo-faces[still-age]')."
)
#: Longest JSON file that is read, bytes: a real one has some kilobytes plus its subject codes, and what it is parsed to
#: may take twenty times as much memory.
LONGEST_JSON = 32 << 20


def new_run_folder(out: Path | None, shared: bool = False) -> Path:
    """Create the folder of a run: `out`, or `runs/<date-time>`.

    Args:
        shared: other processes may begin the same run at this moment.

    Raises:
        NemoError: it exists and holds something, or cannot be made.
    """
    try:
        if out is not None:
            if shared and (out / "settings.json").is_file():
                return out
            if out.exists() and (not out.is_dir() or any(not _is_begun(name) for name in out.iterdir())):
                if shared and (out / "settings.json").is_file():  # since we looked
                    return out
                begun = (out / "settings.json").is_file() and not is_finished(out)
                more = (
                    f", or resume it: nemo train --resume --out {escape_controls(str(out))}" if begun else ""
                )
                raise NemoError(
                    f"{escape_controls(str(out))} exists already; name another folder with --out{more}."
                )
            out.mkdir(mode=0o700, parents=True, exist_ok=True)
            return out
        stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        for attempt in range(1000):
            folder = RUNS / (stamp if not attempt else f"{stamp}_{attempt}")
            try:
                folder.mkdir(mode=0o700, parents=True)
                return folder
            except FileExistsError:
                continue
    except OSError as error:
        shown = escape_controls(str(out if out is not None else RUNS))
        raise NemoError(f"The run folder {shown} cannot be created: {error.strerror}.") from None
    raise NemoError(f"{RUNS} holds a thousand runs of this very second; name a folder with --out.")


def _is_begun(entry: Path) -> bool:
    """Whether a folder with this in it may be one that another process, or a killed one, was about to begin."""
    return entry.name.lstrip(".").startswith("settings.json.") and entry.name.endswith(".tmp")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """A JSON file by rename, readable by its owner alone."""
    write_bytes(path, (json.dumps(values, indent=1) + "\n").encode("utf-8", "surrogateescape"))


def read_json(path: Path) -> dict[str, Any]:
    """The inverse of `write_json`.

    Raises:
        NemoError: the file is missing, unreadable or no JSON object.
    """
    shown = escape_controls(str(path))
    try:
        values = json.loads(read_bounded(path, LONGEST_JSON).decode("utf-8", "surrogateescape"))
    except FileNotFoundError:
        raise NemoError(f"{shown} does not exist; is this a finished run of `nemo train`?") from None
    except OSError as error:
        raise NemoError(f"{shown} cannot be read: {error.strerror}.") from None
    except (json.JSONDecodeError, RecursionError):
        raise NemoError(f"{shown} is damaged: it is no JSON.") from None
    except ValueError as error:
        raise NemoError(f"{shown} is damaged: {escape_controls(str(error))}.") from None
    if not isinstance(values, dict):
        raise NemoError(f"{shown} is damaged: it is no JSON object.")
    return values


def fold_folder(run: Path, fold: int) -> Path:
    """Where fold `fold`, from 0, is trained."""
    return run / "folds" / f"{fold:02d}"


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for its owner alone."""
    for path in reversed([folder, *folder.parents]):
        if not path.is_dir():
            path.mkdir(mode=0o700, exist_ok=True)


def check_no_links(run: Path) -> None:
    """Raises NemoError where a folder in that of a run is a link: what is behind it is not the run's to change, and
    training renames and removes folders."""
    for place, names, _ in os.walk(run):
        for name in names:
            path = Path(place, name)
            if path.is_symlink() and name != "evaluation":
                raise NemoError(
                    f"{escape_controls(str(path))} is a link to another folder, and training would change what is "
                    "there; put the folder itself in its place."
                )


def is_finished(folder: Path) -> bool:
    """Whether nothing is left to do in the folder of a run or of a study."""
    if (folder / "study.json").is_file():
        try:
            names = [Path(str(v["folder"])).name for v in read_json(folder / "study.json")["variants"]]
        except (KeyError, TypeError):  # damaged: whoever opens it says so
            return False
        return all(name and is_finished(folder / name) for name in names)
    if not (folder / "model" / "config.json").is_file():
        return False
    try:
        return not read_json(folder / "run.json").get("provisional", False)
    except NemoError:  # missing, or damaged: it is written anew
        return False


def missing_folds(run: Path, folds: int) -> list[int]:
    """The folds that are not finished."""
    return [k for k in range(folds) if not (fold_folder(run, k) / "predictions.csv").is_file()]


def newest_unfinished(root: Path = RUNS) -> Path:
    """The run or study under `root` that was begun last and is not finished.

    Raises:
        NemoError: there is none.
    """
    found = []
    for folder in root.iterdir() if root.is_dir() else []:
        with contextlib.suppress(OSError, NemoError, KeyError, TypeError):
            if not is_finished(folder):
                found.append(((folder / "settings.json").stat().st_mtime_ns, folder.name, folder))
    if not found:
        raise NemoError(
            f"There is no unfinished run in {root}; name the one to resume: nemo train --resume --out RUN."
        )
    return max(found)[2]


def held(folder: Path, what: str, patience: float = 0.0) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of `folder`, so that no other process trains the same thing. It ends with this process.

    Args:
        what: what is locked, for the sentence: "fold 3 of runs/x".
        patience: seconds to wait for another process.

    Raises:
        Busy: another process holds it.
    """
    busy = Busy(f"{what} is being trained by another process; wait for it, or take another fold.")
    read_only = f"{escape_controls(str(folder))} is read-only: nothing can be written there."
    return hold(folder / ".lock", busy=busy, read_only=read_only, patience=patience)


class Busy(NemoError):
    """Another process is at it."""


def newest_run(root: Path = RUNS) -> Path:
    """The newest finished run under `root` whose model was trained on real faces.

    Models of synthetic faces are never picked unasked: their ages mean nothing for people.

    Raises:
        NemoError: there is none; the sentence says what to do.
    """
    found: list[tuple[int, str, Path]] = []
    synthetic: list[tuple[int, str, Path]] = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        card = folder / "model" / "config.json"
        try:
            values = read_json(card)
            made = card.stat().st_mtime_ns
        except (OSError, NemoError):
            continue  # not a run, or one that is still training
        mine = synthetic if values.get("synthetic", True) else found
        mine.append((made, folder.name, folder))
    if found:
        return max(found)[2]
    if synthetic:
        raise NemoError(
            f"The only runs in {root} were trained on synthetic faces, and their ages mean nothing for people: name "
            f"one with --model {escape_controls(str(max(synthetic)[2]))} to use it all the same, or train on your own "
            f"videos with `nemo train out.h5`. {_STILL_AGE}"
        )
    raise NemoError(
        f"There is no trained model in {root}: train one with `nemo train out.h5`, or name one with --model RUN. "
        f"{_STILL_AGE}"
    )
