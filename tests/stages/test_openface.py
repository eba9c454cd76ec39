"""Landmarks from elsewhere: OpenFace's files read, matched to videos, refused where they do not fit, and written."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from nemo_pipeline import PrepConfig, prep_video
from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.landmark_files import export_landmarks, face_ids, file_names, find_landmarks
from nemo_pipeline.batch.run import PrepInputs, RunOptions, prep
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.errors import DataError, OutputError
from nemo_pipeline.geometry import canonical_mesh
from nemo_pipeline.ibug68 import from_mesh
from nemo_pipeline.stages.openface import COLUMNS, FaceRow, LandmarksError, format_row, read_rows, survey
from nemo_pipeline.stages.pose import head_pose_68, rotation_matrix
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.facetrack import FaceTrack
from nemo_pipeline.video import prep_video_rows
from tests.support.clips import acted, other_person, person, sway, write_clip

SIZE = (200, 160)
TRACKED = PrepConfig(size=48)
GIVEN = PrepConfig(size=48, mesh=False, landmarks_source="openface")


def play(k: int):
    dx, dy = sway(k, 3.0)
    return [(person(), person().placed(100 + dx, 70 + dy, 50, 3 * np.sin(k / 6)))]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames of one face, with uneven times that begin at 2 s."""
    times = [60 + k + (k > 9) for k in range(20)]
    return write_clip(tmp_path_factory.mktemp("one") / "clip.mkv", acted(20, SIZE, play), times=times)


@pytest.fixture(scope="module")
def tracked(clip: Path) -> FaceTrack:
    return prep_video(clip, TRACKED)


def openface(path: Path, video: FaceTrack, **changes) -> Path:
    """A file as OpenFace's FeatureExtraction writes it: blanks, further columns, three decimals, times from 0.

    `drop`: frames (from 1) without a row. `low`: frame -> confidence. `lost`: frames with success 0.
    """
    names = [f"{axis}_{i}" for axis in ("x", "y") for i in range(68)]
    names += [f"{axis}_{i}" for axis in "XYZ" for i in range(68)]
    lines = [
        ", ".join(["frame", "face_id", "timestamp", "confidence", "success", "gaze_0_x", "pose_Rx", *names])
    ]
    for k in range(len(video)):
        if k + 1 in changes.get("drop", ()):
            continue
        good = k + 1 not in changes.get("lost", ())
        confidence = changes.get("low", {}).get(k + 1, 0.98 if good else 0.1)
        points = video.landmarks_raw[k].T.ravel() if good else np.zeros(136)
        time = video.timestamps[k] - video.timestamps[0]
        cells = [f"{k + 1}, 0, {time:.3f}, {confidence}, {int(good)}, 0.1, -0.2"]
        lines.append(", ".join([*cells, *(f"{v:.3f}" for v in points), *(["0"] * 204)]))
    path.write_text("\n".join(lines) + "\n")
    return path


# --- reading -------------------------------------------------------------------------------------------------------


def test_a_file_as_openface_writes_it(tracked: FaceTrack, tmp_path: Path) -> None:
    path = openface(tmp_path / "clip.csv", tracked, lost={4}, low={6: 0.3})
    rows = list(read_rows(path))
    assert [row.frame for row in rows] == list(range(1, 21))
    assert [row.success for row in rows].count(False) == 1 and not rows[3].success
    assert rows[5].confidence == 0.3 and rows[0].line == 2
    np.testing.assert_allclose(rows[7].landmarks, tracked.landmarks_raw[7], atol=6e-4)  # not X_0: those are 0
    found = survey(path)
    assert (found.n_frames, found.last_frame, found.faces) == (20, 20, {0})


def row_text(
    frame: object = 1, face: object = 0, time: object = 0, success: object = 1, points: object = 5
) -> str:
    return ", ".join(str(v) for v in [frame, face, time, 0.9, success, *([points] * 136)])


