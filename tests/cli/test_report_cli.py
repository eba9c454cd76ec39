"""The report from the command line: `nemo prep --report`, `nemo report`."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.text import escape_controls
from tests.support.commands import nemo, nemo_process
from tests.support.smiling import HOSTILE, smiling_file


def test_prep_writes_the_report(clips, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["<img src=x onerror=alert(1)>.mp4", "$a^^b$.mp4", "caf\udce9.mp4"]
    for name in names:
        shutil.copy(clips / "clip0.mp4", folder / name)
    (folder / "bad.mp4").write_text("x")
    words = [
        "prep",
        folder,
        tmp_path / "out.h5",
        "--size",
        "48",
        "--workers",
        "2",
        "--report",
        tmp_path / "r.html",
    ]
    _, err = nemo(*words)
    assert b"It shows faces, which are biometric data" in err and b"--no-faces" in err
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert (tmp_path / "r.html").stat().st_mode & 0o777 == 0o600
    assert "data:image/jpeg" in text and "<img src=x" not in text
    assert "caf\\xe9" in text and "3 of 4 videos usable" in text
    # The same run again, without faces.
    _, err = nemo(*words, "--no-faces")
    assert b"It shows no faces" in err
    assert "data:image" not in (tmp_path / "r.html").read_text(encoding="utf-8")
    _, err = nemo(*words, "--quiet")
    assert err == b""


def test_report_writes_the_page(tmp_path):
    data = smiling_file(tmp_path)
    out, err = nemo("report", data, tmp_path / "r.html")
    assert out == b"" and b"biometric data" in err
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert all(
        name in text
        for name in map(escape_controls, FaceDataset(data).videos["id"])
        if not set(name) & set("<&'\"")
    )
    assert HOSTILE[0] not in text


def test_report_writes_the_page_without_docstrings(tmp_path):
    """`python -OO` takes docstrings away: what the page says is none of them."""
    data = smiling_file(tmp_path)
    nemo("report", data, tmp_path / "r.html")
    nemo_process("report", data, tmp_path / "bare.html", PYTHONOPTIMIZE="2")
    limit = "jumps: in 1 % of the frames the tracker"
    assert limit in (tmp_path / "bare.html").read_text(encoding="utf-8")
    assert limit in (tmp_path / "r.html").read_text(encoding="utf-8")
    out, _ = nemo("report", data, tmp_path / "s.html", "--no-faces", "--json")
    assert json.loads(out)["written"] == [os.fspath(tmp_path / "s.html")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--report", "r.pdf"], b"name it .html"),
        (["--report", "nowhere/r.html"], b"nowhere does not exist"),
        (["--no-faces"], b"--no-faces goes with --report"),
    ],
)
def test_usage(prepared, tmp_path, words, said):
    if words[0] == "--report":
        assert said in nemo("report", prepared[0], words[1], code=2, cwd=tmp_path)[1]
    assert said in nemo("prep", prepared[0].parent, "x.h5", *words, code=2, cwd=tmp_path)[1]


def test_parts_have_no_report(clips, tmp_path):
    words = ["prep", clips, tmp_path / "x.h5", "--part", "1/2", "--report", tmp_path / "r.html"]
    assert b"--report needs all videos: give it with --join" in nemo(*words, code=2)[1]
