"""Small files that ask for much: huge pictures, hundreds of streams, hours that are not there."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from nemo_pipeline.batch.child import MOST_MEMORY
from nemo_pipeline.batch.tasks import TaskMaker
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoFile
from nemo_pipeline.stages.container import LARGEST_PICTURE
from nemo_pipeline.stages.streams import MOST_STREAMS
from nemo_pipeline.status import Status
from nemo_pipeline.supervise import ONE_THREAD
from nemo_pipeline.video import process_video
from tests.support.processes import PATIENCE
from tests.support.runs import run, write_clip


def png(width: int, height: int, bits: int = 8) -> bytes:
    """A gray PNG of one level: kilobytes, whatever its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + bytes([100]) * (width * bits // 8)
    packer = zlib.compressobj(1)
    data = b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def write_png_video(path: Path, picture: bytes, frames: int = 2) -> Path:
    """A QuickTime file of PNG pictures; its header says 64x64."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("png", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "gray"
        for i in range(frames):
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, i, i, True
            packet.time_base = Fraction(1, 25)
            out.mux(packet)
    return path


def status(path: Path, folder: Path) -> tuple[str, str]:
    row = process_video(path, PrepConfig(size=48), folder / "spool").rows[0]
    return row.status, row.message


def test_larger_pictures_than_8k_are_not_decoded(tmp_path):
    side = 8200
    assert side * side > LARGEST_PICTURE
    bomb = write_png_video(tmp_path / "bomb.mov", png(side, side))
    assert bomb.stat().st_size < 1_000_000
    found, message = status(bomb, tmp_path)
    assert found == "decode_error"
    assert f"{side}x{side}" in message and "smaller copy" in message


@pytest.mark.parametrize("size", [(40_000, 16), (16, 40_000)])
def test_a_long_side_is_no_harm(tmp_path, size):
    found, _ = status(write_png_video(tmp_path / "long.mov", png(*size), frames=1), tmp_path)
    assert found == "no_face"


def test_of_very_many_streams_the_files_own_choice_is_taken(tmp_path):
    path = tmp_path / "many.mp4"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("mpeg4", rate=25) for _ in range(MOST_STREAMS + 4)]
        for stream in streams:
            stream.width = stream.height = 32
        for stream in streams:
            for i in range(3):
                picture = np.full((32, 32, 3), 60 * i, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(stream.encode())
    result = process_video(path, PrepConfig(size=48), tmp_path / "spool")
    assert result.info.stream == 0
    (note,) = [text for text in result.warnings if "video stream 0 was used" in text]
    assert f"{MOST_STREAMS - 2} more" in note and len(note) < 400


def test_more_memory_than_a_video_may_have_is_a_status(tmp_path):
    """With the limit lowered to what the process has by then and 300 MB more, since 6 GB are slow to fill."""
    bomb = write_png_video(tmp_path / "bomb.mov", png(8000, 8000, bits=16))
    task = TaskMaker(PrepConfig(size=48), tmp_path, None)(VideoFile(bomb, "bomb", "bomb.mov"))
    job = task.job | {"stem": "s"}
    code = (
        "import json, os, sys, resource\n"
        "from nemo_pipeline.platform import pin_to_core\n"
        "pin_to_core(min(os.sched_getaffinity(0)))\n"  # threads of more cores would take addresses
        "from nemo_pipeline.batch import child\n"
        "from nemo_pipeline.platform import limit_memory\n"
        "import nemo_pipeline.video\n"
        "mapped = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "limit_memory(mapped + 300_000_000)\n"
        "child.prepare(json.loads(sys.argv[1]), lambda n: None)\n"
    )
    if not sys.platform.startswith("linux"):
        pytest.skip("no limit on the address space here")
    subprocess.run(
        [sys.executable, "-c", code, json.dumps(job)],
        check=True,
        timeout=PATIENCE,
        env=os.environ | ONE_THREAD,
    )
    (staged,) = tmp_path.glob("*.json")
    (row,) = json.loads(staged.read_text())["result"]["rows"]
    assert row["status"] == "decode_error"
    assert f"{MOST_MEMORY >> 30} GB of memory" in row["message"]


def test_neighbours_of_a_bomb_are_unharmed(tmp_path):
    write_clip(tmp_path / "in" / "a.mp4", seed=1)
    write_png_video(tmp_path / "in" / "b.mov", png(8200, 8200))
    write_clip(tmp_path / "in" / "c.mp4", seed=2)
    summary = run([tmp_path / "in"], tmp_path / "out.h5")
    assert [Status.read(row["status"]).usable for row in summary.videos] == [True, False, True]
