"""settings.json: what a run was asked for; written before anything is trained, compared when it is resumed.

Several processes (the tasks of an array job) may begin the same run: the first one writes the file, the others find it
and have to ask for the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import DataError, RunError, SettingsError
from nemo_pipeline.fields import from_record, plain
from nemo_pipeline.store.files import read_bounded, temporary_name
from nemo_pipeline.store.text import escape_controls
from nemo_pipeline.toml import to_toml
from siam_model.config import SIAMConfig, TrainConfig
from siam_model.predictions import write_bytes
from siam_model.protocol.request import TrainRequest
from siam_model.run_folder import LONGEST_JSON, SETTINGS, RunFolder, read_json, write_json

#: Fields in which a run that is continued must not differ.
COMPARED = (
    "preset", "seed", "epochs", "folds", "trials", "overrides", "precision", "study", "subset", "methods", "init"
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings(TrainRequest):
    """What a run was asked for, and where its data were.

    Attributes:
        data: absolute path of out.h5. It may move: only `uuid` has to agree.
        uuid: of the data, which changes with its labels and its marks too.
        file: name of the data, printable.
        synthetic: whether its faces are generated.
        init_sha256: of the weights in `init`; "" without one.
    """

    data: str
    uuid: str
    file: str
    synthetic: bool
    init_sha256: str = ""

    @property
    def dataset(self) -> dict[str, str]:
        """uuid and name of the data, as model cards and run.json hold them."""
        return {"uuid": self.uuid, "file": self.file}


def as_options(request: TrainRequest) -> dict[str, Any]:
    """A request by the names of the options of `nemo train`, as a settings file has them."""
    return {
        "preset": request.preset,
        "seed": request.seed,
        "epochs": request.epochs,
        "folds": request.folds,
        "trials": request.trials,
        "study": request.study,
        "methods": ",".join(request.methods) or None,
        "precision": request.precision,
        "init": request.init,
        "marks": request.marks,
        "distinct-subjects": request.distinct_subjects or None,
        "set": request.overrides or None,
    }


def claim(folder: Path, settings: RunSettings, model: SIAMConfig, train: TrainConfig) -> None:
    """Write settings.json, unless another process did: then compare.

    Raises:
        NemoError: the folder was begun with other settings or other data.
    """
    values = SETTINGS.mark({**plain(settings), "model": model.to_dict(), "train": train.to_dict()})
    final = RunFolder(folder).settings
    temporary = temporary_name(final)
    write_json(temporary, values)
    try:
        _take(temporary, final)
    except FileExistsError:
        pass
    else:  # not before: a folder that holds anything else, and no settings, is somebody else's
        options = to_toml("train", as_options(settings)).encode("utf-8", "surrogateescape")
        write_bytes(RunFolder(folder).options, options)
        return
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    recorded, _, _ = read_settings(folder)
    check_data(folder, recorded, settings.uuid, settings.data)
    check_same(folder, recorded, {name: getattr(settings, name) for name in COMPARED})


def _take(temporary: Path, final: Path) -> None:
    """Give a file its name. Raises FileExistsError where somebody else was faster."""
    try:
        os.link(temporary, final)  # appears whole
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with os.fdopen(os.open(final, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(temporary.read_bytes())


def read_settings(folder: Path) -> tuple[RunSettings, SIAMConfig, TrainConfig]:
    """The settings of a run or of a study, and its base configurations.

    Raises:
        NemoError: the file is missing, damaged, or of a newer version of nemo.
    """
    file = RunFolder(folder).settings
    shown = escape_controls(str(file))
    if not file.is_file():
        raise RunError(
            f"{escape_controls(str(folder))} holds no {file.name}, so there is nothing to resume; begin with "
            f"`train(DATA.h5, {escape_controls(str(folder))})`.",
            folder,
        )
    values = _patient_json(file)
    if values.get("format") != SETTINGS.name:
        raise DataError(f"{shown} does not hold the settings of a run of `nemo train`.", file)
    try:
        if SETTINGS.is_newer(values):
            raise DataError(
                f"{shown} was written by a newer version of nemo; update with `pip install -U nemo-faces`.",
                file,
            )
        return (
            from_record(RunSettings, values),
            SIAMConfig.from_dict(values["model"]),
            TrainConfig.from_dict(values["train"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{shown} is damaged ({escape_controls(str(error))}); begin a new run.", file
        ) from None


def check_data(folder: Path, recorded: RunSettings, uuid: str, path: str) -> None:
    """Raises NemoError when the data are not those that the run was begun with."""
    if recorded.uuid != uuid:
        raise RunError(
            f"{escape_controls(str(folder))} was begun with {escape_controls(recorded.data)}, and "
            f"{escape_controls(path)} is another data set, or the same with other labels, videos or marks; begin a new "
            "run with another `out`.",
            folder,
        )


def check_same(folder: Path, recorded: RunSettings, asked: Mapping[str, Any]) -> None:
    """Raises NemoError when a setting in `asked` (field -> value) is not the recorded one."""
    for name, value in asked.items():
        before = getattr(recorded, name)
        if value != before:
            raise SettingsError(
                f"{escape_controls(str(folder))} was begun with {_said(name, before)}, not with {_said(name, value)}; "
                "omit that option to resume it, or begin a new run with another `out`.",
                name,
            )


def _said(name: str, value: Any) -> str:
    if name == "overrides":
        return (
            " ".join(f"`{escape_controls(f'{k}={v}')}`" for k, v in sorted(value.items())) or "no `overrides`"
        )
    if name == "subset":
        return f"the part of the file {escape_controls(' '.join(value.values())) or '(all)'}"
    if name == "methods":
        return f"`methods={escape_controls(','.join(value))}`" if value else "no `methods`"
    return f"no `{name}`" if value is None else f"`{name}={escape_controls(str(value))}`"


def _patient_json(file: Path) -> dict[str, Any]:
    """`read_json`, waiting a moment for a process that has created the file and not filled it yet."""
    for _ in range(20):
        try:
            json.loads(read_bounded(file, LONGEST_JSON) or b"!")
            break
        except (OSError, ValueError):
            time.sleep(0.1)
        except RecursionError:
            break
    return read_json(file)
