"""Statistics of the evaluation: intervals by bootstrap over subjects, paired tests, ages with enough samples, PCA.

Videos of one subject are not independent measurements: a model that misjudges a face misjudges it in every video. So
the bootstrap draws subjects, and tests count subjects.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np

from siam_model.predictions import Predictions

#: Samples of the bootstrap, and the part of them that an interval covers.
RESAMPLES = 2000
COVERAGE = 0.95
#: Subjects needed for an interval: with fewer, the bootstrap's is far too narrow.
LEAST_SUBJECTS = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Errors:
    """Absolute errors of some videos, summarised.

    Attributes:
        videos, subjects: how many.
        mae: their mean, years; NaN without videos.
        deviation: their sample standard deviation (n - 1), years; NaN with fewer than two videos.
        low, high: 95 % interval of the mean by bootstrap over subjects, years; NaN with fewer than 10 subjects.
    """

    videos: int
    subjects: int
    mae: float
    deviation: float
    low: float
    high: float


def summarize_errors(error: np.ndarray, subject: Sequence[str], seed: int = 0) -> Errors:
    """Absolute errors (V,) in years, of these subjects' videos, as `Errors`."""
    n, people = len(error), len(set(subject))
    nan = float("nan")
    mae = float(error.mean()) if n else nan
    deviation = float(error.std(ddof=1)) if n > 1 else nan
    low, high = interval(error, subject, seed) if people >= LEAST_SUBJECTS else (nan, nan)
    return Errors(n, people, mae, deviation, float(low), float(high))


def per_subject(values: np.ndarray, subject: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values (V,...) of each subject (P,...) and how many they are (P,), subjects sorted by code."""
    _, person = np.unique(np.asarray(subject, dtype=np.str_), return_inverse=True)
    counts = np.bincount(person)
    sums = np.zeros((len(counts), *values.shape[1:]))
    np.add.at(sums, person, values)
    return sums, counts


def interval(
    values: np.ndarray, subject: Sequence[str], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the mean over videos: subjects are drawn with replacement, each with all videos.

    Args:
        values: (V,), or (V,L) for L means from the same drawing.
        subject: V codes, at least two different ones.
        seed: equal seeds give equal intervals.

    Returns:
        The 2.5th and 97.5th percentile over the samples, () or (L,).
    """
    sums, counts = per_subject(values, subject)
    people = len(counts)
    rng = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(b"bootstrap")]))
    means = []
    for start in range(0, resamples, 200):  # 200 samples of a thousand subjects are 1.6 MB
        # How often each subject is drawn when as many are drawn as there are.
        times = rng.multinomial(people, np.full(people, 1 / people), min(200, resamples - start))
        means.append((times @ sums) / (times @ counts).reshape(-1, *[1] * (sums.ndim - 1)))
    tail = 50 * (1 - COVERAGE)
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail], axis=0)
    return low, high


@dataclasses.dataclass(frozen=True, slots=True)
class PairedTest:
    """Student's paired t-test, two-sided, of the absolute errors of two methods.

    Attributes:
        difference: mean of ours minus theirs, years, over what is counted; negative where ours is better.
        t, p: its statistic and probability; NaN with fewer than two pairs or where no difference varies.
        pairs: how many differences were compared.
    """

    difference: float
    t: float
    p: float
    pairs: int


def paired_test(ours: np.ndarray, theirs: np.ndarray, subject: Sequence[str] | None = None) -> PairedTest:
    """Compare absolute errors (V,) of two methods on the same videos.

    Args:
        subject: V codes: the differences of a subject's videos are averaged and count once. None: every video
            counts, as in the paper, which takes videos of one subject for independent.
    """
    difference = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    if subject is not None and len(difference):
        sums, counts = per_subject(difference, subject)
        difference = sums / counts
    n, nan = len(difference), float("nan")
    mean = float(difference.mean()) if n else nan
    if n < 2 or np.ptp(difference) < 1e-12:
        return PairedTest(mean, nan, nan, n)
    from scipy.stats import ttest_1samp

    result = ttest_1samp(difference, 0.0)
    return PairedTest(mean, float(result.statistic), float(result.pvalue), n)


def holm(p: Sequence[float]) -> list[float]:
    """Probabilities of several tests, corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979):
    rejecting those below a level wrongly rejects any with at most that probability. NaN stays, and counts as no test.
    """
    found = [float("nan")] * len(p)
    order = sorted((i for i, value in enumerate(p) if np.isfinite(value)), key=lambda i: p[i])
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p[i]))
        found[i] = largest
    return found


def age_counts(age: np.ndarray) -> np.ndarray:
    """(V,) how many videos show a subject of the same age in whole years."""
    years = np.floor(age).astype(np.int64)
    _, place, count = np.unique(years, return_inverse=True, return_counts=True)
    return count[place]


def thresholds(predictions: Predictions, most: int = 60) -> list[int]:
    """Figure 8's abscissa: 1, 2, ... up to the largest number that two subjects' videos still reach.

    At most `most` of them, evenly spread from the first to the last.
    """
    counts = age_counts(predictions.age)
    subject = np.asarray(predictions.subject, dtype=object)
    found = [
        n for n in range(1, int(counts.max()) + 1) if len(set(subject[counts >= n])) >= 2
    ] or [1]  # fmt: skip
    if len(found) > most:
        found = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, most).round().astype(int))]
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class Components:
    """Principal components of vectors at the cells of a map.

    Attributes:
        maps: (K,M,N) score of every cell on each component.
        share: (K,) part of the variance, 0..1; 0 where nothing varies.
    """

    maps: np.ndarray
    share: np.ndarray


def principal_components(cells: np.ndarray, count: int = 3) -> Components:
    """PCA over the cells of (M,N,d): each cell is one observation of d numbers.

    The sign of a component is free; the one is taken in which its largest score by size is positive.
    """
    height, width, dim = cells.shape
    x = cells.reshape(-1, dim).astype(np.float64)
    x = x - x.mean(axis=0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    count = min(count, len(s))
    scores = u[:, :count] * s[:count]  # (MN, K)
    largest = np.abs(scores).argmax(axis=0)
    scores = scores * np.where(scores[largest, np.arange(count)] < 0, -1.0, 1.0)
    total = float((s**2).sum())
    share = s[:count] ** 2 / total if total > 0 else np.zeros(count)
    return Components(scores.T.reshape(count, height, width), share)
