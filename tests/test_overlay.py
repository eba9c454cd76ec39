"""Annotated copies: every frame with its own time, what is drawn where, and that nothing else changes."""

from __future__ import annotations

import dataclasses
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_pipeline import NemoError, PrepConfig
from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.run import RunOptions, prep
from nemo_pipeline.stages.decode import VideoReader
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.schema import record_dtype
from nemo_pipeline.store.text import safe_name
from nemo_pipeline.video import process_video
from nemo_pipeline.view.overlay import draw_overlay, timeline
from nemo_pipeline.view.overlay_draw import Page
from nemo_pipeline.view.overlay_strip import Shown, State
from nemo_pipeline.view.trace import Trace
from tests.clips import acted, other_person, person, sway, timestamps_of, write_clip

CONFIG = PrepConfig(size=48, mesh=False)
SIZE = (200, 160)


def face(k: int):
    dx, dy = sway(k, 3.0)
    return [(person(), person().placed(100 + dx, 70 + dy, 50, 3 * np.sin(k / 6)))]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    pictures = acted(20, SIZE, face)
    covered = [picture.copy() for picture in pictures]
    for k in (8, 9):
        covered[k][:] = 90  # a short gap
    covered[17:] = [np.full_like(p, 90) for p in covered[17:]]
    two = acted(9, (400, 160), lambda k: [*face(k), (other_person(), other_person().placed(290, 75, 58))])
    gap = [*pictures[:8], *[np.full_like(pictures[0], 90)] * 9, *pictures[8:17]]
    uneven = [0, 1, 2, 4, 7, 8, 9, 10, 14, 15]
    return {
        "gap": write_clip(folder / "gap.mp4", covered),
        "two": write_clip(folder / "two.mp4", two),
        "apart": write_clip(folder / "apart.mp4", gap),
        "uneven": write_clip(folder / "uneven.mkv", pictures[:10], times=[150 + t for t in uneven]),
    }


