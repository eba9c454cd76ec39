"""What `nemo export` writes is read back by other means, and is what the prepared file holds."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tarfile

import av
import numpy as np
import pytest
from PIL import Image

from nemo_pipeline.errors import DataError, OutputError
from nemo_pipeline.export import export
from nemo_pipeline.frame_table import frame_columns
from nemo_pipeline.marks import Mark, write_marks
from nemo_pipeline.phases import find_phases
from nemo_pipeline.store import FaceDataset, write_dataset
from tests.support.commands import invoke


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> FaceDataset:
    """Two videos of a face that smiles, moves and grows; the second one with a gap in its numbers, and no faces in a
    third."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("export") / "out.h5"
    shape = FaceDataset(write_dataset(path.with_name("shape.h5"), [_video(rng, "a", 3)])).mean_shape
    videos = [_video(rng, "a b", 20, shape), _video(rng, "=c,\u00e9", 7, shape, age=float("nan"))]
    videos[1]["frame_index"] = np.array([0, 1, 2, 5, 6, 7, 9])
    videos[1]["timestamps"] = videos[1]["frame_index"] / 30 + 0.25
    return FaceDataset(write_dataset(path, [*videos, {**_video(rng, "gone", 0), "status": "no_face"}]))


def _video(rng, name, n, shape=None, **labels):
    video = {
        "id": name,
        "frames": rng.integers(0, 256, (n, 32, 32), dtype=np.uint8),
        "subject": "s",
        "age": 31.5,
    }
    if shape is not None:
        smile = np.sin(np.linspace(0, np.pi, n))[:, None, None]
        points = np.repeat(shape[None], n, axis=0) * 60
        points[:, [48, 54]] += smile * np.array([[[-6.0, -3.0], [6.0, -3.0]]])
        angle = np.linspace(-0.2, 0.2, n)[:, None]
        turn = np.exp(1j * angle) * (points[..., 0] + 1j * points[..., 1]) * np.linspace(1, 1.4, n)[:, None]
        video["landmarks"] = np.stack([turn.real + 100, turn.imag + 80], axis=-1).astype(np.float32)
        video["pose"] = rng.normal(0, 5, (n, 3)).astype(np.float32)
    return {**video, **labels}


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_table_reads_back_as_the_file(data, tmp_path):
    assert export(data, tmp_path / "t.csv", "table") == [tmp_path / "t.csv"]
    rows = rows_of(tmp_path / "t.csv")
    assert [row["video"] for row in rows] == ["a b"] * 20 + ["'=c,\u00e9"] * 7  # no formula for a spreadsheet
    for video in data.values():
        own = [row for row in rows if row["video"].lstrip("'") == video.id]
        for name in ("frame_index", "timestamps"):
            assert np.array_equal(np.array([float(row[name]) for row in own]), video.read(name))
        points = np.array([[[row[f"{a}_{i}"] for a in "xy"] for i in range(68)] for row in own], np.float32)
        assert np.array_equal(points, video.landmarks)
        pose = np.array([[row[name] for name in ("yaw", "pitch", "roll")] for row in own], np.float32)
        assert np.array_equal(pose, video.pose)
        found = find_phases(video.landmarks, video.timestamps)
        for name in ("onset", "apex", "offset"):
            assert [i for i, row in enumerate(own) if row["phase"] == name] == list(
                range(*getattr(found, name))
            )
        assert [row["age"] for row in own] == (["31.5"] * 20 if video.id == "a b" else [""] * 7)
    assert (tmp_path / "t.csv").stat().st_mode & 0o777 == 0o600
    assert export(data, tmp_path / "new", "table") == [tmp_path / "new" / "table.csv"]


