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

from nemo_pipeline import PrepConfig
from nemo_pipeline.batch.cluster import Event
from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.overlay import draw_overlays, make_overlay_folder
from nemo_pipeline.errors import DataError, OutputError
from nemo_pipeline.stages.decode import VideoReader
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.reader import FaceVideo
from nemo_pipeline.store.text import safe_name
from nemo_pipeline.view.annotated import annotation
from nemo_pipeline.view.overlay import draw_overlay, overlay_mark, timeline
from nemo_pipeline.view.overlay_draw import Page
from nemo_pipeline.view.overlay_strip import FrameState, PersonInFrame
from tests.support.clips import acted, other_person, person, sway, timestamps_of, write_clip
from tests.support.prepared import prepared_here

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


def rows_in(data: FaceDataset) -> list[FaceVideo]:
    return [data[row] for row in data.rows]


def annotated(
    path: Path, folder: Path, config: PrepConfig = CONFIG
) -> tuple[list[tuple[float, np.ndarray]], FaceDataset]:
    """(time, picture) of the annotated copy, and the file that it was drawn from."""
    folder.mkdir(exist_ok=True)
    data = prepared_here(path, folder / "out.h5", config)
    copy = folder / "copy.mp4"
    draw_overlay(path, copy, rows_in(data))
    assert copy.stat().st_mode & 0o777 == 0o600 and annotation(copy) == overlay_mark(rows_in(data))
    with av.open(str(copy)) as container:
        return [(float(f.time), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)], data


@pytest.fixture(scope="module")
def seen(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory):
    """The clip with a gap, annotated once."""
    return annotated(clips["gap"], tmp_path_factory.mktemp("seen"))


def names(data: FaceDataset) -> str:
    """One letter for the state of each frame."""
    return "".join(FrameState(int(state)).name[0].lower() for state in timeline(rows_in(data)))


def test_every_frame_and_its_state(seen) -> None:
    frames, data = seen
    assert len(frames) == 20
    assert names(data) == "t" * 8 + "i" * 2 + "t" * 7 + "n" * 3
    # Enlarged by a whole factor, with a strip below; the states' colours stand in the line at its end.
    width, height = frames[0][1].shape[1], frames[0][1].shape[0]
    assert width == 1000 and height == 800 + 164
    bar = frames[0][1][-5, :, :].astype(int)
    at = [int((k + 0.5) * width / 20) for k in (4, 9, 18)]
    green, amber, gray = bar[at]
    assert green[1] > green[0] + 80 and amber[0] > amber[2] + 80 and np.ptp(gray) < 60


def test_what_is_drawn_lies_on_the_face(clips: dict[str, Path], seen) -> None:
    frames, data = seen
    with VideoReader(clips["gap"]) as reader:
        plain = [frame.rgb() for frame in reader]
    changed = np.abs(frames[5][1][:800].astype(int) - np.kron(plain[5], np.ones((5, 5, 1)))).sum(axis=2) > 120
    points = np.round((data[0].landmarks[5] + 0.5) * 5 - 0.5).astype(int)
    assert changed[points[:, 1], points[:, 0]].mean() > 0.95
    far = np.ones_like(changed)
    low, high = points.min(axis=0) - 190, points.max(axis=0) + 190
    far[max(0, low[1]) : high[1], max(0, low[0]) : high[0]] = False
    assert changed[far].mean() < 0.02
    # Nobody in the last frames: the picture alone.
    assert (np.abs(frames[18][1][:800].astype(int) - 90) < 25).mean() > 0.98


def test_times_are_the_sources(clips: dict[str, Path], tmp_path: Path) -> None:
    frames, data = annotated(clips["uneven"], tmp_path / "a")
    times = np.array(timestamps_of(clips["uneven"]))
    np.testing.assert_allclose([time for time, _ in frames], times - times[0], atol=1e-3)
    assert names(data) == "t" * 10


