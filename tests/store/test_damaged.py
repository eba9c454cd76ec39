"""Damaged and hostile prepared files: each kind that was ever read wrongly, crashed or hung is one typed sentence."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from nemo_cli.main import main
from nemo_pipeline.batch.assemble import KnownLabels, recall_labels, relabel, remember_labels
from nemo_pipeline.batch.label_table import LabelTable
from nemo_pipeline.errors import DamagedFile, DataError
from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.store.isolated import Isolated
from nemo_pipeline.store.pack import pack
from nemo_pipeline.store.sealed import seal
from nemo_pipeline.store.shard import read_shard, read_shards, shards_folder
from nemo_pipeline.store.strict import dataset_in
from nemo_pipeline.store.verify import verify
from tests.support.paths import ROOT
from tests.support.processes import PATIENCE
from tests.support.videos import sound_videos

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    pack(write_dataset(folder / "out.h5", sound_videos()), folder / "one.h5")
    return folder


@pytest.fixture
def path(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "files") / "out.h5"


def shard_of(path: Path) -> Path:
    return read_shards(shards_folder(path))[0].path


def edit(path, change, sealed=False):
    with h5py.File(path, "r+", locking=False) as file:
        change(file)
        if sealed:
            seal(file)


def again(file, name, **options):
    """The same dataset, made with other options."""
    values = options.pop("data", None)
    values = file[name][()] if values is None and "shape" not in options else values
    del file[name]
    return file.create_dataset(name, data=values, **options)


def link(file, name, to):
    del file[name]
    file[name] = to


# ---- values that chance or people changed: silent before there was a digest


@pytest.mark.parametrize(
    ("name", "where", "value"),
    [
        ("mean_shape", (3, 1), 0.123),
        ("triangles", (5, 0), 7),
        ("videos/subject", 1, b"s2"),
        ("videos/age", 0, 21.5),
        ("videos/n_decoded", 0, 8),
        ("layout/bytes", 0, 5),
        ("shards/uuid", 0, b"0"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_changed_table_is_refused(path, name, where, value, packed):
    if packed:
        path = path.with_name("one.h5")
        if name == "shards/uuid":
            return

    def change(file):
        file[name][where] = value

    edit(path, change)
    with pytest.raises(DamagedFile, match="digest"):
        FaceDataset(path)
    assert any("digest" in finding.text for finding in verify(path) if finding.level == "error")
    with pytest.raises(DamagedFile, match="digest"):  # and is not sealed again by a change of labels
        relabel(path, LabelTable("t", {"clip0": {"age": 3.0}}))


@pytest.mark.parametrize("name", ["config", "synthetic", "kind", "fields", "digest", "mesh", "versions"])
def test_a_changed_or_lost_attribute_is_refused(path, name):
    def change(file):
        file.attrs[name] = {"config": file.attrs["config"].replace("0.02", "0.03"), "kind": "packed"}.get(
            name, "x"
        )

    def lose(file):
        del file.attrs[name]

    for damage in (change, lose):
        other = path.with_name("other.h5")
        other.write_bytes(path.read_bytes())
        edit(other, damage)
        with pytest.raises(DamagedFile):
            FaceDataset(other, check=False)


def test_a_changed_shard_is_refused(path):
    shard = shard_of(path)

    def change(file):
        file["videos/n_decoded"][0] = 6

    edit(shard, change)
    with pytest.raises(DamagedFile, match="digest"):
        read_shard(shard)
    assert any(finding.where == shard.name for finding in verify(path))


def test_labels_renew_the_digest(path):
    relabel(path, LabelTable("t", {"clip0": {"age": 3.0}}))
    assert FaceDataset(path)["clip0"].age == 3 and not [f for f in verify(path) if f.level == "error"]


# ---- what is declared is looked at before it is followed (the digest fits: somebody made it so)

HUGE = (1 << 40,)
HOSTILE = {
    "a soft link": (lambda f: link(f, "videos/age", h5py.SoftLink("/videos/fps")), "link to elsewhere"),
    "a soft link to itself": (
        lambda f: link(f, "mean_shape", h5py.SoftLink("/mean_shape")),
        "link to elsewhere",
    ),
    "a link to another file": (
        lambda f: link(f, "videos/age", h5py.ExternalLink("/etc/hostname", "/x")),
        "link to elsewhere",
    ),
    "a linked group": (
        lambda f: link(f, "layout", h5py.ExternalLink("other.h5", "/layout")),
        "link to elsewhere",
    ),
    "data in another file": (
        lambda f: again(
            f, "videos/fold", data=None, shape=(4,), dtype="<i4", external=[("/etc/hostname", 0, 16)]
        ),
        "another file",
    ),
    "a window": (lambda f: window(f, "videos/fold"), "window into another file"),
    "another filter": (
        lambda f: again(f, "videos/fps", chunks=True, compression="lzf"),
        "another method than gzip",
    ),
    "a checksum filter": (lambda f: again(f, "videos/fps", chunks=True, fletcher32=True), "another method"),
    "more than there is": (lambda f: again(f, "videos/age", shape=HUGE, dtype="<f4", data=None), "more data"),
    "more than there is, in chunks": (
        lambda f: again(f, "videos/age", shape=HUGE, dtype="<f4", data=None, chunks=(1024,)),
        "more data",
    ),
    "a huge chunk": (
        lambda f: again(f, "videos/age", maxshape=(None,), chunks=(1 << 24,), compression="gzip"),
        "more data",
    ),
    "long texts": (lambda f: again(f, "videos/id", shape=(4,), dtype="S1000000000", data=None), "more data"),
    "no dimension": (lambda f: again(f, "videos/age", data=np.float32(3)), "is missing"),
    "a table of pairs": (
        lambda f: again(f, "videos/age", data=np.zeros(4, [("a", "i4"), ("b", "i4")])),
        "is missing",
    ),
    "references": (lambda f: again(f, "videos/id", shape=(4,), dtype=h5py.ref_dtype, data=None), "more data"),
    "numbers for texts": (lambda f: again(f, "videos/id", data=np.arange(4)), "is of the type"),
    "texts for numbers": (lambda f: again(f, "videos/age", data=["a", "b", "c", "d"]), "is of the type"),
    "fractions for whole numbers": (
        lambda f: again(f, "videos/length", data=np.full(4, 1.5)),
        "is of the type",
    ),
    "another length": (lambda f: again(f, "videos/age", data=np.zeros(3, "f4")), "of another length"),
    "a group for a column": (
        lambda f: (f.__delitem__("videos/age"), f.create_group("videos/age")),
        "is missing",
    ),
    "a line for a face": (lambda f: again(f, "mean_shape", data=np.zeros(68)), "no table of numbers"),
}


def window(file, name):
    layout = h5py.VirtualLayout((4,), "<i4")
    layout[...] = h5py.VirtualSource(".", name, (4,))
    del file[name]
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_file_declares_is_not_followed(path, case):
    change, text = HOSTILE[case]
    edit(path, change)
    with pytest.raises(DamagedFile, match=text) as caught:
        FaceDataset(path)
    assert caught.value.path == path and caught.value.dataset.startswith("/")
    with pytest.raises(DamagedFile, match=text):
        verify(path)


@pytest.mark.parametrize(("name", "values"), [("start", [0, 7, 8, 19]), ("length", [7, -1, 12, 9])])
def test_videos_that_do_not_lie_end_to_end(path, name, values):
    edit(path, lambda f: f[f"videos/{name}"].write_direct(np.array(values)), sealed=True)
    with pytest.raises(DamagedFile, match="end to end"):
        FaceDataset(path)
    assert any("end to end" in finding.text for finding in verify(path))


def test_attributes_that_nobody_of_ours_writes(path):
    """Bytes that are not text are kept as they are; a file without a uuid is refused."""
    edit(path, lambda f: f.attrs.create("weather", b"\xff\xfe"), sealed=True)
    one = pack(path, path.with_name("two.h5"))
    assert FaceDataset(one).attributes["weather"] == FaceDataset(path).attributes["weather"] == "\udcff\udcfe"
    edit(path, lambda f: f.attrs.__delitem__("uuid"))
    with pytest.raises(DamagedFile, match="its attribute uuid"):
        FaceDataset(path)


@pytest.mark.parametrize("name", ["frames", "landmarks", "tracked"])
@pytest.mark.parametrize("case", ["link", "filter", "window", "huge", "short", "type", "gone"])
def test_frames_are_looked_at_before_they_are_read(path, name, case):
    def change(file):
        old = file[name]
        shape, dtype = old.shape, old.dtype
        if case == "link":
            link(file, name, h5py.SoftLink("/nowhere"))
        elif case == "filter":
            again(file, name, compression="lzf", chunks=True)
        elif case == "window":
            layout = h5py.VirtualLayout(shape, dtype)
            layout[...] = h5py.VirtualSource(".", name, shape)
            del file[name]
            file.create_virtual_dataset(name, layout)
        elif case == "huge":
            again(file, name, data=None, shape=(1 << 36, *shape[1:]), dtype=dtype)
        elif case == "short":
            again(file, name, data=old[:9])
        elif case == "type":
            again(file, name, data=old[()].astype("f8"))
        else:
            del file[name]

    edit(shard_of(path), change)
    data = FaceDataset(path)
    with pytest.raises(DamagedFile) as caught:
        data["clip2"].read(name)
    assert caught.value.dataset == f"/{name}" and "Take another copy" in str(caught.value)
    assert any(finding.where == "clip2" for finding in verify(path) if finding.level == "error")


# ---- bytes


def heap_gap(data: bytearray) -> None:
    """The header of an object in a heap of texts is zero: HDF5 walked over it forever."""
    at = data.index(b"GCOL")
    data[at + 16 : at + 32] = bytes(16)


def heap_overflow(data: bytearray) -> None:
    at = data.index(b"GCOL")
    data[at + 24 : at + 32] = b"\xff" * 8


def long_text(data: bytearray) -> None:
    """A text that says that it is 4 GB long."""
    at = data.index(len("clip0.mp4").to_bytes(4, "little"), 1000)
    data[at : at + 4] = b"\xf0\xff\xff\xff"


def header(data: bytearray) -> None:
    """A byte of the root group's header, whose checksum then differs."""
    at = data.index(b"OHDR")
    data[at + 40] ^= 1


