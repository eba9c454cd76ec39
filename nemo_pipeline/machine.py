"""What this process may use of the machine it runs on, how its children start and end, and versions of libraries."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
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


def child_command(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules as a process of its own. -P: with a file av.py in the user's folder,
    Python would import that one."""
    return [sys.executable, "-P", "-m", module, *arguments]


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (Linux)."""
    import ctypes

    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


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


def cgroup_cores(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """The CPU quota of this process's control group in cores; None when there is none. Versions 2 and 1."""
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
