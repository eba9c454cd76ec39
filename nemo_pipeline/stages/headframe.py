"""Smoothing that leaves the head's path alone: 4253H, twice, in the head's own frame and within the tracker's error.

4253H counts samples and knows nothing of faces: on raw coordinates it flattens every fast turn of the head, and the
points leave the face. Here a frame's 68 points are split into where the head is (a similarity) and what shape the face
has in the head's own frame, and both are smoothed by one rule: what 4253H takes away is noise as long as it is small;
where it would take away more, something moved, and the points stay as tracked. Before that, a point that leaves and
returns within one frame is put where the frames around it say, however far it went. The measurements that decided for
this are in docs/smoothing.md.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nemo_pipeline.geometry import shipped_mean_shape
from nemo_pipeline.stages import smooth
from nemo_pipeline.stages.smooth import medians_of_5, smooth_4253h_twice

_Array = NDArray[np.float64]

#: The largest correction that is taken for tracking noise, as a fraction of the outer-eye distance. At twice this, and
#: beyond, nothing is corrected at all.
LIMIT = 0.01
#: Motion in one frame means motion in so many frames before and after it.
REACH = 3
#: A point has left and returned within one frame when it is so many times further from the middle of its neighbours
#: than their speed changes from one frame to the next.
ALONE = 2.0
#: Rounds of the robust fit; more change nothing that could be seen (docs/smoothing.md).
_ROUNDS = 5
#: How far an input frame can reach: 2 through the usual shape, 2 through the rule for single frames, then the smoother,
#: then REACH.
SUPPORT = 2 + 2 + smooth.SUPPORT + REACH
#: Half the distance of the two points that represent the head's position, outer-eye distances.
_ARM = 0.6
_TINY = np.finfo(np.float64).tiny


def smooth_in_head_frame(landmarks: ArrayLike) -> _Array:
    """Smooth a face's points over time without moving them off the face.

    No point ends further than about 2 % of the outer-eye distance from where it was tracked (`LIMIT` for the shape and
    as much for the head), but for points that left and returned within one frame. It commutes with shifting and
    scaling the picture and with reversal of time, and has no lag.

    Args:
        landmarks: (T, 68, 2) finite, pixels, one segment without a gap; any T.

    Returns:
        (T, 68, 2) float64. Fewer than 3 frames come back unchanged (as a copy).

    Examples:
        >>> import numpy as np
        >>> from nemo_pipeline import smooth_in_head_frame
        >>> from nemo_pipeline.geometry import shipped_mean_shape
        >>> still = np.repeat(100 * shipped_mean_shape()[None], 20, axis=0)
        >>> bool(np.allclose(smooth_in_head_frame(still), still))
        True

    Raises:
        ValueError: another shape, complex, or a value that is NaN or infinite.
    """
    points = _points(landmarks)
    if len(points) < 3:
        return points
    head = _fit(points)
    shape = _steady(head.to_own(points), np.ones(len(points)))
    return _Head.from_ends(_steady(head.ends(), head.size())).to_picture(shape)


def jumps(landmarks: ArrayLike) -> _Array:
    """How far the tracker's points jump in each frame, in outer-eye distances.

    The larger of two things that no head does: the face's shape, freed from the head's movement, differs from the
    middle of the shapes before and after it (mean over the points); or the whole head leaves and returns within one
    frame. A jump shows in its neighbours too, at half its size.

    Args:
        landmarks: as of `smooth_in_head_frame`, as tracked.

    Returns:
        (T,) float64; 0 in the first and the last frame.
    """
    points = _points(landmarks)
    far = np.zeros(len(points))
    if len(points) < 3:
        return far
    head = _fit(points)
    own, ends, size = head.to_own(points), head.ends(), head.size()
    away = _length(ends[1:-1] - (ends[:-2] + ends[2:]) / 2) / size[1:-1, None]
    whole = np.where(_alone(ends, size)[1:-1], away, 0.0).max(axis=1)
    far[1:-1] = np.maximum(_length(own[1:-1] - (own[:-2] + own[2:]) / 2).mean(axis=1), whole)
    return far


def _copy(landmarks: ArrayLike) -> _Array:
    return np.array(landmarks, dtype=np.float64)


#: What `PrepConfig.smooth` names: the function of (T, 68, 2), and how far an input frame can reach in it.
METHODS: dict[str, tuple[Callable[[ArrayLike], _Array], int]] = {
    "head": (smooth_in_head_frame, SUPPORT),
    "4253h": (smooth_4253h_twice, smooth.SUPPORT),
    "none": (_copy, 0),
}


def _points(landmarks: ArrayLike) -> _Array:
    if np.iscomplexobj(landmarks):
        raise ValueError("points are pairs of real numbers, x then y, not complex ones.")
    points = np.array(landmarks, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] != (68, 2):
        raise ValueError(f"landmarks must be (T, 68, 2); this is {points.shape}.")
    if not np.isfinite(points).all():
        where = np.flatnonzero(~np.isfinite(points).all(axis=(1, 2)))
        raise ValueError(
            f"landmarks that are NaN or infinite cannot be smoothed (first in frame {where[0]}, {where.size} in all): "
            "interpolate or split before."
        )
    return points


class _Head:
    """Where the head is in each of T frames: a similarity from its own frame (the mean shape's: centred, unit distance
    of the outer eye corners) to the picture.

    Real arithmetic on one coordinate at a time, and sums along rows that are contiguous: a frame's numbers are then
    the same to the bit, whatever frames are computed with it.
    """

    def __init__(self, cos: _Array, sin: _Array, x: _Array, y: _Array) -> None:
        self.cos, self.sin, self.x, self.y = (
            v[:, None] for v in (cos, sin, x, y)
        )  # cos and sin times the scale

    @classmethod
    def fitted(cls, own: _Array, picture: _Array, weights: _Array) -> _Head:
        """Least squares with weights (T, 68), from `own` to `picture`, (T or 1, 68, 2) and (T, 68, 2)."""

        def mean(v: _Array) -> _Array:
            return (weights * v).sum(axis=-1, keepdims=True) / total

        total = weights.sum(axis=-1, keepdims=True)
        (u, v), (x, y) = _planes(own), _planes(picture)
        mu, mv, mx, my = mean(u), mean(v), mean(x), mean(y)
        u, v, x, y = u - mu, v - mv, x - mx, y - my
        square = np.maximum(mean(u * u + v * v), _TINY)
        cos, sin = mean(u * x + v * y) / square, mean(u * y - v * x) / square
        return cls(cos[:, 0], sin[:, 0], (mx - cos * mu + sin * mv)[:, 0], (my - sin * mu - cos * mv)[:, 0])

    @classmethod
    def from_ends(cls, ends: _Array) -> _Head:
        """The inverse of `ends`."""
        (x0, x1), (y0, y1) = ends[..., 0].T, ends[..., 1].T
        arm = 2 * _ARM
        return cls((x0 - x1) / arm, (y0 - y1) / arm, (x0 + x1) / 2, (y0 + y1) / 2)

    def ends(self) -> _Array:
        """(T, 2, 2) pixels: two points to the left and the right of the head's middle. They say all that the
        similarity says, and can be smoothed as points are."""
        x, y = _ARM * self.cos, _ARM * self.sin
        rows = [np.stack([self.x + s * x, self.y + s * y], axis=-1) for s in (1, -1)]
        return np.concatenate(rows, axis=1)

    def size(self) -> _Array:
        """(T,) pixels of one outer-eye distance."""
        return np.sqrt(self.cos * self.cos + self.sin * self.sin)[:, 0]

    def to_own(self, picture: _Array) -> _Array:
        """(T, 68, 2) from the picture to the head's own frame."""
        x, y = picture[..., 0] - self.x, picture[..., 1] - self.y
        square = np.maximum(self.cos * self.cos + self.sin * self.sin, _TINY)
        return np.stack(
            [(x * self.cos + y * self.sin) / square, (y * self.cos - x * self.sin) / square], axis=-1
        )

    def to_picture(self, own: _Array) -> _Array:
        """The inverse of `to_own`."""
        u, v = own[..., 0], own[..., 1]
        return np.stack([u * self.cos - v * self.sin + self.x, u * self.sin + v * self.cos + self.y], axis=-1)


