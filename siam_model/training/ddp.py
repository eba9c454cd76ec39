"""One training by several processes that share every batch: a GPU each, or a share of a CPU's cores.

The processes are fresh interpreters, which torch.distributed joins over a file; this one only listens. Its
callbacks are called here, and the result comes from the checkpoint that process 0 writes.
"""

from __future__ import annotations

import dataclasses
import pickle
import queue
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch

from nemo_pipeline.errors import NemoError, ProcessError, SettingsError, from_message, to_message
from nemo_pipeline.platform import allowed_cores
from nemo_pipeline.supervise import Child, Parent
from siam_model.run_folder import RunFolder
from siam_model.training.inputs import FitInputs
from siam_model.training.loop import OnBatch, OnEpoch, Place, Say, train
from siam_model.training.records import EpochRecord
from siam_model.training.resume import TrainingState, load_state


@dataclasses.dataclass(frozen=True, slots=True)
class _Shared:
    """What every process of a training is told.

    Attributes:
        inputs: of the training.
        place: `cuda` or `cpu`, without a number, for the first of them.
        checkpoint: where process 0 saves the state after every epoch.
        meeting: a file by which they find each other; not there yet. (A port that is free now may be taken by then.)
    """

    inputs: FitInputs
    place: Place
    checkpoint: Path
    meeting: Path


def fit_together(
    inputs: FitInputs,
    place: Place,
    checkpoint: Path | None,
    on_epoch: OnEpoch,
    on_batch: OnBatch | None,
    say: Say | None,
) -> TrainingState:
    """The last state of a training by `place.world` processes; arguments as of
    `siam_model.training.loop.train`.

    Raises:
        NemoError: the device cannot be shared, there are not enough, or a process failed or died.
    """
    device, devices = place.device, place.world
    if device.type == "mps" or device.index is not None:
        raise SettingsError(
            f"`devices={devices}` needs `device=cuda` or cpu; {device} is a single one: use `devices=1`.",
            "devices",
        )
    there = torch.cuda.device_count() if device.type == "cuda" else len(allowed_cores())
    if devices > there:
        what = "GPUs" if device.type == "cuda" else "cores"
        raise SettingsError(f"`devices` is {devices}, and this machine has {there} {what}.", "devices")
    if devices > inputs.config.batch_size:
        raise SettingsError(
            f"`devices` is {devices}, and a batch of {inputs.config.batch_size} videos cannot be shared by so many; "
            "take fewer, or a larger train.batch_size.",
            "devices",
            "train.batch_size",
        )
    with tempfile.TemporaryDirectory(prefix="nemo-train-") as folder:
        path = checkpoint or RunFolder(folder).checkpoint
        request = Path(folder) / "request.pickle"  # between processes of ours, in a folder that is ours alone
        shared = _Shared(inputs, place, path, Path(folder) / "meeting")
        request.write_bytes(pickle.dumps(shared))
        news: queue.Queue[tuple[Child, dict[str, Any] | None]] = queue.Queue()
        children: list[Child] = []
        try:
            for rank in range(devices):
                children.append(Child("siam_model.training.ddp", str(request), inbox=news))
                children[-1].send({"rank": rank})
            _listen(devices, news, on_epoch, on_batch, say)
        finally:
            for child in children:
                child.close()  # one that waits for the others answers to nothing else
        state = load_state(path, inputs.fingerprint())
    if state is None:
        raise ProcessError("The training ended without a checkpoint; run it again with `devices=1`.")
    return state


def _listen(
    waiting: int,
    news: queue.Queue[tuple[Child, dict[str, Any] | None]],
    on_epoch: OnEpoch,
    on_batch: OnBatch | None,
    say: Say | None,
) -> None:
    """Pass on what process 0 tells, until every process is done. Raises NemoError when one is not well."""
    while waiting:
        child, message = news.get()
        if message is None:
            raise ProcessError(
                f"A process of the training {child.death().reason}: was its memory short? "
                "Resume it, perhaps with `devices=1`."
            )
        if message["event"] == "epoch":
            on_epoch(EpochRecord(**message["record"]))
        elif message["event"] == "batch" and on_batch is not None:
            on_batch(message["done"], message["total"])
        elif message["event"] == "said" and say is not None:
            say(message["text"])
        elif message["event"] == "done":
            waiting -= 1
        elif message["event"] == "failed":
            raise from_message(message["error"])


def main() -> None:
    """A process of the training."""
    parent = Parent()
    for request in parent.requests():
        try:
            _train(parent, int(request["rank"]), pickle.loads(Path(sys.argv[2]).read_bytes()))
        except NemoError as error:
            parent.send("failed", error=to_message(error))
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{last.name}, line {last.lineno}"
            failed = ProcessError(f"A process of the training failed: {error} ({where})")
            parent.send("failed", error=to_message(failed))
        else:
            parent.send("done")


def _train(parent: Parent, rank: int, shared: _Shared) -> None:
    """The share of process number `rank`."""
    place = dataclasses.replace(shared.place, rank=rank)
    on_gpu = place.device.type == "cuda"
    if on_gpu:
        place = dataclasses.replace(place, device=torch.device("cuda", rank))
        torch.cuda.set_device(place.device)
    else:
        torch.set_num_threads(max(1, len(allowed_cores()) // place.world))

    def on_epoch(record: EpochRecord) -> None:
        parent.send("epoch", record=dataclasses.asdict(record))

    def on_batch(done: int, total: int) -> None:
        parent.send("batch", done=done, total=total)

    def say(text: str) -> None:
        parent.send("said", text=text)

    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=torch.distributed.FileStore(str(shared.meeting), place.world),
        world_size=place.world,
        rank=rank,
    )
    try:
        train(
            shared.inputs,
            place,
            load_state(shared.checkpoint, shared.inputs.fingerprint()),
            shared.checkpoint,
            on_epoch if rank == 0 else None,
            on_batch if rank == 0 else None,
            say if rank == 0 else None,
        )
    finally:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
