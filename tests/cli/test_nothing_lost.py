"""A slip on the command line never costs a recording, a prepared file or labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import pytest

from nemo_pipeline.store import FaceDataset
from nemo_pipeline.view.annotated import is_annotated
from tests.support.commands import nemo


@pytest.fixture
def recordings(clips, tmp_path):
    """A folder with one clip, whose bytes have to stay."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    shutil.copy(clips / "clip0.mp4", folder / "clip0.mp4")
    return folder


def test_overlays_never_lie_among_recordings_or_take_the_place_of_one(recordings, tmp_path):
    before = (recordings / "clip0.mp4").read_bytes()
    prep = ("prep", recordings, tmp_path / "o.h5", "--size", "48", "--overlay")
    backup = tmp_path / "backup"
    shutil.copytree(recordings, backup)
    others = tmp_path / "others"
    others.mkdir()
    shutil.copy(recordings / "clip0.mp4", others / "other.MOV")
    for folder in (recordings, backup, others):
        _, said = nemo(*prep, folder, code=1)
        assert (
            b"holds recordings (" in said and b"give --overlay" in said and not (tmp_path / "o.h5").exists()
        )
        _, said = nemo("predict", recordings, "--model", tmp_path, "--explain", folder, code=1)
        assert (
            b"holds recordings (" in said and b"give --explain" in said and len(list(folder.iterdir())) == 1
        )
    assert before == (recordings / "clip0.mp4").read_bytes() == (backup / "clip0.mp4").read_bytes()
    nemo(*prep, tmp_path / "drawn")
    assert is_annotated(tmp_path / "drawn" / "clip0.mp4") and not is_annotated(backup / "clip0.mp4")
    nemo(*prep, tmp_path / "drawn", "--force")  # what nemo drew, it may draw again
    # Drawings are not recordings, whichever folder is searched; what somebody puts among them is one.
    found = json.loads(nemo("prep", tmp_path / "drawn", tmp_path / "n.h5", "--dry-run", "--json")[0])
    assert found["videos"] == [] and "drawn by nemo" in [item["reason"] for item in found["left_out"]][-1]
    shutil.copy(recordings / "clip0.mp4", tmp_path / "drawn" / "new.mp4")
    found = json.loads(nemo("prep", tmp_path / "drawn", tmp_path / "n.h5", "--dry-run", "--json")[0])
    assert [video["id"] for video in found["videos"]] == ["new"]
    (tmp_path / "drawn" / "clip0.mp4").write_bytes(before)
    _, said = nemo(*prep, tmp_path / "drawn", code=1)
    assert b"was not drawn by nemo" in said
    assert sorted(path.name for path in recordings.iterdir()) == ["clip0.mp4"]


@pytest.mark.parametrize("slip", ["clip0.mp4", "o.h5"])
def test_no_table_or_picture_is_written_over_a_clip_or_a_prepared_file(recordings, prepared, tmp_path, slip):
    target = recordings / slip
    if slip.endswith("h5"):
        target.write_bytes(prepared[0].read_bytes())
    before = target.read_bytes()
    for words in (
        ("predict", recordings / "clip0.mp4", "--figure", target),
        ("predict", recordings / "clip0.mp4", "--csv", target),
        ("export", prepared[0], target, "--format", "openface"),
        ("export", prepared[0], target),
        ("report", prepared[0], target),
        ("prep", recordings, tmp_path / "n.h5", "--contact-sheet", target),
    ):
        _, said = nemo(*words, code=2)
        assert b"name it" in said
    assert target.read_bytes() == before and not (tmp_path / "n.h5").exists()


def test_a_contact_sheet_that_cannot_be_written_is_refused_before_the_work(recordings, tmp_path):
    _, said = nemo(
        "prep", recordings, tmp_path / "n.h5", "--contact-sheet", tmp_path / "no" / "c.png", code=2
    )
    assert b"does not exist" in said and not (tmp_path / "n.h5").exists()


