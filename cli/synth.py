"""`nemo synth`: synthetic smile clips with known ages and known landmarks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rich_click as click

from nemo_pipeline.store.text import pluralize

from .console import err, new_progress, print_json, say
from .progress import stop_on_signals


@contextmanager
def clips_progress() -> Iterator[Callable[[int, int], None]]:
    """A callback (done, total) that shows a bar on a terminal, and a line now and then elsewhere."""
    if not err.is_terminal:
        last = 0.0

        def lines(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > 10 or done == total:
                last = time.monotonic()
                say(f"rendered {done} of {pluralize(total, 'clip')}")

        yield lines
        return
    with new_progress("clips") as bar:
        task = bar.add_task("render", total=1, note="")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def parse_size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    """WIDTHxHEIGHT to two numbers."""
    match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", value.strip().lower())
    if match is None:
        raise click.BadParameter(f"{value!r} is not of the form WIDTHxHEIGHT, such as 1920x1080.")
    return int(match[1]), int(match[2])


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR", required=False)
@click.option("--direct", type=click.Path(path_type=Path, dir_okay=False), metavar="OUT.h5",
              help="Write warped faces straight into a prepared file, without video and tracking.")  # fmt: skip
@click.option("--profile", type=click.Choice(["even", "nemo"]), default="even", show_default=True,
              help="nemo: 400 subjects and 1240 clips, by decade, gender and condition as in the UvA-NEMO smile "
                   "database.")  # fmt: skip
@click.option("--nemo-layout", is_flag=True,
              help="That database's file names, and its two details files next to labels.csv.")  # fmt: skip
@click.option(
    "--subjects", type=int, help="Number of synthetic subjects. Default: 32; 400 with the profile nemo."
)
@click.option("--clips", type=int, help="Clips per subject. Default: 4; the profile nemo has its own.")
@click.option("--seed", type=int, default=0, show_default=True,
              help="Random seed. Equal seeds give equal clips.")  # fmt: skip
@click.option("--size", default="320x320", show_default=True, metavar="WxH", callback=parse_size,
              help="Pixels of a frame, up to 1920x1080 and beyond.")  # fmt: skip
@click.option("--fps", type=float, default=25.0, show_default=True, help="Frames per second.")
@click.option("--seconds", type=(float, float), default=(2.0, 2.6), show_default=True,
              metavar="SHORTEST LONGEST",
              help="How long a clip is (at least 20 frames); chance decides, never age.")  # fmt: skip
@click.option("--ages", type=(int, int), metavar="YOUNGEST OLDEST",
              help="Spread evenly over this range. Default: 8 76, beyond which age shows no further.")  # fmt: skip
@click.option("--appearance", type=float, default=1.0, show_default=True,
              help="How strongly age shows on the skin; 0: not at all.")  # fmt: skip
@click.option("--dynamics", type=float, default=1.0, show_default=True,
              help="How strongly age shows in speed, size and duration; 0: not at all.")  # fmt: skip
@click.option("--balanced", is_flag=True,
              help="Same set of intensities in every clip, in an order that depends on age; posed and spontaneous are "
                   "then names alone.")  # fmt: skip
@click.option(
    "--expression", type=click.Choice(["smile", "disgust", "both"]), default="smile", show_default=True
)
@click.option("--face", type=(float, float), default=(0.21, 0.29), show_default=True, metavar="SMALLEST LARGEST",
              help="Distance of the outer eye corners, as a fraction of the frame's shorter side.")  # fmt: skip
@click.option("--motion", type=float, default=1.0, show_default=True,
              help="Factor on head movement, up to 4; above 2 the far jaw line's ground truth is inexact.")  # fmt: skip
@click.option("--noise", type=float, default=1.0, show_default=True, help="Factor on camera noise.")
@click.option("--quality", type=int, default=20, show_default=True,
              help="Compression: x264's constant rate factor; lower is better.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), help="Processes. Default: the cores that may be used.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def command(
    directory: Path | None, direct: Path | None, workers: int | None, as_json: bool, **options: Any
) -> None:
    """Render synthetic smile clips into DIR (new or empty), with labels.csv and truth.h5.

    Every face is made from one public-domain portrait. Ages are what the lines on the skin and the course of
    the smile
    were set to: nothing learnt here says anything about people.
    """
    from nemo_pipeline.synth import render_faces, render_set
    from nemo_pipeline.synth.direct import truth_beside
    from nemo_pipeline.synth.plan import SynthConfig, list_clips

    if (directory is None) == (direct is None):
        raise click.UsageError("give a folder for clips, or --direct OUT.h5 for faces without clips.")
    if direct is not None and options["nemo_layout"]:
        raise click.UsageError("--nemo-layout is about clips; --direct writes none.")
    profile = options["profile"]
    if profile == "nemo" and (options["clips"] is not None or options["ages"] is not None):
        raise click.UsageError(
            "the profile nemo has its own ages and numbers of clips: leave out --ages and --clips."
        )
    begun = time.monotonic()
    width, height = options.pop("size")
    if options["subjects"] is None:
        options["subjects"] = 400 if profile == "nemo" else 32
    given = {name: value for name, value in options.items() if value is not None}
    settings: dict[str, Any] = {**given, "width": width, "height": height}
    plan = list_clips(SynthConfig(**settings))
    people = len({clip.person for clip in plan})

    def farewell() -> None:
        kept = (
            "nothing was written"
            if direct is not None
            else "rerun the same command to render the missing ones"
        )
        say(f"Stopped; {kept}.")

    if direct is not None:
        with stop_on_signals(farewell), clips_progress() as progress:
            file = render_faces(direct, workers=workers, progress=progress, **settings)
        truth = truth_beside(file)
        took = time.monotonic() - begun
        if as_json:
            print_json(
                {
                    "output": str(file),
                    "truth": str(truth),
                    "synthetic": True,
                    "clips": len(plan),
                    "seconds": took,
                }
            )
        say(f"{pluralize(len(plan), 'synthetic clip')} of {pluralize(people, 'subject')} in {took:.1f} s.")
        say(f"Warped faces: {file}")
        say(f"Known landmarks, pose and phases: {truth}")
        return
    assert directory is not None
    with stop_on_signals(farewell), clips_progress() as progress:
        made = render_set(directory, workers=workers, progress=progress, **settings)
    took = time.monotonic() - begun
    if as_json:
        print_json(
            {
                "directory": str(made.directory),
                "labels": str(made.labels),
                "truth": str(made.truth),
                "synthetic": True,
                "clips": [str(path) for path in made.clips],
                "frames": made.frames,
                "seconds": took,
            }
        )
    rendered = f"{pluralize(len(made.clips), 'synthetic clip')} of {pluralize(people, 'subject')}"
    say(f"{rendered}, {pluralize(made.frames, 'frame')}, in {took:.1f} s.")
    say(f"Clips: {directory}")
    say(f"Ages and other labels: {made.labels}")
    say(f"Known landmarks, pose and phases: {made.truth}")
