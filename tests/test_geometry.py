"""Geometry: the template's constant map, similarity and Procrustes against plain loops, head pose there and back."""

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_pipeline import ibug68
from nemo_pipeline.geometry import (
    Template,
    align_similarity,
    barycentric_map,
    canonical_mesh,
    normalised_shape,
    procrustes_mean,
    shipped_mean_shape,
    shipped_template,
    shipped_triangles,
)
from nemo_pipeline.stages.pose import euler_degrees, head_pose, head_positions, rotation_matrix

TEMPLATE = shipped_template()


def turned(points: np.ndarray, scale: float, degrees: float, shift: tuple[float, float]) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return scale * points @ np.array([[c, -s], [s, c]]).T + shift


def some_shape(seed: int, noise: float = 0.03) -> np.ndarray:
    return shipped_mean_shape() + np.random.default_rng(seed).normal(scale=noise, size=(68, 2))


def test_the_shipped_shape_is_what_it_says() -> None:
    shape = shipped_mean_shape()
    assert shape.shape == (68, 2)
    mirrored = shape[ibug68.MIRROR] * (-1, 1)
    np.testing.assert_allclose(mirrored, shape, atol=1e-12)
    assert np.hypot(*(shape[45] - shape[36])) == pytest.approx(1.0)
    assert shape[36, 0] < 0 < shape[45, 0]  # the subject's right is on the picture's left
    assert shape[8, 1] > shape[33, 1] > shape[27, 1]  # chin below nose below its root: y runs down


def test_the_shipped_triangles_fill_the_hull_once() -> None:
    shape, triangles = shipped_mean_shape(), shipped_triangles()
    a, b, c = (shape[triangles[:, k]] for k in range(3))
    areas = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert areas.min() > 0
    assert areas.sum() == pytest.approx(scipy.spatial.ConvexHull(shape).volume)
    assert set(triangles.ravel()) == set(range(68))
    # Delaunay: no point inside a triangle's circle (points on it are the ties of a symmetric shape).
    for t in triangles:
        p = shape[t]
        equations = 2 * np.array([p[1] - p[0], p[2] - p[0]])
        centre = np.linalg.solve(equations, [p[1] @ p[1] - p[0] @ p[0], p[2] @ p[2] - p[0] @ p[0]])
        radius = np.hypot(*(p[0] - centre))
        assert (np.hypot(*(shape - centre).T) > radius - 1e-9).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(16, 200), st.floats(0, 0.4), st.floats(0.001, 1000))
def test_template_properties(seed: int, size: int, margin: float, unit: float) -> None:
    shape = some_shape(seed) * unit
    template = Template(shape, scipy.spatial.Delaunay(shape).simplices.astype(np.int32), size, margin)
    weights = template.weights
    assert np.abs(weights.sum(axis=1) - 1).max() < 1e-6
    assert weights.min() > -1e-6
    assert (np.diff(template.inside) > 0).all()
    # The crop is isotropic, centred, and leaves the margin.
    span = np.ptp(template.landmarks, axis=0)
    assert span.max() == pytest.approx(size * (1 - 2 * margin))
    middle = (template.landmarks.max(axis=0) + template.landmarks.min(axis=0)) / 2
    np.testing.assert_allclose(middle, (size - 1) / 2)
    np.testing.assert_allclose(span[0] / span[1], np.ptp(shape, axis=0)[0] / np.ptp(shape, axis=0)[1])
    # Landmarks map to themselves: from the template onto itself, every pixel is sampled where it is.
    y, x = np.mgrid[:size, :size]
    where = template.sampling_positions(template.landmarks)
    inside = ~np.isnan(where[..., 0])
    assert inside.sum() == len(template.inside)
    np.testing.assert_allclose(where[inside], np.stack([x, y], -1)[inside], atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 30), st.floats(-180, 180), st.floats(-2000, 2000))
