"""The format may grow: files of a version that knew less stay readable, files of one that knows more do, too."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest

from nemo_pipeline.batch.assemble import relabel
from nemo_pipeline.batch.labels import LabelTable
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoInfo, VideoResult, VideoRow
from nemo_pipeline.fields import added, from_record, plain
from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.store.pack import pack
from nemo_pipeline.store.reader import FaceVideo
from nemo_pipeline.store.schema import ADDED_COLUMNS, FRAME_FIELDS, VIDEO_COLUMNS, FrameField
from nemo_pipeline.store.sealed import seal
from nemo_pipeline.store.shard import read_shards, shards_folder
from nemo_pipeline.store.verify import verify
from tests.support.videos import assert_equal, sound_videos


def errors(path):
    return [finding for finding in verify(path) if finding.level == "error"]


# ---- settings


def test_fingerprints_of_files_that_exist():
    """If this fails, files of earlier commits count as made with other settings: a new field must be declared with
    `added`, and other numbers need a new ALGORITHM_VERSION."""
    first = PrepConfig(algorithm=1, smooth="4253h", stream="default")
    assert first.fingerprint() == "5188352239005a92"
    assert dataclasses.replace(first, size=96, mesh=False).fingerprint() == "e125dcdb9d32bcc7"
    second = PrepConfig(algorithm=2, stream="default")
    assert dataclasses.replace(second, smooth="4253h").fingerprint() == "efa532aacb8fc813"
    assert second.fingerprint() == "f037d8bac834c4e6"


@dataclasses.dataclass(frozen=True, slots=True)
class Later(PrepConfig):
    """The settings of a later version."""

    sharpen: float = added(0.0)


def test_a_new_setting_changes_nothing_at_its_default():
    assert Later().fingerprint() == PrepConfig().fingerprint()
    assert Later(sharpen=0.5).fingerprint() != PrepConfig().fingerprint()
    assert Later.from_dict(PrepConfig().to_dict()) == Later()
    assert PrepConfig.from_dict(Later().to_dict()) == PrepConfig()
    with pytest.raises(ValueError, match="unknown setting sharpen"):
        PrepConfig.from_dict(Later(sharpen=0.5).to_dict())


def test_settings_of_the_first_version_do_not_name_the_method():
    values = PrepConfig().to_dict()
    del values["algorithm"]
    assert PrepConfig.from_dict(values).algorithm == 1


def test_what_was_so_before_there_was_a_choice():
    """Settings from before `smooth` were those of the literal form; its default is another."""
    old = {name: value for name, value in PrepConfig().to_dict().items() if name != "smooth"}
    assert PrepConfig.from_dict(old).smooth == "4253h" and PrepConfig().smooth == "head"
    assert PrepConfig.from_dict(old).to_dict() == old
    for how in ("head", "4253h", "none"):
        assert PrepConfig.from_dict(PrepConfig(smooth=how).to_dict()).smooth == how


def test_records_of_other_versions_are_read():
    row = VideoRow(0, 0, "x.records", 0, 9, 1, "ok", "")
    result = VideoResult(VideoInfo(640, 480, 25.0), 9, (row,), {"total": 1.5}, ("w",))
    values = json.loads(json.dumps(result.to_dict()))
    assert VideoResult.from_dict(values) == result
    values["info"]["lens"] = 2  # of a later version
    values["rows"][0]["mood"] = "fine"
    del values["warnings"], values["landmarks_sha256"]  # of an earlier one
    assert VideoResult.from_dict(values) == dataclasses.replace(result, warnings=())


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"n_decoded": "9"}, "n_decoded is '9'; it must be a whole number"),
        ({"n_decoded": True}, "a whole number"),
        ({"info": 3}, "info: 3 is not an object"),
        ({"info": {"fps": None}}, "info: fps is None; it must be a number"),
        ({"rows": {}}, "rows is {}; it must be a list"),
        ({"rows": [{"person": 0, "segment": 0}]}, r"rows\[0\]: spool is missing"),
        ({"seconds": {"total": "x"}}, "seconds.total is 'x'"),
        ({"warnings": [1]}, r"warnings\[0\] is 1; it must be text"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(change, answer):
    values = plain(VideoResult(VideoInfo(), 9, ())) | change
    with pytest.raises(ValueError, match=answer):
        VideoResult.from_dict(values)
    with pytest.raises(ValueError, match="not an object"):
        from_record(VideoResult, [])


# ---- files


@pytest.fixture
def path(tmp_path):
    return write_dataset(tmp_path / "out.h5", sound_videos())


@pytest.fixture
def first(tmp_path, monkeypatch):
    """A file with the frame datasets of the first version alone."""
    with monkeypatch.context() as patch:
        for name in [name for name, field in FRAME_FIELDS.items() if field.missing is not None]:
            patch.delitem(FRAME_FIELDS, name)
        return write_dataset(tmp_path / "out.h5", sound_videos())


@pytest.fixture
def later(monkeypatch):
    """The schema of a later version: one more dataset, one more column in each table."""
    monkeypatch.setitem(FRAME_FIELDS, "blur", FrameField((2,), "<f4", "how blurred", missing=-1.0))
    monkeypatch.setitem(VIDEO_COLUMNS, "mood", "str")
    monkeypatch.setitem(ADDED_COLUMNS, "mood", "unknown")


def test_a_file_of_an_earlier_version(first, later, tmp_path):
    path = first
    with h5py.File(path, "r+") as file:  # the first version had neither
        del file.attrs["fields"], file.attrs["digest"]
    data = FaceDataset(path)
    assert_equal(data, sound_videos())
    assert data.videos["mood"] == ["unknown"] * 4 and "blur" not in data.fields
    np.testing.assert_array_equal(data["clip2"].read("blur", 1, 4), np.full((3, 2), -1, np.float32))
    assert errors(path) == []
    relabel(path, LabelTable("t", {"clip0": {"age": 77.0}}))
    one = pack(path, tmp_path / "one.h5")
    assert errors(path) == errors(one) == []
    assert FaceDataset(one).videos["mood"] == ["unknown"] * 4 and FaceDataset(one)["clip0"].age == 77


def with_more(monkeypatch, path):
    """A file as a later version writes it: with a frame dataset and a column that this one does not know."""
    videos = sound_videos()
    for video in videos:
        video["blur"] = np.random.default_rng(1).random((len(video["frames"]), 2), np.float32)
    with monkeypatch.context() as patch:
        patch.setitem(FRAME_FIELDS, "blur", FrameField((2,), "<f4", "how blurred", missing=-1.0))
        write_dataset(path, videos)
    with h5py.File(path, "r+") as file:
        file["videos"].create_dataset("mood", data=["fine", "sad", "Ünsure", ""], dtype=h5py.string_dtype())
        file["videos/weight"] = np.arange(4.0)
        file.attrs["weather"] = "rain"
        seal(file)
    return videos


def test_a_file_of_a_later_version(path, tmp_path, monkeypatch):
    videos = with_more(monkeypatch, tmp_path / "later.h5")
    path = tmp_path / "later.h5"
    one = pack(path, tmp_path / "one.h5")
    for file in (path, one, pack(one, tmp_path / "two.h5")):
        relabel(file, LabelTable("t", {"clip0": {"age": 77.0}}))
        data = FaceDataset(file)
        assert errors(file) == []
        assert data.videos["mood"] == ["fine", "sad", "Ünsure", ""] and data["clip0"].age == 77
        assert data.videos["weight"].tolist() == [0, 1, 2, 3] and data.attributes["weather"] == "rain"
        assert data.fields["blur"].meaning == "how blurred"
        np.testing.assert_array_equal(data["clip2"].read("blur"), videos[2]["blur"])
    (shard,) = read_shards(shards_folder(path))
    with h5py.File(shard.path, "r+") as file:
        file["blur"][8] += 1
    assert [finding.where for finding in errors(path)] == ["clip2"]


def test_a_file_that_a_later_version_has_added_to(tmp_path, monkeypatch):
    """A shard of this version and one of a later version, which has a dataset more, in one index."""
    monkeypatch.setattr("nemo_pipeline.store.write._PER_SHARD", 2)
    blur = np.random.default_rng(1).random((12, 2), np.float32)

    def videos():
        yield from sound_videos()[:2]
        with monkeypatch.context() as patch:
            patch.setitem(FRAME_FIELDS, "blur", FrameField((2,), "<f4", "how blurred", missing=-1.0))
            for video in sound_videos()[2:]:
                yield video | {"blur": blur[: len(video["frames"])]}

    path = write_dataset(tmp_path / "out.h5", videos())
    relabel(path, LabelTable("t", {"clip0": {"age": 77.0}}))  # writes the index again
    for file in (path, pack(path, tmp_path / "one.h5")):
        data = FaceDataset(file)
        assert errors(file) == [] and "blur" in data.fields
        np.testing.assert_array_equal(data["clip0"].read("blur"), np.full((7, 2), -1, np.float32))
        np.testing.assert_array_equal(data["clip2"].read("blur"), blur)
        with h5py.File(file) as plain:  # as other programs see it
            np.testing.assert_array_equal(plain["blur"][:7], np.full((7, 2), -1, np.float32))


def test_every_column_has_a_place_in_a_video():
    names = [field.name for field in dataclasses.fields(FaceVideo)]
    assert set(names) - {"dataset", "row"} == set(VIDEO_COLUMNS)
