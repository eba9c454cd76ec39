"""The examples in the docstrings of public names run, in a folder that holds what they open."""

from __future__ import annotations

import doctest
import re
import shutil
from pathlib import Path

import cv2
import pytest
import skimage.data

import nemo_pipeline
import siam_model
from tests.support.siam_faces import drawn_file
from tests.support.siam_runs import quick

NAMES = [
    *(f"nemo_pipeline.{name}" for name in nemo_pipeline.__all__ if not name.startswith("_")),
    *(f"siam_model.{name}" for name in siam_model.__all__),
    "nemo_pipeline.phases.find_phases",
    "nemo_pipeline.torch_dataset.FaceClips",
]
#: What other functions give or raise, and nobody makes.
WITHOUT = {"DamagedFile", "FaceVideo", "NemoError", "Prediction", "SIAMOutput"}


@pytest.fixture(scope="module")
def folder(clips, tmp_path_factory) -> Path:
    """clip.mp4, smiles.h5 and RUN."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copy(clips / "clip0.mp4", folder / "clip.mp4")
    data = drawn_file(folder / "smiles.h5", synthetic=True, subjects=8, frames=6, size=70)
    quick(data, folder / "RUN", epochs=1)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_examples(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    module, _, short = name.rpartition(".")
    thing = getattr(__import__(module, fromlist=[short]), short)
    found = doctest.DocTestFinder(recurse=False).find(thing, name, globs={})
    examples = [test for test in found if test.examples]
    assert bool(examples) != (short in WITHOUT)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in examples:
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


def test_the_code_on_the_page_about_faces(tmp_path, monkeypatch):
    """Every Python block of docs/looking.md runs, and warps the face of a picture."""
    page = Path(__file__).parents[1] / "docs" / "looking.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("portrait.jpg", cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR))
    for block in blocks:
        exec(block, {})
    face = cv2.imread("face0.png", cv2.IMREAD_GRAYSCALE)
    assert face is not None and face.shape == (224, 224) and face.max() > 100
