"""Parts of a file by expression and condition: Table IV of the paper compares models of separate subsets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from nemo_pipeline.errors import DataError
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.text import escape_controls
from siam_model.data import VideoTable

COLUMNS = ("expression", "condition")


def label_column(table: VideoTable, dataset: FaceDataset, name: str) -> list[str]:
    """The labels `expression` or `condition` of the table's videos, "" where unknown."""
    return [str(dataset.videos[name][i]).strip() for i in table.index]


def take(table: VideoTable, rows: np.ndarray) -> VideoTable:
    """Some rows of a table, as a table."""
    return dataclasses.replace(
        table,
        index=table.index[rows],
        id=tuple(table.id[r] for r in rows),
        subject=tuple(table.subject[r] for r in rows),
        age=table.age[rows],
        gender=tuple(table.gender[r] for r in rows),
        fold=table.fold[rows],
        length=table.length[rows],
    )


def take_subset(table: VideoTable, dataset: FaceDataset, subset: Mapping[str, str]) -> VideoTable:
    """The videos whose labels are those of `subset`; all of them when it is empty.

    Raises:
        NemoError: no video of that subset has an age.
    """
    if not subset:
        return table
    keep = np.ones(len(table), dtype=bool)
    for name, value in subset.items():
        keep &= np.array([label == value for label in label_column(table, dataset, name)])
    if not keep.any():
        wanted = ", ".join(f"{name} {value}" for name, value in subset.items())
        raise DataError(
            f"{escape_controls(str(dataset.path))} has no labelled video with {escape_controls(wanted)}; see `nemo "
            "info`.",
            dataset.path,
        )
    return take(table, np.flatnonzero(keep))


def subsets_present(table: VideoTable, dataset: FaceDataset) -> list[dict[str, str]]:
    """Every pair of expression and condition that occurs, sorted; a label that is nowhere known is left out."""
    pairs = zip(*(label_column(table, dataset, name) for name in COLUMNS), strict=True)
    found = []
    for pair in sorted(set(pairs)):
        subset = {name: value for name, value in zip(COLUMNS, pair, strict=True) if value}
        if subset and subset not in found:
            found.append(subset)
    return found
