"""`python -m nemo_pipeline.batch.child`: the process that runs native code, for one video at a time.

Decoder and networks are C++ and may crash, hang or keep memory. They run here, and only here, so that the worst
that a video can do is end this process. The driver is nemo_pipeline.batch.worker. One JSON object per line each way:

    in   {"do": "prep", "stem", and the fields of worker.VideoTask}
         {"do": "merge", "files", "folder", "shards", "config", "model_sha256"}
         {"do": "probe", "path"}
         {"do": "heat", and the fields of heat.heat_job}
         {"do": "overlay", and the fields of overlay.overlay_job}
         {"do": "still-age", and the fields of stills.still_ages}
         {"do": "anonymise", and the fields of anonymise.anonymise}
    out  {"event": "ready"}, {"event": "frames", "n"}, and one last: "done", "error" (a fault in our code)
         or "abort" (nothing can work: disk full, broken installation)

The process ends when its input does, or when its parent dies.
"""

from __future__ import annotations

import os
import sys

from nemo_pipeline.platform import (
    be_killed_first,
    forbid_core_dumps,
    is_out_of_memory,
    limit_memory,
    peak_memory,
    pin_to_core,
)
from nemo_pipeline.status import Status

# Before anything native is imported: one process, one core. argv: [parent pid, core or "-"].
if __name__ == "__main__" and len(sys.argv) == 3 and sys.argv[2] != "-":
    pin_to_core(int(sys.argv[2]))

import dataclasses
import errno
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoResult
from nemo_pipeline.errors import DataError, InstallationError, NemoError, OutputError, to_message
from nemo_pipeline.store.files import disk_full_message, file_hash, is_disk_full, unreadable_message
from nemo_pipeline.store.schema import record_dtype
from nemo_pipeline.store.spool import StagedVideo, write_staged
from nemo_pipeline.supervise import Parent

#: Installs the system libraries that the wheels of OpenCV and MediaPipe link to.
APT_LINE = "sudo apt-get install -y libgl1 libegl1 libgles2 libglib2.0-0"
#: Most memory of this process, bytes. With either engine it maps below 2 GB, a stream of 8K with all its reference
#: pictures some 3 GB more.
MOST_MEMORY = 6 << 30
_TOO_LARGE = (
    f"It needs more than the {MOST_MEMORY >> 30} GB of memory that one video may have: it is damaged, or its pictures "
    "are very large; make a smaller copy (ffmpeg -i FILE -vf scale=-2:1080 NEW.mp4)."
)
#: What stays as it is while a file is neither written to nor replaced.
_SAME = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
#: Seconds between two progress messages.
_EVERY = 0.5


class Frames:
    """Tells the driver how many frames of a job are done, at most every half second."""

    def __init__(self, parent: Parent) -> None:
        self._parent, self._last = parent, 0.0

    def __call__(self, n: int) -> None:
        now = time.monotonic()
        if now - self._last >= _EVERY:
            self._last = now
            self._parent.send("frames", n=n)


def prepare(job: dict[str, Any], on_frames: Callable[[int], None]) -> dict[str, Any]:
    """Do one video and make its staged video durable."""
    path, folder = Path(job["path"]), Path(job["folder"])
    config = PrepConfig.from_dict(job["config"])
    size, digest = 0, ""
    try:
        before = path.stat()
        size, digest = file_hash(path)
    except OSError as error:
        result = VideoResult.failed(Status.UNREADABLE, unreadable_message(error))
    else:
        try:
            result = _process(path, digest, config, job, on_frames)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            result = VideoResult.failed(Status.DECODE_ERROR, _TOO_LARGE)
        try:
            after = path.stat()
        except OSError as error:
            result = VideoResult.failed(Status.UNREADABLE, unreadable_message(error))
        else:
            if any(getattr(before, name) != getattr(after, name) for name in _SAME):
                text = "The file changed while it was read: run the command again when it is complete."
                result = VideoResult.failed(Status.UNREADABLE, text)
    record_bytes = record_dtype(config).itemsize
    write_staged(folder, StagedVideo(job["file"], size, digest, config.fingerprint(), result, record_bytes))
    return {}


