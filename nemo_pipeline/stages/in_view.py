"""Everybody in view: where the faces of a clip are, in every frame, so that all of them can be covered.

To miss a face is worse here than to cover too much. What counts is therefore more than `search` believes; but a single
doubtful detection, on a cup or a hand, is not covered. Detections are linked over time. A track is somebody's face if
the detector is sure of it in enough of the frames. Doubtful detections then count as well where they continue such a
track, and where nobody is seen for a moment, the place between is covered, too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.stages.landmarks import REGION_SCALE, Engine, find_mesh
from nemo_pipeline.stages.search import DETECTOR_VIEW, TURNED_DEGREES, implausible, overlap
from nemo_pipeline.stages.stills import candidates_in_picture

#: The detector is sure of a face at the first score; at the second if the landmark network sees the face, too, or if it
#: finds it upright in `AGREE` or more of the overlapping tiles. Measured on real clips: profiles and faces smeared by
#: motion 0.71 to 0.9, found in 4 and more tiles; cups, hands, folds of clothes 0.5 to 0.69, mostly in one.
SURE, LIKELY, AGREE = 0.8, 0.7, 3
#: The same are higher by this in a covered picture, and tiles do not count: a body below a cover looks like a head.
AGAIN = 0.1
#: A track is a face if the landmark network sees it once when the detector gives this score; or the detector is sure of
#: it twice, and in this part of the sightings; or if it lasts so long, seconds, and is seen in this part of the frames,
#: by the landmark network in most or with a sure detection twice.
CLEAR, PART, LASTING_SECONDS, DENSE = 0.85, 0.25, 0.8, 0.66
#: A track that is not left for so long is a face however doubtful, if it is found in this part of the frames. Measured
#: on real clips: a hooded man in dark glasses behind a bar 0.98 of 11 seconds, each time with 0.5 to 0.7; cups, hands
#: and folds of clothes at most 0.85 of 2 seconds and more.
ALWAYS_SECONDS, ALWAYS = 2.0, 0.9
#: A place is covered before a face is first seen there and after it was last seen: as long as it was seen and a little
#: longer, at most so long, seconds.
HOLD_SECONDS, A_LITTLE = 1.0, 0.1
#: Between two sightings of somebody that are not further apart, all is covered, seconds.
GAP_SECONDS = 2.0
#: A detection that is not sure continues a track only so long after its last one, seconds.
GAP_UNSURE_SECONDS = 0.5
#: A cover grows by this part for every second since, or until, its face is seen.
GROWTH = 0.2
#: Places and sizes of covers are smoothed over about this long, seconds (standard deviation).
SMOOTH_SECONDS = 0.07
#: The size of a face is the median over so many seconds before and after: doubtful detections differ much in size.
STEADY_SECONDS = 0.4
#: Half the width and half the height of a cover and how much higher than the face's middle it lies, in sides of the
#: face's box.
HALF_WIDTH, HALF_HEIGHT, HIGHER = 0.67, 0.79, 0.1
#: A face is found again at the place of a cover if its box and the covered face's have so much of both in common
#: (intersection over union; benchmarks of detectors count from 0.5).
SAME = 0.4
#: In closer looks at a place, sizes do not differ more than by this factor.
MUCH = 2.0
#: Sides of the views in which a place is looked at more closely, in sides of the face's region.
LOOKS = (1.35, 2.2, 3.2)


@dataclasses.dataclass(frozen=True, slots=True)
class Sighting:
    """What may be a face in one frame.

    Attributes:
        region: where.
        sure: whether the detector is sure of it.
        confirmed: whether the landmark network sees it, too.
        score: of the detector.
    """

    region: Region
    sure: bool = True
    confirmed: bool = True
    score: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Cover:
    """An ellipse over a face in one frame.

    Attributes:
        x, y: its middle, pixels.
        width, height: half of each, pixels.
        face: the region of the face below.
        track: whose face it is.
    """

    x: float
    y: float
    width: float
    height: float
    face: Region
    track: int

    def beyond(self, x: float | NDArray[Any], y: float | NDArray[Any]) -> Any:
        """How far points are from the middle: 1 on the edge."""
        c, s = math.cos(self.face.angle), math.sin(self.face.angle)
        right, down = x - self.x, y - self.y
        return np.hypot((c * right + s * down) / self.width, (c * down - s * right) / self.height)

    def holds(self, region: Region) -> bool:
        """Whether a face at the covered one's place is meant."""
        a, b = self.face.size / REGION_SCALE, region.size / REGION_SCALE
        across, down = (
            min(a, b, max(0.0, (a + b) / 2 - abs(d)))
            for d in (region.cx - self.face.cx, region.cy - self.face.cy)
        )
        return across * down >= SAME * (a * a + b * b - across * down)


