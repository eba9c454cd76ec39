"""The commands as people call them: help, exit codes, one JSON object, and names that try to break things."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_cli import console
from nemo_cli.main import COMMANDS
from nemo_pipeline.store import FaceDataset
from tests.support.commands import nemo, nemo_process
from tests.support.runs import write_clip

OURS = ("prep", "info", "label", "verify", "pack", "doctor")


def test_help_lists_every_command_and_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['nemo', '--help']\n"
        "from nemo_cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'mediapipe', 'dask', 'distributed', 'cv2', 'av', 'h5py', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert name.encode() in done.stdout


@pytest.mark.parametrize("name", OURS)
def test_help_of_every_command(name):
    said, _ = nemo(name, "--help")
    assert b"Usage" in said


@pytest.mark.parametrize(
    ("word", "meant"), [("traim", "train"), ("evaluat", "evaluate"), ("informatics", "")]
)
def test_a_mistyped_command_gets_a_suggestion(word, meant):
    _, noted = nemo(word, "x", code=2)
    assert word.encode() in noted and (f"Did you mean '{meant}'".encode() in noted) == bool(meant)


def test_no_line_is_cut_where_there_is_no_terminal(capsys):
    name, message = "a long name with blanks " * 8 + ".mp4", "what became of it, " * 20
    console.err.print(
        console.new_table("Videos", ["video", "kept", "message"], [(name, 12, message)], "kept")
    )
    console.err.print(console.panel("out.h5", [("settings", message), ("uuid", name)]))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Videos" and lines[1].split() == ["video", "kept", "message"]
    assert lines[2] == f"{name}    12  {message.rstrip()}"
    assert lines[3:] == ["out.h5", f"settings  {message.rstrip()}", f"uuid      {name}"]


def test_prep_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['nemo', 'prep', '--help']\n"
        "from nemo_cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'mediapipe', 'dask', 'cv2', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_an_empty_argument_is_an_unset_variable(prepared, tmp_path):
    for words in (("prep", "", "o.h5"), ("info", ""), ("train", prepared[0], "--out="), ("pack", "", "x.h5")):
        assert b"variable of the shell" in nemo(*words, code=2, cwd=tmp_path)[1]
    assert not list(tmp_path.iterdir())


def test_a_terminal_that_cannot_show_a_name_shows_it_escaped(prepared, tmp_path):
    shutil.copytree(prepared[0].parent, tmp_path / "имя")
    said, _ = nemo_process("info", tmp_path / "имя" / "out.h5", PYTHONIOENCODING="latin-1")
    assert rb"\u0438\u043c\u044f" in said


def test_prep_prints_one_json_object(prepared):
    output, (said, noted) = prepared
    report = json.loads(said)
    assert report["output"] == str(output)
    assert report["counts"] == {"ok": 3}
    assert report["seconds"] > 0 and report["frames_per_second"] > 0
    assert [video["id"] for video in report["videos"]] == ["clip0", "clip1", "clip2"]
    data = FaceDataset(output)
    for i, video in enumerate(report["videos"]):
        assert list(video) == list(data.videos)
        assert video["n_decoded"] == data.videos["n_decoded"][i]
    assert b"0 done, 3 to do" in noted and b"frames/s" in noted


def test_prep_writes_for_the_owner_alone(prepared):
    output, _ = prepared
    shards = output.with_suffix(".shards")
    assert stat.S_IMODE(shards.stat().st_mode) == 0o700
    for path in (output, *shards.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_prep_shows_a_table(clips, tmp_path):
    shutil.copy(clips / "clip0.mp4", tmp_path / "good.mp4")
    (tmp_path / "bad.mp4").write_text("x")
    said, noted = nemo("prep", tmp_path, tmp_path / "out.h5", "--size", "48")
    assert said == b""
    for word in ("decoded", "kept", "interpolated", "good", "decode_error", "no video"):
        assert word.encode() in noted
    # --strict makes the failure count; what is done stays done.
    _, noted = nemo("prep", tmp_path, tmp_path / "out.h5", "--size", "48", "--strict", code=1)
    assert b"2 done, 0 to do" in noted


def test_exit_codes(tmp_path):
    (tmp_path / "bad.mp4").write_text("x")
    nemo("prep", tmp_path, tmp_path / "out.h5", code=1)  # none usable
    for words in (
        [],
        ["out.h5"],
        [tmp_path / "none.mp4", "out.h5"],
        [tmp_path, "clip.mp4"],
        [tmp_path, "o.h5", "--size", "3"],
        [tmp_path, "o.h5", "--part", "3/2"],
        [tmp_path, "o.h5", "--workers", "0"],
        [tmp_path, "o.h5", "--follow", "nobody"],
    ):
        nemo("prep", *words, code=2, cwd=tmp_path)
    assert not list(tmp_path.glob("o.*"))
    (tmp_path / "empty").mkdir()
    _, noted = nemo("prep", tmp_path / "empty", tmp_path / "o.h5", code=1)
    assert b"no video" in noted


def test_dry_run_writes_nothing_and_gives_reasons(prepared, clips, tmp_path):
    output, _ = prepared
    shutil.copytree(clips, tmp_path / "in")
    (tmp_path / "in/notes.txt").write_text("x")
    (tmp_path / "in/._clip.mp4").write_text("x")
    write_clip(tmp_path / "in/new.mp4", frames=3)
    _, noted = nemo("prep", tmp_path / "in", output, "--size", "48", "--dry-run")
    assert b"3 done, 1 to do, 2 paths left out" in noted and b"extension" in noted and b"macOS" in noted
    said, _ = nemo("prep", tmp_path / "in", tmp_path / "x.h5", "--dry-run", "--json", "--limit", "2")
    report = json.loads(said)
    assert [video["done"] for video in report["videos"]] == [False, False]
    assert not (tmp_path / "x.h5").exists() and not (tmp_path / "x.shards").exists()


def test_list_from_standard_input(clips, tmp_path):
    names = b"\0".join(os.fsencode(path) for path in sorted(clips.glob("*.mp4"))) + b"\0"
    said, _ = nemo("prep", "--list", "-", tmp_path / "out.h5", "--dry-run", "--json", stdin=names)
    assert len(json.loads(said)["videos"]) == 3


HOSTILE = [
    "clip[/b].mp4",
    "[bold red]x[/].mp4",
    "$a^^b$.mp4",
    "<img src=x onerror=alert(1)>.mp4",
    "=1+1.mp4",
    "a\x1b[31mred.mp4",
    "new\nline.mp4",
    "caf\udce9.mp4",
    "-rf.mp4",
    "微笑 (1).mp4",
    "%b%s{}.mp4",
    "'; drop.mp4",
]


def test_hostile_names_and_labels(clips, tmp_path):
    folder = tmp_path / "in"
    for name in HOSTILE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("no video")
    shutil.copy(clips / "clip0.mp4", folder / "caf\udce9.mp4")
    table = tmp_path / "l.csv"
    table.write_bytes(b"video,subject,age\ncaf\xe9.mp4,=cmd|' /C calc'!A0,30\n[/nobody],\x1b[31mx,3\n")
    output = tmp_path / "out.h5"
    said, noted = nemo("prep", folder, output, "--size", "48", "--labels", table, "--json")
    assert b"\x1b" not in noted + said
    names = {video["file"] for video in json.loads(said)["videos"]}
    assert names == set(HOSTILE)
    said, noted = nemo_process("prep", folder, output, "--size", "48", FORCE_COLOR="1")
    assert b"\\x1b[31mred" in noted and b"\x1b[31mred" not in noted
    data = FaceDataset(output)
    (video,) = data.values()
    assert os.fsencode(video.file) == b"caf\xe9.mp4" and video.subject.startswith("=cmd")
    for words in (
        ["info", output],
        ["verify", output],
        ["info", output, "--json"],
        ["verify", output, "--json"],
    ):
        said, noted = nemo(*words)
        assert b"\x1b[31m" not in said + noted
        if "--json" in words:
            json.loads(said)
    assert {path.name for path in tmp_path.iterdir()} == {
        "in", "l.csv", "out.h5", "out.shards", "dataset_description.json"
    }  # fmt: skip


def test_a_locale_without_unicode(clips, tmp_path):
    shutil.copy(clips / "clip0.mp4", tmp_path / "ü微.mp4")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    output = tmp_path / "ö.h5"
    said, _ = nemo_process("prep", tmp_path, output, "--size", "48", "--json", **plain)
    assert json.loads(said)["videos"][0]["id"] == "ü微"
    _, noted = nemo_process("prep", tmp_path, output, "--size", "48", **plain)
    assert b"1 done, 0 to do" in noted
    nemo_process("prep", "--join", output, **plain)
    assert FaceDataset(output)[0].file == "ü微.mp4" and FaceDataset(output)[0].frames.any()


def test_label_verify_pack_info(prepared, tmp_path):
    source, _ = prepared
    shutil.copytree(source.with_suffix(".shards"), tmp_path / "out.shards")
    output = Path(shutil.copy(source, tmp_path / "out.h5"))
    table = tmp_path / "l.csv"
    table.write_text("video,subject,age\nclip0.mp4,a,20\nclip1.mp4,b,30\nghost.mp4,c,40\n")
    _, noted = nemo("label", output, table)
    assert b"without a label: clip2.mp4" in noted and b"ghost.mp4" in noted
    said, _ = nemo("label", output, table, "--json")
    assert json.loads(said)["labels_without_video"] == ["ghost.mp4"]
    assert nemo("verify", output)[1].endswith(b"1 warning, 1 note.\n")
    nemo("pack", output, tmp_path / "one.h5", "--compression", "1")
    (shard,) = (tmp_path / "out.shards").glob("*.h5")
    for path, kind in (
        (output, "index"),
        (tmp_path / "one.h5", "packed"),
        (shard, "shard"),
        (tmp_path, "folder"),
    ):
        said, _ = nemo("info", path, "--json")
        assert kind in json.loads(said)["kind"]
    shard.unlink()
    said, _ = nemo("verify", output, "--json", code=1)
    assert not json.loads(said)["ok"]
    said, noted = nemo("info", output, "--json", code=1)
    assert json.loads(said)["missing_shards"] == [shard.name] and shard.name.encode() in noted
    said, noted = nemo("info", output, code=1)
    assert shard.name.encode() in said and shard.name.encode() in noted
    _, noted = nemo("pack", output, tmp_path / "two.h5", code=1)
    assert shard.name.encode() in noted


def test_info_of_a_clip_and_of_nothing(clips, tmp_path):
    said, _ = nemo("info", clips / "clip0.mp4", "--json")
    facts = json.loads(said)
    assert (facts["width"], facts["height"], facts["codec"]) == (160, 160, "mpeg4")
    (tmp_path / "text.mp4").write_text("x")
    nemo("info", tmp_path / "text.mp4", code=1)
    nemo("info", tmp_path / "none", code=1)


def test_doctor_reports(tmp_path):
    said, _ = nemo("doctor", "--json", cwd=tmp_path)
    report = json.loads(said)
    assert report["can_prep"] and report["can_train"]
    names = {check["name"] for check in report["checks"]}
    assert {"decoder", "landmark bundle", "GPU", "cores", "disk", "file locking", "libGL.so.1"} <= names
    assert not list(tmp_path.iterdir())


def test_unknown_errors_name_the_debug_switch(tmp_path):
    (tmp_path / "x.h5").write_text("x")
    _, noted = nemo("info", tmp_path / "x.h5", code=1)
    assert noted.startswith(b"Error: ")
