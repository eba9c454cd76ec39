"""A whole synthetic set: clips, labels.csv and truth.h5 in one folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemo_pipeline.errors import OutputError
from nemo_pipeline.platform import children_at_once, default_workers
from nemo_pipeline.store.files import replacing, sweep
from nemo_pipeline.synth.label_files import write_details, write_labels
from nemo_pipeline.synth.mark import GENERATOR_VERSION, MARK, mark_text
from nemo_pipeline.synth.place import held, open_as_folder
from nemo_pipeline.synth.plan import SynthConfig, list_clips
from nemo_pipeline.synth.processes import finished_clips
from nemo_pipeline.synth.truth import ClipTruth, load_part, write_truth


@dataclasses.dataclass(frozen=True, slots=True)
class SynthSet:
    """What was written."""

    directory: Path
    clips: tuple[Path, ...]
    labels: Path
    truth: Path
    frames: int
    config: SynthConfig


def render_set(
    directory: Path | str,
    subjects: int = 32,
    clips: int = 4,
    seed: int = 0,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> SynthSet:
    """Render a set of clips with known ages and known landmarks.

    The same settings give the same files whatever the number of processes. A set that was broken off is
    completed.

    Args:
        directory: a new or empty folder, or one that holds the same set already.
        subjects, clips, seed, settings: see `SynthConfig`.
        workers: processes; default: the cores that this process may use.
        progress: called with the numbers of finished clips and of clips in all.

    Raises:
        NemoError: bad settings; the folder holds something else, or another process is using it.

    Warns:
        UserWarning: a label file was changed since it was made, and is left as it is.
    """
    config = SynthConfig(subjects=subjects, clips=clips, seed=seed, **settings)
    directory = Path(directory)
    _claim(directory, config)
    plan = list_clips(config)
    workers = children_at_once(min(workers or default_workers(), subjects))
    report = progress or (lambda done, total: None)
    with held(directory, MARK, directory) as parts:
        sweep(directory)
        report(0, len(plan))
        truths: list[ClipTruth] = []
        try:
            if workers <= 1:
                from nemo_pipeline.synth.clips import render_clips

                for truth in render_clips(config, plan, directory):
                    truths.append(truth)
                    report(len(truths), len(plan))
            else:
                request = {"directory": str(directory)}
                for done, _ in enumerate(finished_clips(config, plan, workers, parts, request), start=1):
                    report(done, len(plan))
                truths = [load_part(parts / f"{index}.npz")[0] for index in range(len(plan))]
        finally:
            sweep(directory)
        labels, truth_file = directory / "labels.csv", directory / "truth.h5"
        write_labels(labels, plan)
        if config.nemo_layout:
            write_details(directory, plan)
        write_truth(truth_file, {"generator_version": GENERATOR_VERSION, **config.to_dict()}, truths)
    videos = tuple(directory / f"{clip.name}.mp4" for clip in plan)
    return SynthSet(directory, videos, labels, truth_file, sum(len(t.landmarks) for t in truths), config)


def _claim(directory: Path, config: SynthConfig) -> None:
    """Make the folder ours, or say why not."""
    mark = directory / MARK
    text = mark_text(config.to_dict())
    if directory.exists() and not directory.is_dir():
        raise OutputError(f"{directory} is a file; name a folder for the synthetic clips.", directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if mark.exists():
            if mark.read_text(encoding="utf-8") != text:
                raise OutputError(
                    f"{directory} holds a synthetic set with other settings; name another folder, "
                    "or delete this one.",
                    directory,
                )
            return
        if any(not path.name.startswith(f".{MARK}.") for path in directory.iterdir()):
            raise OutputError(
                f"{directory} is not empty and holds no synthetic set; name a new or empty folder, "
                "so that nothing of yours is overwritten.",
                directory,
            )
        with replacing(mark) as part:
            part.write_text(text, encoding="utf-8")
            open_as_folder(part)
    except OSError as error:
        raise OutputError(f"Cannot write to {directory}: {error.strerror or error}.", directory) from error
