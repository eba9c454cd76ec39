"""Only .h5 and .hdf5 are written: another ending would promise another kind of file, or share a shards folder."""

from __future__ import annotations

import pytest

from nemo_cli.main import load
from nemo_pipeline.batch.join import join
from nemo_pipeline.errors import OutputError
from nemo_pipeline.store.pack import pack
from nemo_pipeline.store.shard import shards_folder
from nemo_pipeline.synth import render_faces
from tests.support.siam_faces import drawn_file


@pytest.mark.parametrize("name", ["out", "out.csv", "out.h5.gz", "out.mat", "h5"])
def test_other_endings_are_refused_and_nothing_is_written(tmp_path, name):
    small = {"subjects": 1, "clips": 1, "frames": 3}
    data = drawn_file(tmp_path / "a.h5", **small)
    before = sorted(tmp_path.iterdir())
    for write in (
        lambda path: drawn_file(path, **small),
        lambda path: pack(data, path),
        lambda path: join([data], path),
        lambda path: render_faces(path, subjects=1, clips=1),
    ):
        with pytest.raises(OutputError, match=r"name that ends in \.h5 or \.hdf5"):
            write(tmp_path / name)
    with pytest.raises(Exception, match=r"must be the file to write, named \.h5 or \.hdf5"):
        load("prep").main([str(data), str(tmp_path / name)], standalone_mode=False)
    assert sorted(tmp_path.iterdir()) == before


def test_both_endings_have_a_shards_folder_of_their_own(tmp_path):
    small = {"subjects": 1, "clips": 1, "frames": 3}
    paths = [drawn_file(tmp_path / name, **small) for name in ("out.h5", "out.hdf5", "out.H5")]
    assert len({shards_folder(path) for path in paths}) == 3
