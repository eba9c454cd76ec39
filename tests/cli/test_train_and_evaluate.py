"""`nemo train`, `evaluate` and `predict` as a user meets them: output, exit codes, one sentence for what is wrong."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from rich.text import Text

from nemo_cli.faces import clip_faces, prep_for
from nemo_cli.main import main
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.synth.generate import render_set
from siam_model import LoadedModel, load
from tests.support.siam_faces import drawn_file
from tests.support.siam_runs import TINY, train

SETTINGS = [part for name, value in TINY.items() for part in ("--set", f"{name}={value}")]


def nemo(*args: str | Path, cwd: Path) -> Result:
    """In this process: a fresh one would import torch again for every call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        return CliRunner().invoke(main, [str(a) for a in args])


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with drawn.h5 and, trained on it and marked synthetic, runs/made (faces of 114 pixels)."""
    folder = tmp_path_factory.mktemp("place")
    data = drawn_file(folder / "drawn.h5", synthetic=True, subjects=8, frames=6)
    train(data, folder / "runs" / "made", preset="small", epochs=1, device="cpu", overrides=TINY)
    return folder


def test_train_then_evaluate(place):
    done = nemo(
        "train", "drawn.h5", "-o", "new", "--preset", "small", "--epochs", "2", *SETTINGS, "--json", cwd=place
    )
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["run"] == "new" and answer["synthetic"] is True
    assert answer["mae"] > 0 and answer["median_baseline_mae"] > 0
    assert len(re.findall(r"^epoch \d: ", done.stderr, re.MULTILINE)) == 2
    assert "say nothing about people" in " ".join(done.stderr.split())
    assert "always guessing the training median" in done.stderr and "new is finished" in done.stderr
    assert answer["verdict"]["mae"] == answer["mae"]
    shown = nemo("evaluate", "new", cwd=place)
    assert shown.exit_code == 0, shown.stderr
    assert "SIAM" in shown.stdout and "median" in shown.stdout and "Videos" in shown.stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORCE_COLOR", "1")  # as on a terminal, which here has 80 columns
        patch.setenv("COLUMNS", "80")
        table = Text.from_ansi(nemo("evaluate", "new", cwd=place).stdout.split("SIAM: ")[0])
    assert "Videos" in table.plain and max(map(len, table.plain.splitlines())) <= 80
    assert (place / "new" / "evaluation" / "report.html").is_file()
    numbers = json.loads(nemo("evaluate", "new", "--json", cwd=place).stdout)
    assert numbers["methods"]["SIAM"]["mae"] == pytest.approx(answer["mae"])


def test_evaluate_beside_another_method(place):
    name = "[red]$x^^$|<b>"
    other = place / "runs" / "made" / "baselines" / "median.csv"
    done = nemo(
        "evaluate", "runs/made", "--with", f"{name}={other}", "--quick", "--no-faces", "-o", "e", cwd=place
    )
    assert done.exit_code == 0, done.stderr
    assert "[red]" in done.stdout and "|<b>" in done.stdout  # as it is; a narrow column may wrap it
    assert "Table I, Figure 3" in done.stdout and "--study mechanisms" in done.stdout
    assert "Pictures of people were left out" in done.stdout
    answer = nemo(
        "evaluate", "runs/made", "--with", f"{name}={other}", "--quick", "--json", "-o", "e", cwd=place
    )
    numbers = json.loads(answer.stdout)
    assert numbers["methods"][name]["mae"] == pytest.approx(numbers["methods"]["training median"]["mae"])
    assert all(Path(place / file).is_file() for file in numbers["files"]) and len(numbers["files"]) > 20
    for text, sentence in (("x.csv", "is not NAME=FILE.csv"), ("a=none.csv", "none.csv does not exist")):
        done = nemo("evaluate", "runs/made", "--with", text, cwd=place)
        assert done.exit_code == 1 and sentence in " ".join(done.stderr.split())


def test_errors_are_one_sentence(place):
    for args, code, sentence in (
        (("train", "drawn.h5", "--set", "model.hiden=3"), 1, "did you mean 'model.hidden'"),
        (("train", "missing.h5"), 1, "missing.h5 does not exist"),
        (("train", "drawn.h5", "--folds", "1"), 2, "--folds"),
        (("train", "drawn.h5", "-o", "runs"), 1, "exists already"),
        (("evaluate", "nowhere"), 1, "is not a folder"),
        (("predict", "clip.mp4"), 1, "--model runs/made"),
        (("predict", "clip.mp4", "--model", "runs/made"), 1, "clip.mp4 does not exist"),
        (("predict", "drawn.h5", "--model", "nowhere"), 1, "is not there"),
        (
            ("predict", "drawn.h5", "runs/made/run.json", "--figure", "f.png", "--model", "runs/made"),
            1,
            "draws one clip",
        ),
    ):
        done = nemo(*args, cwd=place)
        assert done.exit_code == code, (args, done.stderr)
        assert sentence in " ".join(done.stderr.split()), (args, done.stderr)
        assert "Traceback" not in done.stderr and not done.stdout


def test_no_run_at_all(tmp_path):
    done = nemo("predict", "clip.mp4", cwd=tmp_path)
    assert done.exit_code == 1
    assert "train one with `nemo train out.h5`, or name one with --model RUN" in " ".join(done.stderr.split())


def test_predict_a_clip(place):
    """Video to age with a real clip: the model's own preparation, the warning beside the age, the figure."""
    clip = render_set(place / "clips", subjects=1, clips=1, seed=3, workers=1).clips[0]
    (place / "notes.mp4").write_text("this is not a video")
    answer = nemo("predict", clip, "notes.mp4", "--model", "runs/made", "--json", cwd=place)
    assert answer.exit_code == 0, answer.stderr
    values = json.loads(answer.stdout)
    assert values["synthetic"] is True
    good, bad = sorted(values["clips"], key=lambda line: line["age_predicted"] is None)
    assert (
        (bad["file"], bad["age_predicted"]) == ("notes.mp4", None)
        and bad["status"] != "ok"
        and bad["message"]
    )
    assert good["file"] == clip.name and good["status"] == "ok"
    assert "means nothing for people" in good["note"]
    assert good["frames_used"] == len(good["temporal_weights"]) == len(good["frame_index"])
    assert good["frames_used"] >= 0.9 * good["n_decoded"] > 20
    assert sum(good["temporal_weights"]) == pytest.approx(1)

    shown = nemo("predict", clip, "--model", "runs/made/model", "--figure", "f.png", cwd=place)
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.startswith(
        f"{clip.name}: {good['age_predicted']:.1f} years (means nothing for people"
    )
    assert f"from {good['frames_used']} of {good['n_decoded']} frames" in shown.stdout
    assert Image.open(place / "f.png").width > 500
    failed = nemo("predict", "notes.mp4", "--model", "runs/made", cwd=place)
    assert failed.exit_code == 1 and "no age" in failed.stdout


def test_the_models_own_shape_is_used(place):
    """A model made with another mean shape sees faces warped to it, not to the shipped one."""
    clip = render_set(place / "clips", subjects=1, clips=1, seed=3, workers=1).clips[0]
    model = load(place / "runs" / "made")
    wide = LoadedModel(
        model.network, dataclasses.replace(model.card, mean_shape=model.mean_shape * [1.3, 1.0])
    )
    video = VideoFile(clip, "clip", "clip.mp4")
    usual, other = next(clip_faces([video], model)), next(clip_faces([video], wide))
    assert usual.frames.shape == other.frames.shape
    assert (usual.frames[0] == 0).mean() < (other.frames[0] == 0).mean(), (
        "a wide face leaves more of the square empty"
    )
    config, shipped = prep_for(wide)
    assert (config.mean_shape, shipped, len(config.mean_shape_sha256)) == ("custom", False, 64)
