"""`nemo cite`: what it says is what the file and the run hold."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from nemo_pipeline.cite import description, prep_text, write_description
from nemo_pipeline.marks import Mark, marks_beside, write_marks
from nemo_pipeline.references import REFERENCES, bibtex
from nemo_pipeline.store import FaceDataset
from siam_model.predictions import read_predictions
from tests.support.commands import invoke
from tests.support.siam_faces import drawn_file
from tests.support.siam_runs import quick


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cite")
    data = drawn_file(folder / "faces.h5", synthetic=True, subjects=12, frames=6, size=70)
    return quick(data, folder / "run", epochs=1, folds=3)


def test_a_prepared_file(clips, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "clip0.mp4").write_bytes((clips / "clip0.mp4").read_bytes())
    (videos / "bad.mp4").write_text("no video")
    out = tmp_path / "out.h5"
    invoke("prep", videos, out, "--size", "40", "--max-gap", "0.35", "--smooth", "4253h", "--quiet")
    done = invoke("cite", out, "--write")
    data = FaceDataset(out)
    for part in (
        "1 video gave usable faces", f"({len(data['clip0'])} frames", "1 decode_error", "40 x 40 pixels", "0.35 s",
        "Each coordinate of each landmark", data.versions["ai-edge-litert"], data.attributes["model_sha256"][:12],
    ):  # fmt: skip
        assert part in done.stdout, part
    assert set(re.findall(r"@(\w+)[\];]", done.stdout)) == set(
        re.findall(r"^@\w+\{(\w+),", done.stdout, re.M)
    )
    described = json.loads((tmp_path / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative" and described["Nemo"]["UUID"] == data.uuid
    assert described["GeneratedBy"][0]["Name"] == "nemo" and {"Name", "BIDSVersion"} <= set(described)
    assert (tmp_path / "references.bib").read_text().count("@") == len(prep_text(data)[1])
    invoke("cite", out, "--write")  # its own files are written again
    (tmp_path / "methods.md").write_text("mine")
    assert "move it" in invoke("cite", out, "--write", code=1).stderr
    assert (tmp_path / "methods.md").read_text() == "mine"


def test_a_run(run):
    said = json.loads(invoke("cite", run, "--json").stdout)
    p = read_predictions(run / "predictions.csv")
    for part in (
        "3-fold cross-validation", f"{p.error.mean():.2f} years", f"{len(set(p.subject))} synthetic subjects",
        "model.hidden = 12 instead of 32", "training median", "RMSprop (learning rate 0.003, falling to 0 by a cosine",
        "Synthetic videos were prepared",
    ):  # fmt: skip
        assert part in said["methods"], part
    assert {"nemo", "pei2020", "paszke2019"} <= set(said["references"])


def test_a_run_whose_data_are_gone(run, tmp_path):
    moved = FaceDataset(run.parent / "faces.h5").path
    hidden = moved.rename(tmp_path / "elsewhere.h5")
    try:
        done = invoke("cite", run)
        assert "is left out" in done.stderr and "were prepared" not in done.stdout
    finally:
        hidden.rename(moved)


def test_every_entry_is_bibtex():
    for key, entry in REFERENCES.items():
        assert re.match(rf"@\w+\{{{key},\n", entry) and entry.count("{") == entry.count("}")
        assert np.all([word in entry for word in ("title = {", "author = {")])
    assert bibtex(["nemo"]).endswith("}\n")


def test_a_run_with_compared_methods(tmp_path):
    data = drawn_file(tmp_path / "faces.h5", synthetic=True, subjects=8, frames=10, size=70)
    write_marks(marks_beside(data), [Mark("000_0", reason="blurred"), Mark("001_0", 0, 0, "hand")])
    run = quick(data, tmp_path / "run", epochs=1, methods=("lbp_neutral", "displacement"))
    said = json.loads(invoke("cite", run, "--json").stdout)
    for name, words in {
        "displacement": "Displacement [@dibeklioglu2012age]",
        "lbp_neutral": "LBP, neutral [@ojala2002; @dibeklioglu2015]",
    }.items():
        error = read_predictions(run / "baselines" / f"{name}.csv").error.mean()
        assert f"{words} {error:.2f}" in said["methods"]
    assert {"dibeklioglu2012age", "ojala2002", "dibeklioglu2015"} <= set(said["references"])
    assert "re-implemented" not in said["methods"].split("Compared methods")[0]
    left_out = "1 video and 1 frame of 1 other were left out by hand (blurred, hand)."
    assert said["methods"].count(left_out) == 1
    data.rename(tmp_path / "gone.h5")
    assert json.loads(invoke("cite", run, "--json").stdout)["methods"].count(left_out) == 1


def test_marks_are_among_the_exclusions(tmp_path):
    data = drawn_file(tmp_path / "faces.h5", subjects=2, clips=1, frames=12, size=70)
    before = invoke("cite", data).stdout
    write_marks(marks_beside(data), [Mark("000_0", reason="blurred")])
    said = invoke("cite", data, "--write").stdout
    assert (
        "1 video of 1 subject gave usable faces" in said and "1 video was left out by hand (blurred)." in said
    )
    assert "gave none" not in said
    described = json.loads((tmp_path / "dataset_description.json").read_text())["Nemo"]
    assert described["LeftOutByMarks"]["videos"] == 1 and described["UUID"] == FaceDataset(data).uuid
    assert invoke("cite", data, "--marks", "none").stdout == before


def test_prep_and_label_write_the_description_and_leave_what_others_wrote(clips, tmp_path):
    out, file = tmp_path / "out.h5", tmp_path / "dataset_description.json"
    invoke("prep", clips / "clip0.mp4", out, "--size", "40", "--quiet")
    first = json.loads(file.read_text())
    assert first == description(FaceDataset(out)) and file.stat().st_mode & 0o777 == 0o600
    (tmp_path / "l.csv").write_text("video,subject,age\nclip0.mp4,a,20\n")
    invoke("label", out, tmp_path / "l.csv")
    assert json.loads(file.read_text())["Nemo"]["UUID"] == FaceDataset(out).uuid != first["Nemo"]["UUID"]
    invoke("prep", clips / "clip1.mp4", tmp_path / "other.h5", "--size", "40", "--quiet")
    assert json.loads(file.read_text())["Nemo"]["File"] == "out.h5"
    for theirs in ("{}", "[", '{"Nemo": []}'):
        file.write_text(theirs)
        assert write_description(FaceDataset(out)) is None and file.read_text() == theirs