def test_labels_that_fit_nothing_change_nothing(prepared, tmp_path):
    shutil.copytree(prepared[0].with_suffix(".shards"), tmp_path / "o.shards")
    output = tmp_path / "o.h5"
    shutil.copy(prepared[0], output)
    (tmp_path / "l.csv").write_text("video,subject,age\nclip0,a,20\n")
    (tmp_path / "g.csv").write_text("video,subject,age\nghost,a,3\n")
    nemo("label", output, tmp_path / "l.csv")
    for more in ((), ("--replace",)):
        _, said = nemo("label", output, tmp_path / "g.csv", *more, code=1)
        assert b"ghost" in said and b"nothing was changed" in said
        assert FaceDataset(output)["clip0"].age == 20


def test_quiet_still_says_why_nothing_was_done(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w"):
        pass
    out, said = nemo("prep", tmp_path / "a.h5", tmp_path / "o.h5", "--quiet", code=1)
    assert out == b"" and b"1 video of 1 not usable" in said and b"HDF5" in said


def test_a_time_limit_is_a_number(recordings, tmp_path):
    _, said = nemo("prep", recordings, tmp_path / "n.h5", "--video-timeout", "nan", code=2)
    assert b"--video-timeout must be" in said
    _, said = nemo("predict", recordings / "clip0.mp4", "--video-timeout", "nan", code=2)
    assert b"--video-timeout must be" in said


def test_what_nemo_drew_is_no_recording(recordings, tmp_path):
    for run in range(2):
        said, _ = nemo(
            "prep", recordings, tmp_path / "o.h5", "--size", "48", "--overlay", recordings / "seen", "--json"
        )
        assert json.loads(said)["counts"] == {"ok": 1}, run
    assert (recordings / "seen" / "clip0.mp4").is_file()


def test_a_list_that_is_none_and_a_pack_into_nowhere(prepared, tmp_path):
    _, said = nemo("prep", "--list", prepared[0], tmp_path / "o.h5", code=1)
    assert b"not text" in said
    _, said = nemo("pack", prepared[0], tmp_path / "no" / "p.h5", code=1)
    assert b"does not exist" in said


def test_labels_come_back_with_their_videos(clips, tmp_path):
    (tmp_path / "l.csv").write_text("video,subject,age\nclip0,a,20\nclip1,b,31\n")
    output = tmp_path / "o.h5"
    nemo("prep", clips, output, "--size", "48", "--labels", tmp_path / "l.csv")
    nemo("prep", clips / "clip0.mp4", output, "--size", "48", "--prune")
    assert FaceDataset(output).videos["id"] == ["clip0"]
    nemo("prep", clips, output, "--size", "48")
    data = FaceDataset(output)
    assert (data["clip0"].age, data["clip1"].age, data["clip1"].subject) == (20, 31, "b")


def test_landmarks_go_into_a_folder_that_is_made_for_them(prepared, tmp_path):
    nemo("export", tmp_path / "none.h5", tmp_path / "marks", "--format", "openface", code=1)
    assert not (tmp_path / "marks").exists(), "not before there is something to write"
    nemo("export", prepared[0], tmp_path / "marks", "--format", "openface")
    assert sorted(path.name for path in (tmp_path / "marks").iterdir()) == [
        "clip0.csv",
        "clip1.csv",
        "clip2.csv",
    ]
    (tmp_path / "file").write_text("")
    _, said = nemo("export", prepared[0], tmp_path / "file" / "marks", code=1)
    assert b"cannot be made" in said


def test_a_copys_name_may_hold_a_colon_and_a_file_any_metadata(tmp_path, monkeypatch, clips):
    monkeypatch.chdir(tmp_path)
    shutil.copy(clips / "clip0.mp4", "a:b.mp4")
    assert not is_annotated(Path("a:b.mp4"))
    nemo("prep", "a:b.mp4", "o.h5", "--size", "48", "--overlay", "seen")
    drawn = next(Path("seen").glob("*.mp4"))
    shutil.copy(drawn, "c:d.mp4")
    assert is_annotated(Path("c:d.mp4"))
