"""Track: who is where in every frame. The tracking policy of nemo, on top of the engines and the search.

A face is found by the search, then followed: the next frame's region is the last frame's points. Whether the face is
still the same person's is judged at every step from position, size and appearance, so that a hard cut or a jump to a
neighbour starts a new person instead of continuing the old one.
"""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from nemo_pipeline import ibug68
from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.stages.landmarks import (
    REGION_SCALE,
    Engine,
    FaceMesh,
    find_mesh,
    region_of,
)
from nemo_pipeline.stages.pose import head_pose
from nemo_pipeline.stages.search import full_search, near_search, quick_search

#: Searching every scale is repeated this often while nobody is found, seconds.
FULL_SEARCH_SECONDS = 0.25
#: Faces are counted (and, for `all`, newcomers looked for) this often while somebody is followed, seconds.
CENSUS_SECONDS = 0.5
#: How long after a loss a face at the same place that looks the same is still the same person, seconds.
MEMORY_SECONDS = 1.0
#: Appearance correlation below which two consecutive looks show different scenes or people (measured: see docs).
SAME_SCENE = 0.35
#: At most this many people are followed at once.
MOST_PEOPLE = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Observation:
    """One person in one frame.

    Attributes:
        person: number of the person in this video, from 1; a new number means a new track.
        mesh: (478, 3) float32, source pixels.
        landmarks: (68, 2) float64, source pixels.
        pose: yaw, pitch, roll, degrees.
        face_px: distance of the outer eye corners, pixels (in 3-D, so that turning the head does not shrink it).
        score: presence, 0..1 (NaN where the engine has none).
    """

    person: int
    mesh: NDArray[np.float32]
    landmarks: NDArray[np.float64]
    pose: tuple[float, float, float]
    face_px: float
    score: float


@dataclasses.dataclass(slots=True)
class _Follower:
    """One person being followed: the last place, look and time."""

    person: int
    region: Region
    look: NDArray[np.float32]
    seen: float
    lost: bool = False


