"""A prepared file of synthetic faces without video or tracking: rendered frames, warped by their true
landmarks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.errors import OutputError
from nemo_pipeline.platform import children_at_once, default_workers, library_versions
from nemo_pipeline.store.files import check_h5_name
from nemo_pipeline.synth.mark import GENERATOR_VERSION
from nemo_pipeline.synth.place import held
from nemo_pipeline.synth.plan import SynthConfig, list_clips
from nemo_pipeline.synth.processes import finished_clips
from nemo_pipeline.synth.truth import ClipTruth, load_part, write_truth


def truth_beside(output: Path) -> Path:
    """The truth file of `output`: set.truth.h5 of set.h5, set.hdf5.truth.h5 of set.hdf5."""
    return output.with_name(f"{output.stem if output.suffix == '.h5' else output.name}.truth.h5")


def render_faces(
    output: Path | str,
    subjects: int = 32,
    clips: int = 4,
    seed: int = 0,
    *,
    size: int = 114,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Path:
    """Write faces of synthetic clips to `output`, as `nemo prep` would, and their truth next to it.

    For work on the model: no compression, and no error of tracking. Pixels of the frame still matter
    (`width`, `height`): the face is rendered at them, then warped.

    Args:
        output: the .h5 to write; <name>.truth.h5 is written next to it.
        subjects, clips, seed, settings: see `SynthConfig`.
        size: side of the warped faces, pixels.
        workers: processes; default: the cores that this process may use.
        progress: called with the numbers of finished clips and of clips in all.

    Raises:
        NemoError: bad settings; `output` or its truth exists, or cannot be written.
    """
    from nemo_pipeline.config import PrepConfig
    from nemo_pipeline.store import write_dataset

    config = SynthConfig(subjects=subjects, clips=clips, seed=seed, **settings)
    output = Path(output)
    check_h5_name(output)
    truth_file = truth_beside(output)
    plan = list_clips(config)
    report = progress or (lambda done, total: None)
    truths: list[ClipTruth] = []

    def videos(parts: Path) -> Iterator[dict[str, Any]]:
        """In the plan's order, whichever process is ahead; a part is deleted when it is read."""
        most = children_at_once(min(workers or default_workers(), subjects))
        running = finished_clips(config, plan, most, parts, {"size": size})
        ready: set[int] = set()
        for index, clip in enumerate(plan):
            report(index, len(plan))
            while index not in ready:
                ready.add(next(running))
            path = parts / f"{index}.npz"
            truth, frames = load_part(path)
            path.unlink()
            truths.append(truth)
            eyes = np.linalg.norm(truth.landmarks[:, 45] - truth.landmarks[:, 36], axis=1)
            yield {
                "id": clip.name, "file": truth.video, "frames": frames,
                "landmarks": truth.landmarks, "landmarks_raw": truth.landmarks, "pose": truth.pose,
                "eye_distance_px": eyes, "fps": config.fps, "width": config.width, "height": config.height,
                "n_decoded": len(truth.landmarks),
                "subject": clip.person.code, "age": float(clip.person.age), "gender": clip.person.gender,
                "expression": clip.expression, "condition": clip.condition,
            }  # fmt: skip
        # Before the faces appear: a process that is killed meanwhile leaves neither.
        write_truth(parts / "truth.h5", {"generator_version": GENERATOR_VERSION, **config.to_dict()}, truths)

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"Cannot write to {output.parent}: {error.strerror or error}.", output.parent
        ) from error
    with held(Path(os.path.realpath(output.parent)), output.name, output) as parts:
        for there in (output, truth_file):
            if there.exists():
                raise OutputError(f"{there} exists already; choose another name or remove it.", there)
        path = write_dataset(
            output, videos(parts),
            config=PrepConfig(size=size, mesh=False), synthetic=True, versions=library_versions(),
        )  # fmt: skip
        (parts / "truth.h5").replace(truth_file)
    report(len(plan), len(plan))
    return path
