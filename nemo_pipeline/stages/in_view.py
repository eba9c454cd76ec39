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
from nemo_pipeline.stages.landmarks import Engine, face_region, find_mesh
from nemo_pipeline.stages.search import DETECTOR_VIEW, implausible, overlap
from nemo_pipeline.stages.stills import candidates_in_picture

#: A detection of this score is covered whether the landmark network sees a face or not (profiles: 0.85 and more, when
#: it sees none); a weaker one (0.5 is the detector's own limit) only where it does.
ALONE = 0.75
#: A place is covered this long before a face is first seen there and after it was last seen, seconds.
HOLD_SECONDS = 1.0
#: Between two sightings of somebody that are not further apart, all is covered, seconds.
GAP_SECONDS = 2.0
#: Radius of a cover, in sides of the face's region: the region is 1.5 times the box of the mesh.
RADIUS = 0.55
#: A cover grows by this part for every second since, or until, its face is seen.
GROWTH = 0.5
#: Sides of the views in which a covered place is looked at again, in diameters of the cover.
LOOKS = (1.0, 1.5, 2.2)


@dataclasses.dataclass(frozen=True, slots=True)
class Cover:
    """A disc over a face in one frame: centre and radius, pixels; the angle of the face, radians; and whose it is."""

    x: float
    y: float
    radius: float
    angle: float
    track: int

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies in it."""
        return math.hypot(x - self.x, y - self.y) < self.radius


def faces_in_view(
    engine: Engine, rgb: NDArray[np.uint8], before: Sequence[Region] = (), known: Sequence[Region] = ()
) -> tuple[list[Region], list[tuple[float, Region]]]:
    """The faces in a picture, and all candidates of the detector, best first.

    Args:
        engine: the landmark engine.
        rgb: (H, W, 3) uint8.
        before: where faces were in the frame before, each looked at again.
        known: where there is one for certain.
    """
    frame, candidates = Frame.from_rgb(rgb), candidates_in_picture(engine, rgb)
    faces: list[Region] = []
    places = [*((1.0, region) for region in known), *((0.0, region) for region in before), *candidates]
    for score, region in places:
        if any(overlap(region, face) for face in faces):
            continue
        mesh = find_mesh(engine, frame, region)
        if mesh is not None and not implausible(mesh, region):
            region = face_region(mesh.points)
        elif score < ALONE:
            continue
        if not any(overlap(region, face) for face in faces):
            faces.append(region)
    return faces, candidates


def seen_under(
    engine: Engine, rgb: NDArray[np.uint8], covers: Sequence[Cover], before: Sequence[Region] = ()
) -> tuple[set[int], list[Region]]:
    """What is still found in a picture in which faces were covered.

    Returns:
        The tracks of the covers at whose place the detector finds a face, of any score that it gives: in the search of
        the whole picture, or in closer looks at the place; and faces that lie elsewhere.
    """
    faces, candidates = faces_in_view(engine, rgb, before)
    found = {cover.track for _, region in candidates for cover in covers if cover.holds(region.cx, region.cy)}
    frame = Frame.from_rgb(rgb)
    for cover in covers:
        if cover.track in found:
            continue
        views = (Region(cover.x, cover.y, 2 * cover.radius * look) for look in LOOKS)
        if any(_middle(engine, frame, view, cover.radius) for view in views):
            found.add(cover.track)
    elsewhere = [face for face in faces if not any(cover.holds(face.cx, face.cy) for cover in covers)]
    return found, elsewhere


def _middle(engine: Engine, frame: Frame, view: Region, reach: float) -> bool:
    """Whether the detector sees a face in the middle of a view, within `reach` pixels of the frame."""
    pixel, middle = view.size / DETECTOR_VIEW, (DETECTOR_VIEW - 1) / 2
    return any(
        math.hypot(face.x - middle, face.y - middle) * pixel < reach
        for face in engine.detect(frame.view(view, DETECTOR_VIEW))
    )


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

    def add(self, seen: Sequence[Sequence[Region]]) -> None:
        """Link the faces seen in each of the T frames: to one another, not to those added before."""
        first, recent = len(self._tracks), list[_Track]()
        for frame, faces in enumerate(seen):
            now = self._times[frame]
            recent = [track for track in recent if now - self._times[track.frames[-1]] <= GAP_SECONDS]
            free = list(recent)
            for face in faces:
                track = self._nearest(face, now, free)
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

    def add(self, frame: int, region: Region) -> None:
        self.frames.append(frame)
        self.regions.append(region)

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
        self._first, self._places = (
            first,
            np.stack([x, y, RADIUS * size * (1 + GROWTH * away), angle], axis=1),
        )
        return frames

    def cover(self, frame: int, number: int) -> Cover:
        x, y, radius, angle = (float(value) for value in self._places[frame - self._first])
        return Cover(x, y, radius, angle, number)
