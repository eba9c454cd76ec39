"""out.h5 written and read again: contents, here and in DataLoader workers; moved, linked, foreign files."""

from __future__ import annotations

import os
import pickle
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemo_pipeline.errors import DataError, OutputError
from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.store.schema import FORMAT_VERSION, FRAME_FIELDS, VIDEO_COLUMNS
from nemo_pipeline.store.shard import is_shard_name, read_shards, shards_folder
from tests.support.videos import SIZE, assert_equal, make_videos


@pytest.fixture
def dataset(tmp_path):
    videos = make_videos([7, 0, 12, 1, 9])
    return write_dataset(tmp_path / "out.h5", videos), videos


def test_every_array_comes_back(dataset):
    path, videos = dataset
    data = FaceDataset(path)
    assert_equal(data, videos)
    assert data.usable == [0, 2, 3, 4]
    assert data["clip2"].read("frames", 3, 5).tolist() == videos[2]["frames"][3:5].tolist()
    assert data[-1].id == "clip4"
    assert data["clip0"].mesh is None
    with pytest.raises(KeyError, match="no video has the id or the file name"):
        data["other"]
    with pytest.raises(IndexError):
        data[5]
    for key in (1.5, True, None):
        with pytest.raises(TypeError, match="by its id, its file or its row"):
            data[key]
    assert data[np.array(1)].id == data[np.int64(1)].id == data[1].id == data[1 - len(data.rows)].id


@pytest.mark.filterwarnings("error")
def test_a_still_without_times_is_at_time_zero(tmp_path):
    frames = np.zeros((1, SIZE, SIZE), dtype=np.uint8)
    path = write_dataset(tmp_path / "out.h5", [{"id": "photo", "frames": frames, "fps": 0.0}])
    assert FaceDataset(path)["photo"].timestamps.tolist() == [0.0]


def test_it_is_a_mapping_of_the_videos_with_frames(dataset):
    path, _ = dataset
    with FaceDataset(path) as data:
        assert isinstance(data, Mapping) and len(data) == 4
        assert list(data) == list(data.keys()) == data.ids == ["clip0", "clip2", "clip3", "clip4"]
        assert [video.id for video in data.values()] == data.ids and all(
            video.length for video in data.values()
        )
        assert {name: video.length for name, video in data.items()} == {
            "clip0": 7,
            "clip2": 12,
            "clip3": 1,
            "clip4": 9,
        }
        assert "clip2" in data and "other" not in data and 2 not in data and data.get("other") is None
        # One that failed is not an item, and is found all the same.
        assert data.failed == ["clip1"] and "clip1" in data and data["clip1"].status == "no_face"
        assert data["clip2"].frames.any() and data._handles
        assert data == data and data != FaceDataset(path) and len({data, data}) == 1
    assert not data._handles
    assert data["clip2"].frames.any()  # reading opens it again
    assert pickle.loads(pickle.dumps(data)).ids == data.ids


def test_files_are_keys_where_they_are_one_video(tmp_path):
    videos = make_videos([3, 4, 5, 6])
    for video, file in zip(videos, ["day1/a.mp4", "day2/a.mp4", "day2/b.mp4", "day2/b.mp4"], strict=True):
        video["file"] = file
    videos[0]["id"] = "b.mp4"  # an id goes before a file of that name
    data = FaceDataset(write_dataset(tmp_path / "out.h5", videos))
    assert data["day1/a.mp4"].length == data["b.mp4"].length == 3 and data["day2/a.mp4"].length == 4
    with pytest.raises(KeyError, match=r"'a\.mp4' means 2 videos .* by its id \('b\.mp4', 'clip1'\)"):
        data["a.mp4"]
    with pytest.raises(KeyError, match="means 2 videos"):  # two segments
        data["day2/b.mp4"]
    assert "a.mp4" not in data and "day2/b.mp4" not in data and "day2/a.mp4" in data


def test_stock_h5py_reads_the_same(dataset):
    path, videos = dataset
    with h5py.File(path) as file:
        assert set(VIDEO_COLUMNS) == set(file["videos"])
        starts, lengths = file["videos/start"][()], file["videos/length"][()]
        for video, start, length in zip(videos, starts, lengths, strict=True):
            for name in video.keys() & FRAME_FIELDS.keys():
                np.testing.assert_array_equal(file[name][start : start + length], video[name])
        assert file["frames"].shape == (29, SIZE, SIZE)
        assert file["tracked"].dtype == bool
        assert file.attrs["format"] == "nemo-faces"


