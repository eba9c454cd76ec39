"""What `nemo predict` answers: lines for people, CSV, JSON, and pictures of what the model looked at."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rich_click as click

from nemo_pipeline.batch.content import is_picture
from nemo_pipeline.errors import NemoError
from nemo_pipeline.status import Status
from nemo_pipeline.store.text import csv_cell, escape_controls, pluralize, safe_name
from nemo_pipeline.view.quality_flags import Reason, reasons

from . import console
from .options import in_options
from .outputs import TABLES, check_target

if TYPE_CHECKING:
    from nemo_pipeline.store.facetrack import FaceTrack
    from siam_model import LoadedModel, Prediction
    from siam_model.interval import Interval

    from .progress import ClipProgress

#: Note on every age of a model that was trained on generated faces.
MEANINGLESS = "means nothing for people: the model was trained on synthetic faces"
#: Note on the age of a clip that the model learned from.
_SEEN = "the model was trained on this very clip, so nothing follows for other clips: no interval"
#: Notes that many clips share, as they are said from the second clip on.
_AGAIN = {MEANINGLESS: "means nothing for people", _SEEN: "trained on this very clip: no interval"}
_COLUMNS = (
    "video", "file", "age_true", "age_predicted", "low", "high", "level", "note", "status", "message", "n_decoded",
    "frames_used", "n_interpolated", "doubts", "synthetic", "model",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One row of a clip, and what the model says of it.

    Attributes:
        prediction: None where there is no age.
        bounds: lowest and highest age of the interval, or None.
        notes: what has to be known about the age, clauses.
        doubts: why the track may be poor (`nemo_pipeline.view.quality_flags` has the limits).
    """

    row: FaceTrack
    prediction: Prediction | None
    status: str
    message: str
    bounds: tuple[float, float] | None
    level: float
    notes: tuple[str, ...]
    doubts: tuple[Reason, ...]
    synthetic: bool
    frames_used: int

    @property
    def age(self) -> float | None:
        """Years."""
        return None if self.prediction is None else self.prediction.age

    @property
    def note(self) -> str:
        """The notes as one."""
        return "; ".join(self.notes)

    def without_frames(self) -> Answer:
        """The same without pictures and landmarks."""
        row = self.row.only("frame_index", "timestamps", "tracked")
        prediction = self.prediction
        if prediction is not None:
            prediction = dataclasses.replace(prediction, spatial_attention=None)
        return dataclasses.replace(self, row=row, prediction=prediction)


def answer_for(row: FaceTrack, model: LoadedModel, interval: Interval) -> Answer:
    """Ask the model about one row. Nothing that a clip does to it ends the command."""
    from siam_model.external import is_known

    prediction, status, message = None, row.status, row.message
    if len(row.frames):
        try:
            prediction = model.predict(row.frames)
        except NemoError as error:
            status, message = Status.NO_FACE, str(error)
        except (RuntimeError, MemoryError) as error:  # of the device: its memory, most often
            reason = escape_controls(str(error).splitlines()[0] if str(error) else type(error).__name__)[:200]
            status, message = (
                Status.CRASHED,
                f"The model could not take its {len(row.frames)} frames ({reason}).",
            )
    if prediction is not None and not math.isfinite(prediction.age):
        prediction, status = None, Status.CRASHED
        message = "The model gives no finite age: its weights are damaged, or its training diverged."
    notes: list[str] = []
    bounds = None
    if prediction is not None:
        low, high = model.age_range
        if row.sha256 in model.videos:
            notes.append(_SEEN)
        elif is_known(model, row.subject, row.sha256):
            notes.append(f"the model was trained on subject {row.subject}: no interval")
        bounds = interval.around(prediction.age) if not notes else None
        if model.synthetic:
            notes.append(MEANINGLESS)
        if not low <= prediction.age <= high:
            notes.append(f"outside the ages that the model was trained on, {low:.0f} to {high:.0f}")
    return Answer(
        row=row,
        prediction=prediction,
        status=status,
        message=message,
        bounds=bounds,
        level=interval.level,
        notes=tuple(notes),
        doubts=tuple(find_doubts(row, model.mean_shape, model.triangles)) if prediction is not None else (),
        synthetic=model.synthetic,
        frames_used=len(row.frames),
    )


def find_doubts(row: FaceTrack, mean_shape: np.ndarray, triangles: np.ndarray) -> list[Reason]:
    """Why the track of a row may be poor."""
    from nemo_pipeline.geometry import Template

    points = Template(mean_shape, triangles, row.frames.shape[1]).landmarks
    eyes = float(np.hypot(*(points[45] - points[36])))
    return reasons(row, eyes)


def sentence(doubts: Sequence[Reason]) -> str:
    return f"Tracking may be unreliable. {' '.join(reason.text for reason in doubts)}" if doubts else ""


