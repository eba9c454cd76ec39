"""Transfer: HLG and PQ pictures as BT.709 shows them, so that a face has the levels that an SDR camera gives it.

Light on the display (HLG: one of 1000 nits, each colour to the power of 1.2; PQ: absolute), with 203 nits (BT.2408's
white) as SDR's white, in BT.709's primaries; what is brighter is cut off at the brightest colour, so that hue stays;
BT.1886's gamma of 2.4. That is FFmpeg's zscale (t=linear:npl=203, p=bt709), tonemap=clip and zscale (t=bt709).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

#: Luminance of SDR's white in an HDR picture, nits (BT.2408).
WHITE = 203.0
#: What FFmpeg calls the numbers of AVColorTransferCharacteristic.
NAMES = {
    1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 9: "log100",
    10: "log316", 11: "iec61966-2-4", 12: "bt1361e", 13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12",
    16: "smpte2084", 17: "smpte428", 18: "arib-std-b67",
}  # fmt: skip
#: Those whose levels are near enough to BT.709's to be taken as they are.
SDR = frozenset({1, 4, 5, 6, 7, 11, 12, 13, 14, 15})
HDR: dict[int, Literal["hlg", "pq"]] = {16: "pq", 18: "hlg"}
_UNSPECIFIED, _BT2020 = 2, 9
# AVColorSpace whose first plane is not luma that a matrix explains (the latter: Dolby Vision's profile 5).
_NOT_YUV = {14: "ICtCp", 15: "IPT-C2"}

_LUMA_709 = np.array([[0.2126, 0.7152, 0.0722]])
# Linear light of other primaries (numbers of AVColorPrimaries) in BT.709's.
_TO_709 = {
    9: np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]),
    12: np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]]),
}
_STEPS = 4096
# Light of this many whites and more loses its colour, as FFmpeg's tonemap has it.
_DESATURATED = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class ToneMap:
    """Turns R'G'B' of an HDR picture into BT.709's.

    Attributes:
        curve: "hlg" or "pq".
        primaries: AVColorPrimaries.
    """

    curve: Literal["hlg", "pq"]
    primaries: int

    def rgb(self, coded: NDArray[np.float32]) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 R'G'B' of BT.709, full range, from (h, w, 3) R'G'B' as coded, 0..255."""
        return np.round(self._mapped(coded) * np.float32(255)).astype(np.uint8)

    def luma(self, coded: NDArray[np.float32]) -> NDArray[np.uint8]:
        """(h, w) uint8: BT.709's luma, full range, of the same."""
        luma: Any = cv2.transform(self._mapped(coded), _LUMA_709 * 255)
        return np.round(luma).astype(np.uint8)

    def _mapped(self, coded: NDArray[np.float32]) -> Any:
        """(h, w, 3) float32 R'G'B', 0..1."""
        step = np.clip(coded * np.float32((_STEPS - 1) / 255) + np.float32(0.5), 0, _STEPS - 1)
        light: Any = _linear(self.curve).take(step.astype(np.intp))
        matrix = _TO_709.get(self.primaries)
        if matrix is not None:
            light = cv2.transform(light, matrix)
        if light.max() > 1:
            luma: Any = cv2.transform(light, _LUMA_709)
            grayer = np.maximum(luma - _DESATURATED, 0) / np.maximum(luma, _DESATURATED)
            colours = [colour + (luma - colour) * grayer for colour in cv2.split(light)]
            brightest = np.maximum(np.maximum(np.maximum(*colours[:2]), colours[2]), 1)
            light = cv2.merge([colour / brightest for colour in colours])
        return cv2.pow(np.maximum(light, 0), 1 / 2.4)


def tone_map(transfer: int, primaries: int) -> ToneMap | None:
    """The mapping for a picture's AVColorTransferCharacteristic and AVColorPrimaries; None for SDR."""
    curve = HDR.get(transfer)
    return None if curve is None else ToneMap(curve, _BT2020 if primaries == _UNSPECIFIED else primaries)


def described(transfer: int) -> str:
    """What /videos/transfer says: the stream's curve, and what it was mapped to; "" where none is stated."""
    curve = HDR.get(transfer)
    if curve is not None:
        return f"{NAMES[transfer]} to bt709 ({WHITE:g} nits)"
    return "" if transfer == _UNSPECIFIED else NAMES.get(transfer, str(transfer))


def doubt(transfer: int, primaries: int, matrix: int) -> str:
    """A clause about levels that may not be what they were taken for; "" where there is no reason to doubt.

    Args:
        transfer, primaries, matrix: AVColorTransferCharacteristic, AVColorPrimaries, AVColorSpace.
    """
    if matrix in _NOT_YUV:
        return f"colours are coded as {_NOT_YUV[matrix]}, which is not known here: gray levels may be wrong"
    if transfer in SDR or transfer in HDR:
        return ""
    if transfer != _UNSPECIFIED:
        return f"the transfer function ({described(transfer)}) is not known: levels were taken as BT.709's"
    if primaries == _BT2020:
        return "the primaries are BT.2020's but no transfer function is stated: levels were taken as SDR's"
    return ""


@functools.cache
def _linear(curve: str) -> NDArray[np.float32]:
    """Light of every coded level on the display, in units of SDR's white."""
    x = np.linspace(0, 1, _STEPS)
    if curve == "hlg":
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(x <= 0.5, x**2 / 3, (np.exp((x - c) / a) + b) / 12)
        return (scene**1.2 * (1000 / WHITE)).astype(np.float32)
    root = x ** (32 / 2523)
    light = (np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)
    return (light * (10000 / WHITE)).astype(np.float32)
