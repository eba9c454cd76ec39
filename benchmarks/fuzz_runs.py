"""Runs for `benchmarks/fuzz.py`: one that is finished, and one that was cut off in the middle of a search."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nemo_cli.info import describe
from nemo_pipeline.errors import NemoError
from nemo_pipeline.store import FaceDataset, write_dataset
from siam_model import load
from siam_model.interval import load_interval
from siam_model.predictions import read_predictions
from siam_model.protocol.history import read_history
from siam_model.protocol.reporter import Reporter, TrainingScope
from siam_model.protocol.request import Runtime, TrainRequest
from siam_model.reports.inputs import EvaluateRequest, gather
from siam_model.reports.numbers import summary_json
from siam_model.sums import changed_files
from siam_model.train import resume, train
from siam_model.training.records import EpochRecord

#: Half of the tries damage the run that is finished, half the other one.
TARGETS = (
    "done/settings.json", "done/split.json", "done/run.json", "done/predictions.csv", "done/history.csv",
    "done/baselines/median.csv", "done/SHA256SUMS", "done/model/config.json", "done/model/model.safetensors",
    "done/model/SHA256SUMS", "done/folds/00/model/config.json", "done/folds/01/model/model.safetensors",
    "half/settings.json", "half/split.json", "half/SHA256SUMS", "half/folds/00/predictions.csv",
    "half/folds/00/choice.json", "half/folds/00/history.csv", "half/folds/00/model/config.json",
    "half/folds/00/baselines/ridge_mean_face.csv", "half/folds/01/trials.json",
    "half/folds/01/trials/001/checkpoint.pt", "half/folds/01/trials/001/history.csv",
)  # fmt: skip
SIZE, FRAMES = 36, 8
TINY = {
    "model.channels": "2,3,3", "model.kernels": "5,3,3", "model.pools": "2,2,0", "model.fully_connected": "6",
    "model.hidden": "4", "model.attention_dim": "3", "model.temporal_dim": "3", "model.lrn_size": "3",
}  # fmt: skip
#: A file that an executed payload would write.
MARK = "executed"


class Cut(Exception):
    """Ends a training from outside."""


class Cutter(Reporter):
    """Cuts a training off in the second fold's second trial."""

    def epoch(self, where: TrainingScope, record: EpochRecord) -> None:
        if (where.fold, where.trial, record.epoch) == (1, 1, 1):
            raise Cut


