"""Parts that read predictions, and labels where there are some: Tables II and III, the breakdowns, Figures 2, 7, 8."""

from __future__ import annotations

from collections import Counter

import numpy as np

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store.text import escape_controls
from siam_model.methods import METHODS
from siam_model.protocol.baselines import LABELS
from siam_model.reports import charts, paper
from siam_model.reports.content import Missing, Picture, Report
from siam_model.reports.inputs import EvaluationInputs
from siam_model.reports.phases import (
    WHOLE,
    Parts,
    kept_phases,
    phase_name,
    phase_predictions,
    predict_phases,
)
from siam_model.reports.stats import LEAST_SUBJECTS, paired_test, summarize_errors
from siam_model.reports.tables import (
    REIMPLEMENTATIONS,
    Heading,
    Line,
    breakdown,
    table_of_errors,
    table_of_tests,
    table_of_thresholds,
    table_three,
)
from siam_model.run_folder import EvaluationFolder


def add_accuracy(given: EvaluationInputs, report: Report) -> None:
    """Table III, Figures 7 and 8, and predicted against true age: all from predictions alone."""
    caption = given.main.described()
    ours = given.main.predictions
    report.add(*table_three(given.methods, caption, synthetic=given.synthetic))
    _add_compared(given, report, caption)
    methods = given.drawn_methods
    first = next(iter(methods))
    error = methods[first].error
    half, nine = float(np.median(error)), 100 * float((error <= 9).mean())
    report.add(
        Picture(
            "figure-7-cumulative-error", "accuracy", "Figure 7", "Cumulative distribution of the absolute error",
            f"{caption}. Shaded: pointwise 95 % interval, by bootstrap over subjects, from 10 subjects on.",
            f"Curves rise from 0 to 100 % of the videos; half of {first}'s errors are below {half:.1f} years, and "
            f"{nine:.0f} % are at most 9 years.",
            charts.cumulative(methods), caption,
        )
    )  # fmt: skip
    report.add(table_of_thresholds(methods, caption, synthetic=given.synthetic))
    others = list(methods)[1:]
    test = (
        " Below: p of the two-sided paired t-test over subjects (videos of a subject averaged) against each method; "
        f"dots where {first} is the better one, crosses where it is not; not corrected for their number."
        if others
        else ""
    )
    theirs = (
        f" The paper finds SIAM better than its two rivals where more than {paper.SIGNIFICANT_ABOVE} samples are "
        f"asked for (p < 0.01; {paper.SMILES})."
        if not given.synthetic
        else ""
    )
    report.add(
        Picture(
            "figure-8-minimum-samples", "accuracy", "Figure 8",
            "Errors on ages with at least N videos",
            f"{caption}. Ages in whole years with fewer videos are left out of the evaluation; no model is trained "
            f"again.{test}{theirs}",
            _alt_thresholds(given), charts.minimum_samples(methods), caption,
        )
    )  # fmt: skip
    if not others:
        report.add(
            Missing(
                "Figure 8", "paired t-test", "There is no other method to compare with",
                given.again("--with", "NAME=PREDICTIONS.csv"),
            )
        )  # fmt: skip
    bias = float((ours.predicted - ours.age).mean())
    report.add(
        Picture(
            "figure-scatter", "accuracy", "", "Predicted against true age",
            f"{caption}. One point per video, predicted by a model that never saw the subject.",
            f"Points around the diagonal; predictions are on average {abs(bias):.1f} years too "
            f"{'high' if bias > 0 else 'low'}.", charts.scatter(methods), caption,
        )
    )  # fmt: skip


def _add_compared(given: EvaluationInputs, report: Report, caption: str) -> None:
    """Table III over all ages: the compared methods measured here with the paper's numbers, and paired tests of all."""
    measured = [(entry, LABELS[name]) for name, entry in METHODS.items() if LABELS[name] in given.methods]
    quoted = {method.name: method.all for method in paper.METHODS}
    if measured:
        lines = [
            Line(label, given.methods[label], quoted.get(entry.paper), entry.paper)
            for entry, label in measured
        ]
        lines.append(Line("SIAM", given.main.predictions, quoted["SIAM"], "SIAM"))
        described = f"{caption}. {REIMPLEMENTATIONS}"
        title = "Mean absolute error (years) of the compared methods"
        report.add(
            table_of_errors(
                Heading("table-3-methods", "accuracy", "Table III", title, described), "Method", lines,
                synthetic=given.synthetic,
            )
        )  # fmt: skip
    if len(given.methods) > 1:
        report.add(table_of_tests(given.methods, caption, synthetic=given.synthetic))


def _alt_thresholds(given: EvaluationInputs) -> str:
    (first, ours), *others = given.drawn_methods.items()
    text = f"{first}'s mean absolute error on all ages is {ours.error.mean():.1f} years."
    for name, p in others[:1]:
        test = paired_test(ours.error, p.error, ours.subject)
        if np.isfinite(test.p):
            text += f" Against {name} the paired t-test over subjects gives p = {test.p:.2g} on all ages."
    return text


