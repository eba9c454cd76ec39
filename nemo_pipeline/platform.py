"""Everything that differs between operating systems: cores, limits, signals, memory, and versions of libraries.

No other module asks which system it runs on. Each function does what the system offers, and nothing where it offers
nothing: without affinity a process runs on any core, without prctl a child notices its parent's end by its closed
standard input alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

#: Packages whose versions are kept in the files that we write.
_VERSIONED = (
    "nemo-faces",
    "ai-edge-litert",
    "av",
    "h5py",
    "mediapipe",
    "numpy",
    "opencv-contrib-python",
    "scipy",
)

_PR_SET_PDEATHSIG = 1
#: Most open files of a run besides those of its children, and of one child while it starts.
_OPEN_FILES, _OPEN_FILES_EACH = 36, 7


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent `parent` ends (Linux)."""
    import ctypes

    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError, TypeError):
        return
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def pin_to_core(core: int) -> None:
    """Run this process on one core only, where the system can do that and still allows the core."""
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {core})


def forbid_core_dumps() -> None:
    """A crash of this process leaves no memory image on disk: it would hold faces."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_memory(most: int) -> None:
    """This process gets no more than `most` bytes of address space: asking for more is an error here, in place of a
    machine without memory (Linux)."""
    with contextlib.suppress(ImportError, AttributeError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_AS, (most, most))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, also one of OpenCV's that says so in its text alone, means that memory was refused."""
    return isinstance(error, MemoryError) or "Insufficient memory" in str(error)


def be_killed_first() -> None:
    """Where memory runs out, the system is to end this process before its parent (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def peak_memory() -> int:
    """The most memory that this process has held, bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes, but on macOS


def memory() -> tuple[float | None, float | None]:
    """Bytes of memory in all and free, within the control group's limit where there is one; None where unknown."""
    values = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, rest = line.split(":", 1)
            values[name] = float(rest.split()[0]) * 1024
    total, free = values.get("MemTotal"), values.get("MemAvailable")
    with contextlib.suppress(OSError, ValueError):
        limit = float(Path("/sys/fs/cgroup/memory.max").read_text())
        used = float(Path("/sys/fs/cgroup/memory.current").read_text())
        total, free = min(total or limit, limit), min(free or limit, limit - used)
    return total, free


def locking_problem(folder: Path) -> str:
    """Why files in `folder` cannot be locked, "" where they can (or where the system has no such locks).

    Raises:
        OSError: nothing can be written there.
    """
    try:
        import fcntl
    except ImportError:
        return ""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".nemo-doctor-") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.strerror or str(error)
    return ""


def signal_name(number: int) -> str:
    """SIGKILL for 9; the number as text where it has no name here."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def allowed_cores() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def default_workers() -> int:
    """Cores that this process may use: its affinity, and below that a cgroup quota (containers)."""
    cores = len(allowed_cores())
    quota = cgroup_cores()
    return max(1, min(cores, int(quota + 0.5)) if quota else cores)


def children_at_once(wanted: int) -> int:
    """How many of `wanted` child processes this process may have at a time, at least 1: each needs open files here.

    The limit on them is raised as far as the system lets us; where that is not enough, a warning says so.
    """
    try:
        import resource

        limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = _OPEN_FILES + wanted * _OPEN_FILES_EACH
        if limit != resource.RLIM_INFINITY and limit < needed:
            with contextlib.suppress(OSError, ValueError):
                more = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
                resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
                limit = more
    except ImportError:
        return wanted
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return wanted
    few = max(1, (limit - _OPEN_FILES) // _OPEN_FILES_EACH)
    warnings.warn(
        f"{few} at a time in place of {wanted}: this process may open {limit} files only (ulimit -n).",
        stacklevel=2,
    )
    return few


def cgroup_cores(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """The CPU quota of this process's control group in cores; None without a quota. Versions 2 and 1."""
    quotas = []
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        v2 = controllers == ""
        if not v2 and "cpu" not in controllers.split(","):
            continue
        base = root if v2 else root / "cpu"
        here = base / path.lstrip("/")
        # The tightest of this group and those above it counts.
        for folder in (here, *here.parents):
            try:
                if v2:
                    quota, period = (folder / "cpu.max").read_text().split()
                else:
                    quota = (folder / "cpu.cfs_quota_us").read_text().strip()
                    period = (folder / "cpu.cfs_period_us").read_text().strip()
                if quota not in ("max", "-1"):
                    quotas.append(int(quota) / int(period))
            except (OSError, ValueError):
                pass
            if folder == base:
                break
    return min(quotas) if quotas else None


def library_versions() -> dict[str, str]:
    """Versions of what the numbers may depend on, without importing any of it."""
    versions = {"python": sys.version.split()[0]}
    for name in _VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def large_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable by which the C library of a child asks for memory in large pages: pictures are read across their
    rows, each of which lies in another small one. glibc 2.35 knows it, others take no notice; what `environment`
    already sets by it stays."""
    set_before = environment.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" in set_before:
        return {}
    return {"GLIBC_TUNABLES": ":".join(filter(None, [set_before, "glibc.malloc.hugetlb=1"]))}
