"""IEF, neutral and fusion: intensities of small neighbourhoods, softly assigned to codes learnt for each patch.

Idea: Alnajar, Shan, Gevers and Geusebroek, Image and Vision Computing 30 (2012), abstract: a codebook for each patch of
the face, several codes for a pixel, one histogram a patch; the paper adds that the encoding is by a PCA tree. Sizes
were not found. Here: neighbourhoods of 5 x 5 pixels without their mean, at unit length; 6 x 6 patches; trees of depth
6, 64 codes; the 5 nearest codes with Gaussian weights (van Gemert and others, "Visual Word Ambiguity", IEEE TPAMI 32,
2010); principal components of the 36 histograms.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from siam_model.methods.base import Appearance, Describe, FaceEncoder, Reduction, flat
from siam_model.methods.grid import BLOCKS, block_numbers, hull_of, inner
from siam_model.methods.inputs import Video

RADIUS = 2
DEPTH = 6
NEAREST = 5
#: Most pixels that a patch's codebook is learnt from.
PIXELS = 20_000


def neighbourhoods(
    face: NDArray[np.uint8], counted: NDArray[np.bool_], radius: int = RADIUS
) -> NDArray[np.float32]:
    """(P, (2 radius + 1)^2): the neighbourhood of every counted pixel, row by row, without its mean, at length 1; zeros
    where it is flat.

    Args:
        face: (S,S).
        counted: (S,S) bool; none within `radius` of the edge.
    """
    side = 2 * radius + 1
    windows = np.lib.stride_tricks.sliding_window_view(face, (side, side))
    rows, columns = np.nonzero(counted)
    found = windows[rows - radius, columns - radius].reshape(len(rows), side * side).astype(np.float32)
    found -= found.mean(axis=1, keepdims=True)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.where(length > 1e-3, found / np.maximum(length, 1e-3), 0).astype(np.float32)


def pca_tree(vectors: NDArray[np.floating], depth: int = DEPTH) -> NDArray[np.float64]:
    """Means of the leaves (at most 2^depth, D) of a tree that cuts the vectors (N,D) in halves: at the median of their
    first principal component. A node that cannot be cut is a leaf."""
    x = np.asarray(vectors, dtype=np.float64)
    if not len(x):
        return np.zeros((0, x.shape[1]))
    leaves = [x]
    for _ in range(depth):
        parts = []
        for node in leaves:
            centred = node - node.mean(axis=0)
            _, axes = np.linalg.eigh(centred.T @ centred)
            score = centred @ axes[:, -1]
            right = score > np.median(score)
            if len(node) < 2 or not right.any() or np.ptp(score) < 1e-9:
                parts.append(node)
            else:
                parts += [node[~right], node[right]]
        leaves = parts
    return np.stack([leaf.mean(axis=0) for leaf in leaves])


def nearest_codes(
    vectors: NDArray[np.floating], codes: NDArray[np.floating], count: int = NEAREST
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The `count` codes (K,D) nearest to each vector (N,D): their numbers and squared distances, (N,count), in no
    order."""
    count = min(count, len(codes))
    squared = (vectors**2).sum(axis=1)[:, None] + (codes**2).sum(axis=1)[None] - 2 * (vectors @ codes.T)
    squared = np.maximum(squared, 0)
    near = np.argpartition(squared, count - 1, axis=1)[:, :count]
    return near, np.take_along_axis(squared, near, axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Codebook:
    """Codes (K,D) of one patch, and the distance `scale` at which a code counts less."""

    codes: NDArray[np.float64]
    scale: float

    @staticmethod
    def learn(vectors: NDArray[np.floating], depth: int = DEPTH) -> Codebook:
        """From vectors (N,D); the scale is the median distance to the nearest code."""
        codes = pca_tree(vectors, depth)
        if not len(codes):
            return Codebook(codes, 0.0)
        _, squared = nearest_codes(vectors, codes, 1)
        return Codebook(codes, float(np.sqrt(np.median(squared))))

    def histogram(self, vectors: NDArray[np.floating], size: int = 2**DEPTH) -> NDArray[np.float64]:
        """(size,) mean over the vectors (N,D) of their weights exp(-d^2 / 2 s^2) on the nearest codes, which sum to 1
        for each; zeros without vectors or codes."""
        total = np.zeros(size)
        if not len(vectors) or not len(self.codes):
            return total
        near, squared = nearest_codes(vectors, self.codes)
        # Relative to the nearest one: of far ones alone, all weights would be 0.
        away = squared - squared.min(axis=1, keepdims=True)
        weights = np.exp(-away / (2 * max(self.scale, 1e-6) ** 2))
        weights /= weights.sum(axis=1, keepdims=True)
        np.add.at(total, near, weights)
        return total / len(vectors)


class SoftCodes:
    """The neutral (0) or the expressive face (1) as soft codes of its patches."""

    def __init__(self, which: int) -> None:
        self.which, self.reduction = which, Reduction()
        self.books: list[Codebook] = []

    def fit_transform(self, videos: Sequence[Video], describe: Describe) -> NDArray[np.float64]:
        faces = describe("key_frames", videos)[:, self.which]
        self.counted = inner(hull_of(videos[0].template), RADIUS)
        self.patch = block_numbers(faces.shape[1])[self.counted]
        pixels = np.bincount(self.patch, minlength=BLOCKS**2)
        share = np.minimum(1.0, PIXELS / np.maximum(pixels * len(faces), 1))[self.patch]
        rng = np.random.default_rng(np.random.SeedSequence([0x1EF, self.which]))
        kept, places = [], []
        for face in faces:
            drawn = rng.random(len(share)) < share
            kept.append(neighbourhoods(face, self.counted)[drawn])
            places.append(self.patch[drawn])
        vectors, patch = np.concatenate(kept), np.concatenate(places)
        self.books = [Codebook.learn(vectors[patch == number]) for number in range(BLOCKS**2)]
        return self.reduction.fit_transform(self._histograms(faces))

    def transform(self, videos: Sequence[Video], describe: Describe) -> NDArray[np.float64]:
        return self.reduction.transform(self._histograms(describe("key_frames", videos)[:, self.which]))

    def _histograms(self, faces: NDArray[np.generic]) -> NDArray[np.float64]:
        """(V,S,S) -> (V, 36 * 64)."""
        rows = []
        for face in faces:
            found = neighbourhoods(face, self.counted)
            rows.append([book.histogram(found[self.patch == k]) for k, book in enumerate(self.books)])
        return flat(np.array(rows))


class IEF(Appearance):
    """Ages from soft codes of the neutral face, or of the neutral and the expressive one (`fusion`)."""

    def encoder(self, which: int) -> FaceEncoder:
        return SoftCodes(which)