def make(folder: Path) -> None:
    """Data, and the two runs on them."""
    rng = np.random.default_rng(0)
    videos = [
        {
            "id": f"v{i}",
            "subject": f"s{i // 2}",
            "age": 20.0 + 5 * (i // 2),
            "gender": ("female", "male")[i // 2 % 2],
            "frames": rng.integers(0, 256, (FRAMES, SIZE, SIZE), dtype=np.uint8),
        }
        for i in range(12)
    ]
    data = write_dataset(folder / "data.h5", videos, synthetic=True)
    request = TrainRequest(preset="small", epochs=3, folds=2, trials=2, overrides=TINY)
    train(data, folder / "done", request, Runtime(device="cpu"))
    try:
        train(data, folder / "half", request, Runtime(device="cpu"), Cutter())
    except Cut:
        return
    raise AssertionError("the training was not cut off")


def finished(folder: Path) -> dict[str, Any]:
    """Everything that comes out of the finished run."""
    run = folder / "done"
    video = FaceDataset(folder / "data.h5")["v0"]
    found: dict[str, Any] = {"info": describe(run), "interval": load_interval(run, 0.8)}
    for name, model in (("model", load(run)), ("ensemble", load(run, ensemble=True))):
        found[name] = model.predict(video.frames).age
        found[f"{name} card"] = repr(model.card.to_dict())
    request = EvaluateRequest(quick=True, faces=False)
    given = gather([run], folder / "out", request, device="cpu", on_step=lambda _: None)
    found["meta"] = given.main.meta
    found["numbers"] = {name: summary_json(p) for name, p in given.methods.items()}
    found["tables"] = {name: dataclasses.astuple(p) for name, p in given.methods.items()}
    found["history"] = read_history(run / "history.csv")
    found["again"] = given.train_again()
    return _plain(found, folder)


def continued(folder: Path) -> dict[str, Any]:
    """The result of the other one when it is resumed."""
    run = folder / "half"
    describe(run)
    resume(run, folder / "data.h5", Runtime(device="cpu"))
    found: dict[str, Any] = {"predictions": dataclasses.astuple(read_predictions(run / "predictions.csv"))}
    for path in sorted(run.glob("**/model.safetensors")):
        found[str(path.relative_to(run))] = path.read_bytes()
    found["curve"] = [dataclasses.replace(line, seconds=0) for line in read_history(run / "history.csv")]
    found["choices"] = [
        json.loads(path.read_text())["chosen"] for path in sorted(run.glob("folds/*/choice.json"))
    ]
    return _plain(found, folder)


def _plain(found: dict[str, Any], folder: Path) -> dict[str, Any]:
    """As text, without the place that it happens to be in."""
    return {name: repr(value).replace(str(folder), "") for name, value in found.items()}


_SOUND: dict[str, dict[str, Any]] = {}


def attempt(folder: Path, target: str) -> str:
    """Describe, predict, read for evaluation; or continue it."""
    which = target.split("/")[0]
    use = finished if which == "done" else continued
    if which not in _SOUND:
        sound = folder.with_name("base")
        shutil.rmtree(sound, ignore_errors=True)
        _SOUND[which] = use(Path(shutil.copytree(folder.with_name("sound"), sound, symlinks=True)))
    outside = sorted(path.name for path in folder.parent.iterdir())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        changed = bool(changed_files(folder / which))
        try:
            found = use(folder)
        except (NemoError, IsADirectoryError):  # which every command says in a sentence
            outcome = "refused"
        else:
            other = sorted(name for name in _SOUND[which] if _SOUND[which][name] != found[name])
            outcome = "same" if not other else f"SILENT: {', '.join(other)}"
            if other and (changed or any("not as the training wrote it" in str(w.message) for w in said)):
                outcome = "found"
    if (folder / MARK).exists() or sorted(path.name for path in folder.parent.iterdir()) != outside:
        return "SILENT: something in the file was executed, or removed what is not the run's"
    return outcome


# ---- damage that keeps the file what it is

#: Replacements of a number, a text or a list.
HOSTILE: tuple[Any, ...] = (
    0, -1, 1, 2, 7, 3.5, 1e308, -1e308, float("nan"), float("inf"), 10**9, 10**15, 10**30, 2**63, True, None, "", "x",
    "../..", "/etc/passwd", "\x00", "\udce9", "1e9", [], {}, [[]], "indexed", "9" * 5000, [1] * 1000, "train.epochs",
)  # fmt: skip


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _json(path: Path, rng: np.random.Generator, change: Callable[[Any, Any], None]) -> None:
    """Change something in a JSON file, at any depth."""
    values = json.loads(path.read_text())
    places: list[tuple[Any, Any]] = []
    waiting: list[Any] = [values]
    while waiting:
        node = waiting.pop()
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                waiting.append(node[key])
    change(*places[int(rng.integers(len(places)))])
    path.write_text(json.dumps(values))


def _rows(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


def _write_rows(path: Path, rows: list[list[str]]) -> None:
    path.write_text("".join(",".join(row) + "\n" for row in rows), errors="surrogateescape")


def _header(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _write_header(path: Path, header: dict[str, Any], rest: bytes, length: int | None = None) -> None:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + rest)


def value(path: Path, rng: np.random.Generator) -> None:
    """One value by another."""
    new = HOSTILE[int(rng.integers(len(HOSTILE)))]
    if path.suffix == ".json":
        _json(path, rng, lambda node, key: node.__setitem__(key, new))
    elif path.suffix == ".csv":
        rows = _rows(path)
        row = rows[int(rng.integers(len(rows)))]
        row[int(rng.integers(len(row)))] = str(new)
        _write_rows(path, rows)
    elif path.suffix == ".safetensors":
        header, rest = _header(path)
        entry = header[list(header)[int(rng.integers(len(header)))]]
        key = list(entry)[int(rng.integers(len(entry)))]
        near: list[Any] = [
            "F64", "I8", "BF16", [0, 4], [4, 0], [0, len(rest)], [0, 2**63], [2**40], [1] * 40, [0],
        ]  # fmt: skip
        entry[key] = near[int(rng.integers(len(near)))] if rng.random() < 0.7 else new
        _write_header(path, header, rest)
    elif path.suffix == ".pt":
        values = torch.load(path, weights_only=True)
        _change_state(values, rng, new)
        torch.save(values, path)
    else:
        _swap_lines(path, rng)


def _change_state(values: Any, rng: np.random.Generator, new: Any) -> None:
    """One value of a checkpoint, at any depth."""
    while True:
        keys = list(values) if isinstance(values, dict) else list(range(len(values)))
        if not keys:
            return
        key = keys[int(rng.integers(len(keys)))]
        inner = values[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
            values = inner
            continue
        if isinstance(inner, torch.Tensor) and rng.random() < 0.5:
            new = [torch.zeros(3), inner[..., None], inner.to(torch.int8), torch.zeros(0)][
                int(rng.integers(4))
            ]
        if not isinstance(new, str) or "\udce9" not in new:
            values[key] = new
        return


def _swap_lines(path: Path, rng: np.random.Generator) -> None:
    lines = path.read_text().splitlines(keepends=True)
    one, other = (int(i) for i in rng.integers(0, len(lines), 2))
    lines[one] = lines[other]
    path.write_text("".join(lines))


def drop(path: Path, rng: np.random.Generator) -> None:
    """One thing is missing."""
    if path.suffix == ".json":
        _json(path, rng, lambda node, key: node.__delitem__(key))
    elif path.suffix == ".csv":
        rows = _rows(path)
        del rows[int(rng.integers(len(rows)))]
        _write_rows(path, rows)
    elif path.suffix == ".safetensors":
        header, rest = _header(path)
        del header[list(header)[int(rng.integers(len(header)))]]
        _write_header(path, header, rest)
    elif path.suffix == ".pt":
        values = torch.load(path, weights_only=True)
        del values[list(values)[int(rng.integers(len(values)))]]
        torch.save(values, path)
    else:
        path.unlink()


def twice(path: Path, rng: np.random.Generator) -> None:
    """One thing too much."""
    if path.suffix == ".json":
        _json(
            path,
            rng,
            lambda node, key: node.append(node[key]) if isinstance(node, list) else node.update({"new": 1}),
        )
    elif path.suffix == ".csv":
        rows = _rows(path)
        rows.insert(int(rng.integers(1, len(rows) + 1)), rows[int(rng.integers(1, len(rows)))])
        _write_rows(path, rows)
    elif path.suffix == ".safetensors":
        header, rest = _header(path)
        header["more"] = header[list(header)[int(rng.integers(len(header)))]]
        _write_header(path, header, rest)
    elif path.suffix == ".pt":
        values = torch.load(path, weights_only=True)
        torch.save({**values, "more": torch.zeros(3)}, path)
    else:
        path.write_bytes(2 * path.read_bytes())


def absurd(path: Path, rng: np.random.Generator) -> None:
    """Depth, length and claims that no memory holds."""
    if path.suffix == ".safetensors":
        header, rest = _header(path)
        if rng.random() < 0.5:
            _write_header(path, header, rest, [1 << 31, 1 << 62, 0, 7][int(rng.integers(4))])
        else:
            header[next(iter(header))] = {
                "dtype": "F32",
                "shape": [1 << 20, 1 << 20],
                "data_offsets": [0, 1 << 42],
            }
            _write_header(path, header, rest)
            with path.open("r+b") as file:
                file.truncate(1 << 42)
    elif path.suffix == ".pt":
        data = io.BytesIO()
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as new:
            for entry in old.infolist():
                large = entry.filename.endswith("/data/0")
                new.writestr(entry.filename, bytes(1 << 30) if large else old.read(entry))
        path.write_bytes(data.getvalue())
    else:
        start = [b"[" * 500_000, b'{"a":' * 200_000, b"9" * 200_000, b"\x00" * 1000][int(rng.integers(4))]
        path.write_bytes(start + (b"" if rng.random() < 0.5 else path.read_bytes()))
        if rng.random() < 0.3:
            with path.open("r+b") as file:
                file.truncate(1 << 42)


def payload(path: Path, rng: np.random.Generator) -> None:
    """A pickle that does something, in place of the file or as a part of it."""
    bad = Payload(_place(path) / MARK)
    if path.suffix == ".pt" and rng.random() < 0.6:
        values = torch.load(path, weights_only=True)
        values[list(values)[int(rng.integers(len(values)))]] = bad
        torch.save(values, path, _use_new_zipfile_serialization=rng.random() < 0.7)
    elif path.suffix == ".pt" and rng.random() < 0.5:
        torch.save(bad, path)
    else:
        path.write_bytes(pickle.dumps(bad))


def _place(path: Path) -> Path:
    """The folder that both runs are in."""
    return next(parent for parent in path.parents if parent.name in ("done", "half")).parent


def link(path: Path, rng: np.random.Generator) -> None:
    """A link, a pipe or a device in place of the file or of the folder that it is in."""
    kind = int(rng.integers(7))
    if kind < 2:  # the folder lies elsewhere
        folder, elsewhere = path.parent, _place(path) / "elsewhere"
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere)
        return
    path.unlink()
    if kind == 2:
        os.mkfifo(path)
    elif kind == 3:
        path.mkdir()
    else:
        path.symlink_to(["/dev/zero", path.name, "/etc/hostname"][kind - 4])


REWRITES = {
    change.__name__: change for change in (value, value, value, drop, twice, absurd, payload, link)
}  # fmt: skip
