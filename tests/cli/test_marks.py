"""Marks on the command line: found by themselves, said, shown, and taken along."""

from __future__ import annotations

import json

import pytest

from nemo_pipeline.marks import Mark, marks_beside, read_marks, write_marks
from tests.support.commands import invoke
from tests.support.smiling import smiling_file

MARKS = [Mark("gaps", 5, 24, "hand"), Mark("turned", reason="wrong person")]


@pytest.fixture
def data(tmp_path):
    data = smiling_file(tmp_path)
    write_marks(marks_beside(data), MARKS)
    return data


def test_info_says_what_they_leave_out(data):
    found = json.loads(invoke("info", data, "--json").stdout)["marks"]
    assert found["left_out"] == "1 video and 20 frames of 1 other" and found["file"] == str(
        marks_beside(data)
    )
    marks_beside(data).write_text("video,start,stop\ngaps,x,\n")
    assert "line 2: start is 'x'" in invoke("info", data).stdout
    marks_beside(data).unlink()
    assert json.loads(invoke("info", data, "--json").stdout)["marks"] == "none"


def test_a_packed_copy_has_them_too(data, tmp_path):
    one = tmp_path / "one.h5"
    assert "one.marks.csv" in invoke("pack", data, one).stderr
    assert read_marks(marks_beside(one)) == MARKS
    marks_beside(one).write_text("mine")
    one.unlink()
    invoke("pack", data, one)
    assert marks_beside(one).read_text() == "mine"


def test_the_report_shows_them_and_says_so(data, tmp_path):
    said = invoke("report", data, tmp_path / "r.html").stderr
    assert "leaves out 1 video and 20 frames of 1 other (hand, wrong person)" in said
    assert "frames 5 to 24: hand" in (tmp_path / "r.html").read_text()
    invoke("report", data, tmp_path / "r.html", "--marks", "none")
    assert "frames 5 to 24: hand" not in (tmp_path / "r.html").read_text()
    marks_beside(data).write_text("video,start,stop\ngaps,9,3\n")
    assert (
        "line 2: stop (3) is before start (9)" in invoke("report", data, tmp_path / "r.html", code=1).stderr
    )


def test_names_that_are_not_there_are_said(data):
    write_marks(marks_beside(data), [Mark("elsewhere"), Mark("gaps", 1, 2)])
    said = invoke("export", data, data.with_name("t.csv")).stderr
    assert "It names elsewhere, not in this file." in said
