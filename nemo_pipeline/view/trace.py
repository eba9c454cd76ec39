"""Notes taken while a video is processed, for its annotated copy: what was seen where, and what became of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.datatypes import VideoInfo, VideoRow
from nemo_pipeline.person import PersonRecorder
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.landmarks import region_of
from nemo_pipeline.stages.track import Observation

# One person in one frame; person 0 stands for "the frame was decoded, and nobody was seen".
_NOTE = np.dtype(
    [("frame", "<i4"), ("person", "<i4"), ("yaw", "<f4"), ("region", "<f4", 4), ("landmarks", "<f4", (68, 2))]
)
_BLOCK = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of one person's records, half-open. `row` is its row's suffix, None where it is not kept."""

    start: int
    stop: int
    row: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class PersonNotes:
    """One person of the video: `spool` holds the records; `believed` is False for what was no face after all."""

    number: int
    spool: Path
    believed: bool
    stretches: tuple[Stretch, ...]


class Trace:
    """Collects the notes in a file, since they grow with the video. `close` removes it and what only it needs.

    `people`, `info`, `n_frames` and the first row's `status` are known when the video is done.

    Args:
        stem: the notes are written beside it, as `<stem>.trace`.
    """

    def __init__(self, stem: Path) -> None:
        self.path = stem.with_name(f"{stem.name}.trace")
        self.people: tuple[PersonNotes, ...] = ()
        self.status = ""
        self.info = VideoInfo()
        self.n_frames = 0
        self._unused: tuple[PersonRecorder, ...] = ()
        self._file: BinaryIO | None = self.path.open("wb")

    def note(self, frame: Frame, seen: Sequence[Observation]) -> None:
        """One more decoded frame, and who was seen in it."""
        notes = np.zeros(max(1, len(seen)), _NOTE)
        notes["frame"] = frame.index
        for i, one in enumerate(seen):
            region = region_of(one.mesh) if len(one.mesh) else None
            notes[i]["person"], notes[i]["yaw"], notes[i]["landmarks"] = (
                one.person,
                one.pose[0],
                one.landmarks,
            )
            notes[i]["region"] = (
                (np.nan,) * 4 if region is None else (region.cx, region.cy, region.size, region.angle)
            )
        assert self._file is not None
        self._file.write(notes.tobytes())

    def finish(
        self,
        people: Mapping[int, PersonRecorder],
        believed: Collection[int],
        rows: Sequence[VideoRow],
        info: VideoInfo,
        n_frames: int,
    ) -> None:
        """The video is done: who was in it, and which rows it gives."""
        assert self._file is not None
        self._file.close()
        self._file = None
        kept = {(row.spool, row.start): row.suffix for row in rows if row.spool}
        self.info, self.n_frames, self.status = info, n_frames, rows[0].status
        self.people = tuple(
            PersonNotes(
                number,
                person.spool,
                number in believed,
                tuple(
                    Stretch(s.start, s.stop, kept.get((person.spool.name, s.start))) for s in person.segments
                ),
            )
            for number, person in sorted(people.items())
        )
        used = {row.spool for row in rows}
        self._unused = tuple(person for person in people.values() if person.spool.name not in used)

    def close(self) -> None:
        """Remove the notes and the records that belong to no row."""
        if self._file is not None:
            self._file.close()
        for person in self._unused:
            person.discard()
        self.path.unlink(missing_ok=True)

    def frames(self) -> Iterator[tuple[int, NDArray[np.void]]]:
        """(frame, its notes) for every decoded frame that was given out, in order; no notes where nobody was."""
        waiting = np.zeros(0, _NOTE)
        with self.path.open("rb") as handle:
            while True:
                block = np.fromfile(handle, _NOTE, _BLOCK)
                notes = np.concatenate([waiting, block])
                if not len(notes):
                    return
                cuts = np.flatnonzero(np.diff(notes["frame"])) + 1
                groups = np.split(notes, cuts)
                waiting = groups.pop() if len(block) else notes[:0]
                for group in groups:
                    yield int(group["frame"][0]), group[group["person"] > 0]
