"""Files with several video streams: which one is used, what is said of it, and that everybody uses the same one."""

import dataclasses
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from nemo_cli.main import main
from nemo_pipeline import PrepConfig, prep_video, track_video
from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.overlay import draw_overlays, make_overlay_folder
from nemo_pipeline.batch.run import PrepInputs, RunOptions, prep
from nemo_pipeline.datatypes import VideoInfo, VideoResult
from nemo_pipeline.stages.container import DecodeError
from nemo_pipeline.stages.decode import VideoReader
from nemo_pipeline.stages.streams import open_video
from nemo_pipeline.store import FaceDataset
from tests.support.clips import acted, person, smooth_pictures, sway, video_frame

N = 24
CONFIG = PrepConfig(size=48)


def face(width: int, height: int, eye_px: float, n: int = N) -> list[np.ndarray]:
    def at(k: int):  # type: ignore[no-untyped-def]
        dx, dy = sway(k, 3.0)
        return [(person(), person().placed(width / 2 + dx, height * 0.42 + dy, eye_px, 3 * np.sin(k / 6)))]

    return acted(n, (width, height), at)


def write_streams(path: Path, streams: Sequence[list[np.ndarray]], default: int = 0) -> Path:
    """One file with several video streams at 12/s; `default` is the one that it calls so."""
    with av.open(str(path), "w") as out:
        added = []
        for k, pictures in enumerate(streams):
            stream = out.add_stream(
                "libx264", rate=12, options={"preset": "ultrafast", "crf": "20", "g": "10"}
            )
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.disposition = av.stream.Disposition.default if k == default else 0
            stream.codec_context.thread_count = 1
            added.append(stream)
        for k in range(max(map(len, streams))):
            for stream, pictures in zip(added, streams, strict=True):
                if k < len(pictures):
                    frame = video_frame(pictures[k], "yuv420p")
                    frame.pts, frame.time_base = k, Fraction(1, 12)
                    out.mux(stream.encode(frame))
        for stream in added:
            out.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("streams")
    screen, webcam = smooth_pictures(N, 320, 180), face(200, 180, 50)
    one = screen[:1]
    made = {
        "screen.mkv": [screen, webcam],
        "proxy.mp4": [face(80, 72, 20), webcam],
        "thumbnail.mkv": [one, webcam],
        "thumbnail.mov": [one, webcam],
        "cameras.mp4": [webcam, face(200, 180, 55)],
        "nobody.mkv": [screen, screen[::-1]],
        "late.mp4": [screen * 3, smooth_pictures(2 * N, 200, 180) + webcam],
    }
    return {name: write_streams(folder / name, streams) for name, streams in made.items()}


@pytest.mark.parametrize("name", ["screen.mkv", "proxy.mp4", "thumbnail.mkv", "thumbnail.mov", "late.mp4"])
def test_the_stream_with_the_person_is_found(files: dict[str, Path], name: str) -> None:
    video = prep_video(files[name], CONFIG)
    assert video.status == "ok", video.message
    assert (video.info.stream, video.info.width, video.info.height) == (1, 200, 180)
    assert len(video) == N
    assert "video stream 1 was used (200x180 h264" in video.message
    assert "not 0 (" in video.message
    if name.startswith("thumbnail"):
        assert "a single picture" in video.message
    track = track_video(files[name], CONFIG)
    assert track.info == video.info
    assert track.tracked.sum() == N


def test_the_files_own_choice_stays_where_faces_are_about_as_large(files: dict[str, Path]) -> None:
    assert prep_video(files["cameras.mp4"], CONFIG).info.stream == 0


def test_without_a_face_the_message_names_both(files: dict[str, Path]) -> None:
    video = prep_video(files["nobody.mkv"], CONFIG)
    assert video.status == "no_face" and video.info.stream == 0
    assert "not 1 (320x180 h264, no face in 3 looks)" in video.message