HEADER = ", ".join(COLUMNS)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "no column frame, confidence, success and 136 more"),
        (["face, confidence, x_0", "0, 1, 2"], "no column frame, success, x_1"),
        (["frame;timestamp;confidence", "1;0;1"], "separated by commas"),
        ([HEADER, row_text(0)], "line 2"),
        ([HEADER, row_text(1.5)], "frame 1.5"),
        ([HEADER, row_text("nan")], "frame nan"),
        ([HEADER, row_text(2), row_text(1)], "frame 1 in line 3 after frame 2"),
        ([HEADER, row_text(1), row_text(1)], "one row for each face"),
        ([HEADER, row_text("one")], "'one' for frame in line 2"),
        ([HEADER, row_text(points="oops")], "'oops' for x_0 in line 2"),
        ([HEADER, row_text(points="nan")], "not numbers in line 2"),
        ([HEADER, row_text(), "2, 0, 0.04, 0.9"], "4 columns in line 3 and 141"),
        (["video, " + HEADER, "a, " + row_text()], "several videos"),
    ],
)
def test_what_is_no_such_file_is_said(lines: list[str], words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(LandmarksError) as error:
        list(read_rows(path))
    assert words in str(error.value) and "bad.csv" in str(error.value) and "\n" not in str(error.value)


def test_lost_faces_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "clip.csv"
    path.write_text("\ufeff" + "\n".join([HEADER, row_text(success=0, points="-nan"), ""]))
    [row] = read_rows(path)
    assert not row.success and np.isnan(row.landmarks).all()


def test_rows_survive_the_file_to_the_last_bit(tmp_path: Path) -> None:
    points = np.random.default_rng(3).normal(300, 200, (68, 2)).astype(np.float32)
    row = FaceRow(2, 7, 3, 0.123456, 0.75, True, points.astype(np.float64))
    (tmp_path / "a.csv").write_text(HEADER + "\n" + format_row(row) + "\n")
    [got] = read_rows(tmp_path / "a.csv")
    np.testing.assert_array_equal(got.landmarks.astype(np.float32), points)
    assert dataclasses.replace(got, landmarks=row.landmarks) == row


# --- one video -----------------------------------------------------------------------------------------------------


def test_the_same_faces_from_a_file(clip: Path, tracked: FaceTrack, tmp_path: Path) -> None:
    video = prep_video(clip, GIVEN, landmarks=openface(tmp_path / "clip.csv", tracked))
    assert (video.status, len(video)) == ("ok", 20)
    np.testing.assert_array_equal(video.timestamps, tracked.timestamps)  # the video's own, not the file's
    np.testing.assert_allclose(video.landmarks, tracked.landmarks, atol=2e-3)
    assert np.abs(video.frames.astype(int) - tracked.frames).max() <= 2
    assert video.tracked.all() and np.allclose(video.face_presence, 0.98)
    assert (
        np.abs(video.eye_distance_px - tracked.eye_distance_px).max() < 0.1 * tracked.eye_distance_px.mean()
    )
    assert np.abs(video.pose - tracked.pose).max() < 8
    assert video.mesh is None


def test_frames_without_success_or_confidence_count_as_no_face(
    clip: Path, tracked: FaceTrack, tmp_path: Path
) -> None:
    path = openface(tmp_path / "clip.csv", tracked, lost={5}, low={9: 0.49, 10: 0.5})
    video = prep_video(clip, GIVEN, landmarks=path)
    assert np.flatnonzero(~video.tracked).tolist() == [4, 8]
    between = (video.landmarks_raw[3] + video.landmarks_raw[5]) / 2
    np.testing.assert_allclose(video.landmarks_raw[4], between, atol=0.02)  # times in whole milliseconds
    none = prep_video(clip, dataclasses.replace(GIVEN, min_confidence=0.99), landmarks=path)
    assert none.status == "no_face" and "`min_confidence`" in none.message and "clip.csv" in none.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"drop": {20}}, "for 19 frames, and 20 were decoded"),
        ({"drop": {8}}, "no row for frame 8, though one for frame 20"),
    ],
)
def test_another_number_of_frames_is_said(
    changes: dict, words: str, clip: Path, tracked: FaceTrack, tmp_path: Path
) -> None:
    video = prep_video(clip, GIVEN, landmarks=openface(tmp_path / "clip.csv", tracked, **changes))
    assert video.status == "landmarks_error" and not len(video)
    assert words in video.message and video.message.startswith("clip.csv")


def test_other_times_are_said_and_absent_ones_are_not_missed(
    clip: Path, tracked: FaceTrack, tmp_path: Path
) -> None:
    times = np.arange(20) / 30  # index / rate, which this clip does not have
    even = dataclasses.replace(tracked, arrays={**tracked.arrays, "timestamps": times})
    path = openface(tmp_path / "clip.csv", even)
    video = prep_video(clip, GIVEN, landmarks=path)
    assert video.status == "landmarks_error"
    assert "0.333 s for frame 11 (line 12)" in video.message and "2.367 s" not in video.message
    assert "remove its column timestamp" in video.message
    lines = [line.split(", ") for line in path.read_text().splitlines()]
    path.write_text("\n".join(", ".join(cells[:2] + cells[3:]) for cells in lines))
    assert prep_video(clip, GIVEN, landmarks=path).status == "ok"


def test_a_file_that_is_not_there_or_too_long(clip: Path, tracked: FaceTrack, tmp_path: Path) -> None:
    video = prep_video(clip, GIVEN, landmarks=tmp_path / "clip.csv")
    assert video.status == "landmarks_error" and "cannot be read" in video.message
    path = openface(tmp_path / "clip.csv", tracked)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[-1].replace("20, 0, 0.667", "21, 0, 0.700", 1)]))
    video = prep_video(clip, GIVEN, landmarks=path)
    assert video.status == "landmarks_error" and "for 21 frames, and 20" in video.message


