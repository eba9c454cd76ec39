"""Prepared files for `benchmarks/fuzz.py`: an index with its shard, a packed file, and a compressed one."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nemo_cli.info import describe
from nemo_pipeline.batch.assemble import relabel
from nemo_pipeline.batch.label_table import LabelTable
from nemo_pipeline.errors import NemoError
from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.store.isolated import Isolated
from nemo_pipeline.store.pack import pack
from nemo_pipeline.store.sealed import seal

TARGETS = ("out.h5", "out.shards/*.h5", "one.h5", "small.h5")
SIZE = 16


def make(folder: Path) -> None:
    """Four videos of 16-pixel faces, one of them without frames."""
    rng = np.random.default_rng(0)
    videos = []
    for i, length in enumerate((9, 0, 12, 7)):
        video: dict[str, Any] = {
            "id": f"clip{i}",
            "file": f"folder/clip{i}.mp4",
            "subject": f"s{i}",
            "age": 20.5 + 10 * i,
            "gender": "female",
            "expression": "smile",
            "condition": "posed",
            "fold": i % 2,
            "frames": rng.integers(0, 256, (length, SIZE, SIZE), dtype=np.uint8),
            "face_presence": np.full(length, 0.9, np.float32),
            "eye_distance_px": np.full(length, 60, np.float32),
            "pose": np.zeros((length, 3), np.float32),
            "sharpness": np.full(length, 9, np.float32),
        }
        for name in ("landmarks", "landmarks_raw"):
            video[name] = rng.normal(size=(length, 68, 2)).astype(np.float32)
        videos.append(video if length else video | {"status": "no_face", "message": "No face was found."})
    write_dataset(folder / "out.h5", videos)
    pack(folder / "out.h5", folder / "one.h5")
    pack(folder / "out.h5", folder / "small.h5", compression=4)


def contents(path: Path) -> dict[str, bytes]:
    """Everything that the reader hands out, but for what is new with every file."""
    data = FaceDataset(path)
    found = {f"videos/{name}": as_bytes(column) for name, column in data.videos.items()}
    found |= {f"layout/{name}": as_bytes(column) for name, column in data.layout.items()}
    found |= {"mean_shape": as_bytes(data.mean_shape), "triangles": as_bytes(data.triangles)}
    found |= {"config": repr(dataclasses.asdict(data.config)).encode(), "synthetic": bytes([data.synthetic])}
    found |= {f"attribute {name}": repr(value).encode() for name, value in data.attributes.items()}
    for row in data.rows:
        for name in data.fields:
            found[f"{row}/{name}"] = as_bytes(data.read(row, name))
    data.close()
    return found


def as_bytes(values: Any) -> bytes:
    return values.tobytes() if isinstance(values, np.ndarray) else repr(values).encode()


#: As `nemo verify` has it.
_PROCESS = Isolated()
_SOUND: dict[Path, dict[str, bytes]] = {}


def attempt(folder: Path, target: str) -> str:
    """Read, verify, describe, pack and label it, as the commands do."""
    path = folder / (target if target.endswith(("one.h5", "small.h5")) else "out.h5")
    sound_path = folder.with_name("sound") / path.name
    if sound_path not in _SOUND:
        _SOUND[sound_path] = contents(sound_path)
    sound = _SOUND[sound_path]
    complaints = refused(lambda: [f for f in _PROCESS.verify(path) if f.level == "error"])
    refused(lambda: describe(path))
    refused(lambda: pack(path, folder / "packed.h5"))
    try:
        found = contents(path)
    except NemoError:
        return "refused" if complaints else "SILENT: refused, but verify finds nothing"
    other = sorted(name for name in sound.keys() | found.keys() if sound.get(name) != found.get(name))
    refused(lambda: relabel(path, LabelTable("t", {"clip0": {"age": 1.0}})))
    if not other:
        return "same"
    if complaints:
        return "found"
    return "forged" if "attribute digest" in other else f"SILENT: {other[0]} and {len(other) - 1} more"


def refused(do: Callable[[], Any]) -> Any:
    """What it answers; the sentence where it refuses."""
    try:
        return do()
    except NemoError as error:
        return str(error)


# ---- damage that keeps the file HDF5


def _names(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visit(
        lambda name: found.append(name) if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    )
    return found


def _edit(
    change: Callable[[h5py.File, str, np.random.Generator], None],
) -> Callable[[Path, np.random.Generator], None]:
    """A rewrite of one object, chosen by chance."""

    def rewrite(path: Path, rng: np.random.Generator) -> None:
        with h5py.File(path, "r+", locking=False) as file:
            names = _names(file)
            change(file, names[int(rng.integers(len(names)))], rng)
            if rng.random() < 0.5 and change not in (_soft, _external, _storage, _virtual):
                # As somebody would who knows how. To read through those would hang or crash this process.
                with contextlib.suppress(Exception):
                    seal(file)

    return rewrite


def _value(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    """One value of one dataset."""
    item = file[name]
    if not isinstance(item, h5py.Dataset) or not item.size or item.is_virtual:
        return
    at = tuple(int(rng.integers(n)) for n in item.shape)
    if item.dtype.kind == "O":
        item[at] = (b"s0", b"clip2", b"", b"../x", b"\xff", b"ok")[int(rng.integers(6))]
    else:
        item[at] = rng.choice([0, 1, 3, 77, -1]) if item.dtype.kind != "b" else not item[at]


def _drop(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    del file[name]


def _shape(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    """The same name with another shape, up to more than any memory holds; nothing of it is stored."""
    dtype = file[name].dtype if isinstance(file[name], h5py.Dataset) else "u1"
    del file[name]
    shape = [(0,), (1,), (4, 4), (), (1 << 20,), (1 << 36,), (1 << 40, 16, 16)][int(rng.integers(7))]
    chunks = tuple(min(n, 1024) for n in shape) if shape and min(shape) and rng.random() < 0.5 else None
    file.create_dataset(name, shape, dtype, chunks=chunks)


def _type(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    """The same name with another type."""
    length = len(file[name]) if isinstance(file[name], h5py.Dataset) and file[name].shape else 4
    del file[name]
    dtype: Any = [
        "u1", "<f8", ">i4", "S5", h5py.string_dtype(), h5py.vlen_dtype("f8"), h5py.ref_dtype, h5py.regionref_dtype,
        np.dtype([("a", "i4"), ("b", "f8")]), h5py.enum_dtype({"A": 1, "B": 2}), "<c16", h5py.opaque_dtype("M8[us]"),
        "S1000000",
    ][int(rng.integers(13))]  # fmt: skip
    file.create_dataset(name, (length,), dtype)


def _soft(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    del file[name]
    file[name] = h5py.SoftLink(["/", f"/{name}", "/videos/id", "/nowhere", "/videos"][int(rng.integers(5))])


def _external(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    del file[name]
    where = ["small.h5", "../small.h5", "/dev/zero", "/etc/hostname", file.filename][int(rng.integers(5))]
    file[name] = h5py.ExternalLink(where, f"/{name}")


def _storage(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    """Raw data that lie in another file."""
    old = file[name]
    if not isinstance(old, h5py.Dataset) or not old.shape or old.dtype.kind == "O":
        return
    shape, dtype = old.shape, old.dtype
    del file[name]
    where = ["/etc/hostname", "/dev/zero", "small.h5"][int(rng.integers(3))]
    file.create_dataset(name, shape, dtype, external=[(where, 0, h5py.h5f.UNLIMITED)])


def _filter(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    old = file[name]
    if (
        not isinstance(old, h5py.Dataset)
        or not old.shape
        or not old.size
        or old.dtype.kind == "O"
        or old.is_virtual
    ):
        return
    values = old[()]
    del file[name]
    options: Any = [{"compression": "lzf"}, {"fletcher32": True}, {"compression": "gzip"}, {"scaleoffset": 3}]
    try:
        file.create_dataset(name, data=values, chunks=True, **options[int(rng.integers(4))])
    except (ValueError, TypeError):
        file[name] = values


def _virtual(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    """A window into another file, or into itself."""
    old = file[name]
    if not isinstance(old, h5py.Dataset) or not old.shape or old.dtype.kind == "O":
        return
    shape, dtype = old.shape, old.dtype
    del file[name]
    layout = h5py.VirtualLayout(shape, dtype)
    where = [".", "small.h5", "../sound/small.h5", "/etc/hostname"][int(rng.integers(4))]
    layout[...] = h5py.VirtualSource(where, name, shape)
    file.create_virtual_dataset(name, layout)


def _group(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    del file[name]
    file.create_group(name)


def _swap(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    names = _names(file)
    other = names[int(rng.integers(len(names)))]
    if other != name and not other.startswith(f"{name}/") and not name.startswith(f"{other}/"):
        file.move(name, "swap")
        file.move(other, name)
        file.move("swap", other)


def _attribute(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    """One root attribute: another value, another type, or gone."""
    key = list(file.attrs)[int(rng.integers(len(file.attrs)))]
    values: list[Any] = [
        "", "x", "{}", "[]", "null", "9" * 5000, "[" * 100_000, b"\xff\xfe", 0, 1, -1, 2**62, np.nan, np.arange(5),
        h5py.Empty("f4"), np.zeros(1, [("a", "i4")]), "/etc", "..", True, False, h5py.Empty("S1"),
    ]  # fmt: skip
    del file.attrs[key]
    k = int(rng.integers(len(values) + 1))
    if k < len(values):
        file.attrs[key] = values[k]


def _settings(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    """One setting in `config`."""
    import json

    values = json.loads(file.attrs["config"])
    key = list(values)[int(rng.integers(len(values)))]
    news: list[Any] = [0, 1, -1, 10**9, 1e308, "x", None, [], {}, True, "central", 114, float("inf")]
    values[key] = news[int(rng.integers(len(news)))]
    file.attrs["config"] = json.dumps(values)


def _reseal(path: Path, rng: np.random.Generator) -> None:
    """One byte of a header, with the checksum of that header made right again: what chance does not do, but people."""
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data) - 4) if data[i : i + 4] == b"OHDR"]
    at = starts[int(rng.integers(len(starts)))]
    flags = data[at + 5]
    head = at + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    end = head + width + int.from_bytes(data[head : head + width], "little")
    if end + 4 > len(data) or end - head - width < 1:
        return
    for _ in range(int(rng.integers(1, 4))):
        data[int(rng.integers(head + width, end))] = int(rng.choice([0, 1, 2, 3, 8, 16, 127, 255]))
    data[end : end + 4] = lookup3(bytes(data[at:end])).to_bytes(4, "little")
    path.write_bytes(bytes(data))


def lookup3(key: bytes) -> int:
    """Bob Jenkins's hash, with which HDF5 protects its headers (H5_checksum_lookup3, initial value 0)."""
    mask = 0xFFFFFFFF

    def rot(x: int, k: int) -> int:
        return ((x << k) | (x >> (32 - k))) & mask

    a = b = c = (0xDEADBEEF + len(key)) & mask
    at = 0
    while len(key) - at > 12:
        a, b, c = (
            (x + int.from_bytes(key[at + 4 * i : at + 4 * i + 4], "little")) & mask
            for i, x in enumerate((a, b, c))
        )
        for k in (4, 6, 8, 16, 19, 4):
            a = (a - c) & mask
            a ^= rot(c, k)
            c = (c + b) & mask
            a, b, c = b, c, a
        at += 12
    rest = key[at:]
    if not rest:
        return c
    rest = rest.ljust(12, b"\0")
    a, b, c = (
        (x + int.from_bytes(rest[4 * i : 4 * i + 4], "little")) & mask for i, x in enumerate((a, b, c))
    )
    for k in (14, 11, 25, 16, 4, 14, 24):
        c ^= b
        c = (c - rot(b, k)) & mask
        a, b, c = b, c, a
    return b


REWRITES = {
    change.__name__.strip("_"): _edit(change)
    for change in (
        _value, _drop, _shape, _type, _soft, _external, _storage, _filter, _virtual, _group, _swap, _attribute,
        _settings,
    )
} | {"reseal": _reseal}  # fmt: skip
