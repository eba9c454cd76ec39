"""From files, folders and patterns to a list of videos, each with a unique id, in natural order.

Files that are not taken are listed with the reason.
"""

# Paths are plain strings here: scandir gives them, and resolving links is exactly what must not happen.
# ruff: noqa: PTH100, PTH112, PTH116, PTH119, PTH120, PTH122, PTH207

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nemo_pipeline.batch.content import CAMERA_COPIES, VIDEO_EXTENSIONS, is_picture, not_a_picture, not_taken
from nemo_pipeline.batch.drawings import DRAWN_MARK, is_drawing
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.errors import DataError
from nemo_pipeline.store.text import natural_key, natural_sorted, to_text

#: What lies in the folder of a Python environment (venv, conda), and folders that hold programs alone.
_ENVIRONMENT_MARKS = frozenset({"pyvenv.cfg", "conda-meta"})
_PROGRAM_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages"})


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped:
    """A path that is not prepared, and why. `loud`: the user should be told of it without asking."""

    path: str
    reason: str
    loud: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Discovery:
    """The videos of a run in natural order of `file`, what was left out, and the folders that were given."""

    videos: tuple[VideoFile, ...]
    skipped: tuple[Skipped, ...]
    folders: tuple[Path, ...]


@dataclasses.dataclass(slots=True)
class _Found:
    """Paths in the order of discovery: absolute path -> path relative to its input. `stills`: pictures are wanted."""

    stills: bool = False
    videos: dict[str, str] = dataclasses.field(default_factory=dict)
    skipped: list[Skipped] = dataclasses.field(default_factory=list)
    folders: list[Path] = dataclasses.field(default_factory=list)
    seen_folders: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    seen_files: dict[tuple[int, int], str] = dataclasses.field(default_factory=dict)


def discover(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    listed: Iterable[str] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
    stills: bool = False,
) -> Discovery:
    """Find the videos.

    Args:
        inputs: files, folders (searched to any depth) or glob patterns; `**` crosses folders.
        listed: further files, as from `read_list`. One that does not exist stays in the list: the run
            reports it.
        include, exclude: shell patterns for the relative path or the name; with `include`, one must match.
        limit: keep only the first N, in natural order.
        stills: take the pictures of folders in place of their videos.

    Raises:
        NemoError: an input does not exist, or a pattern matches nothing.
    """
    found = _Found(stills)
    for item in natural_sorted({os.fspath(item) for item in inputs}):
        if os.path.lexists(item):
            _take(item, found)
        elif glob.has_magic(item):
            hits = natural_sorted(glob.glob(item, recursive=True))
            if not hits:
                raise DataError(f"no file matches {item}.", item)
            for hit in hits:
                _take(hit, found)
        else:
            raise DataError(f"{item} does not exist.", item)
    for item in listed:
        _take(item, found)
    # Names for people and for out.h5 are UTF-8 whatever the locale; paths stay as the system wants them.
    videos = name_videos({path: to_text(os.fsencode(file)) for path, file in found.videos.items()})
    kept: list[VideoFile] = []
    for video in videos:
        if include and not _matches(video.file, include):
            found.skipped.append(Skipped(str(video.path), "no `include` pattern matches it"))
        elif _matches(video.file, exclude):
            found.skipped.append(Skipped(str(video.path), "an `exclude` pattern matches it"))
        elif limit is not None and len(kept) >= limit:
            found.skipped.append(Skipped(str(video.path), f"beyond `limit={limit}`"))
        else:
            kept.append(video)
    return Discovery(tuple(kept), tuple(found.skipped), tuple(found.folders))


def discover_any(
    inputs: Sequence[str | os.PathLike[str]], *, stills: bool = False, **how: Any
) -> tuple[Discovery, bool]:
    """`discover`, and whether what was found are pictures: asked for by `stills`, or because there is no video."""
    if not stills:
        found = discover(inputs, **how)
        if not all(is_picture(video.path) for video in found.videos):
            return found, False
    pictures = discover(inputs, **how, stills=True)
    return (pictures, True) if stills or pictures.videos else (found, False)


def read_list(data: bytes) -> list[str]:
    """Paths from a list file: one per line, or separated by NUL (`find -print0`). Blank lines: none.

    Raises:
        NemoError: it is not a list: it holds control characters, as a video or a prepared file does.
    """
    if any(byte < 32 and byte not in b"\0\t\n\r" for byte in data[:4096]):
        raise DataError("`listed`: that is not text; a list has one path per line.")
    data = data.removeprefix(b"\xef\xbb\xbf")
    separator = b"\0" if b"\0" in data else b"\n"
    lines = (line.rstrip(b"\r") if separator == b"\n" else line for line in data.split(separator))
    return [os.fsdecode(line) for line in lines if line.strip()]


