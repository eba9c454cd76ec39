"""What marks leave out, on the report of a prepared file."""

from __future__ import annotations

import dataclasses

import numpy as np

from nemo_pipeline.status import Status
from nemo_pipeline.store.face_video import FaceVideo
from nemo_pipeline.store.marked import MarkedFaces
from nemo_pipeline.store.text import escape_controls, pluralize
from nemo_pipeline.view.report_data import Reported, frame_bar, runs


def with_marks(reported: Reported, video: FaceVideo, marked: MarkedFaces) -> Reported:
    """A video of the report with what its marks leave out: shown all the same, with the status `excluded` where that is
    everything.

    Adds to the details: `marks` (a line each), `cut` (from and to, seconds) and state 3 in `frames`.
    """
    own = marked.marks_of(video.row)
    if not own or not video.length:
        return reported
    out = marked.left_out(video.row)
    times = video.timestamps - video.timestamps[0]
    states = np.where(out, 3, np.where(video.tracked, 1, 2))
    details = reported.details | {
        "marks": [escape_controls(_line(mark.said, mark.reason, mark.who, mark.when)) for mark in own],
        "cut": [[round(float(times[a]), 3), round(float(times[b - 1]), 3)] for a, b in runs(out)],
        "frames": frame_bar(video.frame_index, states, video.n_decoded),
    }
    summary = reported.summary
    if out.all():
        message = escape_controls(marked.videos["message"][video.row])
        summary = dataclasses.replace(summary, status=Status.EXCLUDED, usable=False, message=message)
    elif out.any():
        message = f"{summary.message} Left out by marks: {pluralize(int(out.sum()), 'frame')}.".strip()
        summary = dataclasses.replace(summary, message=message)
    return Reported(summary, details)


def _line(stretch: str, reason: str, who: str, when: str) -> str:
    by = ", ".join(filter(None, (who, when[:10])))
    return f"{stretch}: {reason or 'no reason given'}{f' ({by})' if by else ''}"
