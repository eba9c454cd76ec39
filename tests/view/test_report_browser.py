"""The report in a real browser: it loads, sorts, filters and opens by keyboard, asks no network for anything, and
fits a phone. Skipped where no Chromium is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.text import escape_controls
from nemo_pipeline.view.report import write_report
from tests.support.browser import Seen, chromium, expect, in_browser
from tests.support.smiling import HOSTILE, smiling_file


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    return write_report(FaceDataset(smiling_file(folder)), folder / "report.html")


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Report(Seen):
    """The report of a prepared file."""

    @property
    def shown(self) -> list[str]:
        """Names of the videos that are shown, in order."""
        names = self.page.locator("#table tbody tr[data-row]:not([hidden]) .open").all_inner_texts()
        return [name.strip() for name in names]


@in_browser
def test_it_sorts(browser, report):
    seen = Report(browser, report, 1500)
    page = seen.page
    before = seen.shown
    header = page.get_by_role("columnheader", name="Decoded", exact=True)
    assert header.get_attribute("aria-sort") == "none"
    button = page.get_by_role("button", name="Decoded", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    expect(header).to_have_attribute("aria-sort", "descending")
    assert seen.shown[:2] == ["cut", "nobody"] and sorted(seen.shown) == sorted(before)
    page.keyboard.press("Space")
    expect(header).to_have_attribute("aria-sort", "ascending")
    assert seen.shown[-1] == "cut"
    ages = page.get_by_role("columnheader", name="Age", exact=True)
    page.get_by_role("button", name="Age", exact=True).click()
    expect(ages).to_have_attribute("aria-sort", "descending")
    expect(header).to_have_attribute("aria-sort", "none")
    # Ages 30 first; those without one stay last, whichever way.
    assert seen.shown[-2:] == ["nobody", "broken"]
    page.get_by_role("button", name="Age", exact=True).click()
    expect(ages).to_have_attribute("aria-sort", "ascending")
    assert seen.shown[0] == HOSTILE[0] and seen.shown[-2:] == ["nobody", "broken"]
    seen.close()


@in_browser
def test_it_filters(browser, report):
    seen = Report(browser, report, 1280)
    page = seen.page
    count = page.get_by_role("status")
    expect(count).to_have_text("14 videos")
    page.get_by_label("Status").select_option("no_face")
    expect(count).to_have_text("1 of 14 videos")
    assert seen.shown == ["nobody"]
    page.get_by_role("button", name="Clear").click()
    expect(count).to_have_text("14 videos")
    page.get_by_label("Worth a look").select_option("*")
    expect(count).to_have_text("5 of 14 videos")
    assert seen.shown == ["gaps", "turned", "small", "many", "cut"]
    page.get_by_label("Worth a look").select_option("-")
    expect(count).to_have_text("7 of 14 videos")
    assert "nobody" not in seen.shown and "without landmarks" in seen.shown
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Find").fill("img SRC")
    expect(count).to_have_text("1 of 14 videos")
    assert seen.shown == [HOSTILE[0]]
    page.get_by_label("Find").fill("no such video")
    page.get_by_text("No video matches the filter.").wait_for()
    page.get_by_role("button", name="the head is non-frontal").click()
    expect(count).to_have_text("1 of 14 videos")
    assert seen.shown == ["turned"]
    seen.close()


@in_browser
def test_details_open_by_keyboard(browser, report, scheme):
    seen = Report(browser, report, 1280, scheme)
    page = seen.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the table of videos"
    button = page.get_by_role("button", name="gaps", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    panel = page.get_by_role("region", name="Details of gaps")
    panel.get_by_role("img", name="Lip corners").wait_for()
    expect(button).to_have_attribute("aria-expanded", "true")
    assert panel.get_attribute("id") == button.get_attribute("aria-controls")
    assert "13 of 60 frames had no face" in panel.inner_text() and "onset" in panel.inner_text()
    face = panel.get_by_role("img", name="8 warped faces of gaps")
    assert face.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 8 * 48
    bar = panel.get_by_role("img", name="Frames of the file")
    assert bar.get_attribute("aria-label") == "Frames of the file: 0 not kept, 47 kept, 13 interpolated"
    assert panel.locator("path.line").count() == 5 and panel.locator("rect.onset").count() == 1
    page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-expanded", "false")
    expect(panel).to_have_count(0)
    seen.close()


@in_browser
def test_hostile_names_are_text(browser, report):
    seen = Report(browser, report, 1280)
    page = seen.page
    names = [escape_controls(name) for name in HOSTILE]
    assert seen.shown[: len(names)] == names
    page.get_by_role("button", name="Open all").click()
    for name in names:
        panel = page.get_by_role("region", name=f"Details of {name}", exact=True)
        panel.scroll_into_view_if_needed()
        panel.get_by_text(f"{name}.mp4").wait_for()
        panel.get_by_role("img", name="Head pose").wait_for()
    assert page.locator("img[src='x']").count() == 0
    seen.close()


@in_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits(browser, report, scheme, width):
    seen = Report(browser, report, width, scheme)
    page = seen.page
    for name in ("many", "nobody", "without landmarks"):
        page.get_by_role("button", name=name, exact=True).click()
        page.get_by_role("region", name=f"Details of {name}").get_by_text(
            name + ".mp4" if name != "nobody" else "No face in <90> frames."
        ).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelector('.scroll').scrollWidth") <= width
    assert page.get_by_role("button", name="Age", exact=True).is_visible()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == (scheme == "dark")
    seen.close()
