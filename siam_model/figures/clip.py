"""Figures 9 and 10 of the paper for one clip: heat maps of the spatial attention, and temporal weights over key frames.

Text from outside is drawn as it is: never as mathematics.
"""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from nemo_pipeline.store.text import escape_controls
from siam_model.config import SIAMConfig
from siam_model.explain import face_pixels, flat_note, heat_map, key_frames, largest_heat
from siam_model.figures.heat import colour_bar, over_face, scale
from siam_model.figures.plain import plain_text
from siam_model.predict import Prediction

_OURS, _MOST = "#1b6ca8", "#c0392b"
#: Key frames of figure 10: as many as the paper's.
_KEY_FRAMES = 8
#: Side of a key frame's picture, inches.
_SIDE = 1.15


def clip_figure(
    frames: np.ndarray,
    prediction: Prediction,
    config: SIAMConfig,
    times: np.ndarray,
    title: str,
    warning: str = "",
) -> Figure:
    """Both in one: key frames, their heat maps, and the temporal weights of all frames.

    Args:
        frames: (T,S,S) uint8. times: (T,) seconds.
        title, warning: above the pictures; the warning in red.
    """
    chosen = _key(prediction)
    maps = prediction.spatial_attention
    rows = 2 if maps is None else 3
    warning = _with_flatness(warning, frames, maps, config)
    with plain_text():
        figure = _figure(1.3 * len(chosen) + 1.2, 1.4 * (rows - 1) + 2.1, title, warning)
        grid = figure.add_gridspec(rows, 1, height_ratios=[1.3] * (rows - 1) + [1.15])
        _faces(figure, grid[0], frames, chosen, prediction, times)
        if maps is not None:
            _heats(figure, grid[1], frames, maps, chosen, config)
        _weights(figure, grid[rows - 1], prediction, chosen, times)
    return figure


def heat_figure(
    frames: np.ndarray,
    prediction: Prediction,
    config: SIAMConfig,
    times: np.ndarray,
    title: str,
    warning: str = "",
) -> Figure | None:
    """Figure 9: for frames over the clip the face, the attention's own map, and the map over the face.

    Both maps are on one scale, from 0 to the clip's largest value over the face; cells above it have the last colour.

    None where the model has no spatial attention.
    """
    maps = prediction.spatial_attention
    if maps is None:
        return None
    chosen = key_frames(len(frames), 4)
    top = int(np.argmax(prediction.temporal_weights))
    chosen = np.unique(np.append(chosen, top))
    heats = heat_map(maps[chosen], config)
    largest, inside = largest_heat(frames, maps, config), face_pixels(frames)
    warning = _with_flatness(warning, frames, maps, config)
    with plain_text():
        figure = _figure(1.75 * len(chosen) + 1.6, 5.6, title, warning)
        grid = figure.add_gridspec(3, len(chosen) + 1, width_ratios=[1] * len(chosen) + [0.07])
        for column, t in enumerate(chosen):
            axes = figure.add_subplot(grid[0, column])
            axes.imshow(frames[t], cmap="gray", vmin=0, vmax=255)
            mark = "\nlargest weight" if t == top else ""
            axes.set_title(f"{times[t]:.2f} s{mark}", fontsize=8, color=_MOST if mark else "black")
            small = figure.add_subplot(grid[1, column])
            small.imshow(maps[t], **scale(largest))
            large = figure.add_subplot(grid[2, column])
            large.imshow(over_face(frames[t], heats[column], largest, inside))
            for panel in (axes, small, large):
                panel.set(xticks=[], yticks=[])
                for spine in panel.spines.values():
                    spine.set_visible(False)
            if not column:
                axes.set_ylabel("face")
                small.set_ylabel("attention")
                large.set_ylabel("over the face")
        colour_bar(figure, largest, cax=figure.add_subplot(grid[1:, -1]))
    return figure


def weights_figure(
    frames: np.ndarray, prediction: Prediction, times: np.ndarray, title: str, warning: str = ""
) -> Figure:
    """Figure 10: key frames with a bar for the weight of each, and the weights of all frames; the largest is marked."""
    chosen = _key(prediction)
    with plain_text():
        figure = _figure(1.3 * len(chosen) + 1.2, 4.6, title, warning)
        grid = figure.add_gridspec(3, 1, height_ratios=[1.35, 0.8, 1.3])
        _faces(figure, grid[0], frames, chosen, prediction, times)
        weights = prediction.temporal_weights
        axes = figure.add_subplot(grid[1])
        top = int(np.argmax(weights))
        colours = [_MOST if t == top else _OURS for t in chosen]
        axes.bar(np.arange(len(chosen)), weights[chosen], 0.28, color=colours)
        axes.axhline(weights.max(), color=_MOST, ls="--", lw=0.9)
        axes.set(xlim=(-0.5, len(chosen) - 0.5), ylim=(0, 1.15 * weights.max()), xticks=[], ylabel="weight")
        _weights(figure, grid[2], prediction, chosen, times)
    return figure


