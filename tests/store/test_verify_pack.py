"""`verify` names every damage that is done to a file; `pack` and `relabel` change nothing but what they should."""

from __future__ import annotations

import shutil
import stat

import h5py
import numpy as np
import pytest

from nemo_pipeline.batch.assemble import relabel
from nemo_pipeline.batch.label_table import LabelTable
from nemo_pipeline.errors import DataError, OutputError
from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.store.pack import pack
from nemo_pipeline.store.shard import read_shards, shards_folder
from nemo_pipeline.store.verify import verify
from tests.support.videos import assert_equal, sound_videos


@pytest.fixture
def path(tmp_path):
    return write_dataset(tmp_path / "out.h5", sound_videos())


def errors(path):
    return [finding for finding in verify(path) if finding.level == "error"]


def test_a_sound_file(path):
    assert [f for f in verify(path) if f.level != "warning"] == []
    assert all("5 years apart" in finding.text for finding in verify(path))


def change_shard(path, name, where, value):
    (shard,) = read_shards(shards_folder(path))
    with h5py.File(shard.path, "r+") as file:
        file[name][where] = value


def test_a_changed_pixel_is_found(path):
    change_shard(path, "frames", (8, 3, 3), 255 - FaceDataset(path)["clip2"].frames[1, 3, 3])
    (found,) = errors(path)
    assert found.where == "clip2" and "not those that were written" in found.text
    with pytest.raises(DataError, match="clip2"):
        pack(path, path.with_name("one.h5"))
    assert not path.with_name("one.h5").exists()


def test_a_missing_or_foreign_shard_is_found(path, tmp_path):
    (shard,) = read_shards(shards_folder(path))
    other = write_dataset(tmp_path / "other.h5", sound_videos(1))
    (theirs,) = read_shards(shards_folder(other))
    shutil.copy(theirs.path, shard.path)
    assert "another file" in errors(path)[0].text
    shard.path.unlink()
    (found,) = errors(path)
    assert found.where == shard.name and "does not exist" in found.text


@pytest.mark.parametrize(
    ("name", "where", "value", "text"),
    [
        ("videos/start", 2, 3, "end to end"),
        ("videos/status", 0, b"fine", "unknown"),
        ("videos/status", 0, b"no_face", "with 7 frames"),
        ("videos/n_interpolated", 0, 99, "n_interpolated"),
        ("videos/id", 0, b"clip2", "2 rows have this id"),
        ("videos/age", 0, 999.0, "outside 0..130"),
        ("layout/shard_start", 2, 0, "another video at its place"),
        ("mean_shape", (0, 0), np.nan, "68 finite points"),
        ("triangles", (0, 0), 99, "do not join"),
    ],
)
def test_a_changed_index_is_found(path, name, where, value, text):
    with h5py.File(path, "r+") as file:
        file[name][where] = value
    assert any(text in finding.text for finding in errors(path))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("timestamps", np.zeros(7), "timestamps do not increase"),
        ("frame_index", np.zeros(7, np.int32), "frame numbers do not increase"),
        ("face_presence", np.full(7, 2.0, np.float32), "face_presence"),
        ("pose", np.full((7, 3), 500.0, np.float32), "angle"),
        ("eye_distance_px", np.zeros(7, np.float32), "no size"),
        ("frames", np.full((7, 16, 16), 9, np.uint8), "one gray level"),
    ],
)
def test_nonsense_that_was_written_is_found(tmp_path, name, value, text):
    videos = sound_videos()
    videos[0][name] = value
    (found,) = errors(write_dataset(tmp_path / "out.h5", videos))
    assert found.where == "clip0" and text in found.text


def test_renamed_folder_is_told_to_users_of_other_programs(path, tmp_path):
    shards_folder(path).rename(tmp_path / "new.shards")
    path.rename(tmp_path / "new.h5")
    found = verify(tmp_path / "new.h5")
    assert not [f for f in found if f.level == "error"]
    assert any("renamed" in f.text for f in found)


@pytest.mark.parametrize("compression", [None, 4])
def test_pack_holds_the_same(path, tmp_path, compression):
    one = pack(path, tmp_path / "one.h5", compression=compression)
    shutil.rmtree(shards_folder(path))
    assert_equal(FaceDataset(one), sound_videos())
    assert errors(one) == [] and stat.S_IMODE(one.stat().st_mode) == 0o600
    with h5py.File(one) as file:
        assert file["frames"].chunks == ((1, 16, 16) if compression else None)
        assert file["frames"].compression == ("gzip" if compression else None)
        assert not file["frames"].is_virtual
    again = pack(one, tmp_path / "two.h5")
    assert_equal(FaceDataset(again), sound_videos())
    with pytest.raises(OutputError, match="exists already"):
        pack(one, again)


@pytest.mark.parametrize("packed", [False, True])
def test_labels_change_and_nothing_else(path, tmp_path, packed):
    if packed:
        path = pack(path, tmp_path / "one.h5")
    table = LabelTable("t", {"clip0": {"age": 77.0, "gender": "male"}, "ghost": {"age": 3.0}})
    matched = relabel(path, table)
    assert matched.unused == ("ghost",) and "clip2.mp4" in matched.unlabelled
    data = FaceDataset(path)
    assert data["clip0"].age == 77.0 and data["clip0"].subject == "s0" and data["clip2"].age == 22.5
    videos = sound_videos()
    videos[0] |= {"age": 77.0, "gender": "male"}
    assert_equal(data, videos)
    assert errors(path) == [] and stat.S_IMODE(path.stat().st_mode) == 0o600
    relabel(path, LabelTable("t", {"clip0": {"age": 5.0}}, synthetic=frozenset({"clip0"})), replace=True)
    data = FaceDataset(path)
    assert data["clip0"].gender == "" and np.isnan(data["clip2"].age) and data.synthetic