def test_positions_follow_every_affine_map_of_the_landmarks(
    seed: int, scale: float, degrees: float, shift: float
) -> None:
    landmarks = some_shape(seed) * 100
    moved = turned(landmarks, scale, degrees, (shift, -shift / 3))
    where = TEMPLATE.sampling_inside(landmarks).astype(np.float64)
    expected = turned(where, scale, degrees, (shift, -shift / 3))
    np.testing.assert_allclose(
        TEMPLATE.sampling_inside(moved), expected, atol=2e-6 * (np.abs(expected).max() + 100 * scale)
    )


def test_the_map_against_one_pixel_at_a_time() -> None:
    points, triangles = some_shape(3) * 12 + 14, shipped_triangles()
    inside, vertices, weights = barycentric_map(points, triangles, 30)
    found = dict(zip(inside.tolist(), zip(vertices, weights, strict=True), strict=True))
    for row in range(30):
        for column in range(30):
            for triangle in triangles:
                system = np.vstack([points[triangle].T, np.ones(3)])
                w = np.linalg.solve(system, [column, row, 1])
                if w.min() >= -1e-9:
                    got_vertices, got_weights = found.pop(row * 30 + column)
                    np.testing.assert_array_equal(got_vertices, triangle)
                    np.testing.assert_allclose(got_weights, w, atol=1e-9)
                    break
    assert not found


def test_bad_templates_are_refused() -> None:
    with pytest.raises(ValueError, match="68 finite points"):
        Template(np.zeros((67, 2)), shipped_triangles())
    with pytest.raises(ValueError, match="68 finite points"):
        Template(np.full((68, 2), np.nan), shipped_triangles())
    with pytest.raises(ValueError, match=r"\(K, 3\)"):
        Template(shipped_mean_shape(), np.array([[0, 1, 68]]))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(0.01, 100),
    st.floats(-180, 180),
    st.floats(-1e4, 1e4),
    st.floats(-1e4, 1e4),
)
def test_a_known_similarity_is_found_again(
    seed: int, scale: float, degrees: float, x: float, y: float
) -> None:
    source = some_shape(seed)
    target = turned(source, scale, degrees, (x, y))
    got_scale, rotation, shift = align_similarity(source, target)
    assert got_scale == pytest.approx(scale, rel=1e-6)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    np.testing.assert_allclose(got_scale * source @ rotation.T + shift, target, atol=1e-6 * (scale + 1))
    back_scale, back_rotation, _ = align_similarity(target, source)
    assert back_scale * scale == pytest.approx(1.0, rel=1e-6)
    np.testing.assert_allclose(back_rotation, rotation.T, atol=1e-5)


def test_alignment_never_mirrors_and_minds_its_weights() -> None:
    source = some_shape(1)
    _, rotation, _ = align_similarity(source, source * (-1, 1))
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    target = turned(source, 3.0, 40.0, (5, 6))
    spoilt, weights = target.copy(), np.ones(68)
    spoilt[10:20] += 50
    weights[10:20] = 0
    scale, rotation, shift = align_similarity(source, spoilt, weights)
    np.testing.assert_allclose(scale * source @ rotation.T + shift, target, atol=1e-9)


def test_alignment_is_the_least_squares_one() -> None:
    from scipy.optimize import minimize

    rng = np.random.default_rng(4)
    source, target = some_shape(1), turned(some_shape(2, 0.2), 2.0, 25.0, (1, 2))
    scale, rotation, shift = align_similarity(source, target)

    def cost(p: np.ndarray) -> float:
        matrix = np.array([[p[0], -p[1]], [p[1], p[0]]])
        return float(((source @ matrix.T + p[2:] - target) ** 2).sum())

    best = minimize(cost, rng.normal(size=4), method="BFGS")
    ours = [scale * rotation[0, 0], scale * rotation[1, 0], *shift]
    assert cost(np.array(ours)) == pytest.approx(best.fun, rel=1e-6)


def plain_procrustes(shapes: np.ndarray, rounds: int) -> np.ndarray:
    """The textbook: align each shape to the mean by complex regression, average, normalise, again."""
    z = shapes[..., 0] + 1j * shapes[..., 1]

    def normalise(m: np.ndarray) -> np.ndarray:
        return (m - (m[36] + m[45]) / 2) / (m[45] - m[36])

    mean = normalise(z[0])
    for _ in range(rounds):
        total = np.zeros(68, complex)
        for shape in z:
            centred, to = shape - shape.mean(), mean - mean.mean()
            factor = np.vdot(centred, to) / np.vdot(centred, centred)
            total += factor * centred + mean.mean()
        mean = normalise(total / len(z))
    return np.stack([mean.real, mean.imag], -1)


