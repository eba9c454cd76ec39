"""Names are data: they survive HDF5, and cannot steer a terminal or a spreadsheet."""

from __future__ import annotations

import csv
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_pipeline.store.text import (
    CsvWriter,
    csv_cell,
    csv_value,
    escape_controls,
    natural_key,
    natural_sorted,
    to_bytes,
    to_text,
)


@given(st.binary().filter(lambda data: b"\0" not in data))
def test_file_names_survive(data):
    assert to_bytes(to_text(data)) == data
    assert to_text(data) == os.fsdecode(data) or os.sys.getfilesystemencoding() != "utf-8"


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_stored_and_shown(text):
    assert isinstance(to_bytes(text), bytes)
    shown = escape_controls(text)
    assert shown.encode() is not None
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in shown)


def test_what_steers_a_terminal_is_made_visible():
    assert escape_controls("a\x1b[31mb\n\u202ec\udcff") == "a\\x1b[31mb\\x0a\\u202ec\\xff"
    assert escape_controls("微笑 Ünïcode (1).mp4") == "微笑 Ünïcode (1).mp4"


@given(st.text())
def test_csv_cells_come_back(text):
    assert csv_value(csv_cell(text)) == text


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3", "\t=1"])
def test_formulas_are_defused(text):
    assert csv_cell(text).startswith("'")


@pytest.mark.parametrize("text", ["-3.5", "+2", "1e-3", "clip", "", "-.5"])
def test_numbers_and_words_stay(text):
    assert csv_cell(text) == text


def test_natural_order():
    names = ["clip10", "clip9", "clip09", "Clip1", "clip", "a/2.mp4", "a/10.mp4"]
    assert natural_sorted(names) == ["Clip1", "a/2.mp4", "a/10.mp4", "clip", "clip09", "clip9", "clip10"]


@given(st.lists(st.text(), max_size=6))
def test_natural_order_is_one_order(texts):
    assert natural_sorted(texts) == natural_sorted(reversed(texts))
    for a in texts:
        for b in texts:
            assert (natural_key(a) == natural_key(b)) == (a == b)


def test_every_cell_of_a_table_is_read_as_it_was_written():
    """Python's own writer leaves a carriage return bare, and every reader ends the row there."""
    rows = [["a\rb", "c"], ["\r", ""], ['x"\r\n,', "y"], ["plain", "2"], ["a\nb", "'"]]
    file = io.StringIO(newline="")
    CsvWriter(file).writerows(rows)
    assert list(csv.reader(io.StringIO(file.getvalue(), newline=""))) == rows
    assert "plain,2\n" in file.getvalue()
