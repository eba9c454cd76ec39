"""`nemo` as the tests call it: in this process, or in one of its own where the process is what is tested."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nemo_cli.main import main
from tests.support.processes import PATIENCE

_WIDTH = {"COLUMNS": "200"}


def invoke(*words: object, code: int = 0, cwd: Path | None = None, stdin: bytes | None = None) -> Result:
    """Run `nemo` in this process: a fresh one would import everything again for every call.

    Asserts the exit code, and that no error shows a traceback.
    """
    with pytest.MonkeyPatch.context() as patch:
        if cwd is not None:
            patch.chdir(cwd)
        done = CliRunner().invoke(main, [os.fspath(_text(word)) for word in words], input=stdin, env=_WIDTH)
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.stderr
    return done


def nemo(*words: object, **options) -> tuple[bytes, bytes]:
    """As `invoke`; answers (standard output, standard error) as bytes."""
    done = invoke(*words, **options)
    return done.stdout_bytes, done.stderr_bytes


def nemo_process(
    *words: object, code: int = 0, cwd: Path | None = None, timeout: float = PATIENCE, **environment: str
) -> tuple[bytes, bytes]:
    """Run `nemo` in a process of its own, where locale, terminal or interpreter matter; answers as `nemo` does."""
    done = subprocess.run(
        [sys.executable, "-m", "nemo_cli.main", *(os.fspath(_text(word)) for word in words)],
        capture_output=True,
        cwd=cwd,
        env=os.environ | _WIDTH | environment,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == code, done.stderr.decode("utf-8", "replace")
    assert b"Traceback" not in done.stderr
    return done.stdout, done.stderr


def _text(word: object) -> str | os.PathLike[str]:
    return word if isinstance(word, (str, os.PathLike)) else str(word)
