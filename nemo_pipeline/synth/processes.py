"""Rendering shared among processes."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import NemoError
from nemo_pipeline.machine import child_command
from nemo_pipeline.synth.plan import Clip, SynthConfig


def finished_clips(
    config: SynthConfig, plan: list[Clip], workers: int, parts: Path, request: dict[str, Any]
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
    answers: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def listen(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(json.loads(line))
        if process.wait() != 0:
            answers.put({"error": f"a rendering process ended with code {process.returncode}"})
        answers.put(None)

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    processes: list[subprocess.Popen[str]] = []
    try:
        for share in shares:
            process = subprocess.Popen(
                child_command("nemo_pipeline.synth.worker", str(os.getpid())),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                env=environment,
            )
            processes.append(process)
            line = json.dumps({"config": config.to_dict(), "clips": share, "parts": str(parts), **request})
            assert process.stdin is not None
            process.stdin.write(line + "\n")
            process.stdin.close()
            threading.Thread(target=listen, args=(process,), daemon=True).start()
        running = len(processes)
        while running:
            answer = answers.get()
            if answer is None:
                running -= 1
            elif "error" in answer:
                raise NemoError(f"Rendering failed: {answer['error']}.")
            else:
                yield int(answer["clip"])
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
        for process in processes:  # none is left that writes
            process.wait()
