"""Which files a rerun reads: those whose name, size and time of change an earlier run did not see."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from nemo_pipeline.batch import plan as plan_module
from nemo_pipeline.batch.plan import Plan, Seen, make_plan
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.status import Status
from nemo_pipeline.store.shard import Shard, ShardRow


def shard_of(*paths: Path) -> Shard:
    """As read from disk, of videos with this content."""
    rows = tuple(
        ShardRow(
            file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), bytes=path.stat().st_size, length=2,
            fps=25.0, width=9, height=9, n_decoded=2, n_interpolated=0, status=Status.OK, message="",
        )
        for path in paths
    )  # fmt: skip
    return Shard(Path("00001-00000000.h5"), "u", PrepConfig(), "", "", {}, 0, rows, {})


@pytest.fixture
def files(tmp_path) -> list[VideoFile]:
    paths = [tmp_path / name for name in ("a.mp4", "b.mp4", "c.mp4")]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100)
    return [VideoFile(path, path.stem, path.name) for path in paths]


@pytest.fixture
def settled(monkeypatch) -> None:
    """Files that were written just now count as old ones."""
    monkeypatch.setattr(plan_module, "SETTLED_NS", -(10**18))


def planned(files: list[VideoFile], shard: Shard, before: Plan | None = None) -> tuple[Plan, int]:
    """The plan of a run after one that had the plan `before`, and how many files were hashed for it."""
    seen, hashed = {}, []
    if before is not None:
        rows = {row.file: row for row in shard.rows}
        seen = {
            f: Seen(rows[f].sha256, rows[f].bytes, time) for f, time in before.modified.items() if f in rows
        }
    plan = make_plan(files, [shard], {}, seen=seen, on_hashed=lambda n, total: hashed.append(n))
    return plan, len(hashed)


def test_what_was_seen_is_not_read_again(files, settled):
    shard = shard_of(*(video.path for video in files))
    first, hashed = planned(files, shard)
    assert hashed == 3 and len(first.finished) == 3
    second, hashed = planned(files, shard, first)
    assert hashed == 0 and second.finished == first.finished and second.hashes == first.hashes
    assert second.modified == first.modified


def test_a_file_that_was_changed_just_now_is_read(files, monkeypatch):
    monkeypatch.setattr(plan_module, "SETTLED_NS", 10**18)  # however long ago that is here
    shard = shard_of(*(video.path for video in files))
    first, _ = planned(files, shard)
    assert set(first.modified.values()) == {0}, "not known"
    assert planned(files, shard, first)[1] == 3


def dated_as(before: os.stat_result, path: Path, content: bytes) -> None:
    """Write a file and give it an older one's date, later than that: a kernel's clock may have ticks of 10 ms."""
    while True:
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        if path.stat().st_ctime_ns > before.st_ctime_ns:
            return


def test_another_content_of_the_same_size_and_date_is_read(files, settled):
    shard = shard_of(*(video.path for video in files))
    first, _ = planned(files, shard)
    dated_as(files[1].path.stat(), files[1].path, b"x" * 100)
    plan, hashed = planned(files, shard, first)
    assert hashed == 1 and [video.file for video in plan.todo] == ["b.mp4"]


def test_another_folders_file_of_the_same_name_size_and_date_is_read(files, settled, tmp_path):
    shard = shard_of(*(video.path for video in files))
    first, _ = planned(files, shard)
    (tmp_path / "day2").mkdir()
    other = tmp_path / "day2" / "a.mp4"
    dated_as(files[0].path.stat(), other, b"y" * 100)
    plan, hashed = planned([VideoFile(other, "a", "a.mp4"), *files[1:]], shard, first)
    assert hashed == 1 and [video.file for video in plan.todo] == ["a.mp4"]


def test_a_renamed_file_is_recognised_by_its_content(files, settled):
    shard = shard_of(*(video.path for video in files))
    first, _ = planned(files, shard)
    moved = files[0].path.rename(files[0].path.with_name("z.mp4"))
    plan, hashed = planned([*files[1:], VideoFile(moved, "z", "z.mp4")], shard, first)
    assert hashed == 1 and set(plan.finished) == {"b.mp4", "c.mp4", "z.mp4"}


def test_a_new_size_is_new_without_being_read(files, settled):
    shard = shard_of(*(video.path for video in files))
    first, _ = planned(files, shard)
    files[2].path.write_bytes(b"z" * 99)
    plan, hashed = planned(files, shard, first)
    assert hashed == 0 and [video.file for video in plan.todo] == ["c.mp4"]
