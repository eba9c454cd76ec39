"""curves.png: the errors of a training by epoch, from history.csv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from siam_model.figures.plain import plain_text, save_figure
from siam_model.training.records import EpochRecord

_INK, _FAINT, _WARNING = "#222222", "#8a8a8a", "#c0392b"


def curves_figure(history: Sequence[EpochRecord], *, synthetic: bool = False) -> Figure:
    """Mean absolute error over epochs: training and validation, a colour per fold, a dot at each best epoch.

    Args:
        history: at least one record; folds in any order. Fold -1 is the model of all subjects, which nobody
            validates: its training error alone is drawn, in gray.
        synthetic: mark the picture: its errors mean nothing for people.
    """
    before = [line for line in history if line.epoch < 1]
    history = [line for line in history if line.epoch > 0]
    folds = sorted({line.fold for line in history}, key=lambda fold: (fold < 0, fold))
    validated = [fold for fold in folds if any(_there(line) for line in history if line.fold == fold)]
    with plain_text():
        figure = Figure(figsize=(8.4, 3.6), dpi=150, layout="constrained")
        left, right, *more = figure.subplots(1, 3 if before else 2)
        right.sharey(left)
        right.tick_params(labelleft=False)
        for fold in folds:
            lines = sorted((line for line in history if line.fold == fold), key=lambda line: line.epoch)
            colour = _FAINT if fold < 0 else _colour(folds.index(fold), len(folds))
            name = "all subjects" if fold < 0 else f"fold {fold}" if len(folds) > 1 else "training"
            epochs = [line.epoch for line in lines]
            dot = "o" if len(lines) == 1 else None  # a single epoch is not a line
            left.plot(
                epochs,
                [line.training_mae for line in lines],
                color=colour,
                lw=1.3,
                marker=dot,
                ms=3,
                label=name,
            )
            if fold in validated:
                right.plot(epochs, [line.validation_mae for line in lines], color=colour, lw=1.3)
                best = [line for line in lines if line.best and _there(line)]
                if best:
                    right.plot(best[-1].epoch, best[-1].validation_mae, "o", color=colour, ms=5)
        left.set(title="training part", xlabel="epoch", ylabel="mean absolute error (years)", ylim=(0, None))
        right.set(title="validation part", xlabel="epoch")
        for axes in more:
            for fold in sorted({line.fold for line in before}):
                lines = sorted((line for line in before if line.fold == fold), key=lambda line: line.epoch)
                colour = _FAINT if fold < 0 else _colour(folds.index(fold), len(folds))
                numbers = range(1, len(lines) + 1)
                axes.plot(numbers, [line.loss for line in lines], color=colour, lw=1.3, marker="o", ms=2)
            axes.set(title="pretraining on the expression", xlabel="epoch", ylabel="loss", ylim=(0, None))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.25)
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.25)
            axes.set_xlim(0.5, max(line.epoch for line in history) + 0.5)
        if len(folds) > 1:
            left.legend(frameon=False, fontsize=7, ncols=2 if len(folds) > 5 else 1, loc="upper right")
        if validated:
            kept = Line2D([], [], color=_INK, marker="o", ls="", ms=5, label="weights that are kept")
            right.legend(handles=[kept], frameon=False, fontsize=7, loc="upper right")
        else:
            right.text(0.5, 0.5, "nobody validates", transform=right.transAxes, ha="center", color=_FAINT)
        if synthetic:
            figure.suptitle(
                "synthetic faces: these errors mean nothing for people", fontsize=8, color=_WARNING
            )
    return figure


def draw_curves(history: Sequence[EpochRecord], path: Path, *, synthetic: bool = False) -> None:
    """Write `curves_figure` as PNG by rename, readable by its owner alone; nothing for an empty history."""
    if not history:
        return
    save_figure(curves_figure(history, synthetic=synthetic), path)


def _there(line: EpochRecord) -> bool:
    return not math.isnan(line.validation_mae)


def _colour(number: int, count: int) -> Any:
    """Colours that differ by hue and lightness; the first is dark."""
    return colormaps["viridis"](0.85 * number / max(1, count - 1))
