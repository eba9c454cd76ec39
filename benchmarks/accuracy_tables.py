"""The tables of benchmarks/accuracy.py, from the measures of every clip."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import print_table
from levels import BASE_VALUES, LEVELS
from measures import REGIONS, SPIKE_LEFT, quantiles

from nemo_pipeline.synth.plan import SynthConfig

Measures = list[dict[str, Any]]
EDGES = ("onset begins", "apex begins", "offset begins", "offset ends")


def pooled_mean(clips: Measures, *keys: str) -> float:
    """Mean of one number over the clips that have it."""
    found = []
    for item in clips:
        value: Any = item
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            found.append(float(value))
    return float(np.mean(found)) if found else float("nan")


def show(clips: Measures, base: SynthConfig) -> dict[str, Any]:
    """Print every table; answers the numbers."""
    by_level = {level.name: [clip for clip in clips if clip["level"] == level.name] for level in LEVELS}
    own = by_level["base"]
    return {
        "landmarks": _landmarks(own, base),
        "levels": _levels(by_level),
        "time": _time(clips, by_level, base),
        "gray": _gray(own),
        "phases": _phases(own),
        "frames": _frames(clips),
    }


def _landmarks(own: Measures, base: SynthConfig) -> dict[str, Any]:
    kinds = ("raw", "smooth", "raw followed", "smooth followed")
    result = {region: {kind: pooled_mean(own, kind, region) for kind in kinds} for region in REGIONS}
    rows = [[region, *(f"{value:.2f}" for value in values.values())] for region, values in result.items()]
    title = f"Landmark error, % of the outer-eye distance ({len(own)} clips, {base.width} x {base.height})"
    print_table(title, ["region", "raw", "smoothed", "raw, followed", "smoothed, followed"], rows)
    return result


def _levels(by_level: dict[str, Measures]) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    for about, base_value in BASE_VALUES.items():
        series = [(level.value, by_level[level.name]) for level in LEVELS if level.about == about]
        same = by_level["base"][: min(len(clips) for _, clips in series)]  # the same people
        for value, clips in sorted([*series, (base_value, same)], key=lambda pair: float(pair[0].split()[0])):
            frames = sum(clip["frames"] for clip in clips)
            result.append(
                {
                    "about": about,
                    "value": value,
                    "clips": len(clips),
                    "eye_px": pooled_mean(clips, "eye_px"),
                    "raw": pooled_mean(clips, "raw", "inner 51"),
                    "smoothed": pooled_mean(clips, "smooth", "inner 51"),
                    "followed": pooled_mean(clips, "smooth followed", "inner 51"),
                    "jaw": pooled_mean(clips, "smooth", "jaw line"),
                    "gray": pooled_mean(clips, "gray"),
                    "frames": frames,
                    "lost": frames - sum(clip["kept"] for clip in clips),
                }
            )
    columns = ("raw", "smoothed", "followed", "jaw", "gray")
    rows = [
        [
            item["about"], item["value"], str(item["clips"]), f"{item['eye_px']:.0f}",
            *(f"{item[column]:.2f}" for column in columns), f"{item['lost']} of {item['frames']}",
        ]
        for item in result
    ]  # fmt: skip
    print_table(
        "By face size, noise and head motion: the same people each time; error in % of the outer-eye distance",
        [
            "what", "level", "clips", "eyes, px", "inner 51, raw", "smoothed", "followed", "jaw line, smoothed",
            "gray level", "frames lost",
        ],
        rows,
    )  # fmt: skip
    return result


def _time(clips: Measures, by_level: dict[str, Measures], base: SynthConfig) -> dict[str, Any]:
    still, moving = by_level["still"], [clip for clip in clips if "raw lag of the onset" in clip]
    left = np.concatenate([np.zeros(0), *(clip["spikes left"] for clip in clips if "spikes left" in clip)])
    kinds, regions = ("raw", "smooth"), ("inner 51", "jaw line")
    trembling = {k: {region: pooled_mean(still, f"{k} jitter", region) for region in regions} for k in kinds}
    lags = {
        phase: {kind: quantiles([clip[f"{kind} lag of the {phase}"] for clip in moving]) for kind in kinds}
        for phase in ("onset", "offset")
    }
    removed = float((left < SPIKE_LEFT).mean()) if len(left) else float("nan")
    rows = [
        [
            f"jitter of a still face, {region}, % of the eye distance",
            *(f"{trembling[k][region]:.3f}" for k in kinds),
        ]
        for region in regions
    ]
    rows += [
        [f"lag of the {phase}, frames: {what}", *(f"{lags[phase][kind][key]:+.2f}" for kind in kinds)]
        for phase in lags
        for what, key in (("median", "median"), ("5th percentile", "p5"), ("95th percentile", "p95"))
    ]
    rows.append([f"single-frame outliers removed, of {len(left)}", "", f"{100 * removed:.1f} %"])
    title = f"In time ({len(still)} still clips, {len(moving)} moving ones, {base.fps:g} frames/s)"
    print_table(title, ["", "raw", "smoothed"], rows)
    outliers = {"spikes": len(left), "removed": removed, "left": quantiles(left)}
    return {"jitter": trembling, "lag_frames": lags, "outliers": outliers}


def _gray(own: Measures) -> dict[str, float]:
    result = {
        "the tool": pooled_mean(own, "gray direct"),
        "true landmarks": pooled_mean(own, "gray without tracking"),
        "and no camera": pooled_mean(own, "gray without camera"),
        "followed": pooled_mean(own, "gray followed"),
    }
    title = "Warped face against the face rendered in the mean shape: mean absolute difference in gray levels (of 255)"
    print_table(title, list(result), [[f"{value:.2f}" for value in result.values()]])
    return result


def _phases(own: Measures) -> dict[str, Any]:
    result: dict[str, Any] = {}
    rows = []
    for source, name in (("track", "the track"), ("truth", "the true landmarks")):
        pairs = [clip[f"phases of {source}"] for clip in own if f"phases of {source}" in clip]
        exact, near = (np.array([pair[kind] for pair in pairs]).reshape(-1, 4) for kind in ("exact", "5 %"))
        for column, edge in enumerate(EDGES):
            signed, size = quantiles(exact[:, column]), quantiles(np.abs(exact[:, column]))
            near_signed, near_size = quantiles(near[:, column]), quantiles(np.abs(near[:, column]))
            missing = int(np.isnan(exact[:, column]).sum())
            result[f"{edge}, {source}"] = {
                "signed": signed, "size": size, "signed_5": near_signed, "size_5": near_size, "not_found": missing,
            }  # fmt: skip
            cells = [f"{signed['median']:+.1f}", f"{size['median']:.1f}", f"{size['p95']:.1f}"]
            cells += [
                f"{near_signed['median']:+.1f}",
                f"{near_size['median']:.1f}",
                f"{near_size['p95']:.1f}",
            ]
            rows.append([edge, name, *cells, str(missing)])
    print_table(
        "Phase boundaries, found minus true, frames",
        [
            "boundary", "from", "median", "median size", "95 %", "5 %: median", "5 %: median size", "5 %: 95 %",
            "not found",
        ],
        rows,
    )  # fmt: skip
    return result


def _frames(clips: Measures) -> dict[str, Any]:
    status: dict[str, int] = {}
    for clip in clips:
        status[clip["status"]] = status.get(clip["status"], 0) + 1
    worst = max((clip["timestamps"] for clip in clips if "timestamps" in clip), default=float("nan"))
    rendered, kept = sum(clip["frames"] for clip in clips), sum(clip["kept"] for clip in clips)
    filled = sum(clip.get("interpolated", 0) for clip in clips)
    counts = [len(clips), rendered, kept, rendered - kept, filled]
    found = ", ".join(f"{count} {name}" for name, count in status.items())
    print_table(
        "Frames of all clips",
        ["clips", "rendered", "kept", "lost", "interpolated", "status", "times, worst error"],
        [[*map(str, counts), found, f"{1000 * worst:.3f} ms"]],
    )
    return {
        "clips": len(clips), "rendered": rendered, "kept": kept, "interpolated": filled, "status": status,
        "times_worst_ms": 1000 * worst,
    }  # fmt: skip
