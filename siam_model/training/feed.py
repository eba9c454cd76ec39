"""How a training's faces get to its device.

A CPU reads every batch from the file. A GPU would wait for that: it keeps all faces as uint8 where they fit next to the
model; else they are kept in this machine's memory, where they fit, or read from the file, and a thread prepares batches
in pinned memory while the GPU computes. Order and augmentation are the sampler's wherever the faces are.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from nemo_pipeline.platform import memory
from nemo_pipeline.store import FaceDataset
from siam_model.augment import gray_levels, move_tensor
from siam_model.data import Batch, Clips, ClipSample, batch_loader, blocks
from siam_model.devices import free_memory, to_device

Where = Literal["device", "memory", "files"]
#: Part of the free memory that kept faces may take: the rest is the model's, and other processes'.
DEVICE_SHARE, MEMORY_SHARE = 0.5, 0.5
#: Batches that wait for the GPU.
BATCHES_AHEAD = 3
_Item = TypeVar("_Item")


def where_to_keep(needed: int, device_free: float | None, memory_free: float | None) -> Where:
    """Where `needed` bytes of faces are kept, for a device with so much free memory (None: it is the CPU)."""
    if device_free is None:
        return "files"
    if needed <= DEVICE_SHARE * device_free:
        return "device"
    return "memory" if memory_free is not None and needed <= MEMORY_SHARE * memory_free else "files"


class KeptFaces:
    """The faces of some videos as one array.

    Attributes:
        device: it is for.
        there: whether the faces are on it; else they are in this machine's memory.
        frames: (F,S,S) uint8, video after video.
        first: row of the dataset -> where its frames begin.
    """

    def __init__(
        self, dataset: FaceDataset, index: np.ndarray, device: torch.device, *, there: bool = True
    ) -> None:
        self.device, self.there = device, there
        length = dataset.videos["length"][index]
        starts = np.cumsum(length) - length
        self.first = dict(zip(index.tolist(), starts.tolist(), strict=True))
        shape = (int(length.sum()), dataset.size, dataset.size)
        place = device if there else torch.device("cpu")
        self.frames = torch.empty(shape, dtype=torch.uint8, device=place)
        for i, start in self.first.items():
            done = start
            for block in blocks(dataset, i):
                self.frames[done : done + len(block)] = torch.from_numpy(block).to(place)
                done += len(block)

    def batch(self, clips: Clips, chosen: Sequence[ClipSample]) -> Batch:
        """Clips as a batch whose frames (F,S,S) lie one after another, where these are; not augmented."""
        table = clips.table
        places = []
        for clip in chosen:
            start = self.first[int(table.index[clip.row])]
            places.append(start + np.arange(int(table.length[clip.row]))[clip.series(clips.step)])
        place = to_device(torch.from_numpy(np.concatenate(places)), self.frames.device)
        return clips.batch(chosen, self.frames[place], [len(p) for p in places])


def augment_packed(frames: Tensor, lengths: Sequence[int], chosen: Sequence[ClipSample]) -> Tensor:
    """(F,S,S) uint8, clip after clip -> what `augment_frames` makes of each clip, computed where they are."""
    clip = np.repeat(np.arange(len(chosen)), lengths)
    mirror = np.array([c.mirror for c in chosen])
    if mirror.any():
        flags = to_device(torch.from_numpy(mirror[clip]), frames.device)
        frames = torch.where(flags[:, None, None], frames.flip(-1), frames)
    if any(any(c.move) for c in chosen):
        parts = zip(frames.split(list(lengths)), chosen, strict=True)
        frames = torch.cat([move_tensor(part, *c.move) if any(c.move) else part for part, c in parts])
    if any(c.gain != 1.0 for c in chosen):
        levels = np.concatenate([gray_levels(c.gain) for c in chosen])  # (256 B,)
        row = to_device(torch.from_numpy(256 * clip.astype(np.int32)), frames.device)
        frames = to_device(torch.from_numpy(levels), frames.device)[frames.int() + row[:, None, None]]
    return frames


def ahead(items: Iterable[_Item], most: int = BATCHES_AHEAD) -> Iterator[_Item]:
    """The same items, made in a thread while the caller uses earlier ones; `most` of them wait at a time.

    What making one raises is raised here. The thread ends when the caller stops asking.
    """
    waiting: queue.Queue[tuple[_Item | None, BaseException | None]] = queue.Queue(most)
    stopped = threading.Event()

    def put(item: _Item | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return waiting.put((item, error), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item, None)
                if stopped.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:
            put(None, error)

    thread = threading.Thread(target=work, name="nemo-batches", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()


class Feed:
    """Batches of `clips` on a device, from wherever the faces are kept. Lengths and rows stay on the CPU: the model
    works out there which frames exist.

    Attributes:
        kept: the faces; None where they are read from the file.
    """

    def __init__(self, clips: Clips, device: torch.device, workers: int, kept: KeptFaces | None) -> None:
        self.clips, self.device, self.workers, self.kept = clips, device, workers, kept

    def batches(self, order: list[list[ClipSample]]) -> Iterator[Batch]:
        """These batches one after the other."""
        kept = self.kept
        if kept is not None and kept.there:
            for chosen in order:
                yield self._arrived(kept.batch(self.clips, chosen), chosen)
        elif kept is not None:
            prepared = ahead(_pinned((kept.batch(self.clips, chosen) for chosen in order), self.device))
            for batch, chosen in zip(prepared, order, strict=True):
                yield self._arrived(batch, chosen)
        else:
            read = batch_loader(self.clips, order, self.workers)  # augments as it reads
            for batch in ahead(_pinned(read, self.device)) if self.device.type == "cuda" else read:
                yield self._arrived(batch)

    def _arrived(self, batch: Batch, chosen: Sequence[ClipSample] = ()) -> Batch:
        frames = to_device(batch.frames, self.device)
        if chosen:
            frames = augment_packed(frames, batch.lengths.tolist(), chosen)
        age, weight = to_device(batch.age, self.device), to_device(batch.weight, self.device)
        return Batch(frames, batch.lengths, age, batch.row, weight)


def _pinned(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches with their frames in pinned memory, from which a GPU copies by itself."""
    if device.type != "cuda":
        yield from batches
        return
    with torch.cuda.device(device):  # a thread begins on the first GPU
        for batch in batches:
            yield batch._replace(frames=batch.frames.pin_memory())