def test_frame_datasets_of_a_shard_lie_in_one_piece_without_compression(dataset):
    path, _ = dataset
    (shard,) = read_shards(shards_folder(path))
    with h5py.File(shard.path) as file:
        assert file["frames"].chunks is None and file["landmarks"].chunks is None
        assert file["frames"].compression is None


def test_mesh_is_kept(tmp_path):
    videos = make_videos([3, 4], mesh=True)
    data = FaceDataset(write_dataset(tmp_path / "out.h5", videos))
    assert data.config.mesh
    assert_equal(data, videos)
    assert data[1].mesh.shape == (4, 478, 3)


def test_only_the_owner_may_read(dataset):
    path, _ = dataset
    for item in (path, *shards_folder(path).iterdir()):
        assert stat.S_IMODE(item.stat().st_mode) == 0o600
    assert stat.S_IMODE(shards_folder(path).stat().st_mode) == 0o700


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(0, 6), min_size=0, max_size=6), seed=st.integers(0, 99))
def test_round_trip_of_any_lengths(tmp_path_factory, lengths, seed):
    videos = make_videos(lengths, seed)
    path = tmp_path_factory.mktemp("round") / "out.h5"
    # An empty file has no frames to tell the size from.
    data = FaceDataset(write_dataset(path, videos))
    assert_equal(data, videos)


