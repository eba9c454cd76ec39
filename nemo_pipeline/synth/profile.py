"""The subjects of a set like the UvA-NEMO smile database: ages, genders, number of clips.

From the paper (section IV-A, Table III): 1240 clips, 597 spontaneous and 643 posed, of 400 subjects, 185 female and
215 male, 8 to 76 years old; so many clips by decade as `CLIPS_BY_DECADE` says. How many subjects a decade has, and how
many clips a subject, is not printed. Here each decade has subjects in proportion to its clips, and each subject one or
two posed and one or two spontaneous smiles ("a balanced number ... for each subject"). numpy only.
"""

from __future__ import annotations

import numpy as np

SUBJECTS, FEMALE = 400, 185
POSED, SPONTANEOUS = 643, 597
#: Clips of subjects aged 0 to 9, 10 to 19, ... 70 to 79.
CLIPS_BY_DECADE = (158, 333, 215, 171, 250, 66, 30, 17)
YOUNGEST, OLDEST = 8, 76


def apportion(total: int, weights: np.ndarray) -> np.ndarray:
    """Whole numbers in proportion to `weights` whose sum is `total` (largest remainders)."""
    exact = total * np.asarray(weights, float) / max(float(np.sum(weights)), 1e-12)
    whole = np.floor(exact + 1e-9).astype(int)
    rest = np.argsort(-(exact - whole), kind="stable")[: total - int(whole.sum())]
    whole[rest] += 1
    return whole


def decades(subjects: int) -> tuple[np.ndarray, np.ndarray]:
    """Subjects and clips of each decade, both (8,) int: the database's for 400 subjects, else as near to its
    proportions as whole people with two to four clips each can be."""
    weights = np.array(CLIPS_BY_DECADE)
    people = apportion(subjects, weights)
    clips = apportion(round(subjects * (POSED + SPONTANEOUS) / SUBJECTS), weights)
    return people, np.clip(clips, 2 * people, 4 * people)


def draw_ages(rng: np.random.Generator, subjects: int) -> np.ndarray:
    """(subjects,) years as float64, rising: evenly spread within each decade, one per equal part of it."""
    people, _ = decades(subjects)
    ages = []
    for decade, count in enumerate(people.tolist()):
        low, high = max(10 * decade, YOUNGEST), min(10 * decade + 9, OLDEST)
        ages.append(low + (high + 1 - low) * (np.arange(count) + rng.uniform(0, 1, count)) / max(count, 1))
    drawn = np.concatenate(ages)
    if subjects == SUBJECTS:  # the database's own youngest and oldest
        drawn[0], drawn[-1] = YOUNGEST, OLDEST
    return drawn


def draw_genders(rng: np.random.Generator, subjects: int) -> np.ndarray:
    """(subjects,) bool, True for female, in the database's proportion; whom it falls on is chance."""
    return rng.permutation(np.arange(subjects) < round(subjects * FEMALE / SUBJECTS))


def draw_clip_numbers(rng: np.random.Generator, ages: np.ndarray) -> np.ndarray:
    """(subjects, 2) int: posed and spontaneous smiles of each subject, one or two of either.

    Args:
        rng: whom the second clips fall on.
        ages: (subjects,) years, in any order.
    """
    people, clips = decades(len(ages))
    extra = clips - 2 * people
    by_chance = POSED - SUBJECTS, SPONTANEOUS - SUBJECTS
    posed = apportion(round(int(extra.sum()) * by_chance[0] / sum(by_chance)), extra)
    posed = np.clip(posed, np.maximum(extra - people, 0), np.minimum(extra, people))
    numbers = np.ones((len(ages), 2), int)
    for decade in range(len(people)):
        here = np.flatnonzero(np.asarray(ages) // 10 == decade)
        for column, count in enumerate((posed[decade], extra[decade] - posed[decade])):
            numbers[rng.permutation(here)[:count], column] += 1
    return numbers
