"""A picture of one video's expression over time, with the cuts between its phases."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nemo_pipeline.phases import PhaseName, Phases
from nemo_pipeline.store.text import escape_controls
from siam_model.figures.plain import plain_text

_COLOURS: dict[PhaseName, str] = {"onset": "#f2b134", "apex": "#d1495b", "offset": "#3d7ea6"}
_AXIS = {
    "smile": "lip corners from the first frame's\nlip centre (mouth widths)",
    "disgust": "nose wings and upper lip nearer\nto the brows (mouth widths)",
}


def phase_figure(phases: Phases, title: str) -> Figure:
    """The amplitude over time, smoothed and as measured, over bands in the colours of onset, apex and offset.

    Args:
        title: drawn as it is (a `$` starts no formula).
    """
    with plain_text():
        figure = Figure(figsize=(6.4, 2.9), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)  # so that `figure.savefig` needs no pyplot
        axes = figure.add_subplot()
        times = phases.timestamps
        for name, colour in _COLOURS.items():
            start, stop = phases.range(name)
            if stop <= start:
                continue
            end = times[min(stop, len(times) - 1)]
            axes.axvspan(times[start], end, color=colour, alpha=0.22, lw=0)
            axes.axvline(times[start], color=colour, lw=1)
            axes.axvline(end, color=colour, lw=1)
            axes.annotate(
                f"{name}\n{phases.seconds(name):.2f} s", ((times[start] + end) / 2, 1),
                xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
                ha="center", va="bottom", fontsize=8, color="#333333",
            )  # fmt: skip
        axes.plot(times, phases.raw, ".", color="#9a9a9a", ms=3, label="as measured")
        axes.plot(times, phases.amplitude, "-", color="#222222", lw=1.4, label="smoothed (4253H, twice)")
        if not phases.mask("onset").any():
            axes.annotate(
                "no expression found", (0.5, 1), xycoords="axes fraction", xytext=(0, 3),
                textcoords="offset points", ha="center", va="bottom", fontsize=8,
            )  # fmt: skip
        axes.set(xlabel="time (s)", ylabel=_AXIS[phases.measure])
        axes.margins(x=0.01)
        axes.legend(frameon=False, fontsize=7, loc="lower center", ncols=2)
        figure.suptitle(escape_controls(title), fontsize=9)
    return figure