#: Faces that a GPU keeps serve all folds and trials of this process.
_KEPT: weakref.WeakKeyDictionary[FaceDataset, KeptFaces] = weakref.WeakKeyDictionary()


def make_feed(
    clips: Clips,
    device: torch.device,
    workers: int,
    *,
    processes: int = 1,
    where: Where | None = None,
    say: Callable[[str], None] | None = None,
) -> Feed:
    """A feed whose faces are kept where they fit, which is said in a line where there was a choice.

    Args:
        workers: processes that read, where the faces are read from the file.
        processes: of this training, on this machine: each keeps faces of its own.
        where: keeps them there, whether they fit or not.
    """
    dataset, index = clips.dataset, clips.table.index
    needed = int(dataset.videos["length"][index].sum()) * dataset.size**2
    device_free, own_free = free_memory(device), memory()[1]
    there = _KEPT.get(dataset)
    usable = there is not None and there.device == device and set(index.tolist()) <= there.first.keys()
    if where is None and usable:
        return Feed(clips, device, workers, there)
    chosen = where or where_to_keep(needed, device_free, own_free and own_free / processes)
    if say is not None and device_free is not None:
        text = {
            "device": "kept on the GPU",
            "memory": f"too many for the GPU ({device_free / 1e9:.1f} GB free): kept in this machine's memory",
            "files": "too many for the GPU and for this machine's memory: read from the file in every epoch",
        }[chosen]
        say(f"{needed / 1e9:.1f} GB of faces, {text}.")
    if chosen == "files":
        return Feed(clips, device, workers, None)
    kept = KeptFaces(dataset, index, device, there=chosen == "device")
    if where is None:
        _KEPT[dataset] = kept
    return Feed(clips, device, workers, kept)
