"""Looking at results from the command line: contact sheets, annotated copies, landmarks out and in, mean shapes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nemo_pipeline.geometry import shipped_mean_shape
from nemo_pipeline.store import FaceDataset
from tests.support.commands import nemo


def test_export_writes_landmarks_and_prep_reads_them(clips, prepared, tmp_path):
    output, _ = prepared
    folder = tmp_path / "landmarks"
    out, _ = nemo("export", output, folder, "--format", "openface", "--json")
    data = FaceDataset(output)
    assert [Path(name).name for name in json.loads(out)["written"]] == ["clip0.csv", "clip1.csv", "clip2.csv"]
    out, _ = nemo("report", output, tmp_path / "a.png", "--json")
    assert json.loads(out)["written"] == [str(tmp_path / "a.png")]
    facts = json.loads(nemo("info", output, "--json")[0])
    np.testing.assert_allclose(facts["landmarks_in_crop"], data.landmarks_in_crop, atol=1e-3)
    again = tmp_path / "again.h5"
    # A mean shape of one's own in the same command: the crops differ, the landmarks do not.
    np.savetxt(tmp_path / "shape.txt", shipped_mean_shape() * (1.2, 1.0))
    words = ["--landmarks", folder, "--mean-shape", tmp_path / "shape.txt", "--margin", "0.1", "--size", "32"]
    sheet, copies = tmp_path / "b.jpg", tmp_path / "copies"
    out, err = nemo(
        "prep", clips, again, *words, "--overlay", copies, "--contact-sheet", sheet, "--workers", "2"
    )
    assert b"3 ok" in err and b"Contact sheet" in err and sheet.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in copies.glob("*.mp4")) == ["clip0.mp4", "clip1.mp4", "clip2.mp4"]
    assert copies.stat().st_mode & 0o777 == 0o700
    given = FaceDataset(again)
    assert (given.size, given.config.mean_shape, given.config.mesh) == (32, "custom", False)
    assert given.config.landmarks_source == "openface"
    np.testing.assert_array_equal(given["clip1"].landmarks, data["clip1"].landmarks)
    wider = np.ptp(given.landmarks_in_crop, axis=0)
    assert wider[0] == pytest.approx(32 * 0.8) and wider[0] / wider[1] > 1.1
    # The same command again does nothing; --dry-run knows it, and sees a changed file.
    _, err = nemo("prep", clips, again, *words, "--dry-run")
    assert b"3 done, 0 to do" in err
    # Points from elsewhere are warped again like tracked ones, and stay those of their files.
    wide = tmp_path / "wide.h5"
    nemo("rewarp", again, clips, wide, "--size", "40")
    words[-1] = "40"
    _, err = nemo("prep", clips, wide, *words, "--dry-run")
    assert b"3 done, 0 to do" in err
    words[-1] = "32"
    path = folder / "clip2.csv"
    path.write_text(path.read_text().replace(",1,", ",0,", 1))
    _, err = nemo("prep", clips, again, *words, "--dry-run")
    assert b"2 done, 1 to do" in err


def test_one_video_and_what_is_none(prepared, clips, tmp_path):
    output, _ = prepared
    nemo("export", output, tmp_path / "one.csv", "--format", "openface", "--video", "clip1")
    assert len((tmp_path / "one.csv").read_text().splitlines()) == 1 + 12
    for words, code, said in (
        (
            ["export", output, tmp_path / "x.csv", "--format", "openface", "--video", "nobody"],
            1,
            b"id 'nobody'",
        ),
        (["export", output, tmp_path / "x.csv", "--video", "nobody"], 1, b"no video 'nobody' with frames"),
        (["export", output, tmp_path / "x.png", "--format", "faces"], 2, b"writes into a folder"),
        (["export", clips, tmp_path / "x.csv"], 1, b"is a folder"),
        (["report", output, tmp_path / "x.gif"], 2, b".png or .jpg"),
        (["report", output, tmp_path / "x.png", "--no-faces"], 2, b"a contact sheet shows faces"),
        (["report", clips, tmp_path / "x.html"], 1, b"is a folder"),
    ):
        assert said in nemo(*words, code=code)[1]


def test_usage(clips, tmp_path):
    output = tmp_path / "out.h5"
    (tmp_path / "bad.csv").write_text("1,2\n")
    for words, code, said in (
        (["--mean-shape", tmp_path / "none.csv"], 2, b"none.csv does not exist"),
        (["--mean-shape", tmp_path / "bad.csv"], 1, b"bad.csv is not a mean shape"),
        (["--mean-shape", "from-data", "--part", "1/2"], 1, b"leave out --part"),
        (["--landmarks", tmp_path / "bad.csv"], 1, b"is not a folder"),
        (["--landmarks", tmp_path, "--min-confidence", "2"], 2, b"between 0 and 1"),
        (["--part", "1/2", "--contact-sheet", tmp_path / "a.png"], 2, b"--join"),
        (["--overlay", tmp_path / "bad.csv"], 2, b"is a file"),
    ):
        assert said in nemo("prep", clips, output, *words, code=code)[1], words
    assert not output.exists()


def test_rewarp_finds_the_videos_beside_the_file(clips, prepared, tmp_path):
    source = tmp_path / "in.h5"
    shutil.copy(prepared[0], source)
    shutil.copytree(prepared[0].with_suffix(".shards"), tmp_path / "out.shards")
    shutil.copytree(clips, tmp_path / "videos")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "clip0.mp4").write_bytes(b"another video of that name")
    output = tmp_path / "large.h5"
    for words, said in (
        ([source, output], b"say what is to change"),
        ([source, output, "--size", "4"], b"between 16 and 1024"),
        ([source, "--size", "64"], b"the file to write"),
        ([source, tmp_path / "videos", "--size", "64"], b"the last argument must be the file to write"),
        ([source, output, "--mean-shape", "none.csv"], b"none.csv does not exist"),
    ):
        assert said in nemo("rewarp", *words, code=2)[1], words
    (tmp_path / "videos" / "clip1.mp4").rename(tmp_path / "other" / "clip2.mp4")  # neither name nor size fit
    (tmp_path / "other" / "clip1.mp4").write_bytes(b"another one of that name")
    out, err = nemo("rewarp", source, output, "--size", "64", "--json")
    assert b"1 video of in.h5 not found next to in.h5 or in the current folder (clip1.mp4)" in err
    facts = json.loads(out)
    assert facts["counts"] == {"ok": 2, "unreadable": 1}
    assert (
        FaceDataset(output).size == 64
        and FaceDataset(output)["clip2"].length == FaceDataset(source)["clip2"].length
    )
    nemo("rewarp", source, output, "--size", "64", "--strict", code=1)
    _, err = nemo("rewarp", source, tmp_path / "other", tmp_path / "o.h5", "--size", "64", code=1)
    assert b"no video is usable" in err
    message = FaceDataset(tmp_path / "o.h5")["clip0"].message
    assert "other content than the video of this name that was prepared" in message
