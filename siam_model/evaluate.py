"""`evaluate`: the tables and figures of a finished run, from its predictions alone."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store.text import printable
from siam_model import figures
from siam_model.baselines import NAMES
from siam_model.predictions import Predictions, read_predictions, write_table
from siam_model.runs import read_json, write_json
from siam_model.tables import summary_json, table_by_decade

#: Said wherever a number of a run on generated faces is shown.
SYNTHETIC_NOTE = "Trained and tested on synthetic faces: these numbers say nothing about people."


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """What a run is worth.

    Attributes:
        run: its folder.
        methods: name -> held-out predictions: SIAM first, then the baselines.
        synthetic: whether the faces were generated.
        header, rows: the table by decade (Table III's layout), as text.
        numbers: everything as JSON types.
        files: what was written.
    """

    run: Path
    methods: dict[str, Predictions]
    synthetic: bool
    header: list[str]
    rows: list[list[str]]
    numbers: dict[str, Any]
    files: tuple[Path, ...] = ()


def evaluate(run_dir: str | os.PathLike[str], out_dir: str | os.PathLike[str] | None = None) -> Evaluation:
    """Read predictions.csv, baselines/*.csv and run.json of a run; write tables and figures.

    Args:
        run_dir: a folder of `nemo train`.
        out_dir: where evaluation.json, by_decade.csv, scatter.png and cumulative_error.png go;
            `RUN/evaluation` by default.

    Raises:
        NemoError: the folder holds no finished run, or a baseline's videos are not those of the predictions.
    """
    run = Path(run_dir)
    if not run.is_dir():
        raise NemoError(f"{printable(str(run))} is no folder; give a run folder of `nemo train`.")
    meta = read_json(run / "run.json")
    methods = {"SIAM": read_predictions(run / "predictions.csv")}
    for file in sorted((run / "baselines").glob("*.csv")):
        baseline = read_predictions(file)
        if sorted(baseline.video) != sorted(methods["SIAM"].video):
            raise NemoError(f"{printable(str(file))} does not predict the same videos as predictions.csv.")
        methods[NAMES.get(file.stem, printable(file.stem))] = baseline
    synthetic = bool(meta.get("synthetic", True))
    header, rows = table_by_decade(methods)
    numbers = {
        "run": str(run),
        "synthetic": synthetic,
        "note": SYNTHETIC_NOTE if synthetic else "",
        "dataset": meta.get("dataset"),
        "preset": meta.get("preset"),
        "seed": meta.get("seed"),
        "folds": meta.get("folds"),
        "methods": {name: summary_json(p) for name, p in methods.items()},
    }
    title = _caption(methods["SIAM"], meta, synthetic)
    out = Path(out_dir) if out_dir is not None else run / "evaluation"
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise NemoError(f"{printable(str(out))} cannot be created: {error.strerror}.") from None
    files = [
        out / name for name in ("evaluation.json", "by_decade.csv", "scatter.png", "cumulative_error.png")
    ]
    write_json(files[0], numbers)
    write_table(files[1], header, rows)
    figures.save_figure(figures.scatter(methods, title), files[2])
    figures.save_figure(figures.cumulative(methods, title), files[3])
    return Evaluation(run, methods, synthetic, header, rows, numbers, tuple(files))


def _caption(predictions: Predictions, meta: dict[str, Any], synthetic: bool) -> str:
    """On which data a figure was made."""
    folds = meta.get("folds")
    how = f"{folds} folds" if folds else "held-out subjects"
    file = (meta.get("dataset") or {}).get("file", "")
    kind = "SYNTHETIC faces, " if synthetic else ""
    return f"{kind}{file}: {len(predictions)} videos of {len(set(predictions.subject))} people, {how}"
