"""Labels that can hardly be right: what a training says of them before it uses them as they are."""

from __future__ import annotations

from collections.abc import Sequence

from nemo_pipeline.store.text import escape_controls, pluralize
from siam_model.data import VideoTable


def doubtful_subjects(table: VideoTable) -> str:
    """A sentence on subjects that are hardly one person each: ages more than 10 years apart, or two genders. "" where
    there is none. (One code for two people keeps both in one part; two codes for one would let a test know its people.)
    """
    ages: dict[str, list[float]] = {}
    genders: dict[str, set[str]] = {}
    for subject, age, gender in zip(table.subject, table.age, table.gender, strict=True):
        ages.setdefault(subject, []).append(float(age))
        genders.setdefault(subject, set()).update({gender} - {"", "unknown"})
    found = [
        f"{code} is {min(own):g} to {max(own):g} years old"
        if max(own) - min(own) > 10
        else f"{code} is {' and '.join(sorted(genders[code]))}"
        for code, own in sorted(ages.items())
        if max(own) - min(own) > 10 or len(genders[code]) > 1
    ]
    more = f", and {len(found) - 3} more such subjects" if len(found) > 3 else ""
    return escape_controls(f"subject {', subject '.join(found[:3])}{more}.") if found else ""


def repeated_files(table: VideoTable, sha256: Sequence[str]) -> str:
    """A sentence on files of equal content that are labelled as different people, so that one may be trained on and the
    other tested. "" where there is none. `sha256`: of all videos of the data."""
    groups: dict[str, dict[str, str]] = {}  # content -> subject -> file
    for row, index in enumerate(table.index):
        if sha256[index] and table.file:
            groups.setdefault(sha256[index], {}).setdefault(table.subject[row], table.file[row])
    # Several people in one file are several rows of it.
    found = [files for files in groups.values() if len(set(files.values())) > 1]
    if not found:
        return ""
    more = f" ({pluralize(len(found) - 1, 'more case')})" if len(found) > 1 else ""
    return (
        f"{' and '.join(map(escape_controls, sorted(set(found[0].values()))[:2]))} are the same file under different "
        f"subjects{more}: one may be trained on and the other tested."
    )
