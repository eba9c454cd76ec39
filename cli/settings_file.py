"""Options from a file: `--config FILE.toml`, or `--like` an earlier run or prepared file.

Both become the command's defaults, so every value passes the option's own check, and what is given on the command line
comes before them. A settings file has a table for each command, with the options' names without dashes:

    [prep]
    size = 114
    smooth = "head"

    [train]
    folds = 10
    set = { "model.hidden" = 256 }
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from nemo_pipeline.errors import DataError
from nemo_pipeline.store.text import escape_controls

_C = TypeVar("_C", bound=Callable[..., Any])
#: Options that say what is done this time, and are not settings.
_NEVER = {"config", "like", "json", "quiet", "debug", "help", "resume", "force", "dry-run", "fold", "out"}
#: Where the table `set` of [train] is kept until the command asks: name -> text.
_ASSIGNMENTS = "nemo.assignments"
#: A settings file is some hundred bytes.
_LONGEST = 1 << 20


def settings_options(command: str, like: str, read: Callable[[str], dict[str, Any]]) -> Callable[[_C], _C]:
    """Decorate a command with `--config` and `--like`.

    Args:
        command: the name of its table in a settings file.
        like: what `--like` takes, for its help: "RUN".
        read: path -> settings by the options' names, as a table would have them. Raises NemoError.
    """

    def from_file(context: click.Context, _: click.Parameter, path: str | None) -> None:
        if path is not None:
            _take(context, read_settings(Path(path), command), f"{escape_controls(path)}: ")

    def from_like(context: click.Context, _: click.Parameter, path: str | None) -> None:
        if path is not None:
            _take(context, read(path), f"--like {escape_controls(path)}: ")

    def decorate(function: _C) -> _C:
        options = (
            click.option(
                "--config", expose_value=False, is_eager=True, callback=from_file, metavar="FILE.toml",
                help=f"Take settings from the table [{command}] of this file; options come before it.",
            ),
            click.option(
                "--like", expose_value=False, is_eager=True, callback=from_like, metavar=like,
                help=f"Take the settings of an earlier {like}; options come before them.",
            ),
        )  # fmt: skip
        for option in options:
            function = option(function)
        return function

    return decorate


def current_context() -> click.Context:
    """Of the command whose options are being read."""
    context: Any = click.get_current_context()
    found: click.Context = context
    return found


def assignments_given(context: click.Context) -> dict[str, str]:
    """`set` of a settings file, or of the run named with `--like`: name -> text."""
    found: dict[str, str] = context.meta.get(_ASSIGNMENTS, {})
    return dict(found)


def read_settings(path: Path, command: str) -> dict[str, Any]:
    """The table of one command. Raises NemoError: it is no such file, or a table is of no command."""
    from .main import COMMANDS

    shown = escape_controls(str(path))
    try:
        if path.stat().st_size > _LONGEST:
            raise DataError(f"{shown} is too long for a settings file.", path)
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{shown} cannot be read: {error.strerror}.", path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{shown} is not TOML: {escape_controls(str(error))}.", path) from None
    for name, table in values.items():
        if name not in COMMANDS or not isinstance(table, dict):
            raise DataError(
                f"{shown}: settings belong in a table named after their command, as [{command}]; "
                f"{escape_controls(name)!r} is not a command.",
                path,
            )
    found: dict[str, Any] = values.get(command, {})
    return found


def _take(context: click.Context, settings: Mapping[str, Any], where: str) -> None:
    """Make settings the defaults of the command's options, each checked by its option. Raises UsageError."""
    known = {
        name.removeprefix("--"): option
        for option in context.command.params
        if isinstance(option, click.Option)
        for name in option.opts
        if name.startswith("--") and name.removeprefix("--") not in _NEVER
    }
    defaults: dict[str, Any] = dict(context.default_map or {})
    for name, value in settings.items():
        option = known.get(name)
        if option is None:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}."
            raise click.UsageError(f"{where}there is no setting {escape_controls(name)!r}; {hint}")
        if name == "set":
            _assign(context, value, where)
            continue
        defaults[str(option.name)] = _checked(context, option, name, value, where)
    context.default_map = defaults


def _checked(context: click.Context, option: click.Option, name: str, value: Any, where: str) -> Any:
    """A value as the option's default. Raises UsageError."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise click.UsageError(f"{where}{name} is true or false, not {escape_controls(str(value))!r}.")
        return value
    many = option.multiple
    values = value if isinstance(value, list) and many else [value]
    for one in values:
        if isinstance(one, bool) or not isinstance(one, (str, int, float)):
            kind = "a text or a number, or several in []" if many else "a text or a number"
            raise click.UsageError(f"{where}{name} is {kind}, not {escape_controls(str(one))!r}.")
        try:
            option.type.convert(one if not isinstance(one, float) else repr(one), option, context)
        except click.BadParameter as error:
            raise click.UsageError(f"{where}{name}: {error.message}") from None
    return values if many else value


def _assign(context: click.Context, value: Any, where: str) -> None:
    """`set`: a table of FIELD = value."""
    if not isinstance(value, dict):
        raise click.UsageError(f'{where}set is a table: set = {{ "model.hidden" = 256 }}')
    kept = context.meta.setdefault(_ASSIGNMENTS, {})
    for field, one in value.items():
        if isinstance(one, dict):
            raise click.UsageError(f'{where}quote the name in set, as "{field}.{next(iter(one), "")}" = ...')
        items = one if isinstance(one, list) else [one]
        kept[field] = ",".join(str(v).lower() if isinstance(v, bool) else str(v) for v in items)