def add_breakdowns(given: EvaluationInputs, report: Report) -> None:
    """By gender and by condition. The paper prints neither, so there is nothing to compare with."""
    for name, title, head in (
        ("gender", "Errors by gender", "Gender"),
        ("condition", "Errors by expression and condition", "Recorded"),
    ):
        if given.data is None:
            report.add(
                Missing("", title, given.no_data, given.again("--data", "DATA.h5"))
            )  # fmt: skip
            continue
        labels = given.data.labels(name, given.main.predictions)
        if name == "condition":
            expressions = given.data.labels("expression", given.main.predictions)
            labels = [f"{a} {b}".strip() for a, b in zip(labels, expressions, strict=True)]
        if not any(labels):
            file = escape_controls(str(given.data.dataset.path))
            report.add(
                Missing("", title, f"The data have no {name} labels", f"nemo label {file} LABELS.csv")
            )  # fmt: skip
            continue
        key = f"table-by-{name}"
        described, synthetic = given.main.described(), given.synthetic
        methods = {"SIAM": given.main.predictions, **given.drawn_methods}
        report.add(breakdown(key, title, described, head, labels, methods, synthetic=synthetic))


def add_people(given: EvaluationInputs, report: Report) -> None:
    """Figure 2."""
    p, data = given.main.predictions, given.data
    parts: dict[str, dict[str, tuple[float, list[str]]]] = {}
    for i, video in enumerate(p.video):
        expression = data.label("expression", video) if data else ""
        people = parts.setdefault(expression or "videos", {})
        _, genders = people.setdefault(p.subject[i], (float(p.age[i]), []))
        genders.append((data.label("gender", video) if data else "") or "unknown")
    drawn = {}
    for title, people in sorted(parts.items(), key=lambda part: (-len(part[1]), part[0] != "smile", part[0])):
        ages = [age for age, _ in people.values()]
        drawn[title] = (ages, [Counter(g).most_common(1)[0][0] for _, g in people.values()])
    count = len(set(p.subject))
    unknown = "" if data else f" Genders are labels of the data, which could not be read: {given.no_data}"
    theirs = (
        " The paper's smiles: 185 female and 215 male subjects of 8 to 76 years; its disgust: 152 and 172."
        if not given.synthetic
        else ""
    )
    report.add(
        Picture(
            "figure-2-people", "data", "Figure 2", "Age and gender of the subjects",
            f"{given.main.described()}. Subjects in bins of five years.{theirs}{unknown}",
            f"Bars of how many of the {count} subjects are of each age, {p.age.min():.0f} to {p.age.max():.0f} years.",
            charts.people_by_age(drawn), given.main.described(),
        )
    )  # fmt: skip


def add_phases(given: EvaluationInputs, report: Report) -> None:
    """Table II."""
    number, title = "Table II", "Mean absolute error (years) by phases of the expression"

    def missing(reason: str, command: str = "") -> None:
        report.add(Missing(number, title, reason, command))

    run = given.main
    parts: Parts | None
    if given.data is None or given.request.quick or not run.has_models:
        parts = kept_phases(run, EvaluationFolder(given.out).phases)
        if parts is None and given.data is None:
            return missing(given.no_data, given.again("--data", "DATA.h5"))
        if parts is None and given.request.quick:
            return missing(
                "What runs a model over every video was left out, as asked for (quick)", given.again()
            )
        if parts is None:
            return missing("A model of a fold is not in the run folder", given.train_again())
    else:
        try:
            parts = predict_phases(
                run, given.data, given.device, EvaluationFolder(given.out).phases,
                lambda i, n: given.on_step(f"phases of video {i} of {n}"),
            )  # fmt: skip
        except NemoError as error:
            return missing(str(error), given.again())
    lines = []
    for names, theirs in paper.PHASES.items():
        lines.append(
            Line(" + ".join(names), phase_predictions(run.predictions, parts, phase_name(names)), theirs)
        )
    whole = phase_predictions(run.predictions, parts, WHOLE)
    if whole is None:
        return missing("In no video were onset, apex and offset all found", "")
    lines.append(Line("whole video", whole))
    caption = (
        f"{run.described()}. Models of whole videos, each tested on phases of the videos of unseen subjects; "
        f"{len(whole)} of {len(run.predictions)} videos, in which all three phases were found"
    )
    report.add(
        table_of_errors(
            Heading("table-2", "phases", number, title, caption), "Phases", lines, synthetic=given.synthetic
        )
    )
    return None


def _tested_by(given: EvaluationInputs) -> str:
    if given.main.external:
        return "external test set"
    return f"{given.main.folds} folds" if given.main.folds else "held-out subjects"


def headline(given: EvaluationInputs) -> list[tuple[str, str]]:
    """The first numbers of the page: (name, value)."""
    p = given.main.predictions
    found = summarize_errors(p.error, p.subject)
    verdict, few = given.verdict, f"none: fewer than {LEAST_SUBJECTS} subjects"
    lines = [
        ("mean absolute error", f"{found.mae:.2f} years"),
        *([("always the training median", f"{verdict.median_mae:.2f} years")] if verdict else []),
        ("95 % interval", f"{found.low:.2f} to {found.high:.2f}" if np.isfinite(found.low) else few),
        (
            "standard deviation",
            f"{found.deviation:.2f} years" if np.isfinite(found.deviation) else "one video",
        ),
        ("videos", str(found.videos)),
        ("subjects", str(found.subjects)),
        ("tested by", _tested_by(given)),
    ]
    return lines
