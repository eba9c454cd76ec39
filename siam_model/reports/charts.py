"""Charts from predictions alone: Figures 2, 6, 7, 8, and predicted against true age."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from nemo_pipeline.store.text import escape_controls
from siam_model.predictions import Predictions
from siam_model.reports.stats import (
    LEAST_SUBJECTS,
    age_counts,
    interval,
    paired_test,
    summarize_errors,
    thresholds,
)
from siam_model.reports.style import INK, MARK, OTHERS, OURS, PAPER, WIDTH, line_style, new_figure, plain_text

#: Gender -> colour and hatching; any other label is "unknown".
_GENDERS = {"female": ("#b3541e", ""), "male": ("#0b62a4", "////"), "unknown": ("#9a9a9a", "....")}
_BIN = 5


def people_by_age(parts: Mapping[str, tuple[Sequence[float], Sequence[str]]]) -> Figure:
    """Figure 2: how many subjects of each gender by age, in bins of five years, one panel per part of the data.

    Args:
        parts: title -> ages (years) and genders of its subjects.
    """
    low = min(np.floor(min(ages) / _BIN) for ages, _ in parts.values()) * _BIN
    high = max(np.floor(max(ages) / _BIN) + 1 for ages, _ in parts.values()) * _BIN
    edges = np.arange(low, high + _BIN / 2, _BIN)
    with plain_text():
        figure = new_figure(WIDTH if len(parts) > 1 else 5.2, 3.1)
        all_axes = figure.subplots(1, len(parts), squeeze=False, sharey=True)[0]
        for i, (axes, (title, (ages, genders))) in enumerate(zip(all_axes, parts.items(), strict=True)):
            known = [g if g in _GENDERS else "unknown" for g in genders]
            base = np.zeros(len(edges) - 1)
            for gender, (colour, hatch) in _GENDERS.items():
                mine = [age for age, g in zip(ages, known, strict=True) if g == gender]
                if not mine:
                    continue
                count, _ = np.histogram(mine, edges)
                axes.bar(edges[:-1], count, _BIN * 0.9, base, align="edge", color=colour, hatch=hatch,
                         edgecolor="white", lw=0.4, label=f"{gender} ({len(mine)})")  # fmt: skip
                base += count
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set(
                xlabel="age (years)", xlim=(edges[0] - 1, edges[-1] + 1), ylim=(0, base.max() * 1.3 + 0.2)
            )
            axes.legend(frameon=False, loc="upper right", ncols=2, handlelength=1.4, columnspacing=1.2)
            if len(parts) > 1:
                axes.set_title(f"({'abcdefgh'[i]}) {escape_controls(title)}", loc="left")
        all_axes[0].set_ylabel("subjects")
    return figure


def bars(lines: Sequence[tuple[str, Predictions]], theirs: Sequence[float | None], synthetic: bool) -> Figure:
    """Figure 6: mean absolute error of every variant with its interval; the paper's in a panel of its own
    where ours are of synthetic faces."""
    found = [summarize_errors(p.error, p.subject) for _, p in lines]
    names = [escape_controls(name) for name, _ in lines]
    place = np.arange(len(lines))[::-1]
    has_paper = any(t is not None for t in theirs)
    apart = synthetic and has_paper
    with plain_text():
        figure = new_figure(WIDTH, 0.48 * len(lines) * (1 if apart or not has_paper else 1.35) + 0.95)
        if apart:
            axes, other = figure.subplots(1, 2, sharey=True, width_ratios=[1.35, 1])
        else:
            axes = other = figure.subplots()
        height = 0.62 if apart or not has_paper else 0.38
        shift = 0 if apart or not has_paper else height / 2
        mae = np.array([e.mae for e in found])
        spread = np.abs(np.array([[e.low, e.high] for e in found]).T - mae)
        axes.barh(place + shift, mae, height, color=OURS, label="measured here")
        axes.errorbar(mae, place + shift, xerr=np.nan_to_num(spread), fmt="none", ecolor=INK, capsize=3, lw=1)
        ends = mae + np.nan_to_num(spread[1])
        for x, y, value in zip(ends, place + shift, mae, strict=True):
            axes.annotate(f"{value:.2f}", (x, y), (4, 0), textcoords="offset points", va="center")
        if has_paper:
            pairs = [(y, t) for y, t in zip(place, theirs, strict=True) if t is not None]
            other.barh([y - shift for y, _ in pairs], [t for _, t in pairs], height, color="white",
                       edgecolor=PAPER, hatch="////", lw=1.2, label="the paper, UvA-NEMO")  # fmt: skip
            for y, value in pairs:
                other.annotate(f"{value:.2f}", (value, y - shift), (4, 0), textcoords="offset points",
                               va="center", color=PAPER)  # fmt: skip
        axes.set_yticks(place, names)
        axes.set(xlabel="mean absolute error (years)", xlim=(0, 1.14 * max(ends.max(), mae.max())))
        if apart:
            axes.set_title("measured here, on SYNTHETIC faces", loc="left")
            other.set_title("the paper, UvA-NEMO", loc="left", color=PAPER)
            other.set(xlabel="mean absolute error (years)", xlim=(0, 1.2 * max(t or 0 for t in theirs)))
        elif has_paper:
            axes.set_xlim(0, 1.14 * max(ends.max(), *(t or 0 for t in theirs)))
            figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside upper left", ncols=2)
        for panel in {axes, other}:
            panel.tick_params(axis="y", length=0)
    return figure


def cumulative(methods: Mapping[str, Predictions]) -> Figure:
    """Figure 7: share of the videos with at most that error (years), with the first method's interval."""
    limits = np.linspace(0, max(10.0, *(float(p.error.max()) for p in methods.values())), 400)
    with plain_text():
        figure = new_figure(WIDTH, 3.7)
        axes = figure.subplots()
        band = None
        for i, (name, p) in enumerate(methods.items()):
            within = p.error[:, None] <= limits
            if not i and len(set(p.subject)) >= LEAST_SUBJECTS:
                low, high = interval(within.astype(np.float64), p.subject)
                band = axes.fill_between(limits, 100 * low, 100 * high, color=OURS, alpha=0.16, lw=0,
                                         label=f"{escape_controls(name)}: 95 % interval")  # fmt: skip
            label = f"{escape_controls(name)} (MAE {p.error.mean():.2f})"
            axes.plot(limits, 100 * within.mean(axis=0), label=label, **line_style(i))
        axes.set(xlabel="absolute error (years)", ylabel="videos with at most this error (%)", ylim=(0, 101),
                 xlim=(0, limits[-1]))  # fmt: skip
        axes.grid(alpha=0.25)
        handles, _ = axes.get_legend_handles_labels()
        handles.sort(key=lambda handle: handle is band)  # the interval last
        axes.legend(handles=handles, frameon=False, loc="lower right")
    return figure


