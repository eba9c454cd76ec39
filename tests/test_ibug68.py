"""The 68 points as a construction: symmetry, invariance, the outline of turned heads, and what ships with it."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_pipeline import bundle
from nemo_pipeline.data.make_geometry import derive
from nemo_pipeline.geometry import canonical_mesh, shipped_mean_shape, shipped_triangles
from nemo_pipeline.ibug68 import GROUPS, MIRROR, from_mesh, from_meshes, jaw_outline
from nemo_pipeline.stages.pose import rotation_matrix

CHIN, RIGHT_EAR, LEFT_EAR = 152, 127, 356


@pytest.fixture(scope="module")
def canonical():
    """(468, 3) the bundle's face, in units of which its outer-eye distance is about 9."""
    return canonical_mesh()[0]


@pytest.fixture(scope="module")
def vertex_mirror(canonical):
    """(468,) the vertex that each becomes when the face is flipped left to right."""
    flipped = canonical * (-1, 1, 1)
    return np.array([int(np.argmin(((canonical - p) ** 2).sum(axis=1))) for p in flipped])


def turned(mesh, yaw, pitch=0.0, roll=0.0):
    """The mesh seen after a turn of the head, then of the camera by `roll`; 100 px to the centimetre, y down."""
    rotation = rotation_matrix(0.0, 0.0, roll) @ rotation_matrix(yaw, pitch, 0.0)
    return 100.0 * mesh @ rotation.T + (640.0, 360.0, 0.0)


def uneven(mesh):
    """A face without symmetry: every vertex moved a little, the mouth to one side."""
    rng = np.random.default_rng(3)
    return mesh + rng.normal(0, 0.05, mesh.shape) + 0.3 * (mesh[:, 1:2] > 3) * (1.0, 0.0, 0.0)


def distance_to_curve(points, curve):
    start, step = curve[:-1], np.diff(curve, axis=0)
    share = ((points[:, None] - start) * step).sum(axis=2) / np.maximum((step**2).sum(axis=1), 1e-12)
    nearest = start + np.clip(share, 0, 1)[..., None] * step
    return np.hypot(*(nearest - points[:, None]).transpose(2, 0, 1)).min(axis=1)


def test_the_groups_part_the_68_points():
    members = [point for group in GROUPS.values() for point in group]
    assert members == list(range(68))
    sizes = {name: len(group) for name, group in GROUPS.items()}
    assert sizes["jaw"] == 17
    assert sizes["nose"] == 9
    assert sizes["outer_mouth"] + sizes["inner_mouth"] == 20
    assert sizes["right_brow"] + sizes["left_brow"] + sizes["right_eye"] + sizes["left_eye"] == 22


def test_mirror_swaps_the_sides_and_nothing_else():
    assert (MIRROR[MIRROR] == np.arange(68)).all()
    swapped = {"right_brow": "left_brow", "left_brow": "right_brow", "right_eye": "left_eye"}
    swapped["left_eye"] = "right_eye"
    for name, group in GROUPS.items():
        assert sorted(MIRROR[list(group)]) == list(GROUPS[swapped.get(name, name)])


def test_the_canonical_face_gives_symmetric_points(canonical):
    points = from_mesh(canonical)
    assert points.shape == (68, 2)
    assert points.dtype == np.float64
    np.testing.assert_allclose(points[MIRROR] * (-1, 1), points, atol=1e-5)


def test_the_points_lie_where_their_names_say(canonical):
    p = from_mesh(turned(canonical, 0))
    right, left = slice(36, 42), slice(42, 48)
    assert p[right, 0].max() < p[27, 0] < p[left, 0].min()  # the subject's right is on the picture's left
    assert p[0, 0] < p[36, 0] < p[39, 0] < p[42, 0] < p[45, 0] < p[16, 0]
    assert p[17:27, 1].max() < p[36:48, 1].min()  # brows above eyes
    assert (np.diff(p[27:31, 1]) > 0).all()  # down the nose
    assert p[33, 1] > p[30, 1]
    assert p[51, 1] < p[62, 1] <= p[66, 1] < p[57, 1] < p[8, 1]  # lips, then chin
    assert p[8, 1] == p[:, 1].max()
    assert (np.diff(p[:17, 0]) > 0).all()


def test_a_mirrored_face_gives_mirrored_points(canonical, vertex_mirror):
    mesh = turned(uneven(canonical), 25, -10, 12)
    mirrored = mesh[vertex_mirror] * (-1, 1, 1) + (1280, 0, 0)
    np.testing.assert_allclose(from_mesh(mirrored)[MIRROR] * (-1, 1) + (1280, 0), from_mesh(mesh), atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    angle=st.floats(-180, 180),
    scale=st.floats(0.02, 20),
    shift=st.tuples(st.floats(-5000, 5000), st.floats(-5000, 5000)),
    yaw=st.floats(-45, 45),
)
def test_turning_scaling_and_moving_the_picture_moves_the_points_with_it(angle, scale, shift, yaw):
    mesh = turned(uneven(canonical_mesh()[0]), yaw)
    points = from_mesh(mesh)
    c, s = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    linear = np.array([[c, -s], [s, c]])
    moved = mesh[:, :2] @ linear.T + shift
    np.testing.assert_allclose(from_mesh(moved), points @ linear.T + shift, atol=scale * 0.5)


