"""The documentation: a page for every command, a file format page that agrees with the schema, a site that builds
without a warning and fetches nothing, and an example that runs."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nemo_cli.main import COMMANDS, load
from nemo_cli.options import in_options
from nemo_pipeline.status import Status
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.index import LAYOUT_COLUMNS, SHARD_TABLE
from nemo_pipeline.store.schema import FRAME_FIELDS, LABEL_COLUMNS, VIDEO_COLUMNS
from nemo_pipeline.store.shard import SHARD_COLUMNS
from tests.support.browser import CHROMIUM, Seen, chromium, in_browser, soon, sync_api
from tests.support.paths import ROOT
from tests.support.siam_faces import drawn_file
from tests.support.siam_runs import TINY, train

DOCS = ROOT / "docs"
EXAMPLE = ROOT / "examples" / "attention_map.py"
_SITE_PACKAGES = ("material", "mkdocs", "mkdocstrings_handlers.python")


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


class Rows(dict[str, list[str]]):
    """First cell (a name in backticks) -> the other cells, of every table of a page."""

    def __init__(self, name: str) -> None:
        rows = re.findall(r"^\| `([\w/]+)` \|(.*)\|$", page(name), re.MULTILINE)
        super().__init__({key: [cell.strip() for cell in cells.split("|")] for key, cells in rows})
        self.page = name

    def __missing__(self, key: str) -> list[str]:
        pytest.fail(f"docs/{self.page} has no row `{key}`")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_page_that_the_navigation_names(name):
    assert f"<!-- help: {name} -->" in page(f"commands/{name}.md")
    assert f"nemo {name}: commands/{name}.md" in (ROOT / "mkdocs.yml").read_text()
    assert f"[`nemo {name}`]({name}.md)" in page("commands/index.md")


def test_no_page_is_about_a_command_that_does_not_exist():
    assert {path.stem for path in (DOCS / "commands").glob("*.md")} == {*COMMANDS, "index"}


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda p: p.stem)
def test_commands_in_the_pages_exist_with_their_options(path):
    """Every `nemo COMMAND ... --option` in code, on one line or continued by a backslash."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    code = re.findall(r"`(nemo [^`\n]+)`", text) + re.findall(
        r"^\s*((?:\S+/bin/)?nemo \w.*)$", text, re.MULTILINE
    )
    for line in code:
        line = line.split("nemo ", 1)[1].split("#")[0].split("&&")[0]
        name = line.split()[0]
        if not re.fullmatch("[a-z-]+", name) or name not in COMMANDS:
            assert not re.search(r"\s--\w", line), f"no such command: nemo {line}"
            continue
        known = {option for parameter in load(name).params for option in parameter.opts} | {"--help", "-h"}
        for option in re.findall(r"(?<!\S)--?[a-z][\w-]*", line):
            assert option in known, f"nemo {name} has no {option}"


def test_the_file_format_page_names_every_dataset_with_its_dtype():
    text = page("file-format.md")
    rows = Rows("file-format.md")
    for name, field in FRAME_FIELDS.items():
        shape = ", ".join(["N", *("S" if n is None else str(n) for n in field.tail)])
        assert rows[name][0] == (f"({shape})" if field.tail else "(N,)")
        assert rows[name][1] == np.dtype(field.dtype).name
    columns = VIDEO_COLUMNS | {f"layout/{n}": kind for n, kind in LAYOUT_COLUMNS.items()}
    for name, kind in (columns | {f"shards/{n}": kind for n, kind in SHARD_TABLE.items()}).items():
        assert rows[name][0] == ("str" if kind == "str" else np.dtype(kind).name), name
    own = text.split("A shard's own `/videos`")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", own)) == set(SHARD_COLUMNS)
    assert all(rows[name][-1].startswith("label") for name in LABEL_COLUMNS)


def test_the_file_format_page_names_every_attribute(tmp_path):
    data = FaceDataset(drawn_file(tmp_path / "out.h5", subjects=1, clips=1))
    rows = Rows("file-format.md")
    settings = {field.name for field in dataclasses.fields(data.config)}
    assert set(data.attributes) - settings <= set(rows)


def test_every_status_is_explained():
    file = page("file-format.md")
    rows = Rows("first-hour.md")
    for status in Status:
        shown = [cell.replace("`", "") for cell in rows[status]]
        assert shown == [in_options(text).replace("`", "") for text in (status.cause, status.remedy)], status
        assert f"`{status}`" in file, f"docs/file-format.md does not name the status {status}"


