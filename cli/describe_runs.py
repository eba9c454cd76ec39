"""What `nemo info` says of runs, studies and models."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from nemo_pipeline.store.text import listed


def typed(*words: object) -> str:
    """A command as one would type it."""
    return shlex.join(str(word) for word in words)


def model_facts(path: Path) -> dict[str, Any]:
    """The folder of a model, or one of a run's folds."""
    from siam_model.checkpoint import load_card, model_folder
    from siam_model.run_folder import RunFolder

    card, folder = load_card(path), model_folder(path)
    run = folder.parent if folder.name == "model" else None
    if run is not None and path != run and RunFolder(run).is_begun:
        kind = f"model of the run {run}"
    elif path != folder:
        kind = "fold of a run" if path.parent.name == "folds" else "model and its predictions"
    else:
        kind = "model"
    facts = {"path": path, "kind": kind} | _changed(path)
    if path != folder:
        facts |= _errors(path)
    return facts | {"next": typed("nemo", "predict", "clip.mp4", "--model", path)} | _card(card, folder)


def _card(card: Any, folder: Path) -> dict[str, Any]:
    from siam_model.config import beyond_paper
    from siam_model.run_folder import ModelFolder

    weights = ModelFolder(folder).weights
    return {
        "synthetic": card.synthetic,
        "trained_on": card.dataset,
        "ages_trained_on": card.ages,
        "subjects": {name: len(codes) for name, codes in card.subjects.items()},
        "bytes_of_weights": weights.stat().st_size if weights.is_file() else "missing",
        "preset": card.preset,
        "seed": card.seed,
        "beyond_paper": beyond_paper(card.model.to_dict(), card.train.to_dict()),
        "network": card.model.to_dict(),
        "training": card.train.to_dict(),
        "prepared_with": card.prep,
        "made_with": card.versions,
    }


def _changed(run: Path) -> dict[str, Any]:
    """Files that are not as the training wrote them; nothing where all are."""
    from siam_model.sums import FILE, changed_in_run

    names = changed_in_run(run)
    return {"not_as_written": f"{listed(names)}: {FILE} does not fit; copy it again"} if names else {}


def _errors(folder: Path) -> dict[str, Any]:
    """Mean absolute errors on unseen subjects, SIAM's first; empty if there are none."""
    from siam_model.predictions import read_predictions
    from siam_model.run_folder import RunFolder

    from .train import run_errors

    predictions = RunFolder(folder).predictions
    if not predictions.is_file():
        return {}
    return {
        "mean_absolute_error_years": run_errors(folder),
        "predicted_videos": len(read_predictions(predictions).video),
    }


def run_facts(path: Path) -> dict[str, Any]:
    """A run of `nemo train`, finished or not."""
    from siam_model.checkpoint import load_card
    from siam_model.protocol.history import read_history
    from siam_model.protocol.settings import read_settings
    from siam_model.run_folder import RunFolder

    folder = RunFolder(path)
    if folder.is_finished():
        facts = {
            "path": path,
            "kind": "run folder, finished",
            **_changed(path),
            **_errors(path),
            "next": typed("nemo", "evaluate", path),
            **_left_out(folder),
        }
        return facts | _card(load_card(path), folder.model.path)
    settings = read_settings(path)[0]
    done: dict[str, Any] = {}
    if settings.folds is None:
        done = {"epochs_done": len(read_history(folder.history))}
    else:
        done = {
            "folds_done": f"{settings.folds - len(folder.missing_folds(settings.folds))} of {settings.folds}"
        }
    return {
        "path": path,
        "kind": "run folder, unfinished",
        **_changed(path),
        **done,
        **_errors(path),
        "next": typed("nemo", "train", "--resume", "--out", path),
        "settings": dataclasses.asdict(settings),
    }


def study_facts(path: Path) -> dict[str, Any]:
    """Several runs that differ in one thing."""
    from siam_model.protocol.settings import read_settings
    from siam_model.run_folder import RunFolder
    from siam_model.study import variants_in

    folder = RunFolder(path)
    variants = variants_in(folder)
    done = [variant for variant in variants if folder.variant(variant.name).is_finished()]
    finished = len(done) == len(variants)
    settings = read_settings(path)[0]
    return {
        "path": path,
        "kind": f"study of {settings.study}, {'finished' if finished else 'unfinished'}",
        "mean_absolute_error_years": {
            v.label: _errors(folder.variant(v.name).path).get("mean_absolute_error_years") for v in done
        },
        "runs_done": f"{len(done)} of {len(variants)}",
        "next": typed("nemo", "evaluate", path)
        if finished
        else typed("nemo", "train", "--resume", "--out", path),
        "settings": dataclasses.asdict(settings),
    }


def _left_out(folder: Any) -> dict[str, str]:
    """What marks left out of the data of a finished run."""
    from nemo_pipeline.store.marked import read_record
    from siam_model.run_folder import read_json

    found = read_record(read_json(folder.run).get("left_out"))
    return {"left_out_by_marks": f"{found.counts()} ({found.said()})"} if found else {}


def runs_facts(path: Path, runs: list[Path]) -> dict[str, Any]:
    from siam_model.run_folder import RunFolder

    finished = [run for run in runs if RunFolder(run).is_finished()]
    return {
        "path": path,
        "kind": "folder of runs",
        "finished": ", ".join(run.name for run in finished) or "none",
        "unfinished": ", ".join(run.name for run in runs if run not in finished) or "none",
        "next": typed("nemo", "info", (finished or runs)[-1]),
    }
