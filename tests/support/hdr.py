"""HDR clips: pictures put into HLG and PQ by the standards' formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.support.clips import write_clip

HLG, PQ = 18, 16
BT709, BT2020 = 1, 9
#: Linear light from BT.709's primaries to BT.2020's (ITU-R BT.2087).
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def hlg(light: np.ndarray) -> np.ndarray:
    """BT.2100's HLG signal of display light (nits, one of 1000); the system's gamma of 1.2 for each colour."""
    scene = (light / 1000) ** (1 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    with np.errstate(invalid="ignore"):
        return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(12 * scene - b) + c)


def pq(light: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084's signal of display light (nits)."""
    y = (light / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)


SIGNAL = {HLG: hlg, PQ: pq}


def graded(rgb: np.ndarray, transfer: int, white: float = 203.0) -> np.ndarray:
    """An SDR picture (H, W, 3) uint8, its white at so many nits, as (H, W, 3) R'G'B' in BT.2020, 0..1."""
    light = (rgb / 255.0) ** 2.4 * white
    return SIGNAL[transfer](light @ TO_2020.T)


def write_hdr(path: Path, pictures: list[np.ndarray], transfer: int, primaries: int = BT2020) -> Path:
    return write_clip(
        path,
        [graded(p, transfer) * 255 for p in pictures],
        codec="ffv1", pixel_format="yuv420p10le", matrix="2020", transfer=transfer, primaries=primaries,
    )  # fmt: skip