def annotated(
    path: Path, folder: Path, config: PrepConfig = CONFIG
) -> tuple[list[tuple[float, np.ndarray]], np.ndarray, list[bytes]]:
    """(time, picture) of the annotated copy, the states of its frames, and the rows' records."""
    folder.mkdir(exist_ok=True)
    trace = Trace(folder / "v")
    result = process_video(path, config, folder / "v", trace=trace)
    states = timeline(trace, config)
    draw_overlay(path, folder / "seen" / "copy.mp4", trace, config, title=path.name)
    trace.close()
    assert (folder / "seen" / "copy.mp4").stat().st_mode & 0o777 == 0o600
    size = record_dtype(config.size, config.mesh).itemsize
    rows = [(folder / r.spool).read_bytes()[r.start * size : r.stop * size] for r in result.rows if r.spool]
    used = {row.spool for row in result.rows if row.spool}
    assert {p.name for p in folder.iterdir()} == used | {"seen"}
    with av.open(str(folder / "seen" / "copy.mp4")) as container:
        frames = [(float(f.time), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    return frames, states, rows


@pytest.fixture(scope="module")
def seen(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory):
    """The clip with a gap, annotated once."""
    return annotated(clips["gap"], tmp_path_factory.mktemp("seen"))


def states_of(path: Path, folder: Path, **settings) -> tuple[list[State], int]:
    """The state of every frame, and the number of rows; nothing is drawn."""
    config = dataclasses.replace(CONFIG, **settings)
    folder.mkdir()
    trace = Trace(folder / "v")
    result = process_video(path, config, folder / "v", trace=trace)
    states = timeline(trace, config)
    trace.close()
    return [State(int(state)) for state in states], sum(bool(row.spool) for row in result.rows)


def names(states: np.ndarray) -> str:
    """One letter for each frame."""
    return "".join(State(int(state)).name[0].lower() for state in states)


def test_every_frame_and_its_state(clips: dict[str, Path], seen, tmp_path: Path) -> None:
    frames, states, rows = seen
    assert len(frames) == 20
    assert names(states) == "o" * 8 + "i" * 2 + "o" * 7 + "n" * 3
    # The same result as without looking at it.
    plain = tmp_path / "plain"
    plain.mkdir()
    result = process_video(clips["gap"], CONFIG, plain / "v")
    assert [(plain / result.rows[0].spool).read_bytes()] == rows
    # Enlarged by a whole factor, with a strip below; the states' colours stand in the line at its end.
    width, height = frames[0][1].shape[1], frames[0][1].shape[0]
    assert width == 1000 and height == 800 + 164
    bar = frames[0][1][-5, :, :].astype(int)
    at = [int((k + 0.5) * width / 20) for k in (4, 9, 18)]
    green, amber, red = bar[at]
    assert green[1] > green[0] and amber[0] > amber[2] + 80 and red[0] > red[1] + 80


def test_what_is_drawn_lies_on_the_face(clips: dict[str, Path], seen) -> None:
    frames, _, rows = seen
    records = np.frombuffer(rows[0], record_dtype(48, False))
    with VideoReader(clips["gap"]) as reader:
        plain = [frame.rgb() for frame in reader]
    changed = np.abs(frames[5][1][:800].astype(int) - np.kron(plain[5], np.ones((5, 5, 1)))).sum(axis=2) > 120
    points = np.round((records["landmarks"][5] + 0.5) * 5 - 0.5).astype(int)
    assert changed[points[:, 1], points[:, 0]].mean() > 0.95
    far = np.ones_like(changed)
    low, high = points.min(axis=0) - 190, points.max(axis=0) + 190
    far[max(0, low[1]) : high[1], max(0, low[0]) : high[0]] = False
    assert changed[far].mean() < 0.02
    # Nobody in the last frames: the picture alone.
    assert (np.abs(frames[18][1][:800].astype(int) - 90) < 25).mean() > 0.98


def test_times_are_the_sources(clips: dict[str, Path], tmp_path: Path) -> None:
    frames, states, _ = annotated(clips["uneven"], tmp_path / "a")
    times = np.array(timestamps_of(clips["uneven"]))
    np.testing.assert_allclose([time for time, _ in frames], times - times[0], atol=1e-3)
    assert names(states) == "o" * 10


def test_others_and_shorter_stretches_are_shown_as_not_kept(clips: dict[str, Path], tmp_path: Path) -> None:
    frames, states, rows = annotated(clips["apart"], tmp_path / "apart")
    assert [int(s) for s in states] == [State.OTHER] * 8 + [State.NOBODY] * 9 + [State.OBSERVED] * 9
    assert len(rows) == 1 and len(frames) == 26
    both = {State.OBSERVED}
    for settings, expected, n_rows in (
        ({}, both, 1),
        ({"subject": "all"}, both, 2),
        ({"max_yaw_degrees": 1e-6}, {State.TURNED}, 0),
        ({"min_frames": 50}, {State.OTHER}, 0),
    ):
        found, n = states_of(
            clips["two"], tmp_path / "-".join(settings) if settings else tmp_path / "x", **settings
        )
        assert (set(found), n) == (expected, n_rows), settings


@pytest.mark.parametrize(("width", "height"), [(31, 17), (480, 640), (1921, 1081), (4000, 300)])
def test_any_size_of_picture(width: int, height: int) -> None:
    line = np.array([State.DAMAGED, State.OBSERVED], np.uint8)
    page = Page(width, height, "x" * 300 + " \x1b[31m 微笑", line, 2)
    assert page.width % 2 == page.height % 2 == 0 and 560 <= page.width <= 1920
    points = np.random.default_rng(0).uniform(-1e6, 1e6, (68, 2))
    frame = Frame.from_rgb(np.full((height, width, 3), 200, np.uint8), 1, 3723.5)
    people = [
        Shown(n, State.OBSERVED, "kept", raw=points, smoothed=points, face=np.zeros((9, 9), np.uint8))
        for n in range(12)
    ]
    assert page.draw(frame, people).shape == (page.height, page.width, 3)
    assert page.draw(frame, []).shape == (page.height, page.width, 3)


# --- names ---------------------------------------------------------------------------------------------------------


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_name_is_never_a_path(a: str, b: str) -> None:
    name = safe_name(a)
    assert (
        name and "/" not in name and "\\" not in name and "\0" not in name and not name.startswith((".", "-"))
    )
    assert len(name.encode()) <= 120
    assert (safe_name(b) == name) == (a == b)


def test_names_that_people_use_stay() -> None:
    for name in ("001_deliberate_smile_2", "Ünïcode smile – 微笑 (1)", "a.b-c [2]#1"):
        assert safe_name(name) == name
    assert safe_name("../../etc/passwd") == "etc_passwd-" + safe_name("../../etc/passwd")[-8:]
    assert safe_name("NUL") != "NUL" and safe_name("") and safe_name("a/s1") != safe_name("a_s1")


# --- runs ----------------------------------------------------------------------------------------------------------


def run(
    folder: Path,
    output: Path,
    overlay: Path | None,
    notes: list[str] | None = None,
    config: PrepConfig = CONFIG,
):
    def on_event(event) -> None:
        if event.kind == "video" and event.piece.note and notes is not None:
            notes.append(f"{event.file}: {event.piece.note}")

    return prep(
        discover([folder]).videos, output, config, RunOptions(workers=1, overlay=overlay), on_event=on_event
    )


def test_a_run_draws_all_and_changes_nothing(clips: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(clips["two"], folder / "sub" / "same.mp4")
    shutil.copy(clips["uneven"], folder / "same.mkv")
    (folder / "broken.mp4").write_bytes(b"no video")
    run(folder, tmp_path / "plain.h5", None)
    copies = tmp_path / "copies"
    copies.mkdir()
    notes: list[str] = []
    # One name is taken by a folder: that copy fails, its video does not.
    ids = {video.file: video.id for video in discover([folder]).videos}
    blocked = f"{safe_name(ids['same.mkv'])}.mp4"
    (copies / blocked / "x").mkdir(parents=True)
    run(folder, tmp_path / "seen.h5", copies, notes)
    a, b = FaceDataset(tmp_path / "plain.h5"), FaceDataset(tmp_path / "seen.h5")
    assert a.videos["id"] == b.videos["id"] and a.videos["message"] == b.videos["message"]
    for row in range(len(a)):
        for name in a.fields:
            np.testing.assert_array_equal(a.read(row, name), b.read(row, name))
    assert len(notes) == 1 and "no annotated copy" in notes[0]
    drawn = sorted(p.name for p in copies.iterdir() if p.is_file())
    assert len(drawn) == 1 and copies.stat().st_mode & 0o077 in (0, 0o055)
    # Finished videos are drawn as well, where a copy is missing.
    shutil.rmtree(copies / blocked)
    before = (copies / drawn[0]).stat().st_mtime_ns
    summary = run(folder, tmp_path / "seen.h5", copies)
    assert summary.done_now == 0 and (copies / blocked).is_file()
    assert (copies / drawn[0]).stat().st_mtime_ns == before
    shards = (tmp_path / "seen.shards").iterdir()
    assert not [p.name for p in shards if p.name.startswith((".work", ".annotating"))]


def test_no_folder_to_draw_into(clips: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NemoError, match="cannot hold annotated videos"):
        run(clips["two"].parent, tmp_path / "out.h5", tmp_path / "file" / "sub")
    assert not (tmp_path / "out.h5").exists()


def test_frame_rates(tmp_path: Path, clips: dict[str, Path]) -> None:
    """Odd rates keep their times to within a tick."""
    path = write_clip(tmp_path / "ntsc.mp4", acted(9, SIZE, face), fps=Fraction(30000, 1001))
    frames, _, _ = annotated(path, tmp_path / "a")
    np.testing.assert_allclose([time for time, _ in frames], np.arange(9) * 1001 / 30000, atol=2e-5)
