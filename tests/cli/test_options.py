"""Sentences of the library in the words of the command line; and that the library itself knows no option."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from nemo_cli.main import COMMANDS, load
from nemo_cli.options import OPTIONS, in_options

ROOT = Path(__file__).parents[2]
#: Pages that `nemo evaluate` and `nemo prep --report` write; the commands in them are to be typed.
PAGES = {"reports/accuracy.py", "reports/studies.py", "reports/given.py", "siam_model/evaluate.py"}


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
