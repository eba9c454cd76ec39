"""Copies of videos in which every face is covered, searched again after they were written.

A copy is a new file: pictures, times and, if asked for, sound. Nothing else of the recording gets into it. It gets its
name only when a search of all its frames found no face in it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from nemo_pipeline import ibug68
from nemo_pipeline.errors import DataError, OutputError
from nemo_pipeline.geometry import align_similarity, canonical_mesh
from nemo_pipeline.stages.decode import VideoReader
from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.stages.in_view import Cover, Places, Sighting, faces_in_view, seen_under
from nemo_pipeline.stages.landmarks import Engine, face_region
from nemo_pipeline.store.files import replacing
from nemo_pipeline.store.reader import FaceVideo
from nemo_pipeline.store.text import pluralize
from nemo_pipeline.view.encode import saying, write_copy

Look = Literal["blur", "wireframe"]
#: What a copy says of itself.
COMMENT = "annotated by nemo: every face that was found is covered"
#: How a face is covered, and again where it was still found: means across the disc (1: one colour), the disc's size,
#: and how clear the wire frame is.
STEPS = ((4, 1.25, 0.8), (1, 1.3, 0.4), (1, 1.7, 0.2), (1, 2.2, 0.0), (1, 3.0, 0.0))
#: A copy is written, searched and written again at most so often.
MOST_ROUNDS = 8
#: Part of the radius over which a cover fades out, outside it.
_FADE = 0.06
#: Frames of a prepared file read at a time.
_BLOCK = 1024
#: Times in a copy are whole ticks of 1/60000 s.
_TICK = 1 / 60000
# What an mp4 says of itself and its streams, whoever writes it.
_OWN_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder", "comment"}
_STREAM_TAGS = {"language", "handler_name", "vendor_id", "encoder"}


@dataclasses.dataclass(frozen=True, slots=True)
class Anonymised:
    """What was done to one video.

    Attributes:
        frames: written, and searched again after that.
        faces: that were covered, each a track of its own.
        rounds: how often the copy was written, until nothing was found in it.
        stronger: faces that a stronger cover was needed for.
        sound: whether the copy has some.
    """

    frames: int
    faces: int
    rounds: int
    stronger: int
    sound: bool


def anonymise_video(
    path: Path,
    target: Path,
    rows: Sequence[FaceVideo],
    engine: Engine,
    *,
    look: Look = "blur",
    sound: bool = False,
    progress: Callable[[int], None] = lambda frames: None,
) -> Anonymised:
    """Write a copy of a video with every face covered in every frame.

    Args:
        path: the video, the one that `rows` were prepared from.
        target: `.mp4` to write, by rename, readable by its owner alone.
        rows: the video's rows of the prepared file, at least one; what they hold is covered, too.
        engine: finds the faces, and looks for them again.
        look: blurred, or the mean shape as a wire frame on one colour.
        sound: keep it.
        progress: called now and then with the number of frames done.

    Raises:
        DataError, OutputError: the video cannot be read or written; or faces are still found in it when they are
            covered as much as they can be. There is no file then.
    """
    with saying(target), replacing(target) as temporary:
        times, seen = _search(path, rows, engine, progress)
        if not times:
            raise DataError(f"{path} has no frame that can be decoded.", path)
        places = Places(times)
        places.add(seen)
        steps: dict[int, int] = {}
        for number in range(1, MOST_ROUNDS + 1):
            with VideoReader(path, rows[0].stream) as reader:
                draw = _Painter(places, steps, look, rows[0])
                write_copy(reader, temporary, draw, comment=COMMENT, sound=sound, progress=progress)
            heard = check_tags(temporary, target)
            found, missed = _check(temporary, target, times, places, engine, progress)
            if not found and not any(missed):
                return Anonymised(len(times), len(places), number, sum(s > 0 for s in steps.values()), heard)
            if all(steps.get(track, 0) == len(STEPS) - 1 for track in found) and not any(missed):
                break
            for track in found:
                steps[track] = min(steps.get(track, 0) + 1, len(STEPS) - 1)
            places.add(missed)
        raise OutputError(
            f"{path} has no copy. In {pluralize(max(found.values(), default=0), 'frame')} of it the detector "
            "finds a face when covered as much as nemo covers one: cover it with another program, and look at it.",
            target,
        )


def _search(
    path: Path, rows: Sequence[FaceVideo], engine: Engine, progress: Callable[[int], None]
) -> tuple[list[float], list[list[Sighting]]]:
    """Times of the frames of a video, and the faces in each."""
    times: list[float] = []
    seen: list[list[Sighting]] = []
    known = _known(rows)
    with VideoReader(path, rows[0].stream) as reader:
        for frame in reader:
            before = [face.region for face in seen[-1]] if seen else []
            faces, _ = faces_in_view(engine, frame.rgb(), before, known.get(frame.index, ()))
            times.append(frame.time)
            seen.append(faces)
            progress(len(times))
    return times, seen


def _known(rows: Sequence[FaceVideo]) -> dict[int, list[Region]]:
    """Number of a frame -> the faces that the prepared file has in it."""
    known: dict[int, list[Region]] = {}
    for row in rows:
        for start in range(0, row.length, _BLOCK):
            points = row.read("landmarks", start, start + _BLOCK)
            for index, face in zip(row.read("frame_index", start, start + _BLOCK), points, strict=True):
                if np.isfinite(face).all():
                    known.setdefault(int(index), []).append(_region(face))
    return known


def _region(landmarks: NDArray[np.floating]) -> Region:
    """The region of a face's mesh from its 68 points: the canonical face's, laid on them."""
    scale, rotation, shift = align_similarity(_canonical_points(), landmarks.astype(np.float64))
    return Region(float(shift[0]), float(shift[1]), scale, float(np.arctan2(rotation[1, 0], rotation[0, 0])))


@functools.cache
def _canonical_points() -> NDArray[np.float64]:
    """(68, 2) points of the canonical face, in sides of its region, from the region's middle."""
    mesh = np.pad(canonical_mesh()[0], ((0, 10), (0, 0)), mode="edge")  # it has no irises
    region = face_region(mesh)
    return (ibug68.from_mesh(mesh) - (region.cx, region.cy)) / region.size


