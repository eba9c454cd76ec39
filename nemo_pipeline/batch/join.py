"""One index over the shards of several parts, which may be from different machines."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from nemo_pipeline.batch.assemble import KnownLabels, assemble, known_labels, write_assembled
from nemo_pipeline.batch.discover import name_videos
from nemo_pipeline.batch.label_table import LabelTable
from nemo_pipeline.batch.mean_shape_pass import SHAPE_FILE
from nemo_pipeline.batch.output import OutputFolder
from nemo_pipeline.batch.parts import mark_done, marks, what_is_missing
from nemo_pipeline.batch.plan import Finished, finished_videos
from nemo_pipeline.batch.summary import PrepSummary, summarize
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.errors import DataError, OutputError, SettingsError
from nemo_pipeline.meanshape import MeanShape, load_shape, save_shape, shipped_shape
from nemo_pipeline.store.files import replacing
from nemo_pipeline.store.reader import FaceDataset
from nemo_pipeline.store.shard import Shard, read_shard, read_shards, shards_folder
from nemo_pipeline.store.tables import Provenance


def join(parts: Sequence[Path], output: Path, *, labels: LabelTable | None = None) -> PrepSummary:
    """Write the index `output` over its shards and those of `parts` (other outputs, or their shards folders).

    Shards of other outputs are linked or copied into `output`'s folder. The order is the one that a single
    run over the same videos has. Parts that were never done do not hold it up: the summary names them.

    Raises:
        NemoError: the parts were made with different settings, one of them is unfinished, or there is
            nothing.
    """
    out = OutputFolder(output)
    out.create()
    with out.locked():
        out.clear_temporaries()
        known = KnownLabels()
        if out.index.exists():
            known = known_labels(FaceDataset(out.index, check=False))
        own = read_shards(out.shards)
        foreign = [shard for part in parts for shard in read_shards(_folder(part, out))]
        _same_settings([*own, *foreign])
        unfinished = [folder for folder in (*out.other_work(), out.work) if any(folder.glob("*.json"))]
        for part in parts:
            unfinished += [
                folder for folder in _folder(part, out).glob(".work*") if any(folder.glob("*.json"))
            ]
        if unfinished:
            raise DataError(
                f"{unfinished[0]} holds finished videos that are in no shard yet: finish that part first.",
                unfinished[0],
            )
        shards = own + [_bring(shard, out.shards) for shard in foreign]
        shards.sort(key=lambda shard: shard.order)
        newest: dict[str, Finished] = {}
        for (_, file), item in finished_videos(shards).items():
            newest[file] = item
        videos = name_videos({file: file for file in newest})
        assembled = assemble(videos, newest, known=known, table=labels)
        done = marks([out.shards, *(_folder(part, out) for part in parts)])
        for one, count in done.items():  # for a later join, of this output with the part that is missing now
            mark_done(out.shards, one, count)
        config = shards[0].config
        shape = _shape(config, [out.shards, *(_folder(part, out) for part in parts)])
        if config.mean_shape != "shipped":
            save_shape(shape, out.shards / SHAPE_FILE, config.mean_shape)
        write_assembled(
            out.index,
            assembled,
            Provenance(config, shards[-1].versions, shards[0].model_sha256),
            mean_shape=shape.points,
            triangles=shape.triangles,
        )
    return dataclasses.replace(summarize(out.index, assembled), missing=what_is_missing(done))


def _shape(config: PrepConfig, folders: Sequence[Path]) -> MeanShape:
    """The shape that shards with these settings were made with, kept in one of `folders`."""
    if config.mean_shape == "shipped":
        return shipped_shape()
    for folder in folders:
        shape = load_shape(folder / SHAPE_FILE)
        if shape is not None and shape.sha256 == config.mean_shape_sha256:
            return shape
    raise DataError(
        f"the mean shape of the parts ({SHAPE_FILE} in their shards folders) is missing: copy it too."
    )


def _folder(part: Path, out: OutputFolder) -> Path:
    folder = part if part.is_dir() else shards_folder(Path(os.path.realpath(part)))
    if not folder.is_dir():
        raise DataError(
            f"{part} is not an output of `nemo prep`: there is no {folder.name} next to it.", part
        )
    if folder.resolve() == out.shards.resolve():
        raise SettingsError(f"{part} is the output itself; name only other parts before it.", "join")
    return folder


def _same_settings(shards: Sequence[Shard]) -> None:
    if not shards:
        raise DataError("there is no finished part to join.")
    first = shards[0]
    if first.fingerprint != first.config.fingerprint():
        raise DataError(
            f"{first.path} was made with settings that this nemo does not know: update nemo.", first.path
        )
    for shard in shards[1:]:
        if (shard.fingerprint, shard.model_sha256) != (first.fingerprint, first.model_sha256):
            raise DataError(
                f"{shard.path} and {first.path} were made with different settings and cannot be joined.",
                shard.path,
            )


def _bring(shard: Shard, folder: Path) -> Shard:
    """A shard of another output, in this one's folder: linked where that is possible, else copied."""
    final = folder / shard.name
    if final.exists():
        if read_shard(final).uuid == shard.uuid:
            return read_shard(final)
        raise OutputError(
            f"{final} exists and is another shard than {shard.path}: rename one of them.", final
        )
    with contextlib.suppress(OSError):
        os.link(shard.path, final)
        return read_shard(final)
    with replacing(final) as temporary:
        shutil.copyfile(shard.path, temporary)
    return read_shard(final)