def faces_in_view(
    engine: Engine,
    rgb: NDArray[np.uint8],
    before: Sequence[Region] = (),
    known: Sequence[Region] = (),
    again: bool = False,
) -> tuple[list[Sighting], list[tuple[float, Region]]]:
    """What may be a face in a picture, and all candidates of the detector, best first.

    Args:
        engine: the landmark engine.
        rgb: (H, W, 3) uint8.
        before: where faces were in the frame before, each looked at more closely if the search does not find it.
        known: where there is one for certain.
        again: whether this is a picture in which faces are covered.
    """
    stricter = AGAIN if again else 0.0
    frame, candidates = Frame.from_rgb(rgb), candidates_in_picture(engine, rgb)
    faces = [Sighting(region) for region in known]

    def add(score: float, region: Region, agree: int) -> None:
        if any(overlap(region, face.region) for face in faces):
            return
        mesh = find_mesh(engine, frame, region)
        confirmed = mesh is not None and not implausible(mesh, region)
        upright = abs((region.angle + math.pi) % (2 * math.pi) - math.pi) < math.radians(TURNED_DEGREES)
        sure = score >= SURE + stricter or (
            score >= LIKELY + stricter and (confirmed or (upright and agree >= AGREE and not again))
        )
        if mesh is not None and confirmed:
            region = mesh.region
        if not any(overlap(region, face.region) for face in faces):
            faces.append(Sighting(region, sure, confirmed, score))

    for score, region in candidates:
        add(score, region, sum(overlap(region, other) for _, other in candidates))
    for place in before:
        if not any(overlap(place, face.region) for face in faces):
            for score, region in closer(engine, frame, place)[:1]:
                add(score, region, 0)
    return faces, candidates


def closer(engine: Engine, frame: Frame, place: Region) -> list[tuple[float, Region]]:
    """(score, region) of what the detector finds in closer looks at a place, best first."""
    found = []
    for look in LOOKS:
        view = Region(place.cx, place.cy, place.size * look, place.angle)
        to_source = view.to_source(DETECTOR_VIEW)
        for face in engine.detect(frame.view(view, DETECTOR_VIEW)):
            x, y = to_source[:, :2] @ (face.x, face.y) + to_source[:, 2]
            size = face.size * view.size / DETECTOR_VIEW * REGION_SCALE
            if (
                math.hypot(x - place.cx, y - place.cy) < 0.5 * place.size
                and 1 / MUCH < size / place.size < MUCH
            ):
                found.append((face.score, Region(float(x), float(y), size, face.angle + view.angle)))
    return sorted(found, key=lambda item: -item[0])


def seen_under(
    engine: Engine, rgb: NDArray[np.uint8], covers: Sequence[Cover]
) -> tuple[set[int], list[Sighting]]:
    """What is still found in a picture in which faces were covered.

    Returns:
        The tracks of the covers at whose place the detector finds a face, of any score that it gives, in the search of
        the whole picture or in closer looks at the place; and faces elsewhere of which it is sure.
    """
    faces, candidates = faces_in_view(engine, rgb, again=True)
    frame = Frame.from_rgb(rgb)
    found = set()
    for cover in covers:
        for _, region in (*candidates, *closer(engine, frame, cover.face)):
            if cover.holds(region):
                found.add(cover.track)
                break
    elsewhere = [
        face for face in faces if face.sure and not any(cover.holds(face.region) for cover in covers)
    ]
    return found, elsewhere


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

    def add(self, seen: Sequence[Sequence[Sighting]]) -> int:
        """Link what was seen in each of the T frames: to one another, not to what was added before. Returns how many
        faces that makes."""
        before = len(self._tracks)
        tracks, recent = list[_Track](), list[_Track]()
        for frame, faces in enumerate(seen):
            now = self._times[frame]
            recent = [track for track in recent if now - self._times[track.frames[-1]] <= GAP_SECONDS]
            free = list(recent)
            for face in faces:
                track = self._nearest(face, now, free)
                if track is None:
                    track = _Track()
                    tracks.append(track)
                    recent.append(track)
                else:
                    free.remove(track)
                track.add(frame, face)
        for track in tracks:
            if track.is_face(self._times):
                for frame in track.spread(self._times):
                    self._in_frame[frame].append(len(self._tracks))
                self._tracks.append(track)
        return len(self._tracks) - before

    def _nearest(self, face: Sighting, now: float, tracks: Sequence[_Track]) -> _Track | None:
        """The track that a face continues."""
        found, nearest = None, math.inf
        for track in tracks:
            last, since = track.sightings[-1].region, now - self._times[track.frames[-1]]
            larger = max(last.size, face.region.size)
            away = math.hypot(face.region.cx - last.cx, face.region.cy - last.cy)
            reach = (0.35 + since) * larger if face.sure else 0.35 * larger
            if not face.sure and since > GAP_UNSURE_SECONDS:
                continue
            if away < min(nearest, reach) and 0.4 < face.region.size / last.size < 2.5:
                found, nearest = track, away
        return found

    def covers(self, frame: int) -> list[Cover]:
        """The covers of a frame."""
        return [self._tracks[number].cover(frame, number) for number in self._in_frame[frame]]


