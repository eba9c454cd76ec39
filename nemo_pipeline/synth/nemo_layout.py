"""The UvA-NEMO smile database's own details files, about a synthetic set: what its users' label readers expect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nemo_pipeline.synth.plan import Clip

FILE_DETAILS = "UvA-NEMO_Smile_Database_File_Details.txt"
SUBJECT_DETAILS = "UvA-NEMO_Smile_Database_Subject_Details.txt"


def write_details(directory: Path, plan: list[Clip]) -> None:
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


def _write(path: Path, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    head = ["Synthetic set in the layout of the UvA-NEMO Smile Database", "", title, "", "\t".join(columns)]
    part = path.with_name(f".{path.name}.part")
    part.write_text("\n".join([*head, *("\t".join(row) for row in rows), ""]), encoding="utf-8")
    part.replace(path)
