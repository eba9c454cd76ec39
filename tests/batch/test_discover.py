"""What counts as a video, in which order, under which name."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nemo_pipeline.batch.discover import discover, name_videos, read_list
from nemo_pipeline.errors import DataError
from nemo_pipeline.stages.decode import VideoReader
from tests.support.clips import smooth_pictures, write_clip


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.fsencode(path.name))
    return path


def files(found):
    return [video.file for video in found.videos]


def reasons(found):
    return {Path(item.path).name: item.reason for item in found.skipped}


def test_natural_order_and_extensions(tmp_path):
    for name in ("clip10.mp4", "clip9.MP4", "b/clip1.avi", "notes.txt", "labels.csv", "x.h5"):
        touch(tmp_path / name)
    found = discover([tmp_path])
    assert files(found) == ["b/clip1.avi", "clip9.MP4", "clip10.mp4"]
    assert [video.id for video in found.videos] == ["clip1", "clip9", "clip10"]
    assert set(reasons(found)) == {"notes.txt", "labels.csv", "x.h5"}


def test_a_named_file_may_have_any_extension(tmp_path):
    assert files(discover([touch(tmp_path / "clip.bin")])) == ["clip.bin"]


CONTENTS = {
    "a.mpegts": {"codec": "libx264", "container": "mpegts"},
    "b.tod": {"codec": "mpeg2video", "container": "mpeg"},
    "c.mod": {"codec": "mpeg2video", "container": "mpeg"},
    "d.dat": {"codec": "mpeg1video", "container": "mpeg"},
    "e.raw": {"codec": "libx264", "container": "h264"},
    "f.bin": {"codec": "libx265", "container": "hevc"},
    "g": {"codec": "libx264", "container": "mp4"},
    "h.clip": {"codec": "libx264", "container": "matroska"},
    "i.part": {"codec": "wmv2", "container": "asf"},
    "j.x": {"codec": "mpeg4", "container": "avi"},
    "k.x": {"codec": "mpeg4", "container": "nut"},
    "l.x": {"codec": "libx264", "container": "flv"},
    "m.x": {"codec": "mpeg2video", "container": "mxf"},
    "n.x": {"codec": "rawvideo", "container": "yuv4mpegpipe"},
    "o.x": {"codec": "mpeg2video", "container": "mpeg2video"},
    "p.gif": {"codec": "gif", "pixel_format": "rgb8", "container": "gif"},
    "q.ts": {"codec": "libx264", "container": "mpegts"},
    "r.x": {"codec": "libvpx", "container": "ivf"},
    "s.m2t": {"codec": "mpeg2video", "container": "mpegts"},
    "t.x": {"codec": "libx264", "container": "mpegts", "container_options": {"mpegts_m2ts_mode": "1"}},
    "u.x": {"codec": "mjpeg", "pixel_format": "yuvj420p", "value_range": "full", "container": "mjpeg"},
    "v.x": {"codec": "mpeg4", "container": "m4v"},
}


def test_an_extension_that_says_nothing_is_looked_into(tmp_path):
    """Whatever holds video is taken, and what only looks so by its extension is not."""
    for name, options in CONTENTS.items():
        write_clip(tmp_path / name, smooth_pictures(30, 96, 64), **options)
    picture = Image.fromarray(smooth_pictures(1, 96, 64)[0])
    others = {
        "code.ts": b"export const clip: number = 1;\n" * 40,
        "GGGG.ts": b"G" * 4000,
        "model.mod": b"var x;\n" * 40,
        "free.x": b"The free text, and nothing else. " * 9,
        "noise.x": np.random.default_rng(3).bytes(5000),
        "empty.x": b"",
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    for name in ("still.gif", "photo.x", "scan.y"):
        kind = {"still.gif": "GIF", "photo.x": "JPEG", "scan.y": "PNG"}[name]
        picture.save(tmp_path / name, kind)
    (tmp_path / "photo2.x").write_bytes((tmp_path / "photo.x").read_bytes() * 2)  # a photo and its copy
    with av.open(str(tmp_path / "song.x"), "w", format="ogg") as out:
        stream = out.add_stream("flac", rate=16000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), "s16", "mono")
        samples.rate = 16000
        out.mux([*stream.encode(samples), *stream.encode()])
    os.mkfifo(tmp_path / "pipe.x")
    found = discover([tmp_path])
    assert files(found) == sorted(CONTENTS)
    for video in found.videos:  # nothing is taken by its content that cannot be decoded
        with VideoReader(video.path) as reader:
            assert sum(1 for _ in reader) >= 29, video.file
    assert {name for name, reason in reasons(found).items() if "content" in reason} == {
        *others, "still.gif", "photo.x", "photo2.x", "scan.y", "song.x", "pipe.x"
    }  # fmt: skip


def test_a_cameras_small_copy_is_left_out_and_said(tmp_path):
    write_clip(tmp_path / "GX01.MP4", smooth_pictures(3, 96, 64))
    write_clip(tmp_path / "GL01.LRV", smooth_pictures(3, 48, 32), container="mp4")
    found = discover([tmp_path])
    assert files(found) == ["GX01.MP4"]
    assert [item.loud for item in found.skipped] == [True]
    assert "small copy" in found.skipped[0].reason
    assert files(discover([tmp_path / "GL01.LRV"])) == ["GL01.LRV"]


def test_equal_stems_get_distinct_ids_whatever_the_order(tmp_path):
    for name in ("a/same.mp4", "a/same.avi", "b/same.mp4", "b/other.mp4", "b/same.mp4.avi"):
        touch(tmp_path / name)
    one = discover([tmp_path / "a", tmp_path / "b"])
    two = discover([tmp_path / "b", tmp_path / "a"])
    assert one.videos == two.videos
    ids = [video.id for video in one.videos]
    assert len(set(ids)) == 5 and "other" in ids
    assert "a/same.mp4" in ids and "b/same.mp4" in ids and "same.avi" in ids
    assert len(set(files(one))) == 5


@given(st.sets(st.from_regex(r"/[ab]/([ab]/)?[ab](\.[ab]){0,3}", fullmatch=True), min_size=1, max_size=8))
def test_names_are_unique(paths):
    videos = name_videos({path: path.split("/", 2)[2] for path in paths})
    assert len({video.id for video in videos}) == len({video.file for video in videos}) == len(paths)


def test_link_loops_end_and_are_said(tmp_path):
    touch(tmp_path / "real/clip.mp4")
    (tmp_path / "real/loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "real")
    (tmp_path / "self.mp4").symlink_to(tmp_path / "self.mp4")
    found = discover([tmp_path])
    # A link to itself is a video that cannot be read: the run says so.
    assert files(found) == ["real/clip.mp4", "self.mp4"]
    assert "searched already" in reasons(found)["loop"] + reasons(found).get("again", "")


def test_links_to_folders_outside_are_followed(tmp_path):
    touch(tmp_path / "store/clip.mp4")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/linked").symlink_to(tmp_path / "store")
    assert files(discover([tmp_path / "in"])) == ["linked/clip.mp4"]


def test_what_is_no_video_is_said(tmp_path):
    touch(tmp_path / "._clip.mp4")
    touch(tmp_path / ".hidden.mp4")
    touch(tmp_path / "folder.mp4/inner.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    found = discover([tmp_path])
    assert files(found) == ["folder.mp4/inner.mp4"]
    said = reasons(found)
    assert "macOS" in said["._clip.mp4"] and "hidden" in said[".hidden.mp4"]
    assert "folder" in said["folder.mp4"] and "pipe" in said["pipe.mp4"]


def test_the_same_file_twice_counts_once(tmp_path):
    clip = touch(tmp_path / "clip.mp4")
    (tmp_path / "link.mp4").symlink_to(clip)
    found = discover([tmp_path, clip, f"{tmp_path}/../{tmp_path.name}/clip.mp4"])
    assert len(found.videos) == 1
    assert any("the same file" in item.reason for item in found.skipped)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder_is_said(tmp_path):
    touch(tmp_path / "shut/clip.mp4")
    (tmp_path / "shut").chmod(0)
    try:
        assert "cannot be read" in reasons(discover([tmp_path]))["shut"]
    finally:
        (tmp_path / "shut").chmod(0o700)


def test_names_that_are_no_utf8(tmp_path):
    name = b"[/b]caf\xe9 $a^^b$\n.mp4"
    (tmp_path / "[").mkdir()
    (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    (video,) = discover([tmp_path]).videos
    assert os.fsencode(video.file) == name
    assert video.path.read_bytes() == b"x"


def test_patterns_filters_and_limit(tmp_path):
    for name in ("s1/a.mp4", "s1/b.mp4", "s2/a.mp4", "s2/c.mp4"):
        touch(tmp_path / name)
    assert len(discover([f"{tmp_path}/**/a.mp4"]).videos) == 2
    assert files(discover([tmp_path], include=["s1/*"])) == ["s1/a.mp4", "s1/b.mp4"]
    assert files(discover([tmp_path], exclude=["a.*"])) == ["s1/b.mp4", "s2/c.mp4"]
    assert files(discover([tmp_path], limit=1)) == ["s1/a.mp4"]
    with pytest.raises(DataError, match="no file matches"):
        discover([f"{tmp_path}/*.wmv"])
    with pytest.raises(DataError, match="does not exist"):
        discover([tmp_path / "none"])


def test_a_name_with_brackets_is_not_a_pattern(tmp_path):
    touch(tmp_path / "clip[1].mp4")
    assert files(discover([tmp_path / "clip[1].mp4"])) == ["clip[1].mp4"]


def test_list_files():
    assert read_list(b"a.mp4\r\n\n b.mp4\ncaf\xe9.mp4") == ["a.mp4", " b.mp4", os.fsdecode(b"caf\xe9.mp4")]
    assert read_list(b"a\nb.mp4\0c.mp4\0") == ["a\nb.mp4", "c.mp4"]


def test_a_listed_file_that_vanished_stays(tmp_path):
    found = discover([], listed=[str(tmp_path / "gone.mp4")])
    assert files(found) == ["gone.mp4"]