def _matches(file: str, patterns: Sequence[str]) -> bool:
    name = file.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatchcase(file, p) or fnmatch.fnmatchcase(name, p) for p in patterns)


def _take(item: str, found: _Found) -> None:
    """One input: a file is taken whatever it is called, a folder is searched."""
    path = os.path.abspath(item)
    if os.path.isdir(path):
        found.folders.append(Path(path))
        _search(path, found)
    else:
        _take_file(path, os.path.basename(path), found)


def _take_file(path: str, relative: str, found: _Found) -> None:
    try:
        status = os.stat(path)
    except OSError:
        found.videos.setdefault(path, relative)  # reported by the run as unreadable
        return
    if not stat.S_ISREG(status.st_mode):
        found.skipped.append(Skipped(path, "no regular file (a pipe, socket or device)", loud=True))
        return
    key = (status.st_dev, status.st_ino)
    if key in found.seen_files:
        first = found.seen_files[key]
        if first != path:
            found.skipped.append(Skipped(path, f"the same file as {first}", loud=True))
        return
    found.seen_files[key] = path
    found.videos[path] = relative


def _search(root: str, found: _Found) -> None:
    """A folder to any depth. Links to folders come last: a video is known by its real place if it has one."""
    plain: list[str] = [root]
    links: list[str] = []
    while plain or links:
        folder = plain.pop() if plain else links.pop(0)
        try:
            status = os.stat(folder)
            with os.scandir(folder) as entries:
                children = sorted(entries, key=lambda entry: natural_key(entry.name))
        except OSError as error:
            found.skipped.append(Skipped(folder, f"folder cannot be read: {error.strerror}", loud=True))
            continue
        key = (status.st_dev, status.st_ino)
        if key in found.seen_folders:
            found.skipped.append(Skipped(folder, "a link to a folder that was searched already"))
            continue
        found.seen_folders.add(key)
        if folder != root and any(entry.name == DRAWN_MARK for entry in children):
            found.skipped.append(Skipped(folder, "a folder of what nemo drew, no recordings", loud=True))
            continue
        if folder != root and (reason := _programs(entry.name for entry in children)):
            found.skipped.append(Skipped(folder, reason))
            continue
        drawn = folder == root and any(entry.name == DRAWN_MARK for entry in children)
        below: list[str] = []
        for entry in children:
            extension = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith("._"):
                found.skipped.append(Skipped(entry.path, "macOS side file (._*), not a video"))
            elif entry.name.startswith("."):
                found.skipped.append(Skipped(entry.path, "hidden"))
            elif entry.name in _PROGRAM_FOLDERS and _is_folder(entry):
                found.skipped.append(Skipped(entry.path, "a folder of programs"))
            elif _is_folder(entry):
                if extension in VIDEO_EXTENSIONS:
                    found.skipped.append(
                        Skipped(entry.path, "a folder, though named like a video", loud=True)
                    )
                (links if entry.is_symlink() else below).append(entry.path)
            elif reason := (not_a_picture if found.stills else not_taken)(entry.path, extension):
                found.skipped.append(Skipped(entry.path, reason, loud=extension in CAMERA_COPIES))
            elif drawn and is_drawing(Path(entry.path)):
                found.skipped.append(Skipped(entry.path, "drawn by nemo, no recording", loud=True))
            else:
                _take_file(entry.path, os.path.relpath(entry.path, root), found)
        plain.extend(reversed(below))


def _programs(names: Iterable[str]) -> str:
    """Why a folder with these entries is not searched, "" where it is: an environment holds thousands of files."""
    return "a Python environment" if not _ENVIRONMENT_MARKS.isdisjoint(names) else ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere or to itself
        return False


def name_videos(found: dict[str, str]) -> list[VideoFile]:
    """Unique `file` and `id` for every path, whatever the order of the inputs; in natural order of `file`."""
    files = dict(found)
    if len(set(files.values())) < len(files):
        # Equal relative paths below different inputs: tell them apart by what all paths do not share.
        base = os.path.commonpath([os.path.dirname(path) for path in files])
        counts = Counter(files.values())
        files = {p: os.path.relpath(p, base) if counts[f] > 1 else f for p, f in files.items()}
        counts = Counter(files.values())
        files = {p: p if counts[f] > 1 else f for p, f in files.items()}
    ids = {path: os.path.splitext(os.path.basename(file))[0] for path, file in files.items()}
    while True:
        counts = Counter(ids.values())
        clashing = {p: files[p] for p, name in ids.items() if counts[name] > 1 and name != files[p]}
        if not clashing:
            break
        ids |= clashing
    ordered = sorted(files, key=lambda path: (natural_key(files[path]), path))
    return [VideoFile(Path(path), ids[path], files[path]) for path in ordered]
