"""`nemo cite`: what it says is what the file and the run hold."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from nemo_pipeline.cite import REFERENCES, bibtex, prep_text
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
