"""Decode: what recorders and cameras make of containers: sizes never filled in, packets without a picture, recordings
joined end to end, streams without times, pictures end to end."""

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from nemo_pipeline.stages.decode import DecodeError, VideoReader
from nemo_pipeline.stages.truncation import missing_bytes
from tests.support.clips import MOTION_JPEG, smooth_pictures, video_frame, write_clip
from tests.support.decoded import read

PICTURES = smooth_pictures(30, 96, 64)


# --- sizes that are wrong though nothing is missing ----------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_avi(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_clip(tmp_path_factory.mktemp("avi") / "a.avi", PICTURES, **MOTION_JPEG).read_bytes()


def with_sizes(data: bytes, riff: int, movi: int | None = None) -> bytes:
    """An AVI with other sizes in its RIFF chunk and in its list of frames."""
    changed = bytearray(data)
    changed[4:8] = struct.pack("<I", riff)
    if movi is not None:
        at = data.index(b"movi") - 4
        changed[at : at + 4] = struct.pack("<I", movi)
    return bytes(changed)


@pytest.mark.parametrize("excess", [1, 8, 1000, None])
def test_a_riff_size_that_is_too_large_says_nothing(
    excess: int | None, whole_avi: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "clip.avi"
    path.write_bytes(with_sizes(whole_avi, 0x7FFFFFFF if excess is None else len(whole_avi) - 8 + excess))
    frames, report, _ = read(path)
    assert len(frames) == 30
    assert not report.damage


@pytest.mark.parametrize("placeholder", [0, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("counted", [False, True])
def test_a_recorder_that_never_came_back_to_its_headers(
    placeholder: int, counted: bool, whole_avi: bytes, tmp_path: Path
) -> None:
    """No index, sizes that were never filled in, the number of frames perhaps; cut off in the middle of a frame."""
    data = bytearray(with_sizes(whole_avi[: whole_avi.rindex(b"idx1")], placeholder, placeholder))
    if not counted:
        data[48:52] = bytes(4)
    path = tmp_path / "clip.avi"
    path.write_bytes(data)
    frames, report, _ = read(path)
    assert len(frames) == 30
    assert not report.damage
    path.write_bytes(data[: len(data) * 7 // 10])
    frames, report, _ = read(path)
    assert 15 < len(frames) < 25
    assert not report.missing_bytes  # how many bytes, nobody knows
    assert "bytes" not in report.damage


def test_a_cut_avi_is_told_by_its_list_of_frames(whole_avi: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    for riff in (len(whole_avi) - 8, len(whole_avi), 0x7FFFFFFF):
        cut = with_sizes(whole_avi, riff)[: len(whole_avi) * 7 // 10]
        path.write_bytes(cut)
        frames, report, _ = read(path)
        assert 15 < len(frames) < 25
        index_bytes = len(whole_avi) - whole_avi.rindex(b"idx1")
        assert report.missing_bytes == len(whole_avi) - index_bytes - len(cut)
        assert "the file is cut off" in report.damage


def test_frames_that_all_came_are_not_missing(tmp_path: Path) -> None:
    """A box of an mp4 that claims more than is there, while every frame that the index counts is."""
    path = write_clip(tmp_path / "clip.mp4", PICTURES, container_options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat") - 4
    data[at : at + 4] = struct.pack(">I", 0x7FFFFFFF)
    path.write_bytes(data)
    frames, report, _ = read(path)
    assert len(frames) == 30 and not report.damage
    path.write_bytes(data[: len(data) * 3 // 4])
    frames, report, _ = read(path)
    assert len(frames) < 30
    assert 0 < report.missing_bytes < len(data)  # as the index says, not the box
    path = write_clip(tmp_path / "index_last.mp4", PICTURES)
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat") - 4
    data[at : at + 4] = struct.pack(">I", 0x7FFFFFFF)
    path.write_bytes(data[: data.rindex(b"moov") - 4])
    with pytest.raises(DecodeError, match="cannot be opened") as caught:
        VideoReader(path)
    assert "bytes missing" not in str(caught.value)


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.wmv", "wmv2")])
def test_cut_files_of_other_containers(name: str, codec: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / name, PICTURES, codec=codec)
    data = path.read_bytes()
    assert missing_bytes(path) == 0
    for part in (0.5, 0.95):
        cut = data[: int(len(data) * part)]
        path.write_bytes(cut)
        assert 0 < missing_bytes(path) <= len(data) - len(cut)


def test_a_segment_and_a_file_size_that_are_too_large_say_nothing(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", PICTURES)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x18\x53\x80\x67") + 4
    assert data[at] == 1  # a number of 8 bytes
    data[at + 1 : at + 8] = (1 << 41).to_bytes(7, "big")
    path.write_bytes(data)
    assert missing_bytes(path) == 0
    path = write_clip(tmp_path / "a.wmv", PICTURES, codec="wmv2")
    data = bytearray(path.read_bytes())
    at = data.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")) + 40
    data[at : at + 8] = (len(data) + 5000).to_bytes(8, "little")
    path.write_bytes(data)
    assert missing_bytes(path) == 0
    data[16:24] = (1 << 63).to_bytes(8, "little")  # of the header: no position in a file
    path.write_bytes(data)
    assert missing_bytes(path) == 0


def test_sound_that_begins_late(tmp_path: Path) -> None:
    """After 7 MB: a stream that appears when the list of streams is made already."""
    path = write_clip(tmp_path / "a.flv", PICTURES, codec="flv1")

    def tag(kind: int, data: bytes) -> bytes:
        length = len(data).to_bytes(3, "big")
        return bytes([kind]) + length + bytes(7) + data + (11 + len(data)).to_bytes(4, "big")

    with path.open("ab") as file:
        file.write(tag(18, bytes(1 << 20)) * 7 + tag(8, b"\x3e" + bytes(100)))
    frames, report, _ = read(path)
    assert len(frames) == len(PICTURES) and not report.damage


# --- packets that say "as before" ----------------------------------------------------------------------------------


def not_coded(packet: av.Packet, rate: int) -> bytes:
    """An MPEG-4 packet reduced to its header, which says that nothing is coded (vop_coded = 0)."""
    data = bytes(packet)
    at = data.index(b"\x00\x00\x01\xb6") + 4
    bits = "".join(f"{byte:08b}" for byte in data[at : at + 16])
    end = bits.index("0", 2) + 1  # modulo_time_base
    end += 1 + (rate - 1).bit_length() + 1  # marker, time increment, marker
    assert bits[end] == "1"
    head = bits[:end] + "00"
    head += "1" * (-len(head) % 8)
    return data[:at] + int(head, 2).to_bytes(len(head) // 8, "big")


def write_held(path: Path, held: set[int], b_frames: int, empty: bool) -> list[int]:
    """30 frames at 25/s; those in `held` are not coded (empty chunks, or packets without a picture). Answers the
    frames that are coded."""
    coded = []
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25, options={"bf": str(b_frames), "g": "12"})
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        frames = []
        for k in range(30):
            frame = video_frame(PICTURES[k], "yuv420p")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            frames.append(frame)
        for packet in [p for frame in [*frames, None] for p in stream.encode(frame)]:
            if packet.pts in held:
                less = av.Packet(b"" if empty else not_coded(packet, 25))
                less.stream, less.time_base = stream, packet.time_base
                less.pts, less.dts, less.duration = packet.pts, packet.dts, packet.duration
                packet = less
            else:
                coded.append(packet.pts)
            out.mux(packet)
    return sorted(coded)


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("held", [{5, 6, 7, 15, 16, 25}, {1, 28}])
def test_packets_without_a_picture_keep_their_time(held: set[int], empty: bool, tmp_path: Path) -> None:
    coded = write_held(tmp_path / "clip.avi", held, 0, empty)
    frames, report, _ = read(tmp_path / "clip.avi")
    assert [round(frame.time * 25, 6) for frame in frames] == coded
    assert not report.damage and not report.notes


def test_packets_without_a_picture_among_reordered_ones(tmp_path: Path) -> None:
    held = {4, 5, 14, 19}  # of type B, which nothing leans on
    path = tmp_path / "clip.avi"
    write_held(path, set(), 2, False)
    with av.open(str(path)) as container:
        kinds = [int(picture.pict_type) for picture in container.decode(video=0)]
    held = {k for k in held if kinds[k] == 3}
    assert len(held) >= 3
    coded = write_held(path, held, 2, False)
    frames, _, _ = read(path)
    times = [round(frame.time * 25, 6) for frame in frames]
    assert times == coded


# --- recordings joined end to end ----------------------------------------------------------------------------------


def numbered(n: int) -> list[np.ndarray]:
    """Pictures whose mean level says which is which."""
    return [np.clip(p.astype(int) // 2 + 3 * k, 0, 255).astype(np.uint8) for k, p in enumerate(PICTURES[:n])]


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_transport_streams_joined_lose_nothing(codec: str, tmp_path: Path) -> None:
    """The count of pieces jumps at the joint, so the carrier marks a packet there though it is whole."""
    options = {"codec": codec, "options": {"bf": "2", "g": "15"}}
    one = write_clip(tmp_path / "1.ts", numbered(23), **options)
    two = write_clip(tmp_path / "2.ts", numbered(30), **options)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() + two.read_bytes())
    frames, report, _ = read(joined)
    expected = [*read(one)[0], *read(two)[0]]
    assert len(frames) == len(expected) == 53
    for got, want in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(got.planes[0], want.planes[0])
    assert not report.damage
    np.testing.assert_allclose(np.diff([frame.time for frame in frames]), 1 / 30, atol=1e-3)
    assert [note for note in report.notes if "set back 1 time" in note]
    assert not [note for note in report.notes if "missing or out of order" in note]


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_pieces_lost_on_the_way_are_no_joint(codec: str, tmp_path: Path) -> None:
    """Pieces (188 bytes) taken out: whatever is still given out is as in the whole file."""
    noisy = [
        np.clip(p.astype(int) + np.random.default_rng(k).integers(-20, 21, p.shape), 0, 255).astype(np.uint8)
        for k, p in enumerate(PICTURES)
    ]
    path = write_clip(tmp_path / "a.ts", noisy, codec=codec, options={"bf": "2", "g": "10"})
    sound = {round(frame.time, 5): frame.gray().astype(int) for frame in read(path)[0]}
    data = path.read_bytes()
    pieces = [data[at : at + 188] for at in range(0, len(data), 188)]
    lossy, n_lost = tmp_path / "lossy.ts", 0
    for seed, length in enumerate((1, 1, 3, 25)):
        at = int(np.random.default_rng(seed).integers(len(pieces) // 3, len(pieces) - 30))
        lossy.write_bytes(b"".join(pieces[:at] + pieces[at + length :]))
        frames, report, _ = read(lossy)
        assert report.damage
        n_lost += 30 - len(frames)
        for frame in frames:
            assert np.abs(frame.gray() - sound[round(frame.time, 5)]).mean() < 0.5
    assert n_lost < 60


# --- times ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec"), [("a.h264", "libx264"), ("a.hevc", "libx265"), ("a.m2v", "mpeg2video")]
)
@pytest.mark.parametrize("fps", [Fraction(30), Fraction(30000, 1001), Fraction(50)])
def test_a_raw_stream_has_the_rate_that_its_pictures_state(
    name: str, codec: str, fps: Fraction, tmp_path: Path
) -> None:
    frames, report, reader = read(write_clip(tmp_path / name, PICTURES[:12], codec=codec, fps=fps))
    np.testing.assert_allclose(np.diff([frame.time for frame in frames]), 1 / float(fps), atol=1e-6)
    assert reader.info.fps == pytest.approx(float(fps))
    assert f"evenly at {float(fps):.4g} per second" in report.notes[0]


def test_times_before_zero_are_called_that(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for k, picture in enumerate(PICTURES[:8]):
            frame = video_frame(picture, "yuv420p")
            frame.pts, frame.time_base = k - 3, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    frames, report, _ = read(path)
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(8) / 25, atol=1e-9)
    assert report.notes == ("times began 0.12 s before zero and were moved to begin at zero",)


# --- pictures end to end -------------------------------------------------------------------------------------------


def as_file(picture: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("name", ["clip.mjpeg", "clip.mp4", "clip.bin"])
def test_pictures_end_to_end_are_a_video(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"".join(as_file(picture, kind) for picture in PICTURES[:12]))
    frames, report, reader = read(path)
    assert len(frames) == 12
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(12) / 25, atol=1e-9)
    assert reader.info.fps == 25
    assert not report.damage
    assert "25 per second, which is assumed" in report.notes[0]
    path.write_bytes(
        b"".join(as_file(picture, kind) for picture in PICTURES[:2])
    )  # a photo and its thumbnail
    with pytest.raises(DecodeError, match="single picture"):
        VideoReader(path)


def test_animated_pictures(tmp_path: Path) -> None:
    pictures = [Image.fromarray(picture) for picture in PICTURES[:6]]
    for name in ("a.gif", "a.png", "a.webp"):
        pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=100)
    for name in ("a.gif", "a.png"):
        frames, report, reader = read(tmp_path / name)
        assert len(frames) == 6 and not report.damage
        assert reader.info.fps == pytest.approx(10, rel=0.01)
    with pytest.raises(DecodeError, match="animated WebP") as caught:
        VideoReader(tmp_path / "a.webp")
    assert caught.value.status == "decode_error"
    pictures[0].save(tmp_path / "still.webp")
    with pytest.raises(DecodeError, match="single picture"):
        VideoReader(tmp_path / "still.webp")
