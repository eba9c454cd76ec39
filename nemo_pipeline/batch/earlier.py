"""Videos that an output already holds and that are not among a run's inputs: they are kept, unless `prune` is set."""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nemo_pipeline.batch.discover import name_videos
from nemo_pipeline.batch.plan import Finished, Seen, check_settings, finished_videos
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.errors import DataError
from nemo_pipeline.store.reader import FaceDataset
from nemo_pipeline.store.shard import Shard
from nemo_pipeline.store.text import listed, pluralize


@dataclasses.dataclass(frozen=True, slots=True)
class Earlier:
    """A video of an index: the file's sha256 ("" where it could not be read), its bytes and when it was last changed
    (ns; 0: not known), and whether it has frames."""

    sha256: str
    bytes: int
    usable: bool
    modified: int = 0

    @property
    def seen(self) -> Seen:
        """By what its file is recognised."""
        return Seen(self.sha256, self.bytes, self.modified)


def earlier_videos(data: FaceDataset | None) -> dict[str, Earlier]:
    """The videos of an index by `file`; none where there is no index."""
    found: dict[str, Earlier] = {}
    if data is None:
        return found
    for row in data.rows:
        file, length = data.videos["file"][row], int(data.videos["length"][row])
        before = found.get(file)
        found[file] = Earlier(
            data.videos["sha256"][row],
            int(data.layout["bytes"][row]),
            length > 0 or (before is not None and before.usable),
            int(data.layout["modified"][row]),
        )
    return found


def absent_files(
    earlier: Mapping[str, Earlier], videos: Sequence[VideoFile], hashes: Mapping[str, str]
) -> list[str]:
    """Files of `earlier` that are not among `videos`, neither by name nor by content under another name."""
    names, contents = {video.file for video in videos}, set(hashes.values())
    return [file for file, item in earlier.items() if file not in names and item.sha256 not in contents]


def check_same_names(
    earlier: Mapping[str, Earlier], videos: Sequence[VideoFile], hashes: Mapping[str, str], output: Path
) -> None:
    """Refuse a folder whose videos have names of `earlier` without being those: another day's 001.mp4.

    A folder in which one video is as it was is the same folder, and what changed there is a new version.

    Raises:
        NemoError: usable videos would lose their place to others of the same name.
    """
    folders: dict[str, list[VideoFile]] = defaultdict(list)
    for video in videos:
        if video.file in earlier:
            folders[_folder(video)].append(video)
    for folder, named in folders.items():
        if any(hashes.get(video.file) == earlier[video.file].sha256 for video in named):
            continue
        clashing = [video.file for video in named if earlier[video.file].usable and video.path.is_file()]
        if clashing:
            raise DataError(
                f"{folder} has {pluralize(len(clashing), 'video')} with the name of a video in {output} and other "
                f"content ({listed(clashing)}). Other recordings: name all folders in one command, so that their "
                "names tell the videos apart (nemo prep day1/ day2/ out.h5). New versions of the same recordings: "
                "add `force`.",
                folder,
            )


def _folder(video: VideoFile) -> str:
    """The folder that `video.file` is relative to."""
    path = os.fspath(video.path)
    return path.removesuffix(video.file).rstrip("/") or os.fspath(video.path.parent)


def find_kept(
    absent: Iterable[str],
    earlier: Mapping[str, Earlier],
    shards: Sequence[Shard],
    config: PrepConfig,
    model_sha256: str,
    output: Path,
) -> dict[str, Finished]:
    """The rows of videos that stay, by `file`.

    Raises:
        NemoError: the shard of one is missing, or was made with other settings than this run's.
    """
    known = finished_videos(shards)
    by_content = {digest: item for (digest, _), item in known.items() if digest}
    kept: dict[str, Finished] = {}
    lost: list[str] = []
    for file in absent:
        digest = earlier[file].sha256
        item = known.get((digest, file)) or by_content.get(digest)
        if item is None:
            lost.append(file)
        else:
            kept[file] = item
    if lost:
        raise DataError(
            f"{pluralize(len(lost), 'video')} of {output} not among the inputs ({listed(lost)}) cannot be kept, since "
            "their shards are missing: restore those, name the videos too, or add `prune` to drop them.",
            output,
        )
    remedy = (
        f"{pluralize(len(kept), 'video')} not among the inputs ({listed(list(kept))}) cannot stay with new ones: name "
        "them too, or add `prune` to drop them."
    )
    check_settings((item.shard for item in kept.values()), [], config, model_sha256, output, remedy)
    return kept


def with_kept(videos: Sequence[VideoFile], kept: Mapping[str, Finished]) -> Sequence[VideoFile]:
    """Inputs and kept videos in natural order, with ids that are unique among all of them."""
    if not kept:
        return videos
    paths = {video.file: video.path for video in videos}
    named = name_videos({file: file for file in (*kept, *paths)})
    return [dataclasses.replace(video, path=paths.get(video.file, video.path)) for video in named]
