"""`nemo synth`: synthetic smile clips with known ages and known landmarks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rich_click as click

from .console import err, new_progress, print_json, say


@contextmanager
def clips_progress() -> Iterator[Callable[[int, int], None]]:
    """A callback (done, total) that shows a bar on a terminal, and a line now and then elsewhere."""
    if not err.is_terminal:
        last = 0.0

        def lines(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > 10 or done == total:
                last = time.monotonic()
                say(f"rendered {done} of {total} clips")

        yield lines
        return
    with new_progress("clips") as bar:
        task = bar.add_task("render", total=1, note="")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def parse_size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    """WIDTHxHEIGHT to two numbers."""
    try:
        width, height = (int(part) for part in value.lower().split("x"))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no WIDTHxHEIGHT, such as 1920x1080.") from None
    return width, height


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR", required=False)
@click.option("--direct", type=click.Path(path_type=Path, dir_okay=False), metavar="OUT.h5",
              help="Write warped faces straight into a prepared file, without video and tracking.")  # fmt: skip
@click.option("--subjects", type=int, default=32, show_default=True, help="How many people.")
@click.option("--clips", type=int, default=4, show_default=True, help="Clips of each person.")
@click.option("--seed", type=int, default=0, show_default=True,
              help="Decides everything by chance. Equal seeds give equal clips.")  # fmt: skip
@click.option("--size", default="320x320", show_default=True, metavar="WxH", callback=parse_size,
              help="Pixels of a frame, up to 1920x1080 and beyond.")  # fmt: skip
@click.option("--fps", type=float, default=25.0, show_default=True, help="Frames per second.")
@click.option("--ages", type=(int, int), default=(8, 76), show_default=True, metavar="YOUNGEST OLDEST",
              help="Spread evenly over this range.")  # fmt: skip
@click.option("--appearance", type=float, default=1.0, show_default=True,
              help="How strongly age shows on the skin; 0: not at all.")  # fmt: skip
@click.option("--dynamics", type=float, default=1.0, show_default=True,
              help="How strongly age shows in speed, size and duration; 0: not at all.")  # fmt: skip
@click.option("--balanced", is_flag=True,
              help="Same set of intensities in every clip, in an order that depends on age.")  # fmt: skip
@click.option(
    "--expression", type=click.Choice(["smile", "disgust", "both"]), default="smile", show_default=True
)
@click.option("--motion", type=float, default=1.0, show_default=True, help="Factor on head movement.")
@click.option("--noise", type=float, default=1.0, show_default=True, help="Factor on camera noise.")
@click.option("--quality", type=int, default=20, show_default=True,
              help="Compression: x264's constant rate factor; lower is better.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), help="Processes. Default: the cores that may be used.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def command(
    directory: Path | None,
    direct: Path | None,
    subjects: int,
    clips: int,
    seed: int,
    size: tuple[int, int],
    fps: float,
    ages: tuple[int, int],
    appearance: float,
    dynamics: float,
    balanced: bool,
    expression: str,
    motion: float,
    noise: float,
    quality: int,
    workers: int | None,
    as_json: bool,
) -> None:
    """Render synthetic smile clips into DIR (new or empty), with labels.csv and truth.h5.

    Every face is made from one public-domain portrait. Ages are what the lines on the skin and the course of
    the smile
    were set to: nothing learnt here says anything about people.
    """
    from nemo_pipeline.synth import render_faces, render_set

    if (directory is None) == (direct is None):
        raise click.UsageError("give a folder for clips, or --direct OUT.h5 for faces without clips.")
    begun = time.monotonic()
    settings: dict[str, Any] = {
        "width": size[0], "height": size[1], "fps": fps, "ages": ages, "appearance": appearance,
        "dynamics": dynamics, "balanced": balanced, "expression": expression, "motion": motion,
        "noise": noise, "quality": quality,
    }  # fmt: skip
    if direct is not None:
        with clips_progress() as progress:
            file = render_faces(direct, subjects, clips, seed, workers=workers, progress=progress, **settings)
        truth = file.with_suffix(".truth.h5")
        if as_json:
            print_json({"output": str(file), "truth": str(truth), "synthetic": True})
        say(f"{subjects * clips} synthetic clips of {subjects} subjects in {time.monotonic() - begun:.1f} s.")
        say(f"Warped faces: {file}")
        say(f"Known landmarks, pose and phases: {truth}")
        return
    assert directory is not None
    with clips_progress() as progress:
        made = render_set(directory, subjects, clips, seed, workers=workers, progress=progress, **settings)
    seconds = time.monotonic() - begun
    if as_json:
        print_json(
            {
                "directory": str(made.directory),
                "labels": str(made.labels),
                "truth": str(made.truth),
                "synthetic": True,
                "clips": [str(path) for path in made.clips],
                "frames": made.frames,
                "seconds": seconds,
            }
        )
    say(
        f"{len(made.clips)} synthetic clips of {subjects} subjects, {made.frames} frames, in {seconds:.1f} s."
    )
    say(f"Clips: {directory}")
    say(f"Ages and other labels: {made.labels}")
    say(f"Known landmarks, pose and phases: {made.truth}")
