"""Warping again from the points of a prepared file: what a fresh preparation gives, to the bit."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from nemo_pipeline import PrepConfig
from nemo_pipeline.batch.cluster import Event
from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.label_table import read_labels
from nemo_pipeline.batch.rewarp import rewarp
from nemo_pipeline.batch.run import PrepInputs, RunOptions, prep
from nemo_pipeline.batch.summary import PrepSummary
from nemo_pipeline.datatypes import VideoResult
from nemo_pipeline.errors import DataError
from nemo_pipeline.geometry import shipped_mean_shape
from nemo_pipeline.meanshape import new_shape
from nemo_pipeline.rewarp import rewarp_video, same_points, tracked_rows
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.files import file_hash
from nemo_pipeline.store.pack import pack
from nemo_pipeline.store.schema import VIDEO_COLUMNS, record_dtype
from nemo_pipeline.store.verify import verify
from nemo_pipeline.video import process_video
from tests.support.clips import acted, other_person, person, sway, write_clip
from tests.support.prepared import prepared_here

CONFIG = PrepConfig(size=48, follow="all", segments="all")
SHAPE = new_shape(shipped_mean_shape() * (1.1, 1.0))
CUSTOM = {"mean_shape": "custom", "mean_shape_sha256": SHAPE.sha256}


def two(k: int):
    dx, dy = sway(k, 3.0)
    return [
        (person(), person().placed(100 + dx, 70 + dy, 50, 3 * np.sin(k / 6))),
        (other_person(), other_person().placed(290 - dx, 75 + dy, 58)),
    ]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people with a long gap, and a short one, between; somebody in a file that is cut off; nobody."""
    folder = tmp_path_factory.mktemp("videos")
    pictures = acted(38, (400, 160), two)
    for k in (5, *range(18, 28)):
        pictures[k] = np.full_like(pictures[0], 90)
    write_clip(folder / "two.mp4", pictures)
    alone = write_clip(folder / "cut.mkv", acted(30, (200, 160), lambda k: two(k)[:1]), codec="mpeg4")
    alone.write_bytes(alone.read_bytes()[:-4000])
    write_clip(folder / "nobody.mp4", acted(8, (200, 160), lambda k: []))
    return folder


