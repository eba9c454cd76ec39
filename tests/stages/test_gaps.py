"""Gaps: which frames form a segment, and what is put where no face was seen."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_pipeline.stages.gaps import PAUSE_SECONDS, SegmentBuilder, SegmentFrame
from nemo_pipeline.stages.track import Observation


def seen(value: float, person: int = 1, roll: float = 0.0) -> Observation:
    """A face all of whose measures are `value`."""
    return Observation(
        person=person,
        mesh=np.full((478, 3), value, np.float32),
        landmarks=np.full((68, 2), value),
        pose=(value, -value, roll),
        eye_distance_px=value,
        face_presence=0.9,
    )


def segments(
    times: list[float],
    faces: list[Observation | None],
    max_gap: float = 0.2,
    indices: list[int] | None = None,
) -> list[list[SegmentFrame[int]]]:
    builder: SegmentBuilder[int] = SegmentBuilder(max_gap)
    out: list[list[SegmentFrame[int]]] = [[]]
    events: list[SegmentFrame[int] | None] = []
    for k, (time, face) in enumerate(zip(times, faces, strict=True)):
        index = k if indices is None else indices[k]
        events += builder.push(index, time, face, 1, index * 10)
    for event in [*events, *builder.finish()]:
        if event is None:
            assert out[-1], "an empty segment was ended"
            out.append([])
        else:
            out[-1].append(event)
    return [segment for segment in out if segment]


def film(pattern: str, fps: float = 25.0) -> list[list[int]]:
    """Segments of a clip drawn as text: o a face, . none, 2 another person's. Frame numbers, negative (minus one)
    where interpolated."""
    faces = [{"o": seen(k), ".": None, "2": seen(k, person=2)}[c] for k, c in enumerate(pattern)]
    found = segments([k / fps for k in range(len(pattern))], faces)
    return [[e.index if e.tracked else -e.index for e in segment] for segment in found]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("ooo", [[0, 1, 2]]),
        ("", []),
        ("....", []),
        ("..ooo...", [[2, 3, 4]]),
        ("oo.oo", [[0, 1, -2, 3, 4]]),
        ("oo.....oo", [[0, 1, -2, -3, -4, -5, -6, 7, 8]]),  # 5 frames at 25/s: exactly 0.2 s
        ("oo......oo", [[0, 1], [8, 9]]),
        ("o.o.o", [[0, -1, 2, -3, 4]]),
        ("oo......o......oo", [[0, 1], [8], [15, 16]]),
        ("ooo222", [[0, 1, 2], [3, 4, 5]]),
        ("oo.22", [[0, 1], [3, 4]]),
        ("oo.....", [[0, 1]]),
    ],
)
def test_segments(pattern: str, expected: list[list[int]]) -> None:
    assert film(pattern) == expected


@pytest.mark.parametrize(
    ("fps", "most"),
    [(15, 3), (24, 4), (25, 5), (29.97, 6), (30, 6), (50, 10), (59.94, 12), (60, 12), (120, 24)],
)
@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("start", [0.0, 0.017, 5.0, 3601.0])
def test_the_longest_gap_at_every_rate(fps: float, most: int, rounded: bool, start: float) -> None:
    """0.2 seconds, also where the container counts in whole milliseconds (both ends of a gap are then rounded)."""
    for n, whole in ((most, True), (most + 1, False)):
        times = [start + k / fps for k in range(n + 4)]
        if rounded:
            times = [round(t, 3) for t in times]
        faces = [None if 2 <= k < n + 2 else seen(k) for k in range(n + 4)]
        assert (len(segments(times, faces)) == 1) is whole


def test_the_limit_is_a_setting() -> None:
    times = [k / 25 for k in range(8)]
    faces = [seen(0), *[None] * 3, *[seen(k) for k in range(4, 8)]]
    assert len(segments(times, faces, max_gap=0.0)) == 2
    assert len(segments(times, faces, max_gap=0.08)) == 2
    assert len(segments(times, faces, max_gap=0.12)) == 1


def test_interpolation_is_linear_in_time_not_in_frames() -> None:
    times = [0.0, 0.04, 0.05, 0.2, 0.24]
    (segment,) = segments(times, [seen(0), None, None, seen(20.0), seen(24.0)])
    assert [e.tracked for e in segment] == [True, False, False, True, True]
    for e in segment:
        value = e.time * 100
        np.testing.assert_allclose(e.seen.landmarks, value, atol=1e-9)
        np.testing.assert_allclose(e.seen.mesh, value, atol=1e-5)
        assert e.seen.eye_distance_px == pytest.approx(value)
        assert e.seen.pose[:2] == pytest.approx((value, -value))
        assert e.payload == e.index * 10
        assert np.isnan(e.seen.face_presence) != e.tracked
        assert e.seen.mesh.dtype == np.float32


@pytest.mark.parametrize(
    ("before", "after", "middle"), [(10, 30, 20), (170, -170, 180), (-175, 155, 170), (90, -80, 5)]
)
def test_the_roll_is_interpolated_the_short_way_round(before: float, after: float, middle: float) -> None:
    (segment,) = segments([0.0, 0.04, 0.08], [seen(1, roll=before), None, seen(1, roll=after)])
    assert (segment[1].seen.pose[2] - middle) % 360 == pytest.approx(0, abs=1e-9)
    assert -180 <= segment[1].seen.pose[2] <= 180


def test_neither_a_variable_rate_nor_a_pause_is_a_gap() -> None:
    steps = [1 / 30] * 10 + [1 / 7.5] * 10 + [0.4] * 5 + [1 / 60] * 10
    times = np.cumsum(steps).tolist()
    assert len(segments(times, [seen(k) for k in range(len(times))])) == 1
    slow = [k * 2.0 for k in range(10)]  # one picture every two seconds is a rate too
    assert len(segments(slow, [seen(k) for k in range(10)])) == 1
    for pause in (PAUSE_SECONDS + 0.05, 1.5, 60.0):
        times = [k / 25 + (pause if k >= 5 else 0) for k in range(10)]
        (segment,) = segments(times, [seen(k) for k in range(10)])
        assert [e.time for e in segment] == times
        assert all(e.tracked for e in segment)


@pytest.mark.parametrize("pause", [0.0, 0.45, PAUSE_SECONDS + 0.05, 5.0])
@pytest.mark.parametrize(
    ("moved", "grown", "same"),
    [(0, 1, True), (35, 1.4, True), (45, 1, False), (0, 1.8, False), (0, 0.5, False)],
)
def test_after_a_pause_the_face_must_be_where_it_was(
    pause: float, moved: float, grown: float, same: bool
) -> None:
    """Without a pause that is the tracker's to judge."""
    here = dataclasses.replace(seen(100), eye_distance_px=40.0)
    there = dataclasses.replace(
        seen(100), landmarks=here.landmarks + np.array([moved, 0]), eye_distance_px=40.0 * grown
    )
    times = [k / 25 + (pause if k >= 5 else 0) for k in range(10)]
    found = segments(times, [here] * 5 + [there] * 5)
    assert len(found) == (1 if same or pause < PAUSE_SECONDS else 2)


