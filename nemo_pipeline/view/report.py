"""The report of a prepared file: one page, without a network, in which a person can check every video.

Nothing runs or loads but what is in the page (`page_tools`): style and script by their hashes, pictures as data.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from nemo_pipeline import __version__
from nemo_pipeline.errors import OutputError
from nemo_pipeline.store.files import replacing
from nemo_pipeline.store.marked import MarkedFaces
from nemo_pipeline.store.reader import FaceDataset
from nemo_pipeline.store.text import escape_controls, pluralize
from nemo_pipeline.view import quality_flags
from nemo_pipeline.view.page_tools import json_for_html, page_environment, page_hash, page_text
from nemo_pipeline.view.report_data import Reported, Summary, headline, read_report
from nemo_pipeline.view.report_marks import with_marks


class ReportColumn(NamedTuple):
    """A column of the table: its name, what it means, where it is left out (css), and its value and text."""

    name: str
    help: str
    css: str
    value: Callable[[Summary], Any]
    text: Callable[[Summary], str]


def _number(value: float, digits: int = 0) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else ""


def _look(row: Summary) -> str:
    more = f" +{len(row.reasons) - 1}" if len(row.reasons) > 1 else ""
    return f"{row.reasons[0].short}{more}" if row.reasons else ""


# fmt: off
_COLUMNS = (
    ReportColumn("Video", "id in the file", "", lambda r: r.id, lambda r: r.id),
    ReportColumn("Status", "result of the preparation", "", lambda r: r.status, lambda r: r.status),
    ReportColumn("Worth a look", "first of the reasons to look at it, and how many more", "",
           lambda r: len(r.reasons), _look),
    ReportColumn("Kept", "frames with a face in the file", "num few", lambda r: r.kept, lambda r: str(r.kept)),
    ReportColumn("Decoded", "frames of the video", "num few mid", lambda r: r.decoded, lambda r: str(r.decoded)),
    ReportColumn("Interpolated", "frames without a detected face, interpolated", "num few mid",
           lambda r: r.interpolated, lambda r: str(r.interpolated) if r.kept else ""),
    ReportColumn("Seconds", "length of the kept segment", "num few",
           lambda r: r.seconds, lambda r: _number(r.seconds, 1)),
    ReportColumn("Rate", "frames per second", "num few wide",
           lambda r: r.rate or math.nan, lambda r: _number(r.rate, 1) if r.rate > 0 else ""),
    ReportColumn("Inter-ocular (px)", "distance of the outer eye corners in the video, pixels (median)", "num few mid",
           lambda r: r.eyes, lambda r: _number(r.eyes)),
    ReportColumn("Yaw", "head rotation in degrees, exceeded in 5 % of the frames", "num few mid",
           lambda r: r.yaw, lambda r: _number(r.yaw)),
    ReportColumn("Sharpness", "variance of the Laplacian of the warped face (median)", "num few wide",
           lambda r: r.sharpness, lambda r: _number(r.sharpness)),
    ReportColumn("Presence", "presence score of the tracker (median)", "num few wide",
           lambda r: r.face_presence, lambda r: _number(r.face_presence, 2)),
    ReportColumn("Subject", "code of the person", "few wide", lambda r: r.subject, lambda r: r.subject),
    ReportColumn("Age", "years", "num", lambda r: r.age, lambda r: f"{r.age:g}" if math.isfinite(r.age) else ""),
)
# fmt: on


def write_report(
    data: FaceDataset,
    path: Path,
    *,
    faces: bool = True,
    wording: Callable[[str], str] = str,
    marked: MarkedFaces | None = None,
) -> Path:
    """Write the report of a prepared file.

    Args:
        data: the prepared file.
        path: the `.html` to write, by rename, readable by its owner alone.
        faces: whether pictures of faces are in it. File names, labels and measurements always are.
        wording: turns names of settings in backticks into those that the reader uses.
        marked: the same file without what was marked: what that leaves out is shown as such.

    Raises:
        NemoError: the name does not end in .html, or the file cannot be written.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{escape_controls(str(path))}: a report is a page, name it .html.", path)
    videos = list(read_report(data, faces=faces))
    if marked is not None:
        videos = [with_marks(video, data[row], marked) for row, video in enumerate(videos)]
    context = _context(data, videos, faces, wording)
    context["facts"] += _left_out(marked)
    page = page_environment().get_template("report.html").generate(context)
    try:
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
            for piece in page:
                file.write(piece)
    except OSError as error:
        raise OutputError(
            f"{escape_controls(str(path))} cannot be written: {error.strerror or error}.", path
        ) from None
    return path


