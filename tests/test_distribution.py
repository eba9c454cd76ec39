"""What is given to people: the wheel and the source archive hold what they need and nothing else, and the containers
are built by the README's own lines."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT

#: Folder in the repository -> import name.
PACKAGES = {"nemo_pipeline": "nemo_pipeline", "siam_model": "siam_model", "cli": "nemo_cli"}
TOP = {
    "README.md", "LICENSE", "NOTICE", "pyproject.toml", "CHANGELOG.md", "CITATION.cff", "constraints.txt",
    "Containerfile", "nemo.def", "MANIFEST.in",
}  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source archive, built from a copy by setuptools alone: names in them."""
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("pyproject.toml asks for setuptools 77")
    work = tmp_path_factory.mktemp("dist")
    source, out = work / "source", work / "out"
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
    for name in (*PACKAGES, "tests", "docs", "benchmarks", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=skip)
    for name in TOP:
        shutil.copy(ROOT / name, source)
    out.mkdir()
    for what in ("sdist", "wheel"):
        code = f"import setuptools.build_meta as b, sys; b.build_{what}(sys.argv[1])"
        subprocess.run([sys.executable, "-c", code, out], cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        points = next(wheel.read(n).decode() for n in names if n.endswith("entry_points.txt"))
    with tarfile.open(next(out.glob("*.tar.gz"))) as archive:
        inside = {m.name.split("/", 1)[1] for m in archive.getmembers() if m.isfile()}
    return names, points, inside


def files_of_packages() -> set[str]:
    """Every file below the packages, as the repository has them."""
    return {
        str(path.relative_to(ROOT))
        for folder in PACKAGES
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def test_the_wheel_holds_the_packages_and_nothing_else(built):
    names, points, _ = built
    own = {name for name in names if ".dist-info/" not in name}
    wanted = {re.sub(r"^cli/", "nemo_cli/", name) for name in files_of_packages()}
    assert own == wanted
    metadata = {name.split(".dist-info/")[1] for name in names - own}
    assert metadata == {
        "METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE", "licenses/NOTICE"
    }  # fmt: skip
    assert "nemo = nemo_cli.main:main" in points


def test_the_source_archive_holds_what_builds_the_wheel_and_what_people_read(built):
    _, _, inside = built
    made = {"PKG-INFO", "setup.cfg"}
    own = {name for name in inside if not name.startswith("nemo_faces.egg-info/")}
    assert own == files_of_packages() | TOP | made


def test_every_package_is_named():
    """A new folder with code must be in pyproject.toml, or the wheel lacks it."""
    named = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join([PACKAGES[folder], *path.parent.relative_to(ROOT / folder).parts])
        for folder in PACKAGES
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert named == found


@pytest.mark.parametrize("name", ["Containerfile", "nemo.def"])
def test_containers_are_built_by_the_lines_of_the_readme(name):
    text, readme = (ROOT / name).read_text(), (ROOT / "README.md").read_text()
    system = re.search(r"^apt-get install -y .*$", readme, re.MULTILINE)[0]
    install = re.search(r"pip (install -q -c constraints.txt \.) ", readme)[1]
    assert system in text
    assert f"pip {install.replace('-q ', '-q --no-cache-dir ')}\n" in text
    version = re.search(r"python:3\.(\d+)-slim", text)[1]
    assert re.search(r"Python 3\.(\d+) to 3\.(\d+)", readme)
    low, high = map(int, re.search(r"Python 3\.(\d+) to 3\.(\d+)", readme).groups())
    assert low <= int(version) <= high
    page = (ROOT / "docs" / "install.md").read_text()
    cpu = re.search(r"torch --index-url \S+", text)[0]
    assert cpu in page and name in page and Path(ROOT / name).stat().st_size < 4000
