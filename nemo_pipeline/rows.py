"""Which rows of /videos a finished video gives: who the subject is, which segments are kept, why none has frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoRow
from nemo_pipeline.person import PersonRecorder, Segment, Tally
from nemo_pipeline.stages.decode import DecodeReport
from nemo_pipeline.stages.quality import why_none, why_unusable
from nemo_pipeline.status import Status


def make_rows(
    people: Mapping[int, PersonRecorder], config: PrepConfig, report: DecodeReport
) -> list[VideoRow]:
    """The rows of /videos that a finished video gives, at least one.

    Args:
        people: everybody who was followed and is believed to be a person, by number.
        config: settings.
        report: what the decoder said.
    """
    usable = {n: p for n, p in people.items() if p.segments}
    if not usable:
        status, message = _why_none(people, config, report)
        return [VideoRow(0, 0, "", 0, 0, 0, status, message)]
    everyone = config.follow == "all"
    chosen = [usable[n] for n in subject_first({n: p.tally for n, p in usable.items()}, config.follow)]
    rows: list[VideoRow] = []
    taken: list[Segment] = []
    for k, person in enumerate(
        chosen if everyone else chosen[: None if config.segments == "all" else 1], start=1
    ):
        segments = person.segments
        if config.segments == "longest":
            segments = [max(segments, key=lambda s: s.length)]
        elif not everyone:  # one subject at a time: after a cut, the subject of the new shot
            segments = [s for s in segments if all(_apart(s, t) for t in taken)]
            taken += segments
        for j, segment in enumerate(segments, start=1):
            numbers = (k if everyone else 0, j if config.segments == "all" else 0)
            rows.append(_row(*numbers, person, segment, report))
    if config.segments == "all" and not everyone:
        order = sorted(range(len(rows)), key=lambda i: taken[i].first_frame)
        rows = [dataclasses.replace(rows[i], segment=j) for j, i in enumerate(order, start=1)]
    return rows


def subject_first(people: Mapping[int, Tally], follow: str) -> list[int]:
    """Numbers of people, the subject first: the largest over time, or the most central of those who are there most of
    the time; for "all", in order of appearance. `people` are those of whom a segment was kept."""
    if follow == "all":
        return sorted(people)
    if follow == "central":
        most = max((tally.n_seen for tally in people.values()), default=0)
        return sorted(
            people,
            key=lambda n: (people[n].n_seen < most / 2, people[n].off_centre_sum / people[n].n_seen),
        )
    return sorted(people, key=lambda n: -people[n].size_sum)


def _apart(a: Segment, b: Segment) -> bool:
    return a.last_frame < b.first_frame or b.last_frame < a.first_frame


def _row(
    number: int, segment_number: int, person: PersonRecorder, segment: Segment, report: DecodeReport
) -> VideoRow:
    if (why := why_unusable(segment.faults, segment.length)) is not None:
        return VideoRow(number, segment_number, "", 0, 0, 0, *why)
    status, message = Status.OK, ""
    if report.damage:
        status = Status.DAMAGED
        message = f"Usable, but {report.damage}: the undamaged frames were kept; copy the file again from its source."
    return VideoRow(
        number,
        segment_number,
        person.spool.name,
        segment.start,
        segment.stop,
        segment.n_interpolated,
        status,
        message,
    )


def _why_none(
    people: Mapping[int, PersonRecorder], config: PrepConfig, report: DecodeReport
) -> tuple[Status, str]:
    if report.n_frames == 0:
        return (
            Status.DECODE_ERROR,
            "Not one frame could be decoded; the file may be damaged or cut off: copy it again from its source.",
        )
    best = max((p.tally for p in people.values()), key=lambda t: t.n_seen, default=None)
    status, message = why_none(
        n_seen=best.n_seen if best else 0,
        n_turned=best.n_turned if best else 0,
        longest=best.longest if best else 0,
        eye_distance_px=best.eye_distance_px if best else 0.0,
        min_frames=config.min_frames,
        max_yaw=config.max_yaw_degrees,
        n_decoded=report.n_frames,
    )
    return status, with_damage(message, report)


def with_damage(message: str, report: DecodeReport) -> str:
    """A sentence, and after it what is damaged."""
    return message + (f" Also, {report.damage}." if report.damage else "")
