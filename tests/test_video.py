"""One video from file to records: what is kept, under which name and status, and that it is the same whatever the
company, the block size and the length."""

import dataclasses
import gc
from pathlib import Path

import numpy as np
import pytest

from nemo_pipeline import (
    FaceWarp,
    PrepConfig,
    prep_video,
    smooth_4253h_twice,
    smooth_in_head_frame,
    track_video,
)
from nemo_pipeline import person as recorder
from nemo_pipeline import video as whole
from nemo_pipeline.datatypes import VideoResult, row_name
from nemo_pipeline.stages.decode import VideoReader
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.warp import Patch
from nemo_pipeline.store.facetrack import FaceTrack
from nemo_pipeline.store.schema import record_dtype
from nemo_pipeline.video import prep_video_rows, process_video
from tests.support.clips import Actor, acted, other_person, person, scene, smooth_pictures, sway, write_clip

A, B = person(), other_person()
SIZE = (240, 200)
CONFIG = PrepConfig()


def at(actor: Actor, k: int, x: float = 120, y: float = 85, eye_px: float = 55) -> tuple[Actor, np.ndarray]:
    dx, dy = sway(k, 3.0)
    return actor, actor.placed(x + dx, y + dy, eye_px, 3 * np.sin(k / 6))


def nobody(n: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    return [smooth_pictures(1, *size)[0] // 2 + 40] * n


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All the clips of this module, written once."""
    folder = tmp_path_factory.mktemp("clips")
    face = acted(40, SIZE, lambda k: [at(A, k)])
    dropout = list(face)
    for k in range(20, 25):
        dropout[k] = face[k].copy()
        dropout[k][20:170, 50:190] = 0
    long_gap = face[:16] + nobody(12) + face[16:34]
    cut = face[:14] + acted(18, SIZE, lambda k: [at(B, k)])
    two = acted(24, (480, 220), lambda k: [at(A, k, 130, 90, 50), at(B, k + 9, 350, 95, 58)])

    def three(k: int) -> list[tuple[Actor, np.ndarray]]:
        """One person off centre throughout; a larger one in the middle for a while; another there for a few frames."""
        middle = [at(B, k, 330, 90, 62)] if k < 9 else [at(A, k, 330, 90, 58)] if k >= 23 else []
        return [at(A, k, 110, 95, 52), *middle]

    made = {
        "three": (acted(27, (480, 220), three), {}),
        "face": (face, {}),
        "sideways": ([np.rot90(p) for p in face[:12]], {"rotation": -90}),
        "nobody": (nobody(20), {}),
        "dropout25": (dropout, {"fps": 25}),
        "dropout30": (dropout, {"fps": 30}),
        "gap": (long_gap, {}),
        "cut": (cut, {}),
        "two": (two, {}),
        "short": (face[:5], {}),
        "one": (face[:1], {}),
        "black": ([p // 64 for p in face[:12]], {}),
        "tiny": (acted(16, (96, 54), lambda k: [at(A, k, 48, 24, 15)]), {"quality": "10"}),
    }
    return {name: write_clip(folder / f"{name}.mp4", pictures, **o) for name, (pictures, o) in made.items()}


def process(path: Path, folder: Path, config: PrepConfig = CONFIG) -> tuple[VideoResult, list[bytes]]:
    """The result, and each row's records as bytes."""
    folder.mkdir(exist_ok=True)
    result = process_video(path, config, folder / "v")
    size = record_dtype(config).itemsize
    return result, [
        (folder / row.spool).read_bytes()[row.start * size : row.stop * size] if row.spool else b""
        for row in result.rows
    ]


def rows(path: Path, **settings: object) -> dict[str, FaceTrack]:
    found = prep_video_rows(path, dataclasses.replace(CONFIG, **settings))  # type: ignore[arg-type]
    return {row_name("", video.person, video.segment): video for video in found}


def gray_levels(path: Path) -> list[np.ndarray]:
    with VideoReader(path) as reader:
        return [frame.gray().copy() for frame in reader]


# --- one person ----------------------------------------------------------------------------------------------------


def test_a_plain_clip(clips: dict[str, Path]) -> None:
    video = prep_video(clips["face"])
    assert (video.status, video.message, video.person, video.segment) == ("ok", "", 0, 0)
    assert len(video) == video.n_decoded == 40
    assert (video.info.width, video.info.height, video.info.fps) == (*SIZE, 30)
    np.testing.assert_array_equal(video.frame_index, np.arange(40))
    np.testing.assert_allclose(video.timestamps, np.arange(40) / 30, atol=1e-6)
    assert video.tracked.all()
    assert video.frames.shape == (40, 114, 114)
    assert np.abs(video.eye_distance_px - 55).max() < 5
    assert np.abs(video.pose[:, 2] - 3 * np.sin(np.arange(40) / 6)).max() < 3
    assert (video.n_faces == 1).all()
    assert (video.face_presence > 0.9).all()
    assert (video.sharpness > 0).all()


def test_records_are_the_whole_computation_piece_by_piece(clips: dict[str, Path]) -> None:
    """The smoothed landmarks of the whole series at once, and the warp of whole frames: bounded memory changes
    nothing."""
    video, whole = prep_video(clips["dropout25"]), track_video(clips["dropout25"])
    np.testing.assert_array_equal(
        video.landmarks, smooth_in_head_frame(video.landmarks_raw).astype(np.float32)
    )
    np.testing.assert_array_equal(video.landmarks_raw, whole.landmarks_raw.astype(np.float32))
    np.testing.assert_allclose(video.landmarks, whole.landmarks, atol=1e-4)
    np.testing.assert_array_equal(video.tracked, whole.tracked)
    np.testing.assert_array_equal(video.mesh, whole.mesh)
    warp = FaceWarp()
    for gray, landmarks, face in zip(
        gray_levels(clips["dropout25"]), whole.landmarks, video.frames, strict=True
    ):
        assert np.abs(warp(gray, landmarks).astype(int) - face).max() <= 4


@pytest.mark.parametrize("how", ["4253h", "none"])
def test_other_ways_to_smooth(how: str, clips: dict[str, Path]) -> None:
    config = dataclasses.replace(CONFIG, smooth=how)
    video, whole = prep_video(clips["dropout25"], config), track_video(clips["dropout25"], config)
    expected = smooth_4253h_twice(video.landmarks_raw) if how == "4253h" else video.landmarks_raw
    np.testing.assert_array_equal(video.landmarks, expected.astype(np.float32))
    np.testing.assert_array_equal(whole.landmarks.astype(np.float32), video.landmarks)


def test_a_way_to_smooth_that_is_none() -> None:
    with pytest.raises(ValueError, match="smooth is 'much'"):
        PrepConfig(smooth="much")  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [1, 5, 64])
def test_the_block_size_is_invisible(
    block: int, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIG, segments="all")
    for name in ("gap", "dropout30"):
        expected = process(clips[name], tmp_path / f"{name}-a", config)
        with monkeypatch.context() as patch:
            patch.setattr(recorder, "_BLOCK", block)
            got = process(clips[name], tmp_path / f"{name}-b", config)
        assert got[0].rows == expected[0].rows
        assert got[1] == expected[1]


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    """Frames and patches that are alive at any time, in a clip with many gaps."""
    face = acted(30, SIZE, lambda k: [at(A, k)])
    for k in (9, 10, 19, 20, 21):
        face[k] = nobody(1)[0]
    path = write_clip(tmp_path / "long.mp4", face * 5)
    alive: list[tuple[int, int]] = []

    def count(_: int) -> None:
        objects = gc.get_objects()
        alive.append((sum(isinstance(o, Frame) for o in objects), sum(isinstance(o, Patch) for o in objects)))

    gc.collect()
    result = process_video(path, CONFIG, tmp_path / "v", progress=count)
    assert result.n_decoded == 150
    assert max(n for n, _ in alive) <= whole._BLOCK + 6  # a block, and the longest gap
    assert (
        max(n for _, n in alive) <= recorder._BLOCK + 20 + 6 + 2
    )  # a block, the smoother's support, the longest gap


def test_a_turned_clip_is_upright(clips: dict[str, Path]) -> None:
    video = prep_video(clips["sideways"])
    assert (video.info.width, video.info.height, video.info.rotation) == (*SIZE, 90)
    assert len(video) == 12
    straight = prep_video(clips["face"])
    assert np.abs(video.landmarks[3] - straight.landmarks[3]).max() < 3
    assert np.abs(video.frames[3].astype(int) - straight.frames[3]).mean() < 8


def test_a_tiny_face(clips: dict[str, Path]) -> None:
    video = prep_video(clips["tiny"])
    assert video.status == "ok"
    assert len(video) == 16
    assert np.median(video.eye_distance_px) == pytest.approx(15, abs=1.5)


# --- gaps, cuts, segments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dropout25", "dropout30"])
def test_a_short_dropout_is_interpolated_and_marked(name: str, clips: dict[str, Path]) -> None:
    video = prep_video(clips[name])
    assert len(video) == 40
    np.testing.assert_array_equal(np.flatnonzero(~video.tracked), range(20, 25))
    middle = video.landmarks_raw[19:26]
    np.testing.assert_allclose(middle[1:-1], (middle[:-2] + middle[2:]) / 2, atol=1e-3)
    assert np.isnan(video.face_presence[20:25]).all() and not np.isnan(video.face_presence[:20]).any()


def test_a_longer_gap_ends_the_segment(clips: dict[str, Path]) -> None:
    video = prep_video(clips["gap"])
    np.testing.assert_array_equal(video.frame_index, np.arange(28, 46))
    parts = rows(clips["gap"], segments="all")
    assert list(parts) == ["/s1", "/s2"]
    np.testing.assert_array_equal(parts["/s1"].frame_index, np.arange(16))
    np.testing.assert_array_equal(parts["/s2"].frame_index, np.arange(28, 46))
    np.testing.assert_array_equal(parts["/s2"].frames, video.frames)
    # Each is smoothed by itself.
    for part in parts.values():
        np.testing.assert_array_equal(
            part.landmarks, smooth_in_head_frame(part.landmarks_raw).astype(np.float32)
        )


def test_a_longer_gap_is_bridged_when_asked_to(clips: dict[str, Path]) -> None:
    video = rows(clips["gap"], max_gap_seconds=0.5)[""]
    assert len(video) == 46
    assert (~video.tracked).sum() == 12


def test_a_hard_cut_between_two_people_ends_the_segment(clips: dict[str, Path]) -> None:
    video = prep_video(clips["cut"])
    np.testing.assert_array_equal(video.frame_index, np.arange(14, 32))
    parts = rows(clips["cut"], segments="all")
    assert {suffix: len(part) for suffix, part in parts.items()} == {"/s1": 14, "/s2": 18}
    both = rows(clips["cut"], follow="all")
    assert {suffix: len(part) for suffix, part in both.items()} == {"#1": 14, "#2": 18}


PAUSES = [k + 40 * (k >= 9) + 22 * (k >= 20) for k in range(30)]
"""Numbers of the frames that a recorder keeps which drops repeated pictures: pauses of 1.3 and 0.77 s at 30/s."""


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_a_pause_is_no_gap(kind: str, tmp_path: Path) -> None:
    face = acted(30, SIZE, lambda k: [at(A, k)])
    how = {"codec": "gif", "pixel_format": "rgb8"} if kind == "gif" else {}
    path = write_clip(tmp_path / f"pauses.{kind}", face, times=PAUSES, **how)  # type: ignore[arg-type]
    video, whole = prep_video(path), track_video(path)
    assert video.tracked.all() and whole.tracked.all()
    np.testing.assert_array_equal(video.frame_index, np.arange(30))
    np.testing.assert_allclose(video.timestamps, np.array(PAUSES) / 30, atol=0.006 if kind == "gif" else 1e-6)
    # 4253H counts frames: what lies before a pause and after it is smoothed as one series.
    np.testing.assert_array_equal(
        video.landmarks, smooth_in_head_frame(video.landmarks_raw).astype(np.float32)
    )


def test_a_cut_or_a_jump_in_a_pause_ends_the_segment(tmp_path: Path) -> None:
    def elsewhere(k: int) -> list[tuple[Actor, np.ndarray]]:
        return [at(A, k, 60 if k < 9 else 185)]

    for name, play in (("cut", lambda k: [at(A if k < 9 else B, k)]), ("jump", elsewhere)):
        path = write_clip(tmp_path / f"{name}.mp4", acted(20, SIZE, play), times=PAUSES[:20])
        parts = rows(path, segments="all")
        assert [part.frame_index.tolist() for part in parts.values()] == [[*range(9)], [*range(9, 20)]]


# --- several people ------------------------------------------------------------------------------------------------


def side(video: FaceTrack) -> str:
    x = video.landmarks[..., 0].mean(axis=1)
    assert np.ptp(x) < 20  # one person throughout
    return "left" if x.mean() < 240 else "right"


def test_largest_and_central_keep_one_person_throughout(clips: dict[str, Path]) -> None:
    largest, central = rows(clips["two"])[""], rows(clips["two"], follow="central")[""]
    assert len(largest) >= 22 and len(central) >= 22
    assert side(largest) == "right"
    assert (side(central), side(largest)) == ("left", "right") or side(central) == "right"
    assert (largest.n_faces == 2).mean() > 0.8


def test_all_gives_everybody(clips: dict[str, Path]) -> None:
    everybody = rows(clips["two"], follow="all")
    assert list(everybody) == ["#1", "#2"]
    assert {side(video) for video in everybody.values()} == {"left", "right"}
    assert all(len(video) >= 20 and video.status == "ok" for video in everybody.values())
    parts = rows(clips["two"], follow="all", segments="all")
    assert list(parts) == ["#1/s1", "#2/s1"]


@pytest.mark.parametrize("follow", ["largest", "central", "all"])
def test_track_video_has_the_subject_that_prep_has(follow: str, clips: dict[str, Path]) -> None:
    config = dataclasses.replace(CONFIG, follow=follow)  # type: ignore[arg-type]
    video, track = prep_video(clips["three"], config), track_video(clips["three"], config)
    assert len(video) >= 9
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(track.landmarks[:, 0, 0])), video.frame_index)
    np.testing.assert_array_equal(track.landmarks_raw[video.frame_index].astype("f4"), video.landmarks_raw)


