"""Track: who is where in every frame. The tracking policy of nemo, on top of the engines and the search.

A face is found by the search, then followed: the next frame's region is the last frame's points. Whether the face is
still the same person's is judged at every step from position and size, and from the picture (`cuts`), so that a cut, a
dissolve or a jump to a neighbour starts a new person instead of continuing the old one.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline import ibug68
from nemo_pipeline.stages.cuts import CUT, Glimpse, Shot
from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.stages.landmarks import Engine, FaceMesh, find_mesh
from nemo_pipeline.stages.pose import all_euler_degrees, head_positions
from nemo_pipeline.stages.search import (
    beyond_doubt,
    full_search,
    in_whole,
    judged,
    near_search,
    quick_search,
    verified,
)

#: Searching every scale is repeated this often while nobody is found, seconds.
FULL_SEARCH_SECONDS = 0.25
#: Faces are counted (and, for `all`, newcomers looked for) this often while somebody is followed, seconds.
CENSUS_SECONDS = 0.5
#: How long after a loss a face at the same place that looks the same is still the same person, seconds.
MEMORY_SECONDS = 1.0
#: At most this many people are followed at once: for `all`, and where one subject is wanted.
MOST_PEOPLE, MOST_RIVALS = 16, 4
#: Where one subject is wanted, faces smaller than this part of the largest are not rivals.
RIVAL_SIZE = 0.6
#: How often a new face is checked again in its first frames (then at every census).
FIRST_CHECKS = 6
#: A face is not taken for the same one the other way up before so many checks.
LEAST_CHECKS = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Observation:
    """One person in one frame.

    Attributes:
        person: number of the person in this video, from 1; a new number means a new track.
        mesh: (478, 3) float32, source pixels.
        landmarks: (68, 2) float64, source pixels.
        pose: yaw, pitch, roll, degrees.
        eye_distance_px: distance of the outer eye corners in 3-D, so that turning the head does not shrink it.
        face_presence: 0..1 (NaN where the engine has none).
    """

    person: int
    mesh: NDArray[np.float32]
    landmarks: NDArray[np.float64]
    pose: tuple[float, float, float]
    eye_distance_px: float
    face_presence: float


@dataclasses.dataclass(slots=True)
class _Follower:
    """One person being followed: the last place and time, and the shot so far. `cut` is the time of the frame in which
    another shot took its place."""

    person: int
    region: Region
    shot: Shot
    seen: float
    lost: bool = False
    cut: float = -math.inf


class Tracker:
    """Follows the faces of one video: feed it the frames in order, one `Tracker` per video.

    Everybody whose face is not much smaller than the largest is followed, since who the subject is can only be said at
    the end: the nearest person may look away in the first frame. (`all` follows small faces too.)

    Args:
        engine: the landmark engine (shared between videos; it keeps no state).
        follow: "largest", "central" or "all".
    """

    def __init__(self, engine: Engine, follow: str = "largest") -> None:
        self._engine = engine
        self._everyone = follow == "all"
        self._most = MOST_PEOPLE if follow == "all" else MOST_RIVALS
        self._followers: list[_Follower] = []
        self._trust: dict[int, list[bool]] = {}
        self._last_full = -math.inf
        self._last_census = -math.inf
        self._turn = 0
        self.n_faces = 0

    def trusted(self, person: int) -> bool:
        """Whether the detector agreed that this person is one, in most of the looks it had."""
        checks = self._trust.get(person, [])
        return 2 * sum(checks) > len(checks)

    def step(self, frame: Frame) -> list[Observation]:
        """The people seen in the next frame; `n_faces` is then the number of faces last counted."""
        return observe_all(self.look(frame))

    def look(self, frame: Frame) -> list[tuple[FaceMesh, int]]:
        """As `step`, before anything is measured: each person's mesh and number, for `observe_all`."""
        census = self._census_due(frame)
        counted = in_whole(self._engine, frame) if census and self._followers and not self._everyone else []
        seen: list[tuple[FaceMesh, int]] = []
        for follower in self._followers:
            mesh = None if follower.lost else self._follow(follower, frame)
            if mesh is not None:
                if census or len(self._trust[follower.person]) < FIRST_CHECKS:
                    mesh = self._check(follower, frame, mesh, counted)
                seen.append((mesh, follower.person))
            follower.lost = mesh is None
        self._followers = [f for f in self._followers if not f.lost or frame.time - f.seen <= MEMORY_SECONDS]
        for mesh in self._search(frame, seen, census, counted):
            person = self._recognise(mesh, frame)
            if person is not None:
                seen.append((mesh, person))
        self.n_faces = max(self.n_faces, len(seen))
        return seen

    def look_all(self, frames: Sequence[Frame]) -> list[tuple[list[tuple[FaceMesh, int]], int]]:
        """As `look`, for the next frames: of each, who was seen in it and how many faces were last counted.

        The same as frame by frame, in less time: while everybody is only followed on, whether a shot goes on is judged
        for all of the frames after the network has seen them. After a cut those that follow it are looked at again.
        """
        out: list[tuple[list[tuple[FaceMesh, int]], int]] = []
        while len(out) < len(frames):
            out += self._follow_on(frames[len(out) :])
            if len(out) < len(frames):
                found = self.look(frames[len(out)])
                out.append((found, self.n_faces))
        return out

    def _follow_on(self, frames: Sequence[Frame]) -> list[tuple[list[tuple[FaceMesh, int]], int]]:
        """As `look_all`, up to the first frame in which somebody is lost, looked for or checked."""
        followers = self._followers
        if not followers or any(f.lost or len(self._trust[f.person]) < FIRST_CHECKS for f in followers):
            return []
        regions, paces = [f.region for f in followers], [f.shot.pace for f in followers]
        steps: list[list[tuple[Frame, FaceMesh]]] = []
        taken: list[list[bool]] = []
        compared: list[tuple[Frame, FaceMesh]] = []
        for frame in frames:
            if self._census_due(frame):
                break
            step: list[tuple[Frame, FaceMesh]] = []
            for last in regions:
                mesh = self._look_on(frame, last, [other.region for _, other in step])
                if mesh is None:
                    break
                step.append((frame, mesh))
            if len(step) < len(followers):
                break
            steps.append(step)
            taken.append([pace.takes(frame.time, mesh) for pace, (_, mesh) in zip(paces, step, strict=True)])
            compared += itertools.compress(step, taken[-1])
            regions = [mesh.region for _, mesh in step]
        glimpses = iter(Glimpse.of_all(compared))
        out = []
        for step, which in zip(steps, taken, strict=True):
            looks = [next(glimpses) if yes else None for yes in which]
            if any(look and f.shot.end_before(look) for f, look in zip(followers, looks, strict=True)):
                break
            for follower, look, (frame, mesh) in zip(followers, looks, step, strict=True):
                if look:
                    follower.shot.add(look)
                follower.region, follower.seen = mesh.region, frame.time
            self.n_faces = max(self.n_faces, len(step))
            found = [(mesh, f.person) for f, (_, mesh) in zip(followers, step, strict=True)]
            out.append((found, self.n_faces))
        return out

    def _census_due(self, frame: Frame) -> bool:
        return frame.time - self._last_census >= CENSUS_SECONDS

    def _check(
        self, follower: _Follower, frame: Frame, mesh: FaceMesh, counted: Sequence[tuple[float, Region]]
    ) -> FaceMesh:
        """Look again at a face that is followed, unless it is clearly among those `counted`. Where most looks spoke
        against it and it is one the other way up, that one is followed from now on, as somebody new: what was seen of
        the first is not believed."""
        face = mesh if beyond_doubt(mesh, counted) else judged(self._engine, frame, mesh)
        checks = self._trust[follower.person]
        checks.append(face is mesh)
        if face is None or len(checks) < LEAST_CHECKS or self.trusted(follower.person):
            return mesh
        follower.person, follower.region = self._new_person(), face.region
        follower.shot = Shot(Glimpse.of(frame, face))
        return face

    def _new_person(self) -> int:
        """A number that was not used; who is found is taken for a person until looks say otherwise."""
        person = len(self._trust) + 1
        self._trust[person] = [True]
        return person

    def _follow(self, follower: _Follower, frame: Frame) -> FaceMesh | None:
        """The same person's face in this frame, or None when it is gone, jumped or replaced."""
        earlier = itertools.takewhile(lambda other: other is not follower, self._followers)
        mesh = self._look_on(frame, follower.region, [other.region for other in earlier if not other.lost])
        if mesh is None:
            return None
        if follower.shot.pace.takes(frame.time, mesh):
            glimpse = Glimpse.of(frame, mesh)
            if not follower.shot.goes_on(glimpse):
                follower.cut = frame.time
                return None
            follower.shot.add(glimpse)
        follower.region, follower.seen = mesh.region, frame.time
        return mesh

    def _look_on(self, frame: Frame, last: Region, others: Sequence[Region]) -> FaceMesh | None:
        """The face in this frame that was at `last` in the one before; None when it is gone or jumped. Of two followers
        on one face the earlier keeps it: their regions are `others`."""
        mesh = find_mesh(self._engine, frame, last)
        if mesh is None or not _continues(last, mesh.region, 0.35):
            return None
        if any(_distance(other, mesh.region) < 0.2 * mesh.region.size for other in others):
            return None
        return mesh

    def _search(
        self,
        frame: Frame,
        seen: list[tuple[FaceMesh, int]],
        census: bool,
        counted: list[tuple[float, Region]],
    ) -> list[FaceMesh]:
        """Faces to consider in this frame beyond those followed: at a census, among those `counted` in it."""
        everyone = self._everyone
        found: list[FaceMesh] = []
        for follower in self._followers:
            if follower.lost:
                found += near_search(self._engine, frame, follower.region)
        if census and seen:
            self._last_census = frame.time
            known = [f.region for f in self._followers if not f.lost]
            if everyone:
                new = full_search(self._engine, frame, everyone=True, known=known)
            else:
                new = verified(self._engine, frame, counted, known)
            found += new
            self.n_faces = len(seen) + len(new)
        elif not seen and not found:
            found += self._look_everywhere(frame)
            self.n_faces = len(found)
        fresh = self._unfollowed(found)
        if fresh and not everyone:
            largest = max([f.region.size for f in fresh] + [mesh.region.size for mesh, _ in seen])
            fresh = [f for f in fresh if f.region.size >= RIVAL_SIZE * largest]
        return sorted(fresh, key=lambda face: -face.region.size)

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
            region = face.region
            if all(_distance(region, r) > 0.3 * max(region.size, r.size) for r in active):
                active.append(region)
                fresh.append(face)
        return fresh

    def _recognise(self, mesh: FaceMesh, frame: Frame) -> int | None:
        """The person of a newly found face: somebody lost a moment ago who was here and looked like this, or new."""
        region = mesh.region
        glimpse = Glimpse.of(frame, mesh)
        for follower in self._followers:
            if (
                follower.lost
                and follower.cut < frame.time
                and _continues(follower.region, region, 0.6)
                and follower.shot.goes_on(glimpse, CUT)
            ):
                follower.shot.add(glimpse)
                break
        else:
            if sum(not f.lost for f in self._followers) >= self._most:
                return None
            follower = _Follower(self._new_person(), region, Shot(glimpse), frame.time)
            self._followers.append(follower)
        follower.region, follower.seen, follower.lost = region, frame.time, False
        return follower.person


