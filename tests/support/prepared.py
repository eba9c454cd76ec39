"""Videos prepared in this process: what `nemo prep` gives, without its children and its cluster."""

from __future__ import annotations

from pathlib import Path

from nemo_pipeline import PrepConfig
from nemo_pipeline.batch.assemble import assemble, write_assembled
from nemo_pipeline.batch.child import prepare
from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.merge import merge_staged
from nemo_pipeline.batch.plan import finished_videos
from nemo_pipeline.batch.tasks import TaskMaker
from nemo_pipeline.bundle import SHA256
from nemo_pipeline.geometry import shipped_mean_shape, shipped_triangles
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.shard import read_shard
from nemo_pipeline.store.tables import Provenance


def prepared_here(source: Path, output: Path, config: PrepConfig) -> FaceDataset:
    """Prepare a clip, or those of a folder, into `output`, warped to the shipped shape."""
    videos = discover([source]).videos
    shards = output.with_suffix(".shards")
    work = shards / ".work"
    work.mkdir(parents=True)
    for n, video in enumerate(videos):
        prepare(TaskMaker(config, work, None)(video).job | {"stem": f"v{n}"}, lambda n: None)
    files = [video.file for video in videos]
    names = merge_staged(files, str(work), str(shards), config.to_dict(), SHA256)
    found = finished_videos([read_shard(shards / name) for name in names])
    write_assembled(
        output,
        assemble(videos, {file: item for (_, file), item in found.items()}),
        Provenance(config, {}, SHA256),
        mean_shape=shipped_mean_shape(),
        triangles=shipped_triangles(),
    )
    return FaceDataset(output)
