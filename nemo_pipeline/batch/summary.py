"""What a run of `prep` or `join` gave: counts and rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from nemo_pipeline.batch.assemble import Assembled
from nemo_pipeline.batch.labels import Matched
from nemo_pipeline.batch.parts import Part
from nemo_pipeline.status import Status


@dataclasses.dataclass(frozen=True, slots=True)
class PrepSummary:
    """What a run gave.

    Attributes:
        output: the index that was written (for a part: will be).
        counts: rows of /videos by status.
        seconds: wall time of this run.
        frames_per_second: frames decoded in this run per second of it.
        videos: one dict per row, keyed as the columns of /videos.
        done_before, done_now: videos that needed no work, and those done by this run.
        kept: files of `videos` that an earlier run prepared and that were not among the inputs.
        matched: how the label file fitted.
        part: set when this was a part, which writes no index.
        missing: after a join, a sentence on parts that were not done; else "".
    """

    output: Path
    counts: dict[str, int]
    seconds: float
    frames_per_second: float
    videos: list[dict[str, Any]]
    done_before: int
    done_now: int
    matched: Matched | None = None
    part: Part | None = None
    missing: str = ""
    kept: frozenset[str] = frozenset()

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """Those of `videos` that are this run's inputs."""
        return [row for row in self.videos if row["file"] not in self.kept]

    @property
    def n_usable(self) -> int:
        """Rows of the inputs with frames."""
        return sum(Status.read(row["status"]).usable for row in self.inputs)

    @property
    def n_failed(self) -> int:
        """Rows of the inputs without."""
        return len(self.inputs) - self.n_usable


def summarize(output: Path, assembled: Assembled, part: Part | None = None) -> PrepSummary:
    """Counts and rows of an index."""
    columns = assembled.columns
    rows = [{name: columns[name][i] for name in columns} for i in range(len(assembled.rows))]
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    return PrepSummary(output, counts, 0.0, 0.0, rows, 0, 0, assembled.matched, part)