@pytest.fixture(scope="module")
def source(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> FaceDataset:
    return prepared_here(videos, tmp_path_factory.mktemp("source") / "in.h5", CONFIG)


def facts(folder: Path, result: VideoResult, config: PrepConfig) -> list[tuple]:
    """All that goes into the file."""
    dtype = record_dtype(config)
    return [
        (
            row.person,
            row.segment,
            row.status,
            result.message(row),
            (row.length, row.n_interpolated, result.n_decoded),
            dataclasses.replace(result.info, rotation=0, codec="", pixel_format=""),
            np.fromfile(
                folder / row.spool, dtype, row.stop - row.start, offset=row.start * dtype.itemsize
            ).tobytes()
            if row.spool
            else b"",
        )
        for row in result.rows
    ]


@pytest.mark.parametrize("name", ["two.mp4", "cut.mkv", "nobody.mp4"])
@pytest.mark.parametrize(
    "changes",
    [{"size": 64, "margin": 0.2}, {"smooth": "4253h"}, {"smooth": "none", **CUSTOM}],
    ids=["size", "smooth", "shape"],
)
def test_as_a_fresh_preparation(
    videos: Path, source: FaceDataset, name: str, changes: dict, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, **changes)
    shape = {"mean_shape": SHAPE.points, "triangles": SHAPE.triangles} if "mean_shape" in changes else {}
    path = videos / name
    rows = tracked_rows(source, name, file_hash(path)[1])
    fresh = process_video(path, config, tmp_path / "fresh", **shape)
    assert len(rows) == len(fresh.rows) == (4 if name == "two.mp4" else 1)
    if name == "cut.mkv":
        assert fresh.rows[0].status == "damaged"
    result = rewarp_video(path, config, tmp_path / "again", rows, **shape)
    assert result is not None
    assert facts(tmp_path, result, config) == facts(tmp_path, fresh, config)


def test_blank_faces_are_a_status_and_tell_what_was_told(
    videos: Path, source: FaceDataset, tmp_path: Path
) -> None:
    """A video that was ok, in which the new faces show nothing; what is unusual about it is still said."""
    row = dataclasses.replace(source["two#1/s1"], message="8 frames are interlaced; more")
    black = write_clip(tmp_path / "black.mp4", [np.full((160, 400, 3), 90, np.uint8)] * 38)
    result = rewarp_video(black, CONFIG, tmp_path / "a", [row])
    assert result is not None
    assert result.rows[0].status == "blank" and not list(tmp_path.glob("*.records"))
    assert result.message(result.rows[0]).endswith("face). Also: 8 frames are interlaced; more.")


def test_what_has_no_points_to_be_warped_anew(videos: Path, source: FaceDataset, tmp_path: Path) -> None:
    digest = file_hash(videos / "two.mp4")[1]
    assert len(tracked_rows(source, "another name", digest)) == 4
    assert tracked_rows(source, "two.mp4", "") == [] == tracked_rows(source, "two.mp4", "0" * 64)
    assert same_points(CONFIG, dataclasses.replace(CONFIG, size=99, smooth="none", **CUSTOM))
    assert not same_points(CONFIG, dataclasses.replace(CONFIG, max_yaw_degrees=30))
    # Another decoder, another video: other frames or other times.
    pictures = acted(38, (400, 160), two)
    for name, more in (("fewer", {"pictures": pictures[:20]}), ("later", {"fps": 25})):
        path = write_clip(tmp_path / f"{name}.mp4", **({"pictures": pictures} | more))
        rows = tracked_rows(source, "two.mp4", digest)
        assert rewarp_video(path, CONFIG, tmp_path / "a", rows) is None
    assert not list(tmp_path.glob("*.records"))
    data = FaceDataset(source.path)
    data.videos["status"][data.videos["id"].index("two#2/s1")] = "blank"
    assert tracked_rows(data, "two.mp4", digest) == []


# --- runs ----------------------------------------------------------------------------------------------------------


def run(source: FaceDataset, output: Path, folder: Path, **changes) -> tuple[PrepSummary, list[Event]]:
    events: list[Event] = []
    on_event = changes.pop("on_event", events.append)
    shape = SHAPE if changes.get("mean_shape") == "custom" else None
    config = dataclasses.replace(source.config, **changes)
    summary = rewarp(
        source,
        output,
        config,
        RunOptions(workers=1),
        folders=[str(folder)],
        mean_shape=shape,
        on_event=on_event,
    )
    return summary, events


def same(a: FaceDataset, b: FaceDataset) -> None:
    """All columns and arrays."""
    for name in VIDEO_COLUMNS:
        np.testing.assert_array_equal(a.videos[name], b.videos[name], err_msg=name)
    np.testing.assert_array_equal(a.mean_shape, b.mean_shape)
    for row in a.usable:
        for name in a.fields:
            np.testing.assert_array_equal(a.read(row, name), b.read(row, name), err_msg=f"{row} {name}")


def test_a_file_with_its_labels_and_a_video_that_comes_back(videos: Path, tmp_path: Path) -> None:
    """One video is gone at first, one was gone when the source was made: it is tracked."""
    folder = tmp_path / "in"
    shutil.copytree(videos, folder)
    (folder / "two.mp4").rename(tmp_path / "two.mp4")
    (folder / "two.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "l.csv").write_text("video,subject,age\ncut.mkv,a,31\n")
    table = read_labels(tmp_path / "l.csv", ["cut.mkv"])
    output = tmp_path / "in.h5"
    prep(PrepInputs(discover([folder]).videos, labels=table), output, CONFIG, RunOptions(workers=1))
    source = FaceDataset(output)
    assert source.videos["status"] == ["damaged", "no_face", "unreadable"]
    shutil.move(tmp_path / "two.mp4", folder / "two.mp4")
    shutil.move(folder / "cut.mkv", tmp_path / "cut.mkv")
    wide = tmp_path / "wide.h5"
    summary, events = run(source, wide, folder, size=64, **CUSTOM)
    assert [(e.n, "cut.mkv" in e.text, "in.h5" in e.text) for e in events if e.kind == "note"] == [
        (1, True, True)
    ]
    data = FaceDataset(wide)
    assert data.videos["status"] == ["unreadable", "no_face", *["ok"] * 4] and data["cut"].age == 31
    shutil.move(tmp_path / "cut.mkv", folder / "cut.mkv")
    summary, events = run(source, wide, folder, size=64, **CUSTOM)
    assert (summary.done_before, summary.done_now) == (2, 1)
    config = dataclasses.replace(CONFIG, size=64, **CUSTOM)
    fresh = tmp_path / "fresh.h5"
    prep(
        PrepInputs(discover([folder]).videos, labels=table),
        fresh,
        config,
        RunOptions(workers=1),
        mean_shape=SHAPE,
    )
    same(FaceDataset(wide), FaceDataset(fresh))
    assert FaceDataset(wide).config == FaceDataset(fresh).config == config
    assert not [finding for finding in verify(wide) if finding.level == "error"]
    # What is done stays when its video is gone.
    (folder / "two.mp4").rename(tmp_path / "two.mp4")
    (folder / "cut.mkv").write_bytes(b"another video of that name")
    summary, events = run(source, wide, folder, size=64, **CUSTOM)
    same(FaceDataset(wide), FaceDataset(fresh))
    assert (summary.done_now, summary.n_usable) == (0, 5) and not [e for e in events if e.kind == "note"]
    assert any("2 videos not found, done before and kept" in event.text for event in events)
    shutil.copy(videos / "cut.mkv", folder)
    (tmp_path / "two.mp4").rename(folder / "two.mp4")
    # A later preparation with those settings finds all done.
    again = prep(PrepInputs(discover([folder]).videos), wide, config, RunOptions(workers=1), mean_shape=SHAPE)
    assert (again.done_before, again.done_now) == (3, 0)


def test_from_the_data_is_prep_from_the_data_and_packed_is_as_good(
    videos: Path, source: FaceDataset, tmp_path: Path
) -> None:
    packed = FaceDataset(pack(source.path, tmp_path / "packed.h5"))
    config = dataclasses.replace(CONFIG, mean_shape="from-data", smooth="4253h")
    prep(PrepInputs(discover([videos]).videos), tmp_path / "fresh.h5", config, RunOptions(workers=1))

    class Enough(Exception):
        pass

    def stop(event: Event) -> None:
        if event.kind == "video":
            raise Enough

    output = tmp_path / "mean.h5"
    changes = {"mean_shape": "from-data", "smooth": "4253h"}
    with pytest.raises(Enough):
        run(packed, output, videos, on_event=stop, **changes)
    summary, _ = run(packed, output, videos, **changes)
    assert summary.done_before >= 1 and summary.done_before + summary.done_now == 3
    same(FaceDataset(output), FaceDataset(tmp_path / "fresh.h5"))
    # The shape stays with the file.
    small = FaceDataset(output)
    assert small.config.mean_shape_sha256 == FaceDataset(tmp_path / "fresh.h5").config.mean_shape_sha256


def test_what_is_refused(videos: Path, source: FaceDataset, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "out.h5"
    for change, words in (
        ({"fingerprint": "0"}, "update nemo"),
        ({"model_sha256": "0"}, "another landmark bundle"),
    ):
        data = FaceDataset(source.path)
        data.attributes |= change
        with pytest.raises(DataError, match=words):
            run(data, output, videos, size=64)
    data.config = dataclasses.replace(CONFIG, algorithm=1)
    data.attributes["fingerprint"] = data.config.fingerprint()
    with pytest.raises(DataError, match="version 1 of the method"):
        run(data, output, videos, size=64)
    with pytest.raises(DataError, match="is the file itself"):
        run(source, source.path, videos, size=64)
    with pytest.raises(ValueError, match="another nemo prep"):
        run(source, output, videos, max_yaw_degrees=20)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"3 videos of in\.h5 not found in .*empty \(cut\.mkv, .*nemo rewarp in\.h5"
    ):
        run(source, output, tmp_path / "empty", size=64)
    with pytest.raises(DataError, match=r"next to in\.h5 or in the current folder"):
        rewarp(source, output, dataclasses.replace(CONFIG, size=64))
    assert not list(tmp_path.glob("out*"))
