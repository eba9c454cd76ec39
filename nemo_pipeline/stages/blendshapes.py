"""The 52 blendshape scores of a face, from its mesh, by the bundle's own network: MediaPipe's, on the same mesh.

How strongly a movement is made (`mouthSmileLeft`, `browInnerUp`, ...), 0 to 1. The network sees 146 points of the mesh,
not the picture. Where they were measured against MediaPipe, and what they cost: docs/blendshapes.md.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline import bundle
from nemo_pipeline.stages.engine_litert import Network

# The vertices that the network reads, in its order (MediaPipe's kLandmarksSubsetIdxs, Apache-2.0).
_VERTICES = np.array([
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80,
    81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153,
    154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249,
    251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314,
    317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382,
    384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473,
    474, 475, 476, 477,
])  # fmt: skip


def blendshapes(mesh: NDArray[np.floating]) -> NDArray[np.float32]:
    """(52,) scores of a mesh (478, 3) in pixels; `nemo_pipeline.store.schema.BLENDSHAPES` has their names."""
    points = np.ascontiguousarray(mesh[_VERTICES, :2], dtype=np.float32)
    return _network()(points)[0].copy()


@functools.cache
def _network() -> Network:
    """One per process."""
    from ai_edge_litert.interpreter import Interpreter

    return Network(Interpreter, bundle.network(bundle.BLENDSHAPES))
