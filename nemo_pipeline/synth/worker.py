"""The rendering process of `nemo_pipeline.synth.processes`: renders the clips that it is asked for.

A plain process with a pipe, not a fork: OpenCV's and x264's threads do not survive forks, and a caller's main
module need not be importable. Answers a "clip" with its index for each that is finished, then "done"; or "error".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_pipeline.supervise import Parent
from nemo_pipeline.synth.clips import render_clips, warped_clips
from nemo_pipeline.synth.plan import SynthConfig, list_clips
from nemo_pipeline.synth.truth import ClipTruth, save_part


def main() -> None:
    """Serve requests (see the module's text). Keys: config, clips (indices), parts, and either directory
    (for mp4 files) or size (for warped faces of that side)."""
    parent = Parent()
    for request in parent.requests():
        try:
            for index in _rendered(request):
                parent.send("clip", index=index)
        except Exception as error:
            parent.send("error", message=f"{type(error).__name__}: {error}")
        else:
            parent.send("done")


def _rendered(request: dict[str, Any]) -> Iterator[int]:
    """Render a request's clips; yields the index of each when it is on disk."""
    config = config_from(request["config"])
    everything, parts = list_clips(config), Path(request["parts"])
    clips = [everything[index] for index in request["clips"]]
    if "directory" in request:
        done: Iterator[ClipTruth] = render_clips(config, clips, Path(request["directory"]))
        for index, truth in zip(request["clips"], done, strict=True):
            save_part(parts / f"{index}.npz", truth)
            yield index
    else:
        faces = warped_clips(config, clips, int(request["size"]))
        for index, (truth, frames) in zip(request["clips"], faces, strict=True):
            save_part(parts / f"{index}.npz", truth, frames)
            yield index


def config_from(values: dict[str, Any]) -> SynthConfig:
    """SynthConfig from JSON (lists back to tuples)."""
    fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return SynthConfig(**fields)


if __name__ == "__main__":
    main()
