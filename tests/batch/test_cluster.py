"""The same plan on a Dask cluster of processes: the same bytes, and a worker that dies costs only its video."""

from __future__ import annotations

import os
import signal

import pytest

from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.run import PrepInputs, RunOptions, prep
from nemo_pipeline.batch.worker import running_children
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import ProcessError
from tests.support.processes import DaskCluster
from tests.support.runs import arrays, write_clip

CONFIG = PrepConfig(size=48)


def run(folder, output, on_event=lambda event: None, **options):
    return prep(
        PrepInputs(discover([folder]).videos), output, CONFIG, RunOptions(**options), on_event=on_event
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("clips")
    for i in range(6):
        write_clip(target / f"c{i}.mp4", frames=30 + i, seed=i)
    return target


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two worker processes; gives (scheduler file, workers)."""
    made = DaskCluster(tmp_path, 2)
    yield made.file, made.workers
    made.close()


def test_two_worker_processes_one_of_them_killed(folder, cluster, tmp_path):
    file, workers = cluster
    expected = tmp_path / "local.h5"
    run(folder, expected, workers=1)
    killed = []

    def kill(event):
        if event.kind == "video" and not killed:
            killed.append(workers[0].pid)
            os.kill(workers[0].pid, signal.SIGKILL)

    frames = []

    def on_event(event):
        kill(event)
        if event.kind == "frames":
            frames.append(event.file)

    summary = run(folder, tmp_path / "out.h5", on_event, scheduler=str(file))
    assert killed and summary.counts == {"ok": 6} and frames
    assert arrays(tmp_path / "out.h5") == arrays(expected)
    assert workers[1].poll() is None
    assert not list((tmp_path / "out.shards").glob(".work*"))
    assert not running_children()  # nothing ran here


def test_a_cluster_that_lost_its_worker_is_not_waited_for(folder, tmp_path, monkeypatch):
    from distributed.deploy.spec import SpecCluster

    monkeypatch.setattr("nemo_pipeline.batch.cluster._LOOK_EVERY", 0.2)
    lost = []

    def lose(event):
        for cluster in list(SpecCluster._instances):
            if event.kind == "video" and cluster.scheduler.workers and not lost:
                # Nothing may do this by itself: the clock of a laptop that slept would.
                assert cluster.scheduler.worker_ttl is None
                (address,) = cluster.scheduler.workers
                lost.append(address)
                cluster.sync(cluster.scheduler.remove_worker, address, stimulus_id="test")

    with pytest.raises(ProcessError, match="run the same command"):
        run(folder, tmp_path / "out.h5", lose, workers=1)
    assert lost and not running_children()
    summary = run(folder, tmp_path / "out.h5", workers=1)
    assert summary.done_before >= 1 and summary.counts == {"ok": 6}


@pytest.mark.parametrize("where", ["none.json", pytest.param("tcp://127.0.0.1:9", marks=pytest.mark.slow)])
def test_no_scheduler_there(folder, tmp_path, where):
    with pytest.raises(ProcessError, match="no Dask scheduler answers"):
        run(folder, tmp_path / "out.h5", scheduler=where)
