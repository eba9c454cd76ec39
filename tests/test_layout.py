"""The map in CONTRIBUTING.md and the drawings in docs/architecture.md name what exists; no test imports another."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
PACKAGES = ("cli", "siam_model", "nemo_pipeline")
IN_BACKTICKS = r"`([\w*/]+(?:\.py|/))`"


def missing(text: str, base: str, pattern: str) -> list[str]:
    """Paths in `text` that exist neither below `base` nor below the repository or its tests; one without a folder may
    lie beside the one before it."""
    lost, folder = [], ""
    for name in re.findall(pattern, text):
        places = [f"{base}/{folder}{name}", f"{base}/{name}", name, f"tests/{name}"]
        if not any(list(ROOT.glob(place.rstrip("/"))) for place in places):
            lost.append(name)
        folder = name[: name.rfind("/") + 1] or folder
    return lost


@pytest.mark.parametrize(("which", "package"), [(0, "nemo_pipeline"), (1, "siam_model")])
def test_the_map_names_what_exists(which, package):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("| to change | go to | its tests |\n| --- | --- | --- |\n")[1 + which].split("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert len(rows) > 5
    for what, code, proofs in rows:
        assert not missing(code, package, IN_BACKTICKS), what
        assert not missing(proofs, f"tests/{package}" if which else "tests", IN_BACKTICKS), what


@pytest.mark.parametrize(("command", "package"), [("prep", "nemo_pipeline"), ("train", "siam_model")])
def test_the_drawings_name_what_exists(command, package):
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawing = text.split(f"```text\nnemo {command}")[1].split("```")[0]
    assert drawing.count(".py") > 15
    for line in drawing.splitlines():
        assert not missing(line, package, r"[\w*/]+\.py"), line
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / package).rglob("*.py"))
    for name in re.findall(r"^[ |]*(\w+)  ", drawing, re.MULTILINE):
        if name not in ("Frame", "landmarks", "train", "MAIN", "resume"):
            assert re.search(rf"^(class|def) {name}\b", code, re.MULTILINE), name


def test_the_table_of_changes_names_what_exists():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`([\w/]+\.py)`", text.split("## Ten changes")[1])) - {"stages/engine_x.py"}
    assert len(files) > 15
    for name in files:
        assert any(ROOT.glob(f"**/{name}")), name


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def test_classes_and_parameter_lists():
    """No class name twice, so that a name is one thing; and no function with more than eight parameters."""
    classes, long = Counter(), []
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name] += 1
            elif isinstance(node, ast.FunctionDef):
                names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if len([name for name in names if name not in ("self", "cls")]) > 8:
                    long.append(f"{path}: {node.name}")
    assert [name for name, n in classes.items() if n > 1] == []
    assert long == []


def test_no_test_module_imports_another():
    for path in TESTS.rglob("test_*.py"):
        found = re.findall(
            r"^\s*(?:from|import) (\S*\btest_\w+|\.\S*)", path.read_text(encoding="utf-8"), re.MULTILINE
        )
        assert not found, path
