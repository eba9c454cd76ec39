"""Whole sets: made up like the database, in its layout, with the mark that nothing about them concerns people."""

from __future__ import annotations

import json
from collections import Counter

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from nemo_cli.main import main
from nemo_pipeline.batch.label_table import read_labels
from nemo_pipeline.errors import SettingsError
from nemo_pipeline.stages.warp import FaceWarp
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.synth import read_truth, render_faces, render_set
from nemo_pipeline.synth.mark import is_marked
from nemo_pipeline.synth.plan import SynthConfig, draw_people, list_clips
from nemo_pipeline.synth.profile import CLIPS_BY_DECADE, FEMALE, OLDEST, POSED, SPONTANEOUS, YOUNGEST
from nemo_pipeline.synth.render import ClipRenderer, Subject
from nemo_pipeline.synth.shade import MeanShapeView, shade
from nemo_pipeline.synth.take import draw_take, still_take

NEMO = {"subjects": 400, "profile": "nemo"}


def nemo(*words, code=0):
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == code, done.stderr
    return done


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_profile_has_the_papers_clips_by_decade_condition_and_gender(seed):
    """Table III and section IV-A of the paper, on the plan."""
    clips = list_clips(SynthConfig(**NEMO, seed=seed))
    assert len(clips) == 1240 and len({clip.name for clip in clips}) == 1240
    ages = np.array([clip.person.age for clip in clips])
    assert tuple(np.bincount(ages // 10, minlength=8)) == (158, 333, 215, 171, 250, 66, 30, 17)
    assert (ages.min(), ages.max()) == (YOUNGEST, OLDEST) == (8, 76)
    assert Counter(clip.condition for clip in clips) == {"posed": 643, "spontaneous": 597}
    people = {clip.person.code: clip.person for clip in clips}
    assert len(people) == 400
    assert Counter(person.gender for person in people.values()) == {"female": 185, "male": 215}
    own = Counter((clip.person.code, clip.condition) for clip in clips)
    assert set(own.values()) == {1, 2} and len(own) == 800  # of either condition at least one
    assert (POSED, SPONTANEOUS, FEMALE, sum(CLIPS_BY_DECADE)) == (643, 597, 185, 1240)


def test_profile_scales_down_in_the_same_proportions():
    clips = list_clips(SynthConfig(subjects=40, profile="nemo"))
    share = np.bincount([clip.person.age // 10 for clip in clips], minlength=8) / len(clips)
    assert abs(len(clips) - 124) <= 4
    np.testing.assert_allclose(share, np.array(CLIPS_BY_DECADE) / 1240, atol=0.02)
    assert len(list_clips(SynthConfig(subjects=1, profile="nemo"))) in (2, 3, 4)


def test_ages_of_the_profile_have_all_tones_and_both_genders():
    people = draw_people(SynthConfig(**NEMO))
    ages = np.array([person.age for person in people], float)
    assert abs(np.corrcoef(ages, [person.tone for person in people])[0, 1]) < 0.02
    assert abs(np.corrcoef(ages, [person.gender == "male" for person in people])[0, 1]) < 0.15
    for decade in range(8):
        here = [person for person in people if person.age // 10 == decade]
        assert {person.gender for person in here} == {"female", "male"}


def test_dynamics_only_clips_show_the_same_intensities_whatever_the_age():
    """On the plan of a set: frames taken singly carry no age, their order and tempo do."""
    config = SynthConfig(subjects=40, clips=2, seed=2, appearance=0, balanced=True)
    clips = list_clips(config)
    courses = [draw_take(config, clip).course for clip in clips]
    reference = np.sort(courses[0].intensity)
    for course in courses:
        np.testing.assert_allclose(np.sort(course.intensity), reference, rtol=0, atol=1e-12)
    ages = np.array([clip.person.age for clip in clips])
    rise = np.array([course.onset[1] - course.onset[0] for course in courses])
    fall = np.array([course.offset[1] - course.offset[0] for course in courses])
    assert np.corrcoef(ages, rise)[0, 1] > 0.95
    assert np.corrcoef(ages, fall)[0, 1] < -0.95
    # No two ages far apart share an order.
    young, old = courses[int(ages.argmin())], courses[int(ages.argmax())]
    assert np.abs(young.intensity - old.intensity).max() > 0.3
    start = np.array([course.onset[0] for course in courses])
    assert abs(np.corrcoef(ages, start)[0, 1]) < 0.2  # when it begins is chance


def test_no_two_dynamics_only_clips_share_a_course():
    """A course that a person in training and one in the test had in common would be learnt by heart."""
    config = SynthConfig(subjects=300, clips=2, seed=5, appearance=0, balanced=True)
    courses = {draw_take(config, clip).course.intensity.tobytes() for clip in list_clips(config)}
    assert len(courses) == 600


def test_faces_alone_are_the_whole_frames_pixels():
    config = SynthConfig(
        subjects=2, clips=1, seed=9, width=320, height=240, seconds=(0.8, 0.8), motion=2, face=(0.2, 0.35)
    )
    clip = list_clips(config)[0]
    subject = Subject(config, clip.person)
    renderer = ClipRenderer(subject, clip)
    points = renderer.truth.landmarks
    covered = []
    pairs = zip(renderer.frames(), ClipRenderer(subject, clip).faces(), strict=True)
    for true, (whole, ((rows, columns), face)) in zip(points, pairs, strict=True):
        assert face.shape == (rows.stop - rows.start, columns.stop - columns.start, 3)
        low, high = true.min(0), true.max(0)
        assert columns.start <= max(low[0], 0) and rows.start <= max(low[1], 0)
        assert columns.stop > min(high[0], 319) and rows.stop > min(high[1], 239)
        difference = np.abs(whole[rows, columns].astype(int) - face)
        # The search for the turned head's positions may stop a step sooner: fractions of a gray level.
        assert difference.mean() < 0.1 and np.percentile(difference, 99.5) <= 3
        covered.append(face.size / whole.size)
    assert max(covered) < 0.9


@pytest.mark.parametrize("expression", ["smile", "disgust"])
def test_pixel_by_pixel_the_picture_is_the_same(expression):
    """The coarse grid, the mouth's patch and the blocks against every pixel rendered by itself."""
    config = SynthConfig(
        subjects=2,
        clips=1,
        seed=9,
        width=200,
        height=200,
        seconds=(0.8, 0.8),
        motion=2,
        expression=expression,
    )
    clip = list_clips(config)[1]
    renderer = ClipRenderer(Subject(config, clip.person), clip)
    view, warp = MeanShapeView(), FaceWarp()
    inside = warp.template.inside
    for frame, ((rows, columns), face) in enumerate(renderer.faces()):
        if frame % 6:
            continue
        x, y = np.meshgrid(np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop))
        difference = np.abs(face.astype(int) - shade(renderer, frame, np.stack([x, y], -1)))
        assert difference.mean() < 1 and np.percentile(difference, 99) < 12
        gray = np.zeros((200, 200), np.uint8)
        gray[rows, columns] = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY)
        warped = warp(gray, renderer.truth.landmarks[frame])
        direct = view(renderer, frame)
        assert (direct.ravel()[inside] > 0).all() and np.delete(direct.ravel(), inside).max() == 0
        # Through the frame's pixels or not: what differs is the blur of sampling twice.
        assert np.abs(warped.astype(int) - direct).ravel()[inside].mean() < 4


def test_a_still_take_does_not_move():
    config = SynthConfig(subjects=1, clips=1, seed=4, width=128, height=128, seconds=(0.8, 0.8))
    clip = list_clips(config)[0]
    renderer = ClipRenderer(Subject(config, clip.person), clip, still_take(config, clip))
    assert np.ptp(renderer.truth.landmarks, axis=0).max() == 0
    frames = list(renderer.frames())
    assert all((frame == frames[0]).all() for frame in frames)
    assert renderer.camera == draw_take(config, clip).camera


def test_truth_is_complete(tmp_path):
    made = render_set(
        tmp_path / "set", 1, 2, 3, workers=1, width=128, height=128, seconds=(0.8, 0.9), expression="both"
    )
    for name, clip in read_truth(made.truth).items():
        length = len(clip.landmarks)
        assert clip.landmarks.shape == (length, 68, 2) and np.isfinite(clip.landmarks).all()
        assert clip.pose.shape == (length, 3) and clip.intensity.shape == (length,)
        (a, b), (c, d), (e, f) = clip.phases.tolist()
        assert 0 < a < b == c < d == e < f <= length
        assert clip.intensity[c] == clip.intensity.max() and (np.diff(clip.intensity[a:b]) > 0).all()
        assert clip.values["subject"] == name[:3] and clip.values["condition"] in name
        assert clip.values["expression"] in name
        assert {"age", "gender", "fps", "camera", "identity", "complexion", "line_depths"} <= set(clip.values)
        assert {"centre", "eye_px", "gain", "gamma", "noise"} <= set(clip.values["camera"])
        assert np.shape(clip.values["identity"]["wobble"]) == (68, 2)
        json.dumps(clip.values)


def test_faces_written_straight_are_the_same_on_any_number_of_processes(tmp_path):
    settings = {"subjects": 3, "clips": 1, "seed": 5, "width": 96, "height": 96, "seconds": (0.8, 0.8)}
    one = FaceDataset(render_faces(tmp_path / "one.h5", workers=1, **settings))
    three = FaceDataset(render_faces(tmp_path / "three.h5", workers=3, **settings))
    for first, second in zip(one.values(), three.values(), strict=True):
        assert first.id == second.id and first.age == second.age
        np.testing.assert_array_equal(first.frames, second.frames)
        np.testing.assert_array_equal(first.landmarks, second.landmarks)


def test_a_set_in_the_databases_layout_is_labelled_by_its_details_and_stays_synthetic(tmp_path):
    folder = tmp_path / "videos"
    nemo(
        "synth", folder, "--nemo-layout", "--profile", "nemo", "--subjects", 1, "--size", "240x240",
        "--seconds", 0.8, 0.8, "--seed", 6, "--workers", 1,
    )  # fmt: skip
    plan = list_clips(SynthConfig(subjects=1, profile="nemo", seed=6, nemo_layout=True))
    names = sorted(f"{clip.name}.mp4" for clip in plan)
    assert "001_deliberate_smile_1.mp4" in names and "001_spontaneous_smile_1.mp4" in names
    assert sorted(path.name for path in folder.glob("*.mp4")) == names
    details = folder / "UvA-NEMO_Smile_Database_File_Details.txt"
    subjects = folder / "UvA-NEMO_Smile_Database_Subject_Details.txt"
    assert len(details.read_text().splitlines()) == 5 + len(plan)
    assert subjects.read_text().splitlines()[5].split("\t")[0] == "001"
    assert is_marked(folder) and not is_marked(tmp_path)
    (folder / "labels.csv").unlink()  # it says `synthetic` itself: without it, the mark must do

    # Every label reader, and the details are found by themselves.
    nemo("prep", folder, tmp_path / "out.h5", "--workers", 1)
    data = FaceDataset(tmp_path / "out.h5")
    assert data.synthetic
    known = {f"{clip.name}.mp4": clip for clip in plan}
    for row in data.rows:
        clip = known[data.videos["file"][row]]
        assert data.videos["subject"][row] == clip.person.code
        assert data.videos["age"][row] == clip.person.age
        assert data.videos["gender"][row] == clip.person.gender
        assert data.videos["condition"][row] == clip.condition
        assert data.videos["expression"][row] == "smile"
    table = read_labels(subjects)
    assert table.by_subject["001"]["age"] == plan[0].person.age and table.synthetic == {"001"}
    assert read_labels(details).synthetic == set(names)

    # Without any label it is synthetic too, and where the labels are elsewhere.
    details.unlink(), subjects.unlink()
    nemo("prep", folder / names[0], tmp_path / "bare.h5", "--workers", 1)
    bare = FaceDataset(tmp_path / "bare.h5")
    assert bare.synthetic and np.isnan(bare.videos["age"][0])
    (folder / "synth.json").write_text("{}")  # somebody else's file of that name is not a mark
    nemo("prep", folder / names[0], tmp_path / "other.h5", "--workers", 1)
    assert not FaceDataset(tmp_path / "other.h5").synthetic


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["set", "--profile", "nemo", "--ages", "20", "30"], "leave out --ages and --clips"),
        (["set", "--profile", "nemo", "--clips", "2"], "leave out --ages and --clips"),
        (["--direct", "x.h5", "--nemo-layout"], "--direct writes none"),
        (["set", "--direct", "x.h5"], "give a folder"),
    ],
)
def test_what_contradicts_itself_is_refused(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in " ".join(nemo("synth", *words, code=2).stderr.replace("│", "").split())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"profile": "odd"}, "profile"),
        ({"face": (0.3, 0.2)}, "faces"),
        ({"nemo_layout": True, "expression": "disgust"}, "layout"),
    ],
)
def test_bad_sets_are_named(settings, message):
    with pytest.raises(SettingsError, match=message):
        SynthConfig(**settings)
