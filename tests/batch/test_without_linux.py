"""prep, train and predict where affinity, prctl, fcntl and resource are missing, as on macOS or Windows."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from nemo_pipeline.synth.generate import render_set
from tests.support.paths import ROOT
from tests.support.processes import PATIENCE
from tests.support.siam_faces import drawn_file
from tests.support.siam_runs import TINY

HIDDEN = ROOT / "tests" / "support" / "without_linux"


@pytest.fixture
def elsewhere(tmp_path):
    """Runs `nemo` in a folder of its own, with Linux's calls hidden from it and from its children."""
    environment = {**os.environ, "PYTHONPATH": str(HIDDEN)}

    def nemo(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = (
            "import sys, os; assert sys.without_linux and not hasattr(os, 'sched_getaffinity');"
            "from nemo_cli.main import main; main()"
        )
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *arguments],
            cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    return nemo


def test_prep_train_and_predict_without_linux(elsewhere, tmp_path):
    render_set(tmp_path / "clips", subjects=1, clips=1, width=160, height=160, seconds=(0.8, 0.8), workers=1)
    (clip,) = (tmp_path / "clips").glob("*.mp4")
    elsewhere("prep", str(clip), "out.h5", "--workers", "1")
    drawn_file(tmp_path / "drawn.h5", synthetic=True, subjects=8, frames=6)
    elsewhere(
        "train", "drawn.h5", "-o", "run", "--preset", "small", "--epochs", "1", "--folds", "2", "--trials", "0",
        "--jobs", "2", *(word for name, value in TINY.items() for word in ("--set", f"{name}={value}")),
    )  # fmt: skip
    said = elsewhere("predict", str(clip), "--model", "run", "--json").stdout
    assert json.loads(said)
