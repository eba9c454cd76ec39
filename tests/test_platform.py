"""Cores that a process may use, and the pool of children."""

from __future__ import annotations

import os

import pytest

from nemo_pipeline.batch.worker import Pool, Stopped
from nemo_pipeline.platform import allowed_cores, cgroup_cores, default_workers, large_pages, library_versions
from nemo_pipeline.supervise import ChildDied
from tests.support.processes import PATIENCE


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_cgroup_v2_quota_of_this_group_or_one_above(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/job/step\n")
    root = tmp_path / "fs"
    write(root / "job/step/cpu.max", "max 100000\n")
    assert cgroup_cores(root, own) is None
    write(root / "job/cpu.max", "350000 100000\n")
    assert cgroup_cores(root, own) == 3.5
    write(root / "job/step/cpu.max", "100000 100000\n")
    assert cgroup_cores(root, own) == 1.0


def test_cgroup_v1_quota(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/x\n3:cpu,cpuacct:/x\n")
    write(tmp_path / "fs/cpu/x/cpu.cfs_quota_us", "200000\n")
    write(tmp_path / "fs/cpu/x/cpu.cfs_period_us", "100000\n")
    assert cgroup_cores(tmp_path / "fs", own) == 2.0


def test_default_workers_follow_the_affinity():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert allowed_cores() == [min(before)]
        assert default_workers() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_versions_are_known():
    assert {"python", "numpy", "h5py", "av"} <= set(library_versions())


def test_children_are_kept_pinned_and_stopped():
    pool = Pool()
    slot, child = pool.acquire()
    other_slot, other = pool.acquire()
    try:
        assert slot != other_slot and child.pid != other.pid
        child._expect_ready()
        cores = os.sched_getaffinity(child.pid)
        assert len(cores) == 1 or len(allowed_cores()) == 1
    finally:
        pool.release(slot, child, keep=True)
        pool.release(other_slot, other, keep=False)
    again_slot, again = pool.acquire()
    assert again is child
    pool.stop()
    with pytest.raises(ChildDied, match="SIGKILL"):
        again.ask({"do": "probe", "path": "clip.mp4"}, PATIENCE)
    pool.release(again_slot, again, keep=True)
    with pytest.raises(Stopped):
        pool.acquire()
    assert pool.pids == []


def test_large_pages_are_added_to_what_is_set():
    name, value = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
    assert large_pages({}) == {name: value}
    assert large_pages({name: "glibc.malloc.arena_max=1"}) == {name: f"glibc.malloc.arena_max=1:{value}"}
    assert large_pages({name: "glibc.malloc.hugetlb=0"}) == {}
