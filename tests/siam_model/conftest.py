"""A prepared file and a run of it, which many tests read and none changes. Modules with other needs have their own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Drawn faces of ten people."""
    from tests.support.siam_faces import drawn_file

    return drawn_file(tmp_path_factory.mktemp("drawn") / "out.h5", size=70, subjects=10, frames=8)


@pytest.fixture(scope="session")
def whole(data, tmp_path_factory) -> Path:
    """A run of three folds that was not interrupted."""
    from tests.support.siam_runs import quick

    return quick(data, tmp_path_factory.mktemp("runs") / "whole", folds=3)