@functools.cache
def _mean_shape() -> _Array:
    shape = shipped_mean_shape()
    return (shape - shape.mean(axis=0))[None]


def _fit(points: _Array) -> _Head:
    """Where the head is, whatever a minority of the points does.

    First by least squares from the mean shape; then from the face's usual shape (medians of 5 frames of what the first
    gives), each point weighted down by the square of what it is off beyond `LIMIT`: a mouth that jumps or opens does
    not move the head.
    """
    head = _Head.fitted(_mean_shape(), points, np.ones(points.shape[:2]))
    usual = medians_of_5(head.to_own(points))
    for _ in range(_ROUNDS):
        off = np.maximum(_length(head.to_own(points) - usual), LIMIT)
        head = _Head.fitted(usual, points, (LIMIT / off) ** 2)
    return head


def _steady(points: _Array, unit: _Array) -> _Array:
    """4253H, twice, where it takes away noise alone; `points` (T, K, 2), `unit` (T,) the size of one outer-eye
    distance among them."""
    points = points.copy()
    points[2:-2] = np.where(_alone(points, unit)[2:-2, :, None], _between(points), points[2:-2])
    correction = smooth_4253h_twice(points) - points
    size = _length(correction) / np.maximum(unit, _TINY)[:, None]
    most = size.copy()
    for k in range(1, min(REACH, len(points) - 1) + 1):
        most[k:] = np.maximum(most[k:], size[:-k])
        most[:-k] = np.maximum(most[:-k], size[k:])
    return points + np.clip(2.0 - most / LIMIT, 0.0, 1.0)[..., None] * correction


def _between(points: _Array) -> _Array:
    """(T - 4, K, 2): where the two frames before and the two after say that a point is (a cubic through them)."""
    return (4 * (points[1:-3] + points[3:-1]) - points[:-4] - points[4:]) / 6


def _alone(points: _Array, unit: _Array) -> NDArray[np.bool_]:
    """(T, K): the point has left and returned within this one frame (never in the two frames at either end)."""
    alone = np.zeros(points.shape[:2], dtype=bool)
    if len(points) >= 5:
        a, b, c, d, e = points[:-4], points[1:-3], points[2:-2], points[3:-1], points[4:]
        before, across, after = b - a, (d - b) / 2, e - d
        away = _length(c - (b + d) / 2)
        change = np.maximum(_length(across - before), _length(after - across))
        alone[2:-2] = (away > LIMIT * unit[2:-2, None]) & (away > ALONE * change)
    return alone


def _length(vectors: _Array) -> _Array:
    x, y = vectors[..., 0], vectors[..., 1]
    return np.sqrt(x * x + y * y)


def _planes(points: _Array) -> tuple[_Array, _Array]:
    return np.ascontiguousarray(points[..., 0]), np.ascontiguousarray(points[..., 1])
