"""The browser of the tests: one that stops answering is replaced; what a page shows wrongly is not looked at twice."""

from __future__ import annotations

import contextlib

import psutil
import pytest

from tests.support.browser import PATIENCE, Seen, chromium, expect, in_browser


@pytest.fixture
def page(tmp_path):
    file = tmp_path / "page.html"
    file.write_text("<title>A page</title><p id=p>here")
    return file


@pytest.fixture
def browser():
    with chromium() as browser:
        yield browser


def answers(page) -> None:
    """Waits without a limit."""
    assert page.evaluate("document.title") == "A page"


def shows(page) -> None:
    """Waits a while, and then says that the page is wrong."""
    expect(page.locator("#p")).to_have_text("here", timeout=500)


def each_chromium(do) -> None:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "chrom" in process.name():
                do(process)


@in_browser
@pytest.mark.parametrize(
    ("end", "wait"),
    [(psutil.Process.suspend, answers), (psutil.Process.suspend, shows), (psutil.Process.kill, answers)],
)
def test_one_that_stops_answering_is_replaced(browser, page, end, wait):
    tries = []

    def look() -> None:
        tries.append(browser.patience)
        browser.patience = PATIENCE  # of the next try
        seen = Seen(browser, page, 400)
        if len(tries) == 1:
            each_chromium(end)
        wait(seen.page)
        seen.close()

    browser.patience = 2.0
    browser.look(look)
    assert tries == [2.0, PATIENCE]


@in_browser
def test_a_fault_of_the_page_is_told_at_once(browser, page):
    looked = []

    def look() -> None:
        looked.append(Seen(browser, page, 400))
        assert looked[-1].page.evaluate("document.title") == "Another page"

    with pytest.raises(AssertionError):
        browser.look(look)
    assert len(looked) == 1
