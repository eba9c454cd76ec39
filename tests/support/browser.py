"""Pages in the system's own Chromium, for the tests that look at a report as a person would.

Once in a long while a headless Chromium never acknowledges a key or answers a script, and Playwright waits for both
without a limit. A test that looks at a page is therefore given `PATIENCE` seconds; then Chromium is killed, and the
test begins again in a new one, with twice as many. So it does where a page that was waited for no longer answers a
script, and where Chromium died. What a page shows wrongly is never looked at twice.
"""

from __future__ import annotations

import contextlib
import functools
import html
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

#: Seconds that a test has for its page (they take one or two, and more on a busy machine), milliseconds that a page has
#: for what it is asked, and how often a Chromium that says nothing is replaced.
PATIENCE, LIMIT, TRIES = 150.0, 120_000, 3

try:
    from playwright import sync_api
except ImportError:
    sync_api = expect = None
else:
    expect = sync_api.expect
    expect.set_options(timeout=LIMIT)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def in_browser(test: Callable[..., None]) -> Callable[..., None]:
    """Mark for a test with an argument `browser` (a `Chromium`): skipped without one, begun again if it stops."""

    @functools.wraps(test)
    def begun_again(*args: Any, **kwargs: Any) -> None:
        kwargs["browser"].look(functools.partial(test, *args, **kwargs))

    missing = sync_api is None or CHROMIUM is None
    return pytest.mark.skipif(missing, reason="no playwright, or no Chromium on this system")(begun_again)


class Chromium:
    """A Chromium that is started again when it stops answering."""

    def __init__(self, playwright: Any, patience: float = PATIENCE) -> None:
        self._playwright, self.patience = playwright, patience
        self._browser: Any = None

    def new_context(self, **kwargs: Any) -> Any:
        """A browser context of Playwright's, with its arguments."""
        if self._browser is None or not self._browser.is_connected():
            self._browser = self._playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
        context = self._browser.new_context(**kwargs)
        context.set_default_timeout(LIMIT)
        return context

    def look(self, test: Callable[[], None]) -> None:
        """Call `test`, again in a new browser where this one did not answer in time. Closes its pages."""
        for tried in range(TRIES):
            with self._limited(self.patience * 2**tried) as stopped:
                try:
                    return test()
                except (sync_api.Error, AssertionError):
                    if tried == TRIES - 1 or (self._answers() and not stopped.is_set()):
                        raise
                finally:
                    with contextlib.suppress(sync_api.Error):
                        self._close_pages()

    def _answers(self) -> bool:
        """Whether every open page still answers; False at the latest when Chromium was killed for want of an answer."""
        if self._browser is None:
            return True
        try:
            for context in self._browser.contexts:
                for page in context.pages:
                    page.evaluate("document.title")
        except sync_api.Error:
            return False
        return bool(self._browser.is_connected())

    def _close_pages(self) -> None:
        for context in self._browser.contexts if self._browser is not None else []:
            context.close()

    def close(self) -> None:
        if self._browser is not None:
            with self._limited(self.patience):
                self._browser.close()

    @contextlib.contextmanager
    def _limited(self, seconds: float) -> Iterator[threading.Event]:
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            # A killed Chromium ends Playwright's wait with an error; a polite request would wait as well.
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if "chrom" in process.name():
                        process.kill()

        watch = threading.Timer(seconds, stop)
        watch.daemon = True
        watch.start()
        try:
            yield stopped
        finally:
            watch.cancel()


@contextlib.contextmanager
def chromium(patience: float = PATIENCE) -> Iterator[Chromium]:
    with sync_api.sync_playwright() as playwright:
        browser = Chromium(playwright, patience)
        try:
            yield browser
        finally:
            browser.close()


def private(file: Path) -> list[str]:
    """What a page or an SVG picture should not name: folders of whoever made it, and places on a network. (Names of
    XML's vocabularies look like the latter, and are none.)"""
    text = html.unescape(file.read_text(encoding="utf-8"))
    folders = {file.resolve().parent, file.resolve().parents[1], Path.home(), Path.cwd()} - {Path("/")}
    named = [f"names the folder {folder}" for folder in folders if f"{folder}/" in text]
    addresses = re.findall(r"\b(?:https?|ftp|file|wss?)://[^\s\"'<>)]*", text)
    vocabularies = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink")
    return named + [address for address in addresses if address not in vocabularies]


def soon(test: Callable[[], bool]) -> None:
    """Wait until something is so. (A page's policy may let Playwright's own waiting run no script.)"""
    end = time.monotonic() + LIMIT / 1000
    while not test():
        assert time.monotonic() < end
        time.sleep(0.02)


class Seen:
    """A page at a size, and everything it said or asked for."""

    def __init__(self, browser: Chromium, file: Path, width: int, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(f"dialog {dialog.message}"))
        self.page.on("request", self._asked)
        self.page.goto(file.as_uri())
        self.faults += private(file)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.faults.append(request.url)

    def close(self) -> None:
        """Nothing went wrong."""
        self.context.close()
        assert self.faults == []
