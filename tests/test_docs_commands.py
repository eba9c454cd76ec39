"""Commands run as the pages have them: the example of each command's page, and the pages that a new user follows."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_cli.main import COMMANDS
from nemo_pipeline.batch.discover import discover
from nemo_pipeline.store import FaceDataset
from tests.support.commands import invoke
from tests.support.paths import ROOT
from tests.support.processes import PATIENCE
from tests.support.siam_faces import drawn_file
from tests.support.siam_runs import quick

DOCS = ROOT / "docs"
#: What each example leaves behind.
WRITTEN = {
    "prep": ["smiles.h5", "smiles.shards", "smiles.html"], "rewarp": ["large.h5"], "pack": ["one.h5"],
    "pack-model": ["model.zip"],
    "cite": ["methods.md", "references.bib", "dataset_description.json"],
    "train": ["runs/first/model/model.safetensors"], "evaluate": ["runs/smiles/evaluation/report.html"],
    "predict": ["ages.csv", "seen/clip0.attention.mp4"], "synth": ["synthetic/labels.csv"],
    "export": ["faces/clip1/000003.png", "faces/frames.csv"], "report": ["smiles.html"],
    "demo": ["nemo-demo/run/predictions.csv"],
}  # fmt: skip
#: Commands whose example starts from faces and a run; others start from videos and a file prepared from them.
FROM_FACES = {"train", "evaluate", "predict", "pack-model"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A small run, and the drawn faces it is of."""
    folder = tmp_path_factory.mktemp("run")
    data = drawn_file(folder / "smiles.h5", synthetic=True, subjects=8, frames=6, size=70)
    return quick(data, folder / "runs" / "smiles", epochs=1)


@pytest.fixture
def desk(clips, run, tmp_path, monkeypatch) -> Path:
    """What a user has: videos/, clips/, labels.csv; and the current folder is theirs."""
    shutil.copytree(clips, tmp_path / "videos")
    (tmp_path / "clips").mkdir()
    shutil.copy(clips / "clip0.mp4", tmp_path / "clips")
    (tmp_path / "labels.csv").write_text(
        "video,subject,age\nclip0.mp4,a,20\nclip1.mp4,b,30\nclip2.mp4,c,40\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "demo" else []) for name in COMMANDS]
)
def test_the_example_of_a_command_page_runs(name, desk, run, prepared_here):
    text = (DOCS / "commands" / f"{name}.md").read_text(encoding="utf-8")
    block = re.search(r"^## Example\n+```sh\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    if name in FROM_FACES:
        shutil.copytree(run.parent.parent, desk, dirs_exist_ok=True)
    elif name not in ("prep", "synth", "demo", "doctor"):
        prepared_here(desk)
    lines = block[1].replace("\\\n", " ").splitlines()
    assert [line.split()[:2] for line in lines] == [["nemo", name]]
    if name == "review":
        serve(words_of(lines[0]), desk)
    else:
        invoke(*words_of(lines[0]), cwd=desk)
    for path in WRITTEN.get(name, []):
        assert (desk / path).exists(), path


def serve(words: list[str], desk: Path) -> None:
    """Run a command that serves a page until Ctrl-C, which follows when it says where."""
    command = [sys.executable, "-m", "nemo_cli.main", *words]
    with subprocess.Popen(command, cwd=desk, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and "http://127.0.0.1:" in process.stderr.readline()
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0 and rest == "Nothing was marked.\n"


@pytest.fixture(scope="module")
def prepared_here(clips, tmp_path_factory):
    """Puts smiles.h5, prepared from the videos, into a folder."""
    made = tmp_path_factory.mktemp("made")
    invoke("prep", clips, made / "smiles.h5", "--quiet")

    def put(folder: Path) -> None:
        shutil.copytree(made, folder, dirs_exist_ok=True)

    return put


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/first-hour.md", "docs/looking.md"])
def test_the_commands_of_a_page_run_in_their_order(page, desk, run, prepared_here):
    """All of them but the trainings, which take hours: their runs are there already."""
    prepared_here(desk)
    (desk / "smiles.h5").rename(desk / "other.h5")
    (desk / "smiles.shards").rename(desk / "other.shards")
    data = FaceDataset(desk / "other.h5")
    invoke("export", "other.h5", "landmarks", "--format", "openface", cwd=desk)
    (desk / "shape.csv").write_text("\n".join(f"{x},{y}" for x, y in data.mean_shape))
    for name in ("RUN", "runs/smiles"):
        shutil.copytree(run, desk / name)
    (desk / "clip.mp4").write_bytes((desk / "clips" / "clip0.mp4").read_bytes())
    shutil.copytree(desk / "videos", desk / "day2")
    for video in discover([desk / "day2"]).videos:
        video.path.rename(video.path.with_name(f"second_{video.path.name}"))
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^(?:    )?(nemo [a-z]+ .*)$", text, re.MULTILINE)
    # Not a list of commands with what they do beside them.
    lines = [line for line in lines if not re.search(r"  +[a-z0-9]", line) and " train " not in line]
    assert len(lines) >= 3
    for line in lines:
        invoke(*words_of(line), cwd=desk)
