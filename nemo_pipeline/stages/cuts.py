"""Cuts: whether the face in the next frame belongs to the same shot, so to the same person, as the one before.

Two people who are framed alike have faces at the same place that look alike to a detector. What a cut does
and a moving, lit, laughing or half-hidden face does not: the face's skin as seen through the mesh, the shape of the
head, and the picture around it all change at once. A dissolve does the same slowly, and every picture on the way is a
mixture of its two ends, which those of a movement are not. How far apart the two lie: docs/tracking.md.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nemo_pipeline import ibug68
from nemo_pipeline.geometry import canonical_mesh
from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.stages.landmarks import REGION_SCALE, FaceMesh
from nemo_pipeline.stages.pose import head_positions

#: From this change on, a frame belongs to another shot than the one before it; for frames that are further apart than
#: those at 30/s, it grows with the square root of the time between them, up to the larger value.
CUT, LARGEST_CUT = 0.55, 1.0
#: What of a change counts where the picture around the face stays as it was (same room, same backdrop).
SAME_PLACE = 0.4
#: From this on, the ends of a stretch of frames are two shots, one dissolved into the other.
DISSOLVE = 0.18
#: Frames kept to look for dissolves: one in so many seconds, over stretches of so many seconds and at least so many.
SPACING, STRETCHES, LEAST_FRAMES = 1 / 30, (8 / 30, 16 / 30), 4
#: Frames further apart than this have nothing between them that a dissolve could be seen by, seconds.
APART = 0.25
#: A stretch that makes more than this part of its way in one step is not a dissolve (it may be a lamp).
LARGEST_STEP = 0.6

#: Frames closer to one another than `SPACING` are compared only where a vertex of the mesh moved by more than this part
#: of its region. (Of 13 people the nearest meshes differ by 0.015, whichever frames are taken and with the eyes at the
#: same place.)
STILL = 0.012

_TICK = 1e-3  # seconds: times of frames are as good as this
_VIEW, _CLOSE = 36, 1.1  # pixels, and boxes of the mesh: side of the view in which a face is compared
_AROUND = 1.6  # the surroundings, in regions (and a region is 1.5 times the mesh)
_NEAR = (11, 11)  # pixels of the coarse picture
_FLOOR = 4.0  # gray levels: a face or a scene with less contrast than this shows little but noise
#: No two scenes are further apart than this (1 - correlation, and rounding).
_MOST_SCENE = 2.001


@dataclasses.dataclass(frozen=True, eq=False)
class Glimpse:
    """What is kept of one face in one frame to compare it with another.

    Attributes:
        time: of the frame, seconds.
        look: (36, 36) float32, gray levels of the face; light and contrast taken out, as from `skin`.
        skin: (468,) float32, gray levels at the mesh's vertices, so that pose and expression move no feature.
        shape: (m, 3) float64, vertices that expressions move little, in the head's own frame, percent of the distance
            of the outer eye corners.
        scene: (48, 64) uint8, the whole picture.
        around: rows and columns of it that show the face and what is around it.
        points: (468, 2) float32, the mesh, source pixels.
    """

    time: float
    look: NDArray[np.float32]
    skin: NDArray[np.float32]
    shape: NDArray[np.float64]
    scene: NDArray[np.uint8]
    around: tuple[slice, slice]
    points: NDArray[np.float32]

    @functools.cached_property
    def structure(self) -> NDArray[np.float32]:
        """(48, 64): what is in the scene, without brightness and contrast of each place, so without light. Made when it
        is asked for: most faces change so little that their surroundings decide nothing."""
        return _structure(self.scene)

    @classmethod
    def of(cls, frame: Frame, mesh: FaceMesh) -> Glimpse:
        """A glimpse of a face in a frame."""
        return cls.of_all([(frame, mesh)])[0]

    @classmethod
    def of_all(cls, seen: Sequence[tuple[Frame, FaceMesh]]) -> list[Glimpse]:
        """As `of`, of several faces at once."""
        if not seen:
            return []
        regions = [mesh.region for _, mesh in seen]
        boxes = [Region(r.cx, r.cy, r.size / REGION_SCALE * _CLOSE, r.angle) for r in regions]
        views = np.stack([frame.gray_view(box, _VIEW) for (frame, _), box in zip(seen, boxes, strict=True)])
        points = np.stack([mesh.points for _, mesh in seen])
        turned = [(math.cos(box.angle) / box.size, math.sin(box.angle) / box.size) for box in boxes]
        to_view = _VIEW * np.array([[[c, -s], [s, c]] for c, s in turned])
        at = (points[:, :468, :2] - np.array([[(box.cx, box.cy)] for box in boxes])) @ to_view
        at = (at + (_VIEW - 1) / 2).astype(np.float32)
        skins = [
            cv2.remap(view, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).ravel()
            for view, x, y in zip(views, at[..., 0], at[..., 1], strict=True)
        ]
        vertices, unit = _stable()
        scales, rotations, shifts = head_positions(points)
        to_head = rotations * (100 / (scales * unit))[:, None, None]
        return [
            cls(frame.time, look, skin, shape, frame.coarse, _around(frame, region), mesh.points[:468, :2])
            for (frame, mesh), region, look, skin, shape in zip(
                seen,
                regions,
                _contrast(views),
                _contrast(np.stack(skins)),
                (points[:, vertices] - shifts[:, None]) @ to_head,
                strict=True,
            )
        ]


@dataclasses.dataclass(slots=True)
class Pace:
    """Which frames of a shot are compared: those at least `SPACING` apart, and between them those in which the face
    moved (`STILL`). So a shot takes no longer to follow where it has more frames a second.

    Attributes:
        kept: time of the last frame of those so far apart, seconds.
        points: the mesh (468, 2) in the last frame that was compared.
    """

    kept: float
    points: NDArray[np.float32]

    def takes(self, time: float, mesh: FaceMesh) -> bool:
        """Whether the next frame is compared."""
        points, due = mesh.points[:468, :2], time - self.kept >= SPACING - _TICK
        if not due and float(np.abs(points - self.points).max()) <= STILL * mesh.region.size:
            return False
        self.kept, self.points = (time if due else self.kept), points
        return True


class Shot:
    """One person's face from frame to frame, in memory that does not depend on how long the shot is.

    Args:
        first: the face where it was found.
    """

    def __init__(self, first: Glimpse) -> None:
        self.last = first
        self._begun = first.time
        self._kept = deque([first])

    @property
    def pace(self) -> Pace:
        """Which of the next frames are compared."""
        return Pace(self._kept[-1].time, self.last.points)

    def goes_on(self, new: Glimpse, most: float = LARGEST_CUT) -> bool:
        """Whether a glimpse of a later frame is of the same shot; `most` is the largest change that may be. After a
        dissolve, what was before it is remembered as the last of the shot, in place of a mixture."""
        end = self.end_before(new, most)
        self.last = end or self.last
        return end is None

    def end_before(self, new: Glimpse, most: float = LARGEST_CUT) -> Glimpse | None:
        """The last glimpse of the shot, if that ended before `new`; None where it goes on."""
        if _changed(self.last, new, min(limit(new.time - self.last.time), most)):
            return self.last
        return next((one[0] for one in self.stretches(new) if dissolve(one, DISSOLVE) >= DISSOLVE), None)

    def stretches(self, new: Glimpse) -> Iterator[list[Glimpse]]:
        """The last frames of the shot, up to `new`, in which a dissolve is looked for."""
        for seconds in STRETCHES:
            stretch = [kept for kept in self._kept if new.time - kept.time <= seconds + _TICK] + [new]
            if new.time - self._begun >= seconds - _TICK and len(stretch) >= LEAST_FRAMES:
                yield stretch

    def add(self, new: Glimpse) -> None:
        """The next frame that was compared, of the same shot."""
        if new.time - self.last.time > APART:
            self._kept.clear()
            self._begun = new.time
        self.last = new
        if not self._kept or new.time - self._kept[-1].time >= SPACING - _TICK:
            self._kept.append(new)
        while new.time - self._kept[0].time > max(STRETCHES) + _TICK:
            self._kept.popleft()


def limit(seconds: float) -> float:
    """The change that makes a cut of two frames so far apart."""
    return min(CUT * math.sqrt(max(1.0, 30 * seconds)), LARGEST_CUT)


def change(a: Glimpse, b: Glimpse) -> float:
    """How much a face and its surroundings changed from one frame to another; `CUT` or more between shots."""
    return _face_change(a, b) * (SAME_PLACE + _scene_change(a, b))


def _changed(a: Glimpse, b: Glimpse, most: float) -> bool:
    """Whether `change` is `most` or more."""
    face = _face_change(a, b)
    return face * (SAME_PLACE + _MOST_SCENE) >= most and face * (SAME_PLACE + _scene_change(a, b)) >= most


def dissolve(glimpses: Sequence[Glimpse], least: float = DISSOLVE / 4) -> float:
    """How much the last of some glimpses differs from the first, where each one between is a mixture of the two and
    the way from one to the other is not made in one step: `DISSOLVE` or more between shots. 0 where the two differ by
    less than `least`, whatever is between them."""
    first, *between, last = glimpses
    most = _face_change(first, last)
    if most * _MOST_SCENE < least:
        return 0.0
    most *= _scene_change(first, last)
    if most < least:
        return 0.0
    start = first.scene[first.around].astype(np.float32)
    way = (last.scene[first.around] - start).ravel()
    length = max(float(way @ way), 1.0)
    places, off = [0.0], 0.0
    for glimpse in between:
        so_far = (glimpse.scene[first.around] - start).ravel()
        places.append(float(so_far @ way) / length)
        off = max(off, math.sqrt(float(((so_far - places[-1] * way) ** 2).sum()) / length))
    if max(y - x for x, y in itertools.pairwise([*places, 1.0])) > LARGEST_STEP:
        return 0.0
    return most * max(0.0, 1.0 - off) ** 4


def _face_change(a: Glimpse, b: Glimpse) -> float:
    looks = math.sqrt(_apart(a.look, b.look) * _apart(a.skin, b.skin))
    moved = (a.shape - b.shape).ravel()
    return looks * math.sqrt(float(moved @ moved) / len(a.shape))


def _contrast(levels: NDArray[np.generic]) -> NDArray[np.float32]:
    """Levels (n, ...), each with its mean and its contrast taken out."""
    out = levels.reshape(len(levels), -1).astype(np.float32)
    out -= out.mean(axis=1, keepdims=True)
    out /= np.maximum(np.sqrt(np.einsum("ij,ij->i", out, out) / out.shape[1]), _FLOOR)[:, None]
    return out.reshape(levels.shape)


def _apart(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """1 - correlation, 0..2, of two arrays without mean and contrast; less where there is hardly any contrast."""
    off = (a - b).ravel()
    return float(off @ off) / (2 * off.size)


def _scene_change(a: Glimpse, b: Glimpse) -> float:
    """1 - correlation of the pictures' structure, half of it around the first face, half of the whole."""
    x, y = a.structure[a.around].ravel(), b.structure[a.around].ravel()
    around = float(x @ y) / math.sqrt(float(x @ x) * float(y @ y) + 1e-6)
    return 1 - (around + float(a.structure.ravel() @ b.structure.ravel())) / 2


