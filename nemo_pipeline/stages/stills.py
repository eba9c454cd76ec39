"""Stills: the 68 points of every face in a single picture, in a time that hardly depends on the picture's size.

A clip shows a face again in the next frame; a single picture is looked at once, but with care. Faces are searched for
in a reduced picture, in a fixed number of tiles. Each face is then looked at several times, in a part of the smallest
reduction that shows it in as many pixels as the landmark network reads.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.stages.frame import Frame, Plane, Region
from nemo_pipeline.stages.landmarks import (
    MESH_VIEW,
    REGION_SCALE,
    STILL_SCALES,
    Engine,
    FaceMesh,
    find_mesh,
    still_landmarks,
)
from nemo_pipeline.stages.pose import head_pose
from nemo_pipeline.stages.search import (
    DETECTOR_VIEW,
    SMALLEST_TILE,
    detector_score,
    implausible,
    is_turned,
    judged,
    least_score,
    overlap,
)
from nemo_pipeline.stages.track import RIVAL_SIZE, Observation

#: Faces are searched for in a picture of no more pixels than this.
SEARCHED_PIXELS = 1500**2
#: Tiles get no smaller than this part of the square root of the picture's area: the smallest faces that are found
#: have a fiftieth of it.
SMALLEST_PART = 1 / 9
#: Turned faces are looked for in so many of the coarsest levels, and in one more where there is nobody upright.
TURNED_LEVELS = 3
#: How often something like a face is looked at in one place, each way up.
TRIES = 2
#: A candidate of a lower score must show the detector a face in its own region, too.
CLEAR = 0.75
#: A face's region has no more than so many times the side of what the detector saw (most of 623 faces: 1.26).
GROWS = 1.3
#: Where only the largest face is wanted and one is known: an upright face is taken as it is seen, whichever way up it
#: may be, in a first, second and third look in which its outer eye corners are less than such a part of the known one's
#: distance apart. (Among 623 faces the third look gives 0.97 to 1.06 times the first's distance in 98 %, 0.97 to 1.03
#: times the second's.)
SMALLER = (0.8, 0.85, 1.0)
#: Something doubtful is then given up if the detector's score of what these looks see is lower (a face has 0.7; the
#: score of the third look exceeds that of the first by 0.065 at most).
LEAST = (0.6, 0.0, 0.7)
_STEP = 0.7  # of a tile, from one to the next
_FINER = 1.8  # how much smaller the tiles of the next level are
_ROTATIONS = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)


def faces_in_picture(
    engine: Engine, picture: Plane, *, everyone: bool = True, max_yaw_degrees: float = 90.0
) -> list[tuple[FaceMesh, NDArray[np.float64]]]:
    """Every face in an (H, W, 3) or (H, W) uint8 picture and its (68, 2) points, in its pixels, largest first.

    Without `everyone` the coarsest tiles that show a face decide: finer ones hold only smaller faces. Then the largest
    face is wanted that is turned by no more than `max_yaw_degrees` (`largest_face`). Of the others, those of about its
    size (`track.RIVAL_SIZE`) are returned, too, but their points are less exact.
    """
    faces, closely = found_in_picture(engine, picture, everyone=everyone, max_yaw_degrees=max_yaw_degrees)
    return [(face, closely(face)) for face in faces]


def found_in_picture(
    engine: Engine, picture: Plane, *, everyone: bool = True, max_yaw_degrees: float = 90.0
) -> tuple[list[FaceMesh], Callable[[FaceMesh], NDArray[np.float64]]]:
    """The faces alone, and what gives the (68, 2) points of one of them: that takes most of the time."""
    sizes, start = _halved(picture)
    faces = _search(engine, sizes[start:], None if everyone else max_yaw_degrees)
    if start:
        faces = [_enlarged(face, 2**start) for face in faces]
    faces.sort(key=lambda face: -_between_eyes(face))
    return faces, lambda face: _closely(engine, sizes, face)


def largest_face(faces: Sequence[Observation], max_yaw_degrees: float) -> Observation:
    """Of some faces (at least one) the one that is wanted where only the largest is: the largest that is turned by no
    more than `max_yaw_degrees`, or the largest of all where every one is turned further."""
    frontal = [face for face in faces if not abs(face.pose[0]) > max_yaw_degrees]
    return max(frontal or faces, key=lambda face: face.eye_distance_px)


def _enlarged(face: FaceMesh, factor: int) -> FaceMesh:
    """A face in a picture of which only means of `factor` x `factor` pixels were seen."""
    points = face.points * np.float32(factor)
    points[:, :2] += (factor - 1) / 2
    return FaceMesh(points, face.face_presence)


def candidates_in_picture(engine: Engine, picture: Plane) -> list[tuple[float, Region]]:
    """(score, region for the landmark network) of everything in a picture that the detector takes for a face in any of
    the tiles that `faces_in_picture` looks at, believed or not, best first; in pixels of the picture."""
    sizes, start = _halved(picture)
    scale, shift = 2**start, (2**start - 1) / 2
    found = [
        (score, dataclasses.replace(r, cx=r.cx * scale + shift, cy=r.cy * scale + shift, size=r.size * scale))
        for k, side in enumerate(_sides(sizes[start]))
        for score, r in _detected(engine, sizes[start:], side, range(4 if k < TURNED_LEVELS else 1), [])
    ]
    return sorted(found, key=lambda item: -item[0])


def _halved(picture: Plane) -> tuple[list[Plane], int]:
    """A picture, the means of 2 x 2 of its pixels, of 4 x 4 and so on, while more than a detector's view is left; and
    which of them is searched."""
    sizes = [picture]
    while max(sizes[-1].shape[:2]) >= 2 * DETECTOR_VIEW and min(sizes[-1].shape[:2]) > 1:
        h, w = (n // 2 for n in sizes[-1].shape[:2])
        half: Any = cv2.resize(sizes[-1][: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA)
        sizes.append(half)
    start = next((k for k, size in enumerate(sizes) if size[..., :1].size <= SEARCHED_PIXELS), len(sizes) - 1)
    return sizes, start


def _sides(picture: Plane) -> list[float]:
    """Sides of the tiles, coarse to fine."""
    height, width = picture.shape[:2]
    sides, least = [1.0 * max(width, height)], 1.0 * min(width, height)
    side = least if least < sides[0] else least / 2
    while side >= max(SMALLEST_TILE, SMALLEST_PART * math.sqrt(width * height)):
        sides.append(side)
        side /= _FINER
    sides.insert(1, 1.7 * sides[0])
    return sides


def _search(engine: Engine, sizes: list[Plane], max_yaw: float | None) -> list[FaceMesh]:
    """Faces in a picture of several sizes, in pixels of the first; `max_yaw` where only the largest is wanted."""
    sides = _sides(sizes[0])
    found = _FoundFaces(engine, Frame.from_rgb(sizes[0]), max_yaw)
    for k, side in enumerate(sides):
        if found.faces and max_yaw is not None:
            break
        found.add(_detected(engine, sizes, side, range(4 if k < TURNED_LEVELS else 1), found.regions))
    if not found.faces:
        for side in sides[TURNED_LEVELS : TURNED_LEVELS + 1]:
            found.add(_detected(engine, sizes, side, range(1, 4), []))
    return found.of_the_size_wanted()


class _FoundFaces:
    """The faces found so far, and places where what the detector saw was no face.

    Args:
        engine: the landmark engine.
        frame: where to look.
        max_yaw: where only the largest face that is turned by no more degrees is wanted.
    """

    def __init__(self, engine: Engine, frame: Frame, max_yaw: float | None = None) -> None:
        self._engine, self._frame, self._max_yaw = engine, frame, max_yaw
        self.faces: list[FaceMesh] = []
        self.regions: list[Region] = []
        self._refused: list[Region] = []
        self._eyes = self._size = 0.0  # of the wanted face, as far as one is known

    def add(self, candidates: list[tuple[float, Region]]) -> None:
        """What the landmark network confirms, the right way up."""
        for score, region in sorted(candidates, key=lambda item: -item[0]):
            if any(overlap(region, other) for other in self.regions):
                continue
            if GROWS * region.size < RIVAL_SIZE * self._size:
                continue
            if sum(_alike(region, other) for other in self._refused) >= TRIES:
                continue
            face = self._confirmed(region, doubtful=score < CLEAR)
            if face is None:
                self._refused.append(region)
                continue
            self.faces.append(face)
            self.regions.append(face.region)
            if self._wanted(face) and (eyes := _between_eyes(face)) > self._eyes:
                self._eyes, self._size = eyes, self.regions[-1].size

    def of_the_size_wanted(self) -> list[FaceMesh]:
        """The faces without those that are clearly smaller than the one that is wanted."""
        least = RIVAL_SIZE * self._size
        return [face for face, region in zip(self.faces, self.regions, strict=True) if region.size >= least]

    def _confirmed(self, region: Region, doubtful: bool) -> FaceMesh | None:
        """The face that the landmark network finds in a region; None if it finds none, or one that is already known."""
        if doubtful and not self._seen_again(region):
            return None
        place = region
        for part, least in zip(SMALLER, LEAST, strict=True):  # until the region fits
            mesh = find_mesh(self._engine, self._frame, place)
            if mesh is None or implausible(mesh, region) or self._known(mesh):
                return None
            place = mesh.region
            smaller = _between_eyes(mesh) < part * self._eyes and not is_turned(place)
            if smaller or (self._eyes and doubtful and least):
                score = detector_score(self._engine, self._frame, mesh)
                if smaller and score >= least_score(mesh):
                    return mesh
                if score < least or (smaller and part == 1):
                    return None
        face = judged(self._engine, self._frame, mesh) if mesh is not None else None
        return face if face is not None and not self._known(face) else None

    def _wanted(self, face: FaceMesh) -> bool:
        """Whether only the largest face is wanted, and it could be this one."""
        return self._max_yaw is not None and not abs(head_pose(face.points)[0]) > self._max_yaw

    def _known(self, face: FaceMesh) -> bool:
        return any(overlap(face.region, other) for other in self.regions)

    def _seen_again(self, region: Region) -> bool:
        """Whether the detector finds a doubtful face again in its own region: that costs less than the landmarks."""
        view = self._frame.view(dataclasses.replace(region, size=1.2 * region.size), DETECTOR_VIEW)
        middle = (DETECTOR_VIEW - 1) / 2
        return any(
            math.hypot(face.x - middle, face.y - middle) < 0.3 * face.size
            for face in self._engine.detect(view)
        )


def _between_eyes(face: FaceMesh) -> float:
    """The distance of the outer eye corners."""
    return float(np.linalg.norm(face.points[263] - face.points[33]))


def _alike(a: Region, b: Region) -> bool:
    """Whether two regions show nearly the same, the same way up."""
    turned = abs((a.angle - b.angle + math.pi) % (2 * math.pi) - math.pi)
    near = turned < math.pi / 4 and math.hypot(a.cx - b.cx, a.cy - b.cy) < 0.15 * min(a.size, b.size)
    return near and 0.8 < a.size / b.size < 1 / 0.8


def _detected(
    engine: Engine, sizes: list[Plane], side: float, turns: range, known: list[Region]
) -> list[tuple[float, Region]]:
    """(score, region for the landmark network) of what the detector finds in tiles of `side` pixels that show more
    than a `known` face; `turns`: quarters by which it is shown each tile."""
    found = []
    for tile, place in _tiles(sizes, side):
        if any(_within(place, face) for face in known):
            continue
        for quarters in turns:
            turned = dataclasses.replace(place, angle=quarters * math.pi / 2)
            to_picture = turned.to_source(DETECTOR_VIEW)
            shown: Any = tile if quarters == 0 else cv2.rotate(tile, _ROTATIONS[quarters - 1])
            for face in engine.detect(shown):
                x, y = to_picture[:, :2] @ (face.x, face.y) + to_picture[:, 2]
                size = face.size * place.size / DETECTOR_VIEW * REGION_SCALE
                found.append((face.score, Region(float(x), float(y), size, face.angle + turned.angle)))
    return found


def _tiles(sizes: list[Plane], side: float) -> Iterator[tuple[Plane, Region]]:
    """Overlapping tiles of `side` pixels that cover a picture, as views of the detector: parts of one reduction."""
    height, width = sizes[0].shape[:2]
    scale = DETECTOR_VIEW / side
    k = min(max(0, math.floor(math.log2(1 / scale))), len(sizes) - 1)
    across, down = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if across < sizes[k].shape[1] else cv2.INTER_LINEAR
    picture: Any = cv2.resize(sizes[k], (across, down), interpolation=how)
    left, top = (max(0, DETECTOR_VIEW - n) // 2 for n in (across, down))
    right, bottom = (max(0, DETECTOR_VIEW - n - m) for n, m in ((across, left), (down, top)))
    picture = cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_REPLICATE)
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=-1)
    for y in _starts(picture.shape[0]):
        for x in _starts(picture.shape[1]):
            cx = (x - left + DETECTOR_VIEW / 2) * width / across - 0.5
            cy = (y - top + DETECTOR_VIEW / 2) * height / down - 0.5
            yield picture[y : y + DETECTOR_VIEW, x : x + DETECTOR_VIEW], Region(cx, cy, side)


def _starts(length: int) -> list[int]:
    """Where tiles begin that cover `length` pixels."""
    n = math.ceil((length - DETECTOR_VIEW) / (_STEP * DETECTOR_VIEW)) + 1
    return [round(float(x)) for x in np.linspace(0, length - DETECTOR_VIEW, n)]


def _within(view: Region, face: Region) -> bool:
    """Whether an upright view shows nothing but a face."""
    reach = (face.size / REGION_SCALE - view.size) / 2
    return max(abs(view.cx - face.cx), abs(view.cy - face.cy)) <= reach


def _closely(engine: Engine, sizes: list[Plane], face: FaceMesh) -> NDArray[np.float64]:
    """The points of a face, from the part of one of the sizes that shows it in about the pixels of a view."""
    region = face.region
    seen = min(STILL_SCALES) / REGION_SCALE * region.size / MESH_VIEW
    k = min(math.floor(math.log2(max(seen, 1.0))), len(sizes) - 1)
    scale, picture = 2**k, sizes[k]
    middle = (np.array([region.cx, region.cy]) + 0.5) / scale
    reach = max(STILL_SCALES) / REGION_SCALE * region.size / scale * math.sqrt(0.5) + 4
    size = np.array([picture.shape[1], picture.shape[0]])
    low = np.clip(np.floor(middle - reach), 0, size - 1).astype(int)
    high = np.clip(np.ceil(middle + reach), low + 1, size).astype(int)
    shift = low * scale + (scale - 1) / 2
    points = (face.points - np.append(shift, 0).astype(np.float32)) / np.float32(scale)
    part = Frame.from_rgb(picture[low[1] : high[1], low[0] : high[0]])
    return still_landmarks(engine, part, FaceMesh(points, face.face_presence)) * scale + shift
