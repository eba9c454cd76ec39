"""The synthetic set: the same from the same seed, truth that is what is shown, and age only where it is
meant."""

from __future__ import annotations

import csv
import dataclasses
import hashlib

import av
import numpy as np
import pytest

from nemo_pipeline.errors import DataError, OutputError, SettingsError
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.synth import read_truth, render_faces, render_set
from nemo_pipeline.synth.dynamics import balanced_course, natural_course
from nemo_pipeline.synth.expression import CORNER_RANGE, Style, expression_points
from nemo_pipeline.synth.plan import SynthConfig, draw_people, list_clips
from nemo_pipeline.synth.portrait import portrait
from nemo_pipeline.synth.render import ClipRenderer, Subject
from nemo_pipeline.synth.texture import FACE_BOX, make_texture
from nemo_pipeline.synth.tps import Grid, ThinPlate, bilinear
from nemo_pipeline.synth.wrinkles import line_layers

SMALL = {"width": 128, "height": 96, "seconds": (0.8, 1.0)}


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.mp4"))}


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synth") / "set"
    return render_set(folder, 2, 1, 7, workers=1, **SMALL)


@pytest.fixture(scope="module")
def still_clip():
    """A clip in which only the expression moves."""
    config = SynthConfig(subjects=3, clips=1, seed=3, motion=0)
    clip = list_clips(config)[0]
    return ClipRenderer(Subject(config, clip.person), clip)


@pytest.fixture(scope="module")
def moving_subject():
    """A person, and a clip in which the head moves much."""
    config = SynthConfig(subjects=3, clips=1, seed=3, motion=2, width=256, height=256, seconds=(0.8, 0.8))
    clip = list_clips(config)[1]
    return Subject(config, clip.person), clip


def test_same_files_from_the_same_seed_on_any_number_of_processes(small_set, tmp_path):
    seen = []
    again = render_set(
        tmp_path / "again", 2, 1, 7, workers=2, progress=lambda n, total: seen.append((n, total)), **SMALL
    )
    assert digests(again.directory) == digests(small_set.directory)
    assert seen == [(0, 2), (1, 2), (2, 2)]
    first, second = read_truth(small_set.truth), read_truth(again.truth)
    for name, clip in first.items():
        np.testing.assert_array_equal(clip.landmarks, second[name].landmarks)
        assert clip.values == second[name].values
    assert small_set.labels.read_bytes() == again.labels.read_bytes()


def test_another_seed_gives_other_people(small_set, tmp_path):
    other = render_set(tmp_path / "other", 1, 1, 8, workers=1, **SMALL)
    assert not set(digests(other.directory).values()) & set(digests(small_set.directory).values())


def test_labels_and_truth_describe_every_clip(small_set):
    truth = read_truth(small_set.truth)
    with small_set.labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == [path.name for path in small_set.clips]
    for row in rows:
        clip = truth[row["video"].removesuffix(".mp4")]
        assert row["synthetic"] == "true"
        assert float(row["age"]) == clip.values["age"]
        with av.open(str(small_set.directory / row["video"])) as container:
            count = sum(1 for _ in container.decode(video=0))
        assert clip.landmarks.shape == (count, 68, 2)
        assert clip.pose.shape == (count, 3)
        assert clip.intensity.shape == (count,)
    assert sum(len(clip.landmarks) for clip in truth.values()) == small_set.frames


def test_a_broken_off_set_is_completed_with_the_same_files(small_set):
    before = digests(small_set.directory)
    kept, gone = small_set.clips
    changed = kept.stat().st_mtime_ns
    gone.unlink()
    render_set(small_set.directory, 2, 1, 7, workers=1, **SMALL)
    assert digests(small_set.directory) == before
    assert kept.stat().st_mtime_ns == changed


def test_nothing_of_the_users_is_overwritten(small_set, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        render_set(tmp_path, 2, 1, 7)
    with pytest.raises(OutputError, match="is a file"):
        render_set(tmp_path / "letter.txt", 2, 1, 7)
    with pytest.raises(OutputError, match="other settings"):
        render_set(small_set.directory, 2, 1, 8, **SMALL)
    with pytest.raises(DataError, match="not a readable truth file"):
        read_truth(tmp_path / "letter.txt")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subjects", 0),
        ("width", 321),
        ("fps", 1.0),
        ("ages", (50, 20)),
        ("expression", "frown"),
        ("seed", -1),
    ],
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(SettingsError, match=r"Cannot make a synthetic set"):
        SynthConfig(**{field: value})