def minimum_samples(methods: Mapping[str, Predictions]) -> Figure:
    """Figure 8: the errors on ages of which there are at least N videos; below, p of the paired t-test over
    subjects against every other method."""
    name, ours = next(iter(methods.items()))
    counts, steps = age_counts(ours.age), thresholds(ours)
    left = [np.flatnonzero(counts >= n) for n in steps]
    found = [summarize_errors(ours.error[rows], [ours.subject[i] for i in rows]) for rows in left]
    others = list(methods.items())[1:]
    small = 4 if len(steps) < 25 else 2.5
    single = {"marker": "o", "ms": small} if len(steps) < 25 else {}
    with plain_text():
        figure = new_figure(WIDTH, 5.0 if others else 3.4)
        panels = figure.subplots(2 if others else 1, 1, sharex=True, squeeze=False,
                                 height_ratios=[2, 1] if others else [1])[:, 0]  # fmt: skip
        top = panels[0]
        if np.isfinite(found[0].low):
            top.fill_between(steps, [e.low for e in found], [e.high for e in found], color=OURS, alpha=0.16, lw=0,
                             label=f"{escape_controls(name)}: 95 % interval")  # fmt: skip
        top.plot(steps, [e.mae for e in found], label=escape_controls(name), **line_style(0), **single)
        top.plot(
            steps,
            [e.deviation for e in found],
            color=OURS,
            lw=1,
            ls=":",
            label=f"{escape_controls(name)}: SD",
        )
        for i, (other, p) in enumerate(others, 1):
            style = line_style(i)
            top.plot(
                steps,
                [p.error[rows].mean() for rows in left],
                label=escape_controls(other),
                **style,
                **single,
            )
            tests = [paired_test(ours.error[r], p.error[r], [ours.subject[k] for k in r]) for r in left]
            better = [t.difference < 0 for t in tests]
            panels[1].plot(steps, [max(t.p, 1e-6) if np.isfinite(t.p) else np.nan for t in tests], **style)
            for n, test, good in zip(steps, tests, better, strict=True):
                if np.isfinite(test.p):
                    panels[1].plot(n, max(test.p, 1e-6), "o" if good else "x", color=style["color"], ms=small)
        top.set(ylabel="absolute error (years)", ylim=(0, None))
        top.grid(alpha=0.25)
        figure.legend(*top.get_legend_handles_labels(), frameon=False, loc="outside upper left", ncols=3)
        if others:
            panels[1].axhline(0.01, color=MARK, lw=1, ls="--")
            panels[1].set(yscale="log", ylabel="p, paired t-test", ylim=(5e-7, 1.9))
            # Plain numbers: powers of ten would be mathematics, which is switched off.
            panels[1].yaxis.set_major_locator(FixedLocator([1e-6, 1e-4, 1e-2, 1]))
            panels[1].yaxis.set_minor_locator(NullLocator())
            panels[1].yaxis.set_major_formatter(FixedFormatter(["≤ 0.000001", "0.0001", "0.01", "1"]))
            panels[1].grid(alpha=0.25)
        panels[-1].set_xlabel("minimum number of videos per age")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(steps) == 1:
            panels[-1].set_xlim(0.5, 1.5)
    return figure


def scatter(methods: Mapping[str, Predictions]) -> Figure:
    """Predicted against true age, one point per video: the first method, and the second gray behind it."""
    shown = list(methods.items())[:2]
    every = np.concatenate([np.r_[p.age, p.predicted] for _, p in shown])
    size = 5 if len(shown[0][1]) < 300 else 3.2
    low, high = float(every.min()) - 3, float(every.max()) + 3
    with plain_text():
        figure = new_figure(5.4, 5.2)
        axes = figure.subplots()
        axes.plot([low, high], [low, high], color=INK, lw=0.9, ls=":", label="no error")
        for i, (name, p) in reversed(list(enumerate(shown))):
            mark = {"ms": 1.2 * size, "mew": 1.2} if i else {"ms": size, "mew": 0}
            axes.plot(p.age, p.predicted, "_" if i else "o", **mark, alpha=0.7,
                      color=OTHERS[0][0] if i else OURS, label=escape_controls(name))  # fmt: skip
        axes.set(xlim=(low, high), ylim=(low, high), xlabel="age (years)", ylabel="predicted age (years)",
                 aspect="equal")  # fmt: skip
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="upper left")
    return figure
