"""Settings on the command line: options made from the fields of a dataclass, and the names that settings have in Python
and here.

Sentences of the library name settings and functions in backticks, as Python has them; `in_options` puts the options in
their place: "raise `max_yaw_degrees`" is "raise --max-yaw" here, and "`resume(RUN)`" is "`nemo train --resume --out
RUN`".
"""

from __future__ import annotations

import dataclasses
import os
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import rich_click as click

#: Fields and arguments whose option has another name than theirs.
_RENAMED = {
    "faces": "--no-faces",
    "listed": "--list",
    "max_gap_seconds": "--max-gap",
    "max_yaw_degrees": "--max-yaw",
    "others": "--with",
    "overrides": "--set",
}
#: Every setting that a sentence may name -> its option.
OPTIONS = _RENAMED | {
    name: f"--{name.replace('_', '-')}"
    for name in (
        "by", "data", "device", "devices", "distinct_subjects", "engine", "epochs", "exclude", "fold", "folds",
        "force", "include", "jobs", "labels", "landmarks", "limit", "marks", "mean_shape", "methods", "min_confidence",
        "model", "out", "overlay", "part", "precision", "preset", "prune", "replace", "seed", "size", "smooth",
        "recordings", "stream", "study", "tensorboard", "trials", "video_timeout", "workers",
    )
}  # fmt: skip
_Command = typing.TypeVar("_Command", bound=Callable[..., Any])
_SETTING = re.compile(r"`((?:model|train)\.\w+|\w+)(?:=([^`]*))?`")
_CALL = re.compile(r"`(train|resume)\(([^`]*)\)`")


def setting(config: type, field: str, text: str, **more: Any) -> Callable[[_Command], _Command]:
    """An option for one field of a dataclass of settings, which has its name, kind, default and choices.

    Args:
        text: the line in `--help`.
        more: as `click.option` takes it, where the command line differs from the field.
    """
    kind = typing.get_type_hints(config)[field]
    if typing.get_origin(kind) in (types.UnionType, typing.Union):  # the option may be left out
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    default = next(one for one in dataclasses.fields(config) if one.name == field).default
    options: dict[str, Any] = {"help": text, "default": default, "show_default": default is not None}
    if kind is bool:
        options = {"help": text, "is_flag": True}
    elif typing.get_origin(kind) is Literal:
        options["type"] = click.Choice(typing.get_args(kind))
    else:
        options["type"] = kind
    name = OPTIONS.get(field, f"--{field.replace('_', '-')}")
    return click.option(name, field, **{**options, **more})


def values_of(config: type, options: dict[str, Any]) -> dict[str, Any]:
    """Those of a command's options that are fields of a dataclass."""
    return {field.name: options[field.name] for field in dataclasses.fields(config) if field.name in options}


def marks_path(path: Path | None) -> str | None:
    """`--marks` as the library takes it: an absolute path, `none`, or None."""
    if path is None or str(path) == "none":
        return None if path is None else "none"
    return os.path.abspath(path)  # noqa: PTH100 (links stay as they are)


def in_options(text: str) -> str:
    """A sentence of the library in the words of the command line."""
    return _CALL.sub(_command, _SETTING.sub(_option, text))


def _option(found: re.Match[str]) -> str:
    name, value = found[1], found[2]
    if "." in name:
        return f"--set {name}" if value is None else f"--set {name}={value}"
    if name not in OPTIONS:
        return found[0]
    return OPTIONS[name] if value is None else f"{OPTIONS[name]} {value}"


def _command(found: re.Match[str]) -> str:
    """`resume(RUN)`, `resume(RUN, DATA)`, `resume()`, `train(DATA, RUN)`."""
    arguments = found[2].split(", ") if found[2] else []
    if found[1] == "resume":
        run, data = [*arguments, "", ""][:2]
        words = ["nemo train", data, "--resume", f"--out {run}" if run else ""]
    else:
        data, run = arguments
        words = ["nemo train", data, f"--out {run}"]
    return f"`{' '.join(word for word in words if word)}`"
