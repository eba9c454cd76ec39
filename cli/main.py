"""The `nemo` command group: a command's module is imported when it is called, not for `nemo --help`."""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import rich_click as click

from nemo_pipeline import __version__
from nemo_pipeline.errors import NemoError

from .console import err, say, warn

#: Command -> the line that `nemo --help` shows for it. Its module has the same name and an object `command`.
COMMANDS: dict[str, str] = {
    "prep": "Videos to aligned faces: track, smooth, warp, write HDF5.",
    "train": "Train SIAM on a prepared file.",
    "evaluate": "Tables and figures of a training run.",
    "predict": "Age of the person in a clip, with weights and heat maps.",
    "synth": "Render synthetic smile clips with known ages.",
    "demo": "The complete pipeline on synthetic clips, in a few minutes.",
    "label": "Put ages and other labels into a prepared file.",
    "info": "What is this file or folder, and what comes next?",
    "verify": "Check a prepared file for damage.",
    "rewarp": "Warp a prepared file's faces again: size, margin, mean shape, smoothing.",
    "export": "Landmarks, arrays, face images or videos of a prepared file, in other formats.",
    "report": "A page or contact sheet to check every video of a prepared file.",
    "review": "Look at clips in a browser, and mark what is to be left out.",
    "pack-model": "Write a trained model as one file, with a card.",
    "cite": "A methods section and references for a paper.",
    "pack": "Copy a prepared file and its shards into one file.",
    "doctor": "Check this machine; versions and settings for a bug report.",
}
_GROUPS: list[Any] = [  # dicts of rich_click's
    {"name": "Prepare videos", "commands": ["prep", "label", "rewarp", "verify", "pack"]},
    {"name": "Look at the result", "commands": ["info", "report", "review", "export"]},
    {"name": "Learn ages", "commands": ["train", "evaluate", "cite"]},
    {"name": "Use a model", "commands": ["predict", "pack-model"]},
    {"name": "Try it, get help", "commands": ["demo", "synth", "doctor"]},
]
click.rich_click.COMMAND_GROUPS = {"nemo": _GROUPS}
click.rich_click.TEXT_MARKUP = None

_debug = False


def _set_debug(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    global _debug
    _debug = _debug or value


_debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=_set_debug,
    help="Show the traceback of an error.",
)


class _Commands(click.RichGroup):
    """Lists commands by name; imports one when it is called. Errors become one sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A placeholder with the name and the help line, for listings."""
        if cmd_name not in COMMANDS:
            return None
        return click.RichCommand(name=cmd_name, help=COMMANDS[cmd_name], short_help=COMMANDS[cmd_name])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if any(not arg or re.fullmatch(r"--[a-z-]+=", arg) for arg in args):
            # An empty path would mean the current folder.
            raise click.UsageError("An argument is empty: is a variable of the shell not set?")
        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        if near and args[0] not in COMMANDS:
            raise click.UsageError(f"There is no command {args[0]!r}. Did you mean {near[0]!r}?", ctx)
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS:
            command = load(name)
        return name, command, rest

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click's, with our errors shown as sentences."""
        standalone = kwargs.get("standalone_mode", True)
        if not standalone:
            return super().main(*args, **kwargs)
        warnings.showwarning = _show_warning
        _open_closed_streams()
        _print_anything()
        os.umask(0o077)  # files that libraries write are for the owner alone, too
        try:
            return super().main(*args, **kwargs)
        except Exception as error:
            if _debug:
                raise
            _explain(error)
            sys.exit(1)


def load(name: str) -> click.Command:
    """The command called `name`, imported now."""
    command: click.Command = importlib.import_module(f".{name.replace('-', '_')}", __package__).command
    if not any(parameter.name == "debug" for parameter in command.params):
        _debug_option(command)
    return command


def _explain(error: Exception) -> None:
    """One sentence for an error that nobody handled."""
    if isinstance(error, NemoError):
        text = str(error)
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        text = f"The disk is full ({error.filename or 'while writing'}): free some space and run it again."
    elif isinstance(error, OSError) and error.filename and _is_read_only(error):
        text = f"{Path(os.fsdecode(error.filename)).parent} is read-only: nothing can be written there."
    elif isinstance(error, OSError) and isinstance(error.filename, str | bytes) and error.strerror:
        text = f"{os.fsdecode(error.filename2 or error.filename)}: {error.strerror}."
    elif isinstance(error, FileNotFoundError) and "No usable temporary directory" in str(error):
        text = "There is no folder for temporary files: set TMPDIR to one that can be written to."
    elif isinstance(error, MemoryError):
        text = "There is not enough memory for this: end other programs, or use a machine with more."
    else:
        text = f"{type(error).__name__}: {error} (a fault of nemo; --debug shows where)"
    err.print("[bold red]Error:[/] ", end="")
    say(text)


def _is_read_only(error: OSError) -> bool:
    """Whether a file system, or a folder in which a temporary file was to be made, cannot be written to."""
    temporary = os.fsdecode(error.filename).endswith(".tmp") and error.errno in (errno.EACCES, errno.EPERM)
    return error.errno == errno.EROFS or temporary


def _open_closed_streams() -> None:
    """Of standard input, output and error, what was closed (`2>&-`) becomes nothing: else the next file that is opened
    gets its number, and what a library says goes into that file."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _print_anything() -> None:
    """A name that the terminal's encoding lacks (LANG=C, ISO-8859-1) is printed escaped: it must not end a run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        warn(message)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nemo")
@_debug_option
def main() -> None:
    """From a folder of facial-expression videos to a trained, evaluated, explainable age estimator.

    nemo prep videos/ out.h5, then nemo train out.h5, nemo evaluate runs/..., nemo predict clip.mp4.
    """


if __name__ == "__main__":
    main()
