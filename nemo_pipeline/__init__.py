"""From a facial-expression video to aligned faces: track, smooth, warp, store.

Public names are resolved on first use (PEP 562), so that importing this package loads none of OpenCV, PyAV, Dask or a
landmark engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public name -> the module that defines it.
_PUBLIC = {
    "DamagedFile": "nemo_pipeline.errors",
    "FaceDataset": "nemo_pipeline.store",
    "FaceTrack": "nemo_pipeline.store.facetrack",
    "FaceVideo": "nemo_pipeline.store",
    "FaceWarp": "nemo_pipeline.stages.warp",
    "NemoError": "nemo_pipeline.errors",
    "PrepConfig": "nemo_pipeline.config",
    "landmarks_in_image": "nemo_pipeline.video",
    "open_marked": "nemo_pipeline.store.marked",
    "prep_video": "nemo_pipeline.video",
    "smooth_4253h_twice": "nemo_pipeline.stages.smooth",
    "smooth_in_head_frame": "nemo_pipeline.stages.headframe",
    "track_video": "nemo_pipeline.video",
}
__all__ = ["__version__", *sorted(_PUBLIC)]

if TYPE_CHECKING:
    from nemo_pipeline.config import PrepConfig as PrepConfig
    from nemo_pipeline.errors import DamagedFile as DamagedFile
    from nemo_pipeline.errors import NemoError as NemoError
    from nemo_pipeline.stages.headframe import smooth_in_head_frame as smooth_in_head_frame
    from nemo_pipeline.stages.smooth import smooth_4253h_twice as smooth_4253h_twice
    from nemo_pipeline.stages.warp import FaceWarp as FaceWarp
    from nemo_pipeline.store import FaceDataset as FaceDataset
    from nemo_pipeline.store import FaceVideo as FaceVideo
    from nemo_pipeline.store.facetrack import FaceTrack as FaceTrack
    from nemo_pipeline.store.marked import open_marked as open_marked
    from nemo_pipeline.video import landmarks_in_image as landmarks_in_image
    from nemo_pipeline.video import prep_video as prep_video
    from nemo_pipeline.video import track_video as track_video


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)
