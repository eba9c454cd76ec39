"""What every test needs before anything else is imported."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says something of the machine's other work, and nothing of the code.
hypothesis.settings.register_profile("nemo", deadline=None)
hypothesis.settings.load_profile("nemo")
# A training is the same to the bit only with the same number of threads; tests compare trainings in this process with
# those of processes that share the cores.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
os.environ["MPLBACKEND"] = "Agg"
# What is printed is read here, whatever the place where tests run makes of colours and widths.
for _name in (
    "FORCE_COLOR",
    "NO_COLOR",
    "PY_COLORS",
    "CLICOLOR_FORCE",
    "TTY_COMPATIBLE",
    "GITHUB_ACTIONS",
    "COLUMNS",
):
    os.environ.pop(_name, None)
# A shell starts background jobs with SIGINT ignored, and children inherit that; tests interrupt children.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What is drawn without a seed is the same in every run, and whichever tests came before."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """A folder with three good clips, read-only by convention."""
    from tests.support.runs import write_clip

    folder = tmp_path_factory.mktemp("clips")
    for i in range(3):
        write_clip(folder / f"clip{i}.mp4", seed=i, frames=10 + 2 * i)
    return folder


@pytest.fixture(scope="session")
def first(clips, tmp_path_factory):
    """One finished run over the three clips, not to be changed: its summary, its output."""
    from tests.support.runs import run

    output = tmp_path_factory.mktemp("first") / "out.h5"
    return run([clips], output), output
