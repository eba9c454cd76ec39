"""Frames to an mp4 file (H.264 in PyAV)."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from nemo_pipeline.store.files import replacing
from nemo_pipeline.synth.place import open_as_folder


def write_mp4(
    path: Path, frames: Iterable[np.ndarray], noise: Iterable[np.ndarray], fps: float, quality: int
) -> None:
    """Encode a clip. It appears under its name when it is complete.

    Args:
        path: file to write.
        frames: (H, W, 3) uint8, blue, green, red; H and W even.
        noise: (H, W) int16, one per frame, added to the luma.
        fps: frames per second.
        quality: x264's constant rate factor.
    """
    import av
    import cv2

    rate = Fraction(fps).limit_denominator(1001)
    with replacing(path) as part:
        with av.open(f"file:{part}", "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate)
            stream.pix_fmt = "yuv420p"
            # One thread: the bytes must not depend on the machine's cores.
            stream.options = {"preset": "superfast", "crf": str(quality), "threads": "1"}
            stream.codec_context.thread_count = 1
            # BT.601, limited range: what cv2's conversion below gives.
            stream.codec_context.color_range = 1
            stream.codec_context.colorspace = 6
            for index, (picture, grain) in enumerate(zip(frames, noise, strict=True)):
                height, width = picture.shape[:2]
                if index == 0:
                    stream.width, stream.height = width, height
                planes = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
                planes[:height] = np.clip(planes[:height].astype(np.int16) + grain, 0, 255)
                frame = av.VideoFrame.from_ndarray(planes.astype(np.uint8, copy=False), format="yuv420p")
                frame.pts = index
                frame.time_base = 1 / rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        open_as_folder(part)


def is_whole(path: Path, frames: int) -> bool:
    """Whether a clip is there with all its frames: what a full disk or somebody's copying left half is rendered
    again."""
    import av

    from nemo_pipeline.stages.truncation import missing_bytes

    try:
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            return container.streams.video[0].frames == frames and not missing_bytes(path)
    except (OSError, IndexError, ValueError, av.error.FFmpegError):
        return False
