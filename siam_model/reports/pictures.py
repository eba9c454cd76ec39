"""Pictures of attention: Figures 3, 4, 5, 9 and 10."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nemo_pipeline.store.text import escape_controls
from siam_model.explain import face_pixels, heat_map, key_frames, largest_heat
from siam_model.figures.heat import colour_bar, over_face, scale
from siam_model.predict import shown_age
from siam_model.reports.attention import Example
from siam_model.reports.stats import Components
from siam_model.reports.style import MARK, OURS, WIDTH, new_figure, plain_text


def variants(rows: Mapping[str, Sequence[Example]]) -> Figure:
    """Figures 3 and 4: for every variant the input, the map, and the map over the face, for one or more videos side by
    side (the same ones in every row).

    Args:
        rows: label -> examples of that variant's models.
    """
    count = len(next(iter(rows.values())))
    largest = _largest([example for found in rows.values() for example in found])
    with plain_text():
        figure = new_figure(WIDTH, 0.35 + len(rows) * (WIDTH - 0.9) / (3 * count) * 1.2)
        grid = figure.subplots(len(rows), 3 * count, squeeze=False)
        for line, (label, found) in zip(grid, rows.items(), strict=True):
            for k, example in enumerate(found):
                _triple(line[3 * k : 3 * k + 3], example, largest)
            line[0].set_ylabel(fill(escape_controls(label), 13), rotation=0, ha="right", va="center",
                               labelpad=6)  # fmt: skip
        for k, example in enumerate(next(iter(rows.values()))):
            grid[0, 3 * k].set_title(f"age {example.age:.0f}")
            grid[0, 3 * k + 1].set_title("map")
            grid[0, 3 * k + 2].set_title("over the face")
        colour_bar(figure, largest, ax=grid, fraction=0.015, pad=0.01)
    return figure


def heat_maps(found: Sequence[Example]) -> Figure:
    """Figure 9: for every subject the input, the map, and the map over the face."""
    largest = _largest(found)
    with plain_text():
        side = (WIDTH - 0.9) / len(found)
        figure = new_figure(WIDTH, min(3 * side * 1.12, 7.5) + 0.75)
        grid = figure.subplots(3, len(found), squeeze=False)
        for k, example in enumerate(found):
            _triple(grid[:, k], example, largest)
            grid[0, k].set_title(
                f"age {example.age:.0f}\nsaid {shown_age(example.prediction.age):.0f}\n{_short(example.subject)}"
            )
        for axes, label in zip(grid[:, 0], ("input", "map", "over\nthe face"), strict=True):
            axes.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
        colour_bar(figure, largest, ax=grid[1:], fraction=0.02, pad=0.01)
    return figure


def temporal(found: Sequence[Example], count: int = 8) -> Figure:
    """Figure 10: key frames of each video with their temporal weights as bars, all weights as a line, and the
    largest weight of the video as a dashed line."""
    with plain_text():
        figure = new_figure(WIDTH, 2.75 * len(found))
        blocks = figure.subfigures(len(found), 1, squeeze=False)[:, 0]
        for block, example in zip(blocks, found, strict=True):
            weights = example.prediction.temporal_weights
            chosen = key_frames(len(weights), count)
            grid = block.add_gridspec(2, len(chosen), height_ratios=[1, 1.05])
            block.suptitle(
                f"age {example.age:.0f}, said {shown_age(example.prediction.age):.0f}: "
                f"{_short(example.video, 60)}", x=0.01, ha="left", fontsize=9.5,
            )  # fmt: skip
            for column, t in enumerate(chosen):
                axes = block.add_subplot(grid[0, column])
                _face(axes, example.frames[t])
                axes.set_title(f"{t}", fontsize=8.5, pad=2)
            axes = block.add_subplot(grid[1, :])
            top = float(weights.max())
            step = (len(weights) - 1) / max(len(chosen) - 1, 1) if len(weights) > 1 else 1
            axes.bar(chosen, weights[chosen], 0.38 * step, color=OURS, alpha=0.85)
            axes.plot(np.arange(len(weights)), weights, color="#444444", lw=1)
            axes.axhline(top, color=MARK, ls="--", lw=1)
            peak = int(weights.argmax())
            axes.plot(peak, top, "v", color=MARK, ms=5, clip_on=False)
            left = peak > len(weights) / 2  # the words keep out of the mark's way
            axes.annotate(f"largest: {top:.4f}, frame {peak}", (0.005 if left else 0.995, top), (0, 3), color=MARK,
                          ha="left" if left else "right", xycoords=("axes fraction", "data"),
                          textcoords="offset points", fontsize=8.5)  # fmt: skip
            axes.set(xlim=(-step / 2, len(weights) - 1 + step / 2), ylim=(0, 1.22 * top), xlabel="frame",
                     ylabel="weight")  # fmt: skip
    return figure


def principal(found: Components) -> Figure:
    """Figure 5: the first principal components of the first attention layer, with their part of the variance."""
    with plain_text():
        figure = new_figure(WIDTH, 2.25)
        grid = figure.subplots(1, len(found.maps), squeeze=False)[0]
        for k, (axes, scores, share) in enumerate(zip(grid, found.maps, found.share, strict=True), 1):
            size = float(np.abs(scores).max()) or 1.0
            image = axes.imshow(scores, cmap="RdBu_r", vmin=-size, vmax=size)
            axes.set_title(f"PC-{k}: {100 * share:.0f} % of variance")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    return figure


def _map(example: Example) -> np.ndarray:
    """(M,N) attention to the frame that is shown."""
    maps = example.prediction.spatial_attention
    assert maps is not None  # the caller asks models with spatial attention
    return maps[example.frame]


def _largest(found: Sequence[Example]) -> float:
    """The largest value over a face in a figure: all its maps are drawn on one scale."""
    return max(largest_heat(e.frames, _map(e)[None], e.config) for e in found)


def _triple(axes: Sequence[Axes] | Any, example: Example, largest: float) -> None:
    """Input, map with its range, and the map over the face."""
    face, attention = example.frames[example.frame], _map(example)
    _face(axes[0], face)
    axes[1].imshow(attention, **scale(largest))
    axes[1].set_xlabel(f"{attention.min():.2f} to {attention.max():.2f}", fontsize=8.5, labelpad=2)
    heat = heat_map(attention, example.config)
    axes[2].imshow(over_face(face, heat, largest, face_pixels(example.frames)))
    for panel in axes[1:]:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)


def _face(axes: Axes, face: np.ndarray) -> None:
    axes.imshow(face, cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _short(text: str, longest: int = 14) -> str:
    text = escape_controls(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"
