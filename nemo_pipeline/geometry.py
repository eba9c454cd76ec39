"""The warp's geometry: mean shape, triangles, the crop, and the constant barycentric map. Needs numpy alone.

The output grid never changes, so which triangle of the mean shape a crop pixel lies in, and with which barycentric
weights, is computed once (`Template`); a frame's sampling position for that pixel is then the same weights applied to
the frame's three landmarks (the piecewise-affine map from the mean shape to the frame).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from importlib import resources

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nemo_pipeline.fields import finite, whole


@functools.cache
def _shipped() -> dict[str, NDArray[np.generic]]:
    with (
        resources.as_file(resources.files("nemo_pipeline.data") / "face_geometry.npz") as path,
        np.load(path) as f,
    ):
        return {name: f[name] for name in f.files}


def shipped_mean_shape() -> NDArray[np.float64]:
    """(68, 2) float64: the frontal mean shape, x then y (y down), centred, scaled to unit distance of the outer eye
    corners, exactly symmetric. Derived from the landmark bundle's canonical face mesh."""
    return _shipped()["mean_shape"].astype(np.float64)


def shipped_triangles() -> NDArray[np.int32]:
    """(K, 3) int32: Delaunay triangles of the shipped mean shape, computed once (a symmetric shape has Delaunay ties
    that rounding breaks differently on every machine)."""
    return _shipped()["triangles"].astype(np.int32)


def canonical_mesh() -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]:
    """The bundle's canonical face: vertices (468, 3) in centimetres with x to the picture's right, y down, z away from
    the camera; and the vertex indices (n,) and weights (n,) with which its makers align a face to it."""
    f = _shipped()
    return (
        f["canonical_mesh"].astype(np.float64),
        f["procrustes_indices"].astype(np.int32),
        f["procrustes_weights"].astype(np.float64),
    )


def canonical_triangles() -> NDArray[np.int32]:
    """(898, 3) int32: the triangles of the bundle's canonical face, indices into its 468 vertices."""
    return _shipped()["canonical_triangles"].astype(np.int32)


def checked_shape(shape: ArrayLike) -> NDArray[np.float64]:
    """A mean shape as (68, 2) float64. Raises ValueError if the input is not a mean shape or has no area."""
    points = np.ascontiguousarray(shape, dtype=np.float64)
    if points.shape != (68, 2) or not np.isfinite(points).all():
        odd = "has values that are not finite" if points.shape == (68, 2) else f"is {points.shape}"
        raise ValueError(f"a mean shape must be 68 finite points (68, 2); this {odd}.")
    # A line but for rounding is one too: in single precision its hull has no area, and FaceWarp divides by it.
    extent = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if not extent[1] > 1e-6 * extent[0]:
        raise ValueError("the points of a mean shape lie on one line; a face has an area.")
    return points


