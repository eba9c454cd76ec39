"""Damaged and hostile files: is every one of them refused with a sentence, or read as it was written?

    python benchmarks/fuzz.py videos|prepared|runs|tables [--tries 5000] [--seed 0] [--first N] [--seconds 20]
                                                          [--memory 1500] [--keep FOLDER] [--json FILE]

Every try takes sound files, damages one of them (a few bytes flipped, zeroed, copied, cut out, put in, or the whole
rewritten by rules that only the kind of file knows), and does with it what the commands do. A try depends on the seed
and its number alone. It runs in a process of its own kind, so that a crash, a hang, or a thirst for memory is noticed
and ends that process only. What may come of it:

    same      all is as it was written (the damage hit nothing that is read)
    read      a video or a table that reads otherwise, as what its bytes now say
    refused   a sentence says what is wrong
    found     it opens, and `nemo verify` (or the like) says what is wrong
    forged    it reads otherwise, and its digest was made to fit: no accident
    SILENT    something is read back changed, and nothing says so
    BARE      an exception that is no sentence
    CRASH, HANG, MEMORY    the process died, took more than --seconds, or more than --memory MB

The kinds of file are the modules `fuzz_<kind>`: each has `make(folder)` (the sound files), `TARGETS` (which of them may
be damaged), `REWRITES` (name -> function(path, rng), damage that keeps the file well-formed), and `attempt(folder,
target)`, which answers "same", "read", "refused", "found", "forged" or "SILENT: ...".
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import multiprocessing.connection
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, print_table

KINDS = ("videos", "prepared", "runs", "tables")
GOOD = ("same", "read", "refused", "found", "forged")
#: Address space of a process, bytes: no try may take the machine's memory with it.
ADDRESS_SPACE = 8 << 30
#: A process is replaced after so many tries: HDF5 remembers what it has seen.
RECYCLE_AFTER = 200

Rng = np.random.Generator
#: Whole numbers that lengths, offsets and counts break on.
NUMBERS = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


def flip(data: bytearray, rng: Rng) -> None:
    """One to eight bits."""
    for at in rng.integers(0, len(data), rng.integers(1, 9)):
        data[at] ^= 1 << int(rng.integers(8))


def overwrite(data: bytearray, rng: Rng) -> None:
    """One to four bytes by others."""
    for at in rng.integers(0, len(data), rng.integers(1, 5)):
        data[at] = int(rng.integers(256))


def number(data: bytearray, rng: Rng) -> None:
    """A field of 2, 4 or 8 bytes by a number that breaks things."""
    width = int(rng.choice([2, 4, 8]))
    at = int(rng.integers(0, max(1, len(data) - width)))
    value = NUMBERS[int(rng.integers(len(NUMBERS)))] & ((1 << 8 * width) - 1)
    data[at : at + width] = value.to_bytes(width, "little")


def blank(data: bytearray, rng: Rng) -> None:
    """A stretch by zeros: a block of the disk that was lost."""
    at, length = int(rng.integers(0, len(data))), int(2 ** rng.uniform(0, 13))
    data[at : at + length] = bytes(len(data[at : at + length]))


def copy(data: bytearray, rng: Rng) -> None:
    """A stretch by another one of the same file."""
    length = int(2 ** rng.uniform(0, 10))
    one, other = rng.integers(0, max(1, len(data) - length), 2)
    data[one : one + length] = data[other : other + length]


def remove(data: bytearray, rng: Rng) -> None:
    """A stretch is missing."""
    at = int(rng.integers(0, len(data)))
    del data[at : at + int(2 ** rng.uniform(0, 10))]


def insert(data: bytearray, rng: Rng) -> None:
    """A stretch too much."""
    at = int(rng.integers(0, len(data)))
    data[at:at] = rng.bytes(int(2 ** rng.uniform(0, 8)))


def cut(data: bytearray, rng: Rng) -> None:
    """The end is missing: a copy that broke off."""
    del data[int(rng.integers(0, len(data))) :]


BYTES = {f.__name__: f for f in (flip, overwrite, number, blank, copy, remove, insert, cut)}


def damage(path: Path, rng: Rng, rewrites: dict[str, Callable[[Path, Rng], None]]) -> str:
    """Damage a file; answers how."""
    if rewrites and rng.random() < 0.4:
        name = list(rewrites)[int(rng.integers(len(rewrites)))]
        rewrites[name](path, rng)
        return name
    name = list(BYTES)[int(rng.integers(len(BYTES)))]
    data = bytearray(path.read_bytes())
    BYTES[name](data, rng)
    path.write_bytes(bytes(data))
    return name


def one_try(kind: Any, sound: Path, place: Path, seed: int, n: int) -> dict[str, Any]:
    """Damage a fresh copy of the sound files at `place`, and see what comes of it."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound, place)
    rng = np.random.default_rng([seed, n])
    target = kind.TARGETS[int(rng.integers(len(kind.TARGETS)))]
    (path,) = place.glob(target)
    how = damage(path, rng, kind.REWRITES)
    try:
        outcome = kind.attempt(place, target)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        outcome = f"BARE: {type(error).__name__}: {str(error)[:160]} ({where})"
    return {"n": n, "target": target, "how": how, "outcome": outcome}