def test_procrustes_mean_against_the_textbook() -> None:
    rng = np.random.default_rng(8)
    shapes = np.stack(
        [
            turned(some_shape(k), rng.uniform(20, 300), rng.uniform(-40, 40), tuple(rng.uniform(0, 900, 2)))
            for k in range(25)
        ]
    )
    mean, iterations, residual = procrustes_mean(shapes)
    np.testing.assert_allclose(mean, plain_procrustes(shapes, 60), atol=1e-6)
    assert 1 < iterations < 60
    assert 0 < residual < 0.1
    np.testing.assert_allclose(mean[[36, 45]], [[-0.5, 0], [0.5, 0]], atol=1e-12)
    # Where each face lay, how large and how turned it was, does not matter; nor does their order.
    other, _, _ = procrustes_mean(np.stack([turned(s, 0.3, 70.0, (9, 9)) for s in shapes[::-1]]))
    np.testing.assert_allclose(other, mean, atol=1e-6)


def test_procrustes_of_copies_is_the_shape_itself() -> None:
    shape = some_shape(5)
    mean, _, residual = procrustes_mean(np.stack([turned(shape, 2.0, d, (d, 0)) for d in (0, 30, -80)]))
    np.testing.assert_allclose(mean, normalised_shape(shape), atol=1e-9)
    assert residual < 1e-9
    with pytest.raises(ValueError, match="finite"):
        procrustes_mean(np.full((2, 68, 2), np.nan))
    with pytest.raises(ValueError, match="fall together"):
        normalised_shape(np.zeros((68, 2)))


@settings(max_examples=80, deadline=None)
@given(st.floats(-89, 89), st.floats(-80, 80), st.floats(-179, 179))
def test_pose_there_and_back(yaw: float, pitch: float, roll: float) -> None:
    rotation = rotation_matrix(yaw, pitch, roll)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(euler_degrees(rotation), (yaw, pitch, roll), atol=1e-6)
    vertices = canonical_mesh()[0]
    mesh = np.concatenate([vertices, np.zeros((10, 3))]) @ rotation.T * 7.0 + (300, 200, 0)
    np.testing.assert_allclose(head_pose(mesh), (yaw, pitch, roll), atol=1e-6)


def test_heads_lie_where_the_best_similarity_of_each_puts_them() -> None:
    """Of any meshes at once, even of one that is turned inside out."""
    rng = np.random.default_rng(4)
    vertices, indices, weights = canonical_mesh()
    meshes = rng.normal(0, 0.4, (5, 478, 3))
    meshes[:, : len(vertices)] += vertices
    meshes[3, :, 0] *= -1
    meshes = meshes * 8.0 + rng.uniform(100, 900, (5, 1, 3))
    for mesh, *found in zip(meshes, *head_positions(meshes), strict=True):
        expected = align_similarity(vertices[indices], mesh[indices], weights)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
        assert np.linalg.det(found[1]) > 0


def test_the_signs_of_the_pose() -> None:
    """A head that turns to its left moves its nose to the picture's right, and so on."""
    vertices = np.concatenate([canonical_mesh()[0], np.zeros((10, 3))])
    nose, chin, brow = 4, 152, 10

    def posed(yaw: float, pitch: float, roll: float) -> np.ndarray:
        return vertices @ rotation_matrix(yaw, pitch, roll).T

    assert posed(20, 0, 0)[nose, 0] > vertices[nose, 0] + 1
    assert posed(0, 20, 0)[nose, 1] < vertices[nose, 1] - 1
    assert posed(0, 0, 20)[brow, 0] > vertices[brow, 0] + 1  # clockwise as seen: the forehead goes right
    assert posed(0, 0, 20)[chin, 0] < vertices[chin, 0] - 1
