"""Splits: nobody on two sides, all ages and genders everywhere, the file's own folds respected."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from nemo_pipeline.errors import DataError, LeakageError, SettingsError
from nemo_pipeline.store import FaceDataset, write_dataset
from siam_model.data import VideoTable, labelled_videos
from siam_model.predictions import Predictions, join
from siam_model.protocol.baselines import training_median
from siam_model.protocol.splits import Split, balance, check_folds, list_subjects, plan_splits
from tests.support.commands import invoke


def table_of(
    subjects: int = 40, clips: int = 3, folds: dict[int, int] | None = None, seed: int = 0
) -> VideoTable:
    rng = np.random.default_rng(seed)
    ages, genders = rng.uniform(8, 76, subjects), rng.choice(["female", "male"], subjects)
    who = np.repeat(np.arange(subjects), clips)
    return VideoTable(
        index=np.arange(len(who)),
        id=tuple(f"v{i}" for i in range(len(who))),
        subject=tuple(f"s{s:03d}" for s in who),
        age=ages[who],
        gender=tuple(str(g) for g in genders[who]),
        fold=np.array([-1 if folds is None else folds.get(s, -1) for s in who]),
        length=rng.integers(10, 60, len(who)),
    )


def plan(table: VideoTable, folds: int | None, seed: int = 0) -> list[Split]:
    return plan_splits(table, folds=folds, validation_fraction=0.15, test_fraction=0.25, seed=seed)


@pytest.mark.parametrize("folds", [None, 2, 5, 10])
@pytest.mark.parametrize("seed", [0, 1])
def test_parts_share_nobody_and_leave_nobody_out(folds, seed):
    table = table_of()
    splits = plan(table, folds, seed)
    for split in splits:
        parts = [set(split.training), set(split.validation), set(split.test)]
        assert all(parts)
        assert sum(map(len, parts)) == len(set.union(*parts)) == 40
    if folds is not None:
        check_folds(splits, table)
        assert Counter(s for split in splits for s in split.test) == dict.fromkeys(table.subject, 1)
        assert sorted(split.fold for split in splits) == list(range(folds))
    else:
        assert len(splits[0].test) == 10


@pytest.mark.parametrize("folds", [None, 4])
def test_nobody_validates_where_the_fraction_is_zero(folds):
    table = table_of()
    splits = plan_splits(table, folds=folds, validation_fraction=0, test_fraction=0.25, seed=0)
    for split, usual in zip(splits, plan(table, folds), strict=True):
        assert split.validation == () and split.test == usual.test
        assert set(split.training) == {*usual.training, *usual.validation}


def test_parts_are_balanced_over_age_and_gender():
    table = table_of(subjects=100)
    lines = balance(plan(table, 10), table)
    assert {line["subjects"] for line in lines} == {10}
    means = [line["age_mean"] for line in lines]
    assert max(means) - min(means) < 8  # of random folds the means spread over some 20 years
    shares = [line["gender"]["female"] for line in lines]
    assert max(shares) - min(shares) <= 1


def test_equal_seeds_equal_splits_and_others_differ():
    table = table_of()
    assert plan(table, 5, 3) == plan(table, 5, 3)
    assert plan(table, 5, 3) != plan(table, 5, 4)


def test_sabotage_is_caught():
    with pytest.raises(LeakageError) as caught:
        Split(0, ("a", "b"), ("c",), ("b",))
    assert caught.value.shared == ("b",)
    with pytest.raises(LeakageError) as caught:
        Split(0, ("a",), ("c",), ("c",))
    assert caught.value.shared == ("c",)
    table = table_of(subjects=6, clips=1)
    names = sorted(set(table.subject))
    twice = [Split(0, (names[2],), (names[3],), (names[0], names[1])), Split(1, (), (), tuple(names[1:]))]
    with pytest.raises(LeakageError, match="test part of 2") as caught:
        check_folds(twice, table)
    assert caught.value.shared == (names[1],)
    with pytest.raises(LeakageError, match="of 0 folds") as caught:
        check_folds([Split(0, (), (), tuple(names[1:]))], table)
    assert caught.value.shared == (names[0],)
    once = Predictions(("v",), ("s",), np.zeros(1, int), np.ones(1), np.ones(1))
    with pytest.raises(DataError, match="predicted twice"):
        join([once, once])


def test_the_files_own_folds_are_respected():
    folds = {s: 3 + s % 4 for s in range(20)}
    table = table_of(20, folds=folds)
    for number, split in enumerate(plan(table, 4)):
        assert set(split.test) == {f"s{s:03d}" for s in range(20) if s % 4 == number}
    assert set(plan(table, None)[0].test) == {f"s{s:03d}" for s in range(20) if s % 4 == 3}
    with pytest.raises(SettingsError) as caught:
        plan(table, 5)
    assert caught.value.settings == ("folds",)


def test_contradicting_fold_columns_are_answered():
    table = table_of(8, folds={s: s % 2 for s in range(7)})
    with pytest.raises(DataError, match="filled for some videos"):
        plan(table, None)
    table = table_of(8, folds={s: s % 2 for s in range(8)})
    table.fold[0] = 1
    with pytest.raises(LeakageError) as caught:
        plan(table, None)
    assert caught.value.shared == (table.subject[0],)


def test_too_few_subjects():
    with pytest.raises(DataError, match=r"5 subjects.*at least 6.*nemo label"):
        plan(table_of(5), None)
    with pytest.raises(DataError, match=r"10 folds need at least 12.*fewer folds"):
        plan(table_of(9), 10)


def test_training_median_knows_nothing_of_the_test_part():
    table = table_of()
    splits = plan(table, 5)
    median = training_median(splits, table)
    assert sorted(median.video) == sorted(table.id)
    for split in splits:
        known = table.rows_of((*split.training, *split.validation))
        predicted = median.predicted[median.fold == split.fold]
        assert (predicted == np.median(table.age[known])).all()


def test_subjects_take_the_median_age_and_the_commonest_gender():
    table = table_of(3, clips=3)
    table = dataclasses.replace(
        table, subject=tuple("aaabbbbbb"), age=np.arange(9.0), gender=tuple("fmmfffmmf")
    )
    subjects = list_subjects(table)
    assert subjects.code == ("a", "b")
    assert subjects.age.tolist() == [1.0, 5.5]
    assert subjects.gender == ("m", "f")
    assert subjects.videos.tolist() == [3, 6]


@pytest.mark.parametrize("shuffled", [False, True])
def test_published_folds_with_names_without_an_ending_are_taken_as_they_are(tmp_path, shuffled):
    """A table `video,subject,fold` of all videos, as docs/reproducing.md makes it from lists of names."""
    names = [
        f"{s:03d}_{kind}_smile_{n}"
        for s in range(1, 13)
        for kind, n in (("deliberate", 2), ("spontaneous", 5))
    ]
    rng = np.random.default_rng(0)
    videos = [
        {"id": name, "file": f"{name}.mp4", "frames": np.full((2, 24, 24), 9, np.uint8), "subject": name[:3],
         "age": 20.0 + int(name[:3])}
        for name in names
    ]  # fmt: skip
    data = write_dataset(tmp_path / "smile.h5", videos, synthetic=True)
    lines = [f"{name},{name[:3]},{int(name[:3]) * 7 % 3}" for name in names]
    if shuffled:
        rng.shuffle(lines)
    (tmp_path / "folds.csv").write_text("\n".join(["video,subject,fold", *lines]) + "\n")
    invoke("label", data, tmp_path / "folds.csv")
    table = labelled_videos(FaceDataset(data))
    assert table.age.tolist() == [video["age"] for video in videos]  # what the table lacks stays
    for split in plan_splits(table, folds=3, validation_fraction=0.2, test_fraction=0.2, seed=5):
        assert set(split.test) == {f"{s:03d}" for s in range(1, 13) if s * 7 % 3 == split.fold}
