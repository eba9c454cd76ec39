"""The page of `nemo review` in a real browser: by keyboard alone, by mouse, with a model, on a phone, and when its
server has gone. Skipped where no Chromium is installed."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import siam_model
from nemo_pipeline.marks import Mark, add_mark, read_marks
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.text import escape_controls
from nemo_pipeline.view.review import Review, ReviewServer
from siam_model.review import attention_for_page
from tests.support.browser import chromium, expect, in_browser, soon
from tests.support.siam_faces import drawn_file
from tests.support.siam_runs import quick
from tests.support.smiling import HOSTILE, smiling_file


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smiling_file(tmp_path_factory.mktemp("review"))


class Reviewing:
    """A page of a server, its file of marks, and everything that went wrong on it."""

    def __init__(self, browser: Any, review: Review, width: int = 1280, scheme: str = "light") -> None:
        self.server = ReviewServer(review)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page, self.faults = self.context.new_page(), []
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self._asked)
        self.page.goto(self.server.address)
        self.page.wait_for_selector("#plots svg")
        empty = self.page.evaluate(
            "Object.assign(document.createElement('canvas'), {width: 640, height: 640}).toDataURL()"
        )
        soon(lambda: picture(self.page, "#face") != empty)  # the last that it asks the server for by itself
        assert picture(self.page, "#points") != empty

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(self.server.address):
            self.faults.append(request.url)

    @property
    def marks(self) -> list[Mark]:
        path = self.server.review.marks
        return read_marks(path) if path.exists() else []

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def says(self, selector: str, text: str) -> None:
        expect(self.page.locator(selector)).to_contain_text(text)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


@contextlib.contextmanager
def reviewing(browser: Any, data: Path, folder: Path, *more: Any, **how: Any) -> Iterator[Reviewing]:
    """A review with no mark yet; nothing goes wrong on its page. (A test may begin again in another browser.)"""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    seen = Reviewing(browser, Review(FaceDataset(data), folder / "m.csv", "kim", *more), **how)
    try:
        yield seen
        seen.context.close()
    finally:
        seen.stop()
    assert seen.faults == []


def picture(page: Any, name: str) -> str:
    """What a canvas shows."""
    return str(page.locator(name).evaluate("(canvas) => canvas.toDataURL()"))


@in_browser
def test_by_keyboard_alone(browser, data, tmp_path):
    with reviewing(browser, data, tmp_path / "it") as seen:
        page = seen.page
        seen.press("ArrowDown", "ArrowDown", "ArrowUp")
        seen.says("#name", HOSTILE[1])
        seen.says("#here", "Frame 0 (1 of 60)")
        seen.press("Shift+ArrowRight", "ArrowRight", "ArrowLeft", "ArrowRight")
        seen.says("#here", "Frame 11 (12 of 60), 0.44 s, yaw 4°, pitch -2°, roll 1°")
        seen.press("s", "ArrowRight", "ArrowRight", "e")
        seen.says("#what", "frames 11 to 13")
        seen.press("x")
        seen.says("#chosen", f"Exclude frames 11 to 13 of {HOSTILE[1]}")
        seen.press("2")
        seen.says("#marks", "frames 11 to 13: face covered (kim)")
        assert [(m.video, m.start, m.stop, m.reason, m.who) for m in seen.marks] == [
            (HOSTILE[1], 11, 13, "face covered", "kim")
        ]
        seen.says("#here", "left out: face covered")
        expect(page.locator("#choose")).not_to_be_visible()
        seen.press("ArrowDown", "x")
        seen.says("#chosen", f"Exclude the whole clip of {escape_controls(HOSTILE[2])}")
        page.locator("#reason").focus()
        page.keyboard.type("3 people, all talking")
        seen.press("Enter")
        seen.says("#marks", "whole clip: 3 people, all talking")
        assert seen.marks[1].whole and seen.marks[1].video == HOSTILE[2]
        seen.says("#count", "12 clips, 1 excluded, 1 with ranges left out.")
        seen.press("x", "Escape", "u")
        expect(page.locator("#marks li")).to_have_count(0)
        assert len(seen.marks) == 1
        seen.press("Control+z")
        seen.says("#name", HOSTILE[1])
        expect(page.locator("#undo")).to_be_disabled()
        assert seen.marks == []
        seen.press("End", "e", "Home", "ArrowRight", "s", "x", "1")
        seen.says("#marks", "frames 1 to 59: wrong person")
        seen.press("/")
        page.keyboard.type("gaps")
        seen.press("Enter")
        seen.says("#name", "gaps")
        seen.says("#why", "13 of 60 frames had no face")
        seen.press("?")
        seen.says("#keys", "undo the last change")
        seen.press("Escape", "Space")
        soon(lambda: int(page.locator("#frame").input_value()) > 3)
        seen.press("Space")


@in_browser
def test_an_answer_that_comes_late_undoes_nothing(browser, data, tmp_path):
    with reviewing(browser, data, tmp_path / "it") as seen:
        held: list[tuple[Any, Any]] = []  # the answer as the server gave it, not yet with the page
        seen.page.route("**/marks", lambda route: held.append((route, route.fetch())))
        seen.press("ArrowDown", "ArrowUp", "ArrowDown", "ArrowUp")
        seen.says("#here", "Frame 0 (1 of 60)")
        seen.press("ArrowRight", "x", "2")
        seen.says("#here", "left out: face covered")
        while not held:
            seen.page.wait_for_timeout(10)
        for route, answer in held:
            with seen.page.expect_response("**/marks"):
                route.fulfill(response=answer)
        seen.press("ArrowDown", "ArrowUp")
        seen.says("#marks", "whole clip: face covered")
        seen.press("ArrowRight")
        seen.says("#here", "Frame 1 (2 of 60)")
        seen.press("u")
        expect(seen.page.locator("#here")).not_to_contain_text("left out")
        assert len(held) == 1


@in_browser
def test_keys_that_come_before_their_answers(browser, data, tmp_path):
    """A clip is excluded before it is read; changes are made in the order of their keys, and the last answer counts."""
    with reviewing(browser, data, tmp_path / "it") as seen:
        held: list[Any] = []
        seen.page.route("**/video?row=*", lambda route: held.append(route))
        seen.press("ArrowDown", "x", "2", "ArrowDown")
        seen.says("#chosen", f"Exclude the whole clip of {HOSTILE[1]}")
        seen.says("#count", "12 clips, 1 excluded")
        seen.press("Escape", "ArrowDown")
        for route in held:
            route.continue_()
        seen.press("x", "1")
        seen.says("#count", "12 clips, 2 excluded")
        slow: list[Any] = []  # the first change is answered after the second one was asked for
        seen.page.route("**/unmark", lambda route: slow.append(route))
        seen.press("u", "u")
        soon_answered(seen.page, slow, 1)
        seen.says("#count", "12 clips, 1 excluded")
        soon_answered(seen.page, slow, 2)
        seen.says("#count", "12 clips, 0 excluded")
        assert seen.marks == []


def soon_answered(page: Any, held: list[Any], number: int) -> None:
    """Let the request go on that is the number-th, when it is there."""
    while len(held) < number:
        page.wait_for_timeout(10)
    assert len(held) == number, "one at a time"
    held[-1].continue_()


@in_browser
def test_clips_that_were_looked_at_long_ago_are_read_again(browser, data, tmp_path):
    with reviewing(browser, data, tmp_path / "it") as seen:
        names = FaceDataset(data).ids
        for way, order in (("ArrowDown", names[1:]), ("ArrowUp", names[-2::-1])):
            for name in order:
                seen.press(way)
                seen.says("#name", escape_controls(name))
                seen.says("#here", "Frame 0 (1 of 60)")
        assert seen.page.locator("#plots path.line").count() == 5


@in_browser
def test_by_mouse(browser, data, tmp_path):
    with reviewing(browser, data, tmp_path / "it") as seen:
        page = seen.page
        page.get_by_role("option", name="turned").click()
        seen.says("#name", "turned")
        page.locator("#plots svg").first.click(position={"x": 300, "y": 60})
        page.get_by_role("button", name="Stop here").click()
        page.get_by_role("button", name="Exclude frames").click()
        page.get_by_role("button", name="talking").click()
        page.get_by_role("button", name="Remove the mark").wait_for()
        (mark,) = seen.marks
        assert mark.start == 0 and 5 < mark.stop < 40 and mark.reason == "talking"
        page.get_by_label("Show").select_option("marked")
        assert [name.strip() for name in page.locator("#clips b").all_inner_texts()] == ["turned"]
        page.get_by_role("button", name="Remove the mark").click()
        expect(page.locator("#marks li")).to_have_count(0)
        assert seen.marks == []
        page.get_by_role("button", name="Undo").click()
        page.get_by_role("button", name="Remove the mark").wait_for()
        assert seen.marks == [mark]


@in_browser
def test_marks_of_another_person_are_kept_and_shown(browser, data, tmp_path):
    with reviewing(browser, data, tmp_path / "it") as seen:
        add_mark(seen.server.review.marks, Mark("small", 1, 2, "theirs", "lee"))
        seen.press("x", "1")
        seen.says("#marks", "whole clip: wrong person")
        assert [mark.who for mark in seen.marks] == ["lee", "kim"]
        seen.press("/")
        seen.page.keyboard.type("small")
        seen.press("Enter")
        seen.says("#marks", "frames 1 to 2: theirs (lee)")


@in_browser
def test_the_face_is_drawn_and_changes_with_the_frame(browser, data, tmp_path):
    with reviewing(browser, data, tmp_path / "it") as seen:
        page = seen.page
        plain = picture(page, "#face")
        seen.press("p")
        assert picture(page, "#face") != plain
        seen.press("p")
        assert picture(page, "#face") == plain
        seen.press("Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight")
        seen.says("#here", "Frame 30")
        assert picture(page, "#face") != plain
        assert (
            page.locator("#plots path.line").count() == 5 and page.locator("#plots rect.onset").count() == 1
        )


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits(browser, data, tmp_path, width, scheme):
    with reviewing(browser, data, tmp_path / "it", width=width, scheme=scheme) as seen:
        page = seen.page
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_role("button", name="Exclude clip").click()
        box = page.locator("#choose").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) < 200) == (scheme == "dark")


@in_browser
def test_what_cannot_be_saved_is_said_and_not_shown_as_saved(browser, data, tmp_path):
    with reviewing(browser, data, tmp_path / "it") as seen:
        seen.server.review.marks.write_text("video,start,stop\ngaps,x,\n")
        seen.press("x", "2")
        seen.says("#unsaved", "Not saved:")
        seen.says("#unsaved", "line 2: start is 'x'")
        assert seen.page.locator("#marks li").count() == 0 and seen.page.locator("#choose").is_visible()
        seen.server.review.marks.unlink()
        seen.press("2")
        seen.says("#marks", "whole clip: face covered")
        seen.context.set_offline(True)  # as when the server has ended
        seen.press("u")
        seen.says("#fault", "Not undone: nemo review does not answer: it has ended.")
        assert len(seen.marks) == 1
        # The browser itself says of both that they failed.
        assert len(seen.faults) == 2 and all("Failed to load resource" in text for text in seen.faults)
        seen.faults.clear()


@in_browser
def test_with_a_model_its_attention_is_shown(browser, tmp_path):
    data = drawn_file(tmp_path / "drawn.h5", synthetic=True, size=70, subjects=6, frames=8)
    run = quick(data, tmp_path / "run", epochs=1)
    attention = attention_for_page(siam_model.load(run), FaceDataset(data))
    video = FaceDataset(data)["000_0"]
    said = attention(video.row)
    expected = siam_model.load(run).predict(video.frames)
    assert said["age"] == pytest.approx(expected.age, abs=0.01)
    assert said["weights"] == pytest.approx(expected.temporal_weights.tolist(), abs=1e-6)
    assert len(said["maps"]) == len(video) and len(said["maps"][0]) == len(said["cells"][0]) ** 2
    with reviewing(browser, data, tmp_path / "it", attention, "run") as seen:
        seen.page.get_by_role("img", name="Temporal weight").wait_for()
        seen.says("#plots", "run")
        heat = picture(seen.page, "#face")
        seen.press("a")
        assert picture(seen.page, "#face") != heat
