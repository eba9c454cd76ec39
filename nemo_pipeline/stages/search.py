"""Search: where in a frame are faces, when none is being followed.

The bundle's detector sees faces between about a sixth and the whole of its view, upright within some 45 degrees. So the
frame is shown to it from far to near (zoomed out, whole, in ever smaller overlapping tiles) and in the four upright
orientations, and what it finds is believed only if the landmark network agrees.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.stages.landmarks import REGION_SCALE, Engine, FaceMesh, find_mesh

#: Side of the detector's view, pixels.
DETECTOR_VIEW = 128
#: Tiles get no smaller than this: faces then have about 15 pixels between the outer eye corners.
SMALLEST_TILE = 120
#: A face must show the detector this score, seen upright in its own region, and the landmark network this presence:
#: (score, presence), either pair. Measured on real clips: cartoons and other false faces stay below, real ones lie at
#: 0.87 to 0.92 with presence 1.000; turned, half-hidden or cut by the picture's edge: 0.73 and more.
CONFIRM = ((0.78, 0.8), (0.7, 0.9995))
#: A face whose eye line is further from level than this is turned: it lies sideways or upside down.
TURNED_DEGREES = 60.0
#: A face is upright unless turned is clearly better: one with a mask, a scarf or a hand over the mouth looks like an
#: upside-down one to the detector. A turned face must show these pairs in the mean over a view with little and one with
#: much around it (sides in regions: `_SURROUNDINGS`), and its score must exceed that of the same face upright by
#: `MARGIN_TURNED`, in which a doubt (1 - presence) ten times smaller counts as `PER_DECADE`. Who is not seen upright
#: at all counts as `UNSEEN` (score and presence): covered faces often are not. Measured by benchmarks/covered.py.
CONFIRM_TURNED = ((0.76, 0.999), (0.86, 0.0))
MARGIN_TURNED, PER_DECADE = 0.2, 0.023
UNSEEN = (0.66, 0.9)
_SURROUNDINGS = (1.35, 2.2)
#: An upright face with this score is not looked at turned, nor is one that could not be taken for turned: nothing has a
#: higher certainty than `HIGHEST`, and certainty exceeds the score at first sight by less than `RISE` (most seen: 0.96
#: and 0.18, in 403 faces).
BEYOND_DOUBT = 0.9
HIGHEST, RISE = 0.98, 0.2
_TURNS = (0.0, math.pi, math.pi / 2, -math.pi / 2)


def quick_search(engine: Engine, frame: Frame, turns: tuple[float, ...] = (0.0,)) -> list[FaceMesh]:
    """Faces in the frame as a whole (one view per turn), best first."""
    return verified(engine, frame, in_whole(engine, frame, turns))


def in_whole(engine: Engine, frame: Frame, turns: tuple[float, ...] = (0.0,)) -> list[tuple[float, Region]]:
    """(score, region for the landmark network) of what the detector finds in the frame as a whole, best first."""
    return _detect(engine, frame, [_whole(frame)], turns)


def full_search(
    engine: Engine, frame: Frame, *, everyone: bool = False, known: Sequence[Region] = ()
) -> list[FaceMesh]:
    """Faces at every scale and orientation, from coarse to fine, that are not in a `known` region.

    Args:
        engine: the landmark engine.
        frame: where to look.
        everyone: look on at finer scales after the first faces were found (else the coarsest scale that shows any
            face decides: finer ones hold only smaller faces).
    """
    found: list[FaceMesh] = []
    for views in _levels(frame):
        new = verified(engine, frame, _detect(engine, frame, views, _TURNS), known)
        found = _distinct([*found, *new])
        if found and not everyone:
            break
    return found


def candidates(engine: Engine, frame: Frame) -> list[tuple[float, float]]:
    """(score, side of the face's box in pixels) of everything in a frame that the detector takes for a face, at every
    scale and orientation, whether it is believed or not."""
    return [
        (score, region.size / REGION_SCALE)
        for views in _levels(frame)
        for score, region in _detect(engine, frame, views, _TURNS)
    ]


def near_search(engine: Engine, frame: Frame, last: Region) -> list[FaceMesh]:
    """Faces around the place where one was just lost."""
    around = Region(last.cx, last.cy, last.size * 2.0, last.angle)
    return verified(engine, frame, _detect(engine, frame, [around], (0.0,)))


def _whole(frame: Frame) -> Region:
    return Region((frame.width - 1) / 2, (frame.height - 1) / 2, float(max(frame.width, frame.height)))


def _levels(frame: Frame) -> Iterator[list[Region]]:
    """Sets of square views, coarse to fine."""
    whole = _whole(frame)
    yield [whole, Region(whole.cx, whole.cy, whole.size * 1.7)]
    side = float(min(frame.width, frame.height))
    if side == whole.size:
        side /= 2
    while side >= SMALLEST_TILE:
        yield [Region(x, y, side) for y in _centres(frame.height, side) for x in _centres(frame.width, side)]
        side /= 1.8


def _centres(length: int, side: float) -> np.ndarray:
    """Centres of tiles that cover `length` pixels, each overlapping the next by at least 40 %."""
    if length <= side:
        return np.array([(length - 1) / 2])
    n = math.ceil((length - side) / (0.6 * side)) + 1
    return np.linspace(side / 2, length - side / 2, n) - 0.5


def _detect(
    engine: Engine, frame: Frame, views: list[Region], turns: tuple[float, ...]
) -> list[tuple[float, Region]]:
    """(score, region for the landmark network) of everything that the detector finds, best first."""
    found = []
    for view in views:
        for turn in turns:
            turned = Region(view.cx, view.cy, view.size, turn + view.angle)
            to_source = turned.to_source(DETECTOR_VIEW)
            for face in engine.detect(frame.view(turned, DETECTOR_VIEW)):
                x, y = to_source[:, :2] @ (face.x, face.y) + to_source[:, 2]
                size = face.size * turned.size / DETECTOR_VIEW * REGION_SCALE
                found.append((face.score, Region(float(x), float(y), size, face.angle + turned.angle)))
    return sorted(found, key=lambda item: -item[0])


def verified(
    engine: Engine, frame: Frame, candidates: list[tuple[float, Region]], known: Sequence[Region] = ()
) -> list[FaceMesh]:
    """What the landmark network confirms, each face once and the right way up, best first."""
    faces: list[FaceMesh] = []
    taken: list[Region] = list(known)
    for _, region in candidates:
        if any(overlap(region, other) for other in taken):
            continue
        mesh = refine(engine, frame, region)
        face = None if mesh is None or implausible(mesh, region) else judged(engine, frame, mesh)
        if face is not None:
            faces.append(face)
            taken.append(face.region)
    return _distinct(faces)


def refine(engine: Engine, frame: Frame, region: Region, rounds: int = 2) -> FaceMesh | None:
    """The face in `region`, looked at again in the region of its own points until the region fits."""
    mesh = find_mesh(engine, frame, region)
    for _ in range(rounds):
        if mesh is None:
            return None
        mesh = find_mesh(engine, frame, mesh.region)
    return mesh


def judged(engine: Engine, frame: Frame, mesh: FaceMesh) -> FaceMesh | None:
    """The face that a found mesh is: `mesh` itself, or the same face the other way up where it must be taken for that;
    None where the detector, shown it upright and with some surroundings, does not agree."""
    if least_score(mesh) == math.inf:
        return None
    face = _Shown(engine, frame, mesh)
    if not is_turned(face.region) and face.score() >= BEYOND_DOUBT:
        return mesh
    turned: _Shown | None = face
    upright: _Shown | None = face
    if is_turned(face.region):
        upright = _other_way_up(face)
    else:
        turned = _other_way_up(face, _least_turned(face))
    for one in (turned, upright):
        if one is None or one.score() < least_score(one.mesh):
            continue
        if one is upright or _clearly_turned(one, upright):
            return one.mesh
    return None


def beyond_doubt(mesh: FaceMesh, candidates: Sequence[tuple[float, Region]]) -> bool:
    """Whether a found face is clearly one of some `candidates`, upright ones: to look at it alone says no more. (An
    engine that has no presence has no scores either.)"""
    return not math.isnan(mesh.face_presence) and any(
        score >= BEYOND_DOUBT and not implausible(mesh, place) for score, place in candidates
    )


def detector_score(engine: Engine, frame: Frame, mesh: FaceMesh) -> float:
    """The detector's score of a found face, shown to it upright with little around it; 0 where it sees none there."""
    return _Shown(engine, frame, mesh).score()


class _Shown:
    """A found face, shown to the detector upright; each look is taken once."""

    def __init__(self, engine: Engine, frame: Frame, mesh: FaceMesh) -> None:
        self.engine, self.frame, self.mesh = engine, frame, mesh
        self.region = mesh.region
        self._scores: dict[float, float] = {}

    def score(self, surroundings: float = _SURROUNDINGS[0]) -> float:
        """The detector's score of the face with so much around it; 0 where it sees none there."""
        if surroundings not in self._scores:
            around = dataclasses.replace(self.region, size=self.region.size * surroundings)
            middle = (DETECTOR_VIEW - 1) / 2
            self._scores[surroundings] = max(
                (
                    face.score
                    for face in self.engine.confirm(self.frame.view(around, DETECTOR_VIEW))
                    if math.hypot(face.x - middle, face.y - middle) < 0.3 * face.size
                ),
                default=0.0,
            )
        return self._scores[surroundings]

    def certainty(self) -> float:
        """The mean of the scores with little and with much around the face."""
        return sum(self.score(s) for s in _SURROUNDINGS) / len(_SURROUNDINGS)


def least_score(mesh: FaceMesh, pairs: tuple[tuple[float, float], ...] = CONFIRM) -> float:
    """The score that the detector must give a mesh of this presence."""
    return min((score for score, presence in pairs if not mesh.face_presence < presence), default=math.inf)


def _other_way_up(face: _Shown, certainty: float = 0.0) -> _Shown | None:
    """What is seen of a face turned, if it is upright, or upright, if it is turned. (Its middle may then lie in the
    forehead.) None where it cannot come to such a certainty."""
    if certainty > HIGHEST:
        return None
    engine, frame, region = face.engine, face.frame, face.region
    around = Region(region.cx, region.cy, region.size * 2.0)
    for score, place in _detect(engine, frame, [around], _TURNS if is_turned(region) else _TURNS[1:]):
        if score < certainty - RISE:
            break
        near = math.hypot(place.cx - region.cx, place.cy - region.cy) < 0.5 * max(place.size, region.size)
        if near and is_turned(place) != is_turned(region):
            mesh = refine(engine, frame, place)
            if mesh is not None and not implausible(mesh, place):
                return _Shown(engine, frame, mesh)
    return None


def _least_turned(upright: _Shown) -> float:
    """The certainty that an upright face must at least have when turned, to be taken for that: with presence 1."""
    least = min(score for score, _ in CONFIRM_TURNED)
    return max(least, MARGIN_TURNED - _margin(0.0, 1.0, upright))


def _clearly_turned(turned: _Shown, upright: _Shown | None) -> bool:
    """Whether a face must be taken for turned, given what is seen of it upright."""
    score = turned.certainty()
    if score < least_score(turned.mesh, CONFIRM_TURNED):
        return False
    return _margin(score, turned.mesh.face_presence, upright) >= MARGIN_TURNED


def _margin(score: float, presence: float, upright: _Shown | None) -> float:
    """By how much a turned face of this certainty and presence exceeds what is seen of it upright."""
    other, other_presence = UNSEEN
    if upright is not None:
        other = max(other, upright.certainty())
        other_presence = max(other_presence, upright.mesh.face_presence)
    margin = score - other
    if not math.isnan(presence):
        margin += PER_DECADE * math.log10((1.0 - other_presence + 1e-12) / (1.0 - presence + 1e-12))
    return margin


def is_turned(region: Region) -> bool:
    """Whether a face lies sideways or upside down."""
    return abs(region.angle) > math.radians(TURNED_DEGREES)


def implausible(mesh: FaceMesh, region: Region) -> bool:
    """The landmarks wandered off from what the detector saw, or turned it upside down."""
    own = mesh.region
    turned = abs((own.angle - region.angle + math.pi) % (2 * math.pi) - math.pi)
    return (
        turned > math.radians(60)
        or not 0.4 < own.size / region.size < 2.5
        or math.hypot(own.cx - region.cx, own.cy - region.cy) > 0.5 * region.size
    )


def overlap(a: Region, b: Region) -> bool:
    """Whether two regions show the same face: the centre of one lies well inside the other."""
    return math.hypot(a.cx - b.cx, a.cy - b.cy) < 0.35 * max(a.size, b.size) / REGION_SCALE * 1.2


def _distinct(faces: list[FaceMesh]) -> list[FaceMesh]:
    kept: list[FaceMesh] = []
    regions: list[Region] = []
    for face in faces:
        region = face.region
        if not any(overlap(region, other) for other in regions):
            kept.append(face)
            regions.append(region)
    return kept