class _Painter:
    """Draws the frames of one copy: called with each, in order.

    Args:
        places: of the faces.
        steps: number of a track -> which of `STEPS` it is covered with; 0 where it is not there.
        look: how.
        row: a row of the prepared file, for its mean shape.
    """

    def __init__(self, places: Places, steps: Mapping[int, int], look: Look, row: FaceVideo) -> None:
        self._places, self._steps, self._look = places, steps, look
        shape = row.dataset.mean_shape
        scale, rotation, shift = align_similarity(shape, _canonical_points())
        self._shape = scale * shape @ rotation.T + shift
        self._triangles = row.dataset.triangles
        self._frame = 0

    def __call__(self, frame: Frame) -> NDArray[np.uint8]:
        picture = np.ascontiguousarray(frame.rgb()).copy()
        for cover in self._places.covers(self._frame):
            cells, larger, clear = STEPS[self._steps.get(cover.track, 0)]
            radius = cover.radius * larger
            if self._look == "blur":
                hide(picture, cover.x, cover.y, radius, cells)
            else:
                hide(picture, cover.x, cover.y, radius, 1)
                self._wires(picture, cover, clear)
        self._frame += 1
        height, width = picture.shape[:2]
        return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")

    def _wires(self, picture: NDArray[np.uint8], cover: Cover, clear: float) -> None:
        """Lay the mean shape over a cover, so clear: at its place, as large and as turned as its face, nothing more."""
        if not clear:
            return
        c, s = np.cos(cover.angle), np.sin(cover.angle)
        points = self._shape @ np.array([[c, s], [-s, c]]) * cover.size + (cover.x, cover.y)
        drawn = picture.copy()
        lines = [np.round(points[t] * 16).astype(np.int32) for t in self._triangles]
        thick = max(1, round(cover.radius / 120))
        cv2.polylines(drawn, lines, True, (255, 255, 255), thick, cv2.LINE_AA, 4)
        cv2.addWeighted(drawn, clear, picture, 1 - clear, 0, dst=picture)


def hide(picture: NDArray[np.uint8], x: float, y: float, radius: float, cells: int) -> None:
    """Replace a disc of a picture (H, W, 3), in place, by the means of `cells` x `cells` parts of its box, blended into
    one another; 1: by one colour."""
    height, width = picture.shape[:2]
    reach = radius * (1 + _FADE)
    left, top = max(0, math.floor(x - reach)), max(0, math.floor(y - reach))
    right, bottom = min(width, math.ceil(x + reach) + 1), min(height, math.ceil(y + reach) + 1)
    if left >= right or top >= bottom:
        return
    part = picture[top:bottom, left:right]
    size = (right - left, bottom - top)
    coarse: Any = cv2.resize(part, (min(cells, size[0]), min(cells, size[1])), interpolation=cv2.INTER_AREA)
    blurred: Any = cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR)
    rows, columns = np.ogrid[top:bottom, left:right]
    outside = (np.hypot(columns - x, rows - y) - radius) / max(reach - radius, 1.0)
    clear = np.clip(outside, 0, 1).astype(np.float32)[..., None]
    part[:] = np.round(blurred + clear * (part.astype(np.float32) - blurred))


def _check(
    copy: Path,
    path: Path,
    times: Sequence[float],
    places: Places,
    engine: Engine,
    progress: Callable[[int], None],
) -> tuple[Counter[int], list[list[Sighting]]]:
    """Search every frame of a copy.

    Returns:
        Track -> in how many frames a face is still found at its place; and the faces found elsewhere, frame by frame.

    Raises:
        OutputError: it has other frames or times than the video.
    """
    found: Counter[int] = Counter()
    missed: list[list[Sighting]] = []
    with VideoReader(copy) as reader:
        for number, frame in enumerate(reader):
            if number >= len(times) or abs(frame.time - times[number]) > 2 * _TICK:
                raise OutputError(f"{path} could not be written with the times of the video.", path)
            covers = places.covers(number)
            before = [face.region for face in missed[-1]] if missed else []
            again, elsewhere = seen_under(engine, frame.rgb(), covers, before)
            found.update(again)
            missed.append(elsewhere)
            progress(number + 1)
    if len(missed) != len(times):
        raise OutputError(f"{path} could not be written with all frames of the video.", path)
    return found, missed


def check_tags(copy: Path, path: Path) -> bool:
    """Whether a copy has sound. Raises OutputError where it says anything of the recording."""
    with av.open(str(copy)) as container:
        tags = set(container.metadata) - _OWN_TAGS
        for stream in container.streams:
            tags |= set(stream.metadata) - _STREAM_TAGS
        kinds = sorted(stream.type for stream in container.streams)
        if tags or kinds not in (["video"], ["audio", "video"]):
            raise OutputError(
                f"{path} could not be written without data of the recording ({', '.join(tags)}).", path
            )
        return "audio" in kinds