class _Track:
    """One face over time."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.sightings: list[Sighting] = []

    def add(self, frame: int, face: Sighting) -> None:
        self.frames.append(frame)
        self.sightings.append(face)

    def is_face(self, times: NDArray[np.float64]) -> bool:
        """Whether this is somebody's face."""
        if any(face.sure and face.confirmed and face.score >= CLEAR for face in self.sightings):
            return True
        sure = sum(face.sure for face in self.sightings)
        if sure >= 2 and sure >= PART * len(self.sightings):
            return True
        frames = self.frames[-1] - self.frames[0] + 1
        lasting = times[self.frames[-1]] - times[self.frames[0]]
        if lasting >= ALWAYS_SECONDS and len(self.frames) >= ALWAYS * frames:
            return True
        if lasting < LASTING_SECONDS or len(self.frames) < DENSE * frames:
            return False
        return sure >= 2 or 2 * sum(face.confirmed for face in self.sightings) > frames

    def spread(self, times: NDArray[np.float64]) -> range:
        """The frames in which there is a cover. Between sightings places are interpolated; before the first and after
        the last they stay for a while."""
        self._trim(times)
        seen = times[self.frames]
        hold = min(HOLD_SECONDS, seen[-1] - seen[0] + A_LITTLE)
        first = int(np.searchsorted(times, seen[0] - hold))
        frames = range(first, int(np.searchsorted(times, seen[-1] + hold, side="right")))
        now = times[frames.start : frames.stop]
        after = np.clip(np.searchsorted(seen, now), 0, len(seen) - 1)
        before = np.clip(after - 1, 0, None)
        away = np.minimum(np.abs(now - seen[after]), np.abs(now - seen[before]))
        regions = [face.region for face in self.sightings]
        values = np.array([(r.cx, r.cy, r.size, r.angle) for r in regions])
        values[:, 2] = _steady(seen, values[:, 2])
        places = np.stack([np.interp(now, seen, column) for column in values.T], axis=1)
        sure = np.array([face.sure for face in self.sightings])
        told = sure if sure.any() else ~sure  # doubtful ones say little of how a face is turned
        places[:, 3] = np.interp(now, seen[told], np.unwrap(values[told, 3]))
        step = (now[-1] - now[0]) / max(len(now) - 1, 1)
        if step > 0:
            reach = 2 * math.ceil(3 * SMOOTH_SECONDS / step) + 1
            smooth: Any = cv2.GaussianBlur(
                places, (1, reach), SMOOTH_SECONDS / step, borderType=cv2.BORDER_REPLICATE
            )
            places = smooth
        places[:, 2] *= 1 + GROWTH * away
        self._first, self._places = first, places
        return frames

    def _trim(self, times: NDArray[np.float64]) -> None:
        """Leave out what the detector is not sure of long before or after all that it is sure of."""
        sure = [times[frame] for frame, face in zip(self.frames, self.sightings, strict=True) if face.sure]
        if sure:
            first, last = sure[0] - GAP_UNSURE_SECONDS, sure[-1] + GAP_UNSURE_SECONDS
            kept = [k for k, frame in enumerate(self.frames) if first <= times[frame] <= last]
            self.frames = [self.frames[k] for k in kept]
            self.sightings = [self.sightings[k] for k in kept]

    def cover(self, frame: int, number: int) -> Cover:
        face = Region(*map(float, self._places[frame - self._first]))
        box = face.size / REGION_SCALE
        up = HIGHER * box
        x, y = face.cx + up * math.sin(face.angle), face.cy - up * math.cos(face.angle)
        return Cover(x, y, HALF_WIDTH * box, HALF_HEIGHT * box, face, number)


def _steady(times: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sizes (N,) without those that differ from what is seen shortly before and after: running medians."""
    first = np.searchsorted(times, times - STEADY_SECONDS)
    last = np.searchsorted(times, times + STEADY_SECONDS, side="right")
    return np.array([np.median(sizes[a:b]) for a, b in zip(first, last, strict=True)])