@pytest.mark.parametrize(
    ("name", "wish", "stream"),
    [
        ("screen.mkv", "largest", 0),
        ("screen.mkv", "default", 0),
        ("screen.mkv", "1", 1),
        ("proxy.mp4", "largest", 1),
        ("proxy.mp4", "default", 0),
        ("proxy.mp4", "0", 0),
        ("thumbnail.mkv", "default", 1),
        ("thumbnail.mkv", "0", 0),
        ("cameras.mp4", "largest", 0),
    ],
)
def test_a_wish(files: dict[str, Path], name: str, wish: str, stream: int) -> None:
    with open_video(files[name], wish, None) as reader:
        assert reader.info.stream == stream
        assert f"video stream {stream} was used" in reader.report.notes[0]


def test_a_stream_that_is_not_there(files: dict[str, Path]) -> None:
    with pytest.raises(
        DecodeError, match=r"no video stream of number 7; it has 0 \(320x180 h264\), 1 \(200x180"
    ):
        open_video(files["screen.mkv"], "7", None)
    video = prep_video(files["screen.mkv"], dataclasses.replace(CONFIG, stream="7"))
    assert video.status == "not_a_video"
    for wish in ("faces", "-1", "1.5", "", "²"):
        with pytest.raises(ValueError, match="stream is"):
            PrepConfig(stream=wish)


def test_one_stream_is_not_spoken_of(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "a.mp4", [face(200, 180, 50, 8)])
    video = prep_video(path, CONFIG)
    assert (video.status, video.message, video.info.stream) == ("ok", "", 0)


def test_a_sample_is_spread_over_the_video(files: dict[str, Path], tmp_path: Path) -> None:
    for name, stream, seconds in (("screen.mkv", 1, 2), ("late.mp4", 0, 6)):
        with VideoReader(files[name], stream) as reader:
            times = [frame.time for frame in reader.sample(8)]
        assert len(times) >= 5 and times == sorted(times)
        assert max(times) - min(times) > 0.6 * seconds
    short = write_streams(tmp_path / "a.mp4", [smooth_pictures(3, 64, 48)])
    with VideoReader(short) as reader:
        assert 1 <= len(list(reader.sample(8))) <= 3


def test_what_was_used_is_stored_and_used_again(files: dict[str, Path], tmp_path: Path) -> None:
    """In the file, in `nemo info`, in the second pass of --mean-shape from-data, and in the annotated copy."""
    found = discover([files["screen.mkv"]])
    output, copies = tmp_path / "out.h5", tmp_path / "copies"
    config = dataclasses.replace(CONFIG, mean_shape="from-data")
    prep(PrepInputs(found.videos), output, config, RunOptions(workers=1))
    data = FaceDataset(output)
    make_overlay_folder(copies, found.videos)
    draw_overlays(data, found.videos, copies)
    assert [(video.status, video.stream, video.width) for video in data.values()] == [("ok", 1, 200)]
    assert all("video stream 1 was used" in video.message for video in data.values())
    with h5py.File(output) as file:
        assert file["videos/stream"][()].tolist() == [1]
    assert track_video(
        copies / "screen.mp4", CONFIG
    ).tracked.all()  # the webcam's picture and not the screen's
    runner = CliRunner()
    facts = json.loads(runner.invoke(main, ["info", str(output), "--json"]).stdout)
    assert facts["video_streams"] == {"1": 1}
    facts = json.loads(runner.invoke(main, ["info", str(files["screen.mkv"]), "--json"]).stdout)
    assert facts["video_streams"] == ["0: 320x180 h264 (default)", "1: 200x180 h264"]


def test_results_of_before_say_nothing_of_a_stream() -> None:
    result = VideoResult.failed("no_face", "Nobody.", VideoInfo(width=3))
    values = result.to_dict()
    del values["info"]["stream"]
    assert VideoResult.from_dict(values).info.stream == -1