def print_answer(answer: Answer, quiet: bool, said: set[str]) -> None:
    """One line for people, on standard output; a warning below it, on standard error.

    Args:
        said: notes, and codes of doubts, that were explained for an earlier clip and are only named now; extended.
    """
    from siam_model.predict import shown_age

    row, age = answer.row, answer.age
    if age is None:
        console.out.print(
            console.styled(f"{row.name}: no age ({answer.status}). {in_options(answer.message)}"),
            soft_wrap=True,
        )
        return
    notes = [_AGAIN.get(note, note) if note in said else note for note in answer.notes]
    note = f" ({'; '.join(notes)})" if notes else ""
    known = [reason.short for reason in answer.doubts if reason.code in said and not quiet]
    check = f"; check the track: {', '.join(known)}" if known else ""
    filled = f", {row.n_interpolated} of them interpolated" if row.n_interpolated else ""
    label = f", labelled {row.age:g}" if math.isfinite(row.age) else ""
    used = f"from {answer.frames_used} of {pluralize(row.n_decoded, 'frame')}{filled}"
    console.out.print(
        console.styled(
            f"{row.name}: {shown_age(age):.1f} years{note}{_bounds(answer)}{label}, {used}{check}"
        ),
        soft_wrap=True,
    )
    new = [reason for reason in answer.doubts if reason.code not in said]
    if new and not quiet:
        console.warn(f"{row.name}: {sentence(new)}")
    said.update(answer.notes, (reason.code for reason in new))


def _bounds(answer: Answer) -> str:
    if answer.bounds is None:
        return ""
    return f", {100 * answer.level:.4g} % interval {answer.bounds[0]:.1f} to {answer.bounds[1]:.1f}"


def json_line(answer: Answer) -> dict[str, Any]:
    """One clip in the JSON object."""
    row = answer.row
    line: dict[str, Any] = {
        "video": row.id,
        "file": row.file,
        "age_true": row.age,
        "age_predicted": answer.age,
        "interval": None if answer.bounds is None else list(answer.bounds),
        "note": answer.note,
        "doubts": [{"code": reason.code, "text": reason.text} for reason in answer.doubts],
        "status": answer.status,
        "message": answer.message,
        "n_decoded": row.n_decoded,
        "frames_used": answer.frames_used,
        "n_interpolated": row.n_interpolated,
    }
    if answer.prediction is not None:
        line["frame_index"] = row.frame_index
        line["timestamps"] = row.timestamps
        line["temporal_weights"] = answer.prediction.temporal_weights
    return line


def write_csv(path: Path, answers: Sequence[Answer], model: Path) -> int:
    """A row for each clip, by rename; answers how many rows of other clips that were there before are kept. Names stay
    data: no cell is taken for a formula."""
    rows: list[list[object]] = []
    for answer in answers:
        row, (low, high) = answer.row, answer.bounds or ("", "")
        rows.append([
            csv_cell(row.id), csv_cell(row.file),
            repr(row.age) if math.isfinite(row.age) else "",
            "" if answer.age is None else repr(answer.age), *(repr(v) if v != "" else "" for v in (low, high)),
            answer.level if answer.bounds else "", csv_cell(answer.note), answer.status, csv_cell(answer.message),
            row.n_decoded, answer.frames_used, row.n_interpolated,
            csv_cell(" ".join(reason.text for reason in answer.doubts)), int(answer.synthetic), csv_cell(str(model)),
        ])  # fmt: skip
    return write_rows(path, [dict(zip(_COLUMNS, row, strict=True)) for row in rows])


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> int:
    """Rows by the table's columns, as `write_csv`; a cell that one lacks stays empty."""
    from siam_model.predictions import write_table

    files = {row["file"] for row in rows}
    kept = [line for line in _rows_there(path) if line[1] not in files]
    write_table(path, _COLUMNS, [*kept, *([row.get(name, "") for name in _COLUMNS] for row in rows)])
    return len(kept)