def work(pipe: multiprocessing.connection.Connection, name: str, sound: Path, place: Path, seed: int) -> None:
    """A process that does the tries that it is asked for."""
    import resource
    import warnings

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kind = importlib.import_module(f"fuzz_{name}")
    shutil.rmtree(place, ignore_errors=True)
    kind.attempt(shutil.copytree(sound, place), kind.TARGETS[0])  # what is loaded on first use does not count
    while (n := pipe.recv()) is not None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = one_try(kind, sound, place, seed, n)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
        pipe.send({**answer, "megabytes": round(grown)})


class Worker:
    """One such process, replaced when it dies, hangs or grows."""

    def __init__(self, kind: str, sound: Path, place: Path, seed: int) -> None:
        self._arguments = (kind, sound, place, seed)
        self._process: Any = None
        self._done = 0

    def start(self) -> None:
        """A fresh process."""
        self.stop()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._done = 0

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None

    def ask(self, n: int, seconds: float, megabytes: float) -> dict[str, Any]:
        """Do try `n`."""
        first = self._process is None or self._done >= RECYCLE_AFTER
        if first:
            self.start()
        self._done += 1
        try:
            self._pipe.send(n)
            if not self._pipe.poll(seconds + (60 if first else 0)):
                self.stop()
                return {"n": n, "outcome": f"HANG: more than {seconds:g} s"}
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            self.stop()
            return {"n": n, "outcome": f"CRASH: exit code {code}"}
        if answer["megabytes"] > megabytes:
            answer["outcome"] = f"MEMORY: {answer['megabytes']} MB ({answer['outcome']})"
            self.stop()
        return answer


def not_kept(folder: str, names: list[str]) -> list[str]:
    """What is not a file, and what pretends to be terabytes."""
    paths = {name: Path(folder, name) for name in names}
    return [
        name
        for name, path in paths.items()
        if not path.is_symlink()
        and not path.is_dir()
        and not (path.is_file() and path.stat().st_size < 1 << 26)
    ]


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All tries of a kind."""
    kind = importlib.import_module(f"fuzz_{options.kind}")
    with tempfile.TemporaryDirectory(prefix="nemo-fuzz-") as folder:
        sound, place = Path(folder) / "sound", Path(folder) / "try"
        sound.mkdir()
        kind.make(sound)
        worker = Worker(options.kind, sound, place, options.seed)
        answers = []
        started = time.monotonic()
        for n in range(options.first, options.first + options.tries):
            answer = worker.ask(n, options.seconds, options.memory)
            answers.append(answer)
            if answer["outcome"] not in GOOD:
                print(
                    f"{n}: {answer.get('target', '?')}, {answer.get('how', '?')}: {answer['outcome']}",
                    flush=True,
                )
                if options.keep is not None:
                    shutil.copytree(
                        place, options.keep / str(n), symlinks=True, ignore=not_kept, dirs_exist_ok=True
                    )
            elif len(answers) % 500 == 0:
                print(
                    f"{len(answers)} tries, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True
                )
        worker.stop()
    return answers


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--tries", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="number of the first try, to repeat one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--memory", type=float, default=1500.0)
    parser.add_argument("--keep", type=Path, help="copy the files of every bad try here")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    answers = run(options)
    words = [answer["outcome"].split(":")[0] for answer in answers]
    names = [*GOOD, *sorted(set(words) - set(GOOD))]
    targets = sorted({answer["target"] for answer in answers if "target" in answer})
    rows = []
    for target in [*targets, None]:
        mine = Counter(
            w for w, a in zip(words, answers, strict=True) if target is None or a.get("target") == target
        )
        rows.append([target or "all", str(sum(mine.values())), *(str(mine[name]) for name in names)])
    print_table(f"{options.kind}: {len(answers)} tries, seed {options.seed}", ["file", "tries", *names], rows)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine_facts(), "answers": answers}, indent=1))
    sys.exit(any(word not in GOOD for word in words))


if __name__ == "__main__":
    main()