@dataclasses.dataclass(frozen=True)
class Template:
    """Where each pixel of the face crop lies in the triangles of the mean shape.

    Pixel centres are at integer coordinates. The crop is an isotropic square around all 68 points (jaw line and
    eyebrows are the outermost).

    Attributes:
        mean_shape: (68, 2) in any unit, x then y, y down.
        triangles: (K, 3) int, vertex indices into the mean shape.
        size: side of the square crop, pixels.
        margin: free space on each side, as a fraction of the crop's side.
    """

    mean_shape: NDArray[np.float64]
    triangles: NDArray[np.int32]
    size: int = 114
    margin: float = 0.02

    def __post_init__(self) -> None:
        """Check shapes, size and margin. Raises ValueError."""
        shape = checked_shape(self.mean_shape)
        triangles = np.ascontiguousarray(self.triangles, dtype=np.int32)
        if not (whole(self.size) and self.size >= 1):
            raise ValueError(f"size is {self.size!r}; it must be a whole number of pixels, at least 1.")
        if not (finite(self.margin) and 0 <= self.margin < 0.5):
            raise ValueError(
                f"margin is {self.margin!r}; it must be at least 0 and below 0.5 of the crop's side."
            )
        if (
            triangles.size == 0
            or triangles.ndim != 2
            or triangles.shape[1] != 3
            or triangles.min() < 0
            or triangles.max() > 67
        ):
            raise ValueError(f"triangles must be (K, 3) indices into 68 points; this is {triangles.shape}.")
        object.__setattr__(self, "mean_shape", shape)
        object.__setattr__(self, "triangles", triangles)

    @functools.cached_property
    def landmarks(self) -> NDArray[np.float64]:
        """(68, 2): where the landmarks lie in every crop, pixels."""
        low, high = self.mean_shape.min(axis=0), self.mean_shape.max(axis=0)
        side = (high - low).max() / (1.0 - 2.0 * self.margin)
        scale = self.size / side
        return (self.mean_shape - (low + high) / 2) * scale + (self.size - 1) / 2

    @functools.cached_property
    def _map(self) -> tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.float32]]:
        inside, vertices, weights = barycentric_map(self.landmarks, self.triangles, self.size)
        return inside, vertices, weights.astype(np.float32)

    @property
    def inside(self) -> NDArray[np.intp]:
        """(P,) flat indices (row * size + column) of the crop pixels inside the hull."""
        return self._map[0]

    @property
    def vertices(self) -> NDArray[np.int32]:
        """(P, 3) the landmarks whose triangle a pixel lies in."""
        return self._map[1]

    @property
    def weights(self) -> NDArray[np.float32]:
        """(P, 3) their barycentric weights; each row sums to 1."""
        return self._map[2]

    def sampling_positions(self, landmarks: ArrayLike, outside: float = math.nan) -> NDArray[np.float32]:
        """Where in the source each pixel of the crop is sampled.

        Args:
            landmarks: (68, 2) of one frame, source pixels.
            outside: what is given for the pixels outside the hull.

        Returns:
            (size, size, 2) float32, x then y, source pixels.
        """
        points = np.full((len(self.mean_shape) + 1, 2), outside, np.float32)
        points[:-1] = landmarks
        # x and y are gathered as one number of 8 bytes, for the whole crop: this runs for every frame, and choosing the
        # pixels inside takes longer than computing the others too.
        pairs = points.view(np.float64).ravel()
        (vertices, weights), *others = self._corners
        positions = pairs.take(vertices).view(np.float32)
        positions *= weights
        for vertices, weights in others:
            part = pairs.take(vertices).view(np.float32)
            part *= weights
            positions += part
        return positions.reshape(self.size, self.size, 2)

    def sampling_inside(self, landmarks: ArrayLike) -> NDArray[np.float32]:
        """(P, 2) float32: as `sampling_positions`, for the pixels `inside` alone."""
        return self.sampling_positions(landmarks).reshape(-1, 2)[self.inside]

    @functools.cached_property
    def _corners(self) -> list[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """The three corners of each pixel's triangle: (size * size,) points, the last one (`outside`) where there is no
        triangle, and their weights, for x and y."""
        n, nowhere = self.size**2, len(self.mean_shape)
        vertices = np.full((3, n), nowhere, np.intp)
        weights = np.zeros((3, n, 2), np.float32)
        weights[0] = 1.0
        vertices[:, self.inside] = self.vertices.T
        weights[:, self.inside] = self.weights.T[..., None]
        return [(v, w.ravel()) for v, w in zip(vertices, weights, strict=True)]


def shipped_template(size: int = 114, margin: float = 0.02) -> Template:
    """The template of the shipped mean shape."""
    return Template(shipped_mean_shape(), shipped_triangles(), size, margin)


def barycentric_map(
    points: NDArray[np.float64], triangles: NDArray[np.int32], size: int
) -> tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.float64]]:
    """Which triangle each pixel centre of a `size` x `size` grid lies in, and with which barycentric weights.

    Args:
        points: (N, 2) pixels of the grid.
        triangles: (K, 3).
        size: side of the grid.

    Returns:
        (P,) flat pixel indices in ascending order, (P, 3) vertices, (P, 3) weights. A pixel on a shared edge belongs
        to the triangle listed first.
    """
    owner = np.full((size, size), -1, dtype=np.int64)
    weights = np.zeros((size, size, 3))
    tolerance = -1e-9
    for k, triangle in enumerate(triangles):
        a, b, c = points[triangle]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if abs(area) < 1e-12:
            continue
        low = np.maximum(np.floor(np.minimum(np.minimum(a, b), c)).astype(int), 0)
        high = np.minimum(np.ceil(np.maximum(np.maximum(a, b), c)).astype(int), size - 1)
        if (high < low).any():
            continue
        y, x = np.mgrid[low[1] : high[1] + 1, low[0] : high[0] + 1]
        w1 = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / area
        w2 = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / area
        w0 = 1.0 - w1 - w2
        here = (w0 >= tolerance) & (w1 >= tolerance) & (w2 >= tolerance)
        here &= owner[y, x] < 0
        owner[y[here], x[here]] = k
        weights[y[here], x[here]] = np.stack([w0[here], w1[here], w2[here]], axis=-1)
    inside = np.flatnonzero(owner.ravel() >= 0)
    return inside, triangles[owner.ravel()[inside]].astype(np.int32), weights.reshape(-1, 3)[inside]