def test_track_video_keeps_the_segments_that_prep_keeps(clips: dict[str, Path]) -> None:
    assert np.isnan(track_video(clips["short"]).landmarks).all()
    config = PrepConfig(min_frames=5, segments="all")
    assert np.isfinite(track_video(clips["short"], config).landmarks).all()
    found = np.isfinite(track_video(clips["gap"], config).landmarks[:, 0, 0])
    np.testing.assert_array_equal(np.flatnonzero(found), [*range(16), *range(28, 46)])


# --- no state, no company ------------------------------------------------------------------------------------------


def test_alone_and_in_any_company_the_records_are_the_same(clips: dict[str, Path], tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, follow="all", segments="all")
    alone = {name: process(clips[name], tmp_path / name, config) for name in ("two", "gap")}
    for order in (("gap", "two", "nobody"), ("two", "tiny", "gap")):
        for k, name in enumerate(order):
            result, records = process(clips[name], tmp_path / f"{'-'.join(order)}{k}", config)
            if name in alone:
                assert result.rows == alone[name][0].rows
                assert records == alone[name][1]


def test_the_other_spools_are_removed(clips: dict[str, Path], tmp_path: Path) -> None:
    result, _ = process(clips["two"], tmp_path / "work")
    assert [p.name for p in (tmp_path / "work").iterdir()] == [row.spool for row in result.rows]