def test_aligned_landmarks_hold_the_expression_without_the_pose(data):
    columns, shape = frame_columns(data["a b"]), data.landmarks_in_crop
    aligned = np.stack([[columns[f"aligned_{a}_{i}"] for i in range(68)] for a in "xy"], axis=-1)
    aligned = np.moveaxis(aligned, 0, 1)
    still = [i for i in range(68) if i not in (48, 54)]
    assert (
        np.abs(aligned[:, still] - shape[still]).max() < 0.6
    )  # pixels of the face; the head turns by 0.4 rad
    width = aligned[:, 54, 0] - aligned[:, 48, 0]
    assert width.argmax() in (9, 10) and width.max() / width[0] > 1.15


def test_arrays_read_back_as_the_file(data, tmp_path):
    paths = export(data, tmp_path / "npz", "npz")
    assert len(paths) == 2
    for path, video in zip(paths, data.values(), strict=True):
        with np.load(path, allow_pickle=False) as arrays:
            assert str(arrays["video_id"]) == video.id and str(arrays["video_subject"]) == "s"
            for name in data.fields:
                assert np.array_equal(
                    arrays[name], video.read(name), equal_nan=arrays[name].dtype.kind == "f"
                )


def test_archives_read_back_as_the_file(data, tmp_path, monkeypatch):
    assert export(data, tmp_path / "all.tar", "webdataset") == [tmp_path / "all.tar"]
    monkeypatch.setattr("nemo_pipeline.export.ARCHIVE_BYTES", 1)
    several = export(data, tmp_path / "many", "webdataset")
    assert [path.name for path in several] == ["videos-000000.tar", "videos-000001.tar"]
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(tmp_path / "all.tar") as archive:
        for entry in archive:  # as WebDataset: what one key has comes together
            key, name = entry.name.split(".", 1)
            assert key == (list(samples) or [key])[-1] or key not in samples
            samples.setdefault(key, {})[name] = archive.extractfile(entry).read()
    for (key, sample), video in zip(samples.items(), data.values(), strict=True):
        labels = json.loads(sample["json"])
        assert labels["id"] == video.id and "." not in key
        assert labels["age"] == (None if np.isnan(video.age) else video.age)
        for name in data.fields:
            found = np.load(io.BytesIO(sample[f"{name}.npy"]), allow_pickle=False)
            assert np.array_equal(found, video.read(name), equal_nan=found.dtype.kind == "f")
    with pytest.raises(OutputError, match="exists already"):
        export(data, tmp_path / "all.tar", "webdataset")


def test_a_dataset_of_pytorch(data):
    from torch.utils.data import DataLoader

    from nemo_pipeline.torch_dataset import FaceClips, pad

    clips = FaceClips(data.path, frames=5)
    batch = next(iter(DataLoader(clips, batch_size=2)))
    assert batch["faces"].shape == (2, 5, 32, 32) and batch["landmarks"].shape == (2, 5, 68, 2)
    assert batch["id"] == ["a b", "=c,\u00e9"] and clips.subjects == ["s", "s"]
    assert batch["target"][0] == 31.5 and bool(batch["target"][1].isnan())
    first = data["a b"]
    assert np.array_equal(
        batch["faces"][0].numpy() * 255, first.frames[[0, 5, 10, 14, 19]].astype(np.float32)
    )
    assert np.array_equal(batch["timestamps"][0].numpy(), first.timestamps[[0, 5, 10, 14, 19]])
    padded = next(iter(DataLoader(FaceClips(data), batch_size=2, collate_fn=pad)))
    assert padded["length"].tolist() == [20, 7] and padded["faces"].shape == (2, 20, 32, 32)
    assert not padded["faces"][1, 7:].any()
    assert np.array_equal(padded["landmarks"][1, :7].numpy(), data["=c,\u00e9"].landmarks)
    by_name = FaceClips(data, ["=c,\u00e9"], target="subject")
    assert by_name.classes == ["s"] and by_name[0]["target"] == 0 and len(by_name) == 1
    with pytest.raises(DataError, match="no frames of 'gone'"):
        FaceClips(data, ["gone"])
    with pytest.raises(DataError, match="no label 'mood'"):
        FaceClips(data, target="mood")