def test_a_pause_in_which_the_face_is_missing_is_a_gap() -> None:
    """A frame without a face is shown until the next one."""
    faces = [seen(100), seen(100), None, seen(100), seen(100)]
    assert len(segments([0.0, 0.04, 0.08, 0.24, 0.28], faces)) == 1
    assert len(segments([0.0, 0.04, 0.08, 1.08, 1.12], faces)) == 2
    assert len(segments([0.0, 1.0, 1.04, 1.08, 1.12], faces)) == 1  # the pause lies before it


def test_a_pause_does_not_hide_frames_that_were_left_out_later() -> None:
    indices = [*range(10), *range(20, 30)]
    times = [k / 25 + (3.0 if k >= 5 else 0) for k in indices]
    found = segments(times, [seen(100) for _ in indices], indices=indices)
    assert [len(s) for s in found] == [10, 10]


@pytest.mark.parametrize(("n_left_out", "n_segments"), [(1, 1), (5, 1), (6, 2), (24, 2)])
def test_frames_that_were_left_out_as_damaged(n_left_out: int, n_segments: int) -> None:
    """A few are like frames that the camera dropped; more end the segment. None of them comes back."""
    indices = [k for k in range(40) if not 10 <= k < 10 + n_left_out]
    found = segments([k / 25 for k in indices], [seen(k) for k in indices], indices=indices)
    assert len(found) == n_segments
    assert [e.index for segment in found for e in segment] == indices
    assert all(e.tracked for segment in found for e in segment)


def test_a_gap_that_contains_a_hole_ends_the_segment() -> None:
    indices = [*range(5), 5, 30, *range(31, 36)]
    faces = [None if k in (5, 30) else seen(k) for k in indices]
    found = segments([k / 25 for k in indices], faces, indices=indices)
    assert [[e.index for e in s] for s in found] == [[0, 1, 2, 3, 4], [31, 32, 33, 34, 35]]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("o..2"), st.sampled_from([0.016, 0.033, 0.04, 0.133])), max_size=80),
    st.sampled_from([0.0, 0.1, 0.2, 1.0]),
)
def test_the_rules_hold_for_every_clip(clip: list[tuple[str, float]], max_gap: float) -> None:
    times = np.cumsum([step for _, step in clip]).tolist()
    faces = [{"o": seen(k), "2": seen(k, person=2), ".": None}[c] for k, (c, _) in enumerate(clip)]
    found = segments(times, faces, max_gap)
    entries = [e for segment in found for e in segment]
    # Every face seen is in exactly one segment, in order; nothing is invented.
    assert [e.index for e in entries if e.tracked] == [k for k, face in enumerate(faces) if face is not None]
    assert all(faces[e.index] is None for e in entries if not e.tracked)
    for segment in found:
        assert segment[0].tracked and segment[-1].tracked
        assert [e.index for e in segment] == list(range(segment[0].index, segment[-1].index + 1))
        assert len({e.seen.person for e in segment}) == 1
        run: list[float] = []
        for e in segment:
            if e.tracked:
                assert not run or e.time - run[0] <= max_gap + 0.002
                run = []
            else:
                run.append(e.time)
    for a, b in itertools.pairwise(found):
        gap_starts = times[a[-1].index + 1]
        other = a[-1].seen.person != b[0].seen.person
        assert other or b[0].time - gap_starts > max_gap
