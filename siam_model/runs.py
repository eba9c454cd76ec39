"""Run folders: where a training writes, which process holds one, and which is the newest."""

from __future__ import annotations

import contextlib
import datetime
import os
from pathlib import Path

from nemo_pipeline.errors import NemoError, OutputError, RunError
from nemo_pipeline.store.locks import hold
from nemo_pipeline.store.text import escape_controls
from siam_model.run_folder import RunFolder, read_json

#: Where runs are written and looked for by default.
RUNS = Path("runs")
#: Said where there is no model to use.
_STILL_AGE = (
    "Without one, `model=still-age` estimates ages from the frames as still pictures, with a network that others "
    "trained (pip install 'nemo-faces[still-age]')."
)


def new_run_folder(out: Path | None, shared: bool = False) -> Path:
    """Create the folder of a run: `out`, or `runs/<date-time>`.

    Args:
        shared: other processes may begin the same run at this moment.

    Raises:
        NemoError: it exists and holds something, or cannot be made.
    """
    try:
        if out is not None:
            given = RunFolder(out)
            if shared and given.is_begun:
                return out
            if out.exists() and (not out.is_dir() or any(not _is_begun(name) for name in out.iterdir())):
                if shared and given.is_begun:  # since we looked
                    return out
                begun = given.is_begun and not given.is_finished()
                more = f", or resume it: `resume({escape_controls(str(out))})`" if begun else ""
                raise OutputError(
                    f"{escape_controls(str(out))} exists already; name another folder with `out`{more}.", out
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
        raise OutputError(
            f"The run folder {shown} cannot be created: {error.strerror}.", out if out is not None else RUNS
        ) from None
    raise OutputError(f"{RUNS} holds a thousand runs of this very second; name a folder with `out`.", RUNS)


def _is_begun(entry: Path) -> bool:
    """Whether a folder with this in it may be one that another process, or a killed one, was about to begin."""
    first = RunFolder(entry.parent).settings.name
    return entry.name.lstrip(".").startswith(f"{first}.") and entry.name.endswith(".tmp")


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
            if path.is_symlink() and path != RunFolder(run).evaluation:
                raise OutputError(
                    f"{escape_controls(str(path))} is a link to another folder, and training would change what is "
                    "there; put the folder itself in its place.",
                    path,
                )


def newest_unfinished(root: Path = RUNS) -> Path:
    """The run or study under `root` that was begun last and is not finished.

    Raises:
        NemoError: there is no unfinished run.
    """
    found = []
    for folder in root.iterdir() if root.is_dir() else []:
        with contextlib.suppress(OSError, NemoError, KeyError, TypeError):
            if not RunFolder(folder).is_finished():
                found.append((RunFolder(folder).settings.stat().st_mtime_ns, folder.name, folder))
    if not found:
        raise RunError(f"There is no unfinished run in {root}; name the one to resume: `resume(RUN)`.", root)
    return max(found)[2]


def held(folder: RunFolder, what: str, patience: float = 0.0) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of `folder`, so that no other process trains the same thing. It ends with this process.

    Args:
        what: what is locked, for the sentence: "fold 3 of runs/x".
        patience: seconds to wait for another process.

    Raises:
        Busy: another process holds it.
    """
    busy = f"{what} is being trained by another process; wait for it, or take another fold."
    read_only = f"{escape_controls(str(folder))} is read-only: nothing can be written there."
    return hold(folder.lock, busy=busy, read_only=read_only, patience=patience)


def newest_run(root: Path = RUNS) -> Path:
    """The newest finished run under `root` whose model was trained on real faces.

    Models of synthetic faces are never picked unasked: their ages mean nothing for people.

    Raises:
        NemoError: there is no such run; the sentence says what to do.
    """
    found: list[tuple[int, str, Path]] = []
    synthetic: list[tuple[int, str, Path]] = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        card = RunFolder(folder).model.card
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
        raise RunError(
            f"The only runs in {root} were trained on synthetic faces, and their ages mean nothing for people: name "
            f"one with `model={escape_controls(str(max(synthetic)[2]))}` to use it all the same, or train on your own "
            f"videos with `nemo train out.h5`. {_STILL_AGE}",
            root,
        )
    raise RunError(
        f"There is no trained model in {root}: train one with `nemo train out.h5`, or name one with `model=RUN`. "
        f"{_STILL_AGE}",
        root,
    )