def _key(prediction: Prediction) -> np.ndarray:
    """Frames over the clip; the one with the largest weight takes the place of its neighbour."""
    weights = prediction.temporal_weights
    chosen = key_frames(len(weights), _KEY_FRAMES)
    top = int(np.argmax(weights))
    if top not in chosen:
        chosen[int(np.argmin(np.abs(chosen - top)))] = top
    return np.unique(chosen)


def _figure(width: float, height: float, title: str, warning: str) -> Figure:
    figure = Figure(figsize=(max(width, 4.6), height + 0.18 * bool(warning)), dpi=150, layout="constrained")
    figure.suptitle(_short(title), fontsize=9)
    if warning:
        figure.supxlabel(_wrapped(warning, int(max(width, 4.6) * 15)), fontsize=8, color=_MOST)
    return figure


def _with_flatness(warning: str, frames: np.ndarray, maps: np.ndarray | None, config: SIAMConfig) -> str:
    return " ".join(filter(None, (warning, "" if maps is None else flat_note(frames, maps, config))))


def _short(title: str, most: int = 90) -> str:
    """A long name loses its middle."""
    text = escape_controls(title)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 :]}"


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(escape_controls(text), width))


def _faces(
    figure: Figure,
    place: SubplotSpec,
    frames: np.ndarray,
    chosen: np.ndarray,
    prediction: Prediction,
    times: np.ndarray,
) -> None:
    """The key frames side by side, their times above; in one panel, so that what is below lines up."""
    top = int(np.argmax(prediction.temporal_weights))
    axes = _row(figure, place, len(chosen))
    for column, t in enumerate(chosen):
        _picture(axes, column, np.repeat(frames[t][..., None], 3, axis=2))
        axes.annotate(f"{times[t]:.2f} s", (column, 1), (0, 2), xycoords="data", textcoords="offset points",
                      ha="center", fontsize=8, color=_MOST if t == top else "black")  # fmt: skip


def _heats(
    figure: Figure,
    place: SubplotSpec,
    frames: np.ndarray,
    maps: np.ndarray,
    chosen: np.ndarray,
    config: SIAMConfig,
) -> None:
    axes = _row(figure, place, len(chosen))
    largest, inside = largest_heat(frames, maps, config), face_pixels(frames)
    for column, t in enumerate(chosen):
        _picture(axes, column, over_face(frames[t], heat_map(maps[t], config), largest, inside))
    colour_bar(figure, largest, cax=axes.inset_axes((1.0, 0.08, 0.008, 0.84)))


def _row(figure: Figure, place: SubplotSpec, count: int) -> Axes:
    axes = figure.add_subplot(place)
    axes.set(xlim=(-0.5, count - 0.5), ylim=(0, 1))
    axes.axis("off")
    return axes


def _picture(axes: Axes, column: int, rgb: np.ndarray) -> None:
    """A picture of `_SIDE` inches in the middle of a column."""
    box = OffsetImage(rgb, zoom=_SIDE * 72 / len(rgb))
    axes.add_artist(AnnotationBbox(box, (column, 0.5), frameon=False, pad=0))


def _weights(
    figure: Figure, place: SubplotSpec, prediction: Prediction, chosen: np.ndarray, times: np.ndarray
) -> None:
    """The curve of all frames over time, key frames as dots, the largest weight as a dashed line."""
    weights = prediction.temporal_weights
    top = int(np.argmax(weights))
    axes = figure.add_subplot(place)
    axes.fill_between(times, weights, color=_OURS, alpha=0.25, lw=0)
    axes.plot(times, weights, color=_OURS, lw=1.3)
    axes.plot(times[chosen], weights[chosen], "o", color=_OURS, ms=4)
    axes.axhline(weights.max(), color=_MOST, ls="--", lw=0.9)
    axes.plot(times[top], weights[top], "o", color=_MOST, ms=6)
    where = (times[top] - times[0]) / max(float(times[-1] - times[0]), 1e-9)
    side = "left" if where < 0.1 else "right" if where > 0.9 else "center"
    axes.annotate(f"largest, {times[top]:.2f} s", (times[top], weights[top]), (0, 5), textcoords="offset points",
                  color=_MOST, fontsize=8, ha=side, va="bottom")  # fmt: skip
    pad = 0.01 * max(float(times[-1] - times[0]), 1e-3)
    axes.set(xlim=(times[0] - pad, times[-1] + pad), ylim=(0, 1.28 * weights.max()), xlabel="seconds",
             ylabel="temporal weight")  # fmt: skip
