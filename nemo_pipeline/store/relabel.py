"""Labels in a finished file, without touching a video: copy it, rewrite the label columns, rename."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py

from nemo_pipeline.store.files import replacing
from nemo_pipeline.store.schema import LABEL_COLUMNS, MISSING_LABEL, VIDEO_COLUMNS
from nemo_pipeline.store.tables import write_columns


def write_labels(path: Path, labels: Sequence[Mapping[str, Any]], synthetic: bool) -> None:
    """Give the rows of an index or a packed file these labels; the file is replaced at once or not at all.

    Args:
        path: real path of the file.
        labels: one mapping per row of /videos, with the known labels only.
        synthetic: the root attribute of that name.
    """
    with replacing(path) as temporary:
        shutil.copyfile(path, temporary)
        with h5py.File(temporary, "r+", locking=False) as file:
            group = file["videos"]
            columns = {}
            for name in LABEL_COLUMNS:
                columns[name] = [row.get(name, MISSING_LABEL[name]) for row in labels]
                del group[name]
            write_columns(group, {name: VIDEO_COLUMNS[name] for name in LABEL_COLUMNS}, columns)
            file.attrs["uuid"] = str(uuid.uuid4())
            file.attrs["synthetic"] = synthetic
