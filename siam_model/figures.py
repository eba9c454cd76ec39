"""Pictures of predictions and of attention. Text from outside is drawn as it is: never as mathematics."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nemo_pipeline.store.text import printable
from siam_model.config import SIAMConfig
from siam_model.explain import heat_map, key_frames
from siam_model.predict import Prediction
from siam_model.predictions import Predictions, write_bytes
from siam_model.tables import cumulative_error

_INK, _OURS, _BASE = "#222222", "#1b6ca8", "#b0b0b0"


@contextmanager
def _plain_text() -> Iterator[None]:
    """A `$` in a file name starts no formula (matplotlib would refuse `$a^^b$`)."""
    with rc_context(
        {"text.parse_math": False, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    ):
        yield


def save_figure(figure: Figure, path: Path) -> None:
    """As PNG, by rename, readable by its owner alone: faces and ages are personal."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing"
        )  # a name in a script that the font lacks
        FigureCanvasAgg(figure).print_png(buffer)
    write_bytes(path, buffer.getvalue())


def scatter(methods: dict[str, Predictions], title: str) -> Figure:
    """Predicted against true age, one point per video; the first method in colour, others gray behind it."""
    with _plain_text():
        figure = Figure(figsize=(4.6, 4.6), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        every = np.concatenate([np.r_[p.age, p.predicted] for p in methods.values()])
        low, high = float(every.min()) - 3, float(every.max()) + 3
        axes.plot([low, high], [low, high], color=_INK, lw=0.8, ls=":", label="no error")
        for i, (name, p) in reversed(list(enumerate(methods.items()))):
            label = f"{printable(name)}: MAE {p.error.mean():.2f}"
            axes.plot(p.age, p.predicted, "o" if not i else "_", ms=4.5, alpha=0.75, mew=0 if not i else 1,
                      color=_OURS if not i else _BASE, label=label)  # fmt: skip
        axes.set(
            xlim=(low, high),
            ylim=(low, high),
            xlabel="age (years)",
            ylabel="predicted age (years)",
            aspect="equal",
        )
        axes.legend(frameon=False, loc="upper left")
        axes.set_title(printable(title), fontsize=9)
    return figure


def cumulative(methods: dict[str, Predictions], title: str) -> Figure:
    """Figure 7's curve: share of videos with at most so many years of error."""
    with _plain_text():
        figure = Figure(figsize=(5.2, 3.6), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        limits = np.linspace(0, max(10.0, *(float(p.error.max()) for p in methods.values())), 500)
        for i, (name, p) in enumerate(methods.items()):
            axes.plot(limits, 100 * cumulative_error(p, limits), color=_OURS if not i else _BASE, lw=2,
                      label=printable(name))  # fmt: skip
        axes.set(
            xlabel="absolute error (years)",
            ylabel="videos with at most this error (%)",
            ylim=(0, 101),
            xlim=(0, None),
        )
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="lower right")
        axes.set_title(printable(title), fontsize=9)
    return figure


def attention_figure(
    frames: np.ndarray, prediction: Prediction, config: SIAMConfig, title: str, warning: str = ""
) -> Figure:
    """Key frames of one video, their temporal weights, and heat maps of the spatial attention over the faces.

    Args:
        frames: (T,S,S) uint8.
        title, warning: drawn above; the warning in red.
    """
    chosen = key_frames(len(frames))
    maps = prediction.spatial_attention
    with _plain_text():
        figure = Figure(figsize=(1.25 * len(chosen) + 0.9, 4.4 if maps is not None else 3.3), dpi=150,
                        layout="constrained")  # fmt: skip
        figure.suptitle(printable(title), fontsize=9)
        rows = 3 if maps is not None else 2
        grid = figure.add_gridspec(rows, len(chosen), height_ratios=[1] * (rows - 1) + [1.1])
        heat = None
        if maps is not None:
            heat = heat_map(maps[chosen], config)
            low, high = float(heat.min()), float(heat.max())
        for column, t in enumerate(chosen):
            axes = figure.add_subplot(grid[0, column])
            axes.imshow(frames[t], cmap="gray", vmin=0, vmax=255)
            axes.set_title(f"frame {t}", fontsize=7)
            axes.axis("off")
            if heat is not None:
                axes = figure.add_subplot(grid[1, column])
                axes.imshow(frames[t], cmap="gray", vmin=0, vmax=255)
                axes.imshow(heat[column], cmap="inferno", alpha=0.55, vmin=low, vmax=high)
                axes.axis("off")
        axes = figure.add_subplot(grid[-1, :])
        weights = prediction.temporal_weights
        axes.fill_between(np.arange(len(weights)), weights, color=_OURS, alpha=0.3, lw=0)
        axes.plot(np.arange(len(weights)), weights, color=_OURS, lw=1.2)
        axes.plot(chosen, weights[chosen], "o", color=_OURS, ms=4)
        axes.axhline(weights.max(), color="#c0392b", ls="--", lw=0.8)
        axes.set(xlim=(-0.5, len(weights) - 0.5), ylim=(0, 1.15 * weights.max()), xlabel="frame",
                 ylabel="temporal weight")  # fmt: skip
        if warning:  # as the axis label, so that the layout keeps room for it
            axes.set_xlabel("frame\n" + printable(warning))
            axes.xaxis.label.set_color("#c0392b")
    return figure
