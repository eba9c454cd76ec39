"""A prepared file, made by the command itself."""

from __future__ import annotations

import pytest

from tests.support.commands import nemo


@pytest.fixture(scope="session")
def prepared(clips, tmp_path_factory):
    """An output of `nemo prep --json` that nobody changes, and what was said: its path, (stdout, stderr)."""
    output = tmp_path_factory.mktemp("cli") / "out.h5"
    said = nemo("prep", clips, output, "--json", "--size", "48", "--workers", "2")
    return output, said
