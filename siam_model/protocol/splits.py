"""Which subjects train, validate and test: no subject is ever on two sides, and every side has all ages."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from nemo_pipeline.errors import DataError, LeakageError, SettingsError
from nemo_pipeline.fields import plain
from nemo_pipeline.store.text import escape_controls
from siam_model.data import VideoTable

#: Fewest subjects that a split into training, validation and test makes sense for.
LEAST_SUBJECTS = 6
#: Said above the table of the balance.
HOW_BALANCED = (
    "Parts share no subject. Within each gender, subjects are sorted by age and cut into blocks of as many neighbours "
    "as there are parts; each part gets one of every block, at random. Folds named in the file are kept as they are."
)


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """Subjects of one training: the three parts share none. `fold` counts from 0.

    Raises:
        NemoError: a subject is in two parts.
    """

    fold: int
    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        counts = Counter([*set(self.training), *set(self.validation), *set(self.test)])
        shared = sorted(subject for subject, n in counts.items() if n > 1)
        if shared:
            raise LeakageError(
                f"Subject {escape_controls(shared[0])} is in more than one of training, validation and test of fold "
                f"{self.fold}; a result from this split would not hold for new subjects.",
                *shared,
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return plain(self)


@dataclasses.dataclass(frozen=True, slots=True)
class Subjects:
    """One row per subject, sorted by code: median age (n,) in years, gender, number of videos (n,)."""

    code: tuple[str, ...]
    age: np.ndarray
    gender: tuple[str, ...]
    videos: np.ndarray


def list_subjects(table: VideoTable) -> Subjects:
    """The subjects of the videos. A subject's gender is the one that most of the videos name."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, subject in enumerate(table.subject):
        rows[subject].append(row)
    codes = tuple(sorted(rows))
    genders = tuple(Counter(table.gender[r] for r in rows[c]).most_common(1)[0][0] for c in codes)
    age = np.array([np.median(table.age[rows[c]]) for c in codes])
    return Subjects(codes, age, genders, np.array([len(rows[c]) for c in codes]))


