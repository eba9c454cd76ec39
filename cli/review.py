"""`nemo review`: look at every clip of a prepared file in the browser, and mark what is to be left out."""

from __future__ import annotations

import getpass
import signal
import threading
from pathlib import Path
from typing import Any

import rich_click as click

from .console import print_json, say


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE.h5")
@click.option(
    "--marks",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.csv",
    help="Where the marks are. Default: FILE.marks.csv next to FILE.h5, where other commands find them.",
)
@click.option("--who", metavar="NAME", help="Who marks. Default: the user name.")
@click.option(
    "--model", type=click.Path(path_type=Path), metavar="RUN", help="Also show what this model attends to."
)
@click.option(
    "--device", default="auto", show_default=True, help="Of the model: auto, cpu, cuda, cuda:N or mps."
)
@click.option(
    "--port",
    type=click.IntRange(min=0, max=65535),
    default=0,
    metavar="N",
    help="Port of the page, for a tunnel. Default: any that is free.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object with the address on standard output.")
def command(
    path: Path, marks: Path | None, who: str | None, model: Path | None, device: str, port: int, as_json: bool
) -> None:
    """Look at the clips of a prepared file in a browser, and mark clips or frames to be left out.

    Open the address that is printed; Ctrl-C ends. Every mark is saved at once. nemo train, evaluate and export leave
    out what is marked, nemo report shows it.

    \b
    Examples:
      nemo review smiles.h5
      nemo review smiles.h5 --model RUN --who kim
    """
    from nemo_pipeline.errors import DataError, SettingsError
    from nemo_pipeline.marks import read_marks
    from nemo_pipeline.store import FaceDataset
    from nemo_pipeline.view.review import Review, ReviewServer

    data = FaceDataset(path)
    if not data.usable:
        raise DataError(f"{path} has no video with frames to look at; `nemo info {path}` says why.", path)
    attention: Any = None
    about = ""
    if model is not None:
        from siam_model import load
        from siam_model.review import attention_for_page

        loaded = load(model, device)
        attention = attention_for_page(loaded, data)
        about = model.resolve().name + (", trained on synthetic faces" if loaded.synthetic else "")
    review = Review(data, marks, who if who is not None else _user(), attention, about)
    before = len(review.read_marks())
    try:
        server = ReviewServer(review, port)
    except OSError as error:
        raise SettingsError(
            f"Port {port} cannot be used ({error.strerror}): take another --port.", "port"
        ) from None

    def stop(number: int, frame: object) -> None:
        # Not by an exception, which would come in the middle of a line; the thread waits until the server serves.
        threading.Thread(target=server.shutdown, daemon=True).start()

    with server:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        if as_json:
            print_json({"address": server.address, "marks": review.marks})
        say(
            f"Open {server.address} in a browser on this machine. It shows faces to anybody who has this address."
        )
        say(f"Marks are saved in {review.marks}. Ctrl-C ends.")
        server.serve_forever(poll_interval=0.2)
    count = len(read_marks(review.marks)) if review.marks.exists() else 0
    say(
        f"{review.marks} has {count} marks ({count - before:+d})."
        if count or before
        else "Nothing was marked."
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return ""
