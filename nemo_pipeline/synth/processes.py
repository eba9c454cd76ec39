"""Rendering shared among processes."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import ProcessError
from nemo_pipeline.supervise import ONE_THREAD, Child
from nemo_pipeline.synth.plan import ClipPlan, SynthConfig


def finished_clips(
    config: SynthConfig, plan: list[ClipPlan], workers: int, parts: Path, request: dict[str, Any]
) -> Iterator[int]:
    """Render all clips of `plan` in `workers` processes; yields the index of each as it is finished.

    Each finished clip has left `parts/<index>.npz`. All clips of a subject are made by one process, subjects
    in turn, so that the processes advance through the plan side by side.

    Args:
        config, plan: what to render; `plan` is `list_clips(config)`.
        workers: processes.
        parts: existing folder.
        request: what else `nemo_pipeline.synth.worker` is to know.

    Raises:
        NemoError: a process failed; the others are ended.
    """
    shares: list[list[int]] = [[] for _ in range(workers)]
    for index, clip in enumerate(plan):
        shares[clip.person.index % workers].append(index)
    answers: queue.Queue[tuple[Child, dict[str, Any] | None]] = queue.Queue()
    children: list[Child] = []
    try:
        for share in shares:
            children.append(Child("nemo_pipeline.synth.worker", environment=ONE_THREAD, inbox=answers))
            children[-1].send({"config": config.to_dict(), "clips": share, "parts": str(parts), **request})
        running = len(children)
        while running:
            child, answer = answers.get()
            if answer is None:
                raise ProcessError(f"Rendering failed: a rendering process {child.death().reason}.")
            if answer["event"] == "error":
                raise ProcessError(f"Rendering failed: {answer['message']}.")
            if answer["event"] == "clip":
                yield int(answer["index"])
            else:  # "done"
                running -= 1
    finally:
        for child in children:  # none is left that writes
            child.close()
