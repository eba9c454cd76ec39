"""Run folders: where a training writes, and which of them is the newest that may be picked unasked."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store.text import printable
from siam_model.predictions import write_bytes

#: Where runs are written and looked for by default.
RUNS = Path("runs")


def new_run_folder(out: Path | None) -> Path:
    """Create the folder of a run: `out`, or `runs/<date-time>`.

    Raises:
        NemoError: it exists and holds something, or cannot be made.
    """
    try:
        if out is not None:
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise NemoError(f"{printable(str(out))} exists already; name another folder with --out.")
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
        shown = printable(str(out if out is not None else RUNS))
        raise NemoError(f"The run folder {shown} cannot be created: {error.strerror}.") from None
    raise NemoError(f"{RUNS} holds a thousand runs of this very second; name a folder with --out.")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """A JSON file by rename, readable by its owner alone."""
    write_bytes(path, (json.dumps(values, indent=1) + "\n").encode("utf-8", "surrogateescape"))


def read_json(path: Path) -> dict[str, Any]:
    """The inverse of `write_json`.

    Raises:
        NemoError: the file is missing, unreadable or no JSON object.
    """
    shown = printable(str(path))
    try:
        values = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except FileNotFoundError:
        raise NemoError(f"{shown} does not exist; is this a finished run of `nemo train`?") from None
    except OSError as error:
        raise NemoError(f"{shown} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise NemoError(f"{shown} is damaged: it is no JSON.") from None
    if not isinstance(values, dict):
        raise NemoError(f"{shown} is damaged: it is no JSON object.")
    return values


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
            values = json.loads(card.read_text(encoding="utf-8"))
            made = card.stat().st_mtime_ns
        except (OSError, ValueError):
            continue  # not a run, or one that is still training
        mine = synthetic if values.get("synthetic", True) else found
        mine.append((made, folder.name, folder))
    if found:
        return max(found)[2]
    if synthetic:
        raise NemoError(
            f"The only runs in {root} were trained on synthetic faces, and their ages mean nothing for people: name "
            f"one with --model {printable(str(max(synthetic)[2]))} to use it all the same, or train on your own "
            "videos with `nemo train out.h5`."
        )
    raise NemoError(
        f"There is no trained model in {root}: train one with `nemo train out.h5`, or name one with --model RUN."
    )
