"""The vendored landmark bundle: where it is, whether it is whole, and the networks inside."""

from __future__ import annotations

import functools
import hashlib
import zipfile
from importlib import resources
from pathlib import Path

from nemo_pipeline.errors import InstallationError

SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
DETECTOR = "face_detector.tflite"
LANDMARKS = "face_landmarks_detector.tflite"
BLENDSHAPES = "face_blendshapes.tflite"


def shipped_path() -> Path:
    """Path of the Face Landmarker bundle that comes with the package."""
    return Path(str(resources.files("nemo_pipeline.data") / "face_landmarker.task"))


@functools.cache
def read_bundle(path: Path | None = None) -> tuple[bytes, str]:
    """The bytes of a bundle and their sha256; by default of the shipped one, which must be unchanged.

    Raises:
        NemoError: the file is missing, or the shipped one was altered.
    """
    where = shipped_path() if path is None else Path(path)
    try:
        data = where.read_bytes()
    except OSError as error:
        raise InstallationError(
            f"The landmark bundle {where} cannot be read ({error.strerror}): reinstall nemo-faces.",
            "nemo-faces",
        ) from None
    digest = hashlib.sha256(data).hexdigest()
    if path is None and digest != SHA256:
        raise InstallationError(
            f"The landmark bundle {where} is damaged (sha256 {digest[:12]}…, expected {SHA256[:12]}…): "
            "reinstall nemo-faces.",
            "nemo-faces",
        )
    return data, digest


def network(name: str, path: Path | None = None) -> bytes:
    """One tflite network of the bundle, as bytes. Raises NemoError where the bundle has none of that name."""
    where = shipped_path() if path is None else Path(path)
    read_bundle(path)
    try:
        with zipfile.ZipFile(where) as archive:
            return archive.read(name)
    except (KeyError, zipfile.BadZipFile):
        raise InstallationError(
            f"{where} is not a Face Landmarker bundle (it holds no {name}).", "nemo-faces"
        ) from None