def _context(
    data: FaceDataset, videos: Sequence[Reported], faces: bool, wording: Callable[[str], str]
) -> dict[str, Any]:
    rows = [video.summary for video in videos]
    statuses = Counter(row.status for row in rows).most_common()
    codes = Counter(reason.code for row in rows for reason in row.reasons)
    reasons = [(code, text, codes[code]) for code, text in quality_flags.CODES.items() if codes[code]]
    style, script = page_text("report.css"), page_text("plot.js") + page_text("report.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{page_hash(style)}'; script-src '{page_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return {
        "policy": policy,
        "style": Markup(style),
        "script": Markup(script),
        "title": escape_controls(data.path.name),
        "headline": headline(data),
        "synthetic": data.synthetic,
        "faces": faces,
        "facts": _facts(rows),
        "statuses": [
            (
                escape_controls(status),
                count,
                status.severity,
                wording(f"{status.cause}. {status.remedy}").replace("`", ""),
            )
            for status, count in statuses
        ],
        "most_status": max((count for _, count in statuses), default=1),
        "reasons": reasons,
        "most_reason": max((count for _, _, count in reasons), default=1),
        "columns": _COLUMNS,
        "rows": [_row(row) for row in rows],
        "row_data": json_for_html([_searched(row) for row in rows]),
        "limit_data": json_for_html({"yaw": data.config.max_yaw_degrees}),
        "details": [json_for_html(video.details) for video in videos],
        "settings": [(name.replace("_", " "), str(value)) for name, value in data.config.to_dict().items()],
        "versions": [(escape_controls(name), escape_controls(str(v))) for name, v in data.versions.items()],
        "limits": quality_flags.LIMITS,
        "version": __version__,
        "uuid": escape_controls(data.uuid),
    }


def _facts(rows: Sequence[Summary]) -> list[tuple[str, str]]:
    """The cards at the top: name and value."""
    usable = [row for row in rows if row.usable]
    ages = [row.age for row in rows if math.isfinite(row.age)]
    subjects = {row.subject for row in rows if row.subject}
    looks = sum(1 for row in usable if row.reasons)
    kept, filled = sum(row.kept for row in usable), sum(row.interpolated for row in usable)

    def median(values: list[float], unit: str) -> str:
        finite = [value for value in values if math.isfinite(value)]
        return f"{np.median(finite):.0f}{unit}" if finite else "unknown"

    found = [
        ("Usable", f"{len(usable)} of {len(rows)}"),
        ("Worth a look", str(looks)),
        ("Interpolated frames", f"{filled / kept:.1%}" if kept else "none"),
        ("Inter-ocular distance, median", median([row.eyes for row in usable], " px")),
        ("Frames a second", median([row.rate for row in usable if row.rate > 0], "")),
        ("Subjects", str(len(subjects)) if subjects else "unknown"),
        ("Ages", f"{min(ages):g} to {max(ages):g} years" if ages else "unknown"),
    ]
    if ages and len(ages) < len(rows):
        found.append(("Without an age", str(len(rows) - len(ages))))
    return found


def _left_out(marked: MarkedFaces | None) -> list[tuple[str, str]]:
    return (
        [("Left out by marks", marked.exclusions.counts())]
        if marked is not None and marked.exclusions
        else []
    )


def _row(row: Summary) -> dict[str, Any]:
    cells = [(column.text(row), column.css) for column in _COLUMNS[3:]]
    return {
        "id": row.id,
        "status": row.status,
        "kind": row.status.severity,
        "look": _look(row),
        "cells": cells,
    }


def _searched(row: Summary) -> dict[str, Any]:
    """What the page's script knows of a row: v values of the columns, s status, r codes of reasons, u usable, t text
    to search in, and f, m, d: file, message, a line of facts."""
    values = [column.value(row) for column in _COLUMNS]
    facts = [
        f"subject {row.subject}" if row.subject else "",
        f"{row.age:g} years" if math.isfinite(row.age) else "",
        row.gender,
        row.condition,
        row.expression,
        f"{row.kept} of {pluralize(row.decoded, 'frame')} kept" if row.decoded else "",
        f"{row.interpolated} interpolated" if row.interpolated else "",
        f"{row.rate:.4g} frames/s" if row.rate > 0 else "",
        f"inter-ocular distance {row.eyes:.0f} px" if math.isfinite(row.eyes) else "",
        f"sharpness {row.sharpness:.0f}" if math.isfinite(row.sharpness) else "",
        f"presence {row.face_presence:.2f}" if math.isfinite(row.face_presence) else "",
    ]
    text = " ".join([row.id, row.file, row.subject, row.status, row.message, row.gender, row.condition, row.expression,
                     *(reason.text for reason in row.reasons)])  # fmt: skip
    return {
        "v": [None if isinstance(v, float) and not math.isfinite(v) else v for v in values],
        "s": row.status,
        "r": [reason.code for reason in row.reasons],
        "u": row.usable,
        "t": text.lower(),
        "f": row.file,
        # A reason to look at it repeats the message of a video that is usable all the same.
        "m": "" if any(reason.text == row.message for reason in row.reasons) else row.message,
        "d": " · ".join(fact for fact in facts if fact),
    }
