"""Decode: files that are not videos, and every way in which one can be broken."""

import os
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from nemo_pipeline.stages.decode import DecodeError, VideoReader
from nemo_pipeline.stages.frame import Frame
from tests.support.clips import MOTION_JPEG, smooth_pictures, write_clip
from tests.support.decoded import PICTURES, read


def failure(path: Path) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        read(path)
    return caught.value


def test_what_is_no_video_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("Dear diary,\n" * 50)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile clip.mp4\n")
    write_clip(tmp_path / "clip.mp4", PICTURES[:2])
    os.mkfifo(tmp_path / "pipe.mp4")
    Image.new("L", (200, 100)).save(tmp_path / "shot.png")
    Image.new("L", (200, 100)).save(tmp_path / "photo.mp4", "JPEG")
    cases = {
        "text.mp4": ("decode_error", "cannot be opened as a video"),
        "empty.mp4": ("unreadable", "empty"),
        "noise.mkv": ("decode_error", "cannot be opened as a video"),
        "list.mp4": ("not_a_video", "playlist"),
        "pipe.mp4": ("unreadable", "pipe"),
        "shot.png": ("not_a_video", "single picture"),
        "photo.mp4": ("not_a_video", "single picture"),
        "missing.mp4": ("unreadable", "cannot be read"),
        ".": ("unreadable", "folder"),
    }
    for name, (status, words) in cases.items():
        error = failure(tmp_path / name)
        assert error.status == status
        assert words in str(error)
        assert "\n" not in str(error)


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", PICTURES[:2])
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    error = failure(path)
    assert error.status == "unreadable"
    assert "ermission" in str(error)


def test_an_unknown_codec_is_said(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", PICTURES[:2], codec="ffv1")
    path.write_bytes(path.read_bytes().replace(b"V_FFV1", b"V_XXXX"))
    error = failure(path)
    assert error.status == "decode_error"
    assert "No decoder" in str(error)


NOISY = [
    np.clip(p.astype(int) + np.random.default_rng(k).integers(-20, 21, p.shape), 0, 255).astype(np.uint8)
    for k, p in enumerate(smooth_pictures(40, 96, 64))
]
CONTAINERS = {
    "mp4, index first": ("a.mp4", {"container_options": {"movflags": "faststart"}}),
    "mp4, fragments": ("b.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "mkv": ("c.mkv", {}),
    "avi": ("d.avi", {"codec": "mpeg4"}),
    "webm": ("e.webm", {"codec": "libvpx-vp9"}),
    "wmv": ("f.wmv", {"codec": "wmv2"}),
    "mov": ("g.mov", {**MOTION_JPEG, "container_options": {"movflags": "faststart"}}),
    "mpeg": ("h.mpg", {"codec": "mpeg2video"}),
    "ts": ("i.ts", {}),
    "flv": ("j.flv", {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def noisy_clip(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """Writes a clip of one kind once: path and the sound frames in it, by time."""
    folder = tmp_path_factory.mktemp("noisy")
    made: dict[str, tuple[Path, dict[float, np.ndarray]]] = {}

    def make(kind: str) -> tuple[Path, dict[float, np.ndarray]]:
        if kind not in made:
            name, options = CONTAINERS[kind]
            path = write_clip(folder / name, NOISY, **{"options": {"g": "10"}, **options})
            frames, report, _ = read(path)
            assert len(frames) == 40 and not report.damage
            made[kind] = path, {round(f.time, 6): f.gray() for f in frames}
        return made[kind]

    return make


def as_in(sound: dict[float, np.ndarray], frame: Frame) -> float:
    """Mean difference from the sound copy's frame of that time, gray levels."""
    return float(np.abs(frame.gray().astype(int) - sound[round(frame.time, 6)]).mean())


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_cut_file_gives_what_comes_before_the_cut(kind: str, noisy_clip, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path, sound = noisy_clip(kind)
    data = path.read_bytes()
    cut = tmp_path / path.name
    cut.write_bytes(data[: int(len(data) * 0.55)])
    frames, report, reader = read(cut)
    assert 15 <= len(frames) <= 26
    assert report.damage
    assert max(as_in(sound, frame) for frame in frames) < 0.5  # every one of them sound
    if path.suffix not in (".mpg", ".ts", ".flv"):  # these do not say how long they are
        assert report.missing_bytes > 0
        assert "cut off" in report.damage
    assert reader.info.fps == pytest.approx(30, rel=0.05)


def test_a_last_picture_that_is_cut_off_is_missed(noisy_clip, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path, _ = noisy_clip("mp4, index first")
    with av.open(str(path)) as container:
        last = max(packet.pos for packet in container.demux(video=0) if packet.pos is not None)
    size, cut = path.stat().st_size, tmp_path / path.name
    for place in (last, last + 3):
        cut.write_bytes(path.read_bytes()[:place])
        frames, report, _ = read(cut)
        assert len(frames) >= 38 and report.damage
        assert report.missing_bytes == size - place


def test_a_cut_file_with_its_index_at_the_end_is_told_from_rubbish(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", NOISY)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    error = failure(path)
    assert error.status == "decode_error"
    assert "cut off" in str(error) and "bytes missing" in str(error)


def test_damage_inside_is_left_out_up_to_the_next_key_frame(noisy_clip, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for kind in ("mp4, index first", "avi", "wmv", "mov", "mpeg"):
        path, sound = noisy_clip(kind)
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 90] = np.random.default_rng(4).bytes(90)
        spoilt = tmp_path / path.name
        spoilt.write_bytes(bytes(data))
        frames, report, _ = read(spoilt)
        assert report.damage, kind
        assert report.n_errors + report.n_damaged >= 1
        assert 20 <= len(frames) < 40, kind
        assert max(as_in(sound, frame) for frame in frames) < 2.0, kind
        # Frame numbers count what was decoded, so the hole shows.
        assert frames[-1].index == report.n_frames - 1


@pytest.mark.parametrize("seed", range(6))
def test_random_damage_never_raises(seed: int, noisy_clip, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    for kind in CONTAINERS:
        path, _ = noisy_clip(kind)
        data = bytearray(path.read_bytes())
        for at in rng.integers(0, len(data), 40):
            data[at] = rng.integers(256)
        for at in rng.integers(0, 400, 6):  # headers too
            data[at] = rng.integers(256)
        spoilt = tmp_path / path.name
        spoilt.write_bytes(bytes(data[: int(rng.integers(200, len(data)))]))
        try:
            frames, _, _ = read(spoilt)
        except DecodeError as error:
            assert error.status in ("decode_error", "not_a_video")
            continue
        times = [frame.time for frame in frames]
        assert (np.diff(times) > 0).all()


def test_a_reader_closes_what_it_opened(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", PICTURES[:2])
    (tmp_path / "text.mp4").write_text("no video " * 100)
    handles = Path("/proc/self/fd")
    before = len(list(handles.iterdir())) if handles.exists() else 0
    for _ in range(20):
        with VideoReader(path) as reader:
            next(iter(reader))
        failure(tmp_path / "text.mp4")
    if before:
        assert len(list(handles.iterdir())) <= before + 1