class Tracker:
    """Follows the faces of one video: feed it the frames in order, one `Tracker` per video.

    Args:
        engine: the landmark engine (shared between videos; it keeps no state).
        subject: "largest" or "central" follows one person, "all" everybody.
    """

    def __init__(self, engine: Engine, subject: str = "largest") -> None:
        self._engine = engine
        self._subject = subject
        self._most = MOST_PEOPLE if subject == "all" else 1
        self._followers: list[_Follower] = []
        self._people = 0
        self._last_full = -math.inf
        self._last_census = -math.inf
        self._turn = 0
        self.n_faces = 0

    def step(self, frame: Frame) -> list[Observation]:
        """The people seen in the next frame; `n_faces` is then the number of faces last counted."""
        seen = []
        for follower in self._followers:
            mesh = None if follower.lost else self._follow(follower, frame)
            if mesh is not None:
                seen.append(self._observe(follower, mesh))
            follower.lost = mesh is None
        self._followers = [
            f for f in self._followers if not f.lost or frame.time - f.seen <= MEMORY_SECONDS
        ]
        for mesh in self._search(frame, len(seen)):
            follower_ = self._recognise(mesh, frame)
            if follower_ is not None and len(seen) < self._most:
                seen.append(self._observe(follower_, mesh))
        self.n_faces = max(self.n_faces, len(seen))
        return seen

    def _follow(self, follower: _Follower, frame: Frame) -> FaceMesh | None:
        """The same person's face in this frame, or None when it is gone, jumped or replaced."""
        mesh = find_mesh(self._engine, frame, follower.region)
        if mesh is None:
            return None
        region = region_of(mesh.points)
        look = _look(frame, region)
        if not _continues(follower, region, 0.35) or _similarity(follower.look, look) < SAME_SCENE:
            return None
        for other in self._followers:  # two followers on one face: the earlier keeps it
            if other is follower:
                break
            if not other.lost and math.hypot(other.region.cx - region.cx, other.region.cy - region.cy) < 0.2 * region.size:
                return None
        follower.region, follower.look, follower.seen = region, look, frame.time
        return mesh

    def _search(self, frame: Frame, n_seen: int) -> list[FaceMesh]:
        """Faces to consider in this frame beyond those followed: all when nobody is, else now and then."""
        everyone = self._subject == "all"
        if n_seen and frame.time - self._last_census < CENSUS_SECONDS:
            if not (everyone and any(f.lost for f in self._followers)):
                return []
        if n_seen:
            self._last_census = frame.time
            found = full_search(self._engine, frame) if everyone else quick_search(self._engine, frame)
            self.n_faces = max(n_seen, len(found))
            return self._unfollowed(found) if everyone else []
        found = []
        for follower in self._followers:
            found += near_search(self._engine, frame, follower.region)
        if not found or everyone:
            found += self._look_everywhere(frame)
        self.n_faces = len(found)
        return self._ranked(self._unfollowed(found), frame)

    def _look_everywhere(self, frame: Frame) -> list[FaceMesh]:
        if frame.time - self._last_full >= FULL_SEARCH_SECONDS:
            self._last_full = frame.time
            return full_search(self._engine, frame)
        # Between full searches one view a frame, each time turned another way every second frame.
        self._turn += 1
        turns = (0.0, math.pi / 2 * (self._turn % 4)) if self._turn % 4 else (0.0,)
        return quick_search(self._engine, frame, turns)

    def _unfollowed(self, faces: list[FaceMesh]) -> list[FaceMesh]:
        active = [f.region for f in self._followers if not f.lost]
        fresh = []
        for face in faces:
            region = region_of(face.points)
            if all(math.hypot(region.cx - r.cx, region.cy - r.cy) > 0.3 * max(region.size, r.size) for r in active):
                active.append(region)
                fresh.append(face)
        return fresh

    def _ranked(self, faces: list[FaceMesh], frame: Frame) -> list[FaceMesh]:
        """The face of somebody just lost first, then by the rule of `subject`."""
        middle = np.array([(frame.width - 1) / 2, (frame.height - 1) / 2])

        def rank(face: FaceMesh) -> tuple[bool, float]:
            region = region_of(face.points)
            new = self._remembered(region, _look(frame, region)) is None
            if self._subject == "central":
                return new, float(np.hypot(*(middle - (region.cx, region.cy))))
            return new, -region.size

        return sorted(faces, key=rank)

    def _remembered(self, region: Region, look: NDArray[np.float32]) -> _Follower | None:
        """A person lost a moment ago who was here and looked like this."""
        for follower in self._followers:
            if follower.lost and _continues(follower, region, 0.6) and _similarity(follower.look, look) > SAME_SCENE:
                return follower
        return None

    def _recognise(self, mesh: FaceMesh, frame: Frame) -> _Follower | None:
        """The follower for a newly found face: somebody just lost, or a new person."""
        region = region_of(mesh.points)
        look = _look(frame, region)
        follower = self._remembered(region, look)
        if follower is None:
            if sum(not f.lost for f in self._followers) >= self._most:
                return None
            if self._most == 1:
                self._followers.clear()
            self._people += 1
            follower = _Follower(self._people, region, look, frame.time)
            self._followers.append(follower)
        follower.region, follower.look, follower.seen, follower.lost = region, look, frame.time, False
        return follower

    @staticmethod
    def _observe(follower: _Follower, mesh: FaceMesh) -> Observation:
        return observe(mesh, follower.person)


def observe(mesh: FaceMesh, person: int = 1) -> Observation:
    """Everything that is measured on one mesh."""
    eyes = mesh.points[263].astype(np.float64) - mesh.points[33]
    return Observation(
        person=person,
        mesh=mesh.points,
        landmarks=ibug68.from_mesh(mesh.points),
        pose=head_pose(mesh.points),
        face_px=float(np.sqrt((eyes**2).sum())),
        score=mesh.score,
    )


def _continues(follower: _Follower, region: Region, reach: float) -> bool:
    """Whether a face can have moved from the follower's last region to this one."""
    moved = math.hypot(region.cx - follower.region.cx, region.cy - follower.region.cy)
    return (
        moved < reach * max(region.size, follower.region.size)
        and 0.6 < region.size / follower.region.size < 1 / 0.6
    )


def _look(frame: Frame, region: Region) -> NDArray[np.float32]:
    """The face's appearance: 24 x 24 gray of the region's inner part, light and contrast taken out."""
    inner = Region(region.cx, region.cy, region.size / REGION_SCALE, region.angle)
    gray = cv2.cvtColor(frame.view(inner, 24), cv2.COLOR_RGB2GRAY).astype(np.float32)
    gray -= gray.mean()
    return gray / max(float(np.sqrt((gray**2).mean())), 1e-3)


def _similarity(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Correlation of two looks, -1..1."""
    return float((a * b).mean())
