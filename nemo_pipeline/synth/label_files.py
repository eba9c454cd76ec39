"""The label files of a synthetic set: labels.csv, and the UvA-NEMO smile database's own details files."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

from nemo_pipeline.store.files import replacing
from nemo_pipeline.synth.place import open_as_folder
from nemo_pipeline.synth.plan import ClipPlan

LABEL_COLUMNS = ("video", "subject", "age", "gender", "expression", "condition", "synthetic")

FILE_DETAILS = "UvA-NEMO_Smile_Database_File_Details.txt"
SUBJECT_DETAILS = "UvA-NEMO_Smile_Database_Subject_Details.txt"


def write_details(directory: Path, plan: list[ClipPlan]) -> None:
    """Both files, tab-separated after five lines, which say that the set is synthetic.

    Args:
        directory: where the clips are.
        plan: the set's clips.
    """
    files = [
        (
            f"{clip.name}.mp4",
            clip.person.code,
            clip.person.gender,
            str(clip.person.age),
            clip.name.split("_")[1],
        )
        for clip in plan
    ]
    people = {clip.person.code: clip.person for clip in plan}
    subjects = [(code, person.gender, str(person.age)) for code, person in people.items()]
    columns = ("filename", "subject code", "gender", "age", "smile type")
    _write(directory / FILE_DETAILS, "File Details", columns, files)
    _write(directory / SUBJECT_DETAILS, "Subject Details", columns[1:4], subjects)


def write_labels(path: Path, plan: list[ClipPlan]) -> None:
    """labels.csv: a row for each clip."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(LABEL_COLUMNS)
    for clip in plan:
        person = clip.person
        own = (person.code, person.age, person.gender, clip.expression, clip.condition)
        writer.writerow((f"{clip.name}.mp4", *own, "true"))
    _put(path, text.getvalue())


def _write(path: Path, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    head = ["Synthetic set in the layout of the UvA-NEMO Smile Database", "", title, "", "\t".join(columns)]
    _put(path, "\n".join([*head, *("\t".join(row) for row in rows), ""]))


def _put(path: Path, text: str) -> None:
    """Write a file that is not there yet. One that somebody changed stays as it is, and that is said."""
    data = text.encode("utf-8")
    if not path.exists():
        with replacing(path) as part:
            part.write_bytes(data)
            open_as_folder(part)
    elif path.read_bytes() != data:
        warnings.warn(
            f"{path} was changed since it was made, and is left as it is; delete it and run again for a fresh one.",
            stacklevel=3,
        )
