"""A trained model as one file to share: weights, configuration, errors, and a card for people.

    card.md              what it was trained on, how well it does, and who may use it
    card.json            the same for programs
    model/               config.json, model.safetensors, SHA256SUMS: as in the run's folder
    predictions.csv, baselines/median.csv
                         errors on people that it never saw, for intervals and the comparison with guessing; videos and
                         people get new numbers

config.json holds the codes of the subjects and the SHA-256 of the videos that the model learned from, so that `nemo
predict` recognises them; no name of a file, no face.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.errors import DataError, NemoError
from nemo_pipeline.store.files import replacing
from nemo_pipeline.store.text import escape_controls, pluralize
from siam_model.checkpoint import load_card, model_folder
from siam_model.interval import interval_from
from siam_model.predictions import Predictions, read_predictions, write_predictions
from siam_model.reports.numbers import by_decade
from siam_model.verdict import load_verdict

FORMAT = "nemo-model"
FORMAT_VERSION = 1
_MODEL = ("config.json", "model.safetensors", "SHA256SUMS")
_OTHERS = ("predictions.csv", "baselines/median.csv")
#: Most bytes of the weights, and of every other file: what an archive says of itself may be a lie.
_MOST_WEIGHTS, _MOST = 16 << 30, 64 << 20
_TIME = (1980, 1, 1, 0, 0, 0)  # the same model gives the same file


def is_package(path: Path) -> bool:
    """Whether this is such a file, by its ending."""
    return path.suffix.lower() == ".zip" and path.is_file()


def pack_model(run: Path, target: Path, *, licence: str = "", note: str = "") -> dict[str, Any]:
    """Write `target` from a run folder or its `model/`, by rename; answers the card.

    Args:
        licence: under which others may use the model; "" where it was not said.
        note: anything that a user must know.

    Raises:
        NemoError: there is no model.
    """
    folder = model_folder(run)
    described = make_card(run, licence, note)
    with tempfile.TemporaryDirectory(prefix="nemo-model-") as scratch, replacing(target) as temporary:
        for name, predictions in _errors(run).items():
            path = Path(scratch) / name
            path.parent.mkdir(exist_ok=True)
            write_predictions(path, _without_names(predictions))
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            _add(archive, "card.md", as_markdown(described).encode())
            _add(archive, "card.json", (json.dumps(described, indent=1) + "\n").encode())
            for name in _MODEL:
                if (folder / name).is_file():
                    _add(archive, f"model/{name}", (folder / name).read_bytes())
            for name in _OTHERS:
                if (Path(scratch) / name).is_file():
                    _add(archive, name, (Path(scratch) / name).read_bytes())
    return described


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _TIME)
    info.external_attr = 0o600 << 16
    archive.writestr(info, data)


def _errors(run: Path) -> dict[str, Predictions]:
    """The tables of held-out predictions next to the model, as far as they exist."""
    place = run if (run / "predictions.csv").is_file() else model_folder(run).resolve().parent
    found = {}
    for name in _OTHERS:
        with contextlib.suppress(NemoError):
            found[name] = read_predictions(place / name)
    return found


def _without_names(p: Predictions) -> Predictions:
    """Videos and people by numbers, in the order of their codes."""
    videos, people = _numbered(p.video), _numbered(p.subject)
    return Predictions(
        tuple(videos[v] for v in p.video), tuple(people[s] for s in p.subject), p.fold, p.age, p.predicted
    )


def _numbered(codes: tuple[str, ...]) -> dict[str, str]:
    """Numbers that sort as the codes do: intervals by bootstrap are then the same to the last digit."""
    found = sorted(set(codes))
    return {code: str(i).zfill(len(str(len(found)))) for i, code in enumerate(found)}


def make_card(run: Path, licence: str = "", note: str = "") -> dict[str, Any]:
    """What there is to say about a model: plain JSON types, None for what is not known."""
    card = load_card(run)
    p = _errors(run).get("predictions.csv")
    verdict = load_verdict(run)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "licence": licence or None,
        "note": note or None,
        "synthetic": card.synthetic,
        "trained_on": {
            "file": escape_controls(card.dataset.get("file", "")),
            "people": len(card.subjects["training"]) + len(card.subjects["validation"]),
            "videos": len(card.videos) or None,
            "ages": card.ages,
        },
        "tested_on": None if p is None else _tested(p),
        "verdict": str(verdict) if verdict is not None else None,
        "settings": {
            "preset": card.preset,
            "seed": card.seed,
            "model": card.model.to_dict(),
            "train": card.train.to_dict(),
            "prep": card.prep,
        },
        "versions": card.versions,
    }


def _tested(p: Predictions) -> dict[str, Any]:
    interval = interval_from(p, 0.9)
    return {
        "videos": len(p),
        "people": len(set(p.subject)),
        "mean_absolute_error": float(p.error.mean()),
        "interval_90": None if np.isnan(interval.half_width) else interval.half_width,
        "by_decade": {
            name: {"videos": e.n, "mean_absolute_error": e.mae if e.n else None}
            for name, e in by_decade(p).items()
            if name != "All"
        },
    }


def as_markdown(card: dict[str, Any]) -> str:
    """The card for people."""
    trained, tested, settings = card["trained_on"], card["tested_on"], card["settings"]
    ages = trained["ages"]
    lines = ["# Age estimator (SIAM)", ""]
    if card["synthetic"]:
        lines += ["**Trained on synthetic faces: its ages mean nothing for people.**", ""]
    videos = f", {pluralize(trained['videos'], 'video')}" if trained["videos"] else ""
    lines += [
        f"- Trained on: `{trained['file'] or 'not stated'}`, {trained['people']} people{videos}, {ages['min']:g} to "
        f"{ages['max']:g} years old (median {ages['median']:g})",
        f"- Licence: {card['licence'] or 'not stated: ask the person who gave you this file'}",
        f"- Made with: {', '.join(f'{name} {version}' for name, version in card['versions'].items())}",
        f"- Settings: preset {settings['preset']}, seed {settings['seed']}; all of them in `card.json`",
    ]
    if card["note"]:
        lines.append(f"- Note: {card['note']}")
    lines += ["", "## Errors on people that it never saw", ""]
    if tested is None:
        lines.append("Not known: the run's predictions were not next to the model.")
    else:
        lines.append(
            f"Mean absolute error {tested['mean_absolute_error']:.2f} years on {pluralize(tested['videos'], 'video')} "
            f"of {tested['people']} people."
        )
        if tested["interval_90"] is not None:
            lines.append(
                f"For 90 % of new people like these the error is at most {tested['interval_90']:.1f} years."
            )
        if card["verdict"]:
            lines.append(card["verdict"])
        lines += ["", "| age | videos | mean absolute error |", "| --- | --- | --- |"]
        for name, e in tested["by_decade"].items():
            error = "" if e["mean_absolute_error"] is None else f"{e['mean_absolute_error']:.2f}"
            lines.append(f"| {name} | {e['videos']} | {error} |")
    lines += [
        "",
        "## Use",
        "",
        "    nemo predict clip.mp4 --model THIS.zip",
        "",
        "It says something about people like those it was trained on, recorded as they were. The file holds the codes "
        "of the subjects that it learned from and the SHA-256 of their videos, no names and no faces.",
    ]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The run folder that a packed model is, for as long as the context lasts.

    Only the files that `pack_model` writes are taken, and no more of each than it may have.

    Raises:
        NemoError: it is not a packed model, or is damaged.
    """
    shown = escape_controls(str(path))
    with tempfile.TemporaryDirectory(prefix="nemo-model-") as folder:  # mode 0700
        try:
            with zipfile.ZipFile(path) as archive:
                _check(json.loads(_read(archive, "card.json", _MOST)), path)
                for name in (*(f"model/{n}" for n in _MODEL), *_OTHERS):
                    if name in archive.namelist():
                        target = Path(folder) / name
                        target.parent.mkdir(exist_ok=True)
                        most = _MOST_WEIGHTS if name.endswith(".safetensors") else _MOST
                        _extract(archive, name, target, most)
        except (
            zipfile.BadZipFile,
            KeyError,
            ValueError,
            EOFError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            reason = escape_controls(str(error).strip("'\""))[:200]
            raise DataError(
                f"{shown} is not a model of `nemo pack-model`, or is damaged ({reason}).", path
            ) from None
        except OSError as error:
            raise DataError(f"{shown} cannot be unpacked: {error.strerror or error}.", path) from None
        yield Path(folder)


def _check(card: Any, path: Path) -> None:
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ValueError("its card.json is of something else")
    if int(card.get("format_version", 0)) > FORMAT_VERSION:
        raise DataError(
            f"{escape_controls(str(path))} was written by a newer version of nemo; update with "
            "`pip install -U nemo-faces`.",
            path,
        )


def _read(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    with archive.open(name) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{name} is too long")
    return data


def _extract(archive: zipfile.ZipFile, name: str, target: Path, most: int) -> None:
    info = archive.getinfo(name)
    # Packed models are not compressed: what is would be a small file that fills the disk.
    if info.file_size > most or info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is too long, or compressed")
    with archive.open(info) as source, target.open("wb") as out:
        while block := source.read(1 << 20):
            out.write(block)


def read_card(path: Path) -> dict[str, Any]:
    """`card.json` of a packed model. Raises NemoError as `unpacked`."""
    shown = escape_controls(str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            card = json.loads(_read(archive, "card.json", _MOST))
        _check(card, path)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"{shown} is not a model of `nemo pack-model` ({escape_controls(str(error))}).", path
        ) from None
    return dict(card)
