"""Copies of videos in which every face is covered, searched again after they were written.

A copy is a new file: pictures, times and, if asked for, sound. Nothing else of the recording gets into it. It gets its
name only when a search of all its frames found no face in it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
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
#: How a face is covered, and again where it was still found: how clear the blur or the wire frame is, how much lighter
#: and darker the bands are, which way they run, and the cover's size.
_STRONGER = ((0.0, 60.0, 1, 1.0), (0.0, 60.0, -1, 1.0), (0.0, 60.0, 1, 1.15), (0.0, 60.0, -1, 1.3))
STEPS: dict[Look, tuple[tuple[float, float, int, float], ...]] = {
    "blur": ((0.35, 35.0, 1, 1.0), *_STRONGER),
    "wireframe": ((0.5, 60.0, 1, 1.0), (0.2, 60.0, 1, 1.0), *_STRONGER),
}
#: A step is taken so long before and after a frame in which a face was found, seconds.
AROUND_SECONDS = 0.25
#: A copy is written, searched and written again at most so often.
MOST_ROUNDS = 8
#: A cover is the colour around it, with so many diagonal bands. An even ellipse on shoulders still looks like a head to
#: a detector (one of five, at scores of 0.5 to 0.7), and one with upright bands now and then; diagonal bands do not.
BANDS = 5
#: A blur is what the means of so many by so many parts differ from their mean.
CELLS = 4
#: How much of its axes a cover fades out over, outside it.
_FADE = 0.08
#: Part of a cover's colour that comes from the new frame: it follows its surroundings without flicker.
_FRESH = 0.15
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
        steps: dict[int, NDArray[np.int_]] = {}
        for number in range(1, MOST_ROUNDS + 1):
            with VideoReader(path, rows[0].stream) as reader:
                draw = _Painter(places, steps, look, rows[0])
                write_copy(reader, temporary, draw, comment=COMMENT, sound=sound, progress=progress)
            heard = check_tags(temporary, target)
            found, missed = _check(temporary, target, times, places, engine, progress)
            new = places.add(missed)
            if not found and not new:
                return Anonymised(len(times), len(places), number, len(steps), heard)
            if not _strengthen(steps, found, times, len(STEPS[look])) and not new:
                break
        raise OutputError(
            f"{path} has no copy. In {pluralize(max(map(len, found.values()), default=0), 'frame')} of it the detector "
            "finds a face when covered as much as nemo covers one: cover it with another program, and look at it.",
            target,
        )


def _strengthen(
    steps: dict[int, NDArray[np.int_]], found: Mapping[int, Sequence[int]], times: Sequence[float], count: int
) -> bool:
    """Cover the faces that were found (track -> frames) a step stronger for a moment. False if there is no such step
    for any of them."""
    taken = False
    for track, frames in found.items():
        now = steps.setdefault(track, np.zeros(len(times), dtype=np.int_))
        wanted = now.copy()
        for frame in frames:
            first = np.searchsorted(times, times[frame] - AROUND_SECONDS)
            last = np.searchsorted(times, times[frame] + AROUND_SECONDS, side="right")
            wanted[first:last] = np.maximum(wanted[first:last], min(now[frame] + 1, count - 1))
            taken = taken or now[frame] < count - 1
        steps[track] = wanted
    return taken


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
        steps: number of a track -> which of `STEPS` it is covered with in each frame; 0 where it is not there.
        look: how.
        row: a row of the prepared file, for its mean shape.
    """

    def __init__(
        self, places: Places, steps: Mapping[int, NDArray[np.int_]], look: Look, row: FaceVideo
    ) -> None:
        self._places, self._steps, self._look = places, steps, look
        shape = row.dataset.mean_shape
        scale, rotation, shift = align_similarity(shape, _canonical_points())
        self._shape = scale * shape @ rotation.T + shift
        self._triangles = row.dataset.triangles
        self._colours: dict[int, NDArray[np.float64]] = {}
        self._frame = 0

    def __call__(self, frame: Frame) -> NDArray[np.uint8]:
        original = np.ascontiguousarray(frame.rgb())
        picture = original.copy()
        for cover in self._places.covers(self._frame):
            step = self._steps[cover.track][self._frame] if cover.track in self._steps else 0
            clear, depth, way, larger = STEPS[self._look][step]
            cover = dataclasses.replace(cover, width=larger * cover.width, height=larger * cover.height)
            now = around(original, cover)
            colour = self._colours[cover.track] = now + (1 - _FRESH) * (
                self._colours.get(cover.track, now) - now
            )
            hide(picture, cover, colour, depth * way, clear if self._look == "blur" else 0.0)
            if self._look == "wireframe" and clear:
                self._wires(picture, cover, clear)
        self._frame += 1
        height, width = picture.shape[:2]
        return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")

    def _wires(self, picture: NDArray[np.uint8], cover: Cover, clear: float) -> None:
        """Lay the mean shape over a cover, so clear: at its place, as large and as turned as its face, nothing more. In
        dark lines: white ones look like a face to detectors twice as often."""
        c, s = np.cos(cover.face.angle), np.sin(cover.face.angle)
        points = self._shape @ np.array([[c, s], [-s, c]]) * cover.face.size + (cover.face.cx, cover.face.cy)
        drawn = picture.copy()
        lines = [np.round(points[t] * 16).astype(np.int32) for t in self._triangles]
        thick = max(1, round(cover.height / 120))
        cv2.polylines(drawn, lines, True, (0, 0, 0), thick, cv2.LINE_AA, 4)
        cv2.addWeighted(drawn, clear, picture, 1 - clear, 0, dst=picture)


