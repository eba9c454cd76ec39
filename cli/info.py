"""`nemo info`: one panel about a prepared file, a shard, a run, a model or a clip."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import rich_click as click

from nemo_pipeline.errors import NemoError

from .console import out, panel, print_json, say
from .outputs import TABLES, check_target
from .prep_inputs import check_report, write_page

#: Kinds of prepared files.
_INDEX, _PACKED = "prepared file (index and shards)", "prepared file, packed"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--contact-sheet",
    "sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="Of a prepared file: draw a picture with faces of every video.",
)
@click.option(
    "--csv",
    "table",
    type=click.Path(path_type=Path),
    metavar="FILE.csv|DIR",
    help="Of a prepared file: write its landmarks as OpenFace does; to a folder, a file for each video.",
)
@click.option("--video", metavar="ID", help="With --csv: of this video alone.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Of a prepared file: write one page in which every video can be checked. It shows faces.",
)
@click.option("--no-faces", is_flag=True, help="With --report: without pictures of faces.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(
    path: Path,
    sheet: Path | None,
    table: Path | None,
    video: str | None,
    report: Path | None,
    no_faces: bool,
    as_json: bool,
) -> None:
    """What is PATH? A prepared file (out.h5), a shard, a run folder, a model or a clip."""
    check_report(report, no_faces)
    if video is not None and table is None:
        raise click.UsageError("--video goes with --csv.")
    check_target("--contact-sheet", sheet, (".png", ".jpg", ".jpeg"), "a picture")
    if table is not None and table.suffix and not table.is_dir():
        check_target("--csv", table, TABLES, "a table (or several, into a folder)")
    facts = describe(path)
    written = _write(path, facts, sheet, table, video)
    if report is not None:
        written.append(write_page(_prepared(path, facts), report, no_faces, as_json))
    if as_json:
        print_json(facts | ({"written": written} if written else {}))
        return
    if not written:
        rows = [
            (name.replace("_", " "), _value(name, value)) for name, value in facts.items() if name != "path"
        ]
        out.print(panel(str(path), rows))
    named = [name for name in written if name != report]  # that one was announced
    for name in named[:5]:
        say(f"Wrote {name}")
    if len(named) > 5:
        say(f"and {len(named) - 5} more files.")


def _write(
    path: Path, facts: dict[str, Any], sheet: Path | None, table: Path | None, video: str | None
) -> list[Path]:
    """The files asked for."""
    if sheet is None and table is None:
        return []
    from nemo_pipeline.batch.landmark_files import export_landmarks

    data = _prepared(path, facts)
    written = []
    if sheet is not None:
        from nemo_pipeline.view.preview import contact_sheet

        written += contact_sheet(data, sheet)
    if table is not None:
        if not table.suffix and not table.exists():  # a name without an ending is a folder's
            try:
                table.mkdir(mode=0o700, parents=True)
            except OSError as error:
                raise NemoError(f"{table} cannot be made for the tables: {error.strerror}.") from None
        written += export_landmarks(data, table, only=video)
    return written


def _prepared(path: Path, facts: dict[str, Any]) -> Any:
    """The prepared file at `path`. Raises NemoError when it is something else."""
    from nemo_pipeline.store import FaceDataset

    if facts["kind"] not in (_INDEX, _PACKED):
        raise NemoError(f"{path} is a {facts['kind']}; faces and landmarks are in a prepared file (out.h5).")
    return FaceDataset(path)


def describe(path: Path) -> dict[str, Any]:
    """Facts about `path`, first its `kind`. Raises NemoError when it is none of the known kinds."""
    if not path.exists():
        raise NemoError(f"{path} does not exist.")
    if path.is_dir():
        if (path / "config.json").is_file() or (path / "model" / "config.json").is_file():
            return _model(path)
        return _folder(path)
    if path.name in ("config.json", "model.safetensors"):
        return _model(path.parent)
    with path.open("rb") as handle:
        head = handle.read(8)
    return _hdf5(path) if head == b"\x89HDF\r\n\x1a\n" else _clip(path)


def _value(name: str, value: Any) -> str:
    if name != "landmarks_in_crop":
        return _cell(value)
    points = ", ".join(
        f"{what} ({value[i][0]:.1f}, {value[i][1]:.1f})"
        for what, i in (("outer eye corners", 36), ("and", 45), ("lip corners", 48), ("and", 54), ("chin", 8))
    ).replace(", and", " and")
    return f"{points}; x, y in pixels, all 68 with --json"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_cell(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "yes" if value is True else "no" if value is False else str(value)


def _hdf5(path: Path) -> dict[str, Any]:
    from nemo_pipeline.store.files import open_h5
    from nemo_pipeline.store.tables import read_identity

    with open_h5(path) as file:
        kind = read_identity(file).get("kind")
    return _shard(path) if kind == "shard" else _dataset(path)


def _dataset(path: Path) -> dict[str, Any]:
    from nemo_pipeline.store import FaceDataset

    data = FaceDataset(path, check=False)
    usable = np.array(data.usable, dtype=int)
    ages = data.videos["age"][usable]
    ages = ages[np.isfinite(ages)]
    missing = (
        []
        if data.packed
        else [
            data.shards["name"][i]
            for i in range(len(data.shards["name"]))
            if not data.shard_path(i).is_file()
        ]
    )
    sizes = [data.path.stat().st_size]
    sizes += [
        data.shard_path(i).stat().st_size
        for i in range(len(data.shards["name"]))
        if data.shard_path(i).is_file()
    ]
    subjects = {data.videos["subject"][i] for i in usable} - {""}
    return {
        "path": data.path,
        "kind": _PACKED if data.packed else _INDEX,
        "videos": len(data),
        "usable": len(usable),
        "status": dict(Counter(data.videos["status"]).most_common()),
        "frames": int(data.videos["length"].sum()),
        "pictures": dict(Counter(data[i].picture for i in usable).most_common()),
        "transfer": dict(Counter(data.videos["transfer"][i] or "not stated" for i in usable).most_common()),
        "face_size": data.size,
        "landmarks_in_crop": data.landmarks_in_crop.round(3).tolist(),
        "seconds_of_video": float(
            sum(data.videos["length"][i] / data.videos["fps"][i] for i in usable if data.videos["fps"][i] > 0)
        ),
        "subjects": len(subjects),
        "ages": {"known": len(ages), "lowest": float(ages.min()), "highest": float(ages.max())}
        if len(ages)
        else "none",
        "synthetic": data.synthetic,
        "mesh": data.config.mesh,
        "video_streams": _streams(data),
        "shards": "none (packed)" if data.packed else len(data.shards["name"]),
        "missing_shards": missing or "none",
        "bytes_on_disk": sum(sizes),
        "settings": dataclasses.asdict(data.config),
        "made_with": data.versions,
        "model_sha256": data.attributes.get("model_sha256", ""),
        "format_version": data.attributes["format_version"],
        "uuid": data.uuid,
    }


def _streams(data: Any) -> dict[str, int]:
    """Number of the video stream that was used -> how many rows."""
    counts = Counter(data.videos["stream"].tolist())
    return {"not known" if number < 0 else str(number): n for number, n in sorted(counts.items())}


def _shard(path: Path) -> dict[str, Any]:
    from nemo_pipeline.store.shard import read_shard

    shard = read_shard(path)
    return {
        "path": path,
        "kind": "shard (open the .h5 beside its folder instead)",
        "videos": len(shard.rows),
        "status": dict(Counter(row.status for row in shard.rows).most_common()),
        "frames": sum(row.length for row in shard.rows),
        "files": [row.file for row in shard.rows],
        "bytes_on_disk": path.stat().st_size,
        "settings": dataclasses.asdict(shard.config),
        "made_with": shard.versions,
        "uuid": shard.uuid,
    }


def _model(path: Path) -> dict[str, Any]:
    from siam_model.checkpoint import load_card, model_folder

    card = load_card(path)
    folder = model_folder(path)
    run = folder.parent if folder.name == "model" else None
    facts: dict[str, Any] = {
        "path": path,
        "kind": "model" if run is None or path != run else "run folder",
        "synthetic": card.synthetic,
        "preset": card.preset,
        "seed": card.seed,
        "trained_on": card.dataset,
        "ages_trained_on": card.ages,
        "subjects": {name: len(codes) for name, codes in card.subjects.items()},
        "network": card.model.to_dict(),
        "training": card.train.to_dict(),
        "prepared_with": card.prep,
        "made_with": card.versions,
    }
    weights = folder / "model.safetensors"
    facts["weights"] = f"{weights.stat().st_size / 1e6:.1f} MB" if weights.is_file() else "missing"
    if run is not None:
        facts |= _results(run)
    return facts


def _results(run: Path) -> dict[str, Any]:
    """Error over a run's predictions, and its number of epochs."""
    facts: dict[str, Any] = {}
    try:
        with (run / "predictions.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as handle:
            errors = [abs(float(row["age"]) - float(row["predicted"])) for row in csv.DictReader(handle)]
        if errors:
            facts["predictions"] = {
                "videos": len(errors),
                "mean_absolute_error_years": float(np.mean(errors)),
            }
    except (OSError, KeyError, ValueError, TypeError):
        facts["predictions"] = "none"
    return facts


def _clip(path: Path) -> dict[str, Any]:
    from nemo_pipeline.batch.worker import probe_video

    answer = probe_video(path)
    return {
        "path": path,
        "kind": "video",
        **answer["info"],
        **({"video_streams": answer["streams"]} if len(answer["streams"]) > 1 else {}),
        "bytes_on_disk": answer["bytes"],
        "note": "what the file says of itself; how many frames it holds is known after decoding"
        + (
            "; of several streams nemo prep uses the one that --stream says"
            if len(answer["streams"]) > 1
            else ""
        ),
    }


def _folder(path: Path) -> dict[str, Any]:
    from nemo_pipeline.batch.discover import discover
    from nemo_pipeline.batch.labels import find_labels

    found = discover([path])
    beside = find_labels(found.folders)
    return {
        "path": path,
        "kind": "folder",
        "videos": len(found.videos),
        "left_out": len(found.skipped),
        "labels_beside": str(beside) if beside else "none",
    }
