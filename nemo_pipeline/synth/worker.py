"""`python -m nemo_pipeline.synth.worker PARENT`: renders clips for the process PARENT, and ends when that does.

A plain process with a pipe, not a fork: OpenCV's and x264's threads do not survive forks, and a caller's main
module need not be importable. The request comes as one JSON line on standard input; one JSON line per
finished clip goes to standard output; an error ends it with a line that says so.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from nemo_pipeline.machine import die_with_parent
from nemo_pipeline.synth.clips import render_clips, warped_clips
from nemo_pipeline.synth.plan import SynthConfig, list_clips
from nemo_pipeline.synth.truth import ClipTruth, save_part


def main() -> int:
    """Serve one request (see the module's text). Keys: config, clips (indices), parts, and either directory
    (for mp4 files) or size (for warped faces of that side)."""
    die_with_parent(int(sys.argv[1]))
    # An interrupt from the keyboard is for the parent, who ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request = json.loads(sys.stdin.readline())
    # The answers go to a private copy of standard output; whatever a library prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        config = config_from(request["config"])
        everything, parts = list_clips(config), Path(request["parts"])
        clips = [everything[index] for index in request["clips"]]
        if "directory" in request:
            done: Iterator[ClipTruth] = render_clips(config, clips, Path(request["directory"]))
            for index, truth in zip(request["clips"], done, strict=True):
                save_part(parts / f"{index}.npz", truth)
                _answer(answers, {"clip": index})
        else:
            faces = warped_clips(config, clips, int(request["size"]))
            for index, (truth, frames) in zip(request["clips"], faces, strict=True):
                save_part(parts / f"{index}.npz", truth, frames)
                _answer(answers, {"clip": index})
    except BrokenPipeError:  # the parent is gone
        return 1
    except Exception as error:
        _answer(answers, {"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def _answer(answers: TextIO, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


def config_from(values: dict[str, Any]) -> SynthConfig:
    """SynthConfig from JSON (lists back to tuples)."""
    fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return SynthConfig(**fields)


if __name__ == "__main__":
    sys.exit(main())