def test_without_the_mesh_and_with_another_size(clips: dict[str, Path]) -> None:
    video = rows(clips["face"], mesh=False, size=64, margin=0.1)[""]
    assert "mesh" not in video.arrays and video.mesh is None
    assert video.frames.shape == (40, 64, 64)
    np.testing.assert_array_equal(video.landmarks, prep_video(clips["face"]).landmarks)


# --- statuses ------------------------------------------------------------------------------------------------------


def status(path: Path, **settings: object) -> tuple[str, str]:
    """The status and sentence of a clip that gives no data."""
    (video,) = rows(path, **settings).values()
    assert not video.status.usable
    assert len(video) == 0
    assert video.message and "\n" not in video.message and video.message.rstrip().endswith(".")
    return video.status, video.message


def test_clips_without_data_say_why(clips: dict[str, Path], tmp_path: Path) -> None:
    assert status(clips["nobody"])[0] == "no_face"
    assert "20 frames" in status(clips["nobody"])[1]
    assert status(clips["short"])[0] == "too_short"
    assert status(clips["one"])[0] == "too_short"
    assert status(clips["face"], min_frames=41)[0] == "too_short"
    assert status(clips["face"], max_yaw_degrees=0.001)[0] == "head_turned"
    assert status(clips["black"])[0] in ("blank", "no_face")
    (tmp_path / "text.mp4").write_text("no video\n" * 99)
    (tmp_path / "empty.mp4").touch()
    assert status(tmp_path / "text.mp4")[0] == "decode_error"
    assert status(tmp_path / "empty.mp4")[0] == "unreadable"
    assert status(tmp_path)[0] == "unreadable"
    assert status(tmp_path / "missing.mp4")[0] == "unreadable"


