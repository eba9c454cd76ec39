"""Synthetic facial-expression clips with known ages, landmarks, phases and identities.

Rendered from one public-domain portrait; says nothing about people. Names are resolved on first use, so that
importing this package loads neither OpenCV nor PyAV.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "ClipTruth": "truth",
    "SynthConfig": "plan",
    "SynthSet": "generate",
    "read_truth": "truth",
    "render_faces": "direct",
    "render_set": "generate",
}
__all__ = ["ClipTruth", "SynthConfig", "SynthSet", "read_truth", "render_faces", "render_set"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