def around(picture: NDArray[np.uint8], cover: Cover) -> NDArray[np.float64]:
    """(3,) the mean colour close around a cover; of the whole picture where the cover leaves nothing of it."""
    part, rows, columns = _box(picture, cover, 1.2)
    beyond = cover.beyond(columns, rows)
    ring = part[(beyond > 1) & (beyond < 1.2)]
    return (ring if len(ring) else picture.reshape(-1, 3)).mean(axis=0, dtype=np.float64)


def hide(
    picture: NDArray[np.uint8], cover: Cover, colour: NDArray[np.float64], depth: float, contrast: float
) -> None:
    """Replace an ellipse of a picture (H, W, 3), in place, by one colour with diagonal bands, `depth` lighter and
    darker (negative: they run the other way), and, weaker by `contrast`, what the means of `CELLS` x `CELLS` parts of
    its box have more or less than their mean, blended into one another."""
    part, rows, columns = _box(picture, cover, 1 + _FADE)
    if not part.size:
        return
    along = (columns - cover.x + math.copysign(1, depth) * (rows - cover.y)) / (
        math.sqrt(2) * 2 * cover.width
    )
    filled = (
        np.clip(colour, abs(depth), 255 - abs(depth))
        + abs(depth) * np.sin(2 * np.pi * BANDS * along)[..., None]
    )
    if contrast:
        size = (part.shape[1], part.shape[0])
        coarse: Any = cv2.resize(
            part, (min(CELLS, size[0]), min(CELLS, size[1])), interpolation=cv2.INTER_AREA
        )
        blurred = cv2.resize(coarse.astype(np.float64), size, interpolation=cv2.INTER_LINEAR)
        filled = np.clip(filled + contrast * (blurred - coarse.mean(axis=(0, 1))), 0, 255)
    clear = np.clip((cover.beyond(columns, rows) - 1) / _FADE, 0, 1)[..., None]
    part[:] = np.round(filled + clear * (part - filled))


def _box(
    picture: NDArray[np.uint8], cover: Cover, larger: float
) -> tuple[NDArray[np.uint8], NDArray[np.intp], NDArray[np.intp]]:
    """The part of a picture in which a cover lies, when so much larger, and its rows and columns in the picture."""
    reach = larger * max(cover.width, cover.height)
    left, right = (min(max(0, math.floor(cover.x + d)), picture.shape[1]) for d in (-reach, reach + 1))
    top, bottom = (min(max(0, math.floor(cover.y + d)), picture.shape[0]) for d in (-reach, reach + 1))
    rows, columns = np.ogrid[top:bottom, left:right]
    return picture[top:bottom, left:right], rows, columns


def _check(
    copy: Path,
    path: Path,
    times: Sequence[float],
    places: Places,
    engine: Engine,
    progress: Callable[[int], None],
) -> tuple[dict[int, list[int]], list[list[Sighting]]]:
    """Search every frame of a copy.

    Returns:
        Track -> the frames in which a face is still found at its place; and the faces found elsewhere, frame by frame.

    Raises:
        OutputError: it has other frames or times than the video.
    """
    found: dict[int, list[int]] = {}
    missed: list[list[Sighting]] = []
    with VideoReader(copy) as reader:
        for number, frame in enumerate(reader):
            if number >= len(times) or abs(frame.time - times[number]) > 2 * _TICK:
                raise OutputError(f"{path} could not be written with the times of the video.", path)
            covers = places.covers(number)
            again, elsewhere = seen_under(engine, frame.rgb(), covers)
            for track in again:
                found.setdefault(track, []).append(number)
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
