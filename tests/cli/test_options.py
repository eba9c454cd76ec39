"""Sentences of the library in the words of the command line; and that the library itself knows no option."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest
import rich_click as click

from nemo_cli.main import COMMANDS, load
from nemo_cli.options import OPTIONS, in_options
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.synth.plan import SynthConfig

ROOT = Path(__file__).parents[2]
#: Pages and cards that the commands write: the commands in them are to be typed.
PAGES = {
    "reports/accuracy.py",
    "reports/stability.py",
    "reports/studies.py",
    "reports/inputs.py",
    "package.py",
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("or raise `max_yaw_degrees`.", "or raise --max-yaw."),
        ("use `device=auto` or `device=cpu`.", "use --device auto or --device cpu."),
        ("try `train.learning_rate=1e-05`.", "try --set train.learning_rate=1e-05."),
        ("`epochs` and `train.epochs` say the same", "--epochs and --set train.epochs say the same"),
        ("go on with `resume(runs/a b)`.", "go on with `nemo train --resume --out runs/a b`."),
        ("go on with `resume()`.", "go on with `nemo train --resume`."),
        ("`resume(RUN, DATA.h5)`", "`nemo train DATA.h5 --resume --out RUN`"),
        ("begin with `train(DATA.h5, RUN)`.", "begin with `nemo train DATA.h5 --out RUN`."),
        ("the column `video` of `nemo label`, `size", "the column `video` of `nemo label`, `size"),
    ],
)
def test_settings_are_shown_as_options(text, shown):
    assert in_options(text) == shown


def test_every_setting_that_a_sentence_may_name_is_an_option():
    options = {o for name in COMMANDS for parameter in load(name).params for o in parameter.opts}
    assert set(OPTIONS.values()) <= options


def test_defaults_are_those_of_the_functions():
    """`nemo synth` does not import its settings to start; `setting` takes those of the others from their fields."""
    fields = {field.name: field.default for field in dataclasses.fields(SynthConfig)}
    options = [option for option in load("synth").params if not getattr(option, "is_flag", False)]
    shown = {option.name: option.default for option in options}
    same = fields.keys() & shown.keys() - {"size", "subjects", "clips", "ages"}  # three depend on the profile
    assert len(same) > 10 and {name: shown[name] for name in same} == {name: fields[name] for name in same}
    assert shown["size"] == f"{fields['width']}x{fields['height']}"
    stream = next(parameter for parameter in load("predict").params if parameter.name == "stream")
    assert stream.default == PrepConfig().stream


@pytest.mark.parametrize("name", ["prep"])
def test_every_option_is_in_one_group_of_the_help(name):
    groups = click.rich_click.OPTION_GROUPS[f"nemo {name}"]
    grouped = [option for group in groups for option in group["options"]]
    options = [parameter.opts[0] for parameter in load(name).params if parameter.opts[0].startswith("-")]
    assert sorted(grouped) == sorted([*options, "--help"])


def test_every_command_is_in_one_group_of_the_help():
    grouped = [name for group in click.rich_click.COMMAND_GROUPS["nemo"] for name in group["commands"]]
    assert sorted(grouped) == sorted(COMMANDS)


def sentences(path: Path) -> list[str]:
    """Text in the code of a module, but its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    ]


def test_the_library_names_no_options():
    modules = [path for folder in ("nemo_pipeline", "siam_model") for path in (ROOT / folder).rglob("*.py")]
    assert len(modules) > 100
    found = [
        (str(path), text)
        for path in modules
        if not path.as_posix().endswith(tuple(PAGES))
        for text in sentences(path)
        if re.search(r"(?<![\w-])--[a-z]", text)
    ]
    assert not found
