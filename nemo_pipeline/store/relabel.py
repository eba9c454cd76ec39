"""Labels in a finished file, without touching a video: copy it, rewrite the label columns, rename."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py

from nemo_pipeline.store.files import check_space, replacing, small_h5
from nemo_pipeline.store.schema import LABEL_COLUMNS, MISSING_LABEL, VIDEO_COLUMNS
from nemo_pipeline.store.sealed import seal
from nemo_pipeline.store.shard import SPARE_BYTES
from nemo_pipeline.store.strict import reading
from nemo_pipeline.store.tables import write_columns

#: An index is smaller than this, and is changed in memory.
_IN_MEMORY = 64 << 20


def write_labels(path: Path, labels: Sequence[Mapping[str, Any]], synthetic: bool) -> None:
    """Give the rows of an index or a packed file these labels; the file is replaced at once or not at all.

    Args:
        path: real path of the file.
        labels: one mapping per row of /videos, with the known labels only.
        synthetic: the root attribute of that name.
    """
    size = path.stat().st_size
    with reading(path), replacing(path) as temporary:
        if size < _IN_MEMORY:
            with small_h5(temporary, path) as file:
                _rewrite(file, labels, synthetic)
            return
        check_space(path.parent, size + SPARE_BYTES)
        shutil.copyfile(path, temporary)
        with h5py.File(temporary, "r+", locking=False) as file:
            _rewrite(file, labels, synthetic)


def _rewrite(file: h5py.File, labels: Sequence[Mapping[str, Any]], synthetic: bool) -> None:
    group = file["videos"]
    columns = {name: [row.get(name, MISSING_LABEL[name]) for row in labels] for name in LABEL_COLUMNS}
    for name in LABEL_COLUMNS:
        del group[name]
    write_columns(group, {name: VIDEO_COLUMNS[name] for name in LABEL_COLUMNS}, columns)
    file.attrs["uuid"] = str(uuid.uuid4())
    file.attrs["synthetic"] = synthetic
    seal(file)
