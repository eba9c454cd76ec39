"""Marks that were made after a training: what they leave out of its evaluation."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from nemo_pipeline.errors import RunError
from nemo_pipeline.marks import NONE
from nemo_pipeline.status import Status
from nemo_pipeline.store.marked import MarkedFaces, open_marked
from nemo_pipeline.store.text import escape_controls, pluralize
from siam_model.predictions import Predictions
from siam_model.reports.source import Data, Run, Study, VariantRun


@dataclasses.dataclass(frozen=True, slots=True)
class MarkedSince:
    """What marks leave out of the predictions of a run.

    Attributes:
        videos: ids that are marked as a whole.
        note: what the reader has to know, a sentence; "" where there is nothing.
    """

    videos: frozenset[str] = frozenset()
    note: str = ""

    def without(self, p: Predictions) -> Predictions:
        """The predictions of the other videos."""
        rows = np.flatnonzero([video not in self.videos for video in p.video])
        texts = ([column[i] for i in rows] for column in (p.video, p.subject, p.file) if column)
        video, subject, *file = map(tuple, texts)
        return Predictions(video, subject, p.fold[rows], p.age[rows], p.predicted[rows], *file)

    def without_in(self, run: Run) -> Run:
        """The run with the predictions of the other videos."""
        others = {name: self.without(line) for name, line in run.baselines.items()}
        return dataclasses.replace(run, predictions=self.without(run.predictions), baselines=others)

    def without_in_studies(self, studies: Mapping[str, Study]) -> dict[str, Study]:
        """Likewise; a variant of which nothing is left has no run."""

        def changed(variant: VariantRun) -> VariantRun:
            if variant.run is None:
                return variant
            if not set(variant.run.predictions.video) - self.videos:
                return dataclasses.replace(variant, run=None, reason="marks leave out all of its videos.")
            return dataclasses.replace(variant, run=self.without_in(variant.run))

        return {
            kind: dataclasses.replace(study, variants=tuple(map(changed, study.variants)))
            for kind, study in studies.items()
        }


def marked_since(run: Run, data: Data, marks: str | os.PathLike[str] | None) -> MarkedSince:
    """What marks leave out of a run's predictions that its own marks did not.

    Args:
        data: of the run, without what its own marks left out.
        marks: as `open_marked` takes them.

    Raises:
        NemoError: the marks cannot be read, or leave out every video.
    """
    if marks is not None and os.fspath(marks) == NONE:
        return MarkedSince()
    then, now = data.dataset, open_marked(data.dataset.path, marks)
    if then.uuid == now.uuid or not isinstance(then, MarkedFaces):
        return MarkedSince()
    file = now.exclusions.file
    predicted = {video: data.row[video] for video in run.predictions.video}
    left_out = frozenset(v for v, row in predicted.items() if now.videos["status"][row] == Status.EXCLUDED)
    if len(left_out) == len(predicted):
        shown = escape_controls(str(run.folder))
        raise RunError(f"{file} leaves out every video of {shown}; `marks=none` ignores it.", run.folder.path)
    cut = sum(not now.same_frames(then, row) for v, row in predicted.items() if v not in left_out)
    parts = []
    if left_out:
        parts.append(f"{pluralize(len(left_out), 'video')} of the run left out of every table and figure")
    if cut:
        parts.append(f"{pluralize(cut, 'video')} predicted from other frames than are left now (train again)")
    if not parts:
        return MarkedSince()
    since = f"Marks since the training ({file or 'there are none any more'})"
    return MarkedSince(left_out, f"{since}: {', '.join(parts)}; `marks=none` ignores them.")
