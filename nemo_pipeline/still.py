"""One still picture to rows of one frame: the same engine, warp and statuses as a video's, with six looks at each face
in place of neighbours in time (`stages.stills`)."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import VideoInfo, VideoResult
from nemo_pipeline.person import PersonRecorder
from nemo_pipeline.rows import make_rows
from nemo_pipeline.stages.decode import DecodeError, DecodeReport
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.landmarks import Engine
from nemo_pipeline.stages.picture import read_picture
from nemo_pipeline.stages.quality import FaceQuality
from nemo_pipeline.stages.stills import found_in_picture, largest_face
from nemo_pipeline.stages.track import observe_all
from nemo_pipeline.stages.unseen import why_no_face_in
from nemo_pipeline.stages.warp import FaceWarp
from nemo_pipeline.status import Status


def process_still(
    path: Path, config: PrepConfig, spool_stem: Path, engine: Engine, warp: FaceWarp, quality: FaceQuality
) -> VideoResult:
    """Prepare one picture; arguments, result and errors as of `nemo_pipeline.video.process_video`.

    Rows have one frame, at 0 s and with `fps` 0. Of several faces `config.follow` says which is taken; "all" gives each
    a row, largest first. `n_faces` counts those that were looked for: with "largest", of about its size.
    """
    try:
        picture = read_picture(path)
    except DecodeError as error:
        return VideoResult.failed(error.status, str(error))
    frame = Frame.from_rgb(picture.rgb)
    info = VideoInfo(
        width=frame.width, height=frame.height, fps=0.0, rotation=picture.rotation, codec=picture.format.lower(),
        pixel_format=picture.mode, stored_width=picture.stored[0], stored_height=picture.stored[1],
    )  # fmt: skip
    faces, closely = found_in_picture(
        engine, picture.rgb, everyone=config.follow != "largest", max_yaw_degrees=config.max_yaw_degrees
    )
    found = observe_all([(mesh, number) for number, mesh in enumerate(faces, start=1)])
    wanted = [one.person for one in found]
    if config.follow == "largest" and found:  # nobody else's points are kept
        wanted = [largest_face(found, config.max_yaw_degrees).person]
    own = _for_one_frame(config)
    people: dict[int, PersonRecorder] = {}
    for number, (seen, mesh) in enumerate(zip(found, faces, strict=True), start=1):
        if number in wanted:
            seen = dataclasses.replace(seen, landmarks=closely(mesh))
        spool = spool_stem.with_name(f"{spool_stem.name}.p{number}.records")
        people[number] = PersonRecorder(spool, own, (warp, quality))
        people[number].push(frame, seen, len(found))
        people[number].finish()
    rows = make_rows(people, own, DecodeReport(n_frames=1))
    if rows[0].status is Status.NO_FACE:
        why = why_no_face_in([frame], engine, "the picture", "picture")
        rows = [dataclasses.replace(rows[0], message=why)]
    used = {row.spool for row in rows}
    for person in people.values():
        if person.spool.name not in used:
            person.discard()
    return VideoResult(info, 1, tuple(rows))


@functools.lru_cache(maxsize=8)
def _for_one_frame(config: PrepConfig) -> PrepConfig:
    """The settings for a row of one frame; made once, since it takes a while to check them."""
    return dataclasses.replace(config, min_frames=1, smooth="none", segments="longest")
