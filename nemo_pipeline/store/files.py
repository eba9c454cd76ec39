"""HDF5 files on disk: made for their owner alone, under a temporary name; opened with or without locks."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from nemo_pipeline.errors import DamagedFile, DataError, OutputError

#: Oldest and newest HDF5 file format used: fixed, so that files do not depend on the library that wrote them.
LIBVER = ("v110", "v110")
#: What prepared files are called.
H5_ENDINGS = (".h5", ".hdf5")
#: Bytes of the longest file name that file systems take.
_LONGEST_NAME = 255
#: `errno` of a file system that has no locks (NFS without a lock daemon, Lustre without `flock`).
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES)
_said_no_locks = False


def check_h5_name(path: Path) -> None:
    """Refuse an output that is not called .h5 or .hdf5: `out.csv` would be no table, and `out` share its shards folder
    with `out.h5`. Raises NemoError."""
    if path.suffix.lower() not in H5_ENDINGS:
        raise OutputError(
            f"{path} would be an HDF5 file: give it a name that ends in {' or '.join(H5_ENDINGS)}.", path
        )


def file_hash(path: Path) -> tuple[int, str]:
    """Size in bytes and sha256 of a file, read in blocks. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def read_bounded(path: Path, most: int) -> bytes:
    """A whole file of at most `most` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer, or no file (a pipe would be waited for, a device never ends).
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is a folder, a device or a pipe")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it is larger than {most >> 20} MB")
    return data


def temporary_name(final: Path) -> Path:
    """A new hidden name in the folder of `final`; `leftovers` finds it after a crash."""
    return final.with_name(f"{_hidden(final)}{secrets.token_hex(6)}.tmp")


def _hidden(final: Path) -> str:
    """How temporary names for `final` begin. A name that leaves no room for more is represented by its hash."""
    name = os.fsencode(final.name)
    fits = len(name) <= _LONGEST_NAME - len("..012345678901.tmp")
    return f".{final.name}." if fits else f".{hashlib.sha256(name).hexdigest()[:24]}."


def leftovers(final: Path) -> list[Path]:
    """Temporary files that writers of `final` left behind when they were killed."""
    prefix, suffix = _hidden(final), ".tmp"
    try:
        names = [path.name for path in final.parent.iterdir()]
    except OSError:
        return []
    hits = [
        n for n in names if n.startswith(prefix) and n.endswith(suffix) and len(n) == len(prefix) + 12 + 4
    ]
    return [final.parent / name for name in sorted(hits)]


def sweep(folder: Path) -> None:
    """Remove what processes that were killed while they wrote into `folder` left behind. Hold its lock."""
    for path in folder.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def fsync_path(path: Path) -> None:
    """Push a file, or a folder's entries, to the disk. One that cannot (network) is not an error."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
    finally:
        os.close(handle)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, also one of HDF5's that hides its number in the text, means a full disk or quota."""
    text = str(error)
    return (
        getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or "No space left on device" in text
        or "Disk quota exceeded" in text
    )


def disk_full_message(path: Path | str) -> str:
    """One sentence, with the way on."""
    return f"The disk of {path} is full: free some space and run the command again; what is done is kept."


def unreadable_message(error: OSError) -> str:
    """One sentence: why a file cannot be read, and what helps."""
    if isinstance(error, FileNotFoundError):
        return "The file is not there (any more): restore it, or leave it out."
    if isinstance(error, PermissionError):
        return "The file may not be read: permission denied. Change its mode or its owner."
    return f"The file cannot be read ({error.strerror or error}): check the disk or the network folder."


def check_space(folder: Path, needed: int) -> None:
    """Raise OSError (ENOSPC) when `folder` has fewer than `needed` bytes free.

    HDF5 does not survive a disk that fills while it writes (the process may crash later), so ask before.
    """
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


@contextlib.contextmanager
def replacing(final: Path, temporary: Path | None = None) -> Iterator[Path]:
    """Yield a new empty file (mode 0600) to fill; it becomes `final` at once, or it leaves no trace.

    `temporary` must be on the same file system as `final`. A reader sees the old file, or the new one whole.
    """
    temporary = temporary or temporary_name(final)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        yield temporary
        fsync_path(temporary)
        temporary.replace(final)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_path(final.parent)


def create_h5(path: Path) -> h5py.File:
    """Open the empty file that `replacing` gave for writing. No lock: nobody else knows its name."""
    return h5py.File(path, "w", libver=LIBVER, locking=False)


@contextlib.contextmanager
def small_h5(path: Path, source: Path | None = None) -> Iterator[h5py.File]:
    """An HDF5 file built in memory and written to `path` in one go, without HDF5 touching the disk.

    `source`: start from a copy of this file.
    """
    if source is None:
        file = h5py.File(path, "w", driver="core", backing_store=False, libver=LIBVER)
    else:
        file = h5py.File(source, "r+", driver="core", backing_store=False, locking=False)
    with file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    path.write_bytes(image)


def _plain_reads(access: Any) -> None:
    """HDF5 would read 64 kB around every face that is read alone, five times what is asked for."""
    access.set_fapl_sec2()
    access.set_sieve_buf_size(4096)


_DRIVER = "nemo"
h5py.register_driver(_DRIVER, _plain_reads)


def open_h5(path: Path) -> h5py.File:
    """Open for reading. Raises NemoError with one sentence; says once when it had to do without locks."""
    global _said_no_locks
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{path} is not an ordinary file.", path)
    try:
        return h5py.File(path, "r", driver=_DRIVER)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.", path) from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, not an HDF5 file.", path) from None
    except PermissionError as error:
        if "lock" not in str(error):
            raise DataError(
                f"{path} cannot be read: permission denied. Ask its owner, or change its mode.", path
            ) from None
        first: OSError = error
    except OSError as error:
        first = error
    if "lock" in str(first).lower() and first.errno in (*_NO_LOCKS, None):
        try:
            handle = h5py.File(path, "r", locking=False, driver=_DRIVER)
        except OSError as error:
            first = error
        else:
            if not _said_no_locks:
                _said_no_locks = True
                warnings.warn(
                    f"The file system of {path} refuses file locks; reading without them.", stacklevel=2
                )
            return handle
    if path.is_dir():
        raise DataError(f"{path} is a folder, not an HDF5 file.", path)
    raise DamagedFile(path, "", f"cannot be opened as HDF5: cut short, or another kind of file ({first})")
