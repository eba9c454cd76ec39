"""`benchmarks/fuzz.py` on videos, tables and runs, a few tries of each, in this process.

What it found is a test of its own, beside those of the code that was at fault: store/test_damaged.py,
batch/test_bombs.py, batch/test_label_tables.py, stages/test_containers.py, stages/test_display.py and
siam_model/test_hostile.py.
"""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

import pytest

from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("kind", "tries"),
    [("videos", 40), ("tables", 40), ("runs", 6)],
)
def test_nothing_is_bare_or_silent(
    kind: str, tries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    fuzz, files = importlib.import_module("fuzz"), importlib.import_module(f"fuzz_{kind}")
    sound = tmp_path / "sound"
    sound.mkdir()
    files.make(sound)
    answers = [fuzz.one_try(files, sound, tmp_path / "try", 5, n) for n in range(tries)]
    bad = [answer for answer in answers if answer["outcome"] not in fuzz.GOOD]
    assert not bad, bad
    assert len(Counter(answer["outcome"] for answer in answers)) > 1
