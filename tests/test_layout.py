"""The map in CONTRIBUTING.md and the drawings in docs/architecture.md name what exists; no test imports another."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
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


def test_no_test_module_imports_another():
    for path in TESTS.rglob("test_*.py"):
        found = re.findall(
            r"^\s*(?:from|import) (\S*\btest_\w+|\.\S*)", path.read_text(encoding="utf-8"), re.MULTILINE
        )
        assert not found, path
