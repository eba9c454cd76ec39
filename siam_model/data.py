"""From out.h5 to batches: which videos can be learnt from, their standardisation, batches of like length."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nemo_pipeline.errors import DataError
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.marked import MarkedFaces
from nemo_pipeline.store.text import escape_controls
from siam_model.augment import augment_frames, sample_crops, sample_gain, sample_move
from siam_model.config import TrainConfig

#: Ages outside this range are a mistake in a label file (months, a year of birth, 999 for unknown).
AGE_RANGE = (0.0, 125.0)
#: Frames that are read at a time: 3.3 MB of faces of 114 pixels.
READ_FRAMES = 256
_HOW_TO_LABEL = (
    "add the labels with `nemo label {file} FILE`, where FILE is the database's own details file or a CSV with "
    "the columns video, subject, age"
)


@dataclasses.dataclass(frozen=True, slots=True)
class VideoTable:
    """The videos of a file that can be learnt from, one row each.

    Attributes:
        index: (V,) position in the FaceDataset.
        id: V ids, unique.
        subject: V subject codes, none empty.
        age: (V,) float64, years.
        gender: V texts, "" where unknown.
        fold: (V,) int, -1 where the file names none.
        length: (V,) frames.
        file: V names of the recordings; empty where they are not known.
        dropped: how many usable videos were left out since they have no age or no subject.
    """

    index: np.ndarray
    id: tuple[str, ...]
    subject: tuple[str, ...]
    age: np.ndarray
    gender: tuple[str, ...]
    fold: np.ndarray
    length: np.ndarray
    file: tuple[str, ...] = ()
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.id)

    def rows_of(self, subjects: Iterable[str]) -> np.ndarray:
        """Rows of all videos of these subjects, in the table's order."""
        wanted = set(subjects)
        return np.flatnonzero([s in wanted for s in self.subject])


