"""Parts that need models and faces, or several runs: Tables I and IV, Figures 3, 4, 5, 6, 9, 10."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nemo_pipeline.errors import NemoError
from siam_model.explain import FLAT, flat_note
from siam_model.methods import METHODS
from siam_model.protocol.baselines import LABELS
from siam_model.reports import charts, paper, pictures
from siam_model.reports.attention import Example, components, examples, spread_by_age
from siam_model.reports.content import Missing, Picture, Report
from siam_model.reports.inputs import EvaluationInputs
from siam_model.reports.source import Data, Run, Study, VariantRun, open_data
from siam_model.reports.tables import REIMPLEMENTATIONS, Heading, Line, table_of_errors

_NO_FACES = "Pictures of people were left out, as asked for"
#: Subjects in Figure 9, videos in Figure 10, videos side by side in Figures 3 and 4.
PEOPLE, CLIPS, BESIDE = 6, 2, 2
_HOW_MAPS = (
    "Input, attention map (the range of its values below), and the map over the face: at each pixel the mean of the "
    "cells, weighted by Gaussians around the centres of their receptive fields. All maps are on one scale, from 0 to "
    "the largest value over a face; single cells can exceed it. The frame is the middle of the "
    "apex; the model never saw the subject."
)


def _flatness(found: Sequence[Example]) -> str:
    """Of how many of these maps it has to be said that they are flat; "" of none."""
    flat = sum(bool(flat_note(e.frames[[e.frame]], _maps_in(e)[[e.frame]], e.config)) for e in found)
    if not flat:
        return ""
    least = f"{FLAT:.2f}"
    return (
        f" In {flat} of the {len(found)} maps attention is nearly the same all over the face (its least value is more "
        f"than {least} of its largest): they single out no region."
    )


def _maps_in(example: Example) -> np.ndarray:
    assert example.prediction.spatial_attention is not None
    return example.prediction.spatial_attention


def add_videos(given: EvaluationInputs, report: Report) -> None:
    """Figures 5, 9 and 10 of the main run."""
    run, data = given.main, given.data
    wanted: list[tuple[str, str, bool, Callable[[], Picture | Missing]]] = [
        ("Figure 9", "Where the model looks, by age", True, lambda: _figure_nine(given)),
        ("Figure 10", "Temporal attention over key frames", True, lambda: _figure_ten(given)),
        ("Figure 5", "Principal components of the first attention layer", False, lambda: _figure_five(given)),
    ]
    for number, title, faces, make in wanted:
        if faces and not given.request.faces:
            report.add(Missing(number, title, _NO_FACES, given.again()))
        elif data is None:
            report.add(Missing(number, title, given.no_data, given.again("--data", "DATA.h5")))
        elif not run.has_models:
            report.add(
                Missing(number, title, "A model of a fold is not in the run folder", given.train_again())
            )
        else:
            try:
                given.on_step(number)
                report.add(make())
            except NemoError as error:
                report.add(Missing(number, title, str(error)))


def _figure_nine(given: EvaluationInputs) -> Picture | Missing:
    run, data, title = given.main, given.data, "Where the model looks, by age"
    assert data is not None
    rows = spread_by_age(run, PEOPLE)
    found = examples(run, data, rows, given.device)
    if any(e.prediction.spatial_attention is None for e in found):
        return Missing(
            "Figure 9", title, "The model has no spatial attention", given.train_study("positions")
        )
    return Picture(
        "figure-9-heat-maps", "videos", "Figure 9", title,
        f"{run.described()}. {len(found)} subjects from the youngest to the oldest; above each the true and the "
        f"predicted age and the subject's code. {_HOW_MAPS}{_flatness(found)}",
        f"Faces of {len(found)} subjects aged {', '.join(f'{e.age:.0f}' for e in found)}; under each its attention map "
        "and the map laid over the face.",
        pictures.heat_maps(found), run.described(), faces=True,
    )  # fmt: skip


def _figure_ten(given: EvaluationInputs) -> Picture | Missing:
    run, data, title = given.main, given.data, "Temporal attention over key frames"
    assert data is not None
    rows = spread_by_age(run, CLIPS)
    found = examples(run, data, rows, given.device)
    if not found[0].config.temporal_attention:
        return Missing(
            "Figure 10", title, "The model has no temporal attention", given.train_study("modules")
        )
    peaks = ", ".join(
        f"frame {int(e.prediction.temporal_weights.argmax())} of {len(e.frames)} in {e.video}" for e in found
    )
    return Picture(
        "figure-10-temporal-attention", "videos", "Figure 10", title,
        f"{run.described()}. Two of its videos, of the youngest and the oldest subject. Line: weight of every frame, "
        "together 1; bars: of the frames shown above; dashed: the largest. The model never saw the subjects.",
        f"Key frames of {len(found)} videos above a curve of temporal weights. Largest: {peaks}.",
        pictures.temporal(found), run.described(), faces=True,
    )  # fmt: skip


def _figure_five(given: EvaluationInputs) -> Picture | Missing:
    run, data, title = given.main, given.data, "Principal components of the first attention layer"
    assert data is not None
    example = spread_by_age(run, 1)
    if examples(run, data, example, given.device)[0].prediction.spatial_attention is None:
        return Missing(
            "Figure 5", title, "The model has no spatial attention", given.train_study("positions")
        )
    found, videos, dim = components(run, data, given.device)
    share = 100 * float(found.share.sum())
    theirs = (
        "" if given.synthetic else f" In the paper the first three hold {100 * paper.PCA_VARIANCE:.0f} %."
    )
    return Picture(
        "figure-5-first-layer", "videos", "Figure 5", title,
        f"{run.described()}. Of tanh(W F + b) of equation 1, {dim} numbers at every cell of the map, mean over frames "
        f"of {videos} videos that the model never saw. These components hold {share:.0f} % of the variance between "
        f"cells.{theirs}",
        f"{len(found.maps)} maps of component scores; they hold "
        f"{', '.join(f'{100 * s:.0f} %' for s in found.share)} of the variance.",
        pictures.principal(found), run.described(),
    )  # fmt: skip


def add_studies(given: EvaluationInputs, report: Report) -> None:
    """Tables I and IV, Figures 3, 4 and 6."""
    _study(
        given,
        report,
        "mechanisms",
        "Table I",
        "Mean absolute error (years) by attention mechanism",
        _mechanisms,
    )
    _study(given, report, "positions", "Figure 4", "Attention after each convolutional layer", _positions)
    _study(given, report, "modules", "Figure 6", "Mean absolute error (years) by module", _modules)
    _study(
        given, report, "conditions", "Table IV", "Mean absolute error (years) of separate models", _subsets
    )


def _study(
    given: EvaluationInputs,
    report: Report,
    kind: str,
    number: str,
    title: str,
    make: Callable[[EvaluationInputs, Report, Study], None],
) -> None:
    study = given.studies.get(kind)
    if study is None:
        also = {"mechanisms": "Table I, Figure 3"}.get(kind, number)
        reason = "It takes several models, and this run is one of them"
        if kind == "conditions" and given.data is not None:
            labels = {
                (given.data.label("expression", v), given.data.label("condition", v))
                for v in given.main.predictions.video
            }
            if len(labels) < 2:
                reason = "It takes videos of two expressions or conditions, and these are of one"
        report.add(Missing(also, title, reason, given.train_study(kind)))
        return
    resume = f"nemo train --resume --out {study.folder}"
    for variant in study.variants:
        if variant.run is None:
            report.add(Missing(number, f"{title}: {variant.label}", variant.reason, resume))
    if study.finished:
        given.on_step(number)
        make(given, report, study)


def _described(study: Study) -> str:
    """On which data a study was made."""
    return study.finished[0][1].described()


def _synthetic(study: Study) -> bool:
    return any(run.synthetic for _, run in study.finished)


def _mechanisms(given: EvaluationInputs, report: Report, study: Study) -> None:
    order = {name: i for i, name in enumerate(paper.MECHANISMS)}
    finished = sorted(study.finished, key=lambda pair: order.get(pair[0].name, 9))
    lines = [Line(v.label, run.predictions, paper.MECHANISMS.get(v.name)) for v, run in finished]
    report.add(
        table_of_errors(
            Heading("table-1", "mechanisms", "Table I", "Mean absolute error (years) by attention mechanism",
            _described(study)), "Attention mechanism", lines, synthetic=_synthetic(study),
        )
    )  # fmt: skip
    _maps(given, report, study, finished, "mechanisms", "Figure 3", "figure-3-mechanisms",
          "Attention maps of the four mechanisms")  # fmt: skip


def _positions(given: EvaluationInputs, report: Report, study: Study) -> None:
    lines = [Line(v.label, run.predictions) for v, run in study.finished]
    report.add(
        table_of_errors(
            Heading("table-positions", "positions", "", "Mean absolute error (years) by position of the attention",
            _described(study)), "Spatial attention", lines, synthetic=_synthetic(study),
        )
    )  # fmt: skip
    finished = [(v, run) for v, run in study.finished if v.name != "none"]
    if finished:
        _maps(given, report, study, finished, "positions", "Figure 4", "figure-4-positions",
              "Attention maps after each convolutional layer")  # fmt: skip


def _maps(
    given: EvaluationInputs,
    report: Report,
    study: Study,
    finished: Sequence[tuple[VariantRun, Run]],
    section: str,
    number: str,
    key: str,
    title: str,
) -> None:
    """Figures 3 and 4."""
    if not given.request.faces:
        return report.add(Missing(number, title, _NO_FACES, given.again()))
    first = finished[0][1]
    try:
        data = _study_data(given, first)
        shared = set(first.predictions.video)
        for _, run in finished:
            shared &= set(run.predictions.video)
        rows = spread_by_age(first, 5, sorted(shared))
        # Neither a child nor the oldest: faces whose map the reader compares, not their age.
        chosen = [first.predictions.video[i] for i in (rows[1:-1:2] or rows)][:BESIDE]
        drawn: dict[str, list[Example]] = {}
        for variant, run in finished:
            mine = [run.predictions.video.index(video) for video in chosen]
            drawn[variant.label] = examples(run, data, mine, given.device)
    except NemoError as error:
        return report.add(Missing(number, title, str(error), given.again("--data", "DATA.h5")))
    drawn = {k: v for k, v in drawn.items() if all(e.prediction.spatial_attention is not None for e in v)}
    report.add(
        Picture(
            key, section, number, title,
            f"{_described(study)}. {_HOW_MAPS}{_flatness([e for line in drawn.values() for e in line])}",
            f"Attention maps of {len(chosen)} faces, a row for each variant: {', '.join(drawn)}.",
            pictures.variants(drawn), _described(study), faces=True,
        )
    )  # fmt: skip
    return None


def _study_data(given: EvaluationInputs, run: Run) -> Data:
    """The data of a run of a study: the main run's where they are the same, else where it says, else the main run's
    all the same, if they hold its videos.

    Raises:
        NemoError: they cannot be found or opened.
    """
    if given.data is not None and given.data.dataset.uuid == run.dataset.get("uuid"):
        return given.data
    try:
        return open_data(run, None)
    except NemoError:
        if given.data is None:
            raise
        return open_data(run, given.data.dataset.path)


def _modules(given: EvaluationInputs, report: Report, study: Study) -> None:
    synthetic = _synthetic(study)
    lines, theirs = [], []
    for variant, run in study.finished:
        value = paper.MODULES.get(variant.name)
        lines.append(Line(variant.label, run.predictions))
        theirs.append(value)
    table = table_of_errors(
        Heading("figure-6-numbers", "modules", "", "Figure 6 in numbers", _described(study)), "Model", lines,
        synthetic=synthetic,
    )  # fmt: skip
    report.add(table)
    errors = ", ".join(
        f"{line.label} {line.predictions.error.mean():.2f}" for line in lines if line.predictions
    )
    report.add(
        Picture(
            "figure-6-modules", "modules", "Figure 6", "Mean absolute error (years) by module",
            f"{_described(study)}. Lines: 95 % interval by bootstrap over subjects, from 10 subjects on. Hatched: the "
            f"paper's, section V-B, {paper.SMILES}"
            f"{'; not to be compared with errors on synthetic faces' if synthetic else ''}.",
            f"Bars of the mean absolute error measured here: {errors} years.",
            charts.bars([(line.label, line.predictions) for line in lines if line.predictions], theirs, synthetic),
            _described(study),
        )
    )  # fmt: skip


def _subsets(given: EvaluationInputs, report: Report, study: Study) -> None:
    lines = []
    for variant, run in study.finished:
        key = (variant.subset.get("expression", ""), variant.subset.get("condition", ""))
        quoted = paper.SUBSETS.get(key, {})
        for name, entry in METHODS.items():
            measured = run.baselines.get(LABELS[name])
            if measured is not None:
                called = f"{entry.paper}, {variant.label}"
                lines.append(
                    Line(f"{LABELS[name]}, {variant.label}", measured, quoted.get(entry.paper), called)
                )
        lines.append(Line(f"SIAM, {variant.label}", run.predictions, quoted.get("SIAM")))
    # The run of all videos is the last one; each line says how many videos it is about.
    described = study.finished[-1][1].described()
    more = f". {REIMPLEMENTATIONS}" if len(lines) > len(study.finished) else ""
    report.add(
        table_of_errors(
            Heading("table-4", "subsets", "Table IV", "Mean absolute error (years) of separate models",
            f"{described}. Each line is a model trained and tested on these videos alone{more}"), "Method and videos",
            lines,
            synthetic=_synthetic(study), source=f"{paper.DISGUST}; and the 643 posed ones of the {paper.SMILES}",
        )
    )  # fmt: skip