def align_similarity(
    source: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Least-squares similarity from `source` to `target` (Umeyama 1991), in any dimension.

    Args:
        source, target: (N, D).
        weights: (N,) non-negative, optional.

    Returns:
        (scale, rotation (D, D) with determinant +1, translation (D,)): the target is about
        scale * source @ rotation.T + translation.
    """
    x, y = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    w = w / w.sum()
    mx, my = w @ x, w @ y
    xc, yc = x - mx, y - my
    u, s, vt = np.linalg.svd((yc * w[:, None]).T @ xc)
    flip = np.ones(len(s))
    if np.linalg.det(u) * np.linalg.det(vt) < 0:
        flip[-1] = -1.0
    rotation = (u * flip) @ vt
    scale = float((s * flip).sum() / (w @ (xc**2).sum(axis=1)))
    return scale, rotation, my - scale * rotation @ mx


def procrustes_mean(
    shapes: ArrayLike, *, tolerance: float = 1e-7, iterations: int = 100
) -> tuple[NDArray[np.float64], int, float]:
    """Generalised Procrustes mean (Gower 1975): align all to the mean, average, rescale, until the mean rests.

    Args:
        shapes: (N, 68, 2), any units, finite.
        tolerance: stop when no coordinate of the mean moves further than this (unit: outer eye corners' distance).
        iterations: at most this many.

    Returns:
        The mean (68, 2), centred, unit distance of the outer eye corners, eyes level; the iterations used; and the
        root mean square distance of the aligned shapes from it.
    """
    data = np.asarray(shapes, dtype=np.float64)
    if data.ndim != 3 or data.shape[1:] != (68, 2) or len(data) == 0 or not np.isfinite(data).all():
        raise ValueError(f"shapes must be finite (N, 68, 2) with N >= 1; this is {data.shape}.")
    mean = normalised_shape(data[0])
    aligned = data
    used = 0
    for _ in range(iterations):
        used += 1
        aligned = np.empty_like(data)
        for i, shape in enumerate(data):
            scale, rotation, shift = align_similarity(shape, mean)
            aligned[i] = scale * shape @ rotation.T + shift
        new = normalised_shape(aligned.mean(axis=0))
        moved = np.abs(new - mean).max()
        mean = new
        if moved < tolerance:
            break
    residual = float(np.sqrt(((aligned - mean) ** 2).sum(axis=2).mean()))
    return mean, used, residual


def points_off(landmarks: ArrayLike, landmarks_raw: ArrayLike) -> NDArray[np.float64]:
    """How far smoothed points lie off the tracked ones.

    Args:
        landmarks, landmarks_raw: (T, 68, 2) pixels.

    Returns:
        (T,) float64: mean distance over the points, in distances of the outer eye corners; NaN where unknown.
    """
    smooth = np.asarray(landmarks, dtype=np.float64)
    apart = np.asarray(landmarks_raw, dtype=np.float64) - smooth
    with np.errstate(invalid="ignore", divide="ignore"):
        eyes = np.hypot(*(smooth[:, 45] - smooth[:, 36]).T)
        return np.hypot(apart[..., 0], apart[..., 1]).mean(axis=1) / eyes


def normalised_shape(shape: ArrayLike) -> NDArray[np.float64]:
    """`shape` (68, 2) centred on the middle of the outer eye corners, those at unit distance and level."""
    points = np.asarray(shape, dtype=np.float64)
    right, left = points[36], points[45]
    axis = left - right
    length = float(np.hypot(*axis))
    if length <= 0:
        raise ValueError("the outer eye corners of a shape fall together.")
    c, s = axis / length
    return (points - (right + left) / 2) @ np.array([[c, -s], [s, c]]) / length