def test_settings_without_their_file_are_a_fault_of_the_caller(clip: Path, tmp_path: Path) -> None:
    for config, landmarks in ((GIVEN, None), (TRACKED, tmp_path / "clip.csv")):
        with pytest.raises(ValueError, match="landmarks must be given"):
            prep_video(clip, config, landmarks=landmarks)
    with pytest.raises(ValueError, match="mesh is True"):
        PrepConfig(landmarks_source="openface")


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"), [(0, 0, 0), (30, 0, 0), (-25, 12, 8), (5, -20, -35), (0, 0, 170)]
)
def test_pose_of_68_points(yaw: float, pitch: float, roll: float) -> None:
    """The canonical face, turned and looked at from afar."""
    vertices = canonical_mesh()[0] @ rotation_matrix(yaw, pitch, roll).T * 7 + (300, 200, 0)
    mesh = np.zeros((478, 3))
    mesh[: len(vertices)] = vertices
    pose, eye_distance_px = head_pose_68(from_mesh(mesh))
    np.testing.assert_allclose(pose, (yaw, pitch, roll), atol=4)
    assert abs(eye_distance_px - np.linalg.norm(vertices[263] - vertices[33])) < 0.06 * eye_distance_px
    assert np.isnan(head_pose_68(np.full((68, 2), 3.0))[0]).all()


# --- many videos ---------------------------------------------------------------------------------------------------