def test_the_dataset_of_pytorch_needs_no_siam(data):
    code = (
        f"import sys; from nemo_pipeline.torch_dataset import FaceClips; FaceClips({str(data.path)!r})[0]; "
    )
    code += (
        "assert not [m for m in sys.modules if m.split('.')[0] in ('siam_model', 'nemo_cli', 'cv2', 'av')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", ["faces", "video"])
def test_pictures_read_back_without_loss(data, tmp_path, kind):
    written = export(data, tmp_path / "out", kind)
    index = rows_of(tmp_path / "out" / "frames.csv")
    assert written[-1] == tmp_path / "out" / "frames.csv" and len(index) == 27
    for path, video in zip(written, data.values(), strict=False):
        own = [row for row in index if row["video"].lstrip("'") == video.id]
        assert [int(row["frame_index"]) for row in own] == video.frame_index.tolist()
        assert [float(row["timestamp"]) for row in own] == video.timestamps.tolist()
        if kind == "faces":
            read = [np.asarray(Image.open(tmp_path / "out" / row["file"].lstrip("'"))) for row in own]
        else:
            with av.open(str(path)) as container:
                decoded = list(container.decode(video=0))
                assert container.metadata["title"] == video.id
            read = [frame.to_ndarray(format="gray") for frame in decoded]
            times = np.array([frame.time for frame in decoded])
            assert np.abs(times - (video.timestamps - video.timestamps[0])).max() <= 0.0011
        assert np.array_equal(np.stack(read), video.frames)
    with pytest.raises(OutputError, match="exists already") as caught:
        export(data, tmp_path / "out", kind)
    assert caught.value.path.parent == tmp_path / "out"


def test_one_video_alone_and_none(data, tmp_path):
    assert [path.name for path in export(data, tmp_path / "one", "npz", only="a b")] == ["a b.npz"]
    with pytest.raises(DataError, match="no video 'gone' with frames"):
        export(data, tmp_path / "none", "npz", only="gone")
    assert not (tmp_path / "none").exists()


def test_the_dataset_as_a_table(data):
    table = data.table()
    assert list(table["id"]) == ["a b", "=c,\u00e9", "gone"] and list(table["length"]) == [20, 7, 0]
    frames = data.table(frames=True)
    assert len(frames["x_0"]) == 27 and list(frames["video"][:2]) == ["a b", "a b"]


def test_parquet_reads_back_as_the_file(data, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    export(data, tmp_path / "t.parquet", "table")
    table = parquet.read_table(tmp_path / "t.parquet")
    assert table["video"].to_pylist() == ["a b"] * 20 + ["=c,\u00e9"] * 7
    assert np.array_equal(table["x_30"].to_numpy()[:20], data["a b"].landmarks[:, 30, 0])


def test_what_is_marked_is_not_written(data, tmp_path):
    marks = tmp_path / "m.csv"
    write_marks(marks, [Mark("a b", 3, 9, "hand")])
    numbers = [*range(3), *range(10, 20)]
    done = invoke("export", data.path, tmp_path / "t.csv", "--marks", marks, "--video", "a b")
    assert [int(row["frame_index"]) for row in rows_of(tmp_path / "t.csv")] == numbers
    assert "leaves out 7 frames of 1 video (hand); --marks none ignores it." in done.stderr
    invoke("export", data.path, tmp_path / "faces", "--format", "faces", "--marks", marks)
    folder = tmp_path / "faces" / "a b"
    assert [int(path.stem) for path in sorted(folder.iterdir())] == numbers
    invoke("export", data.path, tmp_path / "npz", "--format", "npz", "--marks", marks)
    with np.load(tmp_path / "npz" / "a b.npz") as arrays:
        np.testing.assert_array_equal(arrays["frames"], data["a b"].frames[numbers])
        assert arrays["video_length"] == 13
    done = invoke("export", data.path, tmp_path / "all.csv", "--marks", "none", "--json")
    assert len(rows_of(tmp_path / "all.csv")) == 27 and '"left_out": null' in done.stdout