def _rows_there(path: Path) -> list[list[str]]:
    """The rows of a table of earlier clips; none where there is no table."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [line for line in csv.reader(file) if len(line) == len(_COLUMNS)][1:]


def check_outputs(table: Path | None, figure: Path | None) -> None:
    """Refuse before anything is done what could not be written at the end."""
    check_target("--csv", table, TABLES, "a table")
    if table is not None and table.is_file() and table.stat().st_size:
        with table.open("rb") as there:
            if there.readline().rstrip(b"\r\n") != ",".join(_COLUMNS).encode():
                raise click.UsageError(
                    f"--csv: {escape_controls(table.name)} is there already, and is not a table of `nemo predict` "
                    "of this version: name another file."
                )
    check_target("--figure", figure, (".png",), "a picture")


def heat_path(folder: Path, row_id: str) -> Path:
    """The clip with the heat map on the face, of one row of a clip."""
    return folder / f"{safe_name(row_id)}.attention.mp4"


class Explainer:
    """Draws answers: call it with each; it gives the reasons for what could not be drawn. A context manager: a child
    process draws the clips."""

    def __init__(
        self, model: LoadedModel, folder: Path | None, figure: Path | None, timeout: float | None
    ) -> None:
        self._model, self._folder, self._figure, self._timeout = model, folder, figure, timeout
        self._drawn = 0
        self._pool: Any = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Explainer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, answer: Answer, show: ClipProgress) -> Iterator[str]:
        """Draw one answer; yields a sentence for each picture that failed."""
        if answer.prediction is None or (self._folder is None and self._figure is None):
            return
        from siam_model.predict import shown_age

        title = f"{answer.row.name}: {shown_age(answer.prediction.age):.1f} years{_bounds(answer)}"
        notes = [note[0].upper() + note[1:] + "." for note in answer.notes]
        warning = " ".join([*notes, *([sentence(answer.doubts)] if answer.doubts else [])])

        try:
            if self._figure is not None:
                self._draw_figure(answer, title, warning)
            if self._folder is not None:
                yield from self._draw_folder(answer, title, warning, show)
        except NemoError as error:
            yield str(error)
        except OSError as error:
            yield f"{answer.row.name} was not drawn: {error.strerror or error}."

    def _draw_figure(self, answer: Answer, title: str, warning: str) -> None:
        """F.png for the first row of a clip, F-2.png and so on for further ones."""
        from siam_model.figures.clip import clip_figure
        from siam_model.figures.plain import save_figure

        assert self._figure is not None and answer.prediction is not None
        path, self._drawn = self._figure, self._drawn + 1
        if self._drawn > 1:
            path = path.with_name(f"{path.stem}-{self._drawn}{path.suffix}")
        row = answer.row
        figure = clip_figure(
            row.frames, answer.prediction, self._model.config, row.timestamps, title, warning
        )
        save_figure(figure, path)

    def _draw_folder(self, answer: Answer, title: str, warning: str, show: ClipProgress) -> Iterator[str]:
        from siam_model.figures.clip import heat_figure, weights_figure
        from siam_model.figures.plain import save_figure

        assert self._folder is not None and answer.prediction is not None
        row, name = answer.row, safe_name(answer.row.id)
        what = (row.timestamps, title, warning)
        heat = heat_figure(row.frames, answer.prediction, self._model.config, *what)
        if heat is not None:
            save_figure(heat, self._folder / f"{name}.attention.png")
        save_figure(
            weights_figure(row.frames, answer.prediction, *what), self._folder / f"{name}.weights.png"
        )
        # A prepared file does not hold the recording, and a picture is drawn whole already.
        if row.path is not None and not is_picture(row.path):
            target = heat_path(self._folder, answer.row.id)
            note = self._draw_clip(answer, row.path, target, title, warning, show)
            if note:
                yield note

    def _draw_clip(
        self, answer: Answer, clip: Path, target: Path, title: str, warning: str, show: ClipProgress
    ) -> str:
        from nemo_pipeline.batch.heat import draw_in_child, heat_job
        from nemo_pipeline.batch.worker import Pool
        from nemo_pipeline.geometry import Template
        from nemo_pipeline.view.attention import Attention
        from siam_model.explain import cell_weights, flat_note, largest_heat

        if self._pool is None:
            self._pool = Pool()
            self._stack.callback(self._pool.stop)
        row, prediction, config = answer.row, answer.prediction, self._model.config
        assert prediction is not None
        maps = prediction.spatial_attention
        basis = None if maps is None else cell_weights(config)
        if maps is not None:
            warning = " ".join(filter(None, (warning, flat_note(row.frames, maps, config))))
        attention = Attention(
            frame_index=row.frame_index,
            landmarks=row.landmarks,
            weights=prediction.temporal_weights,
            maps=maps,
            rows=basis,
            columns=basis,
            largest=1.0 if maps is None else largest_heat(row.frames, maps, config),
        )
        margin = float(self._model.prep_config["margin"])
        template = Template(self._model.mean_shape, self._model.triangles, config.face_size, margin)
        with tempfile.TemporaryDirectory(prefix="nemo-explain-") as folder:  # mode 0700
            arrays = Path(folder) / "arrays.npz"
            job = heat_job(
                clip, target, attention, template, arrays, title=title, note=warning, stream=row.info.stream
            )
            return draw_in_child(
                job, self._pool, timeout=self._timeout or None, on_frames=lambda n: show.drawing(row.name, n)
            )