def labelled_videos(dataset: FaceDataset) -> VideoTable:
    """The usable videos of `dataset` that have a subject and an age.

    Raises:
        NemoError: no video is labelled (what is missing, and how to add it), or an age is impossible.
    """
    columns, file = dataset.videos, escape_controls(str(dataset.path))
    how = _HOW_TO_LABEL.format(file=file)
    usable = np.asarray(dataset.usable, dtype=np.int64)
    if not len(usable) and isinstance(dataset, MarkedFaces) and dataset.exclusions:
        marks = dataset.exclusions.file
        raise DataError(f"{marks} leaves out every video of {file}; `marks=none` ignores it.", dataset.path)
    if not len(usable):
        raise DataError(
            f"{file} holds no video with frames; look at the statuses with `nemo info {file}`.", file
        )
    age = np.asarray(columns["age"], dtype=np.float64)[usable]
    subject = [str(columns["subject"][i]).strip() for i in usable]
    has_age, has_subject = np.isfinite(age), np.array([bool(s) for s in subject])
    if not has_age.any():
        raise DataError(f"{file} has no ages, so there is nothing to learn from; {how}.", dataset.path)
    if not (has_age & has_subject).any():
        raise DataError(
            f"{file} has ages but does not say which videos show the same person, so training and test could share "
            f"one; {how}.",
            file,
        )
    wrong = has_age & ((age < AGE_RANGE[0]) | (age > AGE_RANGE[1]))
    if wrong.any():
        name = escape_controls(str(columns["id"][usable[wrong][0]]))
        raise DataError(
            f"{file} gives {name} an age of {age[wrong][0]:g} years, which cannot be right; correct it with "
            f"`nemo label {file} FILE`.",
            file,
        )
    rows = np.flatnonzero(has_age & has_subject)
    index = usable[rows]
    return VideoTable(
        index=index,
        id=tuple(str(columns["id"][i]) for i in index),
        subject=tuple(subject[r] for r in rows),
        age=age[rows],
        gender=tuple(str(columns["gender"][i]) for i in index),
        fold=np.asarray(columns["fold"], dtype=np.int64)[index],
        length=np.asarray(columns["length"], dtype=np.int64)[index],
        file=tuple(str(columns["file"][i]) for i in index),
        dropped=len(usable) - len(rows),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and deviation of the gray levels (0..255) of the training part: one number each for all pixels."""

    mean: float
    deviation: float

    def __call__(self, frames: Tensor) -> Tensor:
        """uint8 frames of any shape -> float32, (x - mean) / deviation."""
        return (frames.to(torch.float32) - self.mean) / self.deviation


def measure_normalisation(dataset: FaceDataset, index: Sequence[int] | np.ndarray) -> Normalisation:
    """Over all pixels of the given videos, by a histogram: exact, the same in any order, and a block of frames in
    memory at a time."""
    counts = np.zeros(256, dtype=np.int64)
    for i in index:
        for block in blocks(dataset, int(i)):
            counts += np.bincount(block.ravel(), minlength=256)
    levels = np.arange(256, dtype=np.float64)
    mean = float((counts * levels).sum() / counts.sum())
    deviation = float(np.sqrt((counts * (levels - mean) ** 2).sum() / counts.sum()))
    return Normalisation(mean, max(deviation, 1.0))  # a constant set has no deviation to divide by


def blocks(
    dataset: FaceDataset, index: int, phase: int = 0, step: int = 1, stop: int | None = None
) -> Iterator[np.ndarray]:
    """Frames `phase`, `phase + step`, ... below `stop` (None: all) of one video, as (n,S,S) uint8 pieces read one after
    the other."""
    length, size = int(dataset.videos["length"][index]), READ_FRAMES - READ_FRAMES % step or step
    length = length if stop is None else min(stop, length)
    for start in range(phase, length, size):
        yield np.asarray(dataset.read(index, "frames", start, min(start + size, length)))[::step]


class ClipSample(NamedTuple):
    """What to read, and how it counts.

    `row` of the table; which of its interleaved series (frames phase, phase + step, ... below `stop`, None: all);
    `mirror`, `gain` and `move` as `siam_model.augment.augment_frames` takes them; `weight`: its factor in the batch's
    loss.
    """

    row: int
    phase: int
    mirror: bool = False
    gain: float = 1.0
    weight: float = 1.0
    move: tuple[float, float, float] = (0.0, 0.0, 0.0)
    stop: int | None = None

    def series(self, step: int) -> slice:
        """Its frames, every `step`-th."""
        return slice(self.phase, self.stop, step)


class Batch(NamedTuple):
    """Videos of one step: frames (B,T,S,S) uint8, zero beyond a length; lengths (B,) int64; age (B,) float32;
    row (B,) int64 in the table; weight (B,) float32, such that the sum of weight times error is the batch's loss."""

    frames: Tensor
    lengths: Tensor
    age: Tensor
    row: Tensor
    weight: Tensor


class Clips(Dataset):
    """Reads clips. Holds no open file of its own: `FaceDataset` opens shards in the process that reads."""

    def __init__(self, dataset: FaceDataset, table: VideoTable, step: int) -> None:
        self.dataset, self.table, self.step = dataset, table, step

    def __getitem__(self, clip: ClipSample) -> tuple[Tensor, float, int]:
        """(T,S,S) uint8, age in years, row."""
        batch = self.__getitems__([clip])
        return batch.frames[0], float(self.table.age[clip.row]), clip.row

    def __getitems__(self, clips: Sequence[ClipSample]) -> Batch:
        """The clips as one zero-padded batch. Frames go from the file to their place in it block by block, so that a
        clip of minutes is in memory once."""
        lengths = [len(range(*c.series(self.step).indices(int(self.table.length[c.row])))) for c in clips]
        size = self.dataset.size
        frames = torch.zeros((len(clips), max(lengths), size, size), dtype=torch.uint8)
        for place, clip in zip(frames.numpy(), clips, strict=True):
            done = 0
            index = int(self.table.index[clip.row])
            for block in blocks(self.dataset, index, clip.phase, self.step, clip.stop):
                place[done : done + len(block)] = augment_frames(block, clip.mirror, clip.gain, clip.move)
                done += len(block)
        return self.batch(clips, frames, lengths)

    def batch(self, clips: Sequence[ClipSample], frames: Tensor, lengths: Sequence[int]) -> Batch:
        """Frames of clips, with what the table says of them."""
        rows = [clip.row for clip in clips]
        return Batch(
            frames,
            torch.tensor(lengths),
            torch.tensor(self.table.age[rows], dtype=torch.float32),
            torch.tensor(rows),
            torch.tensor([clip.weight for clip in clips], dtype=torch.float32),
        )


class LengthBuckets(Sampler[list[ClipSample]]):
    """Batches of clips of like length, shuffled again in every epoch.

    Lengths are compared with a random factor of up to a quarter either way, so that neighbours change from
    epoch to epoch while little is padded. The order, the augmentation and the weights depend on (seed, epoch)
    alone: they can be produced again at any epoch, in any process.

    Args:
        config: batch size, temporal stride and augmentation.
        weights: (len(rows),) with mean 1, of the rows in the loss; None: all equal.
    """

    def __init__(
        self,
        table: VideoTable,
        rows: np.ndarray,
        config: TrainConfig,
        seed: Sequence[int],
        epoch: int,
        weights: np.ndarray | None = None,
    ) -> None:
        rng = np.random.default_rng(np.random.SeedSequence([*seed, epoch]))
        length = table.length[rows]
        order = np.argsort(length * rng.uniform(0.75, 1.25, len(rows)), kind="stable")
        phase = rng.integers(0, np.minimum(config.temporal_stride, length))
        batch_size = config.batch_size
        shuffle = rng.permutation(-(-len(rows) // batch_size))
        # Drawn last, so that switching augmentation on leaves order and phases as they were.
        mirrored = rng.random(len(rows)) < 0.5 if config.augment_mirror else np.zeros(len(rows), dtype=bool)
        brightness = config.augment_brightness
        gain = sample_gain(rng, brightness, len(rows)) if brightness else np.ones(len(rows))
        move = np.zeros((len(rows), 3))
        if config.augment_turn or config.augment_shift:
            move = sample_move(rng, config.augment_turn, config.augment_shift, len(rows))
        weight = np.ones(len(rows)) if weights is None else weights
        stop: list[int | None] = [None] * len(rows)
        if config.temporal_crop:
            first, after = sample_crops(rng, config.temporal_crop, length)
            phase = first + phase % np.minimum(config.temporal_stride, after - first)
            stop = after.tolist()
        batches = []
        for start in range(0, len(rows), batch_size):
            part = order[start : start + batch_size]
            batches.append(
                [
                    ClipSample(
                        int(rows[i]), int(phase[i]), bool(mirrored[i]), float(gain[i]),
                        float(weight[i]) / len(part), tuple(move[i].tolist()), stop[i],
                    )
                    for i in part
                ]
            )  # fmt: skip
        self.batches = [batches[i] for i in shuffle]

    def __iter__(self) -> Iterator[list[ClipSample]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def shared(batches: Iterable[list[ClipSample]], rank: int, world: int) -> list[list[ClipSample]]:
    """The part of every batch that process `rank` of `world` takes.

    The mean of all processes' losses is the whole batch's loss: weights are multiplied by `world`. A process for which
    a small batch leaves nothing gets its first clip with weight 0, since every process has to take every step.
    """
    if world == 1:
        return list(batches)
    parts = []
    for batch in batches:
        mine = [clip._replace(weight=clip.weight * world) for clip in batch[rank::world]]
        parts.append(mine or [batch[0]._replace(weight=0.0)])
    return parts


def validation_order(
    clips: Clips, rows: np.ndarray, batch_size: int, rank: int = 0, world: int = 1
) -> list[list[ClipSample]]:
    """The middle series of every video once, sorted by length."""
    length = clips.table.length[rows]
    order = rows[np.argsort(length, kind="stable")]
    keys = [ClipSample(int(r), int(min(clips.step // 2, clips.table.length[r] - 1))) for r in order]
    batches = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    return shared(batches, rank, world)


def batch_loader(clips: Clips, batches: list[list[ClipSample]], workers: int) -> DataLoader:
    """Reads whole batches in their order. Its own generator, so that reading draws nothing from torch's global one:
    what is drawn there belongs to dropout alone, whatever the number of workers."""
    return DataLoader(
        clips,
        batch_sampler=batches,
        collate_fn=_as_it_is,
        num_workers=workers,
        generator=torch.Generator(),
    )


def _as_it_is(batch: Any) -> Any:
    """`Clips` gives whole batches; module-level, so that it can be sent to a process."""
    return batch
