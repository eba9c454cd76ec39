"""One training by several processes that share every batch: a GPU each (or a CPU's cores, with `--device cpu`).

The processes are fresh interpreters, which Lightning's DDP strategy joins over a local port; this one only listens.
Its callbacks are called here, and the result comes from the checkpoint that process 0 writes.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import socket
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

import torch

from nemo_pipeline.errors import NemoError
from siam_model.config import SIAMConfig
from siam_model.training.process import run
from siam_model.training.resume import State, load_state
from siam_model.training.task import Lesson, OnBatch, OnEpoch


def fit_together(
    lesson: Lesson,
    model_config: SIAMConfig,
    device: torch.device,
    devices: int,
    checkpoint: Path | None,
    prints: dict[str, str],
    precision: str,
    on_epoch: OnEpoch,
    on_batch: OnBatch | None,
) -> State:
    """The last state of a training by `devices` processes; arguments as `siam_model.training.process.run` takes them.

    Raises:
        NemoError: the device cannot be shared, there are not enough, or a process failed or died.
    """
    if device.type == "mps" or device.index is not None:
        raise NemoError(
            f"--devices {devices} needs --device cuda or cpu; {device} is a single one: use --devices 1."
        )
    there = torch.cuda.device_count() if device.type == "cuda" else len(os.sched_getaffinity(0))
    if devices > there:
        what = "GPUs" if device.type == "cuda" else "cores"
        raise NemoError(f"--devices is {devices}, and this machine has {there} {what}.")
    if devices > lesson.config.batch_size:
        raise NemoError(
            f"--devices is {devices}, and a batch of {lesson.config.batch_size} videos cannot be shared by so many; "
            "take fewer, or a larger train.batch_size."
        )
    with tempfile.TemporaryDirectory(prefix="nemo-train-") as folder:
        path = checkpoint or Path(folder) / "checkpoint.pt"
        context = multiprocessing.get_context("spawn")
        told: Any = context.Queue()
        common = (lesson, model_config, device.type, path, prints, precision, devices, _free_port())
        processes = [
            context.Process(target=_member, args=(rank, told, *common), daemon=not lesson.workers)
            for rank in range(devices)
        ]
        try:
            for process in processes:
                process.start()
            _listen(processes, told, on_epoch, on_batch)
        finally:
            for process in processes:
                if process.is_alive():
                    process.kill()  # one that waits for the others answers to nothing else
                if process.pid is not None:
                    process.join()
        state = load_state(path, prints)
    if state is None:
        raise NemoError("The training ended without a checkpoint; run it again with --devices 1.")
    return state


def _listen(processes: list[Any], told: Any, on_epoch: OnEpoch, on_batch: OnBatch | None) -> None:
    """Pass on what process 0 tells, until every process is done. Raises NemoError when one is not well."""
    waiting = len(processes)
    while waiting:
        try:
            kind, value = told.get(timeout=0.5)
        except queue.Empty:
            dead = [p for p in processes if p.exitcode not in (None, 0)]
            if dead and told.empty():
                raise NemoError(
                    f"A process of the training died (exit code {dead[0].exitcode}): was its memory short? "
                    "Run it again with --resume, perhaps with --devices 1."
                ) from None
            continue
        if kind == "epoch":
            on_epoch(value)
        elif kind == "batch" and on_batch is not None:
            on_batch(*value)
        elif kind == "done":
            waiting -= 1
        elif kind == "wrong":
            raise NemoError(value)


def _member(
    rank: int,
    told: Any,
    lesson: Lesson,
    model_config: SIAMConfig,
    device: str,
    checkpoint: Path,
    prints: dict[str, str],
    precision: str,
    world: int,
    port: int,
) -> None:
    """A process of the training, number `rank`."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "NODE_RANK": "0",
    }  # fmt: skip
    if device == "cpu":
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run(
            lesson, model_config, torch.device(device), load_state(checkpoint, prints), checkpoint, prints, precision,
            (lambda record: told.put(("epoch", record))) if rank == 0 else None,
            (lambda done, total: told.put(("batch", (done, total)))) if rank == 0 else None,
            world, rank,
        )  # fmt: skip
    except KeyboardInterrupt:
        return
    except NemoError as error:
        told.put(("wrong", str(error)))
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        told.put(("wrong", f"A process of the training failed: {error} ({last.name}, line {last.lineno})"))
    else:
        told.put(("done", rank))


def _end_with_parent() -> None:
    """A parent that was killed cannot end its processes: they end themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _free_port() -> int:
    """A local port that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
