"""A clip as the decoder gives it, and the pictures that most clips of these tests show."""

from __future__ import annotations

from pathlib import Path

from nemo_pipeline.stages.decode import DecodeReport, VideoReader
from nemo_pipeline.stages.frame import Frame
from tests.support.clips import smooth_pictures

PICTURES = smooth_pictures(12)


def read(path: Path) -> tuple[list[Frame], DecodeReport, VideoReader]:
    with VideoReader(path) as reader:
        return list(reader), reader.report, reader