def test_thin_plate_spline_takes_its_values_and_reproduces_straight_maps():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 200, (30, 2))
    values = rng.normal(size=(30, 2))
    np.testing.assert_allclose(ThinPlate.fit(points, values)(points), values, atol=1e-8)
    straight = points @ [[1.1, 0.2], [-0.3, 0.9]] + 5
    elsewhere = rng.uniform(0, 200, (10, 2))
    np.testing.assert_allclose(
        ThinPlate.fit(points, straight)(elsewhere), elsewhere @ [[1.1, 0.2], [-0.3, 0.9]] + 5, atol=1e-6
    )


def test_lip_corners_go_the_stated_way_and_the_neutral_mouth_is_closed():
    face = portrait()
    neutral = expression_points(face, 0.0, 0.0, Style()).landmarks
    broad = expression_points(face, 1.0, 0.0, Style()).landmarks
    way = np.linalg.norm(broad[[48, 54]] - neutral[[48, 54]], axis=1) / face.unit
    np.testing.assert_allclose(way, CORNER_RANGE[1] - CORNER_RANGE[0], rtol=0.15)
    np.testing.assert_allclose(neutral[[61, 62, 63]], neutral[[67, 66, 65]], atol=1e-9)
    assert (np.linalg.norm(broad[[61, 62, 63]] - broad[[67, 66, 65]], axis=1) > 0.1 * face.unit).all()


def test_truth_is_where_the_renderer_puts_the_portraits_points():
    """Sampling positions read at the true landmarks give the portrait's landmarks, also in a turned head."""
    config = SynthConfig(subjects=3, clips=1, seed=1, motion=1.5)
    lower = np.isin(np.arange(68), [*range(55, 60), *range(65, 68)])
    mouth = np.arange(68) >= 48
    for clip in list_clips(config)[:2]:
        subject = Subject(config, clip.person)
        renderer = ClipRenderer(subject, clip)
        size = renderer._step
        misses = []
        for frame in range(0, len(renderer.pose), 7):
            expressive, above, below = renderer.sampling(frame)
            origin = -0.5 * size - 0.5
            grid = Grid(origin, origin, size, expressive.shape[1], expressive.shape[0])
            true = renderer.truth.landmarks[frame]
            layers = renderer._expressions.layers(renderer.course.intensity[frame])
            at = bilinear(grid, expressive, true)
            # The mouth is painted from the layers themselves, all else from the coarse grid.
            fine = np.where(lower[:, None], layers[1].back_exactly(at), layers[0].back_exactly(at))
            coarse = np.where(lower[:, None], bilinear(grid, below, true), bilinear(grid, above, true))
            found = np.where(mouth[:, None], fine, coarse)
            misses.append(np.hypot(*((found - subject.face.landmarks) * renderer._scale).T))
        assert np.mean(misses) < 0.1  # pixels of the frame
        assert np.max(misses) < 1.0


@pytest.mark.parametrize("point", [8, 19, 30, 36, 48, 54, 57])
def test_a_dot_painted_on_the_skin_is_seen_at_the_true_landmark(point, moving_subject, monkeypatch):
    """The portrait's picture replaced by one white dot at a landmark: its centroid in the frames is the
    truth."""
    subject, clip = moving_subject
    texture = subject.texture("smile", 1.25)
    y, x = np.mgrid[0 : texture.layers.shape[0], 0 : texture.layers.shape[1]]
    px, py = (subject.face.landmarks[point] + 0.5) * texture.scale - 0.5
    dot = np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 1.2**2))
    layers = np.full_like(texture.layers, 128)
    layers[..., :3] = np.round(255 * dot)[..., None]
    painted = dataclasses.replace(texture, layers=layers, person=np.full_like(texture.person, 255))
    monkeypatch.setattr(subject, "texture", lambda kind, scale: painted)
    renderer = ClipRenderer(subject, clip)
    for frame, picture in enumerate(renderer.frames()):
        if frame % 4:
            continue
        true = renderer.truth.landmarks[frame, point]
        left, top = np.round(true).astype(int) - 10
        light = picture[top : top + 21, left : left + 21, 0].astype(np.float64)
        assert light.max() > 60
        light[light < 20] = 0
        rows, columns = np.mgrid[top : top + 21, left : left + 21]
        centre = np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()
        assert np.hypot(*(centre - true)) < 0.5


def test_no_torn_face(still_clip):
    """Sampling positions never run backwards by more than a trace: the map does not fold."""
    for frame in (0, still_clip.course.apex[0]):
        expressive, above, below = still_clip.sampling(frame)
        for field in (expressive, above, below):
            across, down = np.diff(field, axis=1)[:-1], np.diff(field, axis=0)[:, :-1]
            area = across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]
            folded = (area < 0) & (np.abs(expressive[:-1, :-1] - (224, 145)).max(-1) > 18)  # mouth apart
            assert not folded.any()


