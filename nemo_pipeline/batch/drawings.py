"""Folders for annotated copies and clips with heat maps, marked so that no later run takes these for recordings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from nemo_pipeline.batch.content import not_taken
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.errors import OutputError
from nemo_pipeline.view.annotated import is_annotated

#: In a folder that nemo draws into: what it drew there is passed over when recordings are looked for.
DRAWN_MARK = ".drawn-by-nemo"


def open_for_drawings(
    folder: Path, option: str, videos: Sequence[VideoFile], targets: Iterable[Path] = ()
) -> None:
    """Create `folder`, for its owner alone, and mark it as one of drawings.

    Args:
        option: by which the folder was given, for the sentences.
        videos: the recordings that are drawn.
        targets: files in `folder` that will be written.

    Raises:
        NemoError: it cannot be made; recordings lie in it; or something has a target's name that nemo did not draw.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        here = os.path.realpath(folder)
        recording = next((v.path for v in videos if os.path.realpath(v.path.parent) == here), None)
        if recording is None and not (folder / DRAWN_MARK).exists():
            taken = (
                path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")
            )
            taken = (path for path in taken if not not_taken(str(path), path.suffix.lower()))
            recording = next((path for path in taken if not is_annotated(path)), None)
        if recording is not None:
            raise OutputError(
                f"{folder} holds recordings ({recording.name}), and what is drawn there would be taken for one: give "
                f"{option} a folder of its own.",
                folder,
            )
        for target in targets:
            if target.is_file() and not is_annotated(target):
                raise OutputError(
                    f"{target} is there already and was not drawn by nemo: give {option} another folder.",
                    target,
                )
        (folder / DRAWN_MARK).touch(mode=0o600)
    except OSError as error:
        raise OutputError(f"{folder} cannot be used for {option}: {error.strerror}.", folder) from None


def is_drawing(path: Path) -> bool:
    """Whether a video is one that nemo drew: it lies in a folder with the mark, and says so itself."""
    return (path.parent / DRAWN_MARK).exists() and is_annotated(path)