def observe(mesh: FaceMesh, person: int = 1) -> Observation:
    """Everything that is measured on one mesh."""
    return observe_all([(mesh, person)])[0]


def observe_all(found: Sequence[tuple[FaceMesh, int]]) -> list[Observation]:
    """Everything that is measured on some meshes, each of one person: the same as one by one, in less time."""
    if not found:
        return []
    points = np.stack([mesh.points for mesh, _ in found])
    eyes = points[:, 263].astype(np.float64) - points[:, 33]
    landmarks = ibug68.from_meshes(points)
    poses = all_euler_degrees(head_positions(points)[1]).tolist()
    distances = np.sqrt((eyes**2).sum(axis=1)).tolist()
    return [
        Observation(
            person=person,
            mesh=mesh.points,
            landmarks=points_68,
            pose=(pose[0], pose[1], pose[2]),
            eye_distance_px=distance,
            face_presence=mesh.face_presence,
        )
        for (mesh, person), points_68, pose, distance in zip(found, landmarks, poses, distances, strict=True)
    ]


def _distance(a: Region, b: Region) -> float:
    return math.hypot(a.cx - b.cx, a.cy - b.cy)


def _continues(last: Region, region: Region, reach: float) -> bool:
    """Whether a face can have moved from one region to another."""
    near = _distance(region, last) < reach * max(region.size, last.size)
    return near and 0.6 < region.size / last.size < 1 / 0.6