def test_which_file_belongs_to_which_video(tmp_path: Path) -> None:
    files = ["a/clip.mp4", "b/clip.mp4", "b/clip.avi", "x.mp4", "x.mov", "z.mp4", "/far/y.mp4", "../up.mp4"]
    videos = [VideoFile(Path("/v") / file, file, file) for file in files]
    for name in ("a/clip.csv", "b/clip.mp4.csv", "clip.avi.csv", "x.csv", "y.csv", "up.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path.parent / "up.csv").write_text("outside")
    found = find_landmarks(tmp_path, videos)
    inside = {file: found[file].path.removeprefix(f"{tmp_path}/") for file in files}
    assert inside["a/clip.mp4"] == "a/clip.csv" and inside["b/clip.mp4"] == "b/clip.mp4.csv"
    assert inside["b/clip.avi"] == "clip.avi.csv" and inside["/far/y.mp4"] == "y.csv"
    assert inside["../up.mp4"] == "up.csv"  # never outside the folder
    for file, other in (("x.mp4", "x.mov"), ("x.mov", "x.mp4")):
        assert inside[file] == "" and other in found[file].problem and f"{file}.csv" in found[file].problem
    assert "z.csv was expected" in found["z.mp4"].problem and found["z.mp4"].sha256 == ""
    assert len(found["a/clip.mp4"].sha256) == 64
    with pytest.raises(DataError, match="not a folder"):
        find_landmarks(tmp_path / "x.csv", videos)


def test_written_names_are_found_again(tmp_path: Path) -> None:
    files = ["a/clip.mp4", "b/clip.mp4", "b/clip.avi", "x.mp4", "y.mov", "c/y.mov", "ü 微.mp4", "-x.csv.mp4"]
    names = file_names(files)
    assert names["x.mp4"].name == "x.csv" and len(set(names.values())) == len(files)
    for name in names.values():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_landmarks(tmp_path, [VideoFile(Path(file), file, file) for file in files])
    assert {file: Path(found[file].path) for file in files} == {
        file: tmp_path / names[file] for file in files
    }


def test_face_ids() -> None:
    assert face_ids([0]) == [0]
    assert face_ids([1, 2, 4]) == [0, 1, 2]
    assert face_ids([1, 1, 2]) == [0, 0, 1]
    assert face_ids([0, 0]) == [0, 1]  # they may be different people


@pytest.fixture(scope="module")
def folder(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos: one face, two faces side by side, nobody."""
    target = tmp_path_factory.mktemp("videos")
    shutil.copy(clip, target / "clip.mkv")

    def both(k: int):
        dx, dy = sway(k)
        other = other_person()
        return [*play(k), (other, other.placed(300 - dx, 75 + dy, 55))]

    write_clip(target / "two.mp4", acted(14, (420, 170), both))
    write_clip(target / "nobody.mp4", acted(8, SIZE, lambda k: []))
    return target


def run(folder: Path, output: Path, config: PrepConfig, landmarks: Path | None = None):
    videos = discover([folder]).videos
    found = None if landmarks is None else find_landmarks(landmarks, videos)
    return prep(PrepInputs(videos, landmarks=found or {}), output, config, RunOptions(workers=1))


@pytest.fixture(scope="module")
def everybody(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("all") / "out.h5"
    run(folder, output, dataclasses.replace(TRACKED, follow="all"))
    return output


def test_round_trip_through_our_own_files(folder: Path, everybody: Path, tmp_path: Path) -> None:
    data = FaceDataset(everybody)
    paths = export_landmarks(data, tmp_path)
    assert sorted(path.name for path in paths) == ["clip.csv", "nobody.csv", "two.csv"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)
    assert len((tmp_path / "two.csv").read_text().splitlines()) == 1 + 2 * 14
    config = dataclasses.replace(GIVEN, follow="all")
    run(folder, tmp_path / "again.h5", config, tmp_path)
    again = FaceDataset(tmp_path / "again.h5")
    assert again.videos["id"] == data.videos["id"] and again.videos["status"] == data.videos["status"]
    assert again["nobody"].status == "no_face"
    for row in data.usable:
        for name in (
            "frames",
            "landmarks",
            "landmarks_raw",
            "timestamps",
            "tracked",
            "frame_index",
            "sharpness",
        ):
            np.testing.assert_array_equal(again[row].read(name), data[row].read(name), err_msg=name)
        np.testing.assert_allclose(again[row].face_presence, data[row].face_presence, atol=1e-5)


def test_one_table_of_several_videos_and_of_one(everybody: Path, tmp_path: Path) -> None:
    data = FaceDataset(everybody)
    [path] = export_landmarks(data, tmp_path / "all.csv")
    lines = path.read_text().splitlines()
    assert lines[0].startswith("video,frame,face_id,timestamp,confidence,success,x_0")
    assert [line.split(",")[:3] for line in (lines[1], lines[-1])] == [
        ["clip#1", "1", "0"],
        ["two#2", "14", "1"],
    ]
    export_landmarks(data, tmp_path / "two.csv", only="two")
    assert {row.face for row in read_rows(tmp_path / "two.csv")} == {0, 1}
    export_landmarks(data, tmp_path / "second.csv", only="two#2")
    assert [row.face for row in read_rows(tmp_path / "second.csv")] == [0] * 14
    for only, words in (("nope", "no video has the id 'nope'"), ("nobody", "no frames")):
        with pytest.raises(DataError, match=words):
            export_landmarks(data, tmp_path / "x.csv", only=only)
    with pytest.raises(OutputError, match="cannot be written"):
        export_landmarks(data, tmp_path / "no" / "x.csv")


def test_a_changed_landmark_file_redoes_its_video_alone(
    folder: Path, everybody: Path, tmp_path: Path
) -> None:
    export_landmarks(FaceDataset(everybody), tmp_path)
    (tmp_path / "nobody.csv").unlink()
    output = tmp_path / "out.h5"
    first = run(folder, output, GIVEN, tmp_path)
    assert first.counts == {"ok": 2, "landmarks_error": 1}
    before = FaceDataset(output)["clip"].frames.tobytes()
    assert run(folder, output, GIVEN, tmp_path).done_now == 0
    path = tmp_path / "two.csv"
    header, *lines = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text(
        "\n".join(", ".join(cells) for cells in [header, *([*c[:3], "0.4", *c[4:]] for c in lines)])
    )
    second = run(folder, output, GIVEN, tmp_path)
    assert (second.done_before, second.done_now, second.counts) == (
        2,
        1,
        {"ok": 1, "landmarks_error": 1, "no_face": 1},
    )
    assert FaceDataset(output)["clip"].frames.tobytes() == before
    (tmp_path / "nobody.csv").write_text((tmp_path / "two.csv").read_text())
    third = run(folder, output, GIVEN, tmp_path)
    assert third.done_now == 1 and "nobody.csv" in FaceDataset(output)["nobody"].message
    with pytest.raises(DataError, match="landmarks_source openface there, track here"):
        run(folder, output, dataclasses.replace(TRACKED, mesh=False))


def test_the_subject_among_given_faces(folder: Path, everybody: Path, tmp_path: Path) -> None:
    export_landmarks(FaceDataset(everybody), tmp_path)
    path, clip = tmp_path / "two.csv", folder / "two.mp4"
    assert prep_video(clip, GIVEN, landmarks=path).landmarks[:, :, 0].mean() > 200  # the larger face
    both = prep_video_rows(clip, dataclasses.replace(GIVEN, follow="all"), landmarks=path)
    assert [video.person for video in both] == [1, 2] and (both[0].n_faces == 2).all()
    # As the program for several faces writes them: no rows where there is no face.
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith(("3,", "14,1", "14,0"))))
    video = prep_video(clip, GIVEN, landmarks=path)
    assert (video.status, len(video), (~video.tracked).sum()) == ("ok", 13, 1)
