"""A picture of the attention over one video. Text from outside is drawn as it is: never as mathematics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nemo_pipeline.store.text import printable
from siam_model.config import SIAMConfig
from siam_model.explain import heat_map, key_frames
from siam_model.predict import Prediction
from siam_model.predictions import write_bytes
from siam_model.reports.style import MARK, OURS, plain_text, to_png


def save_figure(figure: Figure, path: Path) -> None:
    """As PNG, by rename, readable by its owner alone: faces and ages are personal."""
    write_bytes(path, to_png(figure))


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
    with plain_text():
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
        axes.fill_between(np.arange(len(weights)), weights, color=OURS, alpha=0.3, lw=0)
        axes.plot(np.arange(len(weights)), weights, color=OURS, lw=1.2)
        axes.plot(chosen, weights[chosen], "o", color=OURS, ms=4)
        axes.axhline(weights.max(), color=MARK, ls="--", lw=0.8)
        axes.set(xlim=(-0.5, len(weights) - 0.5), ylim=(0, 1.15 * weights.max()), xlabel="frame",
                 ylabel="temporal weight")  # fmt: skip
        if warning:  # as the axis label, so that the layout keeps room for it
            axes.set_xlabel("frame\n" + printable(warning))
            axes.xaxis.label.set_color(MARK)
    return figure