def _process(
    path: Path, digest: str, config: PrepConfig, job: dict[str, Any], on_frames: Callable[[int], None]
) -> VideoResult:
    """The stages: all of them, or from the points of a prepared file on."""
    import numpy as np

    from nemo_pipeline.rewarp import rewarp_video, same_points, tracked_rows
    from nemo_pipeline.stages.openface import content_hash
    from nemo_pipeline.store.reader import FaceDataset
    from nemo_pipeline.video import process_video

    stem = Path(job["folder"]) / job["stem"]
    shape = None if job["mean_shape"] is None else np.asarray(job["mean_shape"], np.float64)
    triangles = None if job["triangles"] is None else np.asarray(job["triangles"], np.int32)
    if job["problem"]:
        return VideoResult.failed(Status.LANDMARKS_ERROR, job["problem"])
    if job["sha256"] not in ("", digest):
        text = (
            "It has other content than the video of this name that was prepared: give the original's folder."
        )
        return VideoResult.failed(Status.UNREADABLE, text)
    if job["tracked"] and not config.stills:
        data = FaceDataset(job["tracked"], check=False)
        rows = tracked_rows(data, job["file"], digest) if same_points(data.config, config) else []
        given = content_hash(Path(job["landmarks"])) if job["landmarks"] else ""
        if rows and given in ("", data.layout["landmarks_sha256"][rows[0].row]):
            result = rewarp_video(
                path, config, stem, rows, mean_shape=shape, triangles=triangles, progress=on_frames
            )
            if result is not None:
                return result
        if config.landmarks_source != "track" and not job["landmarks"]:
            text = f"{data.path.name} holds no points for it: prepare it from its landmark file."
            return VideoResult.failed(Status.LANDMARKS_ERROR, text)
    return process_video(
        path,
        config,
        stem,
        mean_shape=shape,
        triangles=triangles,
        landmarks=job["landmarks"] or None,
        progress=on_frames,
    )


def probe(job: dict[str, Any]) -> dict[str, Any]:
    """What a clip's stream says of itself."""
    from nemo_pipeline.stages.decode import DecodeError, VideoReader

    path = Path(job["path"])
    try:
        with VideoReader(path) as reader:
            streams = [
                f"{s.index}: {s}{' (default)' if s.default else ''}{' (a single picture)' if s.still else ''}"
                for s in reader.streams
            ]
            return {
                "info": dataclasses.asdict(reader.info),
                "streams": streams,
                "bytes": path.stat().st_size,
            }
    except DecodeError as error:
        raise DataError(f"{path}: {error}", path) from None


def merge(job: dict[str, Any]) -> dict[str, Any]:
    """Finished videos into shards."""
    from nemo_pipeline.batch.merge import merge_staged

    names = merge_staged(job["files"], job["folder"], job["shards"], job["config"], job["model_sha256"])
    return {"names": names}


def draw(job: dict[str, Any], on_frames: Callable[[int], None]) -> dict[str, Any]:
    """A clip that is read once more, for a copy with something drawn on it or for ages of single frames. Answers why it
    was not done, "" where all is well."""
    from nemo_pipeline.batch import anonymise, heat, overlay, stills

    jobs: dict[str, Any] = {"heat": heat, "overlay": overlay, "still-age": stills, "anonymise": anonymise}
    try:
        return {"note": "", **(jobs[job["do"]].draw_job(job, on_frames) or {})}
    except NemoError as error:  # of this clip: the process is well
        return {"note": str(error)}


def serve(parent: Parent) -> None:
    """Answer jobs until there are no more."""
    try:
        import nemo_pipeline.video  # noqa: F401
    except Exception as error:
        _abort(parent, InstallationError(import_message(error), "nemo-faces"))
        return
    parent.send("ready")
    for job in parent.requests():
        on_frames = Frames(parent)
        try:
            if job["do"] == "prep":
                answer = prepare(job, on_frames)
            elif job["do"] in ("heat", "overlay", "still-age", "anonymise"):
                answer = draw(job, on_frames)
            else:
                answer = merge(job) if job["do"] == "merge" else probe(job)
        except NemoError as error:
            _abort(parent, error)
        except Exception as error:
            if is_out_of_memory(error) and "path" in job:
                _abort(parent, DataError(f"{job['path']}: {_TOO_LARGE}", job["path"]))
                continue
            if is_disk_full(error):
                folder = job.get("folder", "")
                _abort(parent, OutputError(disk_full_message(folder), folder))
                continue
            if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES) and "folder" in job:
                text = f"{job['folder']} cannot be written: {error.strerror}."
                _abort(parent, OutputError(text, job["folder"]))
                continue
            traceback.print_exc()
            sys.stderr.flush()
            parent.send("error", message=f"{type(error).__name__}: {error}")
        else:
            parent.send("done", peak_memory=peak_memory(), **answer)


def _abort(parent: Parent, error: NemoError) -> None:
    parent.send("abort", error=to_message(error))


def import_message(error: Exception) -> str:
    """One sentence for an installation that cannot run, with the remedy where it is known."""
    text = str(error)
    if any(library in text for library in ("libGL", "libEGL", "libgthread", "libglib")):
        return f"A system library is missing ({text}). On Debian or Ubuntu: {APT_LINE}"
    return (
        f"The decoder or the landmarker cannot be loaded ({type(error).__name__}: {text}): run `nemo doctor`."
    )


def main() -> None:
    """Entry point of the child process."""
    parent = Parent()
    os.umask(0o077)
    forbid_core_dumps()
    limit_memory(MOST_MEMORY)
    be_killed_first()
    serve(parent)
    os._exit(0)  # native libraries may hang or crash while they are taken down


if __name__ == "__main__":
    main()
