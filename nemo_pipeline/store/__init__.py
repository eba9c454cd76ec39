"""out.h5: its format, writer and reader. Needs numpy and h5py alone, loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nemo_pipeline.store.reader import FaceDataset as FaceDataset
    from nemo_pipeline.store.reader import FaceVideo as FaceVideo
    from nemo_pipeline.store.write import write_dataset as write_dataset

_PUBLIC = {
    "FaceDataset": "nemo_pipeline.store.reader",
    "FaceVideo": "nemo_pipeline.store.reader",
    "write_dataset": "nemo_pipeline.store.write",
}
__all__ = ["FaceDataset", "FaceVideo", "write_dataset"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
