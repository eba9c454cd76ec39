"""Derives `face_geometry.npz` from the vendored bundle: run `python -m nemo_pipeline.data.make_geometry`.

The bundle's metadata is a protocol-buffer message (GeometryPipelineMetadata): field 1 the canonical mesh
(field 3 of it: vertices as x, y, z, u, v in centimetres, y up, z towards the camera; field 4: the corners of
its triangles, one after the other), field 2 the weighted landmarks of its Procrustes alignment. The mean shape
is the construction of `ibug68` on that mesh, seen from the front.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from nemo_pipeline.geometry import normalised_shape
from nemo_pipeline.ibug68 import MIRROR, from_mesh

_METADATA = "geometry_pipeline_metadata_landmarks.binarypb"


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of one message; values are ints or raw bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(kind, -1)
            if size < 0:
                size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def _float(raw: int | bytes) -> float:
    assert isinstance(raw, bytes)
    return struct.unpack("<f", raw)[0]


def derive(bundle: Path) -> dict[str, NDArray[np.generic]]:
    """All arrays of face_geometry.npz from a landmark bundle."""
    with zipfile.ZipFile(bundle) as archive:
        metadata = archive.read(_METADATA)
    vertices: list[float] = []
    surface: list[int | bytes] = []
    indices, weights = [], []
    for number, value in _fields(metadata):
        if not isinstance(value, bytes):
            continue  # which input the alignment reads: not geometry
        if number == 1:
            vertices = [_float(v) for n, v in _fields(value) if n == 3]
            surface = [v for n, v in _fields(value) if n == 4]
        elif number == 2:
            entry = dict(_fields(value))
            indices.append(int(entry.get(1, 0)))
            weights.append(_float(entry[2]))
    mesh = np.array(vertices).reshape(-1, 5)[:, :3] * [1, -1, -1]
    shape = normalised_shape(from_mesh(mesh))
    shape = (shape + shape[MIRROR] * [-1, 1]) / 2
    triangles = Delaunay(shape).simplices.astype(np.int32)
    # One order and one orientation, so that the file does not depend on the library that made it.
    area = np.cross(
        np.pad(shape[triangles[:, 1]] - shape[triangles[:, 0]], ((0, 0), (0, 1))),
        np.pad(shape[triangles[:, 2]] - shape[triangles[:, 0]], ((0, 0), (0, 1))),
    )[:, 2]
    triangles[area < 0] = triangles[area < 0][:, ::-1]
    first = triangles.argmin(axis=1)
    triangles = np.array([np.roll(t, -k) for t, k in zip(triangles, first, strict=True)], dtype=np.int32)
    triangles = triangles[np.lexsort(triangles.T[::-1])]
    return {
        "canonical_mesh": mesh.astype(np.float32),
        "canonical_triangles": np.array(surface, dtype=np.int32).reshape(-1, 3),
        "procrustes_indices": np.array(indices, dtype=np.int32),
        "procrustes_weights": np.array(weights, dtype=np.float32),
        "mean_shape": shape,
        "triangles": triangles,
    }


def main() -> None:
    """Write face_geometry.npz next to this file."""
    here = Path(__file__).parent
    np.savez_compressed(here / "face_geometry.npz", **derive(here / "face_landmarker.task"))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
