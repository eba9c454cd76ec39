"""Pictures as rows of one frame: what is read, whatever it is stored as, and what the command makes of folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from nemo_pipeline import PrepConfig, landmarks_in_image, prep_video
from nemo_pipeline.batch.discover import discover_any
from nemo_pipeline.batch.plan import Plan, shard_groups
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.stages.decode import DecodeError
from nemo_pipeline.stages.picture import read_picture
from nemo_pipeline.stages.warp import FaceWarp
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.video import prep_video_rows
from tests.support.commands import invoke

STILLS = PrepConfig(size=48, stills=True)
#: EXIF orientation -> what was done to the pixels, so that the tag turns them back.
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip


@pytest.fixture(scope="module")
def face() -> Image.Image:
    return Image.fromarray(skimage.data.astronaut()[:220, 110:330])


def saved(image: Image.Image, path: Path, **options) -> np.ndarray:
    image.save(path, **options)
    return read_picture(path).rgb.astype(int)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif", ".webp", ".bmp"])
def test_formats_are_read_as_they_are(face, tmp_path, ending):
    found = saved(face, tmp_path / f"face{ending}", quality=95)
    assert found.shape == (220, 220, 3)
    assert (
        np.abs(found - np.asarray(face).astype(int)).mean()
        < (0 if ending in (".png", ".tif", ".bmp") else 4) + 1e-9
    )


def test_heic_is_read_where_its_reader_is_installed(face, tmp_path):
    pytest.importorskip("pillow_heif")
    found = saved(face, tmp_path / "face.heic", quality=95)
    assert found.shape == (220, 220, 3)
    assert np.abs(found - np.asarray(face).astype(int)).mean() < 4
    row = prep_video(tmp_path / "face.heic", STILLS)
    assert (row.status, len(row), row.info.codec) == ("ok", 1, "heif")


def test_heic_without_its_reader_says_what_to_install(tmp_path):
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    row = prep_video(tmp_path / "photo.heic", STILLS)
    assert row.status == "decode_error" and (
        "pillow-heif" in row.message or "cannot be decoded" in row.message
    )


def test_gray_cmyk_palette_transparency_and_deep_pictures_have_the_same_levels(face, tmp_path):
    gray = np.asarray(face.convert("L"))
    truth = np.repeat(gray[..., None], 3, axis=2).astype(int)
    for name, image in {
        "gray.png": Image.fromarray(gray),
        "16.png": Image.fromarray(gray.astype(np.uint16) * 257),
        "16.tif": Image.fromarray(gray.astype(np.uint16) * 257),
        "fraction.tif": Image.fromarray((gray / 255).astype(np.float32)),
        "levels.tif": Image.fromarray(gray.astype(np.float32)),
        "whole.tif": Image.fromarray(gray.astype(np.int32)),
        "la.png": Image.fromarray(gray).convert("LA"),
    }.items():
        assert np.abs(saved(image, tmp_path / name) - truth).max() <= 1, name
    colour = np.asarray(face).astype(int)
    assert np.abs(saved(face.convert("CMYK"), tmp_path / "cmyk.jpg", quality=95) - colour).mean() < 3
    palette = face.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    assert np.abs(saved(palette, tmp_path / "palette.png") - colour).mean() < 4
    clear = face.convert("RGBA")
    clear.paste((255, 255, 255, 0), (0, 0, 220, 40))
    found = saved(clear, tmp_path / "clear.png")
    assert (found[:40] == 0).all() and (found[40:] == colour[40:]).all()


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_orientation_is_applied(face, tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{ending}"
    face.crop((0, 0, 220, 120)).transpose(TURNED[orientation]).save(path, exif=exif, quality=95)
    found = read_picture(path)
    assert found.rgb.shape == (120, 220, 3)
    assert np.abs(found.rgb.astype(int) - np.asarray(face).astype(int)[:120]).mean() < 5
    assert found.stored == ((120, 220) if orientation > 4 else (220, 120))


def test_deep_pictures_keep_their_orientation(face, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.asarray(face.convert("L").crop((0, 0, 220, 120)).transpose(TURNED[6])).astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png", exif=exif)
    assert read_picture(tmp_path / "deep.png").rgb.shape == (120, 220, 3)


def test_what_is_no_picture_is_said(face, tmp_path):
    face.save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:3000])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    for name, status, words in (
        ("cut.jpg", "decode_error", "truncated"), ("text.jpg", "decode_error", "not a picture"),
        ("empty.png", "unreadable", "empty"),
    ):  # fmt: skip
        with pytest.raises(DecodeError, match=words) as caught:
            read_picture(tmp_path / name)
        assert caught.value.status == status
        assert prep_video(tmp_path / name, STILLS).status == status


def test_a_row_is_that_of_the_six_looks_and_the_warp(face, tmp_path):
    path = tmp_path / "face.png"
    face.save(path)
    row = prep_video(path, STILLS)
    (points,) = landmarks_in_image(np.asarray(face))
    assert (row.status, len(row), row.info.fps, row.info.codec) == ("ok", 1, 0.0, "png")
    np.testing.assert_allclose(row.landmarks[0], points, atol=1e-3)
    np.testing.assert_array_equal(row.landmarks, row.landmarks_raw)
    assert row.tracked.all() and row.timestamps[0] == 0 and row.n_faces[0] == 1
    gray = np.asarray(face.convert("L"))
    assert np.abs(FaceWarp(size=48)(gray, points).astype(int) - row.frames[0]).mean() < 1.5


def test_several_faces_give_the_largest_the_central_or_all(face, tmp_path):
    both = Image.new("RGB", (500, 320))
    both.paste(face, (240, 60))
    both.paste(face.resize((150, 150)), (20, 20))
    both.save(tmp_path / "two.png")
    rows = prep_video_rows(tmp_path / "two.png", PrepConfig(size=48, stills=True, follow="all"))
    assert [row.person for row in rows] == [1, 2]
    assert rows[0].eye_distance_px[0] > 1.3 * rows[1].eye_distance_px[0]
    (largest,) = prep_video_rows(tmp_path / "two.png", STILLS)
    np.testing.assert_array_equal(largest.landmarks, rows[0].landmarks)
    assert largest.n_faces[0] == 2


def test_a_picture_without_a_face_says_so(tmp_path):
    Image.new("RGB", (200, 200), (120, 120, 120)).save(tmp_path / "flat.png")
    row = prep_video(tmp_path / "flat.png", STILLS)
    assert row.status == "no_face" and "NEW.png" in row.message and "clip" not in row.message


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(face, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in ("a.jpg", "b.png"):
        face.save(folder / name)
    (folder / "notes.txt").write_text("x")
    (folder / "labels.csv").write_text("video,subject,age\na,s1,30\nb,s2,40\n")
    return folder


def test_a_folder_of_pictures_is_recognised_and_one_with_a_video_is_not(folder, clips, tmp_path):
    found, stills = discover_any([folder])
    assert stills and [video.file for video in found.videos] == ["a.jpg", "b.png"]
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.jpg").write_bytes((folder / "a.jpg").read_bytes())
    (tmp_path / "mixed" / "v.mp4").write_bytes((clips / "clip0.mp4").read_bytes())
    found, stills = discover_any([tmp_path / "mixed"])
    assert not stills and [video.file for video in found.videos] == ["v.mp4"]
    found, stills = discover_any([tmp_path / "mixed"], stills=True)
    assert stills and [video.file for video in found.videos] == ["a.jpg"]
    assert discover_any([folder / "b.png"])[1], "a picture that is named"


def test_stills_share_a_shard_by_the_thousand():
    """Of 32 each, a training that reads them in any order would open a file for every picture."""
    pictures = [VideoFile(Path(f"{k}.jpg"), f"{k}", f"{k}.jpg") for k in range(2500)]
    groups = shard_groups(pictures, Plan({}, {}, tuple(pictures)), stills=True)
    assert [len(group) for group in groups] == [1024, 1024, 452]
    assert [video for group in groups for video in group] == pictures
    assert {len(group) for group in shard_groups(pictures, Plan({}, {}, tuple(pictures)))} == {32, 4}


def test_pictures_are_prepared_resumed_verified_and_added_to(folder, tmp_path):
    words = ("prep", folder, tmp_path / "out.h5", "--workers", "1", "--size", "48")
    done = invoke(*words)
    assert "2 pictures and no video: each becomes a row of one frame." in " ".join(done.stderr.split())
    data = FaceDataset(tmp_path / "out.h5")
    assert [(v.id, v.fps, len(v), v.age) for v in data.values()] == [("a", 0.0, 1, 30.0), ("b", 0.0, 1, 40.0)]
    assert data.config.stills
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out.shards").iterdir()}
    invoke(*words)
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out.shards").iterdir()}
    invoke("verify", tmp_path / "out.h5")
    about = json.loads(invoke("info", tmp_path / "out.h5", "--json").stdout)
    assert about
    invoke("report", tmp_path / "out.h5", tmp_path / "page.html")
    refused = invoke("prep", folder, tmp_path / "o.h5", "--landmarks", folder, code=2)
    assert "--landmarks is about videos" in " ".join(refused.stderr.split())
