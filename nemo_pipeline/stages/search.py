"""Search: where in a frame are faces, when none is being followed.

The bundle's detector sees faces between about a sixth and the whole of its view, upright within some 45 degrees. So the
frame is shown to it from far to near (zoomed out, whole, in ever smaller overlapping tiles) and in the four upright
orientations, and what it finds is believed only if the landmark network agrees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.stages.landmarks import REGION_SCALE, Engine, FaceMesh, find_mesh, region_of

#: Side of the detector's view, pixels.
DETECTOR_VIEW = 128
#: Tiles get no smaller than this: faces then have about 15 pixels between the outer eye corners.
SMALLEST_TILE = 120
#: A face must show the detector this score, seen upright in its own region, and the landmark network this presence:
#: (score, presence), either pair. Measured on real clips: cartoons and other false faces stay below, real ones lie at
#: 0.87 to 0.92 with presence 1.000; turned, half-hidden or cut by the picture's edge: 0.73 and more.
CONFIRM = ((0.78, 0.8), (0.7, 0.9995))
#: A face that lies sideways or upside down is rarer than an object that looks like one: it must show this score.
CONFIRM_TURNED = 0.84
_TURNS = (0.0, math.pi, math.pi / 2, -math.pi / 2)


def quick_search(
    engine: Engine, frame: Frame, turns: tuple[float, ...] = (0.0,), known: Sequence[Region] = ()
) -> list[FaceMesh]:
    """Faces in the frame as a whole (one view per turn) that are not in a `known` region, best first."""
    return _verified(engine, frame, _detect(engine, frame, [_whole(frame)], turns), known)


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
        new = _verified(engine, frame, _detect(engine, frame, views, _TURNS), known)
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
    return _verified(engine, frame, _detect(engine, frame, [around], (0.0,)))


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


def _verified(
    engine: Engine, frame: Frame, candidates: list[tuple[float, Region]], known: Sequence[Region] = ()
) -> list[FaceMesh]:
    """What the landmark network confirms, each face once, best first.

    A face that lies upside down is also found, badly, by the upright view: among candidates at one place the
    detector's best wins, since it was trained on upright faces only.
    """
    faces: list[FaceMesh] = []
    taken: list[Region] = list(known)
    for _, region in candidates:
        if any(_overlap(region, other) for other in taken):
            continue
        mesh = refine(engine, frame, region)
        if mesh is not None and not _implausible(mesh, region) and confirmed(engine, frame, mesh):
            faces.append(mesh)
            taken.append(region_of(mesh.points))
    return _distinct(faces)


def refine(engine: Engine, frame: Frame, region: Region, rounds: int = 2) -> FaceMesh | None:
    """The face in `region`, looked at again in the region of its own points until the region fits."""
    mesh = find_mesh(engine, frame, region)
    for _ in range(rounds):
        if mesh is None:
            return None
        mesh = find_mesh(engine, frame, region_of(mesh.points))
    return mesh


def confirmed(engine: Engine, frame: Frame, mesh: FaceMesh) -> bool:
    """Whether a found face is a face: the detector, shown it upright and with some surroundings, agrees."""
    least = min((score for score, presence in CONFIRM if not mesh.score < presence), default=math.inf)
    if least == math.inf:
        return False
    region = region_of(mesh.points)
    if abs(region.angle) > math.radians(60) and not math.isnan(mesh.score):
        least = max(least, CONFIRM_TURNED)
    around = Region(region.cx, region.cy, region.size * 1.35, region.angle)
    middle = (DETECTOR_VIEW - 1) / 2
    return any(
        face.score >= least and math.hypot(face.x - middle, face.y - middle) < 0.3 * face.size
        for face in engine.confirm(frame.view(around, DETECTOR_VIEW))
    )


def _implausible(mesh: FaceMesh, region: Region) -> bool:
    """The landmarks wandered off from what the detector saw, or turned it upside down."""
    own = region_of(mesh.points)
    turned = abs((own.angle - region.angle + math.pi) % (2 * math.pi) - math.pi)
    return (
        turned > math.radians(60)
        or not 0.4 < own.size / region.size < 2.5
        or math.hypot(own.cx - region.cx, own.cy - region.cy) > 0.5 * region.size
    )


def _overlap(a: Region, b: Region) -> bool:
    """Whether two regions show the same face: the centre of one lies well inside the other."""
    return math.hypot(a.cx - b.cx, a.cy - b.cy) < 0.35 * max(a.size, b.size) / REGION_SCALE * 1.2


def _distinct(faces: list[FaceMesh]) -> list[FaceMesh]:
    kept: list[FaceMesh] = []
    regions: list[Region] = []
    for face in faces:
        region = region_of(face.points)
        if not any(_overlap(region, other) for other in regions):
            kept.append(face)
            regions.append(region)
    return kept