class _Page(HTMLParser):
    """What a page would fetch, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("img", "script", "iframe", "source", "video") and values.get("src"):
            self.fetched.append(str(values["src"]))
        if tag == "link" and values.get("rel") != "canonical" and values.get("href"):
            self.fetched.append(str(values["href"]))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built with warnings as errors."""
    for package in _SITE_PACKAGES:
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            found = None
        if found is None:
            pytest.skip("the site's tools are not installed (pip install -e '.[docs]')")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "NO_NOTEBOOK": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_the_site_fetches_nothing_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > len(COMMANDS)
    for path in pages:
        parser = _Page()
        parser.feed(path.read_text(encoding="utf-8"))
        assert not [url for url in parser.fetched if re.match(r"(https?:)?//", url)], path
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_page_has_every_option_and_its_help(site, name):
    parser = _Page()
    parser.feed((site / "commands" / f"{name}.html").read_text(encoding="utf-8"))
    text = " ".join("".join(parser.text).split())
    for parameter in load(name).params:
        for option in parameter.opts:
            if option.startswith("-"):
                assert option in text
        if getattr(parameter, "help", None):
            assert " ".join(parameter.help.replace("`", "").split()) in text
    assert "UNSET" not in text


def test_the_notebook_is_a_page_and_stored_without_what_it_said(site):
    cells = json.loads((ROOT / "examples" / "first_hour.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and not any(cell["outputs"] or cell["execution_count"] for cell in code)
    text = (site / "notebook.html").read_text(encoding="utf-8")
    assert "GroupKFold" in text and "permutation_test" in text


@pytest.mark.slow
def test_the_notebook_runs():
    to_markdown = runpy.run_path(str(DOCS / "notebooks.py"))["to_markdown"]
    text = to_markdown(ROOT / "examples" / "first_hour.ipynb", run=True)
    assert text.count("data:image/png;base64,") == 2
    assert re.search(r"people it never saw: \d+\.\d years", text) and "(6 people)" in text


def test_api_pages_have_their_docstrings(site):
    text = (site / "api" / "siam_model.html").read_text(encoding="utf-8")
    for name in ("load", "LoadedModel", "Prediction", "SIAM", "SIAMOutput", "SIAMConfig", "TrainConfig"):
        assert f'id="siam_model.{name}"' in text or re.search(rf'id="siam_model\.\w+\.{name}"', text)
    assert "attention_map.py" in text and "imshow" in text  # the example


def test_the_example_draws_an_attention_map_in_under_15_lines(tmp_path):
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 15
    data = drawn_file(tmp_path / "drawn.h5", synthetic=True, size=70, subjects=6, frames=4)
    train(data, tmp_path / "run", preset="small", epochs=1, device="cpu", overrides=TINY)
    picture = tmp_path / "map.png"
    options: dict[str, Any] = {"capture_output": True, "text": True, "cwd": tmp_path}
    words = [tmp_path / "run", data, FaceDataset(data)[0].id, picture]
    done = subprocess.run([sys.executable, str(EXAMPLE), *map(str, words)], **options)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    done = subprocess.run([sys.executable, str(EXAMPLE)], **options)
    assert done.returncode == 1 and done.stderr == "give RUN OUT.h5 VIDEO_ID PICTURE.png\n"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if sync_api is None or CHROMIUM is None:
        pytest.skip("no playwright, or no Chromium on this system")
    with chromium() as it:
        yield it


@in_browser
def test_search_works_in_pages_that_are_opened_from_disk(site, browser):
    seen = Seen(browser, site / "commands" / "train.html", 1280)
    seen.page.click("input[name=query]")
    seen.page.keyboard.type("distinct")

    def found() -> list[str]:
        urls = seen.page.eval_on_selector_all(".md-search-result__item a", "e => e.map(a => a.href)")
        return [url for url in urls if "train" in url]

    soon(lambda: bool(found()))  # results come while it is typed
    seen.close()
