"""Annotated copies of videos: what was seen in every frame, and what became of it.

Drawn in a second decoding pass, from the notes of the first one (`trace.Trace`) and the finished records, when the
video's result is on disk already: nothing here can change it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import USABLE
from nemo_pipeline.errors import NemoError
from nemo_pipeline.stages.decode import DecodeError, VideoReader
from nemo_pipeline.stages.frame import Region
from nemo_pipeline.store.files import replacing
from nemo_pipeline.store.schema import record_dtype
from nemo_pipeline.store.spool import read_records
from nemo_pipeline.view.encode import ANNOTATED, PictureWriter
from nemo_pipeline.view.overlay_draw import Page
from nemo_pipeline.view.overlay_strip import Shown, State
from nemo_pipeline.view.trace import PersonNotes, Stretch, Trace

_NO_NOTES: tuple[int, NDArray[Any]] = (-1, np.zeros(0))


def draw_overlay(
    path: Path,
    target: Path,
    trace: Trace,
    config: PrepConfig,
    *,
    title: str,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write an annotated copy of a video that was just processed.

    Args:
        path: the video.
        target: `.mp4` to write, by rename, readable by its owner alone.
        trace: notes on the video, `finish`ed.
        config: the settings of the preparation.
        title: what to call the video in the picture.
        progress: called now and then with the number of frames drawn.

    Raises:
        NemoError: it cannot be written, with the reason.
    """
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(target) as temporary:
            _draw(path, temporary, trace, config, title, progress)
    except (DecodeError, OSError, av.error.FFmpegError) as error:
        raise NemoError(f"{target} could not be drawn: {error}") from None


def _draw(
    path: Path,
    target: Path,
    trace: Trace,
    config: PrepConfig,
    title: str,
    progress: Callable[[int], None] | None,
) -> None:
    line = timeline(trace, config)
    people = {person.number: _Records(person, config, trace.status) for person in trace.people}
    notes = trace.frames()
    page: Page | None = None
    with VideoReader(path, trace.info.stream) as reader, av.open(str(target), "w", format="mp4") as container:
        container.metadata["comment"] = ANNOTATED
        encoder = None
        first = 0.0
        for frame in reader:
            number, seen = next(notes, _NO_NOTES)
            if number != frame.index:
                raise NemoError(f"{path} gave other frames when it was decoded again")
            if page is None or encoder is None:
                page = Page(frame.width, frame.height, title, line, trace.n_frames)
                encoder = PictureWriter(container, page.width, page.height, trace.info.fps)
                first = frame.time
            shown = [_shown(one, people, frame.index, config) for one in seen]
            recorded = {int(one["person"]) for one in seen}
            shown += [
                _filled(records, config)
                for n, records in people.items()
                if n not in recorded and records.at(frame.index)
            ]
            encoder.write(page.draw(frame, shown), frame.time - first)
            if progress is not None and frame.index % 16 == 0:
                progress(frame.index + 1)
        if encoder is None:
            raise NemoError(f"{path} gave no frame when it was decoded again")
        encoder.close()


class _Records:
    """One person's records, frame by frame."""

    def __init__(self, person: PersonNotes, config: PrepConfig, status: str) -> None:
        self.person, self.status = person, status
        self._records = self._read(config)
        self._next = next(self._records, None)
        self.current: tuple[NDArray[np.void], Stretch] | None = None

    def _read(self, config: PrepConfig) -> Iterator[tuple[NDArray[np.void], Stretch]]:
        for stretch in self.person.stretches:
            for block in read_records(self.person.spool, stretch.start, stretch.stop, config):
                for record in block:
                    yield record, stretch

    def at(self, frame: int) -> bool:
        """Whether the person has a record in this frame: it is then `current`. Frames in ascending order."""
        while self._next is not None and self._next[0]["frame_index"] < frame:
            self._next = next(self._records, None)
        found = self._next is not None and self._next[0]["frame_index"] == frame
        self.current = self._next if found else None
        return found


def _shown(note: NDArray[np.void], people: dict[int, _Records], frame: int, config: PrepConfig) -> Shown:
    """A person that was seen in this frame."""
    number, yaw = int(note["person"]), float(note["yaw"])
    records = people[number]
    cx, cy, size, angle = (float(v) for v in note["region"])
    region = None if math.isnan(size) else Region(cx, cy, size, angle)
    if records.at(frame):
        return dataclasses.replace(_filled(records, config), region=region)
    if abs(yaw) > config.max_yaw_degrees:
        state, text = State.TURNED, f"turned by {abs(yaw):.0f}°, the limit is {config.max_yaw_degrees:g}°"
    elif not records.person.believed:
        state, text = State.OTHER, "not kept: hardly a face"
    else:
        state, text = State.OTHER, "not kept: too short a stretch"
    return Shown(number, state, text, raw=np.asarray(note["landmarks"], np.float64), region=region)


def _filled(records: _Records, config: PrepConfig) -> Shown:
    """A person that has a record in this frame, seen or interpolated."""
    assert records.current is not None
    record, stretch = records.current
    observed = bool(record["observed"])
    if stretch.row is None:
        state, text = State.OTHER, f"not kept: {_why_not(records)}"
    else:
        state = State.OBSERVED if observed else State.INTERPOLATED
        text = "kept" + (f" as {stretch.row}" if stretch.row else "")
    return Shown(
        records.person.number,
        state,
        text,
        raw=record["landmarks_raw"].astype(np.float64),
        smoothed=record["landmarks"].astype(np.float64),
        face=record["frames"],
        pose=tuple(float(v) for v in record["pose"]),
        face_px=float(record["face_px"]),
        score=float(record["score"]),
    )


def _why_not(records: _Records) -> str:
    """Why a stretch with records gives no row."""
    if not records.person.believed:
        return "hardly a face"
    if any(stretch.row is not None for stretch in records.person.stretches):
        return "a shorter stretch"
    return "not the subject" if records.status in USABLE else records.status


def timeline(trace: Trace, config: PrepConfig) -> NDArray[np.uint8]:
    """(n_frames,) the best `State` of anybody in each frame, in one byte each."""
    states = np.full(trace.n_frames, State.DAMAGED, np.uint8)
    for frame, notes in trace.frames():
        turned = bool((np.abs(notes["yaw"]) > config.max_yaw_degrees).any())
        states[frame] = State.TURNED if turned else State.OTHER if len(notes) else State.NOBODY
    dtype = record_dtype(config.size, config.mesh)
    for person in trace.people:
        if not person.stretches:
            continue
        records = np.memmap(person.spool, dtype, "r")
        for stretch in person.stretches:
            part = records[stretch.start : stretch.stop]
            kept = stretch.row is not None
            best = np.where(part["observed"], State.OBSERVED, State.INTERPOLATED) if kept else State.OTHER
            where = part["frame_index"]
            states[where] = np.maximum(states[where], best)
    return states