class _Contents:
    """A map-style data set of the kind that PyTorch loads with worker processes."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        video = self.data[i]
        return os.getpid(), i, video.frames.tobytes(), video.landmarks.tobytes()


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_two_dataloader_workers_read_the_right_contents(tmp_path, method):
    torch_data = pytest.importorskip("torch.utils.data")
    videos = make_videos([5 + i for i in range(12)])
    data = FaceDataset(write_dataset(tmp_path / "out.h5", videos))
    # Opened before the fork on purpose: the workers must not use this handle.
    assert data[0].frames.shape == (5, SIZE, SIZE)
    loader = torch_data.DataLoader(
        _Contents(data), batch_size=None, num_workers=2, multiprocessing_context=method, shuffle=True
    )
    pids = set()
    for _ in range(2):
        seen = 0
        for pid, i, frames, landmarks in loader:
            pids.add(int(pid))
            assert frames == videos[i]["frames"].tobytes()
            assert landmarks == videos[i]["landmarks"].tobytes()
            seen += 1
        assert seen == 12
    assert len(pids) == 4 and os.getpid() not in pids


def test_pickled_dataset_reads(dataset):
    path, videos = dataset
    data = FaceDataset(path)
    assert data[0].frames.any()
    assert_equal(pickle.loads(pickle.dumps(data)), videos)


# ---- files that move
# -------------------------------------------------------------------------------------------


def move(path, to):
    to.mkdir(parents=True, exist_ok=True)
    shutil.move(shards_folder(path), to / shards_folder(path).name)
    return Path(shutil.move(path, to / path.name))


def test_moved_together(dataset, tmp_path):
    path, videos = dataset
    assert_equal(FaceDataset(move(path, tmp_path / "elsewhere")), videos)


def test_renamed_together(dataset, tmp_path):
    path, videos = dataset
    shutil.move(shards_folder(path), tmp_path / "new.shards")
    path.rename(tmp_path / "new.h5")
    assert_equal(FaceDataset(tmp_path / "new.h5"), videos)


def test_opened_through_a_link_from_a_folder_with_other_shards(dataset, tmp_path, monkeypatch):
    path, videos = dataset
    other = tmp_path / "other"
    other.mkdir()
    write_dataset(other / "out.h5", make_videos([7, 0, 12, 1, 9], seed=5))
    # The other shard takes the name of ours: the trap of HDF5's own look-up in the current folder.
    (mine,) = read_shards(shards_folder(path))
    (theirs,) = read_shards(shards_folder(other / "out.h5"))
    theirs.path.rename(theirs.path.with_name(mine.name))
    (other / "link.h5").symlink_to(path)
    monkeypatch.chdir(other)
    assert_equal(FaceDataset("link.h5"), videos)


def test_missing_shard_is_named(dataset, monkeypatch):
    path, _ = dataset
    (shard,) = read_shards(shards_folder(path))
    opened = FaceDataset(path)
    shard.path.rename(path.parent / "away.h5")
    with pytest.raises(DataError, match=shard.name):
        FaceDataset(path)
    with pytest.raises(DataError, match=shard.name):
        opened[0].frames  # noqa: B018


def test_foreign_shard_is_named(dataset, tmp_path):
    path, _ = dataset
    write_dataset(tmp_path / "b" / "out.h5", make_videos([7, 0, 12, 1, 9], seed=5))
    (mine,) = read_shards(shards_folder(path))
    (theirs,) = read_shards(shards_folder(tmp_path / "b" / "out.h5"))
    shutil.copy(theirs.path, mine.path)
    with pytest.raises(DataError, match=f"{mine.name} is not the shard"):
        FaceDataset(path)[0].frames  # noqa: B018


@pytest.mark.parametrize("name", ["../secret.h5", "/etc/x.h5", "a/b.h5", "..", ".hidden.h5", "x.txt", ""])
def test_names_that_lead_elsewhere(dataset, name):
    path, _ = dataset
    assert not is_shard_name(name)
    with h5py.File(path, "r+") as file:
        file["shards/name"][0] = name
    with pytest.raises(DataError, match="outside"):
        FaceDataset(path)


def test_newer_format_is_refused(dataset):
    path, _ = dataset
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = FORMAT_VERSION + 1
    with pytest.raises(DataError, match="update nemo"):
        FaceDataset(path)


def test_other_files_are_refused_with_a_sentence(tmp_path, dataset):
    path, _ = dataset
    (tmp_path / "text.h5").write_text("no HDF5")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["x"] = 1
    cut = tmp_path / "cut.h5"
    cut.write_bytes(path.read_bytes()[:3000])
    for name, text in (
        ("text.h5", "cannot be opened"),
        ("plain.h5", "no file of `nemo prep`"),
        ("cut.h5", "cannot be opened"),
        ("none.h5", "does not exist"),
        (".", "folder"),
    ):
        with pytest.raises(DataError, match=text):
            FaceDataset(tmp_path / name)
    (shard,) = read_shards(shards_folder(path))
    with pytest.raises(DataError, match="one shard of a larger file"):
        FaceDataset(shard.path)


def test_file_system_without_locks(dataset, monkeypatch):
    path, videos = dataset
    import nemo_pipeline.store.files as files

    real = h5py.File

    def refuse(name, mode, locking=None, **options):
        if locking is not False:
            raise OSError(37, "unable to lock file, errno = 37, error message = 'No locks available'")
        return real(name, mode, locking=locking, **options)

    monkeypatch.setattr(files.h5py, "File", refuse)
    monkeypatch.setattr(files, "_said_no_locks", False)
    with pytest.warns(UserWarning, match="refuses file locks"):
        data = FaceDataset(path)
    assert (data[0].frames == videos[0]["frames"]).all()


@pytest.mark.parametrize(
    "name", ["100%b.h5", "a%%0.h5", "%s.h5", "two words.h5", "caf\udce9.h5", "ünï.h5", "out.hdf5"]
)
def test_names_of_the_output(tmp_path, name):
    videos = make_videos([3, 2])
    videos[0]["file"] = "caf\udce9[/b]$a^^b$\n.mp4"
    path = write_dataset(tmp_path / name, videos)
    assert_equal(FaceDataset(path), videos)
    with h5py.File(path) as file:
        assert (file["frames"][:3] == videos[0]["frames"]).all()
        assert file["videos/file"][0] == b"caf\xe9[/b]$a^^b$\n.mp4"


def test_a_refused_write_leaves_nothing(tmp_path):
    videos = make_videos([3])
    videos[0]["landmarks"] = videos[0]["landmarks"][:2]
    with pytest.raises(DataError, match=r"landmarks has shape \(2, 68, 2\)"):
        write_dataset(tmp_path / "out.h5", videos)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    write_dataset(tmp_path / "out.h5", make_videos([3]))
    with pytest.raises(OutputError, match="exists already"):
        write_dataset(tmp_path / "out.h5", make_videos([3]))
