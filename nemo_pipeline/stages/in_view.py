"""Everybody in view: where the faces of a clip are, in every frame, so that all of them can be covered.

To miss a face is worse here than to cover too much. What is taken for a face is therefore not what `search` believes,
but all that the detector is fairly sure of, and all that it half sees and the landmark network confirms. Faces are
followed while the landmark network sees them; where nobody is seen for a moment, the place between is covered too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.stages.landmarks import REGION_SCALE, Engine, face_region, find_mesh
from nemo_pipeline.stages.search import DETECTOR_VIEW, implausible, overlap
from nemo_pipeline.stages.stills import candidates_in_picture

#: A detection of this score is covered whether the landmark network sees a face or not (profiles: 0.85 and more, when
#: it sees none); a weaker one (0.5 is the detector's own limit) only where it does.
ALONE = 0.75
#: The same where a covered picture is searched again: covers themselves look like heads at up to 0.8 or so.
ALONE_AGAIN = 0.85
#: A place is covered this long before a face is first seen there and after it was last seen, seconds.
HOLD_SECONDS = 1.0
#: Between two sightings of somebody that are not further apart, all is covered, seconds.
GAP_SECONDS = 2.0
#: Radius of a cover, in sides of the face's region: the region is 1.5 times the box of the mesh.
RADIUS = 0.55
#: A cover grows by this part for every second since, or until, its face is seen.
GROWTH = 0.5
#: So many sightings of the landmark network confirm somebody (in short tracks: more than half of them).
ENOUGH = 3
#: Faces whose sizes differ by this factor are not the same one.
MUCH = 3.0
#: Sides of the views in which a covered place is looked at again, in diameters of the cover.
LOOKS = (1.25, 1.9, 2.75)


@dataclasses.dataclass(frozen=True, slots=True)
class Sighting:
    """A face in one frame: its region, and whether the landmark network sees one there, too."""

    region: Region
    confirmed: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Cover:
    """A disc over a face in one frame.

    Attributes:
        x, y, radius: pixels.
        size, angle: of the face's region, pixels and radians.
        track: whose face it is.
        confirmed: the landmark network saw it, too.
    """

    x: float
    y: float
    radius: float
    size: float
    angle: float
    track: int
    confirmed: bool

    def holds(self, region: Region) -> bool:
        """Whether a face of about this size lies in it: two discs may look like eyes, which is no face of somebody."""
        within = math.hypot(region.cx - self.x, region.cy - self.y) < self.radius
        return within and 1 / MUCH < region.size / self.size < MUCH


def faces_in_view(
    engine: Engine,
    rgb: NDArray[np.uint8],
    before: Sequence[Region] = (),
    known: Sequence[Region] = (),
    alone: float = ALONE,
) -> tuple[list[Sighting], list[tuple[float, Region]]]:
    """The faces in a picture, and all candidates of the detector, best first.

    Args:
        engine: the landmark engine.
        rgb: (H, W, 3) uint8.
        before: where faces were in the frame before, each looked at again.
        known: where there is one for certain.
        alone: score of a detection that counts without the landmark network.
    """
    frame, candidates = Frame.from_rgb(rgb), candidates_in_picture(engine, rgb)
    faces: list[Sighting] = []
    places = [*((1.0, region) for region in known), *((0.0, region) for region in before), *candidates]
    for number, (score, region) in enumerate(places):
        if any(overlap(region, face.region) for face in faces):
            continue
        mesh = find_mesh(engine, frame, region)
        confirmed = mesh is not None and not implausible(mesh, region)
        if mesh is not None and confirmed:
            region = face_region(mesh.points)
        elif score < alone:
            continue
        if not any(overlap(region, face.region) for face in faces):
            faces.append(Sighting(region, confirmed or number < len(known)))
    return faces, candidates


def seen_under(
    engine: Engine, rgb: NDArray[np.uint8], covers: Sequence[Cover], before: Sequence[Region] = ()
) -> tuple[set[int], list[Sighting]]:
    """What is still found in a picture in which faces were covered.

    Returns:
        The tracks of the covers at whose place the detector finds a face, of any score that it gives, in the search of
        the whole picture or in closer looks at the place (where the landmark network hardly saw a face: one that it
        sees now, or of a score of `ALONE_AGAIN`); and faces that lie elsewhere.
    """
    faces, candidates = faces_in_view(engine, rgb, before, alone=ALONE_AGAIN)
    believed = [face.region for face in faces]
    found = {
        cover.track
        for cover in covers
        for region in ([region for _, region in candidates] if cover.confirmed else believed)
        if cover.holds(region)
    }
    frame = Frame.from_rgb(rgb)
    for cover in covers:
        if cover.confirmed and cover.track not in found:
            views = (Region(cover.x, cover.y, 2 * cover.radius * look) for look in LOOKS)
            if any(_looks(engine, frame, view, cover) for view in views):
                found.add(cover.track)
    elsewhere = [face for face in faces if not any(cover.holds(face.region) for cover in covers)]
    return found, elsewhere


def _looks(engine: Engine, frame: Frame, view: Region, cover: Cover) -> bool:
    """Whether the detector sees a face at the place of a cover in a view."""
    to_source = view.to_source(DETECTOR_VIEW)
    for face in engine.detect(frame.view(view, DETECTOR_VIEW)):
        x, y = to_source[:, :2] @ (face.x, face.y) + to_source[:, 2]
        size = face.size * view.size / DETECTOR_VIEW * REGION_SCALE
        if cover.holds(Region(float(x), float(y), size)):
            return True
    return False


class Places:
    """Where faces were seen over a clip, linked to tracks; gives the covers of every frame. Holds some numbers per
    frame and face, no pictures.

    Args:
        times: (T,) of all frames, seconds, rising.
    """

    def __init__(self, times: Sequence[float]) -> None:
        self._times = np.asarray(times, dtype=np.float64)
        self._tracks: list[_Track] = []
        self._in_frame: list[list[int]] = [[] for _ in times]

    def __len__(self) -> int:
        return len(self._tracks)

    def add(self, seen: Sequence[Sequence[Sighting]]) -> None:
        """Link the faces seen in each of the T frames: to one another, not to those added before."""
        first, recent = len(self._tracks), list[_Track]()
        for frame, faces in enumerate(seen):
            now = self._times[frame]
            recent = [track for track in recent if now - self._times[track.frames[-1]] <= GAP_SECONDS]
            free = list(recent)
            for face in faces:
                track = self._nearest(face.region, now, free)
                if track is None:
                    track = _Track()
                    self._tracks.append(track)
                    recent.append(track)
                else:
                    free.remove(track)
                track.add(frame, face)
        for number in range(first, len(self._tracks)):
            for frame in self._tracks[number].spread(self._times):
                self._in_frame[frame].append(number)

    def _nearest(self, face: Region, now: float, tracks: Sequence[_Track]) -> _Track | None:
        """The track that a face continues."""
        found, nearest = None, math.inf
        for track in tracks:
            last, since = track.regions[-1], now - self._times[track.frames[-1]]
            larger, away = max(last.size, face.size), math.hypot(face.cx - last.cx, face.cy - last.cy)
            if away < min(nearest, (0.35 + since) * larger) and 0.4 < face.size / last.size < 2.5:
                found, nearest = track, away
        return found

    def covers(self, frame: int) -> list[Cover]:
        """The discs over a frame."""
        return [self._tracks[number].cover(frame, number) for number in self._in_frame[frame]]


class _Track:
    """One face over time."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.regions: list[Region] = []
        self._confirmed = 0

    def add(self, frame: int, face: Sighting) -> None:
        self.frames.append(frame)
        self.regions.append(face.region)
        self._confirmed += face.confirmed

    @property
    def confirmed(self) -> bool:
        """Whether the landmark network sees a face more than now and then."""
        return self._confirmed >= ENOUGH or 2 * self._confirmed > len(self.frames)

    def spread(self, times: NDArray[np.float64]) -> range:
        """The frames in which there is a cover. Between sightings places are interpolated; before the first and after
        the last they stay for a while."""
        seen = times[self.frames]
        first = int(np.searchsorted(times, seen[0] - HOLD_SECONDS))
        frames = range(first, int(np.searchsorted(times, seen[-1] + HOLD_SECONDS, side="right")))
        now = times[frames.start : frames.stop]
        after = np.clip(np.searchsorted(seen, now), 0, len(seen) - 1)
        before = np.clip(after - 1, 0, None)
        away = np.minimum(np.abs(now - seen[after]), np.abs(now - seen[before]))
        values = np.array([(r.cx, r.cy, r.size, r.angle) for r in self.regions])
        values[:, 3] = np.unwrap(values[:, 3])
        x, y, size, angle = (np.interp(now, seen, column) for column in values.T)
        radius = RADIUS * size * (1 + GROWTH * away)
        self._first, self._places = first, np.stack([x, y, radius, size, angle], axis=1)
        return frames

    def cover(self, frame: int, number: int) -> Cover:
        x, y, radius, size, angle = (float(value) for value in self._places[frame - self._first])
        return Cover(x, y, radius, size, angle, number, self.confirmed)