def test_meshes_at_once_are_as_each_alone(canonical):
    meshes = np.stack(
        [*(turned(uneven(canonical), yaw) * (1 + yaw / 100) for yaw in range(-60, 61, 15)), 0 * canonical]
    )
    together = from_meshes(meshes)
    np.testing.assert_allclose(together, [from_mesh(mesh) for mesh in meshes], atol=1e-9, rtol=1e-12)


@pytest.mark.parametrize("yaw", [-60, -40, -20, 0, 20, 40, 60])
@pytest.mark.parametrize("roll", [0, 75, 180])
def test_the_jaw_line_stays_on_the_visible_outline(canonical, yaw, roll):
    mesh = turned(canonical, yaw, 5, roll)[:, :2]
    jaw = from_mesh(mesh)[:17]
    hull = cv2.convexHull(mesh.astype(np.float32))[:, 0].astype(np.float64)
    ring = np.vstack([hull, hull[:1]])
    assert distance_to_curve(jaw, ring).max() < 0.01  # of about 900 px between the eyes
    # From the right ear to the left one, on the chin's side of the line through both.
    across, chin = mesh[LEFT_EAR] - mesh[RIGHT_EAR], mesh[CHIN]

    def height(p):
        return across[0] * (p[..., 1] - mesh[RIGHT_EAR, 1]) - across[1] * (p[..., 0] - mesh[RIGHT_EAR, 0])

    assert (height(jaw) * np.sign(height(chin)) > -1e-3 * np.abs(across).sum()).all()
    assert (jaw[16] - jaw[0]) @ across > 0
    assert np.hypot(*(jaw[8] - chin)) < 0.05 * np.hypot(*across) + 40


@pytest.mark.parametrize("yaw", [-40, 0, 40])
def test_each_half_of_the_jaw_line_is_cut_into_equal_arcs(canonical, yaw):
    mesh = turned(canonical, yaw)
    outline, jaw = jaw_outline(mesh), from_mesh(mesh)[:17]
    arcs = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(outline, axis=0).T))])
    where = []
    for point in jaw:
        gaps = [distance_to_curve(point[None], outline[k : k + 2])[0] for k in range(len(outline) - 1)]
        k = int(np.argmin(gaps))
        where.append(arcs[k] + np.hypot(*(point - outline[k])))
    steps = np.diff(where)
    np.testing.assert_allclose(steps[:8], steps[:8].mean(), rtol=1e-6)
    np.testing.assert_allclose(steps[8:], steps[8:].mean(), rtol=1e-6)
    np.testing.assert_allclose([where[0], where[-1]], [0, arcs[-1]], atol=1e-6)


def test_a_small_move_of_the_mesh_moves_the_points_a_little(canonical):
    # The hull's vertices come and go from frame to frame: the points must not jump when they do.
    rng = np.random.default_rng(0)
    for yaw in (-30, 0, 15, 35):
        mesh = turned(canonical, yaw)[:, :2]
        points = from_mesh(mesh)
        for _ in range(10):
            moved = from_mesh(mesh + rng.uniform(-0.5, 0.5, mesh.shape))
            assert np.hypot(*(moved - points).T).max() < 6.0  # of about 900 px between the eyes


@pytest.mark.parametrize("mesh", [np.zeros((478, 3)), np.linspace(0, 9, 478)[:, None] * (1.0, 2.0, 0.0)])
def test_a_mesh_without_area_gives_finite_points(mesh):
    assert np.isfinite(from_mesh(mesh)).all()


def test_irises_are_not_needed(canonical):
    with_irises = np.concatenate([canonical, np.full((10, 3), 77.0)])
    np.testing.assert_array_equal(from_mesh(with_irises), from_mesh(canonical))


def test_the_shipped_geometry_is_what_the_bundle_and_the_construction_give():
    made = derive(bundle.shipped_path())
    np.testing.assert_allclose(made["mean_shape"], shipped_mean_shape(), atol=1e-12)
    assert {tuple(sorted(t)) for t in made["triangles"]} == {tuple(sorted(t)) for t in shipped_triangles()}
    shape = shipped_mean_shape()
    np.testing.assert_array_equal(shape[MIRROR] * (-1, 1), shape)
    assert shape[45, 0] - shape[36, 0] == pytest.approx(1.0)
