"""The browser of the tests: one that stops answering is replaced; what a page shows wrongly is not looked at twice."""

from __future__ import annotations

import contextlib

import psutil
import pytest

from tests.support.browser import Seen, chromium, in_browser


@pytest.fixture
def page(tmp_path):
    file = tmp_path / "page.html"
    file.write_text("<title>A page</title><p id=p>here")
    return file


@pytest.fixture
def browser():
    with chromium(patience=4.0) as browser:
        yield browser


def stop_answering() -> None:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "chrom" in process.name():
                process.suspend()


@in_browser
def test_one_that_stops_answering_is_replaced(browser, page):
    looked = []

    def look() -> None:
        looked.append(Seen(browser, page, 400))
        if len(looked) == 1:
            stop_answering()
        assert looked[-1].page.evaluate("document.title") == "A page"
        looked[-1].close()

    browser.look(look)
    assert len(looked) == 2


@in_browser
def test_a_fault_of_the_page_is_told_at_once(browser, page):
    looked = []

    def look() -> None:
        looked.append(Seen(browser, page, 400))
        assert looked[-1].page.evaluate("document.title") == "Another page"

    with pytest.raises(AssertionError):
        browser.look(look)
    assert len(looked) == 1