def balanced_parts(subjects: Subjects, parts: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) part of every subject, balanced over age and gender.

    Within each gender the subjects are sorted by age and cut into blocks of `parts` neighbours; every block
    gives one subject to each part, in random order. What is left over at the old end goes to the parts with
    fewest videos.
    """
    part = np.full(len(subjects.code), -1)
    videos = np.zeros(parts)
    for gender in sorted(set(subjects.gender)):
        mine = np.flatnonzero([g == gender for g in subjects.gender])
        mine = mine[np.lexsort((rng.permutation(len(mine)), subjects.age[mine]))]
        for start in range(0, len(mine), parts):
            block = mine[start : start + parts]
            turn = rng.permutation(parts)
            if len(block) < parts:
                turn = turn[np.argsort(videos[turn], kind="stable")]
            part[block] = turn[: len(block)]
            np.add.at(videos, part[block], subjects.videos[block])
    return part


def named_folds(table: VideoTable) -> dict[str, int] | None:
    """Subject -> fold as the file's `fold` column has it; None when the column is empty.

    Raises:
        NemoError: a subject is in two folds, or only some videos have one.
    """
    if (table.fold < 0).all():
        return None
    found: dict[str, int] = {}
    for subject, fold, video in zip(table.subject, table.fold, table.id, strict=True):
        if fold < 0:
            raise DataError(
                f"The column fold is filled for some videos and not for {escape_controls(video)}; give every labelled "
                "video a fold, or none."
            )
        if found.setdefault(subject, int(fold)) != fold:
            raise LeakageError(
                f"Subject {escape_controls(subject)} is in fold {found[subject]} and in fold {fold}; put all videos of "
                "a person into one fold.",
                subject,
            )
    return found


def plan_splits(
    table: VideoTable, *, folds: int | None, validation_fraction: float, test_fraction: float, seed: int
) -> list[Split]:
    """One split (`folds` None: the part `test_fraction` is held out) or one per fold.

    The file's `fold` column is respected where it is filled: with `folds` the two must agree in number,
    without it the last fold is the test part. Equal seeds give equal splits.

    Raises:
        NemoError: too few subjects, or a fold column that contradicts itself or `folds`.
    """
    subjects = list_subjects(table)
    n, named = len(subjects.code), named_folds(table)
    need = LEAST_SUBJECTS if folds is None else max(LEAST_SUBJECTS, folds + 2)
    if n < need:
        raise DataError(
            f"There are labelled videos of {n} subject{'s' if n != 1 else ''}, and "
            f"{'a split into training, validation and test' if folds is None else f'{folds} folds'} "
            f"need{'s' if folds is None else ''} at least {need}; label more subjects with `nemo label out.h5 FILE`"
            f"{'' if folds is None else ', or ask for fewer folds'}."
        )
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x5B117]))
    if named is not None:
        names = sorted(set(named.values()))
        if len(names) < 2:
            raise DataError("The column fold puts every video into one fold; it takes at least two.")
        if folds is not None and len(names) != folds:
            raise SettingsError(
                f"The file's fold column names {len(names)} folds and `folds` asks for {folds}; use "
                f"`folds={len(names)}`, or clear the column with `nemo label`.",
                "folds",
            )
        part = np.array([names.index(named[code]) for code in subjects.code])
        tests = list(range(len(names))) if folds is not None else [len(names) - 1]
    else:
        count = folds if folds is not None else max(2, round(1 / test_fraction))
        part = balanced_parts(subjects, count, rng)
        tests = list(range(count)) if folds is not None else [0]
    return [_split(subjects, part, t, i, validation_fraction, rng) for i, t in enumerate(tests)]


def _split(
    subjects: Subjects, part: np.ndarray, test: int, fold: int, fraction: float, rng: np.random.Generator
) -> Split:
    """The part `test` held out; of the rest about `fraction` kept for validation, balanced like the folds; nobody with
    0."""
    rest = np.flatnonzero(part != test)
    if len(rest) < 2:
        raise DataError(f"Fold {fold} leaves fewer than two subjects to train and validate on.")
    left = Subjects(
        tuple(subjects.code[i] for i in rest),
        subjects.age[rest],
        tuple(subjects.gender[i] for i in rest),
        subjects.videos[rest],
    )
    validates = np.zeros(len(rest), dtype=bool)
    if fraction:
        inner = balanced_parts(left, min(len(rest), max(2, round(1 / fraction))), rng)
        validates = inner == np.argmax(np.bincount(inner))
    return Split(
        fold,
        training=tuple(c for c, v in zip(left.code, validates, strict=True) if not v),
        validation=tuple(c for c, v in zip(left.code, validates, strict=True) if v),
        test=tuple(c for c, p in zip(subjects.code, part, strict=True) if p == test),
    )


def check_folds(splits: Sequence[Split], table: VideoTable) -> None:
    """Every subject is tested exactly once over the folds of a cross-validation.

    Raises:
        NemoError: a subject is tested twice, or never.
    """
    counts = Counter(subject for split in splits for subject in split.test)
    for subject in sorted(set(table.subject) | set(counts)):
        if counts[subject] != 1:
            raise LeakageError(
                f"Subject {escape_controls(subject)} is in the test part of {counts[subject]} folds; it must be in "
                "exactly one.",
                subject,
            )


def restrict(split: Split, table: VideoTable) -> Split:
    """`split` without the subjects who have no video in `table`.

    Raises:
        NemoError: a part is left empty.
    """
    here = set(table.subject)
    parts = {
        name: tuple(code for code in getattr(split, name) if code in here)
        for name in ("training", "validation", "test")
    }
    for name, codes in parts.items():
        if not codes and getattr(split, name):
            raise DataError(
                f"Of this part of the file no subject is left for {name} in fold {split.fold}: it holds "
                f"{len(here)} subject{'s' if len(here) != 1 else ''}; ask for fewer folds, or label more videos."
            )
    return Split(split.fold, **parts)


def balance(splits: Sequence[Split], table: VideoTable) -> list[dict[str, Any]]:
    """Per fold, of its test part: subjects, videos, ages and subjects by gender; and how many train and validate.

    `age_min`, `age_mean`, `age_max` and `age_deviation` are of the subjects' median ages, years.
    """
    subjects = list_subjects(table)
    row = {code: i for i, code in enumerate(subjects.code)}
    lines = []
    for split in splits:
        i = [row[code] for code in split.test]
        genders = Counter(subjects.gender[k] or "unknown" for k in i)
        lines.append(
            {
                "fold": split.fold,
                "subjects": len(i),
                "videos": int(subjects.videos[i].sum()),
                "age_min": float(subjects.age[i].min()),
                "age_mean": float(subjects.age[i].mean()),
                "age_max": float(subjects.age[i].max()),
                "age_deviation": float(subjects.age[i].std()),
                "gender": dict(sorted(genders.items())),
                "training_subjects": len(split.training),
                "validation_subjects": len(split.validation),
            }
        )
    return lines