def _structure(scene: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(h, w) float32 of a small picture: each place in units of the contrast around it; of length 1."""
    levels = scene.astype(np.float32)
    levels -= cv2.blur(levels, _NEAR)
    # Running sums leave rounding errors, so that the mean of squares of a flat part can lie just below 0.
    contrast: Any = np.sqrt(np.maximum(cv2.blur(levels * levels, _NEAR), 0)) + _FLOOR
    levels /= contrast
    return levels / math.sqrt(float(levels.ravel() @ levels.ravel()) + 1e-6)


def _around(frame: Frame, region: Region) -> tuple[slice, slice]:
    """The part of the coarse picture around a region, at least 6 pixels high and wide."""
    parts = []
    rows, columns = frame.coarse.shape
    for middle, extent, n in ((region.cy, frame.height, rows), (region.cx, frame.width, columns)):
        reach = max(_AROUND * region.size / 2 * n / extent, 3.0)
        centre = min(max((middle + 0.5) * n / extent, 3.0), n - 3.0)
        parts.append(slice(max(0, math.floor(centre - reach)), min(n, math.ceil(centre + reach))))
    return parts[0], parts[1]


@functools.cache
def _stable() -> tuple[NDArray[np.intp], float]:
    """Vertices away from mouth, chin, eyes and brows, and the distance of the canonical face's outer eye corners."""
    vertices, _, _ = canonical_mesh()
    points = ibug68.from_mesh(np.vstack([vertices, np.zeros((10, 3))]))

    def distance(*groups: str) -> NDArray[np.float64]:
        of = points[[i for group in groups for i in ibug68.GROUPS[group]]]
        return np.sqrt(((vertices[:, None, :2] - of) ** 2).sum(axis=2)).min(axis=1)

    mouth = points[[i for group in ("outer_mouth", "inner_mouth") for i in ibug68.GROUPS[group]]]
    keep = vertices[:, 1] < mouth[:, 1].mean() - 0.3  # centimetres, here and below
    keep &= distance("outer_mouth", "inner_mouth") > 2.2
    keep &= (distance("right_eye", "left_eye") > 0.8) & (distance("right_brow", "left_brow") > 0.6)
    return np.flatnonzero(keep), float(np.hypot(*(vertices[33] - vertices[263])[:2]))
