"""The exceptions that people see: each has a type of its own, and keeps it on the way between processes."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from nemo_pipeline import errors
from nemo_pipeline.errors import (
    DamagedFile,
    DataError,
    InstallationError,
    LeakageError,
    NemoError,
    NotFinite,
    OutputError,
    ProcessError,
    RunError,
    SettingsError,
)

ROOT = Path(__file__).resolve().parent.parent


def test_nothing_raises_an_error_without_a_type():
    modules = [
        path for folder in ("nemo_pipeline", "siam_model", "cli") for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(modules) > 100
    bare = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "NemoError"
    ]
    assert not bare


@pytest.mark.parametrize(
    "error",
    [
        SettingsError("`folds` is 1.", "folds"),
        DataError("a.csv is not a CSV file.", "a.csv"),
        DataError("no video has an age."),
        DamagedFile(Path("out.h5"), "/videos/age", "is missing"),
        LeakageError("Subject a is in two parts.", "a", "b"),
        OutputError("out.h5 exists.", Path("out.h5")),
        RunError("The run is unfinished.", "runs/a"),
        InstallationError("ONNX needs the package onnx.", "onnx"),
        ProcessError("A process of the training was killed."),
        NotFinite("It diverged.", "epoch 3", "loss", ("a", "b")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_keeps_its_type_and_fields_on_the_way_between_processes(error):
    got = errors.from_message(json.loads(json.dumps(errors.to_message(error))))
    assert type(got) is type(error)
    assert str(got) == str(error)
    assert vars(got) == vars(error)


def test_an_error_of_a_type_that_is_not_known_here_is_still_an_error_for_people():
    got = errors.from_message(
        {"type": "OfALaterVersion", "text": "It cannot be done.", "fields": {"part": 1}}
    )
    assert type(got) is NemoError
    assert str(got) == "It cannot be done."
