"""The page of `nemo evaluate`: names are text, nothing is loaded, and a real browser shows it at two widths, light and
dark. The browser's tests are skipped where no Chromium is installed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from nemo_pipeline.store.text import escape_controls
from siam_model.evaluate import Evaluation, evaluate
from siam_model.predictions import Predictions, read_predictions, write_predictions
from siam_model.reports.content import SECTIONS
from siam_model.reports.inputs import EvaluateRequest
from tests.support.browser import Seen, chromium, expect, in_browser, private, soon
from tests.support.siam_smiles import HOSTILE, METHOD, smiling_file, studied, trained


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Evaluation:
    folder = tmp_path_factory.mktemp("page")
    data = smiling_file(folder / "<b>$d^^$[b].h5")
    run = trained(data, folder / "run <img src=x onerror=alert(3)>")
    study = studied(data, folder / "modules", "modules")
    p = read_predictions(run / "predictions.csv")
    write_predictions(folder / "m.csv", Predictions(p.video, p.subject, p.fold, p.age, p.predicted + 1))
    # A study of mechanisms is missing, so that the page has a list of what is not there.
    return evaluate([run, study], folder / "out", request=EvaluateRequest(others={METHOD: folder / "m.csv"}))


class Reader(HTMLParser):
    """Tags with their attributes, and the text, as a browser would have them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(result) -> Reader:
    reader = Reader()
    reader.feed(result.files[0].read_text(encoding="utf-8"))
    return reader


def test_names_are_text(page, result):
    text = " ".join(page.text)
    assert METHOD in text and "run <img src=x onerror=alert(3)>" in text and "<b>$d^^$[b].h5" in text
    assert "<u>other</u>" in text  # a gender
    shown = next(p.alt for p in result.report.pictures if p.number == "Figure 10")
    alts = {image["alt"] for image in page.of("img")}
    assert escape_controls(shown) in alts
    assert any(escape_controls(name) in shown or name in shown for name in HOSTILE) or "_" in shown
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "form", "u", "i"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "\u202e" not in "".join(page.text)


def test_nothing_is_loaded_from_anywhere(page):
    policy = next(m["content"] for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'") and "script" not in policy
    for tag in ("img", "link", "a"):
        for attributes in page.of(tag):
            target = attributes.get("src") or attributes.get("href") or ""
            assert target.startswith(("data:", "#")), (tag, target[:60])
    assert not re.search(r"url\(|@import", " ".join(page.text))


def test_nothing_names_a_folder_or_a_network(result):
    files = [result.files[0], *(path for path in result.parts if path.suffix == ".svg")]
    assert len(files) > 5
    assert {path.name: found for path in files if (found := private(path))} == {}
    for path in result.parts:
        if path.suffix == ".png":
            assert os.fsencode(path.parents[2]) not in path.read_bytes()


def test_it_can_be_read_without_seeing(page, result):
    images = page.of("img")
    assert len(images) == len(result.report.pictures) == 8
    assert all(len(image["alt"] or "") > 40 and image["width"] and image["height"] for image in images)
    names = [tag for tag, _ in page.tags]
    assert names.count("caption") == names.count("table") == len(result.report.tables)
    assert names.count("figcaption") == names.count("figure") == len(images)
    assert all(th.get("scope") in ("col", "row", "rowgroup") for th in page.of("th"))
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for name in ("aria-labelledby", "href"):
            value = attributes.get(name) or ""
            if name == "aria-labelledby" and value:
                assert value in ids
            if name == "href" and value.startswith("#"):
                assert value[1:] in ids
    assert next(level for level in names if level in ("h1", "h2", "h3")) == "h1" and names.count("h1") == 1
    assert next(attributes for tag, attributes in page.tags if tag == "html")["lang"] == "en"


def test_the_paper_is_marked_wherever_its_numbers_stand(page):
    text = re.sub(r"\s+", " ", " ".join(page.text))
    assert "Trained or tested on synthetic faces" in text
    assert text.count("no number above may be compared with these") == 2  # Tables II and III
    assert "not to be compared with errors on synthetic faces" in text  # Figure 6
    assert "--study mechanisms" in text and "nemo evaluate" in text


# ---- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_asks_for_nothing(browser, result, width, scheme):
    seen = Seen(browser, result.files[0], width, scheme)
    page = seen.page
    page.wait_for_load_state("load")
    assert page.evaluate("[...document.images].every(i => i.naturalWidth > 600)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # A wide table scrolls inside itself; figures and summary cards are whole.
    assert page.evaluate(
        "[...document.querySelectorAll('.scroll, img')].every(s => s.getBoundingClientRect().right <= innerWidth)"
    )
    assert page.evaluate(
        "[...document.querySelectorAll('.numbers *')].every(e => e.scrollWidth <= e.clientWidth)"
    )
    small = page.evaluate(
        "Math.min(...[...document.querySelectorAll('main *')].filter(e => e.innerText && e.offsetParent"
        " && !e.closest('.hidden')).map(e => parseFloat(getComputedStyle(e).fontSize)))"
    )
    assert small >= 12
    assert page.evaluate(CONTRAST) >= 4.5
    assert page.locator("h2").count() >= len({p.section for p in result.report.pictures} & set(SECTIONS))
    assert seen.faults == []
    seen.context.close()


#: Least contrast of text against the ground behind it, as WCAG counts it.
CONTRAST = """() => {
  const rgb = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = rgb(c).slice(0, 3).map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (rgb(c).length < 4 || rgb(c)[3] > 0) return c; } return 'rgb(255, 255, 255)'; };
  return Math.min(...[...document.querySelectorAll('h1,h2,p,th,td,dt,dd,a,caption,figcaption span,code,summary')]
    .filter(e => e.innerText && e.offsetParent).map(e => {
      const a = light(getComputedStyle(e).color), b = light(ground(e));
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }));
}"""


@in_browser
def test_by_keyboard(browser, result):
    seen = Seen(browser, result.files[0], 390, "light")
    page = seen.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#content$"))
    details = page.locator("details").first
    details.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(details).to_have_attribute("open", "")
    scroll = page.locator(".scroll").first  # a wide table is moved with the arrow keys
    scroll.focus()
    page.keyboard.press("ArrowRight")
    soon(lambda: page.evaluate("document.querySelector('.scroll').scrollLeft") > 0)  # it scrolls smoothly
    assert seen.faults == []
    seen.context.close()


@in_browser
def test_a_table_is_downloaded_from_the_page_itself(browser, result, tmp_path):
    seen = Seen(browser, result.files[0], 1280, "light")
    with seen.page.expect_download() as waiting:
        seen.page.locator("a[download='table-3.csv']").click()
    waiting.value.save_as(tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes() == (result.folder / "tables" / "table-3.csv").read_bytes()
    seen.context.close()
