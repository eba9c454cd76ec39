"""SIGKILL at random moments of a run: to the command, to one of its children, to a Dask worker process.

A kill counts only when it hit something: moments are drawn until one does, so that twenty seeds are twenty kills.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.run import PrepInputs, RunOptions, prep
from nemo_pipeline.config import PrepConfig
from tests.support.clips import person, scene
from tests.support.processes import PATIENCE, DaskCluster, children_of, one_halted, start
from tests.support.runs import arrays, write_clip

KINDS = ("command", "child", "worker")
SEEDS = range(20)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("many")
    for i in range(8):
        write_clip(target / f"c{i}.mp4", frames=8 + i, seed=20 + i)
    write_clip(target / "victim.mp4", frames=60, seed=5)
    return target


@pytest.fixture(scope="module")
def expected(many, tmp_path_factory):
    """The arrays of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("expected") / "out.h5"
    prep(PrepInputs(discover([many]).videos), output, PrepConfig(size=48), RunOptions(workers=1))
    return arrays(output)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    """Number of workers -> a cluster that all tests with so many share."""
    made: dict[int, DaskCluster] = {}

    def cluster(workers: int) -> DaskCluster:
        if workers not in made:
            made[workers] = DaskCluster(tmp_path_factory.mktemp(f"cluster{workers}"), workers)
        return made[workers]

    yield cluster
    for each in made.values():
        each.close()


@pytest.fixture(scope="module")
def durations():
    """(kind, workers) -> seconds that the last undisturbed run took: a kill's moment lies within them."""
    return {}


def kill(
    kind: str, process: subprocess.Popen[bytes], cluster: DaskCluster | None, rng: random.Random
) -> str | None:
    """SIGKILL to something of this kind that lives; answers whom it hit, None for nobody."""
    if process.poll() is not None:
        return None
    if kind == "command":
        process.kill()
        return f"command {process.pid}"
    if kind == "worker":
        victim = rng.choice([w for w in cluster.workers if w.poll() is None])
        victim.kill()
        victim.wait()
        cluster.add_worker()  # what a batch system does, sooner or later
        return f"worker {victim.pid}"
    while process.poll() is None:
        for pid in sorted(children_of(process.pid), key=lambda _: rng.random()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            return f"child {pid}"
        time.sleep(0.02)  # between two children
    return None


def finish(process: subprocess.Popen[bytes]) -> bytes:
    _, said = process.communicate(timeout=PATIENCE)
    return said


def check(kind, workers, seed, many, expected, clusters, durations, tmp_path) -> None:
    rng = random.Random(f"{kind} {workers} {seed}")
    cluster = clusters(workers) if kind == "worker" else None
    more = ["--scheduler", str(cluster.file)] if cluster else []
    if (kind, workers) not in durations:
        begun = time.monotonic()
        process = start(many, tmp_path / "undisturbed.h5", workers, *more)
        said = finish(process)
        assert process.returncode == 0, said
        durations[kind, workers] = time.monotonic() - begun
    for attempt in range(20):
        output = tmp_path / f"out{attempt}.h5"
        process, begun = start(many, output, workers, *more), time.monotonic()
        time.sleep(rng.uniform(0, durations[kind, workers]))
        moment = time.monotonic() - begun
        hit = kill(kind, process, cluster, rng)
        if hit and kind == "child" and rng.random() < 0.5:
            time.sleep(rng.uniform(0, 1))
            hit += f", {kill(kind, process, cluster, rng)}"  # perhaps the same video's second chance
        said = finish(process)
        if hit:
            break
    assert hit, "no kill hit anything"
    print(
        f"{kind}, {workers} worker(s), seed {seed}: {hit} killed after {moment:.2f} s, exit code {process.returncode}"
    )
    again = start(many, output, workers, *more)
    said = finish(again)
    assert again.returncode == 0, said
    assert arrays(output) == expected
    left = [p.name for p in output.with_suffix(".shards").iterdir() if p.name.startswith(".work")]
    left += [p.name for p in tmp_path.rglob("*.tmp")]
    assert not left


@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_resumed_gives_equal_arrays(kind, many, expected, clusters, durations, tmp_path):
    check(kind, 2, -1, many, expected, clusters, durations, tmp_path)


def test_a_killed_rewarp_goes_on(many, expected, tmp_path):
    source, output = tmp_path / "in.h5", tmp_path / "out.h5"
    prep(PrepInputs(discover([many]).videos), source, PrepConfig(size=32), RunOptions(workers=2))
    command = [sys.executable, "-m", "nemo_cli.main", "rewarp", source, many, output, "--size", "48"]
    process = subprocess.Popen([*command, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with one_halted(process):
        while not list((tmp_path / "out.shards").glob(".work/*.json")):
            assert process.poll() is None, "no kill hit anything"
            time.sleep(0.01)
        process.kill()
        process.communicate()
    assert not output.exists()
    again = subprocess.run(command, capture_output=True, check=False)
    assert again.returncode == 0 and b"\n0 done" not in b"\n" + again.stderr, again.stderr
    assert arrays(output) == expected


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> tuple[Path, dict[str, object]]:
    """A folder of pictures, one of which shows nobody, and the arrays of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("photos")
    for k in range(16):
        people = [(person(), person().placed(90 + 3 * k, 70 + 2 * k, 50 + k))] if k != 5 else []
        Image.fromarray(scene((260, 220), *people)).save(folder / f"p{k:02d}.png")
    output = tmp_path_factory.mktemp("whole") / "out.h5"
    config = PrepConfig(size=48, stills=True)
    prep(PrepInputs(discover([folder], stills=True).videos), output, config, RunOptions(workers=1))
    return folder, arrays(output)


@pytest.mark.parametrize("kind", ["command", "child"])
def test_killed_stills_go_on(kind, photos, tmp_path):
    folder, expected = photos
    for attempt in range(20):
        output = tmp_path / f"out{attempt}.h5"
        process = start(folder, output, 1, "--stills")
        while process.poll() is None and len(list(output.with_suffix(".shards").glob(".work/*.json"))) < 3:
            time.sleep(0.005)
        hit = kill(kind, process, None, random.Random(0))
        finish(process)
        if hit and output.exists() == (kind == "child"):
            break
    else:
        raise AssertionError("no kill hit anything")
    again = start(folder, output, 1, "--stills")
    said = finish(again)
    assert again.returncode == 0, said
    assert arrays(output) == expected


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_twenty_moments(kind, workers, seed, many, expected, clusters, durations, tmp_path):
    check(kind, workers, seed, many, expected, clusters, durations, tmp_path)