def cut(data: bytearray) -> None:
    del data[len(data) // 2 :]


def insert(data: bytearray) -> None:
    data[700:700] = b"xyz"


@pytest.mark.parametrize("damage", [heap_gap, heap_overflow, long_text, header, cut, insert])
@pytest.mark.parametrize("kind", ["index", "shard", "packed"])
def test_broken_structure_is_a_sentence(path, damage, kind):
    target = {"index": path, "shard": shard_of(path), "packed": path.with_name("one.h5")}[kind]
    data = bytearray(target.read_bytes())
    damage(data)
    target.write_bytes(data)
    opened = target if kind == "packed" else path
    with pytest.raises(DamagedFile, match=target.name):
        read_shard(target) if kind == "shard" else FaceDataset(opened)
    if damage in (heap_gap, header):  # in a process of its own
        complaints = CliRunner().invoke(main, ["verify", str(opened)])
        assert complaints.exit_code == 1 and "damaged" in complaints.output
        assert CliRunner().invoke(main, ["info", str(target)]).exit_code == 1


def test_a_file_that_crashes_hdf5_costs_a_process_of_ours(path):
    """The map of a window that says how many entries it has: the library reads on beyond its end."""
    data = bytearray(path.read_bytes())
    entry = b"\0" + (1).to_bytes(8, "little") + b"out.shards/"
    at = data.index(entry)
    data[at + 1 : at + 9] = (1 << 31).to_bytes(8, "little")
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "nemo_cli.main", "verify", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "damaged" in done.stderr + done.stdout and "Traceback" not in done.stderr


def test_the_process_that_reads_may_be_killed(path):
    def kill(n, total):
        for child in psutil.Process().children():
            os.kill(child.pid, signal.SIGKILL)

    with Isolated() as process:
        with pytest.raises(DamagedFile, match="the process that read it was killed"):
            for _ in range(50):  # it may be through before it is hit
                process.verify(path, kill)
        assert [f for f in process.verify(path) if f.level == "error"] == []  # another one takes its place
        process.open_first(path)
        with pytest.raises(DataError, match="does not exist"):
            process.open_first(path.with_name("other.h5"))


def test_fuzz():
    """The benchmark runs, and a few of its tries find nothing."""
    command = [sys.executable, str(BENCHMARKS / "fuzz.py"), "prepared", "--tries", "10", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_labels_of_absent_videos_have_a_digest_too(tmp_path):
    labels = KnownLabels({("a.mp4", 0): {"age": 30.5, "subject": "s"}})
    remember_labels(tmp_path, labels, [])
    assert recall_labels(tmp_path).by_file == labels.by_file
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text().replace("30.5", "31.5"))
    with pytest.raises(DamagedFile, match="its digest is another"):
        recall_labels(tmp_path)
    file.write_text("[[")
    with pytest.raises(DamagedFile, match=r"absent-labels\.json"):
        recall_labels(tmp_path)


def test_a_table_of_chunks_beyond_the_array(tmp_path):
    """Reading such a dataset writes outside of the array, which ends the process."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros((28, 68, 2), np.float32), chunks=(1, 68, 2))
    damaged = path.read_bytes().replace(struct.pack("<3Q", 28, 68, 2), struct.pack("<3Q", 20, 68, 2))
    path.write_bytes(damaged)
    with h5py.File(path) as file, pytest.raises(DamagedFile, match="table of chunks"):
        dataset_in(file, "x")