def test_older_faces_smile_more_slowly_and_less_far():
    def mean(age, dynamics):
        drawn = [
            natural_course(np.random.default_rng(i), age, "posed", dynamics, 65, 25.0) for i in range(60)
        ]
        rise = np.mean([c.onset[1] - c.onset[0] for c in drawn])
        fall = np.mean([c.offset[1] - c.offset[0] for c in drawn])
        return rise, fall, np.mean([c.intensity.max() for c in drawn])

    young, old = mean(10, 1.0), mean(74, 1.0)
    assert old[0] > 1.6 * young[0]
    assert old[1] > 1.6 * young[1]
    assert old[2] < young[2] - 0.2
    assert mean(10, 0.0) == mean(74, 0.0)


@pytest.mark.parametrize("condition", ["posed", "spontaneous"])
def test_phases_are_a_rise_a_plateau_and_a_fall(condition):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        course = natural_course(rng, rng.uniform(8, 76), condition, 1.0, 50, 25.0)
        value = course.intensity
        (a, b), (c, d), (e, f) = course.onset, course.apex, course.offset
        assert 0 < a < b == c < d == e < f < len(value)
        assert (np.diff(value[a : b + 1]) > 0).all()
        assert np.ptp(value[c:d]) < 1e-12 and value[c] == value.max()
        assert (np.diff(value[e - 1 : f]) < 0).all()
        assert np.ptp(value[: a + 1]) < 1e-12 and np.ptp(value[f - 1 :]) < 1e-12


def test_balanced_clips_show_the_same_intensities_at_every_age():
    courses = {age: balanced_course(np.random.default_rng(age), age, 1.0, 60) for age in (8, 30, 55, 76)}
    reference = np.sort(courses[8].intensity)
    for course in courses.values():
        np.testing.assert_array_equal(np.sort(course.intensity), reference)
    rise = [course.onset[1] - course.onset[0] for course in courses.values()]
    assert rise == sorted(rise) and rise[-1] > 2 * rise[0]


def test_signs_of_age_grow_with_age_keep_the_mean_and_can_be_switched_off():
    config = SynthConfig(subjects=1, clips=1)
    subject = Subject(config, draw_people(config)[0])
    strength = []
    for age in (8, 30, 50, 70):
        still, moving = line_layers(subject.look.lines, age, "smile", FACE_BOX, 1.5)
        strength.append(still.std() + moving.std())
        assert abs(still.mean()) < 0.003
        assert abs(moving.mean()) < 0.003
    assert strength == sorted(strength) and strength[0] == 0 and strength[-1] > 2 * strength[1]
    without = [make_texture(subject.face, subject.look, age, 0.0, "smile", 1.0).layers for age in (10, 70)]
    np.testing.assert_array_equal(*without)
    with_age = [make_texture(subject.face, subject.look, age, 1.0, "smile", 1.0).layers for age in (10, 70)]
    assert np.abs(with_age[0].astype(int) - with_age[1]).max() > 20


def test_ages_are_spread_evenly_and_subjects_do_not_depend_on_their_number_of_clips():
    config = SynthConfig(subjects=69)
    ages = sorted(person.age for person in draw_people(config))
    assert ages == list(range(8, 77))
    more = dataclasses.replace(config, clips=9)
    assert draw_people(more) == draw_people(config)


def test_disgust_wrinkles_the_nose_and_raises_the_lip():
    face = portrait()
    calm = expression_points(face, 0.0, 0.0, Style()).landmarks
    disgusted = expression_points(face, 0.0, 1.0, Style()).landmarks
    moved = (disgusted - calm) @ face.down / face.unit
    assert (moved[[31, 33, 35, 50, 51, 52]] < -0.01).all()
    assert (moved[[19, 20, 21, 22, 23, 24]] > 0.02).all()
    assert abs(moved[8]) < 1e-9


def test_faces_without_video_are_the_renderers_own_warped_by_the_truth(tmp_path):
    path = render_faces(tmp_path / "faces.h5", 1, 2, 7, workers=1, **SMALL)
    data, truth = FaceDataset(path), read_truth(tmp_path / "faces.truth.h5")
    assert data.synthetic and len(data) == 2
    for video in data.values():
        clip = truth[video.id]
        assert video.status == "ok" and video.age == clip.values["age"]
        assert video.frames.shape == (len(clip.landmarks), 114, 114)
        np.testing.assert_array_equal(video.landmarks, clip.landmarks)
        assert video.frames[:, 57, 57].min() > 10 and video.frames[:, 0, 0].max() == 0
    with pytest.raises(OutputError, match="exists already"):
        render_faces(tmp_path / "faces.h5", 1, 2, 7, **SMALL)