def test_few_frames_are_data_when_few_are_asked_for(clips: dict[str, Path]) -> None:
    assert len(rows(clips["one"], min_frames=1)[""]) == 1
    assert len(rows(clips["short"], min_frames=5)[""]) == 5


def test_a_cut_file_keeps_what_is_there(clips: dict[str, Path], tmp_path: Path) -> None:
    face = acted(30, SIZE, lambda k: [at(A, k)])
    path = write_clip(tmp_path / "cut.mkv", face, options={"g": "10"})
    data = path.read_bytes()
    path.write_bytes(data[: int(0.6 * len(data))])
    video = prep_video(path)
    assert video.status == "damaged"
    assert "cut off" in video.message
    assert 10 <= len(video) == video.n_decoded < 30


def test_damage_in_the_middle_is_no_data(clips: dict[str, Path], tmp_path: Path) -> None:
    face = acted(45, SIZE, lambda k: [at(A, k)])
    path = write_clip(tmp_path / "clip.avi", face, codec="mpeg4", options={"g": "15"})
    sound = prep_video(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = np.random.default_rng(0).bytes(200)
    path.write_bytes(bytes(data))
    video = prep_video(path)
    assert video.status == "damaged"
    assert "damaged" in video.message or "decoded" in video.message
    assert 7 <= len(video) < 45
    same = np.abs(video.frames.astype(int) - sound.frames[video.frame_index]).mean(axis=(1, 2))
    assert same.max() < 3


@pytest.mark.parametrize("seed", range(4))
def test_no_damage_raises(seed: int, clips: dict[str, Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    for name in ("tiny", "short", "nobody"):
        data = bytearray(clips[name].read_bytes())
        for at_byte in rng.integers(0, len(data), 25):
            data[at_byte] = rng.integers(256)
        path = tmp_path / "spoilt.mp4"
        path.write_bytes(bytes(data))
        result, _ = process(path, tmp_path / "work")
        assert len(result.rows) >= 1


@pytest.mark.parametrize("size", [(2, 2), (16, 2), (4, 64), (8, 400)])
def test_pictures_of_any_shape(size: tuple[int, int], tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", smooth_pictures(3, *size), codec="rawvideo")
    assert status(path)[0] == "no_face"


def test_the_resolution_may_change_midway(tmp_path: Path) -> None:
    """The same scene, stored larger from the middle on: one segment in the geometry of the first picture."""
    scale = 1.25
    larger = (round(SIZE[0] * scale), round(SIZE[1] * scale))
    first = acted(12, SIZE, lambda k: [at(A, k)])
    second = [scene(larger, at(A, k, 120 * scale, 85 * scale, 55 * scale)) for k in range(12, 26)]
    parts = [write_clip(tmp_path / f"{k}.h264", pictures) for k, pictures in enumerate((first, second))]
    joined = tmp_path / "joined.h264"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    video = prep_video(joined)
    np.testing.assert_array_equal(video.frame_index, np.arange(26))
    assert video.status == "ok"
    assert (video.info.width, video.info.height) == SIZE
    size = video.eye_distance_px / video.eye_distance_px[:12].mean()
    assert np.abs(size - 1).max() < 0.05


def test_progress_is_told(clips: dict[str, Path], tmp_path: Path) -> None:
    told: list[int] = []
    process_video(clips["face"], CONFIG, tmp_path / "v", progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 40


def test_what_was_repaired_or_looks_odd_is_a_warning(tmp_path: Path) -> None:
    face = acted(10, SIZE, lambda k: [at(A, k)])
    woven = write_clip(tmp_path / "a.mpg", face, codec="mpeg2video", options={"flags": "+ilme+ildct"})
    timeless = write_clip(tmp_path / "b.h264", face)
    result, _ = process(woven, tmp_path / "work")
    assert result.rows[0].status == "ok"
    assert any("10 frames are interlaced" in warning for warning in result.warnings)
    result, _ = process(timeless, tmp_path / "work")
    assert result.rows[0].status == "ok"
    assert any("10 presentation times" in warning for warning in result.warnings)