@pytest.mark.parametrize(
    ("clip", "settings", "states", "n_rows"),
    [
        ("apart", {}, "n" * 17 + "t" * 9, 1),
        ("apart", {"segments": "all"}, "t" * 8 + "n" * 9 + "t" * 9, 2),
        ("two", {"follow": "all", "mesh": True}, "t" * 9, 2),
        ("two", {"max_yaw_degrees": 1e-6}, "n" * 9, 0),
    ],
)
def test_several_rows_and_none(
    clips: dict[str, Path], tmp_path: Path, clip: str, settings: dict, states: str, n_rows: int
) -> None:
    """What the file does not hold is not drawn; a video without a row says why."""
    frames, data = annotated(clips[clip], tmp_path, dataclasses.replace(CONFIG, **settings))
    assert (names(data), len(data.usable), len(frames)) == (states, n_rows, len(states))


def test_another_video_than_the_one_that_was_prepared(clips: dict[str, Path], seen, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not the video that was prepared"):
        draw_overlay(clips["uneven"], tmp_path / "copy.mp4", rows_in(seen[1]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("width", "height"), [(31, 17), (480, 640), (1921, 1081), (4000, 300)])
def test_any_size_of_picture(width: int, height: int) -> None:
    line = np.array([FrameState.NOT_KEPT, FrameState.TRACKED], np.uint8)
    page = Page(width, height, "x" * 300 + " \x1b[31m 微笑", line, "no_face: " + "y" * 300)
    assert page.width % 2 == page.height % 2 == 0 and 560 <= page.width <= 1920
    points = np.random.default_rng(0).uniform(-1e6, 1e6, (68, 2))
    frame = Frame.from_rgb(np.full((height, width, 3), 200, np.uint8), 1, 3723.5)
    people = [
        PersonInFrame(
            n, FrameState.TRACKED, f"#{n}/s1", raw=points, smoothed=points, face=np.zeros((9, 9), np.uint8)
        )
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


def test_all_videos_of_a_file_are_drawn_once(clips: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(clips["two"], folder / "sub" / "same.mp4")
    shutil.copy(clips["uneven"], folder / "same.mkv")
    (folder / "broken.mp4").write_bytes(b"no video")
    videos, copies = discover([folder]).videos, tmp_path / "copies"

    def draw(data: FaceDataset) -> dict[str, str]:
        """Why there is no copy ("" where there is one), of those that were tried."""
        events: list[Event] = []
        draw_overlays(data, videos, copies, on_event=events.append)
        return {event.file: event.text for event in events if event.kind != "stage"}

    data = prepared_here(folder, tmp_path / "out.h5", CONFIG)
    # One name is taken by a folder.
    taken, other = (copies / f"{safe_name(video.id)}.mp4" for video in videos if "same" in video.file)
    (taken / "x").mkdir(parents=True)
    make_overlay_folder(copies, videos)
    notes = draw(data)
    assert notes["sub/same.mp4"] == "" and "could not be drawn" in notes["same.mkv"] and len(notes) == 2
    assert [p for p in copies.glob("[!.]*") if p.is_file()] == [other]
    # The next time what is missing is drawn, and nothing else.
    shutil.rmtree(taken)
    before = other.stat().st_mtime_ns
    assert draw(data) == {"same.mkv": ""}
    assert other.stat().st_mtime_ns == before and draw(data) == {}
    # Other faces, other copies; somebody else's file stays.
    other.write_bytes(b"mine")
    notes = draw(prepared_here(folder, tmp_path / "other.h5", dataclasses.replace(CONFIG, size=32)))
    assert (
        notes["same.mkv"] == "" and "is not an annotated copy" in notes[""] and other.read_bytes() == b"mine"
    )
    with pytest.raises(OutputError, match="was not drawn by nemo: give `overlay` another"):
        make_overlay_folder(copies, videos)


def test_no_folder_to_draw_into(clips: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be used for `overlay`"):
        make_overlay_folder(tmp_path / "file" / "sub", discover([clips["two"]]).videos)


def test_frame_rates(tmp_path: Path, clips: dict[str, Path]) -> None:
    """Odd rates keep their times to within a tick."""
    path = write_clip(tmp_path / "ntsc.mp4", acted(9, SIZE, face), fps=Fraction(30000, 1001))
    frames, _ = annotated(path, tmp_path / "a")
    np.testing.assert_allclose([time for time, _ in frames], np.arange(9) * 1001 / 30000, atol=2e-5)
